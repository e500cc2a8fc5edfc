# SPDX-License-Identifier: BSD-2-Clause
import errno
import logging

import numpy as np
import pytest

from ptnetmap.abi import pci, ptnet
from ptnetmap.bhyve.passthrough.mock import MockMemory, Registers
from ptnetmap.bhyve.passthrough.pairing import pair as pairs
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import ConfigError

CSB = 0x10000
MEMDEV = Function(0, 3, 0)


def mem_id(machine, place):
    return machine.device(place).port.netmap.mem_id


def shown(machine, place):
    return Registers(machine.bus, Function.parse(place)).read(ptnet.PTNET_MDEV_IO_MEMID)


# --- registers and BARs


def test_it_is_found_by_upstreams_ids_and_bars(pair):
    assert pair.bus.read_config(MEMDEV, pci.PCIR_VENDOR, 4) == 0x000C_1B36
    device = pair.device("3")
    assert {number: bar.size for number, bar in device.bars.items()} == {0: 128, 1: 64 << 20}
    assert pair.bus.read_config(MEMDEV, pci.PCIR_BARS, 4) & 1 == pci.PCIM_BAR_IO_SPACE
    assert pair.bus.read_config(MEMDEV, pci.PCIR_BARS + 4, 4) & 0xF == pci.PCIM_BAR_MEM_64 | pci.PCIM_BAR_MEM_PREFETCH


def test_its_registers_describe_the_region(pair):
    memdev, netmap = Registers(pair.bus, MEMDEV), pair.device("4").port.netmap
    assert [memdev.read(at) for at in (0, 4, 8)] == [netmap.memsize, 0, netmap.mem_id]
    assert [memdev.read(at) for at in range(64, 100, 4)] == [number for pool in netmap.pools for number in pool]
    assert [memdev.read(at) for at in (12, 60, 100, 124)] == [0] * 4
    assert memdev.read(8, 2) == netmap.mem_id & 0xFFFF


def test_its_registers_cannot_be_written(pair):
    memdev = Registers(pair.bus, MEMDEV)
    before = [memdev.read(at) for at in range(0, 128, 4)]
    for at in range(128):
        memdev.write(at, 0xFF, 1)
    assert [memdev.read(at) for at in range(0, 128, 4)] == before


def test_the_guest_sees_the_ports_own_memory(pair, peer, frame):
    host, guest = peer("vale1:2"), pair.ptnet()
    memory = MockMemory(pair.bus, guest.read(ptnet.PTNET_IO_HOSTMEMID))
    [buf] = pair.host.vm.bufs
    assert (buf.gpa, buf.size) == (memory.registers.bar(1), pair.device("4").port.netmap.memsize)
    assert guest.create(CSB) == 0
    guest.tx[0].send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]
    index = int(guest.tx[0].slots[0]["buf_idx"])
    buffers = pair.device("4").port.netmap.pools[2]
    at = buf.gpa + buffers.offset + index * buffers.size
    assert pair.host.mmio.read(at + 56, 4) == int.from_bytes(frame(1)[56:], "little")


def test_the_guest_may_move_the_memory(pair, peer, frame, patiently):
    host, guest = peer("vale1:2"), pair.ptnet()
    assert guest.create(CSB) == 0
    [buf] = pair.host.vm.bufs
    for address in (0xD800000000, 0x9000000000):
        pair.bus.write_config(MEMDEV, pci.PCIR_BARS + 4, 4, address & 0xFFFFFFFF)
        pair.bus.write_config(MEMDEV, pci.PCIR_BARS + 8, 4, address >> 32)
        assert (buf.gpa, pair.host.vm.bufs) == (address, [buf])
        guest.tx[0].send([frame(1)])
        assert host.recv(timeout=30) == [frame(1)]
    pair.bus.write_config(MEMDEV, pci.PCIR_COMMAND, 2, pci.PCIM_CMD_PORTEN)
    assert pair.host.vm.bufs == []
    pair.bus.write_config(MEMDEV, pci.PCIR_COMMAND, 2, pci.PCIM_CMD_PORTEN | pci.PCIM_CMD_MEMEN)
    assert [one.gpa for one in pair.host.vm.bufs] == [0x9000000000]


def test_memory_moved_over_the_csb_is_not_reached_there(pair, peer, frame):
    host, guest = peer("vale1:2"), pair.ptnet()
    pair.bus.write_config(MEMDEV, pci.PCIR_BARS + 4, 4, 0)
    pair.bus.write_config(MEMDEV, pci.PCIR_BARS + 8, 4, 0)
    assert pair.host.vm.bufs == []
    assert guest.create(CSB) == 0
    guest.tx[0].send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]


def test_a_32_bit_bar_is_there_for_who_asks(machine):
    one = machine({"3": "ptnetmap-memdev,mem32", "4": "ptnet,ptvale1:1"})
    assert one.bus.read_config(MEMDEV, pci.PCIR_BARS + 4, 4) & 0xF == 0
    [buf] = one.host.vm.bufs
    assert 0xC0000000 <= buf.gpa < 0xE0000000


