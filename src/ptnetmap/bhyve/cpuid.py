# SPDX-License-Identifier: BSD-2-Clause
"""What CPUID tells each processor of a machine: what KVM supports here, and which of how many processors it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ptnetmap.abi.kvm.cpu import KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2
from ptnetmap.bhyve.settings import Topology

_FEATURES = 0x1
_CACHES = 0x4
_TOPOLOGY = (0xB, 0x1F)
_SIZES = 0x80000008
_AMD_TOPOLOGY = 0x8000001E
_HYPERVISOR = 1 << 31
_TSC_DEADLINE = 1 << 24
_X2APIC = 1 << 21
_HTT = 1 << 28
_LEVEL_SMT = 1
_LEVEL_CORE = 2

Entries = npt.NDArray[Any]


def processor(supported: Entries, index: int, topology: Topology, *, tsc_deadline: bool) -> Entries:
    """Return the CPUID table of processor ``index``, whose APIC id that is.

    ``supported`` is what KVM offers (``kvm_cpuid_entry2``), ``tsc_deadline`` whether its local APIC has that timer,
    which KVM tells elsewhere. Source: Intel SDM volume 2 (CPUID), AMD APM volume 3 §E.
    """
    kept = supported[~np.isin(supported["function"], _TOPOLOGY)]
    entries: Entries = np.concatenate([kept, _levels(index, topology)])
    is_amd = bool(np.any(entries["function"] == _AMD_TOPOLOGY))
    for entry in entries:
        leaf = int(entry["function"])
        if leaf == _FEATURES:
            count = min(topology.cores * topology.threads, 0xFF)
            entry["ebx"] = int(entry["ebx"]) & 0xFFFF | count << 16 | (index & 0xFF) << 24
            entry["ecx"] = int(entry["ecx"]) | _HYPERVISOR | _X2APIC | (_TSC_DEADLINE if tsc_deadline else 0)
            entry["edx"] = int(entry["edx"]) & ~_HTT | (_HTT if count > 1 else 0)
        elif leaf == _CACHES and int(entry["eax"]) & 0x1F:
            entry["eax"] = int(entry["eax"]) & 0x3FFF | _shared_by(int(entry["eax"]) >> 5 & 7, topology)
        elif leaf == _SIZES and is_amd:
            entry["ecx"] = _bits(topology.cores * topology.threads) << 12 | topology.cores * topology.threads - 1 & 0xFF
        elif leaf == _AMD_TOPOLOGY:
            entry["eax"] = index
            entry["ebx"] = (topology.threads - 1) << 8 | index // topology.threads & 0xFF
            entry["ecx"] = 0
    return entries


def address_bits(supported: Entries) -> int:
    """Return how many bits a physical address has on this host."""
    found = supported["eax"][supported["function"] == _SIZES]
    return int(found[0]) & 0xFF if len(found) else 36


def _levels(index: int, topology: Topology) -> Entries:
    """Return leaf 0xb: the APIC id's bits for the thread, then for the core; 0 ends the list."""
    rows = np.zeros(3, kvm_cpuid_entry2)
    rows["function"], rows["index"], rows["flags"] = _TOPOLOGY[0], (0, 1, 2), KVM_CPUID_FLAG_SIGNIFCANT_INDEX
    rows["edx"] = index
    package = topology.cores * topology.threads
    rows["eax"] = (_bits(topology.threads), _bits(package), 0)
    rows["ebx"] = (topology.threads, package, 0)
    rows["ecx"] = (_LEVEL_SMT << 8, _LEVEL_CORE << 8 | 1, 2)
    return rows


def _shared_by(level: int, topology: Topology) -> int:
    """Return EAX bits 14-31 of leaf 4: threads that share the cache of a level, and cores of a package, less one."""
    sharing = topology.threads if level < 3 else topology.cores * topology.threads
    return ((1 << _bits(sharing)) - 1 & 0xFFF) << 14 | ((1 << _bits(topology.cores)) - 1 & 0x3F) << 26


def _bits(count: int) -> int:
    """Return the bits that number ``count`` things."""
    return (count - 1).bit_length()
