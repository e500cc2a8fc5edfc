# SPDX-License-Identifier: BSD-2-Clause
import errno
import struct

import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.request import Request

R = abi

_NMREQ = struct.Struct("<16sIIIIIHHHHHHII4x")


def nmreq(name=b"", version=14, cmd=0, ringid=0, flags=0, **fields):
    order = ("tx_slots", "rx_slots", "tx_rings", "rx_rings")
    counts = [fields.pop(key, 0) for key in order]
    arg1, arg2, arg3 = (fields.pop(key, 0) for key in ("arg1", "arg2", "arg3"))
    assert not fields
    return _NMREQ.pack(name, version, 0, 0, *counts, ringid, cmd, arg1, arg2, arg3, flags)


def unpack(argument):
    keys = (
        *("name", "version", "offset", "memsize", "tx_slots", "rx_slots", "tx_rings", "rx_rings", "ringid"),
        *("cmd", "arg1", "arg2", "arg3", "flags"),
    )
    return dict(zip(keys, _NMREQ.unpack(argument), strict=True))


def listing(client):
    found, at = [], (0, 0)
    while True:
        reply = client.request(R.NETMAP_REQ_VALE_LIST, nr_bridge_idx=at[0], nr_port_idx=at[1])
        if reply.errno:
            assert reply.name == "ENOENT"
            return found
        fields = reply.fields
        found.append(fields["nr_name"])
        at = fields["nr_bridge_idx"], fields["nr_port_idx"] + 1


@pytest.fixture
def persistent(netmapd):
    """Persistent port "per4"; removed, with its attachments, at the end."""
    client = netmapd.client()
    assert client.request(R.NETMAP_REQ_VALE_NEWIF, "per4").errno == 0
    yield "per4"
    netmapd.close_clients()
    client = netmapd.client()

    def deleted():
        for name in listing(client)[::-1]:
            client.request(R.NETMAP_REQ_VALE_DETACH, name)
        return client.request(R.NETMAP_REQ_VALE_DELIF, "per4").name in ("OK", "ENXIO")

    from_now = range(200)
    assert any(deleted() for _ in from_now)


# -- registration ------------------------------------------------------------------------------------------------------


def test_a_registration_says_what_was_granted_and_sends_the_memory(netmapd):
    bound = netmapd.client().register("vale0:a", nr_tx_rings=2, nr_rx_rings=3, nr_tx_slots=128, nr_rx_slots=64)

    fields = bound.fields
    assert {key: fields[key] for key in ("nr_tx_rings", "nr_rx_rings", "nr_tx_slots", "nr_rx_slots")} == {
        "nr_tx_rings": 2,
        "nr_rx_rings": 3,
        "nr_tx_slots": 128,
        "nr_rx_slots": 64,
    }
    assert (fields["nr_mode"], fields["nr_ringid"], fields["nr_flags"]) == (abi.NR_REG_ALL_NIC, 0, 0)
    assert fields["nr_mem_id"] > 1
    assert len(bound.fds) == 1


def test_counts_above_the_most_are_clamped_and_told(netmapd):
    fields = netmapd.client().register("vale0:a", nr_tx_rings=100, nr_rx_rings=17, nr_tx_slots=10000).fields

    assert [fields[f"nr_{key}"] for key in ("tx_rings", "rx_rings", "tx_slots", "rx_slots")] == [16, 16, 4096, 1024]


def test_a_second_registration_is_busy_and_leaves_the_first(netmapd):
    client = netmapd.client()
    client.register("vale0:a")

    assert client.register("vale0:b").name == "EBUSY"
    assert listing(client) == ["vale0:a"]
    assert client.request(extension.NOTIFIERS, first=0, count=2).fields["count"] == 2


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("vale0:a", {"nr_mem_id": 54321}, "EINVAL"),
        ("nosuch0", {}, "ENXIO"),
        ("vale0:a", {"nr_mode": 99}, "EINVAL"),
        ("vale0:a", {"nr_mode": abi.NR_REG_DEFAULT}, "EINVAL"),
        ("vale0:a", {"nr_mode": abi.NR_REG_PIPE_MASTER}, "EINVAL"),
        ("vale0:a", {"nr_mode": abi.NR_REG_PIPE_SLAVE}, "EINVAL"),
        ("vale0:a", {"nr_mode": abi.NR_REG_SW}, "EINVAL"),
        ("vale0:a", {"nr_mode": abi.NR_REG_NIC_SW}, "EINVAL"),
        ("vale0:a{1", {"nr_mode": abi.NR_REG_NIC_SW}, "EINVAL"),
        ("vale0:a", {"nr_mode": abi.NR_REG_ONE_NIC, "nr_ringid": 1}, "EINVAL"),
        ("", {"nr_mode": abi.NR_REG_NULL}, "EINVAL"),
        ("vale0:a", {"nr_flags": abi.NR_MONITOR_RX}, "EINVAL"),
        ("vale0:", {}, "EINVAL"),
        ("", {}, "EINVAL"),
        ("vale0:a/x", {}, "EINVAL"),
    ],
)
def test_a_registration_that_cannot_be_has_upstreams_errno_and_makes_nothing(netmapd, name, body, expected):
    client = netmapd.client()

    assert client.register(name, **body).name == expected
    assert listing(client) == []
    assert client.register("vale0:later").errno == 0