def test_memory_too_large_for_a_32_bit_bar_gets_a_64_bit_one(machine, monkeypatch):
    from ptnetmap.bhyve.devices import ptnetmap_memdev

    monkeypatch.setattr(ptnetmap_memdev, "MEM32_LIMIT", 32 << 20)
    one = machine({"3": "ptnetmap-memdev,mem32", "4": "ptnet,ptvale1:1"})
    assert one.bus.read_config(MEMDEV, pci.PCIR_BARS + 4, 4) & 0xF == 0xC


def test_an_option_that_is_none_is_refused(machine):
    with pytest.raises(ConfigError, match="mem32"):
        machine({"3": "ptnetmap-memdev,mem32=perhaps"})


# --- which memory


@pytest.mark.parametrize(
    ("memdevs", "ports", "expected"),
    [
        ("ab", [(7, "x"), (9, "y")], {"a": "x", "b": "y"}),
        ("ab", [(7, "x"), (7, "y"), (9, "z")], {"a": "x", "b": "z"}),
        ("a", [(7, "x"), (9, "y")], {"a": "x"}),
        ("ab", [(7, "x"), (7, "y")], {"a": "x"}),
        ("ab", [], {}),
        ("", [(7, "x")], {}),
    ],
)
def test_memdevs_and_memories_meet_in_order(memdevs, ports, expected):
    assert pairs(memdevs, ports) == expected


@pytest.mark.parametrize("places", [("3", "4"), ("4", "3"), ("2:2", "2:3"), ("2:3", "2:2")])
def test_the_order_of_memdev_and_port_does_not_matter(machine, places):
    memdev, port = places
    one = machine({memdev: "ptnetmap-memdev", port: "ptnet,ptvale1:1", **({"2": "dummy"} if ":" in memdev else {})})
    assert shown(one, memdev) == mem_id(one, port)
    assert one.ptnet(port).create(CSB) == 0


def test_each_memory_has_a_memdev_of_its_own(machine):
    one = machine(
        {"2": "ptnetmap-memdev", "3": "ptnetmap-memdev", "4": "ptnet,ptvale1:1", "5": "virtio-net,ptnetmap:x{1"}
    )
    assert (shown(one, "2"), shown(one, "3")) == (mem_id(one, "4"), mem_id(one, "5"))
    assert one.ptnet("4").create(CSB) == 0
    assert one.virtio_net("5").create(0x100000) == 0


def test_ports_of_one_allocator_share_a_memdev(machine, peer, frame, patiently):
    slots = {
        "3": "ptnetmap-memdev",
        "4": "ptnet,ptnetmap:x{1",
        "5": "ptnet,ptnetmap:x}1",
        "6": "virtio-net,ptnetmap:x{2",
    }
    one = machine(slots)
    assert {mem_id(one, place) for place in "456"} == {shown(one, "3")}
    left, right, third = one.ptnet("4"), one.ptnet("5"), one.virtio_net("6")
    assert [left.create(CSB), right.create(CSB + 0x4000), third.create(0x100000)] == [0, 0, 0]
    left.tx[0].send([frame(1)])
    assert patiently(right.rx[0].receive, "a frame") == [frame(1)]
    assert len(one.host.vm.bufs) == 1
    other = peer("netmap:x}2")
    third.tx[0].send([frame(3)])
    assert other.recv(timeout=30) == [frame(3)]


def test_a_memdev_without_a_port_says_so_and_has_no_memory(machine, caplog):
    with caplog.at_level(logging.WARNING):
        one = machine({"3": "ptnetmap-memdev"})
    assert "no passed-through port needs it" in caplog.text
    assert (shown(one, "3"), list(one.device("3").bars)) == (0, [0])


def test_a_port_without_a_memdev_is_told_of_and_its_driver_finds_which_is_missing(machine, caplog):
    with caplog.at_level(logging.WARNING):
        one = machine({"3": "ptnetmap-memdev", "4": "ptnet,ptvale1:1", "5": "ptnet,ptvale2:1"})
    missing = mem_id(one, "5")
    assert f"the guest cannot see memory {missing}, of vale2:1\n        add -s SLOT,ptnetmap-memdev" in caplog.text
    with pytest.raises(LookupError, match=rf"no memdev shows memory {missing}, only \[{mem_id(one, '4')}\]"):
        one.ptnet("5").create(CSB)


def test_a_port_without_any_memdev_is_told_of(machine, caplog):
    with caplog.at_level(logging.WARNING):
        machine({"4": "ptnet,ptvale1:1"})
    assert "the guest cannot see memory" in caplog.text


def test_memory_that_outlives_netmapd_stays_the_guests(machine, netmapd):
    one = machine({"3": "ptnetmap-memdev", "4": "ptnet,ptvale1:1"})
    memory = MockMemory(one.bus, mem_id(one, "4"))
    netmapd.end()
    memory.view(4096, np.uint32, 4)[:] = 7
    assert memory.view(4096, np.uint32, 4).tolist() == [7] * 4
    assert one.ptnet().create(CSB) == errno.ECONNRESET
