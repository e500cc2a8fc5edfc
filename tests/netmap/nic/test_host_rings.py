# SPDX-License-Identifier: BSD-2-Clause
"""Host rings: what the stack sends on an interface, and what it receives there, on veths in namespaces of the test's own."""

import errno
import os
import socket
import struct

import numpy as np
import pytest

import ptnetmap
from ptnetmap.abi.bpf import (
    BPF_CALL,
    BPF_EXIT,
    BPF_MOV64_IMM,
    BPF_PROG_TYPE_SCHED_CLS,
    BPF_TCX_EGRESS,
    BPF_XDP,
    bpf_insn,
)
from ptnetmap.abi.netmap import NR_EXCLUSIVE, NR_PTNETMAP_HOST, RX, TX
from ptnetmap.errors import PortError
from ptnetmap.netmap.client.session import connect
from ptnetmap.netmap.nic import hostlink
from ptnetmap.netmap.nic.bpf import create_link, load_program
from ptnetmap.netmap.nic.interface import find_interface
from ptnetmap.netmap.wire import extension
from ptnetmap.tools.valectl import statistics

pytestmark = pytest.mark.root

HERE, THERE = "10.9.0.1", "10.9.0.2"
THERE_MAC = "02:00:00:00:00:02"
UDP_SEGMENT = 103
"""Socket option: the driver, or somebody, is to make packets of this size (linux/udp.h)."""


@pytest.fixture
def host(veth):
    """Give ``va`` an address, and a neighbour that is nowhere; a UDP socket there."""
    veth(f"addr add {HERE}/24 dev va", f"neigh add {THERE} lladdr {THERE_MAC} dev va")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((HERE, 7))
        made.settimeout(30)
        yield made


def outside():
    return f"nmhost{find_interface('va').index}"


def answer(frame):
    """Return a UDP packet with source and destination exchanged, and without a checksum."""
    turned = bytearray(frame)
    turned[0:6], turned[6:12] = frame[6:12], frame[0:6]
    turned[26:30], turned[30:34] = frame[30:34], frame[26:30]
    turned[34:36], turned[36:38] = frame[36:38], frame[34:36]
    turned[40:42] = b"\0\0"
    return bytes(turned)


def checksum_of_udp(packet):
    """Return what the checksum over an IPv4 packet with UDP comes to: 0 if it is right."""
    data = packet[12:20] + struct.pack("!HH", 17, len(packet) - 20) + packet[20:]
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def test_what_the_stack_sends_comes_to_the_host_ring_and_what_is_sent_there_is_received(nm, host, peer):
    with nm.open("netmap:va^") as port:
        host.sendto(b"question", (THERE, 9))
        [frame] = port.recv(timeout=30)
        assert (frame[:6], frame[42:]) == (bytes.fromhex(THERE_MAC.replace(":", "")), b"question")
        port.send([answer(frame)], timeout=30)
        assert host.recvfrom(100) == (b"question", (THERE, 9))
        assert not peer.waits()
        assert (port.stats.rx_packets, port.stats.tx_packets, port.stats.dropped) == (1, 1, 0)


def test_frames_of_the_stack_are_complete_whatever_the_interface_would_do_for_them(nm, host, gather):
    with nm.open("netmap:va^") as port:
        host.sendto(bytes(range(200)), (THERE, 9))
        [frame] = port.recv(timeout=30)
        assert frame[40:42] != b"\0\0"
        assert checksum_of_udp(frame[14:]) == 0
        host.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 500)
        host.sendto(bytes(1500), (THERE, 9))
        assert [(len(one), checksum_of_udp(one[14:])) for one in gather(port, 3)] == [(42 + 500, 0)] * 3


@pytest.fixture
def tagging(veth):
    """Let what the stack sends on ``va`` have the VLAN tag 5, where a driver finds it: beside the frame."""
    skb_vlan_push, tcx_next = 18, -1
    program = np.zeros(5, bpf_insn)
    program[:] = [
        (BPF_MOV64_IMM, 2, 0, socket.htons(0x8100)),
        (BPF_MOV64_IMM, 3, 0, 5),
        (BPF_CALL, 0, 0, skb_vlan_push),
        (BPF_MOV64_IMM, 0, 0, tcx_next),
        (BPF_EXIT, 0, 0, 0),
    ]
    loaded = load_program(program, kind=BPF_PROG_TYPE_SCHED_CLS)
    link = create_link(loaded, find_interface("va").index, where=BPF_TCX_EGRESS)
    yield
    for fd in (loaded, link):
        os.close(fd)


