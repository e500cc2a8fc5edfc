# SPDX-License-Identifier: BSD-2-Clause
"""Everything the benchmark can measure: the rooflines, and the runtime's own cases.

A package's cases come from a function that returns a list of :class:`~ptnetmap.bench.frame.Case`; :data:`SUBJECTS`
lists those functions, in the order of the table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ptnetmap.bench.crowd import probes
from ptnetmap.bench.frame import Case, Probe, Result
from ptnetmap.bench.lane import Lane
from ptnetmap.bench.nic import nic_cases, nic_probes
from ptnetmap.bench.pair import Cores
from ptnetmap.bench.passthrough import passthrough_cases, passthrough_probes, virtio_cases
from ptnetmap.bench.peers import peer_cases, peers, round_trip_cases
from ptnetmap.bench.runtime import runtime_cases
from ptnetmap.bench.shared import process_cases, storm
from ptnetmap.bench.tap import tap_cases
from ptnetmap.bench.tcp import tcp_cases
from ptnetmap.bench.vhost import vhost_cases
from ptnetmap.bench.vm import vm_cases, vm_probes

BATCHES = (1, 16, 256)

ROOFLINES = {"roofline/R_zc": (60, False), "roofline/R_c60": (60, True), "roofline/R_c256": (256, True)}
ROOFLINES["roofline/R_c1514"] = (1514, True)
"""Frame size, and whether the frame is copied."""

SUBJECTS: list[Callable[[], list[Case]]] = [
    runtime_cases,
    process_cases,
    passthrough_cases,
    virtio_cases,
    vhost_cases,
    tap_cases,
    nic_cases,
    tcp_cases,
    vm_cases,
]


def roofline_cases() -> list[Case]:
    """Each roofline at each batch."""
    return [
        Case(name, size, batch, partial(_bare, size, copies))
        for name, (size, copies) in ROOFLINES.items()
        for batch in BATCHES
    ]


def all_cases() -> list[Case]:
    """Every case, the runtime's first, rooflines last."""
    return [case for subject in SUBJECTS for case in subject()] + peer_cases() + roofline_cases() + round_trip_cases()


def all_probes() -> list[Probe]:
    """Everything that is no rate."""
    return probes() + passthrough_probes() + nic_probes() + vm_probes()


def all_footnotes() -> list[str]:
    """What a reader needs to know of the runs made so far."""
    return peers.footnotes() + storm.footnotes()


def _bare(size: int, copies: bool, seconds: float, batch: int, cores: Cores) -> Result:
    return Lane(size, batch, copies=copies).run(seconds=seconds, cores=cores)