def test_a_port_of_other_memory_cannot_be_had(netmapd):
    first = netmapd.client().register("vale0:a").fields["nr_mem_id"]
    other = netmapd.client().register("vale0:b").fields["nr_mem_id"]

    assert netmapd.client().register("vale0:a", nr_mem_id=other).name == "EINVAL"
    assert netmapd.client().register("vale0:a", nr_mem_id=first).fields["nr_mem_id"] == first
    assert netmapd.client().register("vale0:c", nr_mem_id=first).fields["nr_mem_id"] == first


def test_one_direction_that_lacks_the_ring_binds_its_first(netmapd):
    client = netmapd.client()
    client.register("vale0:a", nr_mode=abi.NR_REG_ONE_NIC, nr_ringid=1, nr_tx_rings=2)

    rings = extension.introspect(
        lambda number, name, body: client.request(number, name, **body).fields, extension.BINDING
    )["rings"]
    assert [(ring["direction"], ring["index"]) for ring in rings] == [(abi.TX, 1), (abi.RX, 0)]


def test_exclusive_means_alone(netmapd):
    first = netmapd.client()
    assert first.register("vale0:a", nr_flags=abi.NR_EXCLUSIVE).errno == 0
    assert netmapd.client().register("vale0:a").name == "EBUSY"

    assert netmapd.client().register("vale0:b").errno == 0
    assert netmapd.client().register("vale0:b", nr_flags=abi.NR_EXCLUSIVE).name == "EBUSY"


@pytest.mark.parametrize("name", ["vale0:a{x", "vale0:a"])
def test_what_is_held_exclusively_can_be_had_when_its_holder_has_gone(netmapd, patiently, name):
    first, second = netmapd.client(), netmapd.client()
    first.register(name, nr_flags=abi.NR_EXCLUSIVE)
    assert second.register(name, nr_flags=abi.NR_EXCLUSIVE).name == "EBUSY"

    first.close()

    patiently(lambda: second.register(name, nr_flags=abi.NR_EXCLUSIVE).errno == 0)


def test_extra_buffers_are_granted_and_counted(netmapd):
    assert netmapd.client().register("vale0:a", nr_extra_bufs=20).fields["nr_extra_bufs"] == 20
    assert netmapd.client().register("vale0:a{pipeexbuf", nr_extra_bufs=58).fields["nr_extra_bufs"] == 58


def test_more_extra_buffers_than_there_are_means_as_many_as_there_are(netmapd):
    mem_id = netmapd.client().register("vale0:a").fields["nr_mem_id"]
    asked = {"nr_mem_id": mem_id, "nr_extra_bufs": 0xFFFFFFFF}

    assert 0 < netmapd.client().register("vale0:b", **asked).fields["nr_extra_bufs"] < 0xFFFFFFFF
    assert netmapd.client().register("vale0:a", **asked).fields["nr_extra_bufs"] == 0


def test_a_null_port_is_a_handle_on_memory(netmapd):
    owner = netmapd.client().register("vale0:a").fields["nr_mem_id"]
    null = netmapd.client().register("", nr_mode=abi.NR_REG_NULL, nr_mem_id=owner)

    assert null.errno == 0, null.text
    assert null.fields["nr_mem_id"] == owner
    assert len(null.fds) == 1


def test_both_ends_of_a_pipe_share_memory(netmapd):
    master = netmapd.client().register("vale0:a{p").fields
    slave = netmapd.client().register("vale0:a}p").fields

    assert master["nr_mem_id"] == slave["nr_mem_id"]


def test_a_monitor_is_a_port_of_its_own(netmapd):
    netmapd.client().register("vale0:a")

    assert netmapd.client().register("vale0:a", nr_flags=abi.NR_MONITOR_TX | abi.NR_MONITOR_RX).errno == 0


def test_a_pool_that_is_exhausted_is_enomem_and_leaves_nothing(netmapd):
    clients = [netmapd.client() for _ in range(2)]
    mem_id = clients[0].register("vale0:a").fields["nr_mem_id"]

    replies = [netmapd.client().register(f"vale0:p{i}", nr_mem_id=mem_id, nr_tx_rings=16) for i in range(20)]

    assert {reply.name for reply in replies} == {"OK", "ENOMEM"}
    assert len(listing(clients[1])) == 1 + sum(reply.errno == 0 for reply in replies)


