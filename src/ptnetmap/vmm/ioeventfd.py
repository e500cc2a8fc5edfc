# SPDX-License-Identifier: BSD-2-Clause
"""I/O handlers of a machine: the registry, what KVM knows of it, and groups of handlers that move with a BAR."""

from __future__ import annotations

import contextlib
import errno
import threading
from dataclasses import replace

from ptnetmap.abi.kvm import machine
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.iohandler import Entry, Handler, Ioeventfd, Match, Registry
from ptnetmap.vmm.kvm import Handle, structure


class IoHandlers:
    """All I/O handlers of the machine ``handle``. Any thread may call; changes are all or nothing."""

    def __init__(self, handle: Handle, registry: Registry | None = None) -> None:
        self._handle = handle
        self._registry = registry or Registry()
        self._lock = threading.Lock()
        self._known: dict[Ioeventfd, None] = {}

    def __len__(self) -> int:
        return len(self._registry)

    def change(self, removed: list[Entry], added: list[tuple[Entry, Handler]]) -> None:
        """Remove and add handlers; raises HypervisorError as :meth:`Registry.changed`, or what KVM says."""
        with self._lock:
            if self._handle.closed:  # and KVM's part with it
                return
            before = self._registry
            self._registry = before.changed(removed, added)
            try:
                self._tell_kvm()
            except HypervisorError:
                self._registry = before
                with contextlib.suppress(HypervisorError):
                    self._tell_kvm()
                raise

    def dispatch(self, kind: str, address: int, size: int, write: bool, value: int) -> bool:
        """Signal the handler that takes an access, if any, and return whether there was one."""
        handler = self._registry.find(kind, address, size, write, value)
        if handler is None:
            return False
        handler.signal(value)
        return True

    def _tell_kvm(self) -> None:
        # What is dropped goes first: KVM refuses two that overlap. In between, writes come out and are matched here.
        wanted = dict.fromkeys(self._registry.ioeventfds())
        for ioeventfd in [known for known in self._known if known not in wanted]:
            self._request(ioeventfd, machine.KVM_IOEVENTFD_FLAG_DEASSIGN)
            del self._known[ioeventfd]
        for ioeventfd in wanted:
            if ioeventfd in self._known:
                continue
            try:
                self._request(ioeventfd, 0)
            except HypervisorError as error:
                if error.errno != errno.ENOSPC:  # KVM's bus is full: this one comes out of the guest, and works
                    raise
            else:
                self._known[ioeventfd] = None

    def _request(self, ioeventfd: Ioeventfd, flags: int) -> None:
        if ioeventfd.kind == "port":
            flags |= machine.KVM_IOEVENTFD_FLAG_PIO
        if ioeventfd.data is not None:
            flags |= machine.KVM_IOEVENTFD_FLAG_DATAMATCH
        argument = structure(
            machine.kvm_ioeventfd,
            datamatch=ioeventfd.data or 0,
            addr=ioeventfd.address,
            len=ioeventfd.width,
            fd=ioeventfd.fd,
            flags=flags,
        )
        self._handle.call("KVM_IOEVENTFD", argument, f"give an open eventfd: {ioeventfd.fd} may be none")


class HandlerGroup:
    """Handlers at offsets from a ``base`` that moves, like a BAR; made by ``Vm.handler_group``.

    ``base`` is None while the group is hidden: its handlers exist, and nothing signals them. Illegal changes change
    nothing and raise HypervisorError.
    """

    def __init__(self, handlers: IoHandlers, kind: str, base: int | None) -> None:
        self.kind = kind
        self.base = base
        self._handlers = handlers
        self._members: dict[Match, Handler] = {}  # their addresses are offsets

    def add(
        self, offset: int, *, in_: bool = False, size: int = 0, mask: int = 0, data: int = 0, handler: Handler
    ) -> None:
        """Signal ``handler`` for accesses at ``base + offset``; the rest is as in ``Vm.io_reg_handler``."""
        match = Match(self.kind, offset, in_, size, mask, data)  # nonsense is refused also while hidden
        if match in self._members:
            raise HypervisorError(
                errno.EEXIST, f"kvm: there is such an I/O handler at offset {offset:#x}\n        remove it before"
            )
        if self.base is not None:
            self._handlers.change([], [(self._entry(match, self.base), handler)])
        self._members[match] = handler

    def remove(self, offset: int, *, in_: bool = False, size: int = 0, mask: int = 0, data: int = 0) -> None:
        """Take back what was added with the same arguments."""
        match = Match(self.kind, offset, in_, size, mask, data)
        if match not in self._members:
            raise HypervisorError(
                errno.ENOENT, f"kvm: there is no such I/O handler at offset {offset:#x}\n        remove what was added"
            )
        if self.base is not None:
            self._handlers.change([self._entry(match, self.base)], [])
        del self._members[match]

    def move(self, new_base: int | None) -> None:
        """Move all of them, or hide them with None.

        A guest may move a BAR onto another: then whoever was there first is signalled, until it leaves.
        """
        removed = [] if self.base is None else [self._entry(match, self.base) for match in self._members]
        added = []
        if new_base is not None:
            added = [(self._entry(match, new_base), handler) for match, handler in self._members.items()]
        self._handlers.change(removed, added)
        self.base = new_base

    def close(self) -> None:
        """Take all of them back."""
        self.move(None)
        self._members.clear()

    def _entry(self, match: Match, base: int) -> Entry:
        return replace(match, address=base + match.address), self
