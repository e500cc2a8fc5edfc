# SPDX-License-Identifier: BSD-2-Clause
"""Measure cases in turn with what they are compared to, and sum the runs up in rows.

A machine's speed drifts by more than most differences of interest, so a case and its roofline run alternately
(A B A B ...), on the same cores, and each run is compared with the one right after it. A row then has the median of
those ratios, and their spread, which says how much to believe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Protocol, TypeVar

from ptnetmap.bench.machine import core_ticks, describe, stolen_since
from ptnetmap.bench.pair import Cores

RUNS = 5
LONGEST_RUN = 0.5
SHORTEST_RUN = 0.05
DEFAULT_TOTAL = 75.0
"""Seconds that all runs of a benchmark take together unless the caller says otherwise; set-up comes on top."""

_WARM_UP = 0.02


@dataclass(frozen=True)
class Result:
    """What one run moved, as the receivers saw it.

    ``nanoseconds`` is the time between the first and the last packet received, ``bytes`` the sum of the lengths of
    the packets received. ``offered`` is what the senders handed over, ``dropped`` what was lost on the way.
    Where the packets are round trips, ``median_ns`` and ``p99_ns`` are of single ones; elsewhere None.
    """

    received: int
    offered: int
    dropped: int
    nanoseconds: int
    bytes: int
    median_ns: float | None = None
    p99_ns: float | None = None

    @property
    def mpps(self) -> float:
        """Million packets per second: the packets after the first, by the time they took."""
        return (self.received - 1) * 1e3 / self.nanoseconds if self.nanoseconds > 0 else 0.0

    @property
    def gbps(self) -> float:
        """Gbit/s of frame bytes, without preamble, checksum and gap."""
        return self.bytes * 8 / self.nanoseconds if self.nanoseconds > 0 else 0.0

    @property
    def speed(self) -> float:
        """What ratios compare, the more the better: the rate; of round trips what their median makes of it.

        A rate of round trips is mostly about how often others took the processor from one of the two.
        """
        return self.mpps if self.median_ns is None else 1e3 / self.median_ns


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    ``name`` is a path such as ``"vale/64ports"``, the same at every size and batch; ``size`` is the frame's bytes,
    ``batch`` the packets per sync. ``run(seconds, batch, cores)`` sets up, moves packets for that long, takes all
    down, and returns the :class:`Result`; ``cores`` goes to :func:`ptnetmap.bench.pair.run_pair`. ``against`` names the
    case with the same batch that it is compared to, None for a roofline. ``report`` is what the 2015 report gives for
    it, in Mpps; cases that have one are what ``ptnetmap demo`` shows. ``floor`` is what the ratio is wanted to be at
    least: ratios are of speeds, so the larger is the better of round trips, too. Of a ``lossy`` case what arrives is
    compared, whatever was lost: nothing holds the sender back there, as on a wire.
    """

    name: str
    size: int
    batch: int
    run: Callable[[float, int, Cores], Result]
    against: str | None = None
    report: float | None = None
    floor: float | None = None
    lossy: bool = False

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells cases apart: name, size and batch."""
        return self.name, self.size, self.batch


@dataclass(frozen=True)
class Row:
    """The runs of one case.

    ``mpps`` and ``gbps`` are medians over the runs, ``offered`` and ``dropped`` packets of all runs together. ``ratio``
    is the median of the paired ratios to ``against``; None for a roofline, and for a case that lost packets and may not,
    because a lossy rate is no rate. ``spread`` is (largest - smallest) / median of the ratios, or of the rates without ratios.
    ``rtt_ns`` and ``p99_ns`` are medians over the runs, of the median and of the 99th percentile of round trips; None
    where packets go one way. ``floor`` is what the ratio is wanted to be at least, ``reached`` whether it is; None
    without a floor or a ratio.
    """

    case: str
    size: int
    batch: int
    mpps: float
    offered: int
    dropped: int
    gbps: float
    ratio: float | None
    against: str | None
    spread: float
    runs: int
    rtt_ns: float | None = None
    p99_ns: float | None = None
    floor: float | None = None
    reached: bool | None = None


@dataclass(frozen=True)
class Figure:
    """One figure that is no rate; ``limit`` is what it is wanted to be at most, ``reached`` whether it is.

    Both are None for a figure that nothing is wanted of.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    reached: bool | None = None


def figure(name: str, value: float, unit: str, *, limit: float | None = None) -> Figure:
    """Judge a value."""
    return Figure(name, round(value, 3), unit, limit, None if limit is None else value <= limit)


@dataclass(frozen=True)
class Probe:
    """Something about netmapd that is measured once: ``name`` is a path as a case's, ``run()`` returns its figures."""

    name: str
    run: Callable[[], list[Figure]]


@dataclass(frozen=True)
class Report:
    """A machine, what was measured on it, figures of netmapd, and what a reader needs to repeat the peers' rows."""

    machine: dict[str, Any]
    rows: list[Row]
    netmapd: list[Figure] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return ``{"machine": ..., "rows": [...], "netmapd": [...], "footnotes": [...]}``, of JSON's own types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Report:
        """Rebuild a report from :meth:`as_json`; KeyError or TypeError if it is something else."""
        return cls(
            machine=dict(data["machine"]),
            rows=[Row(**row) for row in data["rows"]],
            netmapd=[Figure(**one) for one in data.get("netmapd", [])],
            footnotes=list(data.get("footnotes", [])),
        )