def test_no_more_switches_than_there_may_be(netmapd):
    names = [netmapd.client().register(f"vale{i}:a").name for i in range(9)]

    assert names == ["OK"] * 8 + ["ENOMEM"]


# -- options -----------------------------------------------------------------------------------------------------------


def register_argument(*options, name=b"vale0:a"):
    """A REGISTER argument with options (type, size) that no well-behaved encoder writes."""
    body = bytearray(56)
    struct.pack_into("<I", body, 36, abi.NR_REG_ALL_NIC)
    at = 88 + 56
    tail = b""
    for i, (kind, size) in enumerate(options):
        following = at + size if i + 1 < len(options) else 0
        tail += struct.pack("<QIIQ", following, kind, 0, size).ljust(size, b"\0")
        at += size
    head = struct.pack("<HHI64sQQ", 14, abi.NETMAP_REQ_REGISTER, 0, name, 144 if options else 0, 88)
    return head + bytes(body) + tail


def statuses(argument, count, error_named):
    found, at = [], struct.unpack_from("<Q", argument, 72)[0]
    for _ in range(count):
        following, _, status = struct.unpack_from("<QII", argument, at)
        found.append(error_named(status))
        at = following
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([(1234, 24)], ["EOPNOTSUPP"]),
        ([(6, 24)], ["EOPNOTSUPP"]),
        ([(0, 24)], ["EINVAL"]),
        ([(abi.NETMAP_REQ_OPT_EXTMEM, 96)], ["EOPNOTSUPP"]),
        ([(abi.NETMAP_REQ_OPT_EXTMEM, 96)] * 2, ["EINVAL", "EINVAL"]),
        ([(abi.NETMAP_REQ_OPT_CSB, 40)] * 2, ["EINVAL", "EINVAL"]),
        ([(abi.NETMAP_REQ_OPT_OFFSETS, 56), (1234, 24)], ["EOPNOTSUPP", "EOPNOTSUPP"]),
        ([(abi.NETMAP_REQ_OPT_SYNC_KLOOP_MODE, 32)], ["EOPNOTSUPP"]),
    ],
)
def test_an_option_that_nobody_takes_undoes_the_registration(netmapd, error_named, options, expected):
    client = netmapd.client()
    reply = client.ioctl(abi.NIOCCTRL, register_argument(*options))

    assert reply.name == expected[0]
    assert statuses(reply.argument, len(options), error_named) == expected
    assert listing(client) == []
    assert client.register("vale0:a").errno == 0


def test_an_endless_list_of_options_is_emsgsize(netmapd):
    argument = bytearray(register_argument((1234, 24)))
    struct.pack_into("<Q", argument, 144, 144)

    assert netmapd.client().ioctl(abi.NIOCCTRL, bytes(argument)).name == "EMSGSIZE"


def test_options_of_requests_that_are_refused_have_their_statuses(netmapd, error_named):
    argument = bytearray(register_argument((1234, 24)))
    struct.pack_into("<I", argument, 88 + 36, 99)  # no such mode
    reply = netmapd.client().ioctl(abi.NIOCCTRL, bytes(argument))

    assert reply.name == "EINVAL"
    assert statuses(reply.argument, 1, error_named) == ["EOPNOTSUPP"]


@pytest.mark.parametrize(
    ("offset", "layout", "value", "expected"),
    [
        (0, "<H", 13, "EINVAL"),
        (0, "<H", 16, "EINVAL"),
        (2, "<H", 0, "EINVAL"),
        (2, "<H", 16, "EINVAL"),
        (2, "<H", 0xFFFF, "EINVAL"),
        (4, "<I", 1, "EINVAL"),
        (80, "<Q", 0, "EINVAL"),
        (80, "<Q", 1 << 40, "EFAULT"),
        (72, "<Q", 1 << 40, "EFAULT"),
        (72, "<Q", 81, "EINVAL"),
        (8, "<64s", b"x" * 64, "EINVAL"),
        (8, "<64s", b"\xff\xfe", "EINVAL"),
    ],
)
def test_a_header_that_cannot_be_is_refused_and_the_connection_goes_on(netmapd, offset, layout, value, expected):
    client = netmapd.client()
    argument = bytearray(register_argument())
    struct.pack_into(layout, argument, offset, value)

    assert client.ioctl(abi.NIOCCTRL, bytes(argument)).name == expected
    assert client.register("vale0:a").errno == 0


def test_api_15_is_served(netmapd):
    request = Request(R.NETMAP_REQ_REGISTER, "vale0:a", {"nr_mode": abi.NR_REG_ALL_NIC}, version=15)

    assert netmapd.client().ask(request).errno == 0


