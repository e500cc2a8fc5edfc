# SPDX-License-Identifier: BSD-2-Clause
import re

import pytest

from ptnetmap.tools.pktgen.dump import dump
from ptnetmap.tools.pktgen.report import Counts, Figures, Log, Periods, RoundTrips, norm

QUANTITY = r"\d+\.\d{3} [KMGT]?"


@pytest.mark.parametrize(
    ("value", "normalize", "text"),
    [
        (0, True, "0.000 "),
        (999.9994, True, "999.999 "),
        (14_880_952, True, "14.881 M"),
        (1000, True, "1.000 K"),
        (7.143e9, True, "7.143 G"),
        (5e15, True, "5000.000 T"),
        (14_880_952, False, "14880952.000 "),
    ],
)
def test_quantities_have_three_decimals_and_a_unit_letter(value, normalize, text):
    assert norm(value, normalize) == text


def test_the_line_of_a_period_is_upstreams():
    line = Periods(normalize=True, framing=0, average=False).line(
        Counts(14_895_000, 893_700_000, 29_182), 1_001_003, 99999
    )

    assert line == (
        "14.880 Mpps (14.895 Mpkts 7.142 Gbps in 1001003 usec) 510.42 avg_batch 99999 min_space"
    )  # fmt: skip


def test_an_idle_period_is_zeros():
    line = Periods(normalize=True, framing=0, average=False).line(Counts(), 1_000_000, 99999)

    assert line == "0.000 pps (0.000 pkts 0.000 bps in 1000000 usec) 0.00 avg_batch 99999 min_space"


def test_the_average_is_of_the_last_periods():
    periods = Periods(normalize=True, framing=0, average=True)
    for packets in [10_000_000] * 20 + [1000] * 7 + [3000] * 8:
        line = periods.line(Counts(packets, 60 * packets, 1), 1_000_000, 0)

    assert re.fullmatch(rf"3\.000 Kpps \[avg/std 2\.067 K/997\.775 pps\] \({QUANTITY}pkts .*", line)


def test_framing_counts_192_bits_per_packet():
    counts = Counts(1000, 60_000, 2)

    assert "672.000 Kbps" in Periods(normalize=True, framing=192, average=False).line(counts, 1_000_000, 0)
    assert Figures(counts, 1.0, 192).lines("Sent")[1] == (
        "Speed: 1.000 Kpps Bandwidth: 480.000 Kbps (raw 672.000 Kbps). Average batch: 500.00 pkts"
    )


@pytest.mark.parametrize("verb", ["Sent", "Received"])
def test_the_final_lines_are_upstreams(verb):
    first, second = Figures(Counts(1000, 60_001, 10), 2.0).lines(verb)

    assert first == f"{verb} 1000 packets 60001 bytes 10 events 60 bytes each in 2.00 seconds."
    assert second == "Speed: 500.000 pps Bandwidth: 240.004 Kbps (raw 240.004 Kbps). Average batch: 100.00 pkts"
    assert Figures(Counts(), 2.0).lines(verb) == [f"{verb} nothing."]


def test_round_trips_are_a_line_a_histogram_and_a_last_line():
    trips = RoundTrips(7, 1000, 16_000, (0,) * 9 + (1, 0, 6) + (0,) * 52)

    assert trips.line() == "count 7 RTT: min 1000 av 2285 ns"
    assert trips.histogram() == "k: 512 .. 2048\n\t     1     0     6"
    assert trips.final() == "RTT over 7 packets: min 1000 av 2285 ns"


def test_a_log_line_has_clock_function_and_source_line(capsys):
    Log()("main", "Ready...")

    assert re.fullmatch(r"\d{3}\.\d{6} main \[\d+\] Ready\.\.\.\n", capsys.readouterr().err)
    Log(quiet=True)("main", "Ready...")
    assert capsys.readouterr().err == ""


def test_a_dump_shows_offsets_bytes_and_text():
    lines = dump(b"netmap\x00\xff" + bytes(range(0x30, 0x3A))).splitlines()

    assert lines[0] == "    0: 6e 65 74 6d 61 70 00 ff 30 31 32 33 34 35 36 37 netmap..01234567"
    assert lines[1].split() == ["16:", "38", "39", "89"]
