# SPDX-License-Identifier: BSD-2-Clause
"""The threads that run a machine's processors, and what they do when one comes out of the guest.

A processor comes out for what nobody else serves: registers of device models. What touches packets does not come here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from ptnetmap.abi.kvm.run import KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN
from ptnetmap.bhyve.iospace import IoSpace
from ptnetmap.errors import GuestError, PtnetmapError
from ptnetmap.vmm import (
    Exit,
    FailEntry,
    InternalError,
    Interrupted,
    IoExit,
    MmioExit,
    MsrExit,
    Shutdown,
    SystemEvent,
    UnknownExit,
    Vcpu,
    Vm,
)

_ENDS = {KVM_SYSTEM_EVENT_SHUTDOWN: "poweroff", KVM_SYSTEM_EVENT_RESET: "reset"}


class Processors:
    """A thread for each of ``vm``'s vCPUs, started by :meth:`start` and ended by :meth:`stop`.

    ``ports`` and ``mmio`` answer the guest's accesses while ``lock`` is held. ``suspend(how)`` is called when the guest
    ends, ``failed(error)`` when a vCPU cannot go on, once per vCPU; both from the vCPU's thread, with the lock held.
    ``pinned`` are the host's CPUs for some vCPUs.
    """

    def __init__(
        self,
        vm: Vm,
        *,
        ports: IoSpace,
        mmio: IoSpace,
        lock: AbstractContextManager[Any],
        suspend: Callable[[str], None],
        failed: Callable[[PtnetmapError], None],
        pinned: Mapping[int, frozenset[int]] | None = None,
    ) -> None:
        self._vm = vm
        self._ports = ports
        self._mmio = mmio
        self._lock = lock
        self._suspend = suspend
        self._failed = failed
        self._pinned = pinned or {}
        self._stopping = False
        self._nmis: set[int] = set()
        self._threads: list[threading.Thread] = []
        self.exits = {vcpu.index: 0 for vcpu in vm.vcpus}
        """How often each vCPU has come out of the guest."""

    def start(self) -> None:
        """Let all vCPUs run."""
        for vcpu in self._vm.vcpus:
            thread = threading.Thread(target=self._run, args=(vcpu,), name=f"vcpu {vcpu.index}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Take all vCPUs out of the guest for good, and wait for their threads; not to be called by one of them."""
        self._stopping = True
        while any(thread.is_alive() for thread in self._threads):
            for vcpu in self._vm.vcpus:
                vcpu.kick()
            for thread in self._threads:
                thread.join(0.05)
        self._threads.clear()

    def inject_nmi(self) -> None:
        """Give all vCPUs a non-maskable interrupt; from any thread, and without waiting for them.

        KVM takes it from nobody else while a vCPU runs, and a guest may stay inside for ever: its own thread gives it.
        """
        for vcpu in self._vm.vcpus:
            self._nmis.add(vcpu.index)
            vcpu.kick()

    def _run(self, vcpu: Vcpu) -> None:
        try:
            if vcpu.index in self._pinned:
                os.sched_setaffinity(0, self._pinned[vcpu.index])
            while not self._stopping:
                left = vcpu.run()
                self.exits[vcpu.index] += 1
                if not self._serve(vcpu, left):
                    return
        except PtnetmapError as error:
            self._fail(error)
        except OSError as error:  # the CPUs that it is pinned to are not there
            self._fail(GuestError(error.errno or 0, f"vCPU {vcpu.index} cannot be pinned: {error.strerror}"))
        except Exception as error:
            # A defect of a device model, that a guest has found: the machine ends, and says what happened.
            self._fail(GuestError(0, f"vCPU {vcpu.index}: a device model failed: {type(error).__name__}: {error}"))
            raise

    def _fail(self, error: PtnetmapError) -> None:
        with self._lock:
            self._failed(error)

    def _serve(self, vcpu: Vcpu, left: Exit) -> bool:
        """Do what a processor came out for; return whether it can go on."""
        match left:
            case IoExit():
                with self._lock:
                    self._serve_io(left)
            case MmioExit():
                with self._lock:
                    self._serve_mmio(left)
            case MsrExit():
                left.reply(0)
            case Interrupted():
                if vcpu.index in self._nmis:
                    self._nmis.discard(vcpu.index)
                    vcpu.inject_nmi()
            case Shutdown():
                self._end("triplefault")
                return False
            case SystemEvent(type=kind) if kind in _ENDS:
                self._end(_ENDS[kind])
                return False
            case InternalError() | FailEntry() | UnknownExit() | SystemEvent():
                raise GuestError(0, self._describe(vcpu, left))
            case _:  # Hlt: only without an in-kernel local APIC
                pass
        return True

    def _end(self, how: str) -> None:
        with self._lock:
            self._suspend(how)

    def _serve_io(self, access: IoExit) -> None:
        if access.write:
            for value in access.data:
                if not self._vm.dispatch_io("port", access.port, access.size, True, value):
                    self._ports.write(access.port, access.size, value)
            return
        values = []
        for _ in range(access.count):
            taken = self._vm.dispatch_io("port", access.port, access.size, False, 0)
            values.append(0 if taken else self._ports.read(access.port, access.size))
        access.reply(values)

    def _serve_mmio(self, access: MmioExit) -> None:
        taken = self._vm.dispatch_io("mmio", access.address, access.size, access.write, access.value)
        if access.write:
            if not taken:
                self._mmio.write(access.address, access.size, access.value)
        else:
            access.reply(0 if taken else self._mmio.read(access.address, access.size))

    @staticmethod
    def _describe(vcpu: Vcpu, left: Exit) -> str:
        """Say why a processor cannot go on, and where it was."""
        what = str(left) if isinstance(left, InternalError) else repr(left)
        regs = vcpu.get_regs()
        return f"vCPU {vcpu.index} stopped at rip {int(regs['rip']):#x}: {what}"
