# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ptnetmap.bhyve.devices import uart as chip
from ptnetmap.bhyve.devices.uart import Uart

BYTES = st.integers(0, 255)


@pytest.fixture
def uart():
    return Uart()


def test_what_the_guest_writes_is_sent_in_order(uart):
    for byte in b"hello":
        assert uart.read(chip.LSR) & chip.LSR_THRE
        uart.write(chip.DATA, byte)

    assert uart.take_output() == b"hello"
    assert uart.take_output() == b""


def test_what_arrives_is_read_in_order_and_no_more_is_taken_than_fits(uart):
    uart.write(chip.FCR, chip.FCR_ENABLE)
    uart.write(chip.IER, chip.IER_RX)

    assert uart.receive(bytes(range(40))) == uart.room + 16 == 16
    assert [uart.read(chip.DATA) for _ in range(16)] == list(range(16))
    assert not uart.read(chip.LSR) & chip.LSR_READY


def test_without_its_fifo_it_holds_one_byte(uart):
    uart.write(chip.IER, chip.IER_RX)
    assert uart.receive(b"ab") == 1
    assert uart.read(chip.IIR) & chip.IIR_FIFOS == 0
    assert uart.read(chip.DATA) == ord("a")


def test_disabling_the_fifo_or_clearing_it_drops_what_was_received_and_enabling_it_does_not(uart):
    uart.write(chip.IER, chip.IER_RX)
    kept = []
    for control in (chip.FCR_ENABLE, chip.FCR_ENABLE | chip.FCR_CLEAR_RX, chip.FCR_CLEAR_RX):
        uart.receive(b"x")
        uart.write(chip.FCR, control)
        kept.append(uart.read(chip.LSR) & chip.LSR_READY)

    assert kept == [1, 0, 0]


def test_the_line_waits_for_a_guest_that_listens(uart):
    assert uart.receive(b"x") == 0
    uart.write(chip.IER, chip.IER_RX)
    assert uart.receive(b"x") == 1
    uart.read(chip.DATA)
    uart.write(chip.IER, 0)
    assert uart.receive(b"x") == 0


def test_what_is_unread_when_the_guest_stops_listening_goes_back(uart):
    uart.write(chip.FCR, chip.FCR_ENABLE)
    uart.write(chip.IER, chip.IER_RX)
    uart.receive(b"abc")
    uart.read(chip.DATA)
    uart.write(chip.IER, chip.IER_TX)

    assert uart.take_returned() == b"bc"
    assert uart.take_returned() == b""
    assert not uart.read(chip.LSR) & chip.LSR_READY


def test_what_a_guest_sends_to_itself_does_not_go_back(uart):
    uart.write(chip.MCR, chip.MCR_LOOP)
    uart.write(chip.IER, chip.IER_RX)
    uart.write(chip.DATA, 5)
    uart.write(chip.IER, 0)

    assert uart.take_returned() == b""
    assert uart.read(chip.DATA) == 5


def test_the_line_does_not_wait_for_an_interrupt_if_the_guest_polls(uart):
    for _ in range(100):  # to send
        uart.read(chip.LSR)
        uart.write(chip.DATA, 0)
    assert uart.receive(b"x") == 0
    for _ in range(chip.POLLS):
        uart.read(chip.LSR)
    assert uart.receive(b"x") == 1
    assert uart.read(chip.LSR) & chip.LSR_READY


def test_the_transmit_interrupt_comes_when_enabled_and_after_each_byte_and_goes_when_read(uart):
    uart.write(chip.IER, chip.IER_TX)
    assert uart.interrupt
    assert uart.read(chip.IIR) == chip.IIR_TX
    assert not uart.interrupt

    uart.write(chip.DATA, 1)
    assert uart.read(chip.IIR) == chip.IIR_TX
    assert uart.read(chip.IIR) == chip.IIR_NONE

    uart.write(chip.IER, 0)
    uart.write(chip.IER, chip.IER_TX)
    assert uart.read(chip.IIR) == chip.IIR_TX


@pytest.mark.parametrize(("select", "trigger"), [(0, 1), (1, 4), (2, 8), (3, 14)])
def test_received_bytes_interrupt_at_the_trigger_level_and_fewer_by_timeout(uart, select, trigger):
    uart.write(chip.FCR, chip.FCR_ENABLE | select << 6)
    uart.write(chip.IER, chip.IER_RX)
    causes = []
    for _ in range(16):
        uart.receive(b"x")
        assert uart.interrupt
        causes.append(uart.read(chip.IIR) & 0x0F)

    assert causes == [chip.IIR_TIMEOUT] * (trigger - 1) + [chip.IIR_RX] * (17 - trigger)
    for _ in range(16):
        uart.read(chip.DATA)
    assert not uart.interrupt


