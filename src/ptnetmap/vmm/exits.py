# SPDX-License-Identifier: BSD-2-Clause
"""Why a vCPU came out of the guest: one small class per reason.

What the guest wants to read is answered by :meth:`IoExit.reply`, :meth:`MmioExit.reply` or :meth:`MsrExit.reply`
before the vCPU runs again; what is not answered reads as whatever lay there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ptnetmap.abi.kvm.run import (
    KVM_INTERNAL_ERROR_DELIVERY_EV,
    KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_SIMUL_EX,
    KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
)


@dataclass(frozen=True, slots=True)
class IoExit:
    """``count`` accesses of ``size`` bytes (1, 2 or 4) to ``port``; ``data`` is what is written, in this order.

    ``count`` exceeds 1 for string instructions; ``data`` is empty for reads.
    """

    port: int
    size: int
    write: bool
    count: int
    data: tuple[int, ...]
    _place: memoryview = field(repr=False, compare=False)

    def reply(self, values: int | Sequence[int]) -> None:
        """Say what is read, modulo the size: a value for every access, or one per access."""
        if isinstance(values, int):
            values = (values,) * self.count
        if self.write or len(values) != self.count:
            raise ValueError(f"{len(values)} values for {0 if self.write else self.count} reads")
        mask = (1 << 8 * self.size) - 1
        self._place[:] = b"".join((value & mask).to_bytes(self.size, "little") for value in values)


@dataclass(frozen=True, slots=True)
class MmioExit:
    """An access of ``size`` bytes (1 to 8) to guest-physical ``address``; ``value`` is what is written, else 0."""

    address: int
    size: int
    write: bool
    value: int
    _place: memoryview = field(repr=False, compare=False)

    def reply(self, value: int) -> None:
        """Say what is read, modulo the size."""
        if self.write:
            raise ValueError("a write has no answer")
        self._place[: self.size] = (value & (1 << 8 * self.size) - 1).to_bytes(self.size, "little")


@dataclass(frozen=True, slots=True)
class MsrExit:
    """An access to a model-specific register that KVM does not know, after ``Vm.exit_on_unknown_msrs()``."""

    index: int
    write: bool
    value: int
    _error: memoryview = field(repr=False, compare=False)
    _place: memoryview = field(repr=False, compare=False)

    def reply(self, value: int = 0) -> None:
        """Let the instruction be done; ``value`` is what a read gives, modulo 64 bits."""
        self._error[0] = 0
        if not self.write:
            self._place[:] = (value & (1 << 64) - 1).to_bytes(8, "little")

    def refuse(self) -> None:
        """Let the instruction fault (#GP)."""
        self._error[0] = 1


@dataclass(frozen=True, slots=True)
class Hlt:
    """The guest halted; only KVMs without an in-kernel local APIC say so."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Triple fault: the guest is to be reset."""


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """The guest asked the hypervisor for something: ``type`` is ``KVM_SYSTEM_EVENT_*``."""

    type: int
    data: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InternalError:
    """KVM cannot go on with the guest: ``suberror`` is ``KVM_INTERNAL_ERROR_*``.

    ``instruction`` is the one that KVM cannot emulate, if it said which.
    """

    suberror: int
    data: tuple[int, ...]
    instruction: bytes

    def __str__(self) -> str:
        """Say it in words."""
        words = _SUBERRORS.get(self.suberror, f"error {self.suberror}")
        shown = f": {self.instruction.hex(' ')}" if self.instruction else ""
        return f"KVM cannot go on: {words}{shown} ({', '.join(map(hex, self.data))})"


_SUBERRORS = {
    KVM_INTERNAL_ERROR_EMULATION: "an instruction that it cannot emulate",
    KVM_INTERNAL_ERROR_SIMUL_EX: "simultaneous exceptions",
    KVM_INTERNAL_ERROR_DELIVERY_EV: "an exit while an event was delivered",
    KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: "an unexpected exit",
}


@dataclass(frozen=True, slots=True)
class FailEntry:
    """The processor refused to enter the guest, whose registers are not as they must be; ``reason`` is its number."""

    reason: int
    cpu: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Somebody called :meth:`~ptnetmap.vmm.vcpu.Vcpu.kick`, or a signal came; running again goes on."""


@dataclass(frozen=True, slots=True)
class UnknownExit:
    """Another reason, ``KVM_EXIT_*``; ``hardware`` is the processor's number with KVM_EXIT_UNKNOWN."""

    reason: int
    hardware: int


Exit: TypeAlias = (
    IoExit | MmioExit | MsrExit | Hlt | Shutdown | SystemEvent | InternalError | FailEntry | Interrupted | UnknownExit
)
"""What :meth:`~ptnetmap.vmm.vcpu.Vcpu.run` returns."""
