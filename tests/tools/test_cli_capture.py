# SPDX-License-Identifier: BSD-2-Clause
import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

import ptnetmap
from ptnetmap.cli import capture
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.pcap import open_capture

FRAME = bytes.fromhex("ffffffffffff02000000000188b5") + bytes(46)


@pytest.fixture
def nm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Netmap]:
    """A runtime that the program opens its ports on."""
    with Netmap() as runtime:
        monkeypatch.setattr(ptnetmap, "open", runtime.open, raising=False)
        yield runtime


def parse(*arguments):
    parser = argparse.ArgumentParser(prog="ptnetmap")
    capture.add_to(parser.add_subparsers())
    return parser.parse_args(["capture", *arguments])


def run(*arguments):
    options = parse(*arguments)
    return options.run(options)


@pytest.fixture
def hurry(monkeypatch):
    """Whatever opens the monitor, frames are in it before the capture begins."""

    def set_up(nm, *senders):
        def opener(name, **options):
            port = nm.open(name, **options)
            for sender, frames in senders:
                sender.send(frames)
            return port

        monkeypatch.setattr(ptnetmap, "open", opener, raising=False)

    return set_up


@pytest.mark.parametrize(("name", "form"), [("f.pcapng", "pcapng"), ("f.pcap", "pcap"), ("f", "pcapng")])
def test_the_files_name_chooses_the_format(nm, hurry, tmp_path, name, form, capsys):
    with nm.open("vale0:a") as a:
        hurry(nm, (a, [FRAME] * 5))
        assert run("vale0:a", "-w", str(tmp_path / name), "-c", "3") == 0
    with open_capture(tmp_path / name) as file:
        assert (file.format, len(list(file))) == (form, 3)
        assert file.interfaces[0].name == ("vale0:a" if form == "pcapng" else "")
    err = capsys.readouterr().err
    assert "3 packets captured (0 received and 3 sent by the port), 180 bytes" in err
    assert "0 packets missed" in err


@pytest.mark.parametrize(("direction", "count"), [("rx", 2), ("tx", 3), ("both", 5)])
def test_a_direction_can_be_chosen(nm, hurry, tmp_path, direction, count, capsys):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b:
        hurry(nm, (a, [FRAME] * 3), (b, [FRAME] * 2))
        assert run("vale0:a", "-w", str(tmp_path / "f"), "-d", direction, "-G", "0.01", "--json") == 0
    assert json.loads(capsys.readouterr().out)["packets"] == count


def test_json_has_all_figures(nm, hurry, tmp_path, capsys):
    with nm.open("vale0:a") as a:
        hurry(nm, (a, [FRAME] * 5))
        assert run("vale0:a/t@conf:rx-slots=4", "-w", str(tmp_path / "f"), "-c", "3", "--json", "-s", "20") == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert figures.pop("seconds") >= 0
    assert figures.pop("file_bytes") == (tmp_path / "f").stat().st_size
    assert figures == {"packets": 3, "bytes": 180, "inbound": 0, "outbound": 3, "missed": 2, "ended": "count"}
    assert err == ""


def test_quiet_prints_nothing(nm, hurry, tmp_path, capsys):
    with nm.open("vale0:a") as a:
        hurry(nm, (a, FRAME))
        assert run("vale0:a", "-w", str(tmp_path / "f"), "-c", "1", "-q", "--format", "pcap", "--flush", "full") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["vale0:a/r", "-w", "f", "-d", "rx"], "leave out -d"),
        (["eth0", "-w", "f"], "write netmap:eth0"),
    ],
)
def test_what_makes_no_sense_together_exits_with_2(arguments, found, capsys):
    assert run(*arguments) == 2
    assert found in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["vale0:a"],
        ["vale0:a", "-w", "f", "-c", "0"],
        ["vale0:a", "-w", "f", "-s", "-1"],
        ["vale0:a", "-w", "f", "-G", "nan"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2


def test_help_shows_an_example_and_imports_nothing_heavy():
    body = (
        "import argparse, atexit, sys\n"
        "atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))\n"
        "from ptnetmap.cli import capture\n"
        "parser = argparse.ArgumentParser(prog='ptnetmap')\n"
        "capture.add_to(parser.add_subparsers())\n"
        "parser.parse_args(['capture', '--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True)
    assert done.returncode == 0
    assert "ptnetmap capture" in done.stdout.partition("example")[2]
    assert not {"numba", "numpy", "rich", "llvmlite"} & set(done.stderr.split())


PROGRAM = """
import argparse, os, signal, sys, threading, time
import ptnetmap
from ptnetmap.cli import capture
from ptnetmap.cli.outcome import conclude
from ptnetmap.tools.capture import session

nm = ptnetmap.Netmap()
port = nm.open("vale0:a")
frame = bytes.fromhex("ffffffffffff02000000000188b5") + bytes(46)

def opener(name, **options):
    monitor = nm.open(name, **options)
    port.send([frame] * 100)
    return monitor

ptnetmap.open = opener
parser = argparse.ArgumentParser(prog="ptnetmap")
capture.add_to(parser.add_subparsers())
options = parser.parse_args(["capture", "vale0:a", *sys.argv[1:]])
if os.environ.get("INTERRUPT"):
    number = int(os.environ["INTERRUPT"])  # as from a terminal, though whoever runs the tests may ignore it
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    session._TELL = 0
    inner = session.Session
    def told(self, *arguments, **keywords):  # interrupts itself once the first packets are there
        original(self, *arguments, **{**keywords, "progress": lambda n, m: os.kill(os.getpid(), number)})
    original, inner.__init__ = inner.__init__, told
sys.exit(conclude("ptnetmap", lambda: options.run(options)))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_the_capture_with_a_whole_file_and_exit_code_0(number, tmp_path):
    environment = {**os.environ, "INTERRUPT": str(int(number)), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "-w", str(tmp_path / "f")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert (done.returncode, done.stderr.count("100 packets captured")) == (0, 1), done.stderr
    with open_capture(tmp_path / "f") as file:
        assert len(list(file)) == 100


def test_standard_output_gets_the_file_and_nothing_else(tmp_path):
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    with (tmp_path / "f").open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "-w", "-", "-c", "50", "--json"],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr)["packets"] == 50
    with open_capture(tmp_path / "f") as capture_file:
        assert len(list(capture_file)) == 50


def test_a_reader_that_goes_away_ends_the_capture_quietly():
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "-w", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    child.stdout.close()
    err = child.stderr.read()
    child.stderr.close()
    assert (child.wait(), err) == (128 + signal.SIGPIPE, b"")
