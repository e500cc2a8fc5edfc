# SPDX-License-Identifier: BSD-2-Clause
import errno
import hashlib
import logging

import pytest

from ptnetmap.abi import ptnet
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.abi.netmap.csb import NETMAP_VIRT_CSB_SIZE
from ptnetmap.bhyve.devices.virtio_net import PTNETMAP
from ptnetmap.bhyve.passthrough.mock import FIRST_DATA, MESSAGE, Registers
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.mock import MockDriver
from ptnetmap.errors import GuestError

CSB = 0x100000
SLOTS = {"2": "ptnetmap-memdev", "4": "virtio-net,ptvale1:1"}


@pytest.fixture
def net(machine):
    return machine(SLOTS)


@pytest.mark.parametrize(("whole", "msix"), [(False, True), (True, True), (False, False)])
def test_packets_pass_between_guest_and_host(net, peer, frame, patiently, whole, msix):
    host = peer("vale1:2")
    guest = net.virtio_net(whole=whole, msix=msix)
    assert guest.create(CSB) == 0
    for i in range(5):
        assert guest.tx[0].send([frame(1, i)]) == 1
        assert host.recv(timeout=30) == [frame(1, i)]
        host.send([frame(2, i)])
        assert patiently(guest.rx[0].receive, "a frame") == [frame(2, i)]


# --- what a driver reads


def test_it_is_found_by_virtios_ids_and_bhyves_mac(net):
    guest = net.virtio_net()
    identity = [net.bus.read_config(guest.place, at, 4) for at in (0, 8, 0x2C)]
    assert identity == [0x1000_1AF4, 0x0200_0000, 0x0001_1AF4]
    guest.queues.start()
    mac = bytes.fromhex("00a098") + hashlib.md5(b"4-0-testvm").digest()[:3]
    assert guest.queues.read_config(0, 6) == mac
    assert [queue.size for queue in guest.queues.queues] == [1024, 1024]


def test_a_passed_through_port_offers_what_it_did_in_2015_and_nothing_newer_of_rings(net):
    guest = net.virtio_net()
    offered = guest.queues.offered() & ~abi.VIRTIO_F_ANY_LAYOUT
    assert {bit for bit in range(32) if offered >> bit & 1} == {5, 15, 16, 24, 25}


@pytest.mark.parametrize("whole", [True, False])
def test_its_commands_answer_as_in_2015(net, whole):
    guest = net.virtio_net(whole=whole)
    assert guest.attach(CSB)
    mem_id = net.device("4").port.netmap.mem_id
    assert [guest.command(number) for number in range(14)] == [
        *(errno.EINVAL, 0, 0, 0, 0, errno.EINVAL, errno.EINVAL, 0, errno.EINVAL, errno.EINVAL, 0, 0, mem_id),
        errno.EINVAL,
    ]


def test_configuring_describes_the_port_in_the_csb(net):
    guest = net.virtio_net()
    assert guest.attach(CSB)
    assert guest.command(ptnet.PTNETMAP_PTCTL_CONFIG) == 0
    names = ("nifp_offset", "num_tx_rings", "num_rx_rings", "num_tx_slots", "num_rx_slots")
    assert [int(guest.csb[name][0]) for name in names] == [net.device("4").port.netmap.nifp_offset, 1, 1, 1024, 1024]


def test_starting_sets_the_csb_as_in_2015_and_gives_the_dummy_chain_back(net):
    guest = net.virtio_net()
    assert guest.create(CSB) == 0
    fields = ("head", "cur", "hwcur", "hwtail", "appl_need_kick", "kern_need_kick")
    assert [guest.tx[0].get(name) for name in fields] == [0, 0, 0, 1023, 0, 1]
    assert [guest.rx[0].get(name) for name in fields[:-1]] == [0, 0, 0, 0, 1]
    transmit = guest.queues.queues[abi.VIRTIO_NET_QUEUE_TX]
    assert [used.length for used in transmit.reap()] == [0]
    assert int(transmit.used_head["flags"][0]) == 0


