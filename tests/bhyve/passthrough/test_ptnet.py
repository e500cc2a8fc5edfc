# SPDX-License-Identifier: BSD-2-Clause
import errno
import hashlib
import logging
import sys

import pytest

from ptnetmap.abi import pci, ptnet
from ptnetmap.abi.netmap.csb import nm_csb_atok
from ptnetmap.bhyve import devices
from ptnetmap.bhyve.passthrough.mock import FIRST_DATA, MESSAGE, MockMemory
from ptnetmap.bhyve.pci.device import DEVICES
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import ConfigError

CSB = 0x10000
ENTRY = nm_csb_atok.itemsize
RAM = 16 << 20
CREATE, DELETE = ptnet.PTNETMAP_PTCTL_CREATE, ptnet.PTNETMAP_PTCTL_DELETE


def messages(machine):
    machine.host.interrupts.poll()
    return machine.host.interrupts.messages


# --- what a driver reads


def test_it_is_found_by_upstreams_ids_and_bars(pair):
    guest = pair.ptnet()
    identity = [pair.bus.read_config(guest.place, at, 4) for at in (pci.PCIR_VENDOR, pci.PCIR_REVID)]
    assert identity == [0x000D_1B36, 0x0200_0000]
    assert pair.bus.read_config(guest.place, pci.PCIR_BARS, 4) & 3 == pci.PCIM_BAR_IO_SPACE
    assert pair.device("4").bars[0].size == 256
    assert pair.device("4").msix.bar == 2
    assert len(pair.device("4").msix.vectors) == 2


def test_its_registers_describe_the_port(pair, netmapd):
    guest = pair.ptnet()
    mac = bytes.fromhex("00a098") + hashlib.md5(b"4-0-testvm").digest()[:3]
    netmap = pair.device("4").port.netmap
    registers = {name: guest.read(getattr(ptnet, f"PTNET_IO_{name}")) for name in NAMES}
    assert registers == {
        "PTFEAT": 0,
        "PTCTL": 0,
        "MAC_LO": int.from_bytes(mac[2:], "big"),
        "MAC_HI": int.from_bytes(mac[:2], "big"),
        "CSBBAH": 0,
        "CSBBAL": 0,
        "NIFP_OFS": netmap.nifp_offset,
        "NUM_TX_RINGS": 1,
        "NUM_RX_RINGS": 1,
        "NUM_TX_SLOTS": 1024,
        "NUM_RX_SLOTS": 1024,
        "VNET_HDR_LEN": 0,
        "HOSTMEMID": netmap.mem_id,
        "CSB_GH_BAH": 0,
        "CSB_GH_BAL": 0,
        "CSB_HG_BAH": 0,
        "CSB_HG_BAL": 0,
    }


NAMES = (
    *("PTFEAT", "PTCTL", "MAC_LO", "MAC_HI", "CSBBAH", "CSBBAL", "NIFP_OFS", "NUM_TX_RINGS", "NUM_RX_RINGS"),
    *("NUM_TX_SLOTS", "NUM_RX_SLOTS", "VNET_HDR_LEN", "HOSTMEMID"),
    *("CSB_GH_BAH", "CSB_GH_BAL", "CSB_HG_BAH", "CSB_HG_BAL"),
)


def test_a_mac_address_can_be_asked_for(machine):
    guest = machine({"4": "ptnet,ptvale1:1,mac=02:0a:0b:0c:0d:0e"}).ptnet()
    assert (guest.read(ptnet.PTNET_IO_MAC_HI), guest.read(ptnet.PTNET_IO_MAC_LO)) == (0x020A, 0x0B0C0D0E)


@pytest.mark.parametrize(
    "mac", ["", "02:00:00:00:00", "03:00:00:00:00:01", "00:00:00:00:00:00", "02-0-0-0-0-1", "g:0:0:0:0:0"]
)
def test_a_mac_address_that_is_none_is_refused(machine, mac):
    with pytest.raises(ConfigError, match="Invalid MAC address"):
        machine({"4": f"ptnet,ptvale1:1,mac={mac}"})


@pytest.mark.parametrize("backend", ["", "vale1:1", "tap0", "null", "netmap:x"])
def test_it_needs_a_port_to_pass_through(machine, backend):
    with pytest.raises(ConfigError, match="ptvaleX:Y"):
        machine({"4": f"ptnet,{backend}"})


# --- rings, kicks and interrupts


def test_the_csb_says_where_the_rings_stand(pair):
    guest = pair.ptnet()
    assert guest.create(CSB) == 0
    fields = ("head", "cur", "hwcur", "hwtail", "appl_need_kick", "kern_need_kick")
    assert [guest.tx[0].get(name) for name in fields] == [0, 0, 0, 1023, 1, 1]
    assert [guest.rx[0].get(name) for name in fields[:-1]] == [0, 0, 0, 0, 1]


