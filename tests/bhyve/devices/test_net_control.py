# SPDX-License-Identifier: BSD-2-Clause
# The control queue of a virtio-net without a back end: commands change the device, not packets.
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.devices.virtio_net import VirtioNet
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.mock import MockDriver

OK, ERR = bytes([abi.VIRTIO_NET_OK]), bytes([abi.VIRTIO_NET_ERR])
CONTROL = 2
MAC = bytes.fromhex("020000000001")
OTHER = bytes.fromhex("02000000ab02")
ALL = (1 << 64) - 1
ON, OFF = b"\1", b"\0"
SET_MAC = bytes([abi.VIRTIO_NET_CTRL_MAC, abi.VIRTIO_NET_CTRL_MAC_ADDR_SET])
SET_TABLES = bytes([abi.VIRTIO_NET_CTRL_MAC, abi.VIRTIO_NET_CTRL_MAC_TABLE_SET])
PROMISC = bytes([abi.VIRTIO_NET_CTRL_RX, abi.VIRTIO_NET_CTRL_RX_PROMISC])
ALLMULTI = bytes([abi.VIRTIO_NET_CTRL_RX, abi.VIRTIO_NET_CTRL_RX_ALLMULTI])


def tables(*lists):
    return b"".join(struct.pack("<I", len(addresses)) + b"".join(addresses) for addresses in lists)


class Guest:
    """A driver of a device, and its commands."""

    def __init__(self, device, features=ALL, **options):
        self.device = device
        self.driver = MockDriver(device, device.host.memory, **options)
        self.driver.start(features)

    def command(self, *pieces, room=1, **options):
        """What the device answers to a command that is cut into these pieces."""
        queue = self.driver.queues[CONTROL]
        head = queue.send(pieces, [room] if room else [], **options)
        self.driver.kick(CONTROL)
        [used] = queue.reap()
        assert used.head == head
        return used.data

    @property
    def mac(self):
        return self.driver.read_config(0, 6)


@pytest.fixture
def device(host):
    device = VirtioNet(host, Function(0, 4, 0), {"mac": "02:00:00:00:00:01"})
    yield device
    device.close()


@pytest.fixture(params=["legacy", "modern"])
def guest(device, request):
    return Guest(device, legacy=request.param == "legacy")


def test_what_a_port_cannot_do_is_not_offered(guest):
    bits = {bit for bit in range(17, 24) if guest.driver.features >> bit & 1}
    assert bits == {17, 18, 23}  # CTRL_VQ, CTRL_RX, CTRL_MAC_ADDR: no VLANs, no more modes, no announcing


def test_a_new_address_is_the_devices_until_a_reset(guest):
    before = guest.device.negotiation.generation
    assert guest.mac == MAC
    assert guest.command(SET_MAC, OTHER) == OK
    assert guest.mac == OTHER
    assert guest.device.negotiation.generation != before
    guest.driver.start()
    assert guest.mac == MAC


@pytest.mark.parametrize(
    "address", [b"\xff" * 6, bytes.fromhex("030000000001"), bytes(6), OTHER[:5], OTHER + b"\0", b""]
)
def test_an_address_that_cannot_be_is_refused(guest, address):
    assert guest.command(SET_MAC + address) == ERR
    assert guest.mac == MAC


@pytest.mark.parametrize("mode", [PROMISC, ALLMULTI])
@pytest.mark.parametrize("on", [ON, OFF])
def test_modes_of_receiving_are_taken(guest, mode, on):
    assert guest.command(mode, on) == OK


@pytest.mark.parametrize(
    "lists", [([], []), ([OTHER], []), ([], [b"\xff" * 6]), ([OTHER] * 40, [b"\x33\x33\0\0\0\1"] * 70)]
)
def test_tables_of_addresses_are_taken(guest, lists):
    assert guest.command(SET_TABLES, tables(lists[0]), tables(lists[1])) == OK


@pytest.mark.parametrize("pieces", [[SET_MAC + OTHER], [SET_MAC, OTHER], [bytes([byte]) for byte in SET_MAC + OTHER]])
@pytest.mark.parametrize("room", [1, 2, 100])
@pytest.mark.parametrize("indirect", [True, False])
def test_a_command_may_be_cut_in_any_way(guest, pieces, room, indirect):
    assert guest.command(*pieces, room=room, indirect=indirect) == OK
    assert guest.mac == OTHER


