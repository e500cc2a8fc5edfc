# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.abi import vhost_user as abi
from ptnetmap.errors import PeerError
from ptnetmap.netmap.vhost import message

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
REGIONS = st.builds(message.MemoryRegion, U64, U64, U64, U64)
VALUES = {
    message.NOTHING: st.none(),
    message.U64: U64,
    message.STATE: st.builds(message.VringState, U32, U32),
    message.ADDRESS: st.builds(message.VringAddress, U32, st.integers(0, 1), U64, U64, U64, U64),
    message.FILE: st.builds(message.VringFile, st.integers(0, 255), st.booleans()),
    message.MEMORY: st.lists(REGIONS, max_size=8).map(tuple),
    message.SINGLE: REGIONS,
    message.LOG: st.builds(message.Log, U64, U64),
    message.INFLIGHT: st.builds(message.Inflight, U64, U64, U16, U16, st.booleans()),
    message.CONFIG: st.builds(message.Config, U32, U32, st.binary(max_size=256)),
}
REQUESTS = pytest.mark.parametrize("request_", message.REQUESTS.values(), ids=lambda request: request.name)


def fds_with(request, value):
    if request.payload is message.MEMORY:
        return len(value)
    if request.payload is message.FILE:
        return int(value.has_fd)
    return request.fds[0]


@given(st.data())
def test_what_was_written_is_read_back(data):
    request = data.draw(st.sampled_from(list(message.REQUESTS.values())))
    value = data.draw(VALUES[request.payload])
    payload = request.payload.encode(value)
    assert message.decode(request, payload, fds_with(request, value)) == value


@REQUESTS
@given(data=st.data())
def test_a_payload_of_another_size_is_refused(request_, data):
    value = data.draw(VALUES[request_.payload])
    payload = request_.payload.encode(value)
    other = data.draw(st.sampled_from([payload[:-1], payload + b"\0", payload * 2]).filter(lambda p: p != payload))
    with pytest.raises(PeerError) as caught:
        message.decode(request_, other, fds_with(request_, value))
    assert caught.value.errno == errno.EINVAL


@REQUESTS
@given(data=st.data())
def test_another_number_of_descriptors_is_refused(request_, data):
    value = data.draw(VALUES[request_.payload])
    right = {fds_with(request_, value)} | ({0, 1} if request_.name == "REM_MEM_REG" else set())
    fds = data.draw(st.integers(0, 9).filter(lambda fds: fds not in right))
    with pytest.raises(PeerError, match=f"{fds} file descriptors") as caught:
        message.decode(request_, request_.payload.encode(value), fds)
    assert caught.value.errno == errno.EINVAL


@given(st.sampled_from(list(message.REQUESTS.values())), st.binary(max_size=300), st.integers(0, 9))
def test_any_bytes_are_read_or_refused(request, payload, fds):
    with contextlib.suppress(PeerError):
        message.decode(request, payload, fds)


def test_messages_are_as_the_protocol_lays_them_out():
    kick = message.encode(
        abi.VHOST_USER_SET_VRING_KICK, message.FILE.encode(message.VringFile(3, False)), abi.VHOST_USER_NEED_REPLY
    )
    assert kick == struct.pack("<IIIQ", 12, 0x9, 8, 0x103)
    address = message.ADDRESS.encode(message.VringAddress(1, 1, descriptor=2, used=3, available=4, log=5))
    assert address == struct.pack("<IIQQQQ", 1, 1, 2, 3, 4, 5)
    table = message.MEMORY.encode((message.MemoryRegion(guest=1, size=2, user=3, offset=4),))
    assert table == struct.pack("<IIQQQQ", 1, 0, 1, 2, 3, 4)
    assert message.SINGLE.encode(message.MemoryRegion(1, 2, 3, 4)) == struct.pack("<QQQQQ", 0, 1, 2, 3, 4)
    assert message.INFLIGHT.encode(message.Inflight(1, 2, 3, 4)) == struct.pack("<QQHHI", 1, 2, 3, 4, 0)
    assert message.INFLIGHT.encode(message.Inflight(1, 2, 3, 4, padded=False)) == struct.pack("<QQHH", 1, 2, 3, 4)
    assert message.CONFIG.encode(message.Config(1, 0, b"ab")) == struct.pack("<III2s", 1, 2, 0, b"ab")


def test_a_memory_table_has_at_most_8_regions():
    payload = struct.pack("<II", 9, 0) + bytes(9 * 32)
    with pytest.raises(PeerError, match="9 regions"):
        message.decode(message.REQUESTS[abi.VHOST_USER_SET_MEM_TABLE], payload, 9)


@pytest.mark.parametrize("value", [0x200, 1 << 63])
def test_unknown_bits_beside_a_queues_number_are_refused(value):
    with pytest.raises(PeerError, match="unknown bits"):
        message.decode(message.REQUESTS[abi.VHOST_USER_SET_VRING_CALL], struct.pack("<Q", value), 1)


def test_unknown_flags_of_addresses_are_refused():
    with pytest.raises(PeerError, match="unknown bits"):
        message.ADDRESS.decode(message.ADDRESS.encode(message.VringAddress(0, 2, 0, 0, 0, 0)))


@given(U32, st.sampled_from([0, abi.VHOST_USER_REPLY, abi.VHOST_USER_NEED_REPLY]), st.binary(max_size=64))
def test_a_header_says_what_follows(request, flags, payload):
    data = message.encode(request, payload, flags)
    header = message.decode_header(data[: message.HEADER_SIZE])
    assert header == (request, flags | 1, len(payload))


@pytest.mark.parametrize(
    ("flags", "size", "code"), [(0, 0, errno.EPROTO), (2, 0, errno.EPROTO), (1, 4097, errno.EMSGSIZE)]
)
def test_what_is_no_header_is_refused(flags, size, code):
    with pytest.raises(PeerError, match="vhost-user: cannot read a message") as caught:
        message.decode_header(struct.pack("<III", 1, flags, size))
    assert caught.value.errno == code
