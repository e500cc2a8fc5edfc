# SPDX-License-Identifier: BSD-2-Clause
"""Whatever comes over the socket is read, or refused with WireError; what was written is read back the same."""

import contextlib
import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire import extension, frame, hello, legacy, option, registration, request, rules
from ptnetmap.netmap.wire.codec import Fixed
from ptnetmap.netmap.wire.error import WireError
from ptnetmap.netmap.wire.frame import HELLO, Frame
from ptnetmap.netmap.wire.hello import Hello
from ptnetmap.netmap.wire.request import Request

EVENTFDS = abi.NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS
NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=15)
ME = Hello("1")


def structures(layout, without=()):
    """Draw dictionaries of a layout's fields, some left out."""
    kinds = {}
    for name, (kind, *_) in layout.fields.items():
        if name not in without:
            limits = np.iinfo(kind) if not kind.fields else None
            kinds[name] = structures(kind) if limits is None else st.integers(int(limits.min), int(limits.max))
    return st.fixed_dictionaries({}, optional=kinds)


def bodies(reqtype):
    codec = request.BODIES[reqtype]
    if codec is None:
        return st.none()
    if isinstance(codec, Fixed):
        return structures(codec.layout)
    return st.fixed_dictionaries({"room": st.integers(20, 100)}, optional={"text": st.binary(max_size=20)})


OPTIONS = {number: structures(layout, ("nro_opt",)) for number, layout in abi.OPTION_LAYOUTS.items()}
OPTIONS[EVENTFDS] = st.fixed_dictionaries({"eventfds": st.lists(structures(abi.sync_kloop_eventfd), max_size=5)})


@st.composite
def requests(draw):
    reqtype = draw(st.sampled_from(sorted(request.BODIES)))
    kinds = draw(st.lists(st.sampled_from(sorted(OPTIONS)), unique=True, max_size=3))
    options = {kind: draw(OPTIONS[kind]) for kind in kinds}
    return Request(reqtype, draw(NAMES), draw(bodies(reqtype)), options, draw(st.sampled_from([14, 15])))


@st.composite
def frames(draw):
    error = draw(st.just(0) | st.integers(1, 4095))
    ioctl = draw(st.sampled_from(sorted(frame.ARGUMENT_SIZES)))
    if ioctl == abi.NIOCCTRL:
        argument = draw(requests()).argument
    elif ioctl == HELLO:
        argument = hello.hello_frame(Hello("0.1", draw(st.integers(0, 2**64 - 1)))).argument
    else:
        size = frame.ARGUMENT_SIZES[ioctl]
        argument = draw(st.binary(min_size=size, max_size=size))
    if error:
        argument = draw(st.sampled_from([argument, b""]))
    return Frame(ioctl, argument, error, draw(st.text(st.characters(codec="utf-8"), max_size=30)) if error else "")


@st.composite
def mutated(draw, original):
    """Bytes of a valid message, with some overwritten, cut off or added."""
    data = bytearray(draw(original))
    for _ in range(draw(st.integers(1, 4))):
        # Where the structure is denser, more often: headers, pointers, first bytes of options.
        at = draw(st.integers(0, max(0, min(len(data), 200) - 1)))
        piece = draw(
            st.sampled_from([b"\0", b"\1", b"\x58", b"\xff" * 8, bytes(8)]) | st.binary(min_size=1, max_size=8)
        )
        data[at : at + len(piece)] = piece
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


def read_everything(data):
    """Do with bytes what netmapd and a client do with what they get."""
    for read in (hello.read_hello, lambda d: hello.greet(d, ME), frame.decode_request):
        with contextlib.suppress(WireError):
            read(data)
    with contextlib.suppress(WireError):
        got = frame.decode(data)
        read_argument(got.argument)
        frame.encode(got)


def read_argument(argument):
    for ioctl in (abi.NIOCREGIF, abi.NIOCGINFO):
        with contextlib.suppress(WireError):
            meant = legacy.decode(ioctl, argument)
            legacy.answer(argument, meant, request.answer(meant))
    with contextlib.suppress(WireError):
        request.decode_answer(Request(abi.NETMAP_REQ_VALE_DELIF), argument)
    with contextlib.suppress(WireError):
        asked = request.decode(argument)
        for error in (0, 5):
            answered = request.answer(asked, body={}, option_status=dict.fromkeys(asked.options, 0), error=error)
            request.decode_answer(asked, answered)
        request.first_option_error(asked, {})
        for kind, act in {
            abi.NETMAP_REQ_OPT_CSB: lambda o: option.csb_places(o, abi.NR_EXCLUSIVE, 2),
            EVENTFDS: lambda o: option.eventfd_indices(o, len(o["eventfds"]), 2),
            abi.NETMAP_REQ_OPT_SYNC_KLOOP_MODE: lambda o: option.kloop_mode(o, [(0, 0)]),
        }.items():
            if kind in asked.options:
                with contextlib.suppress(WireError):
                    act(asked.options[kind])
        with contextlib.suppress(WireError):
            rules.check(asked)
        registration.registration(asked)


@settings(max_examples=60, deadline=None)
@given(frames())
def test_a_frame_is_read_as_it_was_written(message):
    assert frame.decode(frame.encode(message)) == message


@settings(max_examples=60, deadline=None)
@given(requests())
def test_a_request_is_read_as_it_was_written(asked):
    again = request.decode(asked.argument)

    assert again == asked
    assert again.argument == asked.argument


@settings(max_examples=60, deadline=None)
@given(requests())
def test_an_answer_that_changes_nothing_says_what_was_asked(asked):
    answered = request.decode_answer(asked, request.answer(asked, option_status=dict.fromkeys(asked.options, 0)))

    assert (answered.name, answered.body, answered.options) == (asked.name, asked.body, asked.options)
    assert [status for _, status in answered.statuses] == [0] * len(asked.options)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_with_wire_error_only(data):
    read_everything(data)
    read_argument(data)


@settings(max_examples=60, deadline=None)
@given(mutated(frames().map(frame.encode)))
def test_damaged_frames_are_refused_with_wire_error_only(data):
    read_everything(data)


@settings(max_examples=60, deadline=None)
@given(mutated(requests().map(lambda asked: asked.argument)))
def test_damaged_requests_are_refused_with_wire_error_only(argument):
    read_argument(argument)


@settings(max_examples=60, deadline=None)
@given(mutated(requests().map(lambda asked: asked.argument)))
def test_what_survives_damage_is_written_and_read_again_the_same(argument):
    try:
        asked = request.decode(argument)
    except WireError:
        return
    copy = Request(asked.reqtype, asked.name, asked.body, asked.options, asked.version)

    assert request.decode(copy.argument) == asked


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=60, max_size=60))
def test_any_nmreq_is_understood_or_refused_with_wire_error(argument):
    with contextlib.suppress(WireError):
        asked = legacy.decode(abi.NIOCREGIF, argument)
        assert len(legacy.answer(argument, asked, request.answer(asked))) == 60


def test_a_list_of_options_as_long_as_a_frame_is_walked_once_and_refused():
    links = b"".join(at.to_bytes(8, "little") + bytes(16) for at in range(128, 65000, 24))
    argument = bytearray(Request(extension.AUDIT, "", {"room": 0}).argument) + links
    argument[72:80] = (104).to_bytes(8, "little")

    with pytest.raises(WireError) as caught:
        request.decode(bytes(argument))
    assert caught.value.errno == errno.EFAULT