@pytest.mark.parametrize(("ioctl", "size"), [(abi.NIOCTXSYNC, 0), (abi.NIOCRXSYNC, 0), (abi.NIOCCONFIG, 272)])
def test_ioctls_that_are_no_messages_are_refused(netmapd, ioctl, size):
    client = netmapd.client()

    assert client.ioctl(ioctl, bytes(size)).name == "EOPNOTSUPP"
    assert client.register("vale0:a").errno == 0


# -- information -------------------------------------------------------------------------------------------------------


def test_port_info_of_a_port_that_does_not_exist_makes_none(netmapd):
    client = netmapd.client()
    info = client.request(R.NETMAP_REQ_PORT_INFO_GET, "vale3:eph", nr_tx_slots=64).fields

    assert (info["nr_tx_slots"], info["nr_rx_slots"], info["nr_tx_rings"]) == (64, 1024, 1)
    assert info["nr_memsize"] > 0
    assert listing(client) == []


@pytest.mark.parametrize("name", ["vale0:a}pipeid3", "per9}x"])
def test_port_info_of_a_pipe_makes_neither_pipe_nor_parent(netmapd, name):
    client = netmapd.client()

    assert client.request(R.NETMAP_REQ_PORT_INFO_GET, name).fields["nr_memsize"] > 0
    assert listing(client) == []
    assert client.register(name.split("}")[0].replace("vale0:a", "nosuch")).name == "ENXIO"


def test_port_info_tells_what_a_registration_would(netmapd):
    bound = netmapd.client().register("vale0:a", nr_tx_rings=2).fields
    info = netmapd.client().request(R.NETMAP_REQ_PORT_INFO_GET, "vale0:a", nr_tx_rings=9).fields

    shared = set(bound) & set(info)
    assert {key: info[key] for key in shared} == {key: bound[key] for key in shared}


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [("nosuch0", {}, "ENXIO"), ("vale0:a", {"nr_mem_id": 9999}, "EINVAL"), ("", {"nr_mem_id": 9999}, "EINVAL")],
)
def test_port_info_that_cannot_be_had(netmapd, name, body, expected):
    assert netmapd.client().request(R.NETMAP_REQ_PORT_INFO_GET, name, **body).name == expected


def test_port_info_with_the_id_of_other_memory_is_refused(netmapd):
    netmapd.client().register("vale0:a")

    assert netmapd.client().request(R.NETMAP_REQ_PORT_INFO_GET, "vale0:a", nr_mem_id=1).name == "EINVAL"


def test_port_info_without_a_name_is_about_memory(netmapd):
    info = netmapd.client().request(R.NETMAP_REQ_PORT_INFO_GET).fields

    assert info["nr_memsize"] > 0
    assert info["nr_mem_id"] == 1


def check_pools(fields, mem_id):
    assert fields["nr_mem_id"] == mem_id
    for pool in ("if", "ring", "buf"):
        assert fields[f"nr_{pool}_pool_objtotal"] > 0
        assert fields[f"nr_{pool}_pool_objsize"] > 0
    assert fields["nr_if_pool_offset"] == 0
    assert fields["nr_buf_pool_offset"] > fields["nr_ring_pool_offset"] > 0
    end = fields["nr_buf_pool_offset"] + fields["nr_buf_pool_objtotal"] * fields["nr_buf_pool_objsize"]
    assert end <= fields["nr_memsize"]


def test_pools_info_of_a_port_before_and_after_it_exists(netmapd):
    client = netmapd.client()
    before = client.request(R.NETMAP_REQ_POOLS_INFO_GET, "vale0:a").fields
    mem_id = client.register("vale0:a").fields["nr_mem_id"]

    check_pools(before, before["nr_mem_id"])
    check_pools(client.request(R.NETMAP_REQ_POOLS_INFO_GET, "vale0:a").fields, mem_id)
    check_pools(client.request(R.NETMAP_REQ_POOLS_INFO_GET).fields, mem_id)
    check_pools(netmapd.client().request(R.NETMAP_REQ_POOLS_INFO_GET, "vale0:a").fields, mem_id)
    assert client.request(R.NETMAP_REQ_POOLS_INFO_GET, "vale0:a", nr_mem_id=1).name == "EINVAL"


def test_pools_info_of_a_pipe(netmapd):
    fields = netmapd.client().request(R.NETMAP_REQ_POOLS_INFO_GET, "vale0:a{xid").fields

    check_pools(fields, fields["nr_mem_id"])


def test_pools_info_of_nothing_is_refused(netmapd):
    client = netmapd.client()

    assert client.request(R.NETMAP_REQ_POOLS_INFO_GET).name == "ENXIO"
    assert client.request(R.NETMAP_REQ_POOLS_INFO_GET, "nosuch0").name == "ENXIO"


