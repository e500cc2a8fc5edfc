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

from ptnetmap.cli.bridge import main
from ptnetmap.netmap.bridge.session import Bridge
from ptnetmap.netmap.runtime import Netmap

FRAME = bytes.fromhex("ffffffffffff02000000000188b5") + bytes(46)
SHARED = "vale1:b@share=vale0:a"


@pytest.fixture
def nm() -> Iterator[Netmap]:
    with Netmap() as runtime:
        yield runtime


@pytest.fixture
def brief(monkeypatch):
    """A bridge that ends when there is nothing left to move."""
    monkeypatch.setattr(Bridge, "run", Bridge.turn)


def lines(capsys):
    """What was printed to stderr, without the times and numbers of lines."""
    err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("ptnetmap: compiling")]
    assert all(re.match(r"\d{3}\.\d{6} main \[\d+\] ", line) for line in err)
    return [line.split("] ", 1)[1] for line in err]


@pytest.mark.parametrize(
    ("second", "option", "zero_copy"), [(SHARED, (), ""), (SHARED, ("-c",), "NOT "), ("vale1:b", (), "NOT ")]
)
def test_it_says_what_upstream_says(nm, brief, capsys, second, option, zero_copy):
    assert main(["-i", "vale0:a", "-i", second, *option], opener=nm.open) == 0
    assert lines(capsys) == [
        f"------- zerocopy {zero_copy}supported",
        "Wait 0 secs for link to come up...",
        "Ready to go, vale0:a 0x0/1 <-> vale1:b 0x0/1.",
    ]


@pytest.mark.parametrize(
    ("arguments", "burst"),
    [
        (["vale0:a", "vale1:b", "7"], 7),
        (["--interface", "vale0:a", "--interface", "vale1:b", "--burst", "8"], 8),
        (["vale0:a", "-i", "vale9:z", "-i", "vale1:b", "-b", "9"], 9),
        (["-i", "vale9:y", "-i", "vale9:z", "vale0:a", "vale1:b"], 1024),
    ],
)
def test_ports_are_given_by_option_or_place_and_figures_as_json(nm, monkeypatch, capsys, arguments, burst):
    def run(bridge):
        x.send([FRAME] * 3)
        bridge.turn()

    monkeypatch.setattr(Bridge, "run", run)
    with nm.open("vale0:x") as x:
        assert main([*arguments, "--json"], opener=nm.open) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["burst"], report["zero_copy"], err) == (burst, False, "")
    none = {"packets": 0, "bytes": 0, "empty": 0, "bad": 0, "too_long": 0}
    assert report["ways"] == [
        {"from": "vale0:a", "to": "vale1:b", **none, "packets": 3, "bytes": 180},
        {"from": "vale1:b", "to": "vale0:a", **none},
    ]


def test_loopback_uses_one_port(nm, brief, capsys):
    assert main(["-L", "vale0:a"], opener=nm.open) == 0
    assert lines(capsys)[0] == "same interface, loopbacking traffic"
    assert main(["-L", "vale0:a", "vale0:a", "--json"], opener=nm.open) == 0
    assert len(json.loads(capsys.readouterr().out)["ways"]) == 1


def test_one_port_alone_would_need_host_rings(nm, capsys):
    assert main(["vale0:a"], opener=nm.open) == 1
    err = capsys.readouterr().err
    assert "same interface, endpoint 0 goes to host" in err
    assert "cannot open the host rings of vale0:a" in err


def test_what_is_out_of_range_is_corrected_and_said(nm, brief, capsys):
    arguments = ["-i", "vale0:a", "-i", "vale1:b", "-i", "vale2:c", "-b", "9999", "-w", "0"]
    assert main(arguments, opener=nm.open) == 0
    assert lines(capsys)[:2] == [
        "vale2:c ignored, already have 2 interfaces",
        "invalid burst 9999, set to 1024",
    ]


@pytest.mark.parametrize("arguments", [[], ["a", "b", "c"], ["a", "b", "1", "2"], ["-x", "a"], ["-b", "many", "a"]])
def test_a_wrong_command_line_ends_with_1(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert "usage: bridge" in capsys.readouterr().err


def test_a_quiet_bridge_prints_its_state(nm, monkeypatch, capsys):
    monkeypatch.setattr("ptnetmap.netmap.bridge.session.QUIET", 1)
    monkeypatch.setattr(Bridge, "run", lambda bridge: bridge._quiet())
    assert main(["vale0:a", "vale1:b"], opener=nm.open) == 0
    assert lines(capsys)[-1] == "poll timeout [0] ev 1 0 rx 0@0 tx 1023, [1] ev 1 0 rx 0@0 tx 1023"


def test_an_interrupt_ends_it_with_0(nm, capsys):
    before = signal.getsignal(signal.SIGINT)
    begun = threading.Event()

    def opener(name, **options):
        port = nm.open(name, **options)
        if name == "vale1:b":
            begun.set()
        return port

    def interrupt():
        begun.wait(30)
        while signal.getsignal(signal.SIGINT) == before:
            os.sched_yield()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert main(["vale0:a", "vale1:b", "--json"], opener=opener) == 0
    thread.join()
    assert json.loads(capsys.readouterr().out)["ways"][0]["packets"] == 0
    assert signal.getsignal(signal.SIGINT) == before


def test_help_needs_nothing_heavy_and_has_an_example():
    code = (
        "import sys; from ptnetmap.cli.bridge import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'numba', 'ptnetmap.netmap'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "bridge -i vale0:a -i vale1:b" in done.stdout
