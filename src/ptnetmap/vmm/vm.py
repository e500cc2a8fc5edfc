# SPDX-License-Identifier: BSD-2-Clause
"""A virtual machine: memory, interrupts, processors, I/O handlers."""

from __future__ import annotations

import contextlib
import errno
from typing import Self

import numpy as np

from ptnetmap.abi.kvm import machine
from ptnetmap.abi.kvm.ioctl import CAPABILITIES
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.interrupts import Interrupts
from ptnetmap.vmm.ioeventfd import HandlerGroup, IoHandlers
from ptnetmap.vmm.iohandler import Handler, Match
from ptnetmap.vmm.kvm import Handle, Kvm, structure
from ptnetmap.vmm.memory import GuestMemory
from ptnetmap.vmm.slots import Slots, UserBuf, check_sealed
from ptnetmap.vmm.vcpu import Vcpu

TSS_ADDRESS = 0xFFFBD000
"""Three pages below 4 GB where VT-x without unrestricted guests keeps a task state segment; nothing else is there."""
IDENTITY_MAP_ADDRESS = 0xFFFBC000
"""A page below them, for the page table of real mode on the same processors."""


class Vm:
    """A virtual machine of KVM, with an in-kernel I/O APIC, PICs and PIT, and ``memory`` as its RAM.

    ``kvm`` is the host's, opened (and closed) by itself if left out. ``interrupts`` are the machine's
    :class:`Interrupts`, ``vcpus`` the processors that :meth:`create_vcpu` made. Closing it ends the machine, not its
    memory. Raises HypervisorError where KVM, or the host, cannot.
    """

    def __init__(self, name: str, memory: GuestMemory, *, kvm: Kvm | None = None) -> None:
        self.name = name
        self.memory = memory
        self.vcpus: list[Vcpu] = []
        with contextlib.ExitStack() as undo:
            self.kvm = undo.enter_context(Kvm()) if kvm is None else kvm
            self._handle = self.kvm.create_vm(name)
            undo.callback(self._handle.close)
            self._set_up(self.kvm)
            self._opened = undo.pop_all()

    def _set_up(self, kvm: Kvm) -> None:
        # Only some Intel processors need these two; other back ends may not know them.
        with contextlib.suppress(HypervisorError):
            self._handle.call("KVM_SET_IDENTITY_MAP_ADDR", np.array(IDENTITY_MAP_ADDRESS, "<u8"))
        with contextlib.suppress(HypervisorError):
            self._handle.call("KVM_SET_TSS_ADDR", TSS_ADDRESS)
        self._handle.call("KVM_CREATE_IRQCHIP")
        self._handle.call("KVM_CREATE_PIT2", structure(machine.kvm_pit_config, flags=machine.KVM_PIT_SPEAKER_DUMMY))
        self._slots = Slots(self._handle, self.memory)
        self.interrupts = Interrupts(self._handle, kvm.check_extension("KVM_CAP_IRQ_ROUTING"))
        self._io_handlers = IoHandlers(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Vm {self.name!r}: {len(self.vcpus)} vCPUs, {self.memory.size:,} bytes>"

    def close(self) -> None:
        """End the machine, with its processors; raises HypervisorError (EBUSY) while a thread runs one of them."""
        running = [vcpu.index for vcpu in self.vcpus if vcpu.running]
        if running:
            raise HypervisorError(
                errno.EBUSY,
                f"kvm: {self._handle.what} cannot be closed: vCPUs {running} run\n"
                "        kick() them, and join their threads",
            )
        for vcpu in self.vcpus:
            vcpu.close()
        self._opened.close()

    # -- processors ---------------------------------------------------------------------------------------------------

    def create_vcpu(self, index: int) -> Vcpu:
        """Return processor ``index``, whose local APIC has this number; 0 boots, the others wait for INIT and SIPI.

        Raises HypervisorError: EEXIST for one that there is, EINVAL for more than KVM allows.
        """
        most = self.kvm.check_extension("KVM_CAP_MAX_VCPU_ID") or self.kvm.check_extension("KVM_CAP_MAX_VCPUS")
        if not 0 <= index < most:
            raise HypervisorError(
                errno.EINVAL, f"kvm: no processor can have number {index}\n        give one from 0 to {most - 1}"
            )
        fd = self._handle.call("KVM_CREATE_VCPU", index, "give each processor another number, and fewer of them")
        handle = Handle(fd, f"vCPU {index} of {self._handle.what}", self._handle.ioctl)
        vcpu = Vcpu(index, handle, self.kvm.vcpu_mmap_size)
        self.vcpus.append(vcpu)
        return vcpu

    def exit_on_unknown_msrs(self) -> None:
        """Let accesses to model-specific registers that KVM does not know exit (MsrExit) instead of fault.

        Raises HypervisorError (ENOTSUP) before Linux 5.10.
        """
        if not self.kvm.check_extension("KVM_CAP_X86_USER_SPACE_MSR"):
            raise HypervisorError(
                errno.ENOTSUP, "kvm: this kernel does not let unknown MSRs exit\n        use Linux 5.10 or newer"
            )
        capability = structure(machine.kvm_enable_cap, cap=CAPABILITIES["KVM_CAP_X86_USER_SPACE_MSR"])
        capability["args"][0] = machine.KVM_MSR_EXIT_REASON_UNKNOWN | machine.KVM_MSR_EXIT_REASON_INVAL
        self._handle.call("KVM_ENABLE_CAP", capability)

    # -- memory -------------------------------------------------------------------------------------------------------

    def map_user_buf(
        self, gpa: int, address: int, size: int, *, fd: int | None = None, read_only: bool = False
    ) -> UserBuf:
        """Show ``size`` bytes of this process at ``address`` to the guest at ``gpa``: the report's VM_MAP_USER_BUF.

        All three are multiples of the page size; the caller keeps the memory mapped until ``unmap()``. ``fd``, if
        given, is the memfd that is mapped there, which must not be able to shrink. With ``read_only`` the guest's
        writes exit (MmioExit). Raises HypervisorError: EEXIST (RAM or another buffer is there), EINVAL (no guest
        memory can be there; a file that can shrink), ENOSPC (64 buffers), or what KVM says (netmap-abi 5a.9).
        """
        if fd is not None:
            check_sealed(fd)
        if read_only and not self.kvm.check_extension("KVM_CAP_READONLY_MEM"):
            raise HypervisorError(
                errno.ENOTSUP, "kvm: this KVM has no read-only memory\n        map it writable, or use another host"
            )
        return self._slots.add(gpa, address, size, read_only)

    # -- registers ----------------------------------------------------------------------------------------------------

    def io_reg_handler(
        self,
        port_or_address: int,
        *,
        in_: bool,
        size: int,
        mask: int,
        data: int,
        kind: str,
        handler: Handler,
        delete: bool = False,
    ) -> None:
        """Signal ``handler`` on accesses to a register, without a device model: the report's VM_IO_REG_HANDLER.

        Taken are accesses of ``size`` bytes (0: any) to a port (``kind`` "port") or guest-physical address ("mmio"):
        reads with ``in_``, else writes with ``value & mask == data`` (mask 0: any value). What matches is complete; a
        write that KVM can match, by its exact value or any, is not even seen by the vCPU's thread. Of handlers that
        overlap the first is signalled. ``delete`` takes back what was registered with the same arguments, whatever
        ``handler`` is. Raises HypervisorError: EEXIST (the same match twice), ENOMEM (1,024 there), ENOENT (nothing
        to delete), EINVAL (no access is like this).
        """
        entry = (Match(kind, port_or_address, in_, size, mask, data), None)
        if delete:
            self._io_handlers.change([entry], [])
        else:
            self._io_handlers.change([], [(entry, handler)])

    def handler_group(self, kind: str, base: int | None = None) -> HandlerGroup:
        """Return a group of I/O handlers that move together, as the registers in a BAR do; empty, at ``base``."""
        return HandlerGroup(self._io_handlers, kind, base)

    def dispatch_io(self, kind: str, address: int, size: int, write: bool, value: int) -> bool:
        """Signal the handler that takes an access which came out of the guest; return whether there was one.

        For the loop around :meth:`Vcpu.run`, before its own devices. What is read from a register that a handler
        takes is up to the loop: 0, say.
        """
        return self._io_handlers.dispatch(kind, address, size, write, value)
