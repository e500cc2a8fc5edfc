# SPDX-License-Identifier: BSD-2-Clause
import ctypes

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ptnetmap.guest.cmdline import find_option, hex_option, number_option, option_is
from ptnetmap.guest.routine import Text

SAME_MEMORY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
LINES = st.text("ab=1 9-", max_size=40)
WORDS = st.text("ab1", min_size=1, max_size=3)


def words(line):
    """What the guest should see, in Python's words: the values by name; None for a name alone."""
    found = {}
    for word in line.split(" "):
        name, equals, value = word.partition("=")
        if word:
            found[name] = value if equals else ""
    return found


def value_at(address):
    return ctypes.string_at(address).split(b" ")[0].decode()


@SAME_MEMORY
@given(LINES, WORDS)
@example("a=1 a=2 aa=3", "a")
@example("ab", "a")
@example("b a", "a")
@example("b=a a=", "a")
def test_an_option_has_the_value_of_its_last_word(low_memory, line, name):
    cmdline, wanted = low_memory.text(line), words(line)
    at = find_option(cmdline, Text(name))
    assert (value_at(at) if at else None) == wanted.get(name)


@SAME_MEMORY
@given(LINES, WORDS, WORDS)
@example("a=1", "a", "1")
@example("a=11", "a", "1")
@example("a=1 b", "a", "1")
def test_a_value_must_match_as_a_whole(low_memory, line, name, value):
    assert option_is(low_memory.text(line), Text(name), Text(value)) == (words(line).get(name) == value)


@SAME_MEMORY
@given(st.text("0123456789-+x ", max_size=20))
@example("123456789012345678")
@example("1234567890123456789")
def test_what_is_no_number_counts_as_not_given(low_memory, value):
    shown = value.split(" ")[0]
    wanted = int(shown) if shown.isdigit() and len(shown) <= 18 else 77
    assert number_option(low_memory.text(f"rounds={value}"), Text("rounds"), 77) == wanted


def test_an_option_that_is_missing_has_the_other_value(low_memory):
    assert number_option(low_memory.text(""), Text("rounds"), 5) == 5


@SAME_MEMORY
@given(st.text("0123456789abcdefABCDEFg:", max_size=20))
@example("02:00:00:00:00:0a")
@example("ffffffffffff")
@example("123456789abcdef")
@example("0123456789abcdef")
def test_what_is_no_hexadecimal_number_or_address_counts_as_not_given(low_memory, value):
    digits = value.replace(":", "")
    well_formed = len(digits) <= 15 and value and all(digit in "0123456789abcdefABCDEF" for digit in digits)
    wanted = int(digits or "0", 16) if well_formed else -1
    assert hex_option(low_memory.text(f"dst={value}"), Text("dst"), -1) == wanted
