# SPDX-License-Identifier: BSD-2-Clause
"""/dev/kvm itself, and the one function through which everything of KVM is called."""

from __future__ import annotations

import ctypes
import errno
import os
import weakref
from collections.abc import Callable
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from ptnetmap.abi.kvm import cpu
from ptnetmap.abi.kvm.ioctl import CAPABILITIES, KVM_API_VERSION, NAMES, REQUESTS
from ptnetmap.errors import HypervisorError

Structure: TypeAlias = npt.NDArray[Any]
"""A structure of the kernel: an array without dimensions (fields by name), or bytes that hold one with its tail."""

Ioctl: TypeAlias = Callable[[int, int, "int | Structure"], int]
"""``ioctl(fd, request, argument)``: a number, or a structure that is read and written; the answer, or OSError."""

REQUIRED = (
    "KVM_CAP_IRQCHIP",
    "KVM_CAP_USER_MEMORY",
    "KVM_CAP_EXT_CPUID",
    "KVM_CAP_IRQ_ROUTING",
    "KVM_CAP_IRQFD",
    "KVM_CAP_PIT2",
    "KVM_CAP_IOEVENTFD",
    "KVM_CAP_XCRS",
    "KVM_CAP_SIGNAL_MSI",
    "KVM_CAP_IRQFD_RESAMPLE",
    "KVM_CAP_IMMEDIATE_EXIT",
)
"""What no virtual machine can do without; every x86-64 kernel since Linux 4.12 has them."""

_MAX_CPUID_ENTRIES = 256  # KVM_MAX_CPUID_ENTRIES of recent kernels; older ones have 80

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


def ioctl(fd: int, request: int, argument: int | Structure = 0) -> int:
    """Call ioctl(2) without the GIL; ``argument`` is a number or a structure. Raises OSError."""
    result: int = _libc.ioctl(fd, request, argument if isinstance(argument, int) else argument.ctypes.data)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def structure(layout: np.dtype[Any], **fields: int) -> Structure:
    """Return a zeroed structure with some ``fields`` set."""
    made = np.zeros((), layout)
    for name, value in fields.items():
        made[name] = value
    return made


def with_tail(head: np.dtype[Any], tail: Structure, **fields: int) -> Structure:
    """Return the bytes of a zeroed ``head`` with ``fields``, and the items of ``tail`` behind it."""
    return np.frombuffer(bytearray(structure(head, **fields).tobytes() + tail.tobytes()), "u1")


class Handle:
    """A descriptor of KVM's, which it owns: of the system, a machine or a vCPU; ``what`` is its name in messages."""

    def __init__(self, fd: int, what: str, ioctl: Ioctl) -> None:
        self.fd = fd
        self.what = what
        self.ioctl = ioctl
        self._finalizer = weakref.finalize(self, os.close, fd)
        self._finalizer.atexit = False

    def call(self, request: str, argument: int | Structure = 0, advice: str = "") -> int:
        """Make ``request``, for instance ``"KVM_RUN"``; raises HypervisorError with the kernel's errno.

        ``advice`` is what the message tells people to do.
        """
        try:
            return self.ioctl(self.fd, REQUESTS[request], argument)
        except OSError as error:
            raise self.refusal(REQUESTS[request], error, advice) from error

    def refusal(self, request: int, error: OSError, advice: str = "") -> HypervisorError:
        """Return the error to raise when ``request`` met ``error``."""
        number = error.errno or errno.EIO
        name = errno.errorcode.get(number, str(number))
        advice = advice or _ADVICE.get(number, "see the kernel's log (dmesg) for what KVM has to say")
        return HypervisorError(
            number, f"kvm: {NAMES[request]} failed for {self.what}: {os.strerror(number)} ({name})\n        {advice}"
        )

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self.fd == -1

    def close(self) -> None:
        """Close the descriptor; later calls fail with EBADF, whatever its number is used for by then."""
        self.fd = -1
        self._finalizer()


