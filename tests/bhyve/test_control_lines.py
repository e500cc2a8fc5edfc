# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import errno
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.control import lines
from ptnetmap.bhyve.control.error import ControlError
from ptnetmap.bhyve.control.lines import Request

ARGUMENTS = st.dictionaries(
    st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, width=32) | st.text()
)


@settings(max_examples=50)
@given(st.text(), ARGUMENTS)
def test_a_request_arrives_as_it_was_sent(command, arguments):
    finite = {key: value for key, value in arguments.items() if value not in (float("inf"), float("-inf"))}
    sent = lines.encode_request(Request(command, finite))

    assert sent.count(b"\n") == 1
    assert sent.endswith(b"\n")
    assert lines.decode_request(sent[:-1]) == Request(command, finite)


@settings(max_examples=50)
@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20))
def test_lines_do_not_depend_on_how_the_stream_is_cut(data, cuts):
    whole = lines.Lines(300).feed(data)
    stream, pieces = lines.Lines(300), []
    for cut in cuts:
        pieces += stream.feed(data[:cut])
        data = data[cut:]

    assert pieces + stream.feed(data) == whole


@pytest.mark.parametrize("data", [b"x" * 9, b"x" * 9 + b"\n", b"a\n" + b"x" * 9])
def test_a_line_that_is_too_long_is_not_kept(data):
    stream = lines.Lines(8)

    with pytest.raises(ControlError, match="longer than 8 bytes") as caught:
        stream.feed(data)
    assert caught.value.errno == errno.EMSGSIZE


def test_a_line_of_the_limit_passes():
    assert lines.Lines(8).feed(b"x" * 8 + b"\n" + b"y" * 8) == [b"x" * 8]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"{}",
        b'{"command": 7}',
        b'{"command": "info", "arguments": []}',
        b'{"command": "info", "arguments": {"a": [1]}}',
        b'{"command": "info", "arguments": {"a": {}}}',
        b"[" * 4000,
        b'{"a":' * 700,
        b'{"command": ' + b"9" * 5000 + b"}",
    ],
    ids=range(13),
)
def test_what_is_no_request_is_refused(line):
    with pytest.raises(ControlError, match="this is no request") as caught:
        lines.decode_request(line)
    assert caught.value.errno == errno.EINVAL


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_control_error(line):
    for decode in (lines.decode_request, lines.decode_answer):
        with contextlib.suppress(ControlError):
            decode(line)


@pytest.mark.parametrize("result", [None, 7, "text", {"vcpu0": {"exits": 12}}, [1, 2]])
def test_a_result_arrives_as_it_was_sent(result):
    assert lines.decode_answer(lines.encode_result(result)) == result


def test_numbers_of_numpy_are_numbers():
    assert json.loads(lines.encode_result({"exits": np.uint64(2**63)})) == {"result": {"exits": 2**63}}


@pytest.mark.parametrize("result", [object(), {1, 2}, float("nan"), "x" * lines.MAX_ANSWER])
def test_a_result_that_cannot_be_sent_is_an_error_for_the_sender(result):
    with pytest.raises(ControlError):
        lines.encode_result(result)


def test_a_refusal_arrives_with_its_errno_and_message():
    with pytest.raises(ControlError, match="there is no NMI") as caught:
        lines.decode_answer(lines.encode_error(ControlError(errno.EOPNOTSUPP, "there is no NMI")))
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize(
    "line", [b"{}", b"x", b'{"error": {}}', b'{"error": {"errno": 0, "message": ""}}', b'{"error": "x"}']
)
def test_what_is_no_answer_is_a_protocol_error(line):
    with pytest.raises(ControlError, match="this is no answer") as caught:
        lines.decode_answer(line)
    assert caught.value.errno == errno.EPROTO
