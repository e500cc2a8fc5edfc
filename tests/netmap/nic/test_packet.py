# SPDX-License-Identifier: BSD-2-Clause
"""Ports of network interfaces by AF_PACKET: forced, or because AF_XDP is not allowed."""

import errno
import fcntl
import socket
import struct

import numpy as np
import pytest

from ptnetmap.abi import ethtool
from ptnetmap.errors import PortError
from ptnetmap.netmap.runtime import Netmap

pytestmark = pytest.mark.root

ETHTOOL_SCHANNELS = 0x3D


@pytest.fixture
def packets():
    with Netmap(nic_mode="af_packet") as nm:
        yield nm


def numbered(frame, count, size=60):
    return [frame(255, 1, 18) + i.to_bytes(4, "big") + bytes(size - 22) for i in range(count)]


@pytest.mark.parametrize("size", [14, 60, 61, 1514])
def test_frames_of_any_size_pass_both_ways_unchanged(packets, peer, frame, programs, size):
    with packets.open("netmap:va") as port:
        assert port.adapter.mode == "AF_PACKET"
        assert programs("va") == []
        sent = frame(255, 1, size, 5)
        assert port.send([sent] * 3, timeout=30) == 3
        assert peer.recv(3) == [sent] * 3
        peer.send(sent)
        assert port.recv(timeout=30) == [sent]


def test_frames_keep_their_order_round_small_rings(packets, peer, frame, gather):
    frames = numbered(frame, 500)
    with packets.open("netmap:va", tx_slots=8, rx_slots=8) as port:
        got = []
        for i in range(0, len(frames), 20):
            assert port.send(frames[i : i + 20], timeout=30) == 20
            assert peer.recv(20) == frames[i : i + 20]
            for one in frames[i : i + 20]:
                peer.send(one)
            got += gather(port, 20)
        assert got == frames
        assert (port.stats.tx_packets, port.stats.rx_packets, port.stats.dropped, port.stats.missed) == (500, 500, 0, 0)


def test_what_the_port_sends_does_not_come_back_to_it(packets, peer, frame):
    with packets.open("netmap:va") as port:
        port.send([frame(255, 1, 60, 1)], timeout=30)
        assert peer.recv(1) == [frame(255, 1, 60, 1)]
        peer.send(frame(255, 1, 60, 2))
        assert port.recv(timeout=30) == [frame(255, 1, 60, 2)]


def test_the_host_sees_the_frames_too(packets, peer, peer_of, frame):
    host = peer_of("va")
    with packets.open("netmap:va") as port:
        peer.send(frame(255, 1))
        assert port.recv(timeout=30) == [frame(255, 1)]
        assert host.recv(1) == [frame(255, 1)]


def test_a_frame_in_several_buffers_passes_both_ways(packets, namespace, peer_of, frame):
    namespace("link add va mtu 4000 type veth peer name vb mtu 4000", "link set va up", "link set vb up")
    peer = peer_of("vb")
    with packets.open("netmap:va") as port:
        sent = frame(255, 1, 4014, 4)
        assert port.send([sent], timeout=30) == 1
        assert peer.recv(1) == [sent]
        peer.send(sent)
        assert port.recv(timeout=30) == [sent]


def test_a_frame_longer_than_the_interface_sends_costs_only_itself(packets, peer, frame):
    with packets.open("netmap:va") as port:
        port.send([frame(255, 1, 1700), frame(255, 1)], timeout=30)
        assert peer.recv(1) == [frame(255, 1)]
        assert port.stats.drops == {"too_long_for_xdp": 1}


def test_vlan_tags_are_kept(packets, peer, frame):
    tagged = frame(255, 1)[:12] + bytes.fromhex("81002064 0800") + bytes(60)
    with packets.open("netmap:va") as port:
        peer.send(tagged)
        assert port.recv(timeout=30) == [tagged]
        port.send([tagged], timeout=30)


