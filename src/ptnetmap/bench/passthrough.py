# SPDX-License-Identifier: BSD-2-Clause
"""Cases of pass-through: pkt-gen in a guest against a host process, compared with two host processes.

The guest works on a host port's rings and buffers; netmapd's kthreads serve them, as they serve those of a process. A
guest needs one thread more than a pipe between processes does: its kthread.

A guest cannot yield its core. So it has one for itself here, and kthread and host process share the other, as ``bhyve -p
0:0`` and ``netmapd --cpus 1`` arrange it; processes are left to the scheduler, which is what suits them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from ptnetmap.bench.frame import Case, Figure, Probe, Result, figure
from ptnetmap.bench.guestend import PKT_GEN, PTNET, VIRTIO_NET, Figures, GuestEnd, unavailable
from ptnetmap.bench.pair import Cores, two_cores
from ptnetmap.bench.pingpong import RoundTrips
from ptnetmap.bench.remote import Remote
from ptnetmap.bench.runtime import mac
from ptnetmap.bench.shared import REPORT, vale
from ptnetmap.bench.stage import stage

SIZES = (60, 1514)
BATCH = 256
"""Packets per sync, of the guest as of the host."""

FEW_CORES, FREE_CORES = 2000, 50
"""Kicks, and interrupts, per million packets that are wanted at most: on two cores, and with one for each thread."""

_THREADS = 3
_REPORT_VIRTIO = 5.0
"""Mpps of a guest in 2015 without pass-through, at the most: the report has 2 to 5."""
_QUIET_MS = 200
_IDLE_US = 1000
_PING_BYTES = 64
_MANY = 10**15
_WITHIN = 60.0
_HOST, _GUEST = mac(1), mac(2)


@dataclass(frozen=True)
class Link:
    """What joins guest and host: the ``ends`` that both open, of a port numbered ``{number}``."""

    name: str
    guest: str
    host: str
    is_switch: bool
    program: str = PKT_GEN


VALE = Link("vale", "ptvale{number}:guest", "vale{number}:host", True)
QUEUES = Link("virtio", "vale{number}:guest", "vale{number}:host", True, program=VIRTIO_NET)
"""A switch without pass-through: the guest has an ordinary virtio-net."""
PIPE = Link("pipe", "ptnetmap:bench{number}{{1", "netmap:bench{number}}}1", False)


def passthrough_cases() -> list[Case]:
    """Each link in both directions; none where no guest can run."""
    if unavailable() is not None:
        return []
    enough = (os.cpu_count() or 1) > _THREADS
    cases = [
        Case(
            f"passthrough/{link.name}_{way}",
            size,
            BATCH,
            partial(run, link, PTNET, size),
            f"processes/{link.name}",
            report=REPORT[link.name] if size == SIZES[0] else None,
            floor=floor,
        )
        for link, floor in ((VALE, 0.8), (PIPE, 0.8 if enough else 0.5))
        for way, run in (("out", out), ("in", into))
        for size in SIZES
    ]
    trips = [
        Case(f"passthrough/{link.name}_rtt_idle", 60, 1, partial(ping, link), "roofline/doorbell_rtt", floor=0.5)
        for link in (VALE, PIPE)
    ]
    old = [
        Case(
            f"passthrough/virtio_net_{way}", SIZES[0], BATCH, partial(run, VALE, VIRTIO_NET, SIZES[0]), "processes/vale"
        )
        for way, run in (("out", out), ("in", into))
    ]
    rival = "passthrough/beside_sending"
    neighbours = [
        Case("passthrough/beside_hostile", 60, BATCH, partial(beside, "hostile"), rival, floor=0.9),
        Case(rival, 60, BATCH, partial(beside, "pkt-gen")),
    ]
    return cases + trips + old + neighbours


def virtio_cases() -> list[Case]:
    """A guest with an ordinary virtio-net, whose queues netmapd serves, beside one that is passed through."""
    if unavailable() is not None:
        return []
    return [
        Case(
            f"virtio/vale_{way}",
            size,
            BATCH,
            partial(run, QUEUES, VIRTIO_NET, size),
            f"passthrough/vale_{way}",
            report=_REPORT_VIRTIO if size == SIZES[0] else None,
            floor=0.25 if size == SIZES[0] else None,
        )
        for way, run in (("out", out), ("in", into))
        for size in SIZES
    ]


def passthrough_probes() -> list[Probe]:
    """What a million packets cost in events."""
    return [] if unavailable() is not None else [Probe("passthrough/events", events.figures)]


class Events:
    """Kicks and interrupts of the guest's runs: of those that were made anyway, or of one each."""

    def __init__(self) -> None:
        self._seen: dict[str, list[Figures]] = {}

    def note(self, link: Link, way: str, size: int, counted: Figures) -> None:
        """Remember what a guest counted on a port that is passed through."""
        if link in (VALE, PIPE) and size == SIZES[0] and counted["packets"]:
            self._seen.setdefault(f"{link.name}_{way}", []).append(counted)

    def figures(self) -> list[Figure]:
        """Return both per million packets, medians over the runs."""
        for link in (VALE, PIPE):
            for way, run in (("out", out), ("in", into)):
                if f"{link.name}_{way}" not in self._seen:
                    run(link, PTNET, SIZES[0], 0.5, BATCH, None)
        limit = FREE_CORES if (os.cpu_count() or 1) > _THREADS else FEW_CORES
        return [
            figure(
                f"passthrough/{name}: {what} per million packets",
                median(1e6 * counted[what] / counted["packets"] for counted in runs),
                "median",
                limit=limit,
            )
            for name, runs in self._seen.items()
            for what in ("kicks", "interrupts")
        ]


