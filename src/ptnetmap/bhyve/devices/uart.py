# SPDX-License-Identifier: BSD-2-Clause
"""A 16550A serial port as a pure state machine: register accesses in, bytes and an interrupt level out.

Time does not exist here: a byte is sent as soon as it is written, unless the other side of the line is not
:attr:`~Uart.ready`, and what arrives is there at once. Therefore divisor, word length and parity are kept for the guest
to read, and have no effect.

A driver that opens a port throws away what has arrived before, several times over. So that nothing typed ahead, or
piped in, is lost, the line waits for a guest that listens: one that has enabled the interrupt for received data, or
that polls for it. What a guest has not read when it disables that interrupt goes back, and comes again.

Registers by offset, DLAB being bit 7 of the line control:

====== ==== ===================== ========================================================================================
offset DLAB read                  write
====== ==== ===================== ========================================================================================
0      0    received byte         byte to send
0      1    divisor, low          the same
1      0    interrupt enable      the same: bits 0-3 are received data, transmitter empty, line status, modem status
1      1    divisor, high         the same
2      any  interrupt identity    FIFO control: 0 enable, 1 clear receiver, 2 clear transmitter, 6-7 trigger level
3      any  line control          the same
4      any  modem control         the same: 0 DTR, 1 RTS, 2 OUT1, 3 OUT2, 4 loopback
5      any  line status           nothing
6      any  modem status          nothing
7      any  scratch               the same
====== ==== ===================== ========================================================================================

Source: National Semiconductor PC16550D, June 1995.
"""

from __future__ import annotations

FIFO_SIZE = 16
"""Bytes that the receiver holds with its FIFO enabled; without, it holds one."""
POLLS = 16
"""Reads of the line status with nothing to read and nothing sent, after which a guest is taken to wait for input."""
PORTS = 8
"""Registers."""

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(PORTS)
FCR = IIR
DLL, DLH = DATA, IER

IER_RX, IER_TX, IER_LINE, IER_MODEM = 1, 2, 4, 8
IIR_NONE, IIR_MODEM, IIR_TX, IIR_RX, IIR_LINE, IIR_TIMEOUT = 0x01, 0x00, 0x02, 0x04, 0x06, 0x0C
IIR_FIFOS = 0xC0
FCR_ENABLE, FCR_CLEAR_RX, FCR_CLEAR_TX = 1, 2, 4
LCR_DLAB = 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP = 1, 2, 4, 8, 0x10
LSR_READY, LSR_OVERRUN, LSR_THRE, LSR_TEMT = 0x01, 0x02, 0x20, 0x40
MSR_DCTS, MSR_DDSR, MSR_TERI, MSR_DDCD = 1, 2, 4, 8
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80

_TRIGGERS = (1, 4, 8, 14)
_DELTAS = 0x0F
_DIVISOR_9600 = 12
# With the other side always there, nobody who opens the port waits for a carrier.
_LINE_UP = MSR_CTS | MSR_DSR | MSR_DCD
_LOOPED = ((MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD))
_CHANGES = ((MSR_CTS, MSR_DCTS), (MSR_DSR, MSR_DDSR), (MSR_DCD, MSR_DDCD))


