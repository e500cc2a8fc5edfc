# SPDX-License-Identifier: BSD-2-Clause
"""The page that a vCPU and KVM share, and reading an exit from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptnetmap.abi.kvm import run
from ptnetmap.vmm.exits import (
    Exit,
    FailEntry,
    Hlt,
    InternalError,
    Interrupted,
    IoExit,
    MmioExit,
    MsrExit,
    Shutdown,
    SystemEvent,
    UnknownExit,
)
from ptnetmap.vmm.mapping import Mapping


class RunPage:
    """A vCPU's ``kvm_run``, and the data page behind it.

    The kernel writes it, not the guest; what it says is used as it is, within the mapping.
    """

    def __init__(self, pages: Mapping) -> None:
        self._bytes = pages.bytes()
        # Views of single fields, made once: an exit reads five of them.
        self._page = pages.structure(run.kvm_run)
        self._exit_reason = self._page["exit_reason"]
        self._immediate_exit = self._page["immediate_exit"]
        io, mmio = self._page["io"], self._page["mmio"]
        self._io = tuple(io[name] for name in ("direction", "size", "port", "count", "data_offset"))
        self._mmio = tuple(mmio[name] for name in ("phys_addr", "len", "is_write"))
        self._mmio_place = self._field("mmio", "data")
        self._msr_error, self._msr_place = self._field("msr", "error"), self._field("msr", "data")

    def _field(self, union: str, name: str) -> memoryview:
        fields: Any = run.kvm_run.fields
        layout, base = fields[union][:2]
        inner, offset = layout.fields[name][:2]
        return self._bytes[base + offset : base + offset + inner.itemsize]

    def request_exit(self) -> None:
        """Make KVM_RUN return EINTR before it enters the guest, until :meth:`clear_request`."""
        self._immediate_exit[...] = 1

    def clear_request(self) -> None:
        """Let KVM_RUN enter the guest again."""
        self._immediate_exit[...] = 0

    def read(self) -> Exit:
        """Return why KVM_RUN came back."""
        reason = self._exit_reason.item()
        read = _READERS.get(reason)
        if read is None:
            return UnknownExit(reason, int(self._page["hw"]["hardware_exit_reason"]))
        return read(self)

    def _read_io(self) -> IoExit:
        direction, size, port, count, offset = (field.item() for field in self._io)
        place = self._bytes[offset : offset + size * count]
        write = direction == run.KVM_EXIT_IO_OUT
        if not write:
            return IoExit(port, size, False, count, (), place)
        if count == 1:
            return IoExit(port, size, True, 1, (int.from_bytes(place, "little"),), place)
        data = tuple(np.frombuffer(place, f"<u{size}").tolist())
        return IoExit(port, size, True, count, data, place)

    def _read_mmio(self) -> MmioExit:
        address, size, write = (field.item() for field in self._mmio)
        value = int.from_bytes(self._mmio_place[:size], "little") if write else 0
        return MmioExit(address, size, bool(write), value, self._mmio_place)

    def _read_msr(self) -> MsrExit:
        msr = self._page["msr"]
        write = self._exit_reason.item() == run.KVM_EXIT_X86_WRMSR
        value = int(msr["data"]) if write else 0
        return MsrExit(int(msr["index"]), write, value, self._msr_error, self._msr_place)

    def _read_internal(self) -> InternalError:
        internal = self._page["internal"]
        suberror, count = int(internal["suberror"]), min(int(internal["ndata"]), 16)
        data = tuple(internal["data"][:count].tolist())
        failure = self._page["emulation_failure"]
        known = run.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
        instruction = b""
        if suberror == run.KVM_INTERNAL_ERROR_EMULATION and count >= 3 and int(failure["flags"]) & known:
            instruction = failure["insn_bytes"].tobytes()[: int(failure["insn_size"])]
        return InternalError(suberror, data, instruction)

    def _read_system_event(self) -> SystemEvent:
        event = self._page["system_event"]
        count = min(int(event["ndata"]), 16)
        return SystemEvent(int(event["type"]), tuple(event["data"][:count].tolist()))

    def _read_fail_entry(self) -> FailEntry:
        entry = self._page["fail_entry"]
        return FailEntry(int(entry["hardware_entry_failure_reason"]), int(entry["cpu"]))


_READERS: dict[int, Callable[[RunPage], Exit]] = {
    run.KVM_EXIT_IO: RunPage._read_io,
    run.KVM_EXIT_MMIO: RunPage._read_mmio,
    run.KVM_EXIT_HLT: lambda _: Hlt(),
    run.KVM_EXIT_SHUTDOWN: lambda _: Shutdown(),
    run.KVM_EXIT_FAIL_ENTRY: RunPage._read_fail_entry,
    run.KVM_EXIT_INTR: lambda _: Interrupted(),
    run.KVM_EXIT_INTERNAL_ERROR: RunPage._read_internal,
    run.KVM_EXIT_SYSTEM_EVENT: RunPage._read_system_event,
    run.KVM_EXIT_X86_RDMSR: RunPage._read_msr,
    run.KVM_EXIT_X86_WRMSR: RunPage._read_msr,
}
