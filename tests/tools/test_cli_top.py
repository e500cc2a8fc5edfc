# SPDX-License-Identifier: BSD-2-Clause
import argparse
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import ptnetmap
from ptnetmap.cli import top
from ptnetmap.cli.outcome import conclude
from ptnetmap.netmap.client.session import connect
from ptnetmap.netmap.daemon.locks import holder, life_lock
from ptnetmap.netmap.daemon.patience import Patience
from ptnetmap.netmap.wire import extension
from ptnetmap.tools.top import Absent, Reader, View, compare, follow

pytestmark = pytest.mark.interpreted

FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(46)
DEADLINE = 30
RUN = (
    "import argparse, sys\n"
    "from ptnetmap.cli import top\n"
    "from ptnetmap.cli.outcome import conclude\n"
    "parser = argparse.ArgumentParser(prog='ptnetmap')\n"
    "top.add_to(parser.add_subparsers(required=True))\n"
    "options = parser.parse_args()\n"
    "sys.exit(conclude('ptnetmap', lambda: options.run(options)))\n"
)


def main(*arguments):
    parser = argparse.ArgumentParser(prog="ptnetmap")
    top.add_to(parser.add_subparsers(required=True))
    options = parser.parse_args(["top", *map(str, arguments)])
    return conclude("ptnetmap", lambda: options.run(options))


class Netmapd:
    """An interpreted netmapd at a socket of its own."""

    def __init__(self, path):
        self.path = path
        self.start()

    def start(self):
        command = [sys.executable, "-m", "ptnetmap.cli.netmapd", "--socket", str(self.path), "--idle", "60"]
        subprocess.run(command, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, check=True, stdout=subprocess.DEVNULL)

    def end(self, number=signal.SIGTERM):
        pid = holder(life_lock(self.path).file)
        if pid is not None and Path(f"/proc/{pid}").exists():
            os.kill(pid, number)
        with Patience(DEADLINE) as patience, life_lock(self.path) as lock:
            lock.acquire(patience)


@pytest.fixture
def place(monkeypatch):
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setenv("NETMAP_SOCKET", f"{directory}/s")
        yield Path(directory) / "s"


@pytest.fixture
def mortal(place):
    """Start a netmapd that the test may end."""
    daemon = Netmapd(place)
    yield daemon
    daemon.end()


@pytest.fixture(scope="module")
def shared():
    with tempfile.TemporaryDirectory() as directory:
        daemon = Netmapd(Path(directory) / "s")
        yield daemon
        daemon.end()


@pytest.fixture
def netmapd(shared, monkeypatch):
    """A netmapd without ports, which all tests share."""
    monkeypatch.setenv("NETMAP_SOCKET", str(shared.path))
    deadline = time.monotonic() + DEADLINE
    with connect(start=False) as session:
        while extension.introspect(session.request, extension.PORT_LIST):
            assert time.monotonic() < deadline
            os.sched_yield()
    return shared


def exchange(sender, receiver, count):
    """Send frames and receive them all."""
    sender.send([FRAME] * count)
    got = 0
    while got < count:
        frames = receiver.recv(timeout=DEADLINE)
        assert frames
        got += len(frames)


def agrees(shown, stats):
    return (
        (shown["tx"]["packets"], shown["tx"]["bytes"], shown["rx"]["packets"], shown["rx"]["bytes"])
        == (stats.tx_packets, stats.tx_bytes, stats.rx_packets, stats.rx_bytes)
        and {reason: drop["packets"] for reason, drop in shown["drops"].items()} == stats.drops
        and (shown["rx"]["missed"], shown["rx"]["truncated"]) == (stats.missed, stats.truncated)
    )


# Figures --------------------------------------------------------------------------------------------------------------


def test_figures_agree_with_those_of_the_ports(netmapd, capsys):
    names = ("vale0:a", "vale0:b", "vale1:c", "netmap:p{1", "netmap:p}1")
    ports = {name.removeprefix("netmap:"): ptnetmap.open(name) for name in names}
    exchange(ports["vale0:a"], ports["vale0:b"], 300)
    exchange(ports["p{1"], ports["p}1"], 70)
    ports["vale1:c"].send([FRAME] * 20)

    assert main("--once", "--json", "-d", 0.1) == 0
    (line,) = capsys.readouterr().out.splitlines()
    shown = json.loads(line)
    assert (shown["socket"], shown["version"]) == (str(netmapd.path), ptnetmap.__version__)
    assert shown["generation"] == ports["vale0:a"].generation
    assert {port["name"] for port in shown["ports"]} == set(ports)
    for port in shown["ports"]:
        assert agrees(port, ports[port["name"]].stats), port
        assert port["pids"] == [os.getpid()]
        assert port["tx"]["pps"] == port["rx"]["bps"] == 0
    by_name = {port["name"]: port for port in shown["ports"]}
    assert by_name["vale0:b"]["rx"]["packets"] == 300
    assert by_name["p}1"]["rx"]["packets"] == 70
    assert by_name["vale1:c"]["drops"]["no_reader"]["packets"] == 20
    assert 0 <= shown["kthreads"][0]["load"] <= 1
    for port in ports.values():
        port.close()


