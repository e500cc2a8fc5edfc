# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""What the guest says: lines on com1, a 16550 without interrupts.

A line is collected in the boot information and sent as a whole, so only one processor at a time may speak: the first
one, or the one that reports an exception.
"""

from __future__ import annotations

from ptnetmap.guest.cpu import divide, remainder
from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.port import in8, out8
from ptnetmap.guest.routine import routine
from ptnetmap.jit.atomic import pause
from ptnetmap.jit.memory import load8, load64, store8, store64

COM1 = 0x3F8
"""First port of the first serial interface."""
_DATA = COM1
_INTERRUPT_ENABLE = COM1 + 1
_FIFO_CONTROL = COM1 + 2
_LINE_CONTROL = COM1 + 3
_MODEM_CONTROL = COM1 + 4
_LINE_STATUS = COM1 + 5

_DIVISOR_LATCH = 0x80
_EIGHT_BITS = 0x03
_FIFO_ON = 0x07
_READY = 0x03  # DTR and RTS
_EMPTY = 0x20  # THRE: with the FIFO on, FIFO bytes can be sent before it must be looked at again
_FIFO = 16
_PATIENCE = 1_000_000

_LINE = offsets(boot_info)["line"]
_USED = offsets(boot_info)["line_used"]
_LINE_SIZE = boot_info["line"].itemsize

_ZERO = 48
_LETTER_A = 97
_MINUS = 45
_NEWLINE = 10
_RETURN = 13


@routine
def start_console():
    """Set com1 to 115,200 baud, 8 bits, FIFOs on, no interrupts."""
    out8(_INTERRUPT_ENABLE, 0)
    out8(_LINE_CONTROL, _DIVISOR_LATCH)
    out8(_DATA, 1)
    out8(_INTERRUPT_ENABLE, 0)
    out8(_LINE_CONTROL, _EIGHT_BITS)
    out8(_FIFO_CONTROL, _FIFO_ON)
    out8(_MODEM_CONTROL, _READY)


@routine
def await_transmitter():
    """Wait until com1 takes another FIFO's worth of bytes; not for ever."""
    patience = _PATIENCE
    while patience > 0 and in8(_LINE_STATUS) & _EMPTY == 0:
        pause()
        patience -= 1


@routine
def flush_line(boot):
    """Send the line as far as it was collected."""
    used = load64(boot + _USED)
    at = 0
    while at < used:
        if at & (_FIFO - 1) == 0:
            await_transmitter()
        out8(_DATA, load8(boot + _LINE + at))
        at += 1
    store64(boot + _USED, 0)


@routine
def put_byte(boot, value):
    """Add a character to the line; a line that is full is sent."""
    if load64(boot + _USED) >= _LINE_SIZE:
        flush_line(boot)
    used = load64(boot + _USED)
    store8(boot + _LINE + used, value)
    store64(boot + _USED, used + 1)


@routine
def put_text(boot, text):
    """Add text to the line, up to its zero byte."""
    while load8(text) != 0:
        put_byte(boot, load8(text))
        text += 1


@routine
def put_number(boot, value):
    """Add a signed number in decimal."""
    if value < 0:
        put_byte(boot, _MINUS)
        value = -value
    power = 1
    while divide(value, power) > 9:
        power *= 10
    while power > 0:
        put_byte(boot, _ZERO + remainder(divide(value, power), 10))
        power = divide(power, 10)


@routine
def put_hex(boot, value, digits):
    """Add the low ``digits`` hexadecimal digits of a number."""
    while digits > 0:
        digits -= 1
        digit = (value >> (4 * digits)) & 15
        put_byte(boot, _ZERO + digit if digit < 10 else _LETTER_A + digit - 10)


@routine
def end_line(boot):
    """End the line and send it."""
    put_byte(boot, _RETURN)
    put_byte(boot, _NEWLINE)
    flush_line(boot)


@routine
def say(boot, text):
    """Send a line of nothing but ``text``."""
    put_text(boot, text)
    end_line(boot)
