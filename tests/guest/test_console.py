# SPDX-License-Identifier: BSD-2-Clause
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.guest.console import end_line, put_byte, put_hex, put_number, put_text, say, start_console
from ptnetmap.guest.routine import Text

HELLO = Text("hello")
SAME_MACHINE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_a_line_arrives_whole_with_carriage_return(machine):
    put_text(machine.boot, HELLO)
    assert machine.said == b""
    end_line(machine.boot)
    assert machine.said == b"hello\r\n"


def test_a_line_longer_than_its_room_loses_nothing(machine):
    for at in range(600):
        put_byte(machine.boot, 97 + at % 26)
    end_line(machine.boot)
    assert machine.lines() == ["".join(chr(97 + at % 26) for at in range(600))]


@SAME_MACHINE
@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_numbers_are_decimal(machine, value):
    machine.said.clear()
    put_number(machine.boot, value)
    end_line(machine.boot)
    assert machine.lines() == [str(value)]


@SAME_MACHINE
@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 16))
def test_hexadecimal_numbers_have_as_many_digits_as_asked(machine, value, digits):
    machine.said.clear()
    put_hex(machine.boot, value, digits)
    end_line(machine.boot)
    assert machine.lines() == [f"{value % 16**digits:0{digits}x}"]


def test_the_transmitter_is_asked_once_per_fifo(machine):
    asked = []
    read_port = machine.read_port
    machine.read_port = lambda port, size: asked.append(port) or read_port(port, size)
    for _ in range(38):
        put_byte(machine.boot, 46)
    end_line(machine.boot)
    assert asked == [0x3FD] * 3


def test_a_console_that_never_gets_ready_does_not_hang_the_guest(machine, monkeypatch):
    monkeypatch.setattr("ptnetmap.guest.console._PATIENCE", 10)
    machine.read_port = lambda port, size: 0
    say(machine.boot, HELLO)
    assert machine.lines() == ["hello"]


def test_starting_sets_8_bits_and_no_interrupts(machine):
    machine.port_writes.clear()
    start_console()
    last = {port: value for port, _, value in machine.port_writes}
    assert last == {0x3F8: 1, 0x3F9: 0, 0x3FA: 7, 0x3FB: 3, 0x3FC: 3}
