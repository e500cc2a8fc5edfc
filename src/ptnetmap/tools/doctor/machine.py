# SPDX-License-Identifier: BSD-2-Clause
"""Checks of the machine: its cores, its clock, its memory, and what its Linux can do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from ptnetmap.tools.doctor.finding import NOTE, OK, PROBLEM, Finding

FILES_PER_PORT = 14
"""Descriptors that a port of one ring in each direction takes in netmapd."""

_FEW_PORTS = 16
_MANY_PORTS = 256
_SLOW_CLOCKS = frozenset({"acpi_pm", "hpet", "jiffies", "pit", "refined-jiffies"})
_MIB = 1 << 20
_LITTLE_MEMORY = 64 * _MIB
_ENOUGH_MEMORY = 512 * _MIB
_STRICT = 2
CAPABILITIES = {"CAP_NET_RAW": 13, "CAP_NET_ADMIN": 12, "CAP_BPF": 39}
"""What AF_XDP takes, and the first of them alone AF_PACKET; CAP_IPC_LOCK too, or a limit of locked memory."""
_IPC_LOCK = 14
NIC_POOL = 40 * _MIB
"""About the buffers of an interface of one queue with rings as usual, in bytes."""


def system(name: str, bits: int) -> Finding:
    """Judge the operating system's name, and the bits of an address."""
    if name != "Linux" or bits != 64:
        return Finding("system", PROBLEM, f"{name}, {bits} bits: this needs 64-bit Linux", "use another machine")
    return Finding("system", OK, "Linux, 64 bits")


def cpus(usable: Collection[int]) -> Finding:
    """Judge the CPUs that this process may use."""
    if len(usable) < 2:
        return Finding(
            "CPUs",
            NOTE,
            "1 usable: sender, kthread and receiver take turns, and rates are low",
            "give it two or more (taskset, the virtual machine's settings)",
        )
    return Finding("CPUs", OK, f"{len(usable)} usable")


def quota(limits: Sequence[str]) -> Finding:
    """Judge the CPU time of control groups, as in their ``cpu.max``: microseconds (or max) of a period."""
    cores = min((_cores(limit) for limit in limits), default=math.inf)
    if cores < 2:
        return Finding(
            "CPU quota",
            NOTE,
            f"the control group may use {cores:g} cores: whoever polls is stopped in the middle of it",
            "raise cpu.max to two cores or more (docker run --cpus, CPUQuota=)",
        )
    return Finding("CPU quota", OK, "none" if cores == math.inf else f"{cores:g} cores")


def _cores(limit: str) -> float:
    allowed, _, period = limit.strip().partition(" ")
    try:
        return int(allowed) / int(period or 100_000)
    except (ValueError, ZeroDivisionError):
        return math.inf  # "max", or nothing that is known


def isolated(listed: str) -> Finding:
    """Judge the kernel's list of isolated CPUs, such as "2-3"."""
    if listed.strip():
        return Finding(
            "isolated CPUs",
            NOTE,
            f"{listed.strip()}: nothing runs there unless pinned",
            f"netmapd --cpus {listed.strip()} puts its kthreads there",
        )
    return Finding("isolated CPUs", OK, "none")


def clock(source: str) -> Finding:
    """Judge the kernel's clock source."""
    if source in _SLOW_CLOCKS:
        return Finding(
            "clock",
            NOTE,
            f"{source}: reading the time is a slow system call",
            "boot with clocksource=tsc, or the virtual machine's own",
        )
    return Finding("clock", OK, source or "unknown")


def sealing(error: str) -> Finding:
    """Judge the attempt to seal a memfd against writers to come; ``error`` is "" if it worked."""
    if error:
        return Finding(
            "memfd sealing", PROBLEM, f"F_SEAL_FUTURE_WRITE does not work: {error}", "use Linux 5.1 or newer"
        )
    return Finding("memfd sealing", OK, "works")


def events(error: str) -> Finding:
    """Judge the attempt to wait for an eventfd inside an epoll inside an epoll."""
    if error:
        return Finding(
            "eventfd, epoll",
            PROBLEM,
            f"they do not work: {error}",
            "see what the container or its seccomp filter forbids",
        )
    return Finding("eventfd, epoll", OK, "work")


def files(soft: float, hard: float) -> Finding:
    """Judge RLIMIT_NOFILE: programs get along with ``soft``, netmapd uses ``hard``; infinity is no limit."""
    if hard == math.inf:
        return Finding("open files", OK, "no limit")
    ports = max(int(hard) - 64, 0) // FILES_PER_PORT
    text = f"limit {soft:g}, hard {hard:g}: netmapd has room for about {ports:,} ports"
    remedy = "raise the hard limit (LimitNOFILE=, /etc/security/limits.conf)"
    if ports < _FEW_PORTS:
        return Finding("open files", PROBLEM, text, remedy)
    if ports < _MANY_PORTS:
        return Finding("open files", NOTE, text, remedy)
    return Finding("open files", OK, text)


def memory(meminfo: Mapping[str, int], overcommit: int, limit: float = math.inf) -> Finding:
    """Judge memory, in bytes as in /proc/meminfo: the rings of ports are memfds, and count as soon as they are used.

    ``overcommit`` is vm.overcommit_memory, ``limit`` what is left to the control group.
    """
    available = min(meminfo.get("MemAvailable", math.inf), limit)
    if overcommit == _STRICT and "CommitLimit" in meminfo:
        left = meminfo["CommitLimit"] - meminfo.get("Committed_AS", 0)
        if left < _ENOUGH_MEMORY:
            text = f"strict overcommit leaves {max(left, 0) // _MIB:,} MiB to promise"
            return Finding("memory", NOTE, text, "sysctl vm.overcommit_memory=0, or raise vm.overcommit_ratio")
    if available == math.inf:
        return Finding("memory", NOTE, "how much is available is not known")
    text = f"{int(available) // _MIB:,} MiB available"
    remedy = "end something, or use smaller pools (netmapd --buf-num)"
    if available < _LITTLE_MEMORY:
        return Finding("memory", PROBLEM, text, remedy)
    if available < _ENOUGH_MEMORY:
        return Finding("memory", NOTE, text, remedy)
    return Finding("memory", OK, text)


def kvm(exists: bool, usable: bool) -> Finding:
    """Judge /dev/kvm: only virtual machines need it."""
    if usable:
        return Finding("/dev/kvm", OK, "usable")
    if exists:
        return Finding("/dev/kvm", NOTE, "not yours to use; only virtual machines need it", "join the group kvm")
    return Finding("/dev/kvm", NOTE, "missing; only virtual machines need it")


def capabilities(effective: int | None, lockable: float = math.inf) -> Finding:
    """Judge the effective capabilities, a set of bits, and the bytes that may be locked: for network interfaces only."""
    if effective is None:
        return Finding("capabilities", NOTE, "not known; only network interfaces need any")
    missing = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        how = "cannot be opened" if "CAP_NET_RAW" in missing else "are opened by AF_PACKET, which is slower"
        return Finding("capabilities", NOTE, f"no {', no '.join(missing)}: network interfaces {how}")
    if not effective >> _IPC_LOCK & 1 and lockable < NIC_POOL:
        return Finding(
            "capabilities",
            NOTE,
            f"no CAP_IPC_LOCK, and {int(lockable):,} bytes may be locked: network interfaces need about {NIC_POOL:,}",
            f"ulimit -l {NIC_POOL // 1024}, or netmapd --nic-mode=af_packet",
        )
    return Finding("capabilities", OK, ", ".join(CAPABILITIES))
