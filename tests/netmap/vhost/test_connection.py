# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
from dataclasses import replace

import pytest

from ptnetmap.abi import vhost_user as abi
from ptnetmap.errors import PeerError
from ptnetmap.netmap.vhost import PROTOCOL_FEATURES, Connection, MemoryRegion, Region, message
from ptnetmap.netmap.vhost.message import VringState

EVENT = 1 << 5
PACKED = 1 << 34
OWN = EVENT | 1 << 32  # features without packed queues
PROTOCOL = abi.VHOST_USER_F_PROTOCOL_FEATURES
ACK = abi.VHOST_USER_PROTOCOL_F_REPLY_ACK
NEED_REPLY = abi.VHOST_USER_NEED_REPLY


def names(script):
    return [call[0] for call in script.calls()]


def state(script):
    connection = script.connection
    return (
        list(connection.queues),
        connection.memory,
        connection.features,
        connection.protocol_features,
        connection.status,
        dict(script.device.running),
        list(script.device.mappings),
    )


def refuse(script, code, name, value=None, fds=()):
    """Send what must be refused, with all as it was."""
    before = state(script)
    with pytest.raises(PeerError, match=f"^vhost-user: cannot take {name}: .*\n        ") as caught:
        script.send(name, value, fds)
    assert caught.value.errno == code
    assert state(script) == before


def memfd():
    return os.memfd_create("memory")


class TestNegotiation:
    def test_what_is_offered_is_the_devices_features_and_the_protocols(self, script):
        assert script.send("GET_FEATURES") == OWN | PACKED | PROTOCOL | abi.VHOST_F_LOG_ALL
        assert script.send("GET_PROTOCOL_FEATURES") == PROTOCOL_FEATURES
        assert script.send("GET_QUEUE_NUM") == 2
        assert script.send("GET_MAX_MEM_SLOTS") == 8

    def test_a_device_without_protocol_features_offers_none_and_refuses_their_requests(self, make_script):
        script = make_script(protocol_features=0)
        assert script.send("GET_FEATURES") == OWN | PACKED
        refuse(script, errno.EOPNOTSUPP, "GET_QUEUE_NUM")
        refuse(script, errno.EOPNOTSUPP, "GET_STATUS")
        refuse(script, errno.EOPNOTSUPP, "SET_PROTOCOL_FEATURES", 1)
        script.close()

    def test_features_reach_the_device_without_the_protocols_bit(self, script):
        script.send("SET_FEATURES", EVENT | PROTOCOL)
        assert script.calls() == [("set_features", EVENT)]
        assert script.connection.features == EVENT | PROTOCOL

    def test_features_that_are_not_offered_are_refused(self, script):
        refuse(script, errno.EOPNOTSUPP, "SET_FEATURES", 1 << 60)
        refuse(script, errno.EOPNOTSUPP, "SET_PROTOCOL_FEATURES", 1 << 5)

    def test_features_that_the_device_refuses_are_not_used(self, script):
        script.device.refused.add("set_features")
        refuse(script, errno.EIO, "SET_FEATURES", EVENT)

    def test_only_logging_changes_while_queues_run(self, ready):
        ready.run_queue()
        refuse(ready, errno.EBUSY, "SET_FEATURES", EVENT | PROTOCOL)
        ready.calls()
        ready.send("SET_FEATURES", OWN | PROTOCOL | abi.VHOST_F_LOG_ALL)
        assert ready.calls() == [("set_features", OWN | abi.VHOST_F_LOG_ALL)]

    def test_a_session_begins_and_may_be_given_up(self, script):
        script.send("SET_OWNER")
        assert script.connection.owned
        script.send("RESET_OWNER")
        assert script.calls() == []

    @pytest.mark.parametrize("options", [{"max_queues": 0}, {"max_queues": 257}, {"protocol_features": 1 << 5}])
    def test_a_connection_that_cannot_be_is_not_made(self, make_script, options):
        with pytest.raises(ValueError, match="vhost-user"):
            make_script(**options)


