# SPDX-License-Identifier: BSD-2-Clause
"""What a device may ask of the machine that it sits in.

Devices know these protocols, not the hypervisor: a real machine gives them :mod:`ptnetmap.vmm`'s objects, a test gives
them stand-ins. Every call into a device is made with :attr:`Host.lock` held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, TypeAlias

from ptnetmap.bhyve.iospace import IoSpace


class Segment(Protocol):
    """A piece of guest memory that is contiguous for the guest and for us."""

    @property
    def gpa(self) -> int:
        """Guest-physical address of its first byte."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def offset(self) -> int:
        """Where it begins in the memory's file."""


class Memory(Protocol):
    """The guest's RAM; what a guest says about it is checked here."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    @property
    def low_size(self) -> int:
        """Bytes below the PCI hole, from address 0."""

    @property
    def high_size(self) -> int:
        """Bytes from 4 GB on."""

    @property
    def fd(self) -> int:
        """The sealed memfd."""

    @property
    def segments(self) -> Sequence[Segment]:
        """The low segment, and the high one if there is any."""

    def host(self, gpa: int, length: int) -> int | None:
        """Return the host address of a range within one segment, or None."""

    def view(self, gpa: int, length: int) -> memoryview:
        """Return a range without copying; raises GuestError (EFAULT)."""

    def read(self, gpa: int, n: int) -> bytes:
        """Return ``n`` bytes; raises GuestError (EFAULT)."""

    def write(self, gpa: int, data: bytes, /) -> None:
        """Store ``data``; raises GuestError (EFAULT)."""

    def read_int(self, gpa: int, size: int) -> int:
        """Return a little-endian integer; raises GuestError (EFAULT)."""

    def write_int(self, gpa: int, size: int, value: int) -> None:
        """Store a little-endian integer; raises GuestError (EFAULT)."""


class Line(Protocol):
    """An input of the interrupt controllers."""

    def set(self, level: bool, /) -> None:
        """Drive it high or low."""

    def irqfd(self, eventfd: int, resamplefd: int | None = None) -> None:
        """Let writes to ``eventfd`` raise it, without us."""

    def close(self) -> None:
        """Let go of it, low."""


class MsiRoute(Protocol):
    """A message-signalled interrupt that the hypervisor can deliver."""

    def set(self, address: int, data: int) -> None:
        """Change the message; raises HypervisorError for one that cannot be."""

    def mask(self) -> None:
        """Deliver nothing until :meth:`set` is called again."""

    def signal(self) -> None:
        """Deliver the message once."""

    def attach(self, eventfd: int) -> None:
        """Let writes to ``eventfd`` deliver it, without us."""

    def detach(self) -> None:
        """Take the eventfd back; what is written from now on stays in its counter."""

    def close(self) -> None:
        """Give the route back."""


class Interrupts(Protocol):
    """The machine's interrupt controllers."""

    def line(self, gsi: int) -> Line:
        """Return the input ``gsi``."""

    def allocate_msi(self) -> MsiRoute:
        """Return a route of its own."""

    def signal_msi(self, address: int, data: int) -> None:
        """Deliver one message that has no route."""


class UserBuf(Protocol):
    """Memory of ours that the guest sees at an address, as the report's VM_MAP_USER_BUF."""

    @property
    def gpa(self) -> int:
        """Where the guest sees it."""

    def move(self, gpa: int) -> None:
        """Show it elsewhere; raises HypervisorError."""

    def unmap(self) -> None:
        """Show it no more."""


Kind: TypeAlias = Literal["port", "mmio"]
"""The address space of a register that the hypervisor watches."""


class HandlerGroup(Protocol):
    """Handlers of accesses, at offsets from a base that moves, like a BAR's."""

    def add(self, offset: int, *, in_: bool = False, size: int = 0, mask: int = 0, data: int = 0, handler: Any) -> None:
        """Signal ``handler``, as :meth:`Vm.io_reg_handler`, on an access at ``offset``."""

    def move(self, new_base: int | None, /) -> None:
        """Move all of them, or hide them (None); raises HypervisorError."""

    def close(self) -> None:
        """Take all of them back."""


class Vm(Protocol):
    """What devices use of a virtual machine of KVM."""

    def map_user_buf(
        self, gpa: int, address: int, size: int, *, fd: int | None = None, read_only: bool = False
    ) -> UserBuf:
        """Show ``size`` bytes at the host's ``address`` to the guest at ``gpa``; raises HypervisorError."""

    def io_reg_handler(
        self,
        port_or_address: int,
        *,
        in_: bool,
        size: int,
        mask: int,
        data: int,
        kind: Kind,
        handler: Any,
        delete: bool = False,
    ) -> Any:
        """Signal ``handler`` on an access, without a device model, as the report's VM_IO_REG_HANDLER."""

    def handler_group(self, kind: Kind, base: int | None = None) -> HandlerGroup:
        """Return an empty group of such handlers, at ``base``."""


class Host(Protocol):
    """The machine, as its devices see it."""

    @property
    def name(self) -> str:
        """The virtual machine's name."""

    @property
    def options(self) -> Mapping[str, str]:
        """The whole configuration, a flat mapping of dotted keys."""

    @property
    def memory(self) -> Memory:
        """The guest's RAM."""

    @property
    def vm(self) -> Vm | None:
        """KVM's side; None where no KVM is involved, as in tests."""

    @property
    def interrupts(self) -> Interrupts:
        """The interrupt controllers."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """The reentrant lock that is held while any device model runs."""

    @property
    def ports(self) -> IoSpace:
        """The I/O ports."""

    @property
    def mmio(self) -> IoSpace:
        """Guest-physical addresses without memory behind them."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the main thread; None where none runs."""

    def suspend(self, how: str) -> None:
        """End the guest's run: ``how`` is "reset", "poweroff", "halt" or "triplefault"."""
