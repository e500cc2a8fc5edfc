# SPDX-License-Identifier: BSD-2-Clause
"""Messages in any order, right and wrong, with a device that refuses now and then.

Whatever comes, a connection raises nothing but PeerError, changes nothing when it refuses, has the device serve exactly
the queues that can be served, and has as many open descriptors as it knows of.
"""

import contextlib
import errno
import os
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ptnetmap.abi import vhost_user as abi
from ptnetmap.errors import PeerError
from ptnetmap.netmap.vhost import Connection, MemoryRegion, message
from ptnetmap.netmap.vhost import queue as queues
from ptnetmap.testing.vhost import RecordingDevice

PACKED = 1 << 34
USER = 1 << 40
REGIONS = [
    MemoryRegion(0, 1 << 20, USER, 0),
    MemoryRegion(1 << 32, 1 << 20, 2 * USER, 4096),
    MemoryRegion(1 << 33, 1 << 20, 2 * USER, 0),  # overlaps the one before
    MemoryRegion(2**64 - 4096, 8192, 3 * USER, 0),
    MemoryRegion(1 << 34, 0, 4 * USER, 0),
]
ADDRESSES = st.sampled_from(
    [USER, USER + 0x4000, 2 * USER, 2 * USER + 0x8000, 2 * USER + (1 << 20) - 64, 2**64 - 16, 1]
)
INDICES = st.sampled_from([0, 0, 0, 1, 1, 2, 2**32 - 1])
FEATURES = st.sampled_from([0, 1 << 30, 1 << 30 | 1 << 26, 1 << 30 | PACKED, 1 << 30 | PACKED | 1 << 26, 1 << 7])
NUMBERS = st.sampled_from([0, 1, 2, 100, 256, 32768, 65536, 0x8000_8000, 2**32 - 1])

VALUES = {
    message.NOTHING: st.none(),
    message.U64: FEATURES | st.sampled_from([1500, abi.VHOST_USER_PROTOCOL_F_REPLY_ACK, 15, 2**64 - 1]),
    message.STATE: st.builds(message.VringState, INDICES, NUMBERS),
    message.ADDRESS: st.builds(
        message.VringAddress, INDICES, st.integers(0, 1), ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES
    ),
    message.FILE: st.builds(message.VringFile, st.sampled_from([0, 0, 1, 2, 255]), st.booleans()),
    message.MEMORY: st.lists(st.sampled_from([*REGIONS[:2] * 4, *REGIONS]), max_size=3).map(tuple),
    message.SINGLE: st.sampled_from([*REGIONS[:2] * 4, *REGIONS]),
    message.LOG: st.builds(message.Log, st.sampled_from([0, 4096, 2**64 - 1]), st.sampled_from([0, 2**63])),
    message.INFLIGHT: st.builds(
        message.Inflight, st.sampled_from([0, 4096]), st.just(0), st.integers(0, 3), st.sampled_from([0, 256, 65535])
    ),
    message.CONFIG: st.builds(message.Config, st.sampled_from([0, 11, 2**32 - 1]), st.just(0), st.binary(max_size=13)),
}


def fds_with(request, value):
    if request.payload is message.MEMORY:
        return len(value)
    return int(value.has_fd) if request.payload is message.FILE else request.fds[0]


@st.composite
def good_messages(draw):
    """Draw messages of the right form; what they say may be impossible."""
    number = draw(st.sampled_from(sorted(message.REQUESTS)))
    request = message.REQUESTS[number]
    value = draw(VALUES[request.payload])
    return number, request.payload.encode(value), fds_with(request, value)


@st.composite
def bad_messages(draw):
    number, payload, fds = draw(good_messages())
    number = draw(st.just(number) | st.integers(0, 50))
    payload = draw(st.sampled_from([payload, payload[:-1], payload + b"\0"]) | st.binary(max_size=300))
    return number, payload, draw(st.just(fds) | st.integers(0, 8))