class TestReplies:
    def test_a_request_is_acknowledged_when_that_was_agreed_on_and_asked_for(self, script):
        assert script.send("SET_OWNER", flags=NEED_REPLY) is None
        script.send("SET_PROTOCOL_FEATURES", ACK)
        assert script.send("SET_OWNER") is None
        assert script.send("SET_OWNER", flags=NEED_REPLY) == 0

    def test_a_refusal_is_an_errno_when_that_was_agreed_on_and_asked_for(self, script):
        script.send("SET_PROTOCOL_FEATURES", ACK)
        before = state(script)
        assert script.send("SET_VRING_NUM", VringState(9, 8), flags=NEED_REPLY) == errno.EINVAL
        assert script.send("NET_SET_MTU", 1, flags=NEED_REPLY) == errno.EINVAL
        assert state(script) == before

    def test_an_unknown_request_is_refused_or_acknowledged_as_such(self, script):
        with pytest.raises(PeerError, match="cannot take request 33") as caught:
            script.connection.receive(33, 1, b"", [memfd()])
        assert caught.value.errno == errno.EOPNOTSUPP
        script.send("SET_PROTOCOL_FEATURES", ACK)
        reply = script.connection.receive(33, 1 | NEED_REPLY, b"", [memfd()])
        assert message.U64.decode(reply.message[12:]) == errno.EOPNOTSUPP

    def test_a_refused_question_has_no_reply_that_could_be_taken_for_an_answer(self, script):
        script.send("SET_PROTOCOL_FEATURES", ACK)
        with pytest.raises(PeerError, match="cannot take GET_FEATURES"):
            script.connection.receive(abi.VHOST_USER_GET_FEATURES, 1 | NEED_REPLY, b"junk", [])
        with pytest.raises(PeerError, match="cannot take GET_VRING_BASE"):
            script.send("GET_VRING_BASE", VringState(2, 0), flags=NEED_REPLY)

    @pytest.mark.parametrize("flags", [0, 2, 3, 1 | abi.VHOST_USER_REPLY])
    def test_replies_and_other_versions_are_refused_even_if_acknowledgements_were_agreed_on(self, script, flags):
        script.send("SET_PROTOCOL_FEATURES", ACK)
        with pytest.raises(PeerError, match="its flags are") as caught:
            script.connection.receive(abi.VHOST_USER_SET_OWNER, flags | NEED_REPLY, b"", [memfd()])
        assert caught.value.errno == errno.EPROTO

    def test_the_log_is_always_replied_to(self, script):
        assert script.send("SET_LOG_BASE", message.Log(4096, 0), [memfd()]) == 0
        script.send("SET_PROTOCOL_FEATURES", ACK)
        assert script.send("SET_LOG_BASE", message.Log(0, 0), [memfd()], NEED_REPLY) == errno.EINVAL


