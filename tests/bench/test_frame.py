# SPDX-License-Identifier: BSD-2-Clause
import json
from dataclasses import replace
from itertools import count

import pytest

from ptnetmap.bench.frame import (
    DEFAULT_TOTAL,
    LONGEST_RUN,
    Case,
    Report,
    Result,
    count_runs,
    default_seconds,
    figure,
    measure,
    select,
)
from ptnetmap.bench.table import console, show


def steady(mpps, *, dropped=0, size=60):
    """A run of 1,000,001 packets at this rate."""
    packets = 1_000_001
    nanoseconds = int((packets - 1) * 1e3 / mpps)
    return Result(packets, packets + dropped, dropped, nanoseconds, packets * size)


class Script:
    """Cases that return prepared rates, and remember the order in which they ran."""

    def __init__(self):
        self.ran = []

    def case(self, name, rates, *, against=None, batch=16, dropped=0):
        turn = count()

        def run(seconds, batch, cores):
            n = next(turn)
            if n:  # the first run only warms up
                self.ran.append(name)
            return steady(rates[max(0, n - 1) % len(rates)], dropped=dropped)

        return Case(name, 60, batch, run, against=against)


@pytest.fixture
def script():
    return Script()


def rows(report):
    return {row.case: row for row in report.rows}


def test_a_rate_counts_the_packets_after_the_first_and_all_bytes():
    result = Result(received=1001, offered=1001, dropped=0, nanoseconds=10_000, bytes=60_060)

    assert result.mpps == pytest.approx(100.0)
    assert result.gbps == pytest.approx(48.048)


@pytest.mark.parametrize("received", [0, 1])
def test_a_run_that_received_next_to_nothing_has_no_rate(received):
    assert Result(received, 10, 10 - received, 0, 0).mpps == 0.0


def test_a_case_and_its_roofline_run_alternately(script):
    roof, pipe = script.case("roofline", [100]), script.case("pipe", [50], against="roofline")

    measure([pipe], [pipe, roof], seconds=1, runs=3)

    assert script.ran == ["pipe", "roofline"] * 3


def test_the_ratio_is_the_median_of_paired_ratios_and_not_the_ratio_of_medians(script):
    roof = script.case("roofline", [100, 50, 200])
    pipe = script.case("pipe", [50, 40, 60], against="roofline")  # 0.5, 0.8, 0.3

    row = rows(measure([pipe], [roof], seconds=1, runs=3))["pipe"]

    assert (row.mpps, row.ratio, row.against, row.runs) == (50.0, 0.5, "roofline", 3)
    assert row.spread == pytest.approx((0.8 - 0.3) / 0.5)


def test_a_roofline_is_a_row_without_a_ratio_made_of_all_its_runs(script):
    roof = script.case("roofline", [100, 110])
    one, two = (script.case(name, [50], against="roofline") for name in ("pipe", "vale"))

    report = measure([one, two], [roof], seconds=1, runs=2)

    row = rows(report)["roofline"]
    assert [row.case for row in report.rows] == ["pipe", "vale", "roofline"]
    assert (row.runs, row.ratio, row.against, row.mpps) == (4, None, None, 105.0)
    assert row.spread == pytest.approx(10 / 105, abs=1e-4)


def test_a_roofline_that_was_asked_for_and_is_also_a_rival_is_not_measured_twice(script):
    roof, pipe = script.case("roofline", [100]), script.case("pipe", [50], against="roofline")

    measure([pipe, roof], [pipe, roof], seconds=1, runs=2)

    assert script.ran == ["pipe", "roofline"] * 2


def test_a_lossy_case_shows_its_drops_and_has_no_ratio(script):
    roof, vale = script.case("roofline", [100]), script.case("vale", [50], against="roofline", dropped=7)

    row = rows(measure([vale], [roof], seconds=1, runs=2))["vale"]

    assert (row.dropped, row.offered, row.ratio, row.against) == (14, 2 * 1_000_008, None, "roofline")
    assert row.mpps == 50.0


def test_rivals_are_of_the_same_batch(script):
    small, large = script.case("roofline", [10], batch=1), script.case("roofline", [100], batch=256)
    pipe = script.case("pipe", [50], against="roofline", batch=256)

    row = rows(measure([pipe], [small, large], seconds=1, runs=1))["pipe"]

    assert row.ratio == 0.5


def test_a_case_whose_rival_does_not_exist_is_an_error(script):
    with pytest.raises(KeyError):
        measure([script.case("pipe", [1], against="nothing")], [], seconds=1)


def test_progress_is_told_once_before_each_of_the_announced_runs(script):
    roof, other = script.case("roofline", [100]), script.case("other", [100])
    pipe = script.case("pipe", [50], against="roofline")
    told = []

    measure([pipe, roof, other], [roof], seconds=1, runs=2, progress=told.append)

    assert told == script.ran
    assert len(told) == count_runs([pipe, roof, other], 2) == 6


