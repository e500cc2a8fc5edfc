# SPDX-License-Identifier: BSD-2-Clause
"""Our own terminal, in a process that has one to itself."""

import os
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.devices.console.terminal import COMMANDS, ESCAPE, EscapeFilter

DEADLINE = 60
SESSION = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
PROGRAM = """
import asyncio, sys, threading
from ptnetmap.bhyve.devices.console import Console, parse_backend

class Port:
    room = 4096
    def receive(self, data):
        console.write(b"<" + data.hex().encode() + b">")
        if data.endswith(b"q"):
            loop.stop()
        if data.endswith(b"e"):
            raise SystemExit(3)
    def settle(self):
        pass

loop = asyncio.new_event_loop()
console = Console(
    parse_backend("com1", "stdio", lambda name: console.write(b"[" + name.encode() + b"]")), Port(), threading.RLock(), loop
)
console.write(b"ready")
loop.run_forever()
console.close()
loop.close()
"""


class Terminal:
    """A terminal, and the program that runs on it."""

    def __init__(self):
        self.fd, self.slave = os.openpty()
        self.before = self.settings()
        self.program = subprocess.Popen(
            [sys.executable, "-c", SESSION + PROGRAM],
            stdin=self.slave,
            stdout=self.slave,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.seen = b""

    def expect(self, text):
        end = time.monotonic() + DEADLINE
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.fd], [], [], 1)[0]:
                self.seen += os.read(self.fd, 4096)

    def type(self, keys):
        os.write(self.fd, keys)

    def settings(self):
        return termios.tcgetattr(self.slave)

    @property
    def is_raw(self):
        return not self.settings()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def end(self):
        _, self.errors = self.program.communicate(timeout=DEADLINE)
        return self.program.returncode

    def close(self):
        if self.program.poll() is None:
            self.program.kill()
        self.end()
        os.close(self.fd)
        os.close(self.slave)


@pytest.fixture
def terminal():
    terminal = Terminal()
    terminal.expect(b"ready")
    yield terminal
    terminal.close()


def test_it_is_raw_while_the_guest_has_it_and_as_before_afterwards(terminal):
    assert terminal.is_raw
    terminal.type(b"\x03\x04\x1a\r")
    terminal.expect(b"<03041a0d>")
    terminal.type(b"q")

    assert terminal.end() == 0
    assert terminal.settings() == terminal.before
    assert b"Ctrl-] x" in terminal.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_it_is_as_before_after_a_fatal_signal(terminal, number):
    terminal.program.send_signal(number)
    status = terminal.end()

    assert status == -number
    assert terminal.settings() == terminal.before


def test_it_is_as_before_after_a_crash(terminal):
    terminal.type(b"e")

    assert terminal.end() == 3
    assert terminal.settings() == terminal.before


def test_commands_are_heard_and_the_guest_does_not_see_them(terminal):
    terminal.type(b"a\x1dx")
    terminal.expect(b"[poweroff]<61>")
    terminal.type(b"\x1d")
    terminal.type(b"rb\x1d\x1d")
    terminal.expect(b"[reset]")
    terminal.expect(b"621d")
    terminal.type(b"\x1d?q")
    assert terminal.end() == 0
    assert b"power button" in terminal.errors


AFTER_THE_INPUT = """
def look():
    if console._input_ended:
        console.write(b"after")
        loop.stop()
    else:
        loop.call_later(0.01, look)

look()
loop.run_forever"""


def test_standard_output_that_is_a_pipe_gets_everything_and_the_end_of_input_ends_nothing():
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("\nloop.run_forever", AFTER_THE_INPUT)],
        input=b"abc",
        capture_output=True,
        timeout=DEADLINE,
        check=True,
    )
    assert program.stdout == b"ready<616263>after"
    assert program.stderr == b""


def test_a_reader_of_standard_output_that_leaves_ends_nothing():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout.read(5) == b"ready"
        program.stdout.close()
        program.stdin.write(b"a")
        program.stdin.flush()
        program.stdin.write(b"q")
        program.stdin.flush()
        assert program.wait(DEADLINE) == 0


def escaped(keys):
    return keys.replace(bytes([ESCAPE]), bytes([ESCAPE, ESCAPE]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=8) | st.sampled_from(sorted(COMMANDS)), max_size=10), st.data())
def test_keys_and_commands_are_told_apart_however_they_arrive(parts, data):
    typed, keys, commands = b"", b"", []
    for part in parts:
        if isinstance(part, bytes):
            typed += escaped(part)
            keys += part
        else:
            typed += bytes([ESCAPE, part])
            commands.append(COMMANDS[part])
    found, through = [], b""
    filter_ = EscapeFilter()
    while typed:
        cut = data.draw(st.integers(1, len(typed)))
        some, names = filter_.feed(typed[:cut])
        typed = typed[cut:]
        through += some
        found += names

    assert (through, found) == (keys, commands)


def test_ctrl_bracket_before_any_other_key_is_the_guests():
    assert EscapeFilter().feed(b"\x1dz") == (b"\x1dz", [])