class TestMemory:
    def test_a_table_reaches_the_device_with_its_descriptors(self, script):
        fd = memfd()
        script.send("SET_MEM_TABLE", (MemoryRegion(0, 4096, 1 << 40, 8192),), [fd])
        assert script.device.mappings == [Region(0, 4096, 1 << 40, 8192, fd)]
        assert script.connection.memory == (Region(0, 4096, 1 << 40, 8192, -1),)

    def test_a_new_table_replaces_the_old(self, ready):
        ready.set_memory(MemoryRegion(4096, 4096, 1 << 40, 0))
        assert [mapping.guest for mapping in ready.device.mappings] == [4096]
        ready.set_memory()
        assert ready.device.mappings == []

    @pytest.mark.parametrize(
        "regions",
        [
            [(0, 0, 0, 0)],
            [(2**64 - 4096, 8192, 0, 0)],
            [(0, 8192, 2**64 - 4096, 0)],
            [(0, 8192, 0, 2**64 - 4096)],
            [(0, 2**64 - 1, 0, 0)],
            [(0, 8192, 0, 0), (4096, 4096, 1 << 40, 0)],
            [(0, 8192, 1 << 40, 0), (1 << 20, 8192, (1 << 40) + 4096, 0)],
            [(0, 8192, 0, 0), (0, 8192, 1 << 40, 0)],
            [(8191, 8192, 0, 0), (0, 8192, 1 << 40, 0)],
            [(0, 8192, 8191, 0), (1 << 20, 8192, 0, 0)],
        ],
    )
    def test_regions_that_are_empty_wrap_or_overlap_are_refused(self, script, regions):
        script.set_memory(MemoryRegion(1 << 30, 4096, 1 << 50, 0))
        table = tuple(MemoryRegion(*region) for region in regions)
        refuse(script, errno.EINVAL, "SET_MEM_TABLE", table, [memfd() for _ in table])

    def test_regions_may_lie_one_after_the_other_up_to_the_end(self, script):
        script.set_memory(
            MemoryRegion(2**63 - 4096, 4096, 4096, 0),
            MemoryRegion(2**63 - 8192, 4096, 0, 0),
            MemoryRegion(0, 1, 8192, 0),
        )
        assert len(script.connection.memory) == 3

    def test_memory_that_the_device_cannot_map_is_refused(self, ready):
        ready.device.refused.add("set_memory")
        refuse(ready, errno.EIO, "SET_MEM_TABLE", (MemoryRegion(0, 1, 0, 0),), [memfd()])
        refuse(ready, errno.EIO, "ADD_MEM_REG", MemoryRegion(1 << 40, 1, 0, 0), [memfd()])
        refuse(ready, errno.EIO, "REM_MEM_REG", ready.connection.memory[0].plain)

    def test_regions_are_added_and_removed_and_others_keep_their_mappings(self, ready):
        before = list(ready.device.mappings)
        added = MemoryRegion(1 << 40, 4096, 1 << 41, 0)
        fd = memfd()
        ready.send("ADD_MEM_REG", added, [fd])
        assert ready.device.mappings == [*before, Region(*added, fd)]
        ready.send("REM_MEM_REG", ready.connection.memory[0].plain._replace(offset=77), [memfd()])
        assert ready.device.mappings == [before[1], Region(*added, fd)]
        refuse(ready, errno.ENOENT, "REM_MEM_REG", added._replace(size=8192))
        refuse(ready, errno.EINVAL, "ADD_MEM_REG", added._replace(user=0), [memfd()])

    def test_there_are_no_more_regions_than_the_device_can_have(self, make_script):
        script = make_script(max_regions=1)
        assert script.send("GET_MAX_MEM_SLOTS") == 1
        two = (MemoryRegion(0, 1, 0, 0), MemoryRegion(1, 1, 1, 0))
        refuse(script, errno.ENOSPC, "SET_MEM_TABLE", two, [memfd(), memfd()])
        script.send("ADD_MEM_REG", two[0], [memfd()])
        refuse(script, errno.ENOSPC, "ADD_MEM_REG", two[1], [memfd()])
        script.close()

    def test_queues_are_paused_while_memory_changes(self, ready):
        ready.run_queue(base=5)
        ready.device.bases[0] = 9
        ready.calls()
        ready.set_memory(*(region.plain for region in ready.connection.memory))
        assert names(ready) == ["stop_queue", "set_memory", "start_queue"]
        assert ready.device.running[0].base == 9

    def test_queues_run_on_when_other_memory_is_refused(self, ready):
        ready.run_queue()
        ready.device.refused.add("set_memory")
        refuse(ready, errno.EIO, "SET_MEM_TABLE", (MemoryRegion(*HIGH, 0),), [memfd()])

    def test_a_table_without_the_queues_that_run_is_refused(self, ready):
        ready.run_queue()
        refuse(ready, errno.EBUSY, "SET_MEM_TABLE", (MemoryRegion(0, 4096, 0, 0),), [memfd()])

    def test_a_queue_waits_while_its_region_is_away(self, ready):
        ready.run_queue()
        ready.device.bases[0] = 3
        region = ready.connection.memory[1].plain
        ready.send("REM_MEM_REG", region)
        assert ready.device.running == {}
        ready.send("ADD_MEM_REG", region._replace(guest=1 << 40), [memfd()])
        assert ready.device.running[0].desc == 1 << 40
        assert ready.device.running[0].base == 3

    def test_a_queue_that_waits_for_its_region_can_be_stopped(self, ready):
        ready.run_queue(base=4)
        region = ready.connection.memory[1].plain
        ready.send("REM_MEM_REG", region)
        assert ready.send("GET_VRING_BASE", VringState(0, 0)) == VringState(0, 4)
        ready.send("ADD_MEM_REG", region, [memfd()])
        assert ready.device.running == {}


HIGH = (1 << 32, 0x4000_0000, 0x7F80_0000_0000)