@dataclass
class _Series:
    case: Case
    rival: Case | None
    results: list[Result] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)


class Named(Protocol):
    """What can be asked for by name: a :class:`Case` or a :class:`Probe`."""

    @property
    def name(self) -> str:
        """A path such as ``"vale/64ports"``."""


N = TypeVar("N", bound=Named)


def select(cases: Sequence[N], only: Sequence[str]) -> list[N]:
    """Return the cases whose name starts with one of ``only``, all if it is empty, in the order of ``cases``.

    A prefix ends at a ``/`` or at the end of the name: ``vale/4`` is not ``vale/4ports``, but ``vale`` is both.
    """
    if not only:
        return list(cases)
    prefixes = [prefix.rstrip("/") for prefix in only]
    return [case for case in cases if any(f"{case.name}/".startswith(f"{prefix}/") for prefix in prefixes)]


def rival(case: Case, known: Sequence[Case]) -> Case:
    """Return the case that ``case`` is compared to: of the same batch, and of the same size if there is one.

    Raises KeyError if ``known`` has none of that name.
    """
    named = [one for one in known if one.name == case.against and one.batch == case.batch]
    if not named:
        raise KeyError(case.against)
    return next((one for one in named if one.size == case.size), named[0])


def _has_rival(case: Case, known: Sequence[Case]) -> bool:
    return any(one.name == case.against and one.batch == case.batch for one in known)


def count_runs(cases: Sequence[Case], runs: int) -> int:
    """How many runs :func:`measure` makes for ``cases``, warm-ups aside."""
    compared = {rival(case, cases).key for case in cases if case.against and _has_rival(case, cases)}
    alone = [case for case in cases if case.against is None and case.key not in compared]
    return runs * (2 * sum(case.against is not None for case in cases) + len(alone))


def default_seconds(cases: Sequence[Case], runs: int) -> float:
    """Length of a run for which all of ``cases`` take :data:`DEFAULT_TOTAL`, within reason."""
    fair = DEFAULT_TOTAL / max(1, count_runs(cases, runs))
    return min(LONGEST_RUN, max(SHORTEST_RUN, fair))


def measure(
    chosen: Sequence[Case],
    known: Sequence[Case],
    *,
    seconds: float,
    runs: int = RUNS,
    cores: Cores = None,
    progress: Callable[[str], None] = lambda label: None,
    observe: Callable[[Case, Result], None] = lambda case, result: None,
) -> Report:
    """Run each of ``chosen`` ``runs`` times, in turn with its rival from ``known``, and report.

    Rows come in the order of ``chosen``, followed by those rivals that were not chosen themselves; a case that others
    are compared to has one row for all its runs. ``progress`` is called before each run with the name of its case,
    ``observe`` after it with what came out.
    Raises what a case raises, and KeyError for an ``against`` that is not in ``known``.
    """
    series = [_Series(case, rival(case, known) if case.against else None) for case in chosen]
    table = {one.case.key: one for one in series}
    for one in list(series):
        if one.rival and one.rival.key not in table:
            table[one.rival.key] = _Series(one.rival, None)

    def run(case: Case) -> Result:
        progress(case.name)
        result = case.run(seconds, case.batch, cores)
        observe(case, result)
        table[case.key].results.append(result)
        return result

    before = core_ticks()
    for one in table.values():
        one.case.run(_WARM_UP, one.case.batch, cores)  # loads kernels, faults pages in
    compared = {one.rival.key for one in series if one.rival}
    for one in series:
        if one.rival is None and one.case.key in compared:
            continue
        for _ in range(runs):
            result = run(one.case)
            if one.rival is not None:
                bound = run(one.rival).speed
                one.ratios.append(result.speed / bound if bound else 0.0)
    return Report({**describe(), "stolen": round(stolen_since(before), 4)}, [_row(one) for one in table.values()])


def _row(series: _Series) -> Row:
    case, results = series.case, series.results
    dropped = sum(result.dropped for result in results)
    rates = [result.mpps for result in results]
    judged = series.ratios or [result.speed for result in results]
    middle = median(judged)
    ratio = round(median(series.ratios), 4) if series.ratios and (case.lossy or not dropped) else None
    return Row(
        case=case.name,
        size=case.size,
        batch=case.batch,
        mpps=round(median(rates), 3),
        offered=sum(result.offered for result in results),
        dropped=dropped,
        gbps=round(median(result.gbps for result in results), 3),
        ratio=ratio,
        against=case.against,
        spread=round((max(judged) - min(judged)) / middle, 4) if middle else 0.0,
        runs=len(results),
        rtt_ns=_middle(result.median_ns for result in results),
        p99_ns=_middle(result.p99_ns for result in results),
        floor=case.floor,
        reached=None if case.floor is None or ratio is None else ratio >= case.floor,
    )


def _middle(figures: Iterable[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return round(median(known), 1) if known else None