def test_packets_pass_between_guest_and_host(pair, peer, frame, patiently):
    host = peer("vale1:2")
    guest = pair.ptnet()
    assert guest.create(CSB) == 0
    for i in range(5):
        assert guest.tx[0].send([frame(1, i)]) == 1
        assert host.recv(timeout=30) == [frame(1, i)]
        host.send([frame(2, i)])
        assert patiently(guest.rx[0].receive, "a frame") == [frame(2, i)]


def test_interrupts_name_the_ring_and_come_only_if_wanted(pair, peer, frame, patiently):
    host, guest = peer("vale1:2"), pair.ptnet()
    assert guest.create(CSB) == 0
    guest.tx[0].told["appl_need_kick"][0] = 0
    host.send([frame(2)])
    patiently(lambda: (MESSAGE, FIRST_DATA + 1) in messages(pair), "an interrupt of the RX ring")
    assert guest.rx[0].receive() == [frame(2)]
    guest.rx[0].told["appl_need_kick"][0] = 0
    before = len(messages(pair))
    host.send([frame(2)])
    assert patiently(guest.rx[0].receive, "a frame") == [frame(2)]
    assert len(messages(pair)) == before
    guest.tx[0].told["appl_need_kick"][0] = 1
    guest.tx[0].send([frame(1)])
    patiently(lambda: (MESSAGE, FIRST_DATA) in messages(pair), "an interrupt of the TX ring")


def test_kicks_go_from_the_guest_to_a_kthread(pair):
    [group] = [group for group in pair.host.vm.groups if group.kind == "port"]
    assert [(one["offset"], one["size"], one["mask"]) for one in group.members] == [(128, 4, 0), (132, 4, 0)]
    assert group.base == pair.ptnet().bar(0)
    pair.bus.write_config(Function(0, 4, 0), pci.PCIR_BARS, 4, 0x9000)
    assert group.base == 0x9000


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_kick_that_comes_out_of_the_guest_arrives_all_the_same(pair, peer, frame, patiently, size):
    host, guest = peer("vale1:2"), pair.ptnet()
    assert guest.create(CSB) == 0
    ring = guest.tx[0]
    patiently(lambda: ring.get("kern_need_kick"), "rest")
    ring._kick = (ring._kick[0], 0, size)
    ring.send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]


@pytest.mark.parametrize("rings", [1, 2, 16])
def test_a_guest_has_all_rings_of_its_port(machine, peer, frame, patiently, rings):
    one = machine({"3": "ptnetmap-memdev", "4": f"ptnet,ptvale1:1@conf:rings={rings}"})
    host = peer("vale1:2")
    guest = one.ptnet()
    assert (guest.tx_count, guest.rx_count) == (rings, rings)
    assert guest.create(CSB) == 0
    for i, ring in enumerate(guest.tx):
        ring.send([frame(1, i)])
        assert host.recv(timeout=30) == [frame(1, i)]
    patiently(lambda: len({data for _, data in messages(one) if data < FIRST_DATA + rings}) == rings, "interrupts")


def test_more_rings_than_a_guest_can_have_are_refused(machine, monkeypatch):
    devices.load()
    monkeypatch.setattr(sys.modules[DEVICES["ptnet"].__module__], "MAX_RINGS", 4)
    with pytest.raises(ConfigError, match="5 TX and 5 RX rings"):
        machine({"4": "ptnet,ptnetmap:x{1@conf:rings=5"})
    machine({"4": "ptnet,ptnetmap:x{1@conf:rings=4"})


@pytest.mark.parametrize("length", [10, 12])
def test_a_guest_can_have_virtio_net_headers(pair, peer, frame, patiently, length):
    host, guest = peer("vale1:2"), pair.ptnet()
    assert guest.create(CSB, header=length) == 0
    assert guest.read(ptnet.PTNET_IO_VNET_HDR_LEN) == length
    guest.tx[0].send([bytes(length) + frame(1)])
    assert host.recv(timeout=30) == [frame(1)]
    host.send([frame(2)])
    [received] = patiently(guest.rx[0].receive, "a frame")
    assert received[length:] == frame(2)
    pair.bus.reset()
    assert guest.read(ptnet.PTNET_IO_VNET_HDR_LEN) == 0


