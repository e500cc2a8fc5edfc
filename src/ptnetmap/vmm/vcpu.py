# SPDX-License-Identifier: BSD-2-Clause
"""A virtual processor: its registers, and running it."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ptnetmap.abi.kvm import cpu
from ptnetmap.abi.kvm.ioctl import REQUESTS
from ptnetmap.abi.kvm.run import kvm_run
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.exits import Exit, Interrupted
from ptnetmap.vmm.kvm import Handle, Structure, cpuid_entries, structure, with_tail
from ptnetmap.vmm.mapping import Mapping as Pages
from ptnetmap.vmm.runpage import RunPage

KICK = signal.SIGRTMIN
"""The signal that takes a vCPU out of the guest: blocked but in KVM_RUN, so that no handler ever runs."""

_KVM_RUN = REQUESTS["KVM_RUN"]
_threads = threading.local()  # blocked: this thread has KICK blocked
_MOST_ENTRIES = 256
_RUN_ADVICE = "the guest's registers or memory cannot be run: see the kernel's log (dmesg)"


class Vcpu:
    """Processor ``index`` of a machine; made by :meth:`~ptnetmap.vmm.vm.Vm.create_vcpu`, closed by its machine.

    Registers are structures of :mod:`ptnetmap.abi.kvm.cpu`: arrays without dimensions, with fields by name. What sets
    them also takes a mapping of some fields (nested, like ``{"cs": {"base": 0}}``), and leaves the others alone. One
    thread at a time may run it or touch its registers, but any may :meth:`kick` it.

    Raises HypervisorError where KVM refuses: EINVAL for registers that no processor can have.
    """

    def __init__(self, index: int, handle: Handle, mmap_size: int) -> None:
        self.index = index
        self._handle = handle
        try:
            pages = Pages(handle.fd, max(mmap_size, kvm_run.itemsize))
        except OSError as error:
            handle.close()
            raise HypervisorError(
                error.errno or errno.ENOMEM,
                f"kvm: cannot map the run page of {handle.what}: {error.strerror}\n        free some memory",
            ) from error
        self._page: RunPage | None = RunPage(pages)
        self._lock = threading.Lock()
        self._runner: int | None = None
        self._mask: set[int] | None = None

    def __repr__(self) -> str:
        return f"<Vcpu {self.index}>"

    @property
    def running(self) -> bool:
        """Whether a thread is in :meth:`run`."""
        return self._runner is not None

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self) -> Exit:
        """Run the guest until it needs us, and return why; blocks without the GIL.

        Answer a read with its ``reply`` before the next call, which completes it. A thread that runs a vCPU has the
        signal KICK blocked from then on. Raises HypervisorError if KVM cannot run it at all.
        """
        if not hasattr(_threads, "blocked"):
            _threads.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {KICK}) - {KICK}
        page = self._enter()
        try:
            while True:
                try:
                    self._handle.ioctl(self._handle.fd, _KVM_RUN, 0)
                except OSError as error:
                    if error.errno == errno.EINTR:
                        return self._interrupted(page)
                    if error.errno != errno.EAGAIN:  # which an application processor gives when INIT has come
                        raise self._handle.refusal(_KVM_RUN, error, _RUN_ADVICE) from error
                else:
                    return page.read()
        finally:
            with self._lock:
                self._runner = None

    def kick(self) -> None:
        """Make :meth:`run` return Interrupted, the one under way or else the next; from any thread.

        What the caller stored before is seen by who gets Interrupted. Kicks that were not yet noticed count once.
        """
        with self._lock:
            if self._page is not None:
                self._page.request_exit()
            if self._runner is not None:  # a thread that has left run() may be gone, and must not be signalled
                signal.pthread_kill(self._runner, KICK)

    def _enter(self) -> RunPage:
        with self._lock:
            if self._page is None:
                raise HypervisorError(errno.EBADF, f"kvm: {self._handle.what} is closed\n        create another")
            if self._runner is not None:
                raise HypervisorError(
                    errno.EBUSY, f"kvm: {self._handle.what} runs already\n        use one thread each"
                )
            if self._mask != _threads.blocked:
                self._set_mask(_threads.blocked)
            self._runner = threading.get_ident()
            return self._page

    def _set_mask(self, blocked: set[int]) -> None:
        # KICK is let through only while the kernel is in KVM_RUN: one that comes before makes KVM_RUN return at once.
        mask = sum(1 << number - 1 for number in blocked)
        words = np.array([8, mask & 0xFFFFFFFF, mask >> 32], "<u4")  # struct kvm_signal_mask: the length, and 8 bytes
        self._handle.call("KVM_SET_SIGNAL_MASK", words)
        self._mask = blocked

    def _interrupted(self, page: RunPage) -> Interrupted:
        # Cleared before returning: a later kick sets it again, and what an earlier one stands for our caller sees.
        page.clear_request()
        while signal.sigtimedwait({KICK}, 0) is not None:
            pass
        return Interrupted()

    # -- registers ----------------------------------------------------------------------------------------------------

    def get_regs(self) -> Structure:
        """Return the general registers (``kvm_regs``)."""
        return self._get("KVM_GET_REGS", cpu.kvm_regs)

    def set_regs(self, regs: Structure | Mapping[str, Any]) -> None:
        """Set the general registers (``kvm_regs``)."""
        self._set("KVM_SET_REGS", self._overlaid(self.get_regs, regs))

    def get_sregs(self) -> Structure:
        """Return segments, tables and control registers (``kvm_sregs``)."""
        return self._get("KVM_GET_SREGS", cpu.kvm_sregs)

    def set_sregs(self, sregs: Structure | Mapping[str, Any]) -> None:
        """Set segments, tables and control registers (``kvm_sregs``)."""
        self._set("KVM_SET_SREGS", self._overlaid(self.get_sregs, sregs))

    def get_fpu(self) -> Structure:
        """Return the x87 and SSE state (``kvm_fpu``)."""
        return self._get("KVM_GET_FPU", cpu.kvm_fpu)

    def set_fpu(self, fpu: Structure | Mapping[str, Any]) -> None:
        """Set the x87 and SSE state (``kvm_fpu``)."""
        self._set("KVM_SET_FPU", self._overlaid(self.get_fpu, fpu))

    def get_lapic(self) -> Structure:
        """Return the local APIC's 1,024 bytes of registers (``kvm_lapic_state``)."""
        return self._get("KVM_GET_LAPIC", cpu.kvm_lapic_state)

    def set_lapic(self, lapic: Structure | Mapping[int, int]) -> None:
        """Set the local APIC's registers: all of them, or 32-bit values by their offset (``{0xf0: 0x1ff}``)."""
        if isinstance(lapic, Mapping):
            state = self.get_lapic()
            words = state["regs"].view("<u4")
            for offset, value in lapic.items():
                words[offset // 4] = value
            lapic = state
        self._set("KVM_SET_LAPIC", lapic)

    def get_xcrs(self) -> dict[int, int]:
        """Return the extended control registers by their number; 0 is XCR0."""
        state = self._get("KVM_GET_XCRS", cpu.kvm_xcrs)
        used = state["xcrs"][: int(state["nr_xcrs"])]
        return {int(entry["xcr"]): int(entry["value"]) for entry in used}

    def set_xcrs(self, values: Mapping[int, int]) -> None:
        """Set extended control registers, by their number."""
        state = structure(cpu.kvm_xcrs, nr_xcrs=len(values))
        for at, (number, value) in enumerate(values.items()):
            state["xcrs"][at] = (number, 0, value)
        self._set("KVM_SET_XCRS", state)

    def get_cpuid(self) -> Structure:
        """Return what CPUID tells the guest: an array of ``kvm_cpuid_entry2``."""
        table = with_tail(cpu.kvm_cpuid2, np.zeros(_MOST_ENTRIES, cpu.kvm_cpuid_entry2), nent=_MOST_ENTRIES)
        self._handle.call("KVM_GET_CPUID2", table)
        return cpuid_entries(table)

    def set_cpuid(self, entries: Structure) -> None:
        """Set what CPUID tells the guest, before it first runs: an array of ``kvm_cpuid_entry2``."""
        self._handle.call("KVM_SET_CPUID2", with_tail(cpu.kvm_cpuid2, entries, nent=len(entries)))

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """Return model-specific registers by their index; raises HypervisorError (EINVAL) for one that KVM has not."""
        entries = np.array([(index, 0, 0) for index in indices], cpu.kvm_msr_entry)
        table = with_tail(cpu.kvm_msrs, entries, nmsrs=len(entries))
        self._all_msrs(entries, self._handle.call("KVM_GET_MSRS", table))
        read = table[cpu.kvm_msrs.itemsize :].view(cpu.kvm_msr_entry)
        return {int(entry["index"]): int(entry["data"]) for entry in read}

    def set_msrs(self, values: Mapping[int, int]) -> None:
        """Set model-specific registers by their index; raises HypervisorError (EINVAL) for one that KVM refuses."""
        entries = np.array([(index, 0, value) for index, value in values.items()], cpu.kvm_msr_entry)
        self._all_msrs(entries, self._handle.call("KVM_SET_MSRS", with_tail(cpu.kvm_msrs, entries, nmsrs=len(entries))))

    def get_mp_state(self) -> int:
        """Return whether the processor runs, halts, or waits to be started: ``KVM_MP_STATE_*``."""
        return int(self._get("KVM_GET_MP_STATE", cpu.kvm_mp_state)["mp_state"])

    def set_mp_state(self, state: int) -> None:
        """Set it; KVM_MP_STATE_RUNNABLE starts an application processor without INIT and SIPI."""
        self._set("KVM_SET_MP_STATE", structure(cpu.kvm_mp_state, mp_state=state))

    def inject_nmi(self) -> None:
        """Give the guest a non-maskable interrupt. While another thread is in :meth:`run`, this waits until it is not."""
        self._handle.call("KVM_NMI")

    def close(self) -> None:
        """Close it; raises HypervisorError (EBUSY) while a thread runs it: kick it and join the thread first."""
        with self._lock:
            if self._runner is not None:
                raise HypervisorError(
                    errno.EBUSY,
                    f"kvm: {self._handle.what} cannot be closed: it runs\n        kick() it, and join its thread",
                )
            self._page = None  # a mapping would keep the whole machine alive
            self._handle.close()

    def _all_msrs(self, entries: Structure, done: int) -> None:
        if done < len(entries):
            raise HypervisorError(
                errno.EINVAL,
                f"kvm: {self._handle.what} has no MSR {int(entries[done]['index']):#x}, or not this value of it\n"
                "        leave it out, or look up what this processor has",
            )

    def _get(self, request: str, layout: np.dtype[Any]) -> Structure:
        state = structure(layout)
        self._handle.call(request, state)
        return state

    def _set(self, request: str, state: Structure) -> None:
        self._handle.call(request, state, "a value is one that no processor can have: check what was set")

    @staticmethod
    def _overlaid(get: Any, values: Structure | Mapping[str, Any]) -> Structure:
        if not isinstance(values, Mapping):
            return values
        state: Structure = get()
        for name, value in values.items():
            if isinstance(value, Mapping):
                for inner, number in value.items():
                    state[name][inner] = number
            else:
                state[name] = value
        return state
