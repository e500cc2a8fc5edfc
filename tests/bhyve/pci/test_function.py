# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "place"),
    [("3", (0, 3, 0)), ("2:1", (0, 2, 1)), ("255:31:7", (255, 31, 7)), ("0:0:0", (0, 0, 0)), ("010", (0, 10, 0))],
)
def test_a_place_is_read_as_bhyve_reads_it(text, place):
    assert Function.parse(text) == place


@pytest.mark.parametrize(
    "text", ["", "32", "0:8", "256:0:0", "1:2:3:4", "1:", ":1", "-1", "a", "1:2 ", "+1", "٣", "9999"]
)
def test_what_is_no_place_is_refused_with_the_grammar(text):
    with pytest.raises(ConfigError, match="slot:function") as caught:
        Function.parse(text)
    assert repr(text) in str(caught.value)


@given(st.builds(Function, st.integers(0, 255), st.integers(0, 31), st.integers(0, 7)))
def test_a_place_is_written_as_it_is_read(place):
    assert Function.parse(str(place)) == place
