# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ptnetmap.bhyve.iospace import IoSpace
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.memory import GuestMemory


class FakeLine:
    """An input of the interrupt controllers: its level now, and all the levels it had."""

    def __init__(self, gsi: int) -> None:
        self.gsi = gsi
        self.level = False
        self.levels: list[bool] = []
        self.irqfds: list[tuple[int, int | None]] = []
        self.closed = False

    def set(self, level: bool) -> None:
        assert not self.closed
        self.level = bool(level)
        self.levels.append(self.level)

    def irqfd(self, eventfd: int, resamplefd: int | None = None) -> None:
        self.irqfds.append((eventfd, resamplefd))

    def close(self) -> None:
        self.closed = True
        self.level = False


class FakeRoute:
    """A route: ``message`` is (address, data), ``eventfd`` what KVM would listen to."""

    def __init__(self, interrupts: "FakeInterrupts") -> None:
        self.interrupts = interrupts
        self.message: tuple[int, int] | None = None
        self.eventfd: int | None = None
        self.closed = False

    def set(self, address: int, data: int) -> None:
        assert not self.closed
        if (address, data) in self.interrupts.refused:
            raise HypervisorError(errno.EINVAL, "KVM_SET_GSI_ROUTING: no such message")
        self.message = (address, data)

    def mask(self) -> None:
        self.message = None

    def signal(self) -> None:
        assert not self.closed
        if self.message is not None:
            self.interrupts.messages.append(self.message)

    def attach(self, eventfd: int) -> None:
        assert not self.closed
        assert self.eventfd is None
        if self.message in self.interrupts.refused_late:
            raise HypervisorError(errno.EINVAL, "KVM_SET_GSI_ROUTING: no such message")
        self.eventfd = eventfd

    def detach(self) -> None:
        assert self.eventfd is not None
        self.interrupts.poll()
        self.eventfd = None

    def close(self) -> None:
        assert not self.closed
        assert self.eventfd is None
        self.closed = True


class FakeInterrupts:
    """Records what is delivered: ``messages`` as (address, data) in order, ``lines`` by GSI.

    ``refused`` are messages that a route does not take, ``refused_late`` those that it refuses for an eventfd.
    ``poll()`` does what KVM does by itself: delivers for attached eventfds that were written to.
    """

    def __init__(self) -> None:
        self.lines: dict[int, FakeLine] = {}
        self.routes: list[FakeRoute] = []
        self.messages: list[tuple[int, int]] = []
        self.refused: set[tuple[int, int]] = set()
        self.refused_late: set[tuple[int, int]] = set()

    def line(self, gsi: int) -> FakeLine:
        if gsi not in self.lines or self.lines[gsi].closed:
            self.lines[gsi] = FakeLine(gsi)
        return self.lines[gsi]

    def allocate_msi(self) -> FakeRoute:
        self.routes.append(FakeRoute(self))
        return self.routes[-1]

    def signal_msi(self, address: int, data: int) -> None:
        self.messages.append((address, data))

    def poll(self) -> None:
        for route in self.routes:
            if route.eventfd is not None:
                try:
                    os.read(route.eventfd, 8)
                except BlockingIOError:
                    continue
                route.signal()

    @property
    def high(self) -> set[int]:
        """The GSIs that are high."""
        return {gsi for gsi, line in self.lines.items() if line.level}


class FakeUserBuf:
    def __init__(self, vm: "FakeVm", gpa: int, address: int, size: int) -> None:
        self.vm = vm
        self.gpa = gpa
        self.address = address
        self.size = size

    def move(self, gpa: int) -> None:
        self.vm.check(gpa, self.size, self)
        self.gpa = gpa

    def unmap(self) -> None:
        self.vm.bufs.remove(self)


class FakeHandlerGroup:
    def __init__(self, kind: str, base: int | None) -> None:
        self.kind = kind
        self.base = base
        self.members: list[dict[str, Any]] = []
        self.closed = False

    def add(self, offset: int, **arguments: Any) -> None:
        self.members.append({"offset": offset, **arguments})

    def move(self, new_base: int | None) -> None:
        self.base = new_base

    def close(self) -> None:
        self.closed = True


class FakeVm:
    """Records what devices map and register; refuses mappings that overlap, as KVM does.

    ``bufs`` are the mappings there are, ``handlers`` the arguments of io_reg_handler in order, ``groups`` the groups
    of handlers. ``refuses`` makes it refuse every mapping.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.bufs: list[FakeUserBuf] = []
        self.handlers: list[dict[str, Any]] = []
        self.groups: list[FakeHandlerGroup] = []
        self.refuses = False

    def check(self, gpa: int, size: int, itself: FakeUserBuf | None = None) -> None:
        taken = [(s.gpa, s.size) for s in self.memory.segments]
        taken += [(buf.gpa, buf.size) for buf in self.bufs if buf is not itself]
        if self.refuses or gpa + size >= 1 << 64 or any(gpa < g + n and g < gpa + size for g, n in taken):
            raise HypervisorError(errno.EEXIST, f"KVM_SET_USER_MEMORY_REGION: {gpa:#x} is taken")

    def map_user_buf(
        self, gpa: int, address: int, size: int, *, fd: int | None = None, read_only: bool = False
    ) -> FakeUserBuf:
        self.check(gpa, size)
        buf = FakeUserBuf(self, gpa, address, size)
        self.bufs.append(buf)
        return buf

    def io_reg_handler(self, port_or_address: int, **arguments: Any) -> None:
        self.handlers.append({"address": port_or_address, **arguments})

    def handler_group(self, kind: str, base: int | None = None) -> FakeHandlerGroup:
        self.groups.append(FakeHandlerGroup(kind, base))
        return self.groups[-1]


class FakeHost:
    """A machine without KVM: real memory and address spaces, interrupts and suspensions that are only recorded."""

    def __init__(self, memory: int = 16 << 20, *, vm: bool = False, **options: str) -> None:
        self.name = "testvm"
        self.options = options
        self.memory = GuestMemory(memory)
        self.vm = FakeVm(self.memory) if vm else None
        self.interrupts = FakeInterrupts()
        self.lock = threading.RLock()
        self.ports = IoSpace("port", 1 << 16)
        self.mmio = IoSpace("address", 1 << 64)
        self.loop = None
        self.suspended: list[str] = []

    def suspend(self, how: str) -> None:
        self.suspended.append(how)

    def close(self) -> None:
        self.memory.close()


@pytest.fixture
def make_host() -> Iterator[Callable[..., FakeHost]]:
    """Make machines: bytes of ``memory``, a ``vm`` or none, options by keyword."""
    hosts: list[FakeHost] = []

    def make(*arguments: Any, **options: Any) -> FakeHost:
        hosts.append(FakeHost(*arguments, **options))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


@pytest.fixture
def host(make_host: Callable[..., FakeHost]) -> FakeHost:
    """A machine of 16 MiB without KVM."""
    return make_host()


@pytest.fixture
def bus(host: FakeHost) -> Iterator[PciBus]:
    """Its PCI bus; plug devices in with ``add`` or ``create``, then ``start``."""
    bus = PciBus(host)
    yield bus
    bus.close()
    assert all(route.closed for route in host.interrupts.routes)
    assert host.interrupts.high == set()