def test_a_checksum_that_the_host_left_to_hardware_is_completed(packets, veth, frame):
    veth("addr add 10.9.0.1/24 dev vb", "neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev vb")
    with (
        packets.open("netmap:va") as port,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.sendto(b"odd number of bytes", ("10.9.0.2", 9))
        (got,) = (one for one in port.recv(timeout=30) if one[12:14] == b"\x08\x00")
    udp = got[34:]
    pseudo = got[26:34] + struct.pack(">HH", 17, len(udp))
    data = pseudo + udp + bytes(len(udp) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_a_port_has_the_frames_of_every_queue_once(packets, namespace, peer_of, frame, gather):
    queues = "numtxqueues 2 numrxqueues 2"
    namespace(f"link add va {queues} type veth peer name vb {queues}", "link set va up", "link set vb up")
    peer = peer_of("vb")
    frames = numbered(frame, 50)
    with packets.open("netmap:va") as port:
        port.send([frame(255, 1, 60, 9)], timeout=30)
        for one in frames:
            peer.send(one)
        assert sorted(gather(port, 50)) == frames
        peer.send(frame(255, 1, 60, 7))
        assert gather(port, 1) == [frame(255, 1, 60, 7)]


def test_a_port_that_only_sends_hears_nothing_until_somebody_receives(packets, peer, frame):
    with packets.open("netmap:va/T"):
        for fill in (1, 2):
            with packets.open("netmap:va/R") as receiver:
                peer.send(frame(255, 1, 60, fill))
                assert receiver.recv(timeout=30) == [frame(255, 1, 60, fill)]
            peer.send(frame(255, 1, 60, 9))


def test_a_port_outlives_its_interface_being_turned_off_and_on(packets, veth, peer, frame, eventually):
    with packets.open("netmap:va", tx_slots=8) as port:
        veth("link set va down")
        port.inject(frame(255, 1, 60, 1))
        port.txsync()
        veth("link set va up")
        eventually(lambda: port.txsync() is None and peer.waits())
        assert peer.recv(1) == [frame(255, 1, 60, 1)]
        peer.send(frame(255, 1, 60, 3))
        # The host may have something to say once its interface is up.
        eventually(lambda: frame(255, 1, 60, 3) in port.recv(timeout=30))


def test_an_interface_that_goes_ends_the_wait_with_an_error(packets, veth, meanwhile, wait_until_asleep):
    with packets.open("netmap:va") as port:
        received = meanwhile(port.recv)
        wait_until_asleep(port)
        veth("link del va")
        with pytest.raises(PortError, match="va has gone") as gone:
            received()
        assert gone.value.errno == errno.ENXIO


def test_a_sleeping_receiver_is_woken_by_a_frame(packets, peer, frame, meanwhile, wait_until_asleep):
    with packets.open("netmap:va") as port:
        received = meanwhile(port.recv, timeout=60)
        wait_until_asleep(port)
        peer.send(frame(255, 1))
        assert received() == [frame(255, 1)]


def test_a_mode_that_does_not_exist_is_refused(refusal):
    refusal("EINVAL", Netmap, nic_mode="best", match="no mode of interfaces")


def set_channels(name, rx, tx):
    """What ``ethtool -L`` does."""
    wanted = np.zeros(1, ethtool.ethtool_channels)
    wanted["cmd"], wanted["rx_count"], wanted["tx_count"] = ETHTOOL_SCHANNELS, rx, tx
    request = np.zeros(1, ethtool.ifreq)
    request["ifr_name"], request["ifr_data"] = name.encode(), wanted.ctypes.data
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, ethtool.SIOCETHTOOL, bytearray(request.tobytes()))


def test_a_change_of_the_queue_count_under_traffic_breaks_nothing(packets, namespace, peer_of, frame):
    queues = "numtxqueues 2 numrxqueues 2"
    namespace(f"link add va {queues} type veth peer name vb {queues}", "link set va up", "link set vb up")
    peer = peer_of("vb")
    with packets.open("netmap:va") as port:
        set_channels("va", rx=1, tx=1)
        peer.send(frame(255, 1))
        assert port.recv(timeout=30) == [frame(255, 1)]