class TestQueues:
    def test_a_queue_runs_when_it_is_kicked(self, ready):
        ready.set_queue(num=256, base=7)
        assert ready.calls() == []
        kick = ready.set_file("KICK")
        setup = ready.device.running[0]
        assert (setup.size, setup.packed, setup.base, setup.kick, setup.call, setup.error) == (
            256,
            False,
            7,
            kick,
            -1,
            -1,
        )
        assert (setup.desc, setup.avail, setup.used) == (1 << 32, (1 << 32) + 0x1000, (1 << 32) + 0x2000)
        assert setup.log is None
        assert not setup.enabled

    def test_a_queue_without_a_kick_is_polled(self, ready):
        ready.set_queue()
        ready.set_file("KICK", fd=-1)
        assert ready.device.running[0].kick == -1

    @pytest.mark.parametrize("last", ["features", "num", "address", "kick"])
    def test_a_queue_runs_when_nothing_is_missing_whatever_comes_last(self, script, last):
        script.set_memory(MemoryRegion(*HIGH, 0))
        steps = {
            "features": lambda: script.send("SET_FEATURES", OWN | PROTOCOL),
            "num": lambda: script.send("SET_VRING_NUM", VringState(0, 256)),
            "address": lambda: script.send("SET_VRING_ADDR", script.address()),
            "kick": lambda: script.set_file("KICK"),
        }
        final = steps.pop(last)
        for step in steps.values():
            step()
        assert script.device.running == {}
        final()
        assert set(script.device.running) == {0}

    def test_a_queue_is_enabled_when_it_is_told_so(self, ready):
        ready.send("SET_VRING_ENABLE", VringState(0, 1))
        ready.run_queue(0)
        assert ready.device.running[0].enabled
        ready.send("SET_VRING_ENABLE", VringState(0, 0))
        assert not ready.device.running[0].enabled
        refuse(ready, errno.EINVAL, "SET_VRING_ENABLE", VringState(0, 2))

    def test_a_queue_can_be_enabled_before_features_are_settled(self, script):
        script.send("SET_VRING_ENABLE", VringState(0, 1))
        script.negotiate()
        script.set_memory(MemoryRegion(*HIGH, 0))
        script.run_queue()
        assert script.device.running[0].enabled

    def test_without_protocol_features_queues_are_enabled_from_the_start(self, ready):
        ready.run_queue(0)
        ready.send("SET_FEATURES", OWN)
        ready.run_queue(1)
        assert [setup.enabled for setup in ready.device.running.values()] == [True, True]
        refuse(ready, errno.EOPNOTSUPP, "SET_VRING_ENABLE", VringState(0, 0))

    def test_a_stopped_queue_says_where_it_stands(self, ready):
        ready.run_queue(1, base=5)
        ready.device.bases[1] = 0xFFFF
        assert ready.send("GET_VRING_BASE", VringState(1, 0)) == VringState(1, 0xFFFF)
        assert ready.device.running == {}
        assert ready.connection.queues[1].kick == -1

    def test_a_queue_that_does_not_run_stands_where_it_was_put(self, ready):
        ready.send("SET_VRING_BASE", VringState(1, 12))
        assert ready.send("GET_VRING_BASE", VringState(1, 0)) == VringState(1, 12)

    def test_a_stopped_queue_starts_again_with_the_next_kick_where_it_stood(self, ready):
        ready.run_queue()
        ready.device.bases[0] = 77
        ready.send("GET_VRING_BASE", VringState(0, 0))
        ready.set_file("KICK")
        assert ready.device.running[0].base == 77

    def test_descriptors_are_replaced_while_a_queue_runs(self, ready):
        ready.set_file("CALL")
        ready.run_queue()
        ready.calls()
        call, error = ready.set_file("CALL"), ready.set_file("ERR")
        assert ready.calls() == [("set_call", 0, call), ("set_error", 0, error)]
        kick = ready.set_file("KICK")
        assert names(ready) == ["stop_queue", "start_queue"]
        setup = ready.device.running[0]
        assert (setup.kick, setup.call, setup.error) == (kick, call, error)
        ready.set_file("CALL", fd=-1)
        assert ready.device.running[0].call == -1

    def test_a_queue_runs_on_when_the_device_refuses_another_descriptor(self, ready):
        ready.run_queue()
        ready.device.refused = {"set_call", "set_error"}
        refuse(ready, errno.EIO, "SET_VRING_CALL", message.VringFile(0, True), [os.eventfd(0)])
        refuse(ready, errno.EIO, "SET_VRING_ERR", message.VringFile(0, True), [os.eventfd(0)])

    def test_a_queue_runs_on_with_its_old_kick_when_the_device_refuses_another(self, ready):
        ready.run_queue()
        start = ready.device.start_queue
        attempts = []

        def refuse_first(index, setup):
            attempts.append(setup)
            if len(attempts) == 1:
                raise PeerError(errno.EFAULT, "device: no\n        no")
            start(index, setup)

        ready.device.start_queue = refuse_first
        refuse(ready, errno.EFAULT, "SET_VRING_KICK", message.VringFile(0, True), [os.eventfd(0)])

    def test_a_queue_that_the_device_refuses_does_not_start(self, ready):
        ready.set_queue()
        ready.device.refused.add("start_queue")
        refuse(ready, errno.EIO, "SET_VRING_KICK", message.VringFile(0, True), [os.eventfd(0)])

    def test_what_a_running_queue_is_cannot_change(self, ready):
        ready.run_queue()
        refuse(ready, errno.EBUSY, "SET_VRING_NUM", VringState(0, 128))
        refuse(ready, errno.EBUSY, "SET_VRING_BASE", VringState(0, 0))
        refuse(ready, errno.EBUSY, "SET_VRING_ADDR", ready.address(at=HIGH[2] + 4096))
        ready.send("SET_VRING_NUM", VringState(0, 256))

    def test_whether_a_running_queue_is_logged_can_change(self, ready):
        ready.run_queue()
        ready.send("SET_VRING_ADDR", ready.address(flags=abi.VHOST_VRING_F_LOG, log=0x1234))
        assert ready.device.running[0].log == 0x1234
        ready.send("SET_VRING_ADDR", ready.address())
        assert ready.device.running[0].log is None

    def test_there_are_no_other_queues(self, ready):
        refuse(ready, errno.EINVAL, "SET_VRING_NUM", VringState(2, 256))
        refuse(ready, errno.EINVAL, "SET_VRING_BASE", VringState(2, 0))
        refuse(ready, errno.EINVAL, "SET_VRING_ADDR", ready.address(2))
        refuse(ready, errno.EINVAL, "SET_VRING_ENABLE", VringState(2**32 - 1, 1))
        refuse(ready, errno.EINVAL, "GET_VRING_BASE", VringState(2, 0))
        for which in ("KICK", "CALL", "ERR"):
            refuse(ready, errno.EINVAL, f"SET_VRING_{which}", message.VringFile(2, True), [os.eventfd(0)])

    @pytest.mark.parametrize("num", [0, 3, 65536, 2**32 - 1])
    def test_sizes_that_a_split_queue_cannot_have_are_refused(self, ready, num):
        refuse(ready, errno.EINVAL, "SET_VRING_NUM", VringState(0, num))

    def test_a_split_queue_stands_at_16_bits(self, ready):
        refuse(ready, errno.EINVAL, "SET_VRING_BASE", VringState(0, 0x10000))

    @pytest.mark.parametrize("part", ["descriptor", "available", "used"])
    @pytest.mark.parametrize("at", [0, HIGH[2] - 16, HIGH[2] + HIGH[1] - 16, HIGH[2] + HIGH[1], 2**64 - 16])
    def test_a_queue_outside_memory_is_refused(self, ready, part, at):
        ready.send("SET_VRING_NUM", VringState(0, 256))
        refuse(ready, errno.EFAULT, "SET_VRING_ADDR", ready.address()._replace(**{part: at}))

    def test_a_queue_across_two_regions_is_refused(self, script):
        script.negotiate()
        script.set_memory(MemoryRegion(0, 4096, 1 << 40, 0), MemoryRegion(4096, 1 << 20, (1 << 40) + 4096, 0))
        script.send("SET_VRING_NUM", VringState(0, 512))
        refuse(script, errno.EFAULT, "SET_VRING_ADDR", script.address(at=1 << 40))

    @pytest.mark.parametrize(("part", "by"), [("descriptor", 8), ("available", 1), ("used", 2)])
    def test_parts_that_are_not_aligned_are_refused(self, ready, part, by):
        address = ready.address()
        refuse(ready, errno.EINVAL, "SET_VRING_ADDR", address._replace(**{part: getattr(address, part) + by}))

    def test_a_queue_that_grew_out_of_memory_does_not_start(self, ready):
        ready.send("SET_VRING_NUM", VringState(0, 256))
        ready.send("SET_VRING_ADDR", ready.address(at=HIGH[2] + HIGH[1] - 0x4000))
        ready.send("SET_VRING_NUM", VringState(0, 32768))
        refuse(ready, errno.EFAULT, "SET_VRING_KICK", message.VringFile(0, True), [os.eventfd(0)])

    def test_features_under_which_a_kicked_queue_cannot_be_are_refused(self, script):
        script.set_memory(MemoryRegion(*HIGH, 0))
        script.set_queue(num=100)
        script.set_file("KICK")
        refuse(script, errno.EINVAL, "SET_FEATURES", OWN)
        script.send("SET_FEATURES", OWN | PACKED)
        assert script.device.running[0].size == 100