_ADVICE = {
    errno.ENOMEM: "give the virtual machine less memory, or free some",
    errno.ENOSPC: "use fewer devices: KVM's table of this kind is full",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOTTY: "this KVM does not know the request: use Linux 5.10 or newer",
    errno.EBUSY: "end the other hypervisor that uses the processor's virtualisation (VirtualBox, VMware)",
}


class Kvm:
    """The host's KVM, ``path`` being its device.

    ``ioctl`` replaces the system call, for tests. Raises HypervisorError: no such device (ENOENT), no permission
    (EACCES), or a KVM that lacks what virtual machines need (ENOTSUP).
    """

    def __init__(self, path: str = "/dev/kvm", *, ioctl: Ioctl = ioctl) -> None:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _cannot_open(path, error) from error
        self._handle = Handle(fd, path, ioctl)
        try:
            self._check(path)
            self.vcpu_mmap_size: int = self._handle.call("KVM_GET_VCPU_MMAP_SIZE")
        except HypervisorError:
            self.close()
            raise

    def _check(self, path: str) -> None:
        version = self._handle.call("KVM_GET_API_VERSION", advice=f"give the path of KVM's device: {path} is none")
        if version != KVM_API_VERSION:
            raise HypervisorError(
                errno.ENOTSUP,
                f"kvm: {path} has version {version} of the interface, {KVM_API_VERSION} is needed\n"
                "        use a kernel of Linux 5.10 or newer",
            )
        missing = [name for name in REQUIRED if not self.check_extension(name)]
        if missing:
            raise HypervisorError(
                errno.ENOTSUP,
                f"kvm: {path} lacks {', '.join(missing)}\n        use an x86-64 kernel of Linux 5.10 or newer",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the device; machines made of it live on."""
        self._handle.close()

    def check_extension(self, capability: str) -> int:
        """Return what this KVM says of a ``capability``, for instance ``"KVM_CAP_MAX_VCPUS"``: 0 if it has not."""
        return self._handle.call("KVM_CHECK_EXTENSION", CAPABILITIES[capability])

    def supported_cpuid(self) -> Structure:
        """Return the CPUID leaves that guests can have here: an array of ``kvm_cpuid_entry2``, to be changed at will."""
        room = np.zeros(_MAX_CPUID_ENTRIES, cpu.kvm_cpuid_entry2)
        table = with_tail(cpu.kvm_cpuid2, room, nent=len(room))
        self._handle.call("KVM_GET_SUPPORTED_CPUID", table)
        return cpuid_entries(table)

    def create_vm(self, name: str) -> Handle:
        """Return a new machine, without anything in it; ``name`` is for messages."""
        while True:
            try:
                fd = self._handle.ioctl(self._handle.fd, REQUESTS["KVM_CREATE_VM"], 0)
            except InterruptedError:
                continue
            except OSError as error:
                raise self._handle.refusal(REQUESTS["KVM_CREATE_VM"], error) from error
            return Handle(fd, f"virtual machine {name!r}", self._handle.ioctl)


def cpuid_entries(table: Structure) -> Structure:
    """Return a copy of the entries in use of a ``kvm_cpuid2`` with its tail."""
    size = cpu.kvm_cpuid2.itemsize
    count = int(table[:size].view(cpu.kvm_cpuid2)["nent"][0])
    return table[size:].view(cpu.kvm_cpuid_entry2)[:count].copy()


def _cannot_open(path: str, error: OSError) -> HypervisorError:
    advice = {
        errno.ENOENT: (
            "load kvm_intel or kvm_amd (modprobe), and switch virtualisation on in the firmware; "
            "inside a virtual machine or container, ask its host for nested virtualisation or the device"
        ),
        errno.EACCES: "join the group that owns it (usermod -aG kvm USER, then log in again)",
        errno.EPERM: "let this container have the device",
        errno.ENODEV: "load kvm_intel or kvm_amd (modprobe): the processor's virtualisation is not in use",
        errno.ENXIO: "load kvm_intel or kvm_amd (modprobe): the processor's virtualisation is not in use",
    }
    number = error.errno or errno.EIO
    return HypervisorError(
        number, f"kvm: cannot open {path}: {error.strerror}\n        {advice.get(number, 'see the kernel log (dmesg)')}"
    )
