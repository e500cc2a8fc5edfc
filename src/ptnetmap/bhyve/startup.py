# SPDX-License-Identifier: BSD-2-Clause
"""Loading what a machine boots, and setting its processors to where that begins."""

from __future__ import annotations

import sys

import numpy as np

from ptnetmap.abi.kvm.cpu import KVM_MP_STATE_RUNNABLE
from ptnetmap.bhyve.boot import Platform, plan, write_tables
from ptnetmap.bhyve.config import Config
from ptnetmap.guest.image import cached_path
from ptnetmap.guest.load import load
from ptnetmap.vmm import GuestMemory, Vcpu, Vm

_XSAVE_LEAF = 0xD
_AVX512 = 0xE0
_X87_SSE_AVX = 0x7


def start_kernel(vm: Vm, memory: GuestMemory, platform: Platform, config: Config) -> None:
    """Load the kernel that ``config`` names, with firmware tables; the first processor starts it.

    Raises GuestError for an image that cannot be started, ConfigError for a command line that is too long.
    """
    with plan(
        config["kernel"],
        initrd=config.get("initrd") or None,
        cmdline=config.get("cmdline", ""),
        low_size=memory.low_size,
    ) as planned:
        rsdp = write_tables(memory, platform, acpi=config.boolean("acpi_tables"), mptable=config.boolean("x86.mptable"))
        state = planned.load(memory, rsdp=rsdp)
    vm.vcpus[0].set_sregs(state.sregs())
    vm.vcpus[0].set_regs(state.regs())


def start_built_in(vm: Vm, memory: GuestMemory, cmdline: str) -> None:
    """Load the built-in guest; all processors start it, at level 3. Raises GuestError, ConfigError."""
    if not cached_path().exists():
        print("bhyve: building the built-in guest, once (some seconds) ...", file=sys.stderr)
    for vcpu, state in zip(vm.vcpus, load(memory, cmdline, len(vm.vcpus)), strict=True):
        vcpu.set_xcrs({0: _extended_state(vcpu)})
        vcpu.set_sregs(state.sregs())
        vcpu.set_regs(state.regs())
        vcpu.set_lapic(state.lapic)
        vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)


def _extended_state(vcpu: Vcpu) -> int:
    """Return XCR0 with all vector registers that the processor has."""
    leaves = vcpu.get_cpuid()
    found = leaves[(leaves["function"] == _XSAVE_LEAF) & (leaves["index"] == 0)]
    offered = int(found["eax"][0]) if len(found) else 1
    return int(np.bitwise_and(offered, _X87_SSE_AVX | _AVX512)) | 1