@pytest.mark.parametrize(
    "command",
    [
        b"\0",
        PROMISC,
        PROMISC + b"\1\1",
        *(bytes([abi.VIRTIO_NET_CTRL_RX, mode]) + ON for mode in range(2, 6)),  # of CTRL_RX_EXTRA
        SET_TABLES,
        SET_TABLES + tables([OTHER]),
        SET_TABLES + tables([OTHER], [])[:-1],
        SET_TABLES + tables([OTHER], []) + b"\0",
        SET_TABLES + struct.pack("<I", 0xFFFFFFFF) + tables([]),
        SET_TABLES + tables([]) + struct.pack("<I", 0x80000000),
        SET_MAC[:1] + b"\2" + OTHER,
        b"\2\0\1\0",  # add a VLAN
        b"\3\0",  # have announced
        b"\4\0\1\0",  # pairs of queues, which were not offered
        b"\5\0" + bytes(8),  # other offloads
        b"\xff\xff",
        b"\x80\0" + bytes(9000),
    ],
)
def test_a_command_that_cannot_be_is_refused_and_the_next_one_is_taken(guest, command):
    assert guest.command(command) == ERR
    assert guest.command(SET_MAC, OTHER) == OK
    assert not guest.driver.needs_reset


def test_a_command_without_anything_is_refused(guest):
    assert guest.command() == ERR


@pytest.mark.parametrize("pieces", [[SET_MAC, OTHER], [b"\0"]])
def test_a_command_without_room_for_an_answer_does_nothing_and_needs_a_reset(device, pieces):
    guest = Guest(device)
    queue = guest.driver.queues[CONTROL]
    queue.send(pieces)
    guest.driver.kick(CONTROL)
    assert guest.driver.needs_reset
    assert "no room for an answer" in str(device.error)
    assert (queue.reap(), guest.mac) == ([], MAC)
    guest.driver.start()
    assert guest.command(SET_MAC, OTHER) == OK


def test_a_command_of_a_feature_that_was_not_taken_is_refused(device):
    guest = Guest(device, ~abi.VIRTIO_NET_F_CTRL_MAC_ADDR)
    assert guest.command(SET_MAC, OTHER) == ERR
    assert guest.command(PROMISC, ON) == OK
    guest = Guest(device, ~abi.VIRTIO_NET_F_CTRL_RX)
    assert guest.command(SET_MAC, OTHER) == OK
    assert [guest.command(PROMISC, ON), guest.command(SET_TABLES, tables([], []))] == [ERR, ERR]


def test_features_that_need_the_queue_are_not_to_be_had_without(device):
    driver = MockDriver(device, device.host.memory)
    driver.status = abi.VIRTIO_STATUS_ACKNOWLEDGE | abi.VIRTIO_STATUS_DRIVER
    offered = driver.offered() & ~abi.VIRTIO_NET_F_CTRL_VQ
    assert not driver.accept(offered)
    assert not driver.accept(offered & ~abi.VIRTIO_NET_F_CTRL_RX)
    assert driver.accept(offered & ~abi.VIRTIO_NET_F_CTRL_RX & ~abi.VIRTIO_NET_F_CTRL_MAC_ADDR)


@pytest.mark.parametrize("legacy", [True, False])
def test_the_queue_is_not_to_be_used_by_who_has_not_taken_it(device, legacy):
    guest = Guest(device, 1 << 32, legacy=legacy)
    guest.driver.queues[CONTROL].send([PROMISC, ON], [1])
    guest.driver.kick(CONTROL)
    assert guest.driver.needs_reset


def test_an_old_driver_writes_its_address_and_nothing_else(device):
    old = Guest(device, ~abi.VIRTIO_NET_F_CTRL_MAC_ADDR, legacy=True)
    base = abi.legacy_config(msix=True)
    for i, byte in enumerate(OTHER):
        old.driver.bar_write(0, base + i, 1, byte)
    assert old.mac == OTHER
    for offset, size in ((4, 4), (6, 1), (8, 2)):
        before = old.driver.read_config(0, 10)
        old.driver.bar_write(0, base + offset, size, (1 << 8 * size) - 1)
        assert old.driver.read_config(0, 10) == before


@pytest.mark.parametrize("legacy", [True, False])
def test_who_has_commands_cannot_write_the_address(device, legacy):
    guest = Guest(device, legacy=legacy)
    bar, at = (0, abi.legacy_config(msix=True)) if legacy else (2, 0x2000)
    guest.driver.bar_write(bar, at, 1, 4)
    assert guest.mac == MAC


@given(
    commands=st.lists(
        st.tuples(
            st.integers(0, 5) | st.integers(0, 255),
            st.integers(0, 3) | st.integers(0, 255),
            st.binary(max_size=40),
            st.integers(0, 3),
        ),
        max_size=10,
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_commands_are_answered_or_need_a_reset(device, commands):
    guest = Guest(device)
    queue = guest.driver.queues[CONTROL]
    for number, command, data, room in commands:
        queue.send([bytes([number, command]) + data], [room] if room else [])
        guest.driver.kick(CONTROL)
        assert guest.driver.needs_reset == (room == 0)
        if room == 0:
            break
        [used] = queue.reap()
        assert used.data in (OK, ERR)
    assert not guest.mac[0] & 1
    guest.driver.start()
    assert guest.command(SET_MAC, OTHER) == OK
    assert guest.mac == OTHER