def test_vlan_tags_are_in_the_frames(nm, host, tagging):
    with nm.open("netmap:va^") as port:
        host.sendto(b"question", (THERE, 9))
        [frame] = port.recv(timeout=30)
        assert (frame[12:18], checksum_of_udp(frame[18:])) == (bytes.fromhex("810000050800"), 0)


def test_the_stack_and_the_network_go_on_beside_host_rings_alone(nm, host, peer):
    with nm.open("netmap:va^") as port:
        host.sendto(b"question", (THERE, 9))
        [frame] = port.recv(timeout=30)
        peer.send(answer(frame))
        assert host.recvfrom(100) == (b"question", (THERE, 9))


def test_nothing_is_turned_aside_unless_somebody_receives_it(nm, host, peer):
    with nm.open("netmap:va^/T") as sender:
        host.sendto(b"question", (THERE, 9))
        [frame] = peer.recv(1)
        assert frame[42:] == b"question"
        with nm.open("netmap:va^/R") as receiver:
            host.sendto(b"aside", (THERE, 9))
            [frame] = receiver.recv(timeout=30)
            assert frame[42:] == b"aside"
        host.sendto(b"again", (THERE, 9))
        assert peer.recv(1)[0][42:] == b"again"
        sender.send([answer(frame)], timeout=30)
        assert host.recvfrom(100) == (b"aside", (THERE, 9))


def test_a_star_is_the_rings_of_both_sides_in_one_port(nm, host, peer, frame):
    with nm.open("netmap:va*") as port:
        assert [(ring.ringid, ring.dir) for ring in port.tx_rings + port.rx_rings] == [
            (0, TX),
            (1, TX),
            (0, RX),
            (1, RX),
        ]
        assert (port.interface["ni_host_tx_rings"][0], port.interface["ni_host_rx_rings"][0]) == (1, 1)
        host.sendto(b"question", (THERE, 9))
        peer.send(frame(255, 1))
        port.poll(timeout=30)
        got = []
        while len(got) < 2:
            got += port.recv(timeout=30)
        question = (
            max(got, key=len) if got[0][12:14] == got[1][12:14] else next(f for f in got if f[12:14] == b"\x08\0")
        )
        assert frame(255, 1) in got
        port.send([question], timeout=30)
        assert peer.recv(1) == [question]
        port.send([answer(question)], ring=1, timeout=30)
        assert host.recvfrom(100) == (b"question", (THERE, 9))
        assert port.stats.tx_packets == 2


def test_both_sides_are_one_memory_and_count_for_themselves(nm, host, peer, frame):
    with nm.open("netmap:va") as wire, nm.open("netmap:va^") as stack:
        assert wire.mem_id == stack.mem_id
        peer.send(frame(255, 1))
        assert wire.recv(timeout=30) == [frame(255, 1)]
        assert (wire.stats.rx_packets, stack.stats.rx_packets) == (1, 0)
        host.sendto(b"question", (THERE, 9))
        assert len(stack.recv(timeout=30)) == 1
        assert (wire.stats.rx_packets, stack.stats.rx_packets) == (1, 1)


def test_frames_pass_in_order_and_a_full_host_ring_counts_what_it_has_missed(nm, host, gather, eventually):
    with nm.open("netmap:va^", rx_slots=16) as port:
        for i in range(40):
            host.sendto(bytes([i]) * 30, (THERE, 9))
        eventually(lambda: port.stats.missed == 25)
        assert [one[42] for one in gather(port, 15)] == list(range(15))


def test_long_frames_follow_the_interfaces_mtu(nm, host, veth, gather, eventually):
    with nm.open("netmap:va^") as port:
        veth("link set va mtu 4000")
        eventually(lambda: find_interface(outside()).mtu == 4000)
        host.sendto(bytes(3900), (THERE, 9))
        [frame] = gather(port, 1)
        assert len(frame) == 42 + 3900
        port.send([answer(frame)], timeout=30)
        assert len(host.recv(5000)) == 3900


def test_host_rings_come_and_go_and_leave_nothing(nm, host, peer):
    before = {name for _, name in socket.if_nameindex()}
    for _ in range(5):
        with nm.open("netmap:va^"):
            assert outside() in [name for _, name in socket.if_nameindex()]
        assert {name for _, name in socket.if_nameindex()} == before
        host.sendto(b"question", (THERE, 9))
        assert peer.recv(1)[0][42:] == b"question"


