# SPDX-License-Identifier: BSD-2-Clause
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from ptnetmap.cli.lb import main
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.tools.lb.balancer import Balancer

FRAME = bytes.fromhex("ffffffffffff02000000000188b5") + bytes(46)


@pytest.fixture
def nm() -> Iterator[Netmap]:
    with Netmap() as runtime:
        yield runtime


@pytest.fixture
def fed(nm, monkeypatch):
    """A balancer that ends after 30 packets."""

    def run(balancer, until=None, *, busy=False):
        with nm.open("vale0:x") as x:
            x.send([FRAME] * 30)
            balancer.turn()
        balancer.stop()

    monkeypatch.setattr(Balancer, "run", run)


def test_it_says_what_upstream_says(nm, fed, capsys):
    assert main(["-i", "vale0:in", "-B", "10"], opener=nm.open) == 0
    out, err = capsys.readouterr()
    assert out == "30 packets forwarded.  0 packets dropped. Total 30\n"
    log = [line for line in err.splitlines() if not line.startswith("ptnetmap: compiling")]
    assert all(re.match(r"\d{3}\.\d{6} main \[\d+\] ", line) for line in log)
    said = [line.split("] ", 1)[1] for line in log]
    mem_id = re.search(r"@(\d+)", err)[1]
    pipes = [f"vale0:in{{{i}/xT@{mem_id}" for i in range(2)]
    assert said == [
        "interface is vale0:in",
        "requested 10 extra buffers",
        "successfully opened vale0:in (rx rings: 1)",
        f"opening pipe named {pipes[0]}",
        f"successfully opened pipe #1 {pipes[0]} (tx slots: 1024)",
        "zerocopy enabled",
        f"opening pipe named {pipes[1]}",
        f"successfully opened pipe #2 {pipes[1]} (tx slots: 1024)",
        "zerocopy enabled",
        "obtained 10 extra buffers",
    ]


def test_json_has_all_figures_of_groups_and_pipes(nm, fed, capsys):
    arguments = ["--interface", "vale0:in", "--pipes", "1", "--pipes", "ids:2", "--batch", "7", "--json"]
    assert main(arguments, opener=nm.open) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert err == ""
    assert (report["interface"], report["packets_received"], report["non_ip_packets"]) == ("vale0:in", 30, 30)
    assert (report["packets_forwarded"], report["packets_dropped"], report["bytes_received"]) == (30, 0, 1800)
    assert [(pipe["group"], pipe["interface"], pipe["packets_forwarded"]) for pipe in report["pipes"]] == [
        (0, "vale0:in}0", 30),
        (1, "netmap:ids}0", 0),
        (1, "netmap:ids}1", 0),
    ]


@pytest.mark.parametrize(("option", "stream"), [("-o", "out"), ("-s", "err")])
def test_figures_come_at_intervals(nm, monkeypatch, capsys, option, stream):
    rounds = []
    logged = []

    def run(balancer, until=None, *, busy=False):
        rounds.append(until)
        balancer.turn()
        if len(rounds) == 3:
            balancer.stop()

    monkeypatch.setattr(Balancer, "run", run)
    monkeypatch.setattr("syslog.syslog", lambda priority, line: logged.append(line))
    assert main(["-i", "vale0:in", "-p", "1", option, "1e-9"], opener=nm.open) == 0
    text = getattr(capsys.readouterr(), stream)
    printed = [line for line in text.splitlines() if line.startswith("{")]
    assert [json.loads(line)["output_ring"] for line in printed] == [0, None] * 3
    assert logged == (printed if option == "-s" else [])
    assert None not in rounds


def test_a_bare_name_is_an_interface(nm, capsys):
    assert main(["-i", "nowhere"], opener=nm.open) == 1
    assert "no port or network interface is called nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["-i", "x", "-p", "0"], ["-i", "x", "-B", "-1"], ["-i", "x", "-b", "0"], ["-i", "x", "-w", "long"]],
)
def test_a_wrong_command_line_ends_with_1(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert "usage: lb" in capsys.readouterr().err


@pytest.mark.parametrize("option", [[], ["-W"]], ids=["sleeping", "busy"])
def test_an_interrupt_ends_it_with_0(nm, capsys, option):
    before = signal.getsignal(signal.SIGINT)

    def interrupt():
        while signal.getsignal(signal.SIGINT) == before:
            os.sched_yield()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert main(["-i", "vale0:in", *option], opener=nm.open) == 0
    thread.join()
    assert capsys.readouterr().out == "0 packets forwarded.  0 packets dropped. Total 0\n"


def test_help_needs_nothing_heavy_and_has_an_example():
    code = (
        "import sys; from ptnetmap.cli.lb import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'numba', 'ptnetmap.netmap'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "lb -i vale0:in -p 4" in done.stdout