# -- switches ----------------------------------------------------------------------------------------------------------


def test_the_listing_has_every_port_of_every_switch_once(netmapd):
    for name in ("vale0:a", "vale1:x", "vale0:b"):
        netmapd.client().register(name)

    assert listing(netmapd.client()) == ["vale0:a", "vale0:b", "vale1:x"]


def test_a_port_or_a_switch_can_be_looked_up(netmapd):
    netmapd.client().register("vale0:a")
    netmapd.client().register("vale1:x")
    client = netmapd.client()

    def indices(name):
        fields = client.request(R.NETMAP_REQ_VALE_LIST, name).fields
        return fields["nr_bridge_idx"], fields["nr_port_idx"]

    assert indices("vale1:x") == (1, 0)
    assert indices("vale0:") == (0, 255)
    assert client.request(R.NETMAP_REQ_VALE_LIST, "vale5:").name == "ENOENT"
    assert client.request(R.NETMAP_REQ_VALE_LIST, "eth0").name == "EINVAL"


def test_a_persistent_port_lives_as_upstreams(netmapd, persistent):
    client = netmapd.client()
    attach = {"reg": {"nr_mode": abi.NR_REG_ALL_NIC}}
    attached = client.request(R.NETMAP_REQ_VALE_ATTACH, "vale0:per4", **attach).fields

    assert attached["reg"]["nr_mem_id"] > 1
    assert attached["reg"]["nr_flags"] == 0
    assert listing(client) == ["vale0:per4"]
    assert client.request(R.NETMAP_REQ_VALE_NEWIF, "per4").name == "EEXIST"
    assert client.request(R.NETMAP_REQ_VALE_DELIF, "per4").name == "EBUSY"
    assert client.request(R.NETMAP_REQ_VALE_ATTACH, "vale0:per4", **attach).name == "EBUSY"
    assert client.request(R.NETMAP_REQ_VALE_DETACH, "vale0:per4").fields["port_index"] == attached["port_index"]
    assert client.request(R.NETMAP_REQ_VALE_DETACH, "vale0:per4").name == "ENXIO"
    assert client.request(R.NETMAP_REQ_VALE_DELIF, "per4").errno == 0
    assert client.request(R.NETMAP_REQ_VALE_DELIF, "per4").name == "ENXIO"
    assert client.request(R.NETMAP_REQ_VALE_ATTACH, "vale0:per4", **attach).name == "ENXIO"


def test_a_persistent_port_joins_two_switches_and_is_nobodys_then(netmapd, persistent):
    client = netmapd.client()
    attach = {"reg": {"nr_mode": abi.NR_REG_ALL_NIC}}

    assert client.request(R.NETMAP_REQ_VALE_ATTACH, "vale0:per4", **attach).errno == 0
    assert client.request(R.NETMAP_REQ_VALE_ATTACH, "vale1:per4", **attach).errno == 0
    assert client.request(R.NETMAP_REQ_VALE_ATTACH, "vale2:per4", **attach).name == "EBUSY"
    assert client.register("per4").name == "EBUSY"
    assert client.request(R.NETMAP_REQ_VALE_DETACH, "vale0:per4").name == "EBUSY"
    assert client.request(R.NETMAP_REQ_VALE_DETACH, "vale1:per4").errno == 0
    assert client.request(R.NETMAP_REQ_VALE_DETACH, "vale0:per4").errno == 0


def test_a_persistent_port_is_what_was_asked_for_and_outlives_who_asked(netmapd):
    client = netmapd.client()
    asked = {"nr_tx_slots": 128, "nr_rx_slots": 64, "nr_tx_rings": 2, "nr_rx_rings": 1}
    made = client.request(R.NETMAP_REQ_VALE_NEWIF, "per5", **asked).fields
    client.close()
    client = netmapd.client()
    try:
        assert {key: made[key] for key in asked} == asked
        bound = client.register("per5").fields
        assert {key: bound[key] for key in (*asked, "nr_mem_id")} == {**asked, "nr_mem_id": made["nr_mem_id"]}
        assert netmapd.client().request(R.NETMAP_REQ_VALE_DELIF, "per5").name == "EBUSY"
    finally:
        client.close()
        client = netmapd.client()
        while client.request(R.NETMAP_REQ_VALE_DELIF, "per5").name == "EBUSY":
            pass