@pytest.mark.parametrize("cases", [1, 24, 100, 1000])
def test_a_default_benchmark_of_any_size_stays_near_its_budget(script, cases):
    chosen = [script.case(f"case{n}", [1]) for n in range(cases)]

    seconds = default_seconds(chosen, 5)

    assert 0 < seconds <= LONGEST_RUN
    assert seconds * 5 * cases <= max(DEFAULT_TOTAL, 0.05 * 5 * cases)


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ([], ["pipe", "vale", "vale/4", "vale/64ports", "roofline/R_zc"]),
        (["vale"], ["vale", "vale/4", "vale/64ports"]),
        (["vale/"], ["vale", "vale/4", "vale/64ports"]),
        (["vale/64ports"], ["vale/64ports"]),
        (["vale/6"], []),
        (["roofline", "pipe"], ["pipe", "roofline/R_zc"]),
    ],
)
def test_only_takes_whole_parts_of_names(script, only, names):
    cases = [script.case(name, [1]) for name in ("pipe", "vale", "vale/4", "vale/64ports", "roofline/R_zc")]

    assert [case.name for case in select(cases, only)] == names


def test_json_has_exactly_the_promised_fields_and_can_be_read_back(script):
    roof, pipe = script.case("roofline", [100]), script.case("pipe", [50], against="roofline")
    report = measure([pipe], [roof], seconds=1, runs=2)

    data = json.loads(json.dumps(report.as_json()))

    assert set(data) == {"machine", "rows", "netmapd", "footnotes"}
    assert set(data["machine"]) == {"cpu", "cores", "kernel", "python", "numba", "memory", "stolen"}
    fields = ["case", "size", "batch", "mpps", "offered", "dropped", "gbps", "ratio", "against", "spread", "runs"]
    fields += ["rtt_ns", "p99_ns", "floor", "reached"]
    assert [list(row) for row in data["rows"]] == [fields, fields]
    assert Report.from_json(data) == report


@pytest.mark.parametrize(
    ("floor", "dropped", "reached"), [(0.5, 0, True), (0.51, 0, False), (None, 0, None), (0.5, 7, None)]
)
def test_a_floor_is_reached_or_missed_or_not_judged(script, floor, dropped, reached):
    roof = script.case("roofline", [100])
    pipe = replace(script.case("pipe", [50], against="roofline", dropped=dropped), floor=floor)

    row = rows(measure([pipe], [roof], seconds=1, runs=1))["pipe"]

    assert (row.floor, row.reached) == (floor, reached)


def test_a_figure_is_wanted_to_be_at_most_its_limit():
    judged = [figure("switches", value, "in 2 s", limit=limit).reached for value, limit in ((0, 0), (1, 0), (1, None))]

    assert judged == [True, False, None]


def test_figures_and_footnotes_are_printed_kept_in_json_and_read_back(script):
    measured = measure([script.case("pipe", [50])], [], seconds=1, runs=1)
    report = replace(measured, netmapd=[figure("switches", 3, "in 2 s", limit=0)], footnotes=["a [command] line"])
    out = console()

    with out.capture() as printed:
        show(report, out)

    assert ["switches", "3", "in", "2", "s", "0", "missed"] in [line.split() for line in printed.get().splitlines()]
    assert printed.get().endswith("a [command] line\n")
    assert Report.from_json(json.loads(json.dumps(report.as_json()))) == report


def test_what_was_written_before_there_were_figures_can_be_read():
    assert Report.from_json({"machine": {}, "rows": []}) == Report({}, [])


def test_round_trips_are_compared_by_their_medians_and_not_by_how_many_there_were():
    def trips(name, received, median_ns, against=None):
        result = Result(received, received, 0, 1_000_000, 0, median_ns, 3 * median_ns)
        return Case(name, 0, 1, lambda seconds, batch, cores: result, against)

    slow, fast = trips("wake", 100, 800.0, against="bare"), trips("bare", 90, 200.0)

    row, bound = measure([slow], [fast], seconds=1, runs=3).rows

    assert (row.rtt_ns, row.p99_ns, row.ratio) == (800.0, 2400.0, 0.25)
    assert (bound.rtt_ns, bound.p99_ns, bound.ratio) == (200.0, 600.0, None)


def test_a_lossy_case_is_compared_by_what_arrives(script):
    ours = replace(script.case("wire", [10], against="peer", dropped=5), lossy=True)
    report = measure([ours], [ours, script.case("peer", [20])], seconds=0, runs=1)

    assert rows(report)["wire"].ratio == pytest.approx(0.5, rel=1e-3)
    assert rows(report)["wire"].dropped == 5