def test_interrupts_are_told_in_order_of_priority(uart):
    uart.write(chip.MCR, chip.MCR_LOOP)
    uart.write(chip.IER, 0x0F)
    uart.write(chip.DATA, 1)
    uart.write(chip.DATA, 2)  # overruns

    assert uart.read(chip.IIR) == chip.IIR_LINE
    assert uart.read(chip.LSR) & chip.LSR_OVERRUN
    assert uart.read(chip.IIR) == chip.IIR_RX
    assert uart.read(chip.DATA) == 2
    assert uart.read(chip.IIR) == chip.IIR_TX
    assert uart.read(chip.IIR) == chip.IIR_MODEM
    assert uart.read(chip.MSR) & 0x0F == chip.MSR_DCTS | chip.MSR_DDSR | chip.MSR_DDCD
    assert uart.read(chip.IIR) == chip.IIR_NONE
    assert not uart.interrupt


def test_while_the_other_side_is_not_ready_the_transmitter_is_busy_and_loses_nothing(uart):
    uart.write(chip.IER, chip.IER_TX)
    uart.read(chip.IIR)
    uart.ready = False
    assert not uart.read(chip.LSR) & (chip.LSR_THRE | chip.LSR_TEMT)
    uart.write(chip.DATA, 7)
    assert not uart.interrupt

    uart.ready = True
    assert uart.read(chip.LSR) & chip.LSR_THRE
    assert uart.read(chip.IIR) == chip.IIR_TX
    assert uart.take_output() == b"\7"


def test_the_divisor_is_behind_the_latch_bit_and_touches_nothing_else(uart):
    uart.write(chip.IER, 5)
    uart.write(chip.LCR, chip.LCR_DLAB | 3)
    assert (uart.read(chip.DLL), uart.read(chip.DLH)) == (12, 0)
    uart.write(chip.DLL, 0x34)
    uart.write(chip.DLH, 0x12)
    assert (uart.read(chip.DLL), uart.read(chip.DLH)) == (0x34, 0x12)
    uart.write(chip.LCR, 3)

    assert uart.read(chip.IER) == 5
    assert uart.take_output() == b""


def test_the_line_is_up(uart):
    assert uart.read(chip.MSR) == chip.MSR_CTS | chip.MSR_DSR | chip.MSR_DCD


def test_loopback_reflects_modem_control_and_keeps_the_line_out(uart):
    uart.write(chip.IER, chip.IER_RX)
    uart.write(chip.MCR, chip.MCR_LOOP | chip.MCR_OUT1)
    uart.read(chip.MSR)
    for control, status in ((1, chip.MSR_DSR), (2, chip.MSR_CTS), (4, chip.MSR_RI), (8, chip.MSR_DCD)):
        uart.write(chip.MCR, chip.MCR_LOOP | control)
        assert uart.read(chip.MSR) & 0xF0 == status
    assert uart.room == 0
    assert uart.receive(b"x") == 0

    uart.write(chip.DATA, 0x55)
    assert uart.read(chip.DATA) == 0x55
    assert uart.take_output() == b""


def test_the_trailing_edge_of_ring_is_noted_and_its_leading_edge_is_not(uart):
    uart.write(chip.MCR, chip.MCR_LOOP)
    uart.read(chip.MSR)
    uart.write(chip.MCR, chip.MCR_LOOP | chip.MCR_OUT1)
    assert uart.read(chip.MSR) == chip.MSR_RI
    uart.write(chip.MCR, chip.MCR_LOOP)
    assert uart.read(chip.MSR) == chip.MSR_TERI


def probe(port):
    """Tell 8250-like chips apart, as drivers do; return the name of this one, and the size of its FIFO."""
    port.write(chip.IER, 0)
    stuck = port.read(chip.IER)
    port.write(chip.IER, 0x0F)
    if stuck & 0x0F or port.read(chip.IER) & 0x0F != 0x0F:
        return "nothing", 0
    port.write(chip.IER, 0)

    modem = port.read(chip.MCR)
    port.write(chip.MCR, chip.MCR_LOOP | 0x0A)
    looped = port.read(chip.MSR) & 0xF0
    port.write(chip.MCR, modem)
    if looped != 0x90:
        return "nothing", 0

    for value in (0xA5, 0x5A):
        port.write(chip.SCR, value)
        if port.read(chip.SCR) != value:
            return "8250", 1

    port.write(chip.LCR, 0)
    port.write(chip.FCR, chip.FCR_ENABLE)
    fifos = port.read(chip.IIR) >> 6
    if fifos != 3:
        return ("16450", "?", "16550")[fifos], 1
    for mode in (0x80, 0xBF):  # where a 16650 shows its enhanced features, which read 0 at first
        port.write(chip.LCR, mode)
        if port.read(2) == 0:
            return "16650 or later", 32
    port.write(chip.LCR, 0)
    port.write(chip.FCR, chip.FCR_ENABLE | 0x20)  # a 16750 has 64 bytes, and bit 5 says so
    if port.read(chip.IIR) & 0x20:
        return "16750", 64
    port.write(chip.FCR, chip.FCR_ENABLE)
    port.write(chip.IER, 0x40)  # an XScale UART has an enabling bit here
    if port.read(chip.IER) & 0x40:
        return "XScale", 32
    port.write(chip.IER, 0)

    port.write(chip.FCR, chip.FCR_ENABLE | chip.FCR_CLEAR_RX | chip.FCR_CLEAR_TX)
    port.write(chip.MCR, chip.MCR_LOOP)
    for byte in range(256):
        port.write(chip.DATA, byte)
    size = 0
    while port.read(chip.LSR) & chip.LSR_READY and size < 256:
        port.read(chip.DATA)
        size += 1
    port.write(chip.MCR, modem)
    return "16550A", size