def test_a_window_counts_what_was_sent_in_it_and_a_new_port_comes_without_rates(netmapd):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b") as b, connect(start=False) as session:
        exchange(a, b, 10)
        reader = Reader(session)
        before = reader.read()
        exchange(a, b, 40)
        with ptnetmap.open("vale0:c"):
            view = compare(before, reader.read())

    rows = {row.name: row for row in view.ports}
    assert (rows["vale0:a"].window.tx_packets, rows["vale0:b"].window.rx_packets) == (40, 40)
    assert rows["vale0:a"].tx_pps * rows["vale0:a"].seconds == pytest.approx(40)
    assert rows["vale0:b"].rx_bps * rows["vale0:b"].seconds == pytest.approx(40 * 60 * 8)
    assert rows["vale0:c"].tx_pps is None


def test_slots_that_wait_for_their_reader_are_the_rings_level(netmapd):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b") as b, connect(start=False) as session:
        a.send([FRAME] * 5)
        assert b.poll(1, DEADLINE * 1000)
        reader = Reader(session)
        rows = {one.port["name"]: one for one in reader.read().ports}

        assert (rows["vale0:b"].rx.packets, rows["vale0:b"].rx.slots) == (5, 1024)


# Ends -----------------------------------------------------------------------------------------------------------------


def test_no_netmapd_is_started(place, capsys):
    assert main("--once") == 1

    error = capsys.readouterr().err
    assert f"no netmapd listens at {place}" in error
    assert "top starts none" in error
    assert not place.exists()


def test_netmapds_end_is_a_message_and_exit_code_1(mortal, capsys, monkeypatch):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            mortal.end(signal.SIGKILL)

    monkeypatch.setattr(top, "time", SimpleNamespace(sleep=sleep, time=time.time))
    assert main("--json") == 1

    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert captured.err.startswith(f"ptnetmap top: netmapd at {mortal.path} has gone")


def test_the_next_netmapd_is_followed(mortal):
    turns = iter([lambda: None, mortal.end, mortal.start, lambda: None])

    def pause():
        act = next(turns, None)
        if act is not None:
            act()
        return act is not None

    states = list(follow(lambda: connect(start=False), pause, wait=True, at_once=True))

    assert [type(state) for state in states] == [View, View, Absent, View, View]
    first, second, _, third, last = states
    assert first.generation == second.generation != third.generation == last.generation
    assert second.seconds > 0
    assert third.seconds == 0


@pytest.mark.parametrize("arguments", [["-n", 3], ["-n", 3, "--json"]], ids=["tables", "json"])
def test_as_many_are_printed_as_asked_for(netmapd, capsys, arguments):
    assert main("-d", 0.1, *arguments) == 0

    out = capsys.readouterr().out
    assert len(re.findall("^netmapd |^{", out, re.MULTILINE)) == 3


def test_what_is_no_terminal_gets_one_table_of_120_columns(netmapd, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    with ptnetmap.open("vale0:a"), ptnetmap.open("vale1:b"):
        assert main("-d", 0.1, "vale1") == 0

    out = capsys.readouterr().out
    assert out.startswith("netmapd ")
    assert "\x1b" not in out
    assert "process" in out
    assert "vale1:b" in out
    assert "vale0:a" not in out


def test_an_interrupt_ends_a_stream_of_json_well(netmapd, capsys, monkeypatch):
    def sleep(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(top, "time", SimpleNamespace(sleep=sleep, time=time.time))
    assert main("--json") == 0
    assert capsys.readouterr() == ("", "")


# The terminal ---------------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal of 24 lines with ``ptnetmap top`` in it."""

    def __init__(self, *arguments, **environment):
        self.main, self.side = pty.openpty()
        termios.tcsetwinsize(self.side, (24, 80))
        self.mode = termios.tcgetattr(self.side)
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, "top", "-d", "0.1", *arguments],
            stdin=self.side,
            stdout=self.side,
            stderr=self.side,
            env={**os.environ, "TERM": "xterm", **environment},
        )

    def until(self, pattern):
        deadline = time.monotonic() + DEADLINE
        while not re.search(pattern, self.seen):
            assert select.select([self.main], [], [], max(deadline - time.monotonic(), 0))[0], self.seen
            self.seen += os.read(self.main, 65536).decode(errors="replace")

    def press(self, key):
        os.write(self.main, key.encode())

    def ended(self):
        """Return the exit code, once all output has been read."""
        while self.process.poll() is None or select.select([self.main], [], [], 0)[0]:
            if select.select([self.main], [], [], 0.01)[0]:
                self.seen += os.read(self.main, 65536).decode(errors="replace")
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.main)
        os.close(self.side)