def test_an_interface_that_goes_takes_its_host_rings_along(nm, host, veth, meanwhile, wait_until_asleep):
    with nm.open("netmap:va^") as port:
        received = meanwhile(port.recv)
        wait_until_asleep(port)
        veth("link del va")
        with pytest.raises(PortError, match="va has gone"):
            received()
    assert [name for _, name in socket.if_nameindex()] == ["lo"]


def test_if_somebody_removes_the_pair_the_stack_sends_by_the_interface_again(nm, host, peer, veth, eventually):
    with nm.open("netmap:va^"):
        veth(f"link del {outside()}")

        def passes():
            host.sendto(b"question", (THERE, 9))
            return peer.waits()

        eventually(passes)
    with nm.open("netmap:va^") as port:
        host.sendto(b"question", (THERE, 9))
        assert port.recv(timeout=30)


def test_what_cannot_be_opened_is_refused_with_the_reason(nm, host, refusal):
    refusal("EINVAL", nm.open, "vale0:a^", match="it has none")
    refusal("EINVAL", nm.open, "netmap:va^1", match="cannot open host ring 1 of va: it has 1")
    with nm.open("netmap:va^/x"):
        refusal("EBUSY", nm.open, "netmap:va*", match="exclusively")
        with nm.open("netmap:va"):
            pass
    with ptnetmap.Netmap() as other, nm.open("netmap:va^"):
        refusal("EBUSY", other.open, "netmap:va^", match="already")


@pytest.mark.parametrize("suffix", ["/rt", "/rtz"])
def test_monitors_of_host_rings_see_what_passes_there_and_nothing_else(nm, host, peer, frame, suffix):
    with nm.open("netmap:va") as wire, nm.open("netmap:va^") as stack, nm.open(f"netmap:va^{suffix}") as monitor:
        peer.send(frame(255, 1))
        assert wire.recv(timeout=30) == [frame(255, 1)]
        host.sendto(b"question", (THERE, 9))
        [question] = stack.recv(timeout=30)
        stack.rxsync()
        assert monitor.recv(timeout=30) == [question]
        stack.send([answer(question)], timeout=30)
        assert host.recvfrom(100) == (b"question", (THERE, 9))
        stack.txsync()
        assert monitor.recv(timeout=30) == [answer(question)]


def test_a_monitor_of_host_rings_that_nobody_has_is_refused(nm, host, refusal):
    with nm.open("netmap:va"):
        refusal("EINVAL", nm.open, "netmap:va^/rt", match=r"cannot monitor va\^: nobody has it open")


def test_host_rings_are_ports_of_their_own_in_listings_and_are_not_passed_through(netmapd, host, refusal):
    with ptnetmap.open("netmap:va") as wire, ptnetmap.open("netmap:va^") as stack:
        assert wire.mem_id == stack.mem_id
        with connect() as session:
            listed = extension.introspect(session.request, extension.PORT_LIST)
            assert sorted((one["name"], one["tx_rings"]) for one in listed) == [("va", 1), ("va^", 1)]
        host.sendto(b"question", (THERE, 9))
        [question] = stack.recv(timeout=30)
        stack.send([answer(question)], timeout=30)
        assert host.recvfrom(100) == (b"question", (THERE, 9))
        assert (wire.stats.rx_packets, stack.stats.rx_packets, stack.stats.tx_packets) == (0, 1, 1)
        with connect() as session:
            counted = {one["name"]: (one["rx_packets"], one["tx_packets"]) for one in statistics(session, [])}
        assert counted == {"va": (0, 0), "va^": (1, 1)}
    refusal(
        "EOPNOTSUPP", ptnetmap.open, "netmap:va^", flags=NR_PTNETMAP_HOST | NR_EXCLUSIVE, match="knows no host rings"
    )


def test_a_kernel_that_cannot_turn_frames_aside_is_named_and_nothing_stays(nm, host, peer, monkeypatch, refusal):
    def attach(program, interface, flags=0, *, where=BPF_XDP):
        if where == BPF_XDP:
            return create_link(program, interface, flags)
        raise OSError(errno.EINVAL, "Invalid argument")  # what Linux before 6.6 says of tcx

    monkeypatch.setattr(hostlink.bpf, "create_link", attach)
    for name in ("netmap:va^", "netmap:va*"):
        refusal("EOPNOTSUPP", nm.open, name, match="use Linux 6.6 or newer")
    assert sorted(name for _, name in socket.if_nameindex()) == ["lo", "va", "vb"]
    host.sendto(b"question", (THERE, 9))
    assert peer.recv(1)[0][42:] == b"question"
