# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The boot command line: words between blanks, ``name=value`` or just ``name``. The last one of a name counts."""

from __future__ import annotations

from ptnetmap.guest.routine import routine
from ptnetmap.jit.memory import load8

_BLANK = 32
_EQUALS = 61
_ZERO = 48
_NINE = 57
_COLON = 58
_LETTER_A = 97
_LETTER_F = 102
_LOWER_CASE = 0x20
_DECIMAL = 10


@routine
def word_value(word, name):
    """Return the address behind ``name=`` (or behind ``name`` alone) if ``word`` begins with that, else 0."""
    while load8(name) != 0:
        if load8(word) != load8(name):
            return 0
        word += 1
        name += 1
    if load8(word) == _EQUALS:
        return word + 1
    if load8(word) <= _BLANK:
        return word
    return 0


@routine
def find_option(cmdline, name):
    """Return the address of the value of an option, 0 if it is not there.

    ``cmdline`` and ``name`` end with a zero byte; the value ends where :func:`ends_word` says.
    """
    found = 0
    while load8(cmdline) != 0:
        value = word_value(cmdline, name)
        if value != 0:
            found = value
        while load8(cmdline) > _BLANK:
            cmdline += 1
        while load8(cmdline) != 0 and load8(cmdline) <= _BLANK:
            cmdline += 1
    return found


@routine
def ends_word(address):
    """Return 1 if a word ends at ``address``: at a blank, or at the command line's end."""
    return 1 if load8(address) <= _BLANK else 0


@routine
def option_is(cmdline, name, value):
    """Return 1 if an option is there and has exactly this value, else 0."""
    at = find_option(cmdline, name)
    if at == 0:
        return 0
    while load8(value) != 0:
        if load8(at) != load8(value):
            return 0
        at += 1
        value += 1
    return ends_word(at)


@routine
def digit_of(character, base):
    """Return the value of a digit, -1 for a character that is none in this base (at most 16)."""
    digit = -1
    letter = character | _LOWER_CASE
    if _ZERO <= character <= _NINE:
        digit = character - _ZERO
    elif _LETTER_A <= letter <= _LETTER_F:
        digit = letter - _LETTER_A + 10
    return digit if digit < base else -1


@routine
def digits_option(cmdline, name, otherwise, base, most):
    """Return the value of an option of ``most`` digits of a base, colons between them apart; else ``otherwise``."""
    at = find_option(cmdline, name)
    if at == 0 or ends_word(at) == 1:
        return otherwise
    value = 0
    digits = 0
    while ends_word(at) == 0:
        if load8(at) != _COLON or base == _DECIMAL:
            digit = digit_of(load8(at), base)
            digits += 1
            if digit < 0 or digits > most:
                return otherwise
            value = value * base + digit
        at += 1
    return value


@routine
def number_option(cmdline, name, otherwise):
    """Return the value of an option in decimal, ``otherwise`` if it is not there or no number of 18 digits at most."""
    return digits_option(cmdline, name, otherwise, _DECIMAL, 18)


@routine
def hex_option(cmdline, name, otherwise):
    """Return the value of an option in hexadecimal, with colons as in a MAC address or without; else ``otherwise``."""
    return digits_option(cmdline, name, otherwise, 16, 15)