def test_a_register_takes_effect_with_its_own_byte(net):
    guest = net.virtio_net()
    assert guest.attach(CSB)
    base = ptnet.PTNETMAP_VIRTIO_IO_BASE_MSIX
    guest.set(ptnet.PTNETMAP_VIRTIO_IO_PTFEAT, 0)
    for i in (3, 2, 1):
        guest.write(base + i, 0, 1)
    assert guest.get(ptnet.PTNETMAP_VIRTIO_IO_PTFEAT) == 0
    guest.write(base, 1, 1)
    assert guest.get(ptnet.PTNETMAP_VIRTIO_IO_PTFEAT) == ptnet.PTNETMAP_F_BASE
    guest.set(ptnet.PTNETMAP_VIRTIO_IO_PTFEAT, 0xFFFFFFFF)
    assert guest.get(ptnet.PTNETMAP_VIRTIO_IO_PTFEAT) == ptnet.PTNETMAP_F_BASE


def test_an_interrupt_is_sent_once_for_each_time_it_was_asked_for(net, peer, frame, patiently):
    host, guest = peer("vale1:2"), net.virtio_net()
    assert guest.create(CSB) == 0
    ring = guest.rx[0]
    for i in range(3):
        ring.told["appl_need_kick"][0] = 1
        host.send([frame(2, i)])
        patiently(lambda: ring.get("appl_need_kick") == 0, "a cleared wish")
        assert patiently(ring.receive, "a frame") == [frame(2, i)]
        host.send([frame(2, i)])
        assert patiently(ring.receive, "a frame") == [frame(2, i)]
    net.host.interrupts.poll()
    assert set(net.host.interrupts.messages) == {(MESSAGE, FIRST_DATA + 1 + abi.VIRTIO_NET_QUEUE_RX)}


def test_kicks_are_writes_of_the_queues_number(net):
    groups = [one for group in net.host.vm.groups if group.kind == "port" for one in group.members]
    assert [(one["offset"], one["size"], one["mask"], one["data"]) for one in groups] == [
        (abi.VIRTIO_PCI_QUEUE_NOTIFY, 2, 0xFFFF, 0),
        (abi.VIRTIO_PCI_QUEUE_NOTIFY, 2, 0xFFFF, 1),
    ]


# --- an ordinary virtio-net


@pytest.mark.parametrize("legacy", [True, False])
def test_a_driver_that_does_not_know_the_feature_finds_a_link_that_is_down(net, legacy):
    driver = MockDriver(net.device("4"), net.host.memory, legacy=legacy)
    driver.start(~PTNETMAP)
    assert driver.read_config(6, 4) == b"\0\0\1\0"
    assert driver.read_config(10, 20) == bytes(20)
    assert not driver.needs_reset


def test_virtio_1_does_not_know_the_feature(net):
    driver = MockDriver(net.device("4"), net.host.memory)
    assert driver.offered() & PTNETMAP == 0
    driver.start()
    assert driver.read_config(6, 2) == b"\0\0"


def test_the_link_is_up_for_who_passes_through(net):
    guest = net.virtio_net()
    assert guest.attach(CSB)
    assert guest.queues.read_config(6, 2) == b"\1\0"


def test_without_the_feature_commands_do_nothing(net, netmapd):
    guest = net.virtio_net(whole=True)
    guest.queues.start(~PTNETMAP)
    guest.set(ptnet.PTNETMAP_VIRTIO_IO_PTFEAT, 1)
    guest.set_csb(CSB)
    assert guest.command(ptnet.PTNETMAP_PTCTL_REGIF) == 0
    assert guest.get(ptnet.PTNETMAP_VIRTIO_IO_PTFEAT) == 0
    assert netmapd.served() == set()


@pytest.mark.parametrize("backend", ["vale0:", "netmap:ix0"])
def test_a_plain_back_end_that_cannot_be_fails_in_bhyves_words_and_leaves_the_link_down(machine, caplog, backend):
    with caplog.at_level(logging.WARNING):
        one = machine({"4": f"virtio-net,{backend}"})
    assert f"net backend initialization failed: {backend}" in caplog.text
    driver = MockDriver(one.device("4"), one.host.memory)
    driver.start()
    assert driver.read_config(6, 2) == b"\0\0"
    assert driver.offered() & PTNETMAP == 0


def test_a_port_that_cannot_be_had_leaves_the_link_down(machine, peer, caplog):
    peer("vale1:1")
    with caplog.at_level(logging.WARNING):
        one = machine(SLOTS)
    assert "net backend initialization failed: ptvale1:1" in caplog.text
    assert one.virtio_net().create(CSB) == errno.ENODEV