@pytest.fixture
def terminal(netmapd):
    opened = []

    def open_one(*arguments, **environment):
        opened.append(Terminal(*arguments, **environment))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def press_q(one):
    one.press("q")


def interrupt(one):
    one.process.send_signal(signal.SIGINT)


def terminate(one):
    one.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(("end", "code"), [(press_q, 0), (interrupt, 0), (terminate, 128 + signal.SIGTERM)])
def test_the_terminal_is_as_it_was_afterwards(terminal, end, code):
    with ptnetmap.open("vale0:a"):
        screen = terminal()
        screen.until("vale0:a")
        assert termios.tcgetattr(screen.side) != screen.mode
        end(screen)

        assert screen.ended() == code
    assert termios.tcgetattr(screen.side) == screen.mode
    assert screen.seen.startswith("\x1b[?1049h")
    assert "\x1b[?1049l" in screen.seen[-20:]
    assert "\x1b[?25h" in screen.seen[-20:]
    assert "Traceback" not in screen.seen


def test_a_stopped_program_gives_the_terminal_back_until_it_goes_on(terminal):
    screen = terminal()
    screen.until("now: busy")
    screen.process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(screen.process.pid, os.WUNTRACED)

    assert os.WIFSTOPPED(status)
    assert termios.tcgetattr(screen.side) == screen.mode
    screen.process.send_signal(signal.SIGCONT)
    screen.until(r"(?s)\x1b\[\?1049l.*\x1b\[\?1049h.*now: busy")
    screen.press("q")
    assert screen.ended() == 0
    assert termios.tcgetattr(screen.side) == screen.mode


def test_s_sorts_by_something_else_and_other_keys_do_nothing(terminal):
    screen = terminal()
    screen.until(r"now: busy")
    screen.press("\x1b[Ax")
    screen.press("s")
    screen.until(r"now: tx")
    screen.press("q")

    assert screen.ended() == 0


def test_a_window_of_another_size_is_filled_anew(terminal):
    screen = terminal("-d", "1000")
    screen.until("now: busy")
    termios.tcsetwinsize(screen.side, (10, 130))
    screen.process.send_signal(signal.SIGWINCH)
    screen.until(" {100}\r?\n")
    screen.press("q")

    assert screen.ended() == 0


def test_colours_follow_no_color(terminal):
    with ptnetmap.open("vale0:a") as port:
        port.send([FRAME])
        screen = terminal(NO_COLOR="1")
        screen.until("no_reader")
        screen.press("q")

        assert screen.ended() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", screen.seen)


def test_after_a_count_the_last_table_stays_on_the_terminal(terminal):
    with ptnetmap.open("vale0:a"):
        screen = terminal("-n", "2")

        assert screen.ended() == 0
    assert "vale0:a" in screen.seen.rpartition("\x1b[?25h")[2]


# The command line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["-d", "0"], ["-d", "nan"], ["-n", "0"], ["--once", "-n", "2"], ["--sort", "colour"]],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(*arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("command", ["top", "doctor"])
def test_help_imports_nothing_heavy_and_has_examples(command):
    code = (
        f"import argparse, atexit, sys; from ptnetmap.cli import {command} as one\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "parser = argparse.ArgumentParser(prog='ptnetmap'); one.add_to(parser.add_subparsers())\n"
        f"parser.parse_args(['{command}', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0
    assert not {"numba", "numpy", "rich", "ptnetmap.netmap"} & set(done.stderr.split())
    assert f"  ptnetmap {command}" in done.stdout.partition("examples:")[2]


def test_the_orders_are_those_there_are():
    from ptnetmap.tools.top import SORTS

    assert set(top.SORTS) == set(SORTS)
