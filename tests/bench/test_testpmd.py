# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
import signal
import sys
from dataclasses import replace

import pytest

from ptnetmap.bench import testpmd
from ptnetmap.bench.frame import Result
from ptnetmap.bench.peers import Peers, Variant, fastest, peer_cases
from ptnetmap.bench.prompt import Prompt
from ptnetmap.bench.testpmd import (
    CIRCULATING,
    MEMIF,
    ONE_WAY,
    VHOST_USER,
    Pair,
    PortStats,
    command_lines,
    forwarding,
    parse_stats,
    result,
    run_memif,
)
from ptnetmap.errors import PtnetmapError

WITHIN = 60.0  # a deadline for things that must happen, never for how fast

STATS = """
show port stats all

  ######################## NIC statistics for port 0  ########################
  RX-packets: 15677600   RX-missed: 7          RX-bytes:  940656000
  RX-errors: 2
  RX-nombuf:  1         
  TX-packets: 12         TX-errors: 3          TX-bytes:  720

  Throughput (since last show)
  Rx-pps:     15670311          Rx-bps:   7521749288
  Tx-pps:           40          Tx-bps:        19200
  ############################################################################
"""  # noqa: W291 - testpmd pads its columns
FIGURES = PortStats(
    rx_packets=15677600,
    rx_missed=7,
    rx_bytes=940656000,
    rx_errors=2,
    rx_nombuf=1,
    tx_packets=12,
    tx_errors=3,
    tx_bytes=720,
    rx_pps=15670311,
    tx_pps=40,
)
ZERO = PortStats(*[0] * 10)

STAND_IN = f"""#!{sys.executable}
import os, sys
sys.path.insert(0, "")
told = open(os.environ["TOLD"], "a", buffering=1)
told.write(f"{{os.getpid()}} {{' '.join(sys.argv[1:])}}\\n")
packets, moving = 0, False
while True:
    try:
        line = input("testpmd> ")
    except EOFError:
        sys.exit()
    told.write(f"{{os.getpid()}} {{line}}\\n")
    if line == "show port summary all":
        print("Port MAC Address       Name         Driver         Status   Link")
        print("0    5E:A6:38:AF:7C:8E net_memif0   net_memif      up       100 Gbps")
    elif line == "show port stats all":
        packets += 1000 * moving
        print(f"  RX-packets: {{packets}}  RX-missed: 0  RX-bytes:  {{60 * packets}}")
        print("  RX-errors: 0\\n  RX-nombuf:  0")
        print(f"  TX-packets: {{packets}}  TX-errors: 0  TX-bytes:  {{60 * packets}}")
        print("  Rx-pps:      1000000          Rx-bps:   1\\n  Tx-pps:      1000000          Tx-bps:   1")
    elif line.startswith("set burst"):
        moving = True
    elif line == "stop":
        moving = False
    elif line == os.environ.get("DIES_AT"):
        print("EAL: out of luck", flush=True)
        os._exit(1)
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Put a stand-in for testpmd in the path; return what its processes have been told, by their order."""
    program = tmp_path / "bin" / testpmd.PROGRAM
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    log = tmp_path / "told"
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(log))
    monkeypatch.setattr(testpmd, "two_cores", lambda: (0, 1))

    def read():
        lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
        pids = list(dict.fromkeys(pid for pid, _ in lines))
        return [[text for pid, text in lines if pid == process] for process in pids]

    return read


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_statistics_are_read_as_testpmd_prints_them():
    assert parse_stats(STATS) == FIGURES


def test_statistics_that_lack_a_counter_are_refused_by_its_name():
    with pytest.raises(PtnetmapError, match="rx_missed") as refused:
        parse_stats(STATS.replace("RX-missed", "RX-lost"))

    assert refused.value.errno == errno.EPROTO


def test_a_result_is_what_the_receiver_counted_by_its_own_clock():
    before = replace(ZERO, rx_packets=100, rx_bytes=6000, rx_missed=1, rx_errors=1)
    after = replace(ZERO, rx_packets=300, rx_bytes=18000, rx_missed=4, rx_errors=2, rx_pps=1000)
    sent = replace(ZERO, tx_packets=210)

    assert result(before, after, ZERO, sent) == Result(200, 210, 4, 200_000_000, 12000)


def test_nothing_received_is_a_rate_of_zero():
    assert result(ZERO, ZERO, ZERO, ZERO).mpps == 0


def test_what_testpmd_is_told_depends_on_the_mode():
    both = ("set burst 32", "set txpkts 60")

    one_way, circulating = forwarding(ONE_WAY, 60, 32), forwarding(CIRCULATING, 60, 32)

    assert one_way.receiver == ("set fwd rxonly", *both, "start")
    assert one_way.sender == ("set fwd txonly", *both, "start")
    assert circulating.receiver == ("set fwd io", *both, "start")
    assert circulating.sender == ("set fwd io", *both, "start tx_first 16")


@pytest.mark.parametrize("burst", [1, 16, 32, 64, 256, 512])
def test_as_many_packets_circulate_at_every_burst(burst):
    first = forwarding(CIRCULATING, 60, burst).sender[-1]

    assert int(first.split()[-1]) * burst == testpmd.CIRCULATING_PACKETS


@pytest.mark.parametrize(("mode", "size", "burst"), [("both", 60, 32), (ONE_WAY, 59, 32), (ONE_WAY, 60, 0)])
def test_what_testpmd_cannot_do_is_refused_before_it_is_told(mode, size, burst):
    with pytest.raises(ValueError, match=r"testpmd's"):
        forwarding(mode, size, burst)