class TestPackedQueues:
    @pytest.fixture
    def packed(self, ready):
        ready.send("SET_FEATURES", OWN | PACKED | PROTOCOL)
        return ready

    def test_any_size_will_do_and_event_suppression_is_4_bytes(self, packed):
        packed.send("SET_VRING_NUM", VringState(0, 1000))
        end = HIGH[2] + HIGH[1]
        packed.send("SET_VRING_ADDR", message.VringAddress(0, 0, end - 16000, end - 4, end - 8, 0))
        packed.set_file("KICK")
        assert packed.device.running[0].packed
        packed.send("GET_VRING_BASE", VringState(0, 0))
        refuse(packed, errno.EFAULT, "SET_VRING_ADDR", message.VringAddress(0, 0, end - 15984, end - 4, end - 8, 0))

    def test_both_sides_are_where_they_were_put(self, packed):
        packed.run_queue(base=0x0007_8009)
        setup = packed.device.running[0]
        assert (setup.next_avail, setup.avail_wrap, setup.next_used, setup.used_wrap) == (9, True, 7, False)
        packed.device.bases[0] = 0x8005_0006
        assert packed.send("GET_VRING_BASE", VringState(0, 0)) == VringState(0, 0x8005_0006)

    def test_the_drivers_side_stands_for_both_if_only_that_is_sent(self, packed):
        packed.run_queue(base=0x8003)
        setup = packed.device.running[0]
        assert (setup.next_avail, setup.avail_wrap, setup.next_used, setup.used_wrap) == (3, True, 3, True)

    @pytest.mark.parametrize("base", [256, 0x8000 | 256, 256 << 16, 0x8100_0000])
    def test_a_queue_cannot_stand_outside_itself(self, packed, base):
        packed.set_queue(base=base)
        refuse(packed, errno.EINVAL, "SET_VRING_KICK", message.VringFile(0, True), [os.eventfd(0)])


