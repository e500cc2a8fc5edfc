# SPDX-License-Identifier: BSD-2-Clause
import errno
import struct

import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap.wire import frame as frames
from ptnetmap.netmap.wire.error import ProtocolMismatchError, WireError
from ptnetmap.netmap.wire.frame import HELLO, MAGIC, PROTOCOL, Frame

NMREQ = bytes(60)


def raw(ioctl=abi.NIOCREGIF, argument=NMREQ, *, magic=MAGIC, protocol=PROTOCOL, reserved=(0, 0), error=0, size=None):
    size = len(argument) if size is None else size
    return struct.pack("<IHHIIII", magic, protocol, reserved[0], ioctl, error, size, reserved[1]) + argument


def refused(number, data, read=frames.decode):
    with pytest.raises(WireError) as caught:
        read(data)
    assert caught.value.errno == number
    assert "\n        " in str(caught.value)


def test_the_header_has_the_documented_layout():
    fields = frames.header.fields

    assert frames.header.itemsize == 24
    assert {name: at for name, (_, at) in fields.items()} == {
        "magic": 0,
        "protocol": 4,
        "reserved": 6,
        "ioctl": 8,
        "error": 12,
        "argument_size": 16,
        "reserved2": 20,
    }
    assert frames.hello.itemsize == 64


def test_an_argument_travels_byte_for_byte_behind_the_header():
    argument = bytes(range(60))

    assert frames.encode(Frame(abi.NIOCREGIF, argument)) == raw(argument=argument)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(abi.NIOCTXSYNC),
        Frame(abi.NIOCREGIF, NMREQ),
        Frame(abi.NIOCREGIF, NMREQ, errno.EBUSY, "besetzt: über"),
        Frame(abi.NIOCCTRL, bytes(120)),
        Frame(0x1234, b"", errno.EOPNOTSUPP),
    ],
)
def test_what_is_encoded_is_decoded_again(frame):
    assert frames.decode(frames.encode(frame)) == frame


@pytest.mark.parametrize(
    ("number", "data"),
    [
        (errno.EPROTO, b""),
        (errno.EPROTO, raw()[:23]),
        (errno.EPROTO, raw()[:-1]),
        (errno.EPROTO, raw(magic=MAGIC + 1)),
        (errno.EPROTO, raw(size=61)),
        (errno.EPROTONOSUPPORT, raw(protocol=PROTOCOL + 1)),
        (errno.EINVAL, raw(reserved=(1, 0))),
        (errno.EINVAL, raw(reserved=(0, 1))),
        (errno.EINVAL, raw(error=4096)),
        (errno.EINVAL, raw() + b"text without error"),
        (errno.EINVAL, raw(error=5) + b"\xff"),
        (errno.EINVAL, raw(argument=bytes(59))),
        (errno.EINVAL, raw(argument=bytes(61))),
        (errno.EINVAL, raw(argument=b"")),
        (errno.EINVAL, raw(ioctl=abi.NIOCTXSYNC)),
        (errno.EINVAL, raw(ioctl=abi.NIOCCTRL, argument=bytes(87))),
        (errno.EINVAL, raw(ioctl=HELLO, argument=bytes(63))),
        (errno.EOPNOTSUPP, raw(ioctl=0xC0106999)),
        (errno.EMSGSIZE, raw(ioctl=abi.NIOCCTRL, argument=bytes(65536 - 23))),
    ],
)
def test_a_broken_frame_is_refused_with_its_errno(number, data):
    refused(number, data)


def test_a_frame_of_the_largest_size_passes():
    data = raw(ioctl=abi.NIOCCTRL, argument=bytes(65536 - 24))

    assert len(frames.decode(data).argument) == 65512


def test_a_request_cannot_be_an_error():
    refused(errno.EINVAL, raw(error=5), frames.decode_request)


def test_what_could_not_be_decoded_is_not_encoded():
    for frame in (Frame(abi.NIOCREGIF), Frame(abi.NIOCTXSYNC, b"", -1), Frame(abi.NIOCTXSYNC, b"", 5, "\ud800")):
        refused(errno.EINVAL, frame, frames.encode)


def test_another_protocol_is_told_apart_from_garbage():
    with pytest.raises(ProtocolMismatchError) as caught:
        frames.decode(raw(protocol=77))

    assert (caught.value.protocol, caught.value.errno) == (77, errno.EPROTONOSUPPORT)


def test_a_refusal_carries_errno_and_text_to_the_other_side():
    answer = frames.refusal(abi.NIOCREGIF, PortError(errno.EBUSY, "in use\n        close it"), NMREQ)

    with pytest.raises(PortError) as caught:
        frames.raise_for_error(frames.decode(frames.encode(answer)))
    assert (caught.value.errno, str(caught.value)) == (errno.EBUSY, "in use\n        close it")


@pytest.mark.parametrize("error", [OSError("no number"), PortError(70000, "too big"), PortError(0, "none")])
def test_a_refusal_without_a_usable_errno_is_an_input_output_error(error):
    assert frames.refusal(HELLO, error).error == errno.EIO


def test_a_long_explanation_is_cut_between_characters():
    answer = frames.refusal(abi.NIOCREGIF, PortError(errno.EINVAL, "x" + "ü" * 5000), NMREQ)

    assert frames.decode(frames.encode(answer)) == answer
    assert answer.text == "x" + "ü" * 2047


def test_a_refusal_with_the_largest_argument_still_fits():
    answer = frames.refusal(abi.NIOCCTRL, PortError(errno.EINVAL, "no"), bytes(65512))

    assert frames.decode(frames.encode(answer)).text == ""


def test_success_raises_nothing():
    frames.raise_for_error(Frame(abi.NIOCTXSYNC))
