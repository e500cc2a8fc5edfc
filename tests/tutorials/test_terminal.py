# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from tests.tutorials.terminal import Terminal, UnexpectedError

PATIENCE = 60
SOON = 0.2


def state_of(pid):
    """The state of a process; "gone" also if only nobody has waited for it yet."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return "gone" if state in "ZX" else state
    return "gone"


@pytest.fixture
def make_terminal(tmp_path):
    def make():
        return contextlib.closing(Terminal(tmp_path, tmp_path / "typed", {"PATH": os.environ["PATH"]}))

    return make


@pytest.fixture
def terminal(make_terminal):
    with make_terminal() as made:
        yield made


def test_what_is_shown_is_what_was_expected(terminal):
    terminal.type("echo one; echo two\necho three >&2\n", PATIENCE)
    terminal.expect("one\n...\nthree", PATIENCE)
    terminal.finish()


@pytest.mark.parametrize("wrong", ["one\ntwo", "on", "one\n1", "... two", "two\n..."])
def test_a_change_of_what_is_shown_is_noticed_when_the_shell_is_through(terminal, wrong):
    terminal.type("echo one\n", PATIENCE)
    with pytest.raises(UnexpectedError, match=r"is through, and the terminal shows\none"):
        terminal.expect(wrong, PATIENCE)


def test_what_does_not_come_is_not_waited_for_for_ever(terminal):
    terminal.type("echo one; cat\n", PATIENCE)
    with pytest.raises(UnexpectedError, match=r"the terminal shows\none\n"):
        terminal.expect("one\ntwo", SOON)


def test_what_nobody_looked_at_is_noticed_at_the_end(terminal):
    terminal.type("echo one\nsleep 0.1; echo two\n", PATIENCE)
    terminal.expect("one", PATIENCE)
    with pytest.raises(UnexpectedError, match="two"):
        terminal.finish()


def test_after_a_line_of_dots_anything_may_come_before_the_next(terminal):
    terminal.type("echo one; read line; echo more; echo $line\n", PATIENCE)
    terminal.expect("one\n...", PATIENCE)
    terminal.type_inside("last\n")
    terminal.expect("last", PATIENCE, ends=True)


def test_what_shows_something_though_it_should_not_is_noticed(terminal):
    terminal.type("echo one\n", PATIENCE)
    with pytest.raises(UnexpectedError, match="one"):
        terminal.expect("", PATIENCE, ends=True)


def test_a_program_is_interrupted_even_if_interrupts_are_ignored_here(make_terminal):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        opened = make_terminal()
    finally:
        signal.signal(signal.SIGINT, before)
    with opened as terminal:
        terminal.type("sh -c 'echo ready; exec sleep 1000'\n", PATIENCE)
        terminal.expect("ready", PATIENCE)
        terminal.type_inside("^C\n")
        terminal.expect("", PATIENCE, ends=True)


def test_nothing_runs_on_when_a_terminal_is_closed(make_terminal, tmp_path):
    with make_terminal() as terminal:
        terminal.type("sleep 1000 &\necho $! >pid\necho started\ncat\n", PATIENCE)
        terminal.expect("started", PATIENCE)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + PATIENCE
    while state_of(pid) != "gone":
        assert time.monotonic() < deadline