class Uart:
    """One port. After each access or arrival, look at :attr:`interrupt`, :meth:`take_output`, :meth:`take_returned`."""

    def __init__(self) -> None:
        self._output = bytearray()
        self._returned = bytearray()
        self._ready = True
        self.reset()

    def reset(self) -> None:
        """Return to the state after power-on; what was sent, and whether the other side is ready, stay."""
        self._received = bytearray()
        self._ier = self._fcr = self._lcr = self._mcr = self._scr = 0
        self._divisor = _DIVISOR_9600
        self._msr = _LINE_UP
        self._overrun = False
        self._polls = 0
        self._sent = False  # the transmitter ran empty, and the guest has not been told

    # --- the line --------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes that the receiver can take; none while the guest does not listen, or tests it in loopback mode."""
        listens = self._ier & IER_RX or self._polls >= POLLS
        return self._capacity - len(self._received) if listens and not self._mcr & MCR_LOOP else 0

    def receive(self, data: bytes) -> int:
        """Take bytes from the line, up to :attr:`room`; return how many. The rest is to be offered again."""
        taken = data[: self.room]
        self._received += taken
        return len(taken)

    def take_output(self) -> bytes:
        """Return what was sent since the last time."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def take_returned(self) -> bytes:
        """Return what was received, and shall be offered again before everything else."""
        data = bytes(self._returned)
        self._returned.clear()
        return data

    @property
    def ready(self) -> bool:
        """Whether the other side takes bytes; while it does not, the transmitter shows as busy.

        A guest that sends all the same is not stopped.
        """
        return self._ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        if ready and not self._ready:
            self._sent = True
        self._ready = ready

    @property
    def interrupt(self) -> bool:
        """The level of the interrupt output."""
        return self._cause() != IIR_NONE

    # --- the guest -------------------------------------------------------------------------------------------------

    def read(self, offset: int) -> int:
        """Return a register, with what reading it does; ones for an offset above 7."""
        divisor = self._lcr & LCR_DLAB
        if offset == DATA:
            return self._divisor & 0xFF if divisor else self._next_byte()
        if offset == IER:
            return self._divisor >> 8 if divisor else self._ier
        if offset == IIR:
            return self._identify()
        if offset == LCR:
            return self._lcr
        if offset == MCR:
            return self._mcr
        if offset == LSR:
            return self._line_status()
        if offset == MSR:
            status, self._msr = self._msr, self._msr & ~_DELTAS
            return status
        return self._scr if offset == SCR else 0xFF

    def write(self, offset: int, value: int) -> None:
        """Write a register; ``value`` has 8 bits. Offsets above 7 do nothing."""
        divisor = self._lcr & LCR_DLAB
        self._polls = 0
        if offset == DATA and divisor:
            self._divisor = self._divisor & 0xFF00 | value
        elif offset == DATA:
            self._send(value)
        elif offset == IER and divisor:
            self._divisor = self._divisor & 0xFF | value << 8
        elif offset == IER:
            # Enabling it while the transmitter is empty interrupts at once; drivers test for that.
            if value & ~self._ier & IER_TX and self._idle:
                self._sent = True
            if self._ier & ~value & IER_RX and not self._mcr & MCR_LOOP:
                self._returned += self._received
                self._received.clear()
            self._ier = value & 0x0F
        elif offset == FCR:
            self._control_fifos(value)
        elif offset == LCR:
            self._lcr = value
        elif offset == MCR:
            self._mcr = value & 0x1F
            self._follow_modem_lines()
        elif offset == SCR:
            self._scr = value

    # --- what they do ----------------------------------------------------------------------------------------------

    @property
    def _capacity(self) -> int:
        return FIFO_SIZE if self._fcr & FCR_ENABLE else 1

    @property
    def _idle(self) -> bool:
        """Whether the transmitter is empty; in loopback mode the line has no part in that."""
        return self._ready or bool(self._mcr & MCR_LOOP)

    def _next_byte(self) -> int:
        return self._received.pop(0) if self._received else 0

    def _send(self, byte: int) -> None:
        if not self._mcr & MCR_LOOP:
            self._output.append(byte)
        elif len(self._received) < self._capacity:
            self._received.append(byte)
        else:
            self._overrun = True
            if not self._fcr & FCR_ENABLE:
                self._received[0] = byte
        self._sent = self._idle

    def _cause(self) -> int:
        """Return the identity of the interrupt with the highest priority that is enabled (§8.5, table IV)."""
        if self._ier & IER_LINE and self._overrun:
            return IIR_LINE
        if self._ier & IER_RX and self._received:
            trigger = _TRIGGERS[self._fcr >> 6] if self._fcr & FCR_ENABLE else 1
            # Fewer bytes than the trigger level interrupt when no more come for a while; here that is at once.
            return IIR_RX if len(self._received) >= trigger else IIR_TIMEOUT
        if self._ier & IER_TX and self._sent:
            return IIR_TX
        if self._ier & IER_MODEM and self._msr & _DELTAS:
            return IIR_MODEM
        return IIR_NONE

    def _identify(self) -> int:
        cause = self._cause()
        if cause == IIR_TX:
            self._sent = False
        return cause | (IIR_FIFOS if self._fcr & FCR_ENABLE else 0)

    def _line_status(self) -> int:
        status = LSR_READY if self._received else 0
        if self._overrun:
            status |= LSR_OVERRUN
            self._overrun = False
        elif not status and self._idle:
            self._polls += 1
        return status | (LSR_THRE | LSR_TEMT if self._idle else 0)

    def _control_fifos(self, value: int) -> None:
        was_enabled, enabled = self._fcr & FCR_ENABLE, value & FCR_ENABLE
        # A byte that came before the FIFO was enabled is not in the FIFO.
        if (was_enabled and not enabled) or (enabled and value & FCR_CLEAR_RX):
            self._received.clear()
        # Other bits only count together with the enabling one.
        self._fcr = value & ~(FCR_CLEAR_RX | FCR_CLEAR_TX) if value & FCR_ENABLE else 0

    def _follow_modem_lines(self) -> None:
        """Set the modem status from the lines, or in loopback mode from the modem control, and note what changed."""
        before = self._msr
        lines = _LINE_UP
        if self._mcr & MCR_LOOP:
            lines = sum(line for control, line in _LOOPED if self._mcr & control)
        deltas = before & _DELTAS
        deltas |= sum(delta for line, delta in _CHANGES if (before ^ lines) & line)
        if before & ~lines & MSR_RI:
            deltas |= MSR_TERI
        self._msr = lines | deltas