@pytest.mark.parametrize("backend", ["", "null"])
def test_it_needs_no_back_end(machine, caplog, backend):
    one = machine({"4": f"virtio-net,{backend}"})
    assert caplog.text == ""
    assert one.virtio_net().create(CSB) == errno.ENODEV


# --- what a guest does wrong


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (0, errno.EINVAL),
        (CSB + 4, errno.EINVAL),
        ((16 << 20) - NETMAP_VIRT_CSB_SIZE + 64, errno.EFAULT),
        (1 << 40, errno.EFAULT),
        (0xFFFFFFFF_FFFFFFC0, errno.EFAULT),
        ("the memdev's BAR", errno.EFAULT),
    ],
)
def test_a_csb_that_cannot_be_is_refused_and_a_right_one_works_then(net, address, expected):
    guest = net.virtio_net()
    assert guest.attach(CSB)
    guest.set_csb(Registers(net.bus, Function(0, 2, 0)).bar(1) if isinstance(address, str) else address)
    assert guest.command(ptnet.PTNETMAP_PTCTL_CONFIG) == expected
    assert guest.command(ptnet.PTNETMAP_PTCTL_REGIF) == expected
    assert guest.create(CSB) == 0


def test_starting_twice_is_refused_and_stopping_twice_does_nothing(net):
    guest = net.virtio_net()
    assert guest.create(CSB) == 0
    assert guest.command(ptnet.PTNETMAP_PTCTL_REGIF) == errno.EBUSY
    assert [guest.delete(), guest.delete()] == [0, 0]


@pytest.mark.parametrize("how", ["status", "machine", "csb", "chain"])
def test_whatever_ends_it_leaves_a_port_that_starts_again(net, netmapd, peer, frame, how):
    host, guest = peer("vale1:2"), net.virtio_net()
    assert guest.create(CSB) == 0
    if how == "status":
        guest.queues.status = 0
    elif how == "machine":
        net.bus.reset()
    elif how == "csb":
        guest.set_csb(0)
    else:
        net.device("4").fail(GuestError(errno.EINVAL, "a chain that cannot be"))
    assert netmapd.served() == {"vale1:2"}
    assert guest.create(CSB + 0x10000) == 0
    guest.tx[0].send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]


def test_a_chain_that_cannot_be_is_refused_at_the_start(net, netmapd):
    guest = net.virtio_net()
    assert guest.attach(CSB)
    guest.queues.queues[abi.VIRTIO_NET_QUEUE_TX].offer(0xFFFF)
    assert guest.command(ptnet.PTNETMAP_PTCTL_REGIF) == errno.EINVAL
    assert netmapd.served() == set()
    assert guest.create(CSB) == 0


@pytest.mark.parametrize("ring", ["tx", "rx"])
@pytest.mark.parametrize("index", [1024, 0x80000000, 0xFFFFFFFF])
def test_an_index_outside_the_ring_is_counted_and_put_right(net, peer, netmapd, frame, patiently, ring, index):
    host, guest = peer("vale1:2"), net.virtio_net()
    assert guest.create(CSB) == 0
    hostile = getattr(guest, ring)[0]
    hostile.publish(index)
    hostile.kick(always=True)
    patiently(lambda: netmapd.stats("vale1:1")[ring]["reinits"], "a ring reinit")
    patiently(lambda: hostile.get("head") < hostile.n, "an index that can be")
    guest.tx[0].send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]


def test_any_access_to_its_registers_leaves_a_device_that_works(net, peer, frame):
    host, guest = peer("vale1:2"), net.virtio_net(whole=True)
    assert guest.attach(CSB)
    for size in (1, 2, 4):
        for offset in range(ptnet.PTNETMAP_VIRTIO_IO_BASE, 65 - size):
            for value in (0, 1, 10, (1 << 8 * size) - 1):
                guest.write(offset, value, size)
            guest.read(offset, size)
    assert guest.create(CSB) == 0
    guest.tx[0].send([frame(1)])
    assert host.recv(timeout=30) == [frame(1)]


def test_a_thousand_starts_and_stops_leave_nothing(net, netmapd):
    guest = net.virtio_net(whole=True)
    assert guest.create(CSB) == 0
    assert guest.delete() == 0
    before = netmapd.census()
    assert before[1] == 0
    for _ in range(1000):
        assert guest.command(ptnet.PTNETMAP_PTCTL_REGIF) == 0
        assert guest.delete() == 0
    assert netmapd.census() == before
    assert netmapd.served() == set()