@st.composite
def whole_queues(draw):
    """Draw what makes a queue run, in any order."""
    index = draw(st.integers(0, 1))
    at = draw(st.sampled_from([USER, 2 * USER]))
    address = message.VringAddress(index, draw(st.integers(0, 1)), at, at + 0x2000, at + 0x1000, 0)
    table = tuple(REGIONS[:2])
    u32, has_fd = message.VringState, draw(st.booleans())
    steps = [
        (abi.VHOST_USER_SET_FEATURES, message.U64.encode(draw(FEATURES)), 0),
        (abi.VHOST_USER_SET_MEM_TABLE, message.MEMORY.encode(table), 2),
        (abi.VHOST_USER_SET_VRING_NUM, message.STATE.encode(u32(index, draw(st.sampled_from([1, 100, 256])))), 0),
        (abi.VHOST_USER_SET_VRING_ADDR, message.ADDRESS.encode(address), 0),
        (abi.VHOST_USER_SET_VRING_KICK, message.FILE.encode(message.VringFile(index, has_fd)), int(has_fd)),
    ]
    return draw(st.permutations(steps)) if draw(st.booleans()) else steps


def both_sides(base):
    return base if base >> 16 else base | base << 16


class Messages(RuleBasedStateMachine):
    @initialize()
    def connect(self):
        self.before = self.open()
        self.device = RecordingDevice()
        self.connection = Connection(self.device, features=PACKED, max_queues=2, max_regions=2, config_size=12)

        self.starts_failed = False

    def open(self):
        listed = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
        return {fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")}

    def state(self):
        connection = self.connection
        return (
            # A queue that was paused and goes on may stand where it stood in other words.
            [replace(queue, base=both_sides(queue.base)) for queue in connection.queues],
            connection.memory,
            connection.features,
            connection.protocol_features,
            connection.status,
            dict(self.device.running),
            list(self.device.mappings),
        )

    def deliver(self, number, payload, count, flags=1):
        before = self.state()
        refusal = None
        try:
            reply = self.connection.receive(number, flags, payload, [os.eventfd(0) for _ in range(count)])
        except PeerError as error:
            refusal = error
            code = error.errno
        else:
            code = self.code_in(number, reply) if reply else 0
        if refusal:
            assert str(refusal).startswith("vhost-user: cannot take ")
        if code:
            assert code != errno.EBADF
            assert self.state() == before or "start_queue" in self.device.refused

    def code_in(self, number, reply):
        """Look at a reply; return the errno in it, if it is an acknowledgement."""
        for fd in reply.fds:
            os.close(fd)
        header = message.decode_header(reply.message[: message.HEADER_SIZE])
        payload = reply.message[message.HEADER_SIZE :]
        assert (header.request, header.flags) == (number, abi.VHOST_USER_VERSION | abi.VHOST_USER_REPLY)
        assert header.size == len(payload)
        request = message.REQUESTS.get(number)
        return message.ACK.decode(payload) if request is None or request.reply in (None, message.ACK) else 0

    @rule(sent=good_messages(), flags=st.sampled_from([1, 9]))
    def a_message_comes(self, sent, flags):
        self.deliver(*sent, flags)

    @rule(sent=bad_messages(), flags=st.sampled_from([1, 9]) | st.integers(0, 15))
    def junk_comes(self, sent, flags):
        self.deliver(*sent, flags)

    @rule(steps=whole_queues())
    def a_queue_is_set_up(self, steps):
        for step in steps:
            self.deliver(*step)

    @rule(
        refused=st.sampled_from(
            [set(), set(), {"start_queue"}, {"set_memory"}, {"set_features", "set_call"}, {"set_log", "make_inflight"}]
        )
    )
    def the_device_refuses(self, refused):
        self.device.refused = set(refused)
        self.starts_failed |= "start_queue" in refused

    @invariant()
    def the_device_serves_the_queues_that_can_be_served(self):
        connection = self.connection
        for index, queue in enumerate(connection.queues):
            wanted = self.wanted(queue)
            assert queue.running == (index in self.device.running)
            assert queue.running == (wanted is not None) or self.starts_failed
            if queue.running:
                assert self.device.running[index]._replace(base=0) == wanted._replace(base=0)

    def wanted(self, queue):
        if self.connection.features is None:
            return None
        with contextlib.suppress(PeerError):
            return queues.setup(queue, self.connection.features, self.connection.memory)
        return None

    @invariant()
    def all_open_descriptors_are_known(self):
        known = [fd for queue in self.connection.queues for fd in queue.fds] + list(self.device.fds)
        if self.connection._log_event >= 0:
            known.append(self.connection._log_event)
        assert len(known) == len(set(known))
        assert self.open() - self.before == set(known)

    def teardown(self):
        if hasattr(self, "connection"):
            self.connection.close()
            self.device.close()
            assert self.open() - self.before == set()


Messages.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMessages = Messages.TestCase