@pytest.mark.parametrize(("features", "length"), [(0, 12), (1, 1), (1, 11), (1, 0xFFFFFFFF)])
def test_a_header_that_cannot_be_leaves_it_as_it_was(pair, features, length):
    guest = pair.ptnet()
    guest.write(ptnet.PTNET_IO_PTFEAT, features)
    guest.write(ptnet.PTNET_IO_VNET_HDR_LEN, length)
    assert guest.read(ptnet.PTNET_IO_VNET_HDR_LEN) == 0


def test_a_pipe_offers_no_headers(machine):
    guest = machine({"4": "ptnet,ptnetmap:x{1"}).ptnet()
    guest.write(ptnet.PTNET_IO_PTFEAT, ptnet.PTNETMAP_F_VNET_HDR)
    assert guest.read(ptnet.PTNET_IO_PTFEAT) == 0


# --- what a guest does wrong


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (0, errno.EINVAL),
        (CSB + 4, errno.EINVAL),
        (CSB + 32, errno.EINVAL),
        (RAM, errno.EFAULT),
        (RAM - ENTRY, errno.EFAULT),
        (0xFFFFFFFF_FFFFFFC0, errno.EFAULT),
        (1 << 47, errno.EFAULT),
        ("the memdev's BAR", errno.EFAULT),
        ("its own BAR", errno.EFAULT),
    ],
)
def test_a_csb_that_cannot_be_is_refused_and_a_right_one_works_then(pair, part, address, expected):
    guest = pair.ptnet()
    memdev = MockMemory(pair.bus, guest.read(ptnet.PTNET_IO_HOSTMEMID)).registers
    named = {"the memdev's BAR": memdev.bar(1), "its own BAR": guest.bar(2)}
    places = [CSB, CSB]
    places[part] = named.get(address, address)
    guest.set_csb(*places)
    assert guest.command(CREATE) == expected
    assert guest.create(CSB) == 0


def test_the_last_bytes_of_memory_are_memory(pair):
    guest = pair.ptnet()
    guest.set_csb(RAM - 2 * ENTRY, RAM - 2 * ENTRY)
    assert guest.command(CREATE) == 0


def test_starting_twice_is_refused_and_stopping_twice_does_nothing(pair, peer, frame):
    host, guest = peer("vale1:2"), pair.ptnet()
    assert [guest.delete(), guest.delete()] == [0, 0]
    assert guest.create(CSB) == 0
    assert guest.command(CREATE) == errno.EBUSY
    guest.tx[0].send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]
    assert [guest.delete(), guest.delete()] == [0, 0]


def test_a_guest_that_asks_for_what_cannot_be_for_ever_is_told_of_once(pair, caplog):
    guest = pair.ptnet()
    guest.set_csb(RAM, RAM)
    with caplog.at_level(logging.WARNING):
        assert [guest.command(CREATE) for _ in range(50)] == [errno.EFAULT] * 50
    assert (len(caplog.records), pair.device("4").port.refusals) == (1, 50)


@pytest.mark.parametrize("command", [0, 3, 12, 0xFFFFFFFF])
def test_an_unknown_command_is_refused(pair, command):
    assert pair.ptnet().command(command) == errno.EINVAL


def test_a_new_place_for_the_csb_stops_what_runs(pair, netmapd):
    guest = pair.ptnet()
    assert guest.create(CSB) == 0
    assert netmapd.served() == {"vale1:1"}
    guest.set_csb(CSB, CSB + 4096)
    assert netmapd.served() == set()
    assert guest.command(CREATE) == 0


@pytest.mark.parametrize("size", [1, 2])
def test_half_a_register_is_not_written(pair, size):
    guest = pair.ptnet()
    guest.set_csb(CSB, CSB)
    guest.write(ptnet.PTNET_IO_PTCTL, CREATE, size)
    assert guest.read(ptnet.PTNET_IO_PTCTL) == 0
    assert not pair.device("4").port.served


def test_any_access_to_its_registers_leaves_a_device_that_works(pair, peer, frame):
    host, guest = peer("vale1:2"), pair.ptnet()
    for size in (1, 2, 4):
        for offset in range(257 - size):
            for value in (0, 1, (1 << 8 * size) - 1):
                guest.write(offset, value, size)
            guest.read(offset, size)
    assert guest.create(CSB) == 0
    guest.tx[0].send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]


def test_a_storm_of_kicks_holds_up_nobody(pair, peer, frame):
    guest = pair.ptnet()
    one, two = peer("vale1:2"), peer("vale1:3")
    assert guest.create(CSB) == 0
    for ring in (*guest.tx, *guest.rx):
        for _ in range(2000):
            ring.kick(always=True)
    one.send([frame(2)])
    assert two.recv(timeout=30) == [frame(2)]


