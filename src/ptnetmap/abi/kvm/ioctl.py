# SPDX-License-Identifier: BSD-2-Clause
"""Numbers of KVM's requests and capabilities.

Source: Linux, linux/kvm.h; the encoding of requests is asm-generic/ioctl.h's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ptnetmap.abi.kvm import cpu, machine

KVM_API_VERSION = 12
"""The only version there will ever be (api.rst §4.1)."""

_KVMIO = 0xAE
_WRITE, _READ = 1, 2


def _request(number: int, layout: np.dtype[Any] | None = None, direction: int = 0) -> int:
    return direction << 30 | (layout.itemsize if layout else 0) << 16 | _KVMIO << 8 | number


SYSTEM = {
    "KVM_GET_API_VERSION": _request(0x00),
    "KVM_CREATE_VM": _request(0x01),
    "KVM_CHECK_EXTENSION": _request(0x03),
    "KVM_GET_VCPU_MMAP_SIZE": _request(0x04),
    "KVM_GET_SUPPORTED_CPUID": _request(0x05, cpu.kvm_cpuid2, _READ | _WRITE),
}
"""Requests on /dev/kvm."""

MACHINE = {
    "KVM_CREATE_VCPU": _request(0x41),
    "KVM_SET_USER_MEMORY_REGION": _request(0x46, machine.kvm_userspace_memory_region, _WRITE),
    "KVM_SET_TSS_ADDR": _request(0x47),
    "KVM_SET_IDENTITY_MAP_ADDR": _request(0x48, np.dtype("<u8"), _WRITE),
    "KVM_CREATE_IRQCHIP": _request(0x60),
    "KVM_IRQ_LINE": _request(0x61, machine.kvm_irq_level, _WRITE),
    "KVM_SET_GSI_ROUTING": _request(0x6A, machine.kvm_irq_routing, _WRITE),
    "KVM_IRQFD": _request(0x76, machine.kvm_irqfd, _WRITE),
    "KVM_CREATE_PIT2": _request(0x77, machine.kvm_pit_config, _WRITE),
    "KVM_IOEVENTFD": _request(0x79, machine.kvm_ioeventfd, _WRITE),
    "KVM_ENABLE_CAP": _request(0xA3, machine.kvm_enable_cap, _WRITE),
    "KVM_SIGNAL_MSI": _request(0xA5, machine.kvm_msi, _WRITE),
}
"""Requests on a machine's descriptor."""

VCPU = {
    "KVM_RUN": _request(0x80),
    "KVM_GET_REGS": _request(0x81, cpu.kvm_regs, _READ),
    "KVM_SET_REGS": _request(0x82, cpu.kvm_regs, _WRITE),
    "KVM_GET_SREGS": _request(0x83, cpu.kvm_sregs, _READ),
    "KVM_SET_SREGS": _request(0x84, cpu.kvm_sregs, _WRITE),
    "KVM_GET_MSRS": _request(0x88, cpu.kvm_msrs, _READ | _WRITE),
    "KVM_SET_MSRS": _request(0x89, cpu.kvm_msrs, _WRITE),
    "KVM_SET_SIGNAL_MASK": _request(0x8B, np.dtype("<u4"), _WRITE),
    "KVM_GET_FPU": _request(0x8C, cpu.kvm_fpu, _READ),
    "KVM_SET_FPU": _request(0x8D, cpu.kvm_fpu, _WRITE),
    "KVM_GET_LAPIC": _request(0x8E, cpu.kvm_lapic_state, _READ),
    "KVM_SET_LAPIC": _request(0x8F, cpu.kvm_lapic_state, _WRITE),
    "KVM_SET_CPUID2": _request(0x90, cpu.kvm_cpuid2, _WRITE),
    "KVM_GET_CPUID2": _request(0x91, cpu.kvm_cpuid2, _READ | _WRITE),
    "KVM_GET_MP_STATE": _request(0x98, cpu.kvm_mp_state, _READ),
    "KVM_SET_MP_STATE": _request(0x99, cpu.kvm_mp_state, _WRITE),
    "KVM_NMI": _request(0x9A),
    "KVM_GET_XCRS": _request(0xA6, cpu.kvm_xcrs, _READ),
    "KVM_SET_XCRS": _request(0xA7, cpu.kvm_xcrs, _WRITE),
}
"""Requests on a virtual processor's descriptor."""

REQUESTS = SYSTEM | MACHINE | VCPU
"""Every request by its name."""
NAMES = {number: name for name, number in REQUESTS.items()}
"""Every request's name by its number."""

CAPABILITIES = {
    "KVM_CAP_IRQCHIP": 0,
    "KVM_CAP_USER_MEMORY": 3,
    "KVM_CAP_SET_TSS_ADDR": 4,
    "KVM_CAP_EXT_CPUID": 7,
    "KVM_CAP_NR_VCPUS": 9,
    "KVM_CAP_NR_MEMSLOTS": 10,
    "KVM_CAP_IRQ_ROUTING": 25,
    "KVM_CAP_TSC_DEADLINE_TIMER": 72,
    "KVM_CAP_IRQFD": 32,
    "KVM_CAP_PIT2": 33,
    "KVM_CAP_IOEVENTFD": 36,
    "KVM_CAP_SET_IDENTITY_MAP_ADDR": 37,
    "KVM_CAP_XCRS": 56,
    "KVM_CAP_MAX_VCPUS": 66,
    "KVM_CAP_SIGNAL_MSI": 77,
    "KVM_CAP_READONLY_MEM": 81,
    "KVM_CAP_IRQFD_RESAMPLE": 82,
    "KVM_CAP_MAX_VCPU_ID": 128,
    "KVM_CAP_IMMEDIATE_EXIT": 136,
    "KVM_CAP_X86_USER_SPACE_MSR": 188,
}
"""Every capability by its name; KVM_CHECK_EXTENSION answers 0 for what is missing, else 1 or a limit."""
