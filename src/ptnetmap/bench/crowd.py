# SPDX-License-Identifier: BSD-2-Clause
"""Ports by the dozen: what netmapd does for those at rest, what one costs among a thousand, when a dead process's go."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from ptnetmap.bench.ends import Crowd
from ptnetmap.bench.frame import Figure, Probe, figure
from ptnetmap.bench.remote import Remote
from ptnetmap.bench.stage import stage
from ptnetmap.netmap.wire import extension

PORTS = 1000
IDLE = 100
SWITCHES = 5
PER_SWITCH = 250
HUNDRED = 100
KILLS = 5
WATCHED_SECONDS = 2.0

STEADY = 2.0
"""How much longer the last ports may take to open than the first ones."""
OPEN_MS = 5
"""Milliseconds that opening a port may take."""
GONE_MS = 100
"""Milliseconds after which no port of a killed process may be left."""
KIB_PER_PORT = 64
"""Memory that a port may take which has moved nothing: two rings of 1024 slots are 33 KiB, the rest is tables'."""

_REGION = re.compile(r"^/memfd:netmap-\d+ ")
_BLOCK = 512
_QUIET_SECONDS = 0.3
_WITHIN = 10.0
_LONGEST_CLOSING = 60.0
_LOOK_AGAIN = 0.05


def probes() -> list[Probe]:
    """All of them."""
    return [
        Probe("processes/idle_100", rest),
        Probe("processes/open_1000", open_many),
        Probe("processes/kill", kill),
    ]


def kill(times: int = KILLS, ports: int = 4) -> list[Figure]:
    """Kill a process that has ports, and see when netmapd has none of them any more."""
    took = []
    for _ in range(times):
        with _crowd() as crowd:
            names = set(_names(ports))
            crowd.do("open", sorted(names))
            os.kill(crowd.pid, signal.SIGKILL)
            died = time.perf_counter()
            while names & _open_ports() and time.perf_counter() < died + _WITHIN:
                pass
            took.append(1e3 * (time.perf_counter() - died))
    what = f"processes/kill: until all {ports} ports of a killed process are gone"
    return [
        figure(what, median(took), "ms, median", limit=GONE_MS),
        figure(f"{what}, at worst", max(took), f"ms, of {times}", limit=GONE_MS),
    ]


def _open_ports() -> set[str]:
    session = stage.netmapd.session
    return {entry["name"] for entry in extension.introspect(session.request, extension.PORT_LIST)}


def open_many(ports: int = PORTS) -> list[Figure]:
    """Open many ports on several switches, in one process, one after the other; then let the process die."""
    pid = stage.netmapd.pid
    before = _resident_kib(pid)
    with _crowd() as crowd:
        names = _names(ports)
        took = [1e3 * one for i in range(0, ports, HUNDRED) for one in crowd.do("open", names[i : i + HUNDRED])]
        kib = (_resident_kib(pid) - before) / ports
    died = time.perf_counter()
    while _resident_kib(pid) > before and time.perf_counter() < died + _LONGEST_CLOSING:
        time.sleep(_LOOK_AGAIN)
    closed = 1e3 * (time.perf_counter() - died)
    tenth = max(1, min(HUNDRED, ports // 2))
    first, last = median(took[:tenth]), median(took[-tenth:])
    what = f"processes/open_{ports}"
    return [
        figure(f"{what}: to open one, the first {tenth}", first, "ms, median", limit=OPEN_MS),
        figure(f"{what}: to open one, the last {tenth}", last, "ms, median", limit=OPEN_MS),
        figure(f"{what}: last to first", last / first, "times", limit=STEADY),
        figure(f"{what}: to close one, when its process has died", closed / ports, "ms, mean"),
        figure(f"{what}: resident memory of regions per port", kib, "KiB", limit=KIB_PER_PORT),
    ]


def rest(ports: int = IDLE, seconds: float = WATCHED_SECONDS) -> list[Figure]:
    """Have ports that nobody uses, and see what netmapd does meanwhile."""
    with _crowd() as crowd:
        crowd.do("open", _names(ports))
        pid = stage.netmapd.pid
        _settle(pid)
        switches, ticks = _context_switches(pid), _ticks(pid)
        time.sleep(seconds)
        switches, ticks = _context_switches(pid) - switches, _ticks(pid) - ticks
    what = f"processes/idle_{ports}"
    return [
        figure(f"{what}: context switches", switches, f"in {seconds:g} s", limit=0),
        figure(f"{what}: CPU time", ticks, f"ticks in {seconds:g} s", limit=0),
    ]


@contextmanager
def _crowd() -> Iterator[Remote]:
    crowd = Remote(Crowd, stage.netmapd.address)
    try:
        crowd.end()
        yield crowd
    finally:
        crowd.close()


def _names(count: int) -> list[str]:
    """Names of ports on several switches: a switch has room for 254."""
    number = stage.number()
    return [f"vale{number}x{i // PER_SWITCH}:p{i}" for i in range(count)]


def _resident_kib(pid: int) -> float:
    """Memory that the regions of netmapd's ports have pages for."""
    inodes = {}
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if _REGION.match(os.readlink(fd)):  # noqa: PTH115 - not a path
                status = fd.stat()
                inodes[status.st_ino] = status.st_blocks
        except FileNotFoundError:
            continue  # closed meanwhile
    return sum(inodes.values()) * _BLOCK / 1024


def _context_switches(pid: int) -> int:
    """Times that any of a process's threads has left a processor."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        total += sum(int(line.split()[1]) for line in status.read_text().splitlines() if "ctxt_switches" in line)
    return total


def _ticks(pid: int) -> int:
    """Clock ticks that a process has used, of its own and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _settle(pid: int) -> None:
    """Wait until netmapd has done what follows opening; one that never rests is measured all the same."""
    deadline = time.monotonic() + _WITHIN
    last = -1
    while last != (now := _context_switches(pid)) and time.monotonic() < deadline:
        last = now
        time.sleep(_QUIET_SECONDS)