@pytest.mark.parametrize("ring", ["tx", "rx"])
@pytest.mark.parametrize("index", [1024, 0x80000000, 0xFFFFFFFF])
def test_an_index_outside_the_ring_is_counted_and_put_right(pair, peer, netmapd, frame, patiently, ring, index):
    host, guest = peer("vale1:2"), pair.ptnet()
    assert guest.create(CSB) == 0
    hostile = getattr(guest, ring)[0]
    hostile.publish(index)
    hostile.kick(always=True)
    patiently(lambda: netmapd.stats("vale1:1")[ring]["reinits"], "a ring reinit")
    patiently(lambda: hostile.get("head") < hostile.n, "an index that can be")
    guest.tx[0].send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]


@pytest.mark.parametrize(("field", "value"), [("buf_idx", 0xFFFFFFFF), ("buf_idx", 1), ("len", 0xFFFF)])
def test_a_slot_that_cannot_be_is_counted_and_sends_nothing(pair, peer, netmapd, frame, patiently, field, value):
    host, guest = peer("vale1:2"), pair.ptnet()
    assert guest.create(CSB) == 0
    ring = guest.tx[0]
    ring.slots[0]["len"] = 60
    ring.slots[0][field] = value
    ring.publish(1)
    ring.send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]
    assert netmapd.stats("vale1:1")["tx"]["bad_slot"] == 1


# --- how it ends


def test_a_reset_stops_it_and_forgets_what_the_driver_said(pair, peer, netmapd, frame):
    host, guest = peer("vale1:2"), pair.ptnet()
    assert guest.create(CSB) == 0
    pair.bus.reset()
    assert netmapd.served() == {"vale1:2"}
    assert guest.read(ptnet.PTNET_IO_CSB_GH_BAL) == 0
    assert guest.command(CREATE) == errno.EINVAL
    assert guest.create(CSB + 0x4000) == 0
    guest.tx[0].send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]


def test_packets_go_on_after_a_restart_where_they_stopped(pair, peer, frame, patiently):
    host, guest = peer("vale1:2"), pair.ptnet()
    for i in range(5):
        assert guest.create(CSB + 0x4000 * i) == 0
        guest.tx[0].send([frame(1, i)])
        assert host.recv(timeout=30) == [frame(1, i)]
        host.send([frame(2, i)])
        assert patiently(guest.rx[0].receive, "a frame") == [frame(2, i)]
        patiently(lambda: guest.rx[0].get("hwcur") == guest.rx[0].get("head"), "what was given back")
        assert guest.delete() == 0


def test_a_stopped_guest_leaves_its_memory_untouched(pair, peer, frame, patiently):
    host, guest = peer("vale1:2"), pair.ptnet()
    assert guest.create(CSB) == 0
    assert guest.delete() == 0
    before = pair.host.memory.read(CSB, 8192)
    guest.tx[0].send([frame(1)])
    host.send([frame(2)])
    guest.tx[0].publish(0)
    guest.tx[0].kick(always=True)
    assert host.recv(timeout=0) == []
    assert pair.host.memory.read(CSB, 8192) == before


def test_the_port_can_be_opened_again_when_the_machine_has_gone(machine, peer):
    slots = {"3": "ptnetmap-memdev", "4": "ptnet,ptvale1:1"}
    one = machine(slots)
    assert one.ptnet().create(CSB) == 0
    with pytest.raises(ConfigError, match="net backend initialization failed"):
        machine(slots)
    one.close()
    assert machine(slots).ptnet().create(CSB) == 0


def test_a_thousand_starts_and_stops_leave_nothing(pair, netmapd):
    guest = pair.ptnet()
    assert guest.create(CSB) == 0
    assert guest.delete() == 0
    before = netmapd.census()
    assert before[1] == 0
    for _ in range(1000):
        assert guest.command(CREATE) == 0
        assert guest.command(DELETE) == 0
    assert netmapd.census() == before
    assert netmapd.served() == set()


def test_when_netmapd_goes_the_guest_reads_an_error(machine, netmapd, peer):
    one = machine({"3": "ptnetmap-memdev", "4": "ptnet,ptvale1:1"})
    guest = one.ptnet()
    assert guest.create(CSB) == 0
    netmapd.end()
    assert one.device("4").port.netmap.gone
    assert guest.delete() == 0
    assert guest.command(CREATE) == errno.ECONNRESET
    guest.tx[0].kick(always=True)
    assert guest.tx[0].buffer(2).sum() >= 0  # the memory is still there
    one.close()
    netmapd.start()
    again = machine({"3": "ptnetmap-memdev", "4": "ptnet,ptvale1:1"})
    assert again.ptnet().create(CSB) == 0