events = Events()
"""Those of this process."""


def out(link: Link, front: str, size: int, seconds: float, batch: int, cores: Cores) -> Result:
    """From the guest to the host."""
    guests, ours = cores or two_cores() or (None, None)
    settings = {"ms": int(seconds * 1e3), "length": size, "batch": batch, "dst": _written(_HOST)}
    with stage.ends(1) as (host,), stage.netmapd.on_core(ours), _opened(link, host) as name:
        if link.is_switch:
            host.do("introduce", _HOST)
        host.begin("receive", ours)
        with _guest(name, front, guests, program=link.program, function="tx", **settings) as guest:
            counted = guest.end(seconds + _WITHIN)
        stage.runs.items["sent"][0] = counted["packets"]
        stage.runs.items["stop"][0] = 1
        received, octets, nanoseconds = host.end()
    events.note(link, "out", size, counted)
    return Result(received, counted["packets"], counted["packets"] - received, nanoseconds, octets)


def into(link: Link, front: str, size: int, seconds: float, batch: int, cores: Cores) -> Result:
    """From the host into the guest, whose port is lossless."""
    guests, ours = cores or two_cores() or (None, None)
    with (
        stage.ends(1) as (host,),
        stage.netmapd.on_core(ours),
        _opened(link, host) as name,
        _guest(name, front, guests, program=link.program, function="rx", quiet=_QUIET_MS, batch=batch) as guest,
    ):
        if link.is_switch:
            host.do("take_introduction")
        host.do("fill", _GUEST, _HOST, size)
        offered = host.do("send", size, seconds, batch, ours)
        counted = guest.end(_WITHIN)
    events.note(link, "in", size, counted)
    received = counted["packets"]
    return Result(received, offered, offered - received, counted["nanoseconds"], counted["bytes"])


def ping(link: Link, seconds: float, batch: int, cores: Cores) -> Result:
    """Round trips from a guest that rests before each, to a process that sleeps; both are woken."""
    with stage.ends(1) as (host,), _opened(link, host) as name:
        host.do("fill", _GUEST, _HOST, _PING_BYTES)
        host.begin("follow", _WITHIN, False, None)
        settings = {"function": "ping", "ms": int(seconds * 1e3), "idle": _IDLE_US, "dst": _written(_HOST)}
        with _guest(name, PTNET, None, **settings) as guest:
            counted = guest.end(seconds + _WITHIN)
        host.end()
    made = counted["trips"]
    return RoundTrips(made, made, 0, int(seconds * 1e9), 0, counted["median_ns"], counted["p99_ns"])


def beside(program: str, seconds: float, batch: int, cores: Cores) -> Result:
    """Two processes through a switch, while a guest with a port on another one attacks netmapd, or sends as it may."""
    name = f"ptvale{stage.number()}:guest"
    with GuestEnd(stage.netmapd.address, name, program=program, function="tx", count=_MANY):
        return vale(60, seconds, batch, cores)


@contextmanager
def _opened(link: Link, host: Remote) -> Iterator[str]:
    """Open the host's end, and yield the name of the guest's."""
    number = stage.number()
    host.do("open", link.host.format(number=number), link.is_switch)
    yield link.guest.format(number=number)


def _guest(name: str, front: str, core: int | None, **settings: Any) -> GuestEnd:
    lossless = "" if name.startswith("ptnetmap:") else ",lossless=true"
    settings["memdev"] = settings.get("program") != VIRTIO_NET
    return GuestEnd(stage.netmapd.address, f"{name},mac={_written(_GUEST)}{lossless}", front, core=core, **settings)


def _written(address: bytes) -> str:
    return address.hex(":")