@pytest.mark.parametrize(
    ("reqtype", "name", "body", "expected"),
    [
        (R.NETMAP_REQ_VALE_NEWIF, "vale0:x", {}, "EINVAL"),
        (R.NETMAP_REQ_VALE_NEWIF, "sixteencharacter", {}, "EINVAL"),
        (R.NETMAP_REQ_VALE_NEWIF, "a{1", {}, "EINVAL"),
        (R.NETMAP_REQ_VALE_NEWIF, "", {}, "EINVAL"),
        (R.NETMAP_REQ_VALE_NEWIF, "x", {"nr_mem_id": 999}, "EINVAL"),
        (R.NETMAP_REQ_VALE_DELIF, "nosuch", {}, "ENXIO"),
        (R.NETMAP_REQ_VALE_DELIF, "", {}, "ENXIO"),
        (R.NETMAP_REQ_VALE_ATTACH, "eth0", {"reg": {"nr_mode": 1}}, "EINVAL"),
        (R.NETMAP_REQ_VALE_ATTACH, "vale0:nosuch", {"reg": {"nr_mode": 1}}, "ENXIO"),
        (R.NETMAP_REQ_VALE_ATTACH, "vale0:nosuch", {"reg": {"nr_mode": 4}}, "EINVAL"),
        (R.NETMAP_REQ_VALE_ATTACH, "vale0:nosuch", {"reg": {"nr_mode": 1, "nr_ringid": 1}}, "EINVAL"),
        (R.NETMAP_REQ_VALE_ATTACH, "vale0:nosuch", {"reg": {"nr_mode": 3}}, "EINVAL"),
        (R.NETMAP_REQ_VALE_DETACH, "eth0", {}, "EINVAL"),
        (R.NETMAP_REQ_VALE_DETACH, "vale0:nosuch", {}, "ENXIO"),
        (R.NETMAP_REQ_PORT_HDR_SET, "vale0:a", {"nr_hdr_len": 11}, "EINVAL"),
        (R.NETMAP_REQ_PORT_HDR_SET, "nosuch", {"nr_hdr_len": 12}, "ENXIO"),
        (R.NETMAP_REQ_PORT_HDR_GET, "nosuch", {}, "ENXIO"),
        (R.NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:a", {"nr_mode": 1, "nr_num_polling_cpus": 0}, "EINVAL"),
        (R.NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:a", {"nr_mode": 1, "nr_num_polling_cpus": 2}, "EINVAL"),
        (R.NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:a", {"nr_mode": 9, "nr_num_polling_cpus": 1}, "EINVAL"),
        (R.NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:a", {"nr_mode": 1, "nr_num_polling_cpus": 1}, "EOPNOTSUPP"),
        (R.NETMAP_REQ_VALE_POLLING_DISABLE, "vale0:a", {}, "EOPNOTSUPP"),
    ],
)
def test_control_requests_that_cannot_be_have_upstreams_errno(netmapd, reqtype, name, body, expected):
    netmapd.client().register("vale0:a")

    assert netmapd.client().request(reqtype, name, **body).name == expected


def test_an_ephemeral_port_cannot_be_detached(netmapd):
    netmapd.client().register("vale0:a")

    assert netmapd.client().request(R.NETMAP_REQ_VALE_DETACH, "vale0:a").name == "EINVAL"


def test_opening_a_persistent_port_on_a_switch_it_is_not_on_is_refused(netmapd, persistent):
    assert netmapd.client().register("vale0:per4").name == "EINVAL"


def test_header_lengths_are_set_and_kept(netmapd):
    client = netmapd.client()
    client.register("vale0:eph0")
    for length in (12, 0, 10):
        assert client.request(R.NETMAP_REQ_PORT_HDR_SET, "vale0:eph0", nr_hdr_len=length).fields["nr_hdr_len"] == length
        assert client.request(R.NETMAP_REQ_PORT_HDR_GET, "vale0:eph0").fields["nr_hdr_len"] == length


def test_a_port_with_a_header_is_for_those_who_expect_one(netmapd):
    netmapd.client().register("vale0:a")
    client = netmapd.client()
    client.request(R.NETMAP_REQ_PORT_HDR_SET, "vale0:a", nr_hdr_len=12)

    assert client.register("vale0:a").name == "EIO"
    assert client.register("vale0:a", nr_flags=abi.NR_ACCEPT_VNET_HDR).errno == 0


def test_the_header_of_a_pipe_is_enxio(netmapd):
    netmapd.client().register("vale0:a{1")

    assert netmapd.client().request(R.NETMAP_REQ_PORT_HDR_SET, "vale0:a{1", nr_hdr_len=12).name == "ENXIO"


# -- legacy requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "answered", "flags"), [(11, 11, 0), (12, 11, 1), (14, 14, 1), (16, 16, 1), (11, 11, 1)]
)
def test_a_legacy_registration_is_answered_byte_for_byte(netmapd, version, answered, flags):
    argument = nmreq(b"vale0:a", version, flags=flags, tx_slots=64, arg3=20)
    reply = netmapd.client().ioctl(abi.NIOCREGIF, argument)

    assert reply.errno == 0, reply.text
    found = unpack(reply.argument)
    info = netmapd.client().request(R.NETMAP_REQ_PORT_INFO_GET, "vale0:a").fields
    assert found == {
        "name": b"vale0:a".ljust(16, b"\0"),
        "version": answered,
        "offset": found["offset"],
        "memsize": info["nr_memsize"],
        "tx_slots": 64,
        "rx_slots": 1024,
        "tx_rings": 1,
        "rx_rings": 1,
        "ringid": 0,
        "cmd": 0,
        "arg1": 0,
        "arg2": info["nr_mem_id"],
        "arg3": 20,
        "flags": flags,
    }
    assert len(reply.fds) == 1


@pytest.mark.parametrize("version", [0, 10, 4])
def test_a_legacy_registration_older_than_11_is_refused_byte_for_byte(netmapd, version):
    argument = nmreq(b"vale0:a", version)
    reply = netmapd.client().ioctl(abi.NIOCREGIF, argument)

    assert reply.name == "EINVAL"
    assert reply.argument in (b"", argument)


def test_a_legacy_refusal_of_2015_says_11(netmapd):
    reply = netmapd.client().ioctl(abi.NIOCREGIF, nmreq(b"nosuch", 12))

    assert reply.name == "ENXIO"
    assert unpack(reply.argument)["version"] == 11


@pytest.mark.parametrize(("mode", "there"), [(5, "vale0:a{3"), (6, "vale0:a}3")])
def test_legacy_pipe_modes_are_names(netmapd, mode, there):
    reply = netmapd.client().ioctl(abi.NIOCREGIF, nmreq(b"vale0:a", 11, flags=mode, ringid=3))

    assert reply.errno == 0
    assert unpack(reply.argument)["name"].rstrip(b"\0") == b"vale0:a"
    assert netmapd.client().request(extension.PORT_STATS, there).fields["is_pipe"] == 1


def test_legacy_host_rings_are_refused(netmapd):
    client = netmapd.client()

    assert client.ioctl(abi.NIOCREGIF, nmreq(b"vale0:a", 11, flags=2)).name == "EINVAL"
    assert client.ioctl(abi.NIOCREGIF, nmreq(b"vale0:a", 16, flags=3)).name == "EINVAL"
    assert client.ioctl(abi.NIOCREGIF, nmreq(b"vale0:a", 11, ringid=abi.NETMAP_SW_RING)).name == "EINVAL"


def test_legacy_port_information(netmapd):
    netmapd.client().register("vale0:a", nr_tx_slots=64)
    reply = netmapd.client().ioctl(abi.NIOCGINFO, nmreq(b"vale0:a", 11))

    found = unpack(reply.argument)
    assert (found["version"], found["tx_slots"], found["rx_slots"], found["tx_rings"]) == (11, 64, 1024, 1)
    assert found["memsize"] > 0
    assert found["arg2"] > 1


def test_legacy_listing_and_persistent_ports(netmapd, persistent):
    client = netmapd.client()
    name = b"vale0:per4"
    answers = [
        client.ioctl(abi.NIOCREGIF, nmreq(name, 11, abi.NETMAP_BDG_ATTACH)),
        client.ioctl(abi.NIOCGINFO, nmreq(b"", 11, abi.NETMAP_BDG_LIST)),
        client.ioctl(abi.NIOCGINFO, nmreq(b"", 11, abi.NETMAP_BDG_LIST, arg2=1)),
        client.ioctl(abi.NIOCREGIF, nmreq(name, 11, abi.NETMAP_BDG_VNET_HDR, arg1=12)),
        client.ioctl(abi.NIOCREGIF, nmreq(name, 14, abi.NETMAP_VNET_HDR_GET)),
        client.ioctl(abi.NIOCREGIF, nmreq(name, 11, abi.NETMAP_BDG_DETACH)),
        client.ioctl(abi.NIOCREGIF, nmreq(b"per4", 11, abi.NETMAP_BDG_NEWIF)),
        client.ioctl(abi.NIOCREGIF, nmreq(b"per4", 11, abi.NETMAP_BDG_DELIF)),
        client.ioctl(abi.NIOCREGIF, nmreq(b"per4", 11, abi.NETMAP_PT_HOST_CREATE)),
        client.ioctl(abi.NIOCREGIF, nmreq(name, 11, abi.NETMAP_BDG_ATTACH, arg1=abi.NETMAP_BDG_HOST)),
    ]

    assert [answer.name for answer in answers] == [
        *("OK", "OK", "ENOENT", "OK", "OK", "OK", "EEXIST", "OK", "EINVAL", "EINVAL")
    ]
    assert unpack(answers[1].argument)["name"].rstrip(b"\0") == name
    assert unpack(answers[4].argument)["arg1"] == 12


# -- requests of our own -----------------------------------------------------------------------------------------------


def test_what_is_asked_of_nothing_bound_is_enxio(netmapd):
    client = netmapd.client()
    empty = [
        Request(R.NETMAP_REQ_SYNC_KLOOP_START, "", {}),
        Request(R.NETMAP_REQ_SYNC_KLOOP_STOP),
        Request(R.NETMAP_REQ_CSB_ENABLE, options={abi.NETMAP_REQ_OPT_CSB: {}}),
        Request(extension.BINDING, "", {"room": 4096}),
        Request(extension.NOTIFIERS, "", {"count": 1}),
        Request(extension.LOSSLESS_SET, "", {"on": 1}),
        Request(extension.LOSSLESS_GET, "", {}),
        Request(extension.PORT_STATS, "", {}),
        Request(extension.PORT_STATS, "nosuch", {}),
        Request(extension.KTHREAD_MOVE, "nosuch", {}),
        Request(extension.AGEING_SET, "vale7", {"seconds": 1}),
        Request(extension.LEARNED, "vale7", {"room": 4096}),
    ]

    assert {request.reqtype: client.ask(request).name for request in empty} == {
        request.reqtype: "ENXIO" for request in empty
    }


def test_texts_are_read_page_by_page_to_the_same_end(netmapd):
    clients = [netmapd.client() for _ in range(5)]
    for i, client in enumerate(clients):
        client.register(f"vale0:{i}")

    def ask(number, name, body):
        return netmapd.client().request(number, name, **body).fields

    whole = extension.introspect(ask, extension.PORT_LIST)
    slow, pages = netmapd.client(), b""
    while True:
        fields = slow.request(extension.PORT_LIST, offset=len(pages), room=100).fields
        pages += fields["text"]
        if len(pages) == fields["total"]:
            break
    assert extension.introspect(lambda *_: {"total": len(pages), "text": pages}, 0) == whole
    assert sorted(port["name"] for port in whole) == [f"vale0:{i}" for i in range(5)]
    assert slow.request(extension.PORT_LIST, offset=1, room=100).name == "ESTALE"
    assert slow.request(extension.PORT_LIST).name == "EINVAL"


@pytest.mark.parametrize("number", [0x8000, 0x800D, 0x8FFF])
def test_requests_of_our_own_that_do_not_exist_are_refused(netmapd, number):
    argument = struct.pack("<HHI64sQQ", 14, number, 0, b"", 0, 0)

    assert netmapd.client().ioctl(abi.NIOCCTRL, argument).name == "EINVAL"


@pytest.mark.parametrize("window", [(0, 0), (2, 1), (5, 1), (0xFFFFFFFF, 0xFFFFFFFF), (0, 0xFFFFFFFF), (1, 1)])
def test_notifiers_come_for_rings_that_there_are(netmapd, window):
    client = netmapd.client()
    client.register("vale0:a")
    first, count = window
    reply = client.request(extension.NOTIFIERS, first=first, count=count)

    expected = len([0, 1][first : first + min(count, 100)])
    assert (reply.fields["count"], len(reply.fds)) == (expected, 2 * expected)


def test_a_null_port_and_its_requests_of_our_own(netmapd):
    owner = netmapd.client().register("vale0:a").fields["nr_mem_id"]
    client = netmapd.client()
    client.register("", nr_mode=abi.NR_REG_NULL, nr_mem_id=owner, nr_tx_rings=1, nr_rx_rings=1)

    assert client.request(extension.BINDING, room=8192).errno == 0
    assert client.request(extension.NOTIFIERS, count=2).errno in (0, errno.ENXIO)
    assert client.request(extension.PORT_STATS).errno == 0
    assert client.request(extension.LOSSLESS_SET, on=1).name == "EOPNOTSUPP"
    assert netmapd.client().request(extension.PORT_LIST, room=30000).errno == 0
    assert netmapd.client().request(extension.TOP, room=30000).errno == 0


def test_a_port_moves_between_the_kthreads_there_are(netmapd):
    client = netmapd.client()
    client.register("vale0:a")
    before = client.request(extension.KTHREAD_MOVE, "vale0:a", kthread=1).fields["kthread"]

    assert before in (0, 1)
    assert client.request(extension.KTHREAD_MOVE, "vale0:a", kthread=before).fields["kthread"] == 1
    assert client.request(extension.KTHREAD_MOVE, "vale0:a", kthread=2).name == "EINVAL"
    netmapd.client().register("vale0:a{1")
    assert client.request(extension.KTHREAD_MOVE, "vale0:a{1", kthread=0).name == "EINVAL"
