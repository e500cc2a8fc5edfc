# SPDX-License-Identifier: BSD-2-Clause
"""All checks, each with the facts that it judges."""

from __future__ import annotations

import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ptnetmap import __version__
from ptnetmap.tools.doctor import facts, guest, machine, python, service
from ptnetmap.tools.doctor.finding import PROBLEM, Finding

_CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_KVM = Path("/dev/kvm")


def _memory() -> Finding:
    overcommit = facts.read("/proc/sys/vm/overcommit_memory").strip()
    return machine.memory(facts.meminfo(), int(overcommit) if overcommit.isdecimal() else 0, facts.memory_left())


def _daemon(asked: str | None) -> Finding:
    found = facts.socket_place(asked)
    return service.daemon(found, None if found.error else facts.daemon(found), __version__)


def _permissions(asked: str | None) -> Finding:
    groups = {os.getegid(), *os.getgroups()}
    return service.permissions(facts.socket_file(facts.socket_place(asked)), os.geteuid(), groups)


def _leftovers(asked: str | None) -> Finding:
    found = facts.socket_place(asked)
    file = facts.socket_file(found)
    return service.leftovers(found, file, facts.listens(found), *facts.life_lock(found))


CHECKS: Mapping[str, Callable[[str | None], Finding]] = {
    "system": lambda asked: machine.system(platform.system(), 8 * struct.calcsize("P")),
    "Python": lambda asked: python.packages(sys.version_info[:3], *facts.versions()),
    "kernel cache": lambda asked: python.kernel_cache(*facts.kernel_cache()),
    "CPUs": lambda asked: machine.cpus(os.sched_getaffinity(0)),
    "CPU quota": lambda asked: machine.quota(facts.cpu_limits()),
    "isolated CPUs": lambda asked: machine.isolated(facts.read("/sys/devices/system/cpu/isolated")),
    "clock": lambda asked: machine.clock(facts.read(_CLOCK).strip()),
    "memory": lambda asked: _memory(),
    "memfd sealing": lambda asked: machine.sealing(facts.sealing_error()),
    "eventfd, epoll": lambda asked: machine.events(facts.events_error()),
    "open files": lambda asked: machine.files(*facts.file_limits()),
    "socket": lambda asked: service.place(facts.socket_place(asked)),
    "netmapd": _daemon,
    "permissions": _permissions,
    "leftovers": _leftovers,
    "systemd": lambda asked: service.units(facts.installed_units()),
    "passed-through": lambda asked: guest.ports(*facts.passed_through(), os.geteuid()),
    "/dev/kvm": lambda asked: machine.kvm(_KVM.exists(), os.access(_KVM, os.R_OK | os.W_OK)),
    "capabilities": lambda asked: machine.capabilities(facts.effective_capabilities(), facts.lockable_bytes()),
}
"""Each check by its subject; it takes the socket that was asked for, None for the usual one."""


def examine(
    asked: str | None = None, checks: Mapping[str, Callable[[str | None], Finding]] = CHECKS
) -> Iterator[Finding]:
    """Yield what each check finds, as it does; one that fails is a problem by itself."""
    for subject, check in checks.items():
        try:
            yield check(asked)
        except Exception as error:  # what is broken on this machine is what we look for
            found = " ".join(f"{type(error).__name__}: {error}".split())
            yield Finding(subject, PROBLEM, f"cannot be checked: {found}", "see the problems above; else report this")
