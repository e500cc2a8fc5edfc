# SPDX-License-Identifier: BSD-2-Clause
"""Memory slots of a machine: its RAM, and buffers of this process that the guest sees, which may move (BARs)."""

from __future__ import annotations

import errno
import fcntl
import mmap
import threading

from ptnetmap.abi.kvm import machine
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.kvm import Handle, structure
from ptnetmap.vmm.memory import GuestMemory

MAX_USER_BUFS = 64
"""Buffers per machine (netmap-abi 5a.9)."""
_F_GET_SEALS = 1034
_F_SEAL_SHRINK = 0x2


class UserBuf:
    """``size`` bytes of this process that the guest sees at ``gpa``; made by ``Vm.map_user_buf``."""

    def __init__(self, slots: Slots, number: int, gpa: int, address: int, size: int, read_only: bool) -> None:
        self.number = number
        self.gpa = gpa
        self.address = address
        self.size = size
        self.read_only = read_only
        self._slots = slots

    def __repr__(self) -> str:
        return f"<UserBuf: {self.size:,} bytes at {self.gpa:#x}>"

    def move(self, gpa: int) -> None:
        """Show it at ``gpa``, page aligned, instead.

        Raises HypervisorError, and changes nothing: EEXIST (RAM or another buffer is there), EINVAL (no guest memory
        can be there), EBADF (it is unmapped).
        """
        self._slots.move(self, gpa)

    def unmap(self) -> None:
        """Take it from the guest, for good; from then on nothing uses the memory."""
        self._slots.remove(self)


class Slots:
    """All memory slots of the machine ``handle``. Any thread may call."""

    def __init__(self, handle: Handle, memory: GuestMemory) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self._ram = [(segment.gpa, segment.size) for segment in memory.segments]
        self._buffers: set[UserBuf] = set()
        for number, segment in enumerate(memory.segments):
            self._set(number, segment.gpa, segment.size, segment.address)

    def add(self, gpa: int, address: int, size: int, read_only: bool) -> UserBuf:
        """Show a buffer to the guest; see ``Vm.map_user_buf``."""
        if size <= 0 or size % mmap.PAGESIZE or address % mmap.PAGESIZE:
            raise HypervisorError(
                errno.EINVAL,
                f"kvm: a guest cannot see {size:,} bytes from {address:#x} on\n"
                f"        give an address and a size that are multiples of {mmap.PAGESIZE:,}",
            )
        with self._lock:
            free = set(range(len(self._ram), len(self._ram) + MAX_USER_BUFS)) - {
                other.number for other in self._buffers
            }
            if not free:
                raise HypervisorError(
                    errno.ENOSPC,
                    f"kvm: {MAX_USER_BUFS} buffers are mapped already\n        unmap one, or use fewer devices",
                )
            buffer = UserBuf(self, min(free), gpa, address, size, read_only)
            self._check(buffer, gpa)
            self._set(buffer.number, gpa, size, address, read_only)
            self._buffers.add(buffer)
            return buffer

    def move(self, buffer: UserBuf, gpa: int) -> None:
        """Show a buffer elsewhere."""
        with self._lock:
            if buffer not in self._buffers:
                raise HypervisorError(errno.EBADF, "kvm: this buffer is unmapped\n        map it again")
            self._check(buffer, gpa)
            self._set(buffer.number, gpa, buffer.size, buffer.address, buffer.read_only)
            buffer.gpa = gpa

    def remove(self, buffer: UserBuf) -> None:
        """Take a buffer from the guest, for good."""
        with self._lock:
            if buffer in self._buffers:
                if not self._handle.closed:
                    self._set(buffer.number, buffer.gpa, 0, buffer.address)
                self._buffers.remove(buffer)

    def _check(self, buffer: UserBuf, gpa: int) -> None:
        if gpa < 0 or gpa % mmap.PAGESIZE or gpa + buffer.size > 1 << 64:
            raise HypervisorError(
                errno.EINVAL,
                f"kvm: a guest cannot see {buffer.size:,} bytes at {gpa:#x}\n"
                f"        give an address that is a multiple of {mmap.PAGESIZE:,}",
            )
        others = [(other.gpa, other.size) for other in self._buffers if other is not buffer]
        for start, size in (*self._ram, *others):
            if gpa < start + size and start < gpa + buffer.size:
                raise HypervisorError(
                    errno.EEXIST,
                    f"kvm: a guest cannot see {buffer.size:,} bytes at {gpa:#x}: it has other memory at "
                    f"{start:#x}-{start + size:#x}\n        give a place where it has none",
                )

    def _set(self, number: int, gpa: int, size: int, address: int, read_only: bool = False) -> None:
        region = structure(
            machine.kvm_userspace_memory_region,
            slot=number,
            flags=machine.KVM_MEM_READONLY if read_only and size else 0,
            guest_phys_addr=gpa,
            memory_size=size,
            userspace_addr=address,
        )
        self._handle.call("KVM_SET_USER_MEMORY_REGION", region, f"check that {address:#x} is mapped in this process")


def check_sealed(fd: int) -> None:
    """Raise HypervisorError (EINVAL) unless ``fd`` is a memfd that cannot shrink: what a guest needs cannot vanish."""
    try:
        seals = fcntl.fcntl(fd, _F_GET_SEALS)
    except OSError:
        seals = 0
    if not seals & _F_SEAL_SHRINK:
        raise HypervisorError(
            errno.EINVAL,
            f"kvm: a guest cannot be shown descriptor {fd}, which can shrink\n        give a memfd with F_SEAL_SHRINK",
        )