@pytest.mark.parametrize("link", [MEMIF, VHOST_USER])
def test_command_lines_say_how_to_repeat_it(link):
    first, second = command_lines(link, (2, 5))

    assert first.startswith("dpdk-testpmd -l 2,5 --main-lcore 2 ")
    assert second.startswith("dpdk-testpmd -l 2,5 --main-lcore 5 ")
    assert all("DIR/socket" in line and "--no-pci" in line for line in (first, second))


def test_huge_pages_are_used_where_enough_are_free(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(testpmd, "Path", lambda name: meminfo)

    meminfo.write_text("HugePages_Free:      300\nHugepagesize:       2048 kB\n")
    assert "--in-memory" in command_lines()[0]
    meminfo.write_text("HugePages_Free:        0\nHugepagesize:       2048 kB\n")
    assert "--no-huge" in command_lines()[0]


def test_where_testpmd_is_missing_the_reason_is_told_and_there_are_no_cases(monkeypatch):
    monkeypatch.setenv("PATH", "")

    assert "not installed" in testpmd.available()
    assert peer_cases() == []
    with pytest.raises(PtnetmapError, match="not installed") as refused:
        run_memif(ONE_WAY, 60, 0)
    assert refused.value.errno == errno.ENOSYS


def test_one_core_is_not_enough(told, monkeypatch):
    monkeypatch.setattr(testpmd, "two_cores", lambda: None)

    assert "core" in testpmd.available()


def test_a_pair_measures_several_runs_and_both_ends_stop_after_each(told):
    with Pair(MEMIF) as pair:
        first = pair.run(ONE_WAY, 60, 0)
        second = pair.run(CIRCULATING, 60, 0, 64, sender=0)

    assert first == second == Result(1000, 1000, 0, 1_000_000, 60_000)
    zero, one = told()
    assert "role=server" in zero[0]
    assert "role=client" in one[0]
    assert [line for line in zero if line.startswith("start")][::2] == ["start", "start tx_first 8"]
    assert zero[-1] == one[-1] == "stop"
    assert {line for line in one if line.startswith("set fwd")} == {"set fwd txonly", "set fwd rxonly", "set fwd io"}


def test_both_processes_are_gone_after_an_exception(told, monkeypatch):
    there = []

    def run_and_be_interrupted():
        with Pair(MEMIF) as pair:
            there.extend((pid, is_there(pid)) for pid in pair.pids)
            monkeypatch.setattr(testpmd.time, "sleep", interrupted)
            pair.run(ONE_WAY, 60, 1)

    def interrupted(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_and_be_interrupted()

    assert [before for _, before in there] == [True, True]
    assert not any(is_there(pid) for pid, _ in there)


def test_a_process_that_dies_is_an_error_with_what_it_printed(told, monkeypatch):
    monkeypatch.setenv("DIES_AT", "start tx_first 16")

    with pytest.raises(PtnetmapError, match="out of luck") as raised, Pair(MEMIF) as pair:
        pair.run(CIRCULATING, 60, 0)

    assert raised.value.errno == errno.ECHILD


def test_a_program_without_a_prompt_is_ended_at_the_deadline():
    with pytest.raises(PtnetmapError, match="prompt") as raised:
        Prompt([sys.executable, "-c", "import signal; signal.pause()"], os.environ, "> ", 0.0)

    assert raised.value.errno == errno.ETIMEDOUT


def test_a_program_that_is_not_there_is_an_error():
    with pytest.raises(PtnetmapError, match="cannot start") as raised:
        Prompt(["/nonexistent/testpmd"], os.environ, "> ", WITHIN)

    assert raised.value.errno == errno.ENOENT


def test_the_fastest_variant_is_that_of_the_best_single_run():
    slow, fast = Variant(ONE_WAY, 32, 1), Variant(ONE_WAY, 64, 1)
    rates = {slow: iter([200, 200]), fast: iter([100, 300])}

    assert fastest([slow, fast], lambda variant: Result(next(rates[variant]) + 1, 0, 0, 1000, 0), tries=2) == fast


def test_a_peer_looks_for_its_best_once_and_keeps_its_processes(told):
    peers = Peers()
    try:
        for _ in range(2):
            peers.run(MEMIF, ONE_WAY, 60, 0, 1, (0, 1))
        notes = peers.footnotes()
    finally:
        peers.close()

    zero, _ = told()
    assert len(told()) == 2
    assert sum(line.startswith("set burst") for line in zero) == 3 * 2 + 2
    assert len(notes) == 3
    assert "peer/memif/one_way, 60 B, batch 1: one_way, burst 1, end" in notes[-1]


def test_a_peer_that_fails_is_started_anew(told, monkeypatch):
    peers = Peers()
    try:
        peers.run(MEMIF, ONE_WAY, 60, 0, 1, (0, 1))
        os.kill(peers._pairs[MEMIF, (0, 1)].pids[0], signal.SIGKILL)
        with pytest.raises(PtnetmapError):
            peers.run(MEMIF, ONE_WAY, 60, 0, 1, (0, 1))

        assert peers.run(MEMIF, ONE_WAY, 60, 0, 1, (0, 1)).received == 1000
    finally:
        peers.close()


@pytest.mark.dpdk
@pytest.mark.skipif(testpmd.available() is not None, reason=f"needs DPDK: {testpmd.available()}")
@pytest.mark.parametrize("mode", [ONE_WAY, CIRCULATING])
def test_testpmd_moves_whole_frames_over_memif(mode):
    with Pair(MEMIF) as pair:
        results = {size: pair.run(mode, size, 0.05) for size in (60, 1514)}

    burst = 32
    for size, one in results.items():
        assert one.received > 0
        assert one.dropped == 0
        # A driver counts a burst's bytes before its packets: each of the two looks may have come in between.
        assert abs(one.bytes - size * one.received) <= 2 * burst * size
