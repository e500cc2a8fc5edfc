# SPDX-License-Identifier: BSD-2-Clause
"""What a virtual machine costs: to start, to have, and for each event; and how fast its code runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

from ptnetmap.bench.frame import Case, Figure, Probe, Result, figure
from ptnetmap.bench.guestend import GuestEnd, unavailable
from ptnetmap.bench.machines import Machine
from ptnetmap.bench.pair import Cores
from ptnetmap.bench.pingpong import RoundTrips
from ptnetmap.guest.image import built_in
from ptnetmap.guest.spin import spin
from ptnetmap.jit.kernel import kernel

FIRST_INSTRUCTION_MS = 50
FIRST_LINE_MS = 1500
RESIDENT_MB = 80
"""Wanted at the most: until a new machine runs, until bhyve shows its guest's first line, bhyve's own memory."""

_TIMES = 5
_WATCHED_SECONDS = 2.0
_TRIPS_PER_SECOND = 10_000
_ROUNDS_PER_SECOND = 300_000_000
_ONCE = 20_000
_HEAVY = re.compile(r"numba|llvmlite")

host_spin = kernel(spin)
"""The guest's loop, compiled for the host."""


def vm_cases() -> list[Case]:
    """Doorbell round trips, and the guest's loop against the host's; none where no guest can run."""
    if unavailable() is not None:
        return []
    return [
        Case("vm/doorbell_rtt", 0, 1, partial(_doorbell, bare=False), "roofline/doorbell_rtt", floor=round(1 / 1.5, 4)),
        Case("vm/spin", 0, 1, _spin_in_guest, "roofline/spin", floor=0.8),
        Case("roofline/doorbell_rtt", 0, 1, partial(_doorbell, bare=True)),
        Case("roofline/spin", 0, 1, _spin_on_host),
    ]


def vm_probes() -> list[Probe]:
    """What is measured once."""
    return [] if unavailable() is not None else [Probe("vm/start", start), Probe("vm/idle", idle)]


def _doorbell(seconds: float, batch: int, cores: Cores, *, bare: bool) -> Result:
    count = max(10, int(seconds * _TRIPS_PER_SECOND))
    with Machine(f"program=doorbell count={count}") as machine:
        machine.connect(bare=bare)
        said = _figures(machine.run())
    return RoundTrips(said["trips"], said["trips"], 0, said["nanoseconds"], 0, said["median_ns"], said["p99_ns"])


def _figures(lines: list[str]) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", lines[-1])}


def _rounds(seconds: float) -> int:
    return max(_ONCE, int(seconds * _ROUNDS_PER_SECOND))


def _spin_in_guest(seconds: float, batch: int, cores: Cores) -> Result:
    """Rounds of a loop as packets, in the guest's own time."""
    with Machine(f"program=spin rounds={_rounds(seconds)}") as machine:
        line = machine.run()[-1]
    found = re.search(r"(\d+) rounds in (\d+) cycles at (\d+) kHz", line)
    assert found, line
    rounds, cycles, khz = (int(number) for number in found.groups())
    return Result(rounds, rounds, 0, cycles * 1_000_000 // khz, 0)


def _spin_on_host(seconds: float, batch: int, cores: Cores) -> Result:
    rounds = _rounds(seconds)
    host_spin(_ONCE)  # compiles
    before = time.perf_counter_ns()
    host_spin(rounds)
    return Result(rounds, rounds, 0, time.perf_counter_ns() - before, 0)


def start() -> list[Figure]:
    """Start machines: one in this process up to its first instruction, and bhyve up to its guest's first line."""
    built_in()
    firsts, lines = [], []
    for _ in range(_TIMES):
        with Machine("program=spin rounds=1") as machine:
            machine.run()
            firsts.append(1e3 * (machine.first - machine.created))
        lines.append(1e3 * _first_line())
    return [
        figure(
            "vm/start: machine created until its guest runs", median(firsts), "ms, median", limit=FIRST_INSTRUCTION_MS
        ),
        figure("vm/start: bhyve until the guest's first line", median(lines), "ms, median", limit=FIRST_LINE_MS),
    ]


def _first_line() -> float:
    command = [sys.executable, "-m", "ptnetmap.cli.bhyve", "-s", "0,hostbridge", "-s", "1,lpc", "-l", "com1,stdio"]
    command += ["-A", "-H", "-P", "-m", "256M", "-o", "cmdline=program=spin rounds=1", f"bench-{os.getpid()}"]
    before = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        took = time.perf_counter() - before
        process.stdout.read()
    return took


def idle() -> list[Figure]:
    """Have a machine of 2 GB that has halted, and see what it holds and does."""
    with GuestEnd("", "", front="", program="idle", memory="2G") as machine:
        time.sleep(0.5)  # until bhyve's own threads rest, too
        process = Path(f"/proc/{machine.pid}")
        kib = {name: int(value) for name, value in re.findall(r"(\w+):\s+(\d+) kB", (process / "status").read_text())}
        heavy = len({path for path in (process / "maps").read_text().split() if _HEAVY.search(path)})
        before = _ticks(process)
        time.sleep(_WATCHED_SECONDS)
        ticks = _ticks(process) - before
    own = (kib["VmRSS"] - kib["RssShmem"]) / 1024
    return [
        figure("vm/idle: bhyve's own memory, beside its guest's 2 GB", own, "MiB", limit=RESIDENT_MB),
        figure("vm/idle: memory of the guest's that is touched", kib["RssShmem"] / 1024, "MiB"),
        figure("vm/idle: libraries of the compiler in bhyve", heavy, "files", limit=0),
        figure("vm/idle: CPU time", ticks, f"ticks in {_WATCHED_SECONDS:g} s", limit=0),
    ]


def _ticks(process: Path) -> int:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