class TestTheRest:
    def test_a_log_reaches_the_device(self, script):
        script.send("SET_LOG_BASE", message.Log(4096, 8192), [memfd()])
        script.send("SET_LOG_BASE", message.Log(8192, 0), [memfd()])
        script.send("SET_LOG_FD", None, [os.eventfd(0)])
        script.send("SET_LOG_FD", None, [os.eventfd(0)])
        assert script.calls() == [("set_log", 4096, 8192), ("set_log", 8192, 0), ("set_log_event",), ("set_log_event",)]

    def test_a_log_that_cannot_be_is_refused(self, script):
        refuse(script, errno.EINVAL, "SET_LOG_BASE", message.Log(0, 0), [memfd()])
        refuse(script, errno.EINVAL, "SET_LOG_BASE", message.Log(2**63, 2**63), [memfd()])
        script.device.refused = {"set_log", "set_log_event"}
        refuse(script, errno.EIO, "SET_LOG_BASE", message.Log(4096, 0), [memfd()])
        refuse(script, errno.EIO, "SET_LOG_FD", None, [os.eventfd(0)])

    @pytest.mark.parametrize("padded", [True, False])
    def test_memory_for_buffers_in_flight_is_made_and_comes_back(self, script, padded):
        inflight, fd = script.send("GET_INFLIGHT_FD", message.Inflight(0, 0, 2, 256, padded))
        assert inflight == message.Inflight(64 * 2 * 256, 0, 2, 256, padded)
        assert os.fstat(fd).st_size == inflight.size
        script.send("SET_INFLIGHT_FD", inflight, [fd])
        assert script.calls() == [("make_inflight", 2, 256), ("set_inflight", inflight.size, 0, 2, 256)]

    def test_memory_for_buffers_in_flight_that_cannot_be_is_refused(self, ready):
        for queues, queue_size in ((0, 1), (3, 1), (1, 0), (1, 32769)):
            refuse(ready, errno.EINVAL, "GET_INFLIGHT_FD", message.Inflight(0, 0, queues, queue_size))
            refuse(ready, errno.EINVAL, "SET_INFLIGHT_FD", message.Inflight(1, 0, queues, queue_size), [memfd()])
        refuse(ready, errno.EINVAL, "SET_INFLIGHT_FD", message.Inflight(0, 0, 1, 1), [memfd()])
        ready.device.refused = {"make_inflight", "set_inflight"}
        refuse(ready, errno.EIO, "GET_INFLIGHT_FD", message.Inflight(0, 0, 1, 1))
        refuse(ready, errno.EIO, "SET_INFLIGHT_FD", message.Inflight(1, 0, 1, 1), [memfd()])
        ready.device.refused.clear()
        ready.run_queue()
        refuse(ready, errno.EBUSY, "SET_INFLIGHT_FD", message.Inflight(1, 0, 1, 1), [memfd()])

    def test_status_is_kept_and_0_stops_all_queues(self, ready):
        ready.run_queue()
        ready.send("SET_STATUS", 0xF)
        assert ready.send("GET_STATUS") == 0xF
        assert set(ready.device.running) == {0}
        refuse(ready, errno.EINVAL, "SET_STATUS", 0x100)
        ready.send("SET_STATUS", 0)
        assert ready.send("GET_STATUS") == 0
        assert ready.device.running == {}

    def test_a_reset_keeps_memory_and_protocol_features_only(self, ready):
        ready.send("SET_PROTOCOL_FEATURES", ACK)
        ready.set_file("CALL")
        ready.set_file("ERR")
        ready.send("SET_LOG_FD", None, [os.eventfd(0)])
        ready.send("SET_VRING_ENABLE", VringState(0, 1))
        ready.send("SET_STATUS", 15)
        ready.run_queue()
        memory = ready.connection.memory
        ready.calls()
        assert ready.send("RESET_DEVICE", flags=NEED_REPLY) == 0
        assert names(ready) == ["stop_queue", "reset"]
        fresh = Connection(ready.device, features=0, max_queues=2)
        assert ready.connection.queues == fresh.queues
        assert (ready.connection.features, ready.connection.status) == (None, 0)
        assert (ready.connection.memory, ready.connection.protocol_features) == (memory, ACK)

    def test_the_mtu_and_the_address_to_announce_reach_the_device(self, script):
        script.send("NET_SET_MTU", 1500)
        script.send("SEND_RARP", int.from_bytes(b"\x02\x00\x00\x00\x00\x07\xff\xff", "little"))
        assert script.calls() == [("set_mtu", 1500), ("send_rarp", b"\x02\x00\x00\x00\x00\x07")]
        for mtu in (67, 65536):
            refuse(script, errno.EINVAL, "NET_SET_MTU", mtu)

    def test_the_configuration_space_is_read_and_not_written(self, script):
        assert script.send("GET_CONFIG", message.Config(2, 1, bytes(10))) == message.Config(2, 1, bytes(range(2, 12)))
        refuse(script, errno.EROFS, "SET_CONFIG", message.Config(0, 0, b"\0"))

    @pytest.mark.parametrize(("offset", "size"), [(0, 13), (12, 1), (2**32 - 1, 2)])
    def test_what_is_not_in_the_configuration_space_is_an_empty_reply(self, script, offset, size):
        payload = message.CONFIG.encode(message.Config(offset, 0, bytes(size)))
        reply = script.connection.receive(abi.VHOST_USER_GET_CONFIG, 1, payload, [])
        assert reply.message == message.encode(abi.VHOST_USER_GET_CONFIG, b"", abi.VHOST_USER_REPLY)

    def test_closing_stops_all_queues_and_closes_their_descriptors(self, ready):
        for queue in (0, 1):
            for which in ("CALL", "ERR"):
                ready.set_file(which, queue)
            ready.run_queue(queue)
        ready.connection.close()
        assert ready.device.running == {}
        assert {queue.fds == set() for queue in ready.connection.queues} == {True}

    def test_a_device_that_cannot_serve_a_queue_where_memory_changed_says_so(self, ready):
        ready.run_queue()
        ready.device.refused.add("start_queue")
        with pytest.raises(PeerError, match="cannot take ADD_MEM_REG: device: cannot start_queue"):
            ready.send("ADD_MEM_REG", MemoryRegion(1 << 50, 4096, 1 << 51, 0), [memfd()])
        assert len(ready.device.mappings) == 3
        assert ready.connection.queues[0] == replace(ready.connection.queues[0], running=False, started=True)