def test_drivers_that_probe_it_find_a_16550a_with_a_fifo_of_16_bytes(uart):
    assert probe(uart) == ("16550A", 16)
    assert uart.take_output() == b""


def test_drivers_that_look_for_transmitters_that_forget_to_interrupt_find_none(uart):
    uart.write(chip.IER, chip.IER_TX)
    first = uart.read(chip.IIR)
    uart.write(chip.IER, 0)
    uart.write(chip.IER, chip.IER_TX)

    assert (first, uart.read(chip.IIR)) == (chip.IIR_TX, chip.IIR_TX)


class AnyAccess(RuleBasedStateMachine):
    """Whatever the guest does, what it reads is what a 16550A could have said."""

    @initialize()
    def start(self):
        self.uart = Uart()
        self.scratch = 0
        self.fifo = False
        self.arrived = 0

    @rule(offset=st.integers(0, 9), value=BYTES)
    def write(self, offset, value):
        before = self.uart.read(chip.LCR)
        looped = self.uart.read(chip.MCR) & chip.MCR_LOOP
        self.uart.take_output()
        self.uart.write(offset, value)
        sent = bytes([value]) if offset == chip.DATA and not before & chip.LCR_DLAB and not looped else b""
        assert self.uart.take_output() == sent
        if offset == chip.SCR:
            self.scratch = value
        if offset == chip.FCR:
            self.fifo = bool(value & 1)

    @rule(offset=st.integers(0, 9))
    def read(self, offset):
        assert 0 <= self.uart.read(offset) <= 0xFF

    @rule(data=st.binary(max_size=40))
    def receive(self, data):
        room = self.uart.room
        assert self.uart.receive(data) == min(room, len(data))

    @rule(ready=st.booleans())
    def be_ready(self, ready):
        self.uart.ready = ready

    @rule()
    def reset(self):
        self.uart.reset()
        self.scratch, self.fifo = 0, False
        assert not self.uart.interrupt

    @invariant()
    def registers_agree(self):
        uart = self.uart
        looped = uart.read(chip.MCR) & chip.MCR_LOOP
        assert uart.read(chip.SCR) == self.scratch
        assert uart.read(chip.MCR) < 0x20
        assert 0 <= uart.room <= (16 if self.fifo else 1)
        assert uart.room == 0 if looped else True
        line = chip.LSR_THRE | chip.LSR_TEMT
        pending = uart.interrupt
        uart.read(chip.LCR)
        assert uart.interrupt == pending
        cause = uart.read(chip.IIR)
        assert (cause & chip.IIR_FIFOS == chip.IIR_FIFOS) == self.fifo
        assert (cause & 0x0F != chip.IIR_NONE) == pending
        status = uart.read(chip.LSR)
        assert status & line == (line if uart.ready or looped else 0)
        if cause & 0x0F == chip.IIR_LINE:
            assert status & chip.LSR_OVERRUN
        elif cause & 0x0F in (chip.IIR_RX, chip.IIR_TIMEOUT):
            assert status & chip.LSR_READY


TestAnyAccess = AnyAccess.TestCase
TestAnyAccess.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=30), max_size=10), st.sampled_from([0, 1, 0x41, 0xC1]))
def test_a_guest_that_reads_until_the_interrupt_goes_gets_every_byte(chunks, control):
    uart = Uart()
    uart.write(chip.IER, chip.IER_RX)
    uart.write(chip.FCR, control)
    read = bytearray()
    waiting = bytearray(b"".join(chunks))
    while waiting:
        del waiting[: uart.receive(bytes(waiting))]
        assert uart.interrupt
        while uart.interrupt:
            assert uart.read(chip.IIR) & 0x0F in (chip.IIR_RX, chip.IIR_TIMEOUT)
            read.append(uart.read(chip.DATA))

    assert bytes(read) == b"".join(chunks)
