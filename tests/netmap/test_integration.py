# SPDX-License-Identifier: BSD-2-Clause
# What upstream's integration scripts 001 to 027 check, each once; the number is in the test's id. 024 is the script for
# a veth interface: the embedded runtime has no interfaces of the operating system, so it is absent here.
import errno

import numpy as np
import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError

pytestmark = pytest.mark.interpreted

KINDS = ("ephemeral", "persistent", "pipe")


def numbered(first):
    """One test for each kind of port, under the numbers that upstream's scripts have."""
    return pytest.mark.parametrize("kind", [pytest.param(k, id=f"{first + i:03}-{k}") for i, k in enumerate(KINDS)])


@pytest.fixture
def names(nm, kind):
    """Two ports of a kind that reach each other: their names."""
    if kind == "ephemeral":
        return "vale0:1", "vale0:2"
    if kind == "pipe":
        return "netmap:pipe{1", "netmap:pipe}1"
    for port in ("v0", "v1"):
        nm.create(port)
        nm.attach(f"vale0:{port}")
    return "vale0:v0", "vale0:v1"


@pytest.fixture
def ports(nm, names):
    """Both of them, open."""
    with nm.open(names[0]) as sender, nm.open(names[1]) as receiver:
        yield sender, receiver


@pytest.fixture
def burst(frame):
    return [frame(2, 1, fill=i) for i in range(10)]


@numbered(1)
def test_a_port_held_exclusively_cannot_be_opened_again(nm, names):
    with nm.open(f"{names[0]}/x"), pytest.raises(PortError, match="exclusively") as refused:
        nm.open(f"{names[0]}/x")
    assert refused.value.errno == errno.EBUSY


@numbered(4)
def test_packets_leave_from_extra_buffers(nm, names, burst):
    with nm.open(names[0], extra_bufs=10) as sender, nm.open(names[1]) as receiver:
        assert sender.extra_bufs == 10
        ring = sender.tx_rings[0]
        index = int(sender.interface["ni_bufs_head"][0])
        old = []
        for i, data in enumerate(burst):
            buffer = ring.buffer_at(index)
            following = int(buffer[:4].view(np.uint32)[0])
            buffer[: len(data)] = np.frombuffer(data, np.uint8)
            old.append(int(ring.slots["buf_idx"][i]))
            ring.slots[i] = (index, len(data), abi.NS_BUF_CHANGED, 0)
            index = following
        assert index == 0, "the list of extra buffers has as many as were granted"
        ring.advance(10)
        sender.txsync()
        assert receiver.recv(timeout=0) == burst
        receiver.rxsync()
        for i, buffer in enumerate(old):
            ring.buffer_at(buffer)[:4].view(np.uint32)[0] = old[i + 1] if i + 1 < len(old) else 0
        sender.interface["ni_bufs_head"] = old[0]


def test_a_frame_for_an_unknown_address_floods_until_it_is_learned(nm, frame):
    """Upstream's 007."""
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("vale0:c") as c:
        a.send(frame(2, 1))
        assert [p.recv(timeout=0) for p in (a, b, c)] == [[], [frame(2, 1)], [frame(2, 1)]]
        b.send(frame(1, 2))
        assert [p.recv(timeout=0) for p in (a, b, c)] == [[frame(1, 2)], [], []]
        a.send(frame(2, 1))
        assert [p.recv(timeout=0) for p in (a, b, c)] == [[], [frame(2, 1)], []]


def test_what_is_not_read_from_a_pipe_stays_in_its_senders_ring(nm, burst):
    """Upstream's 008: 10 sent, 7 read, 3 pending."""
    with nm.open("netmap:pipe{1") as sender, nm.open("netmap:pipe}1") as receiver:
        assert sender.send(burst) == 10
        assert receiver.recv(7, timeout=0) == burst[:7]
        sender.txsync()
        ring = sender.tx_rings[0]
        assert ring.num_slots - 1 - ring.space() == 3
        assert receiver.recv(timeout=0) == burst[7:]
        sender.txsync()
        assert ring.space() == ring.num_slots - 1


@pytest.fixture
def persistent(nm):
    nm.create("v0")
    nm.attach("vale0:v0")
    return nm


@pytest.mark.parametrize("switches", [1, 2])
def test_a_persistent_port_cannot_be_deleted_while_it_is_attached(persistent, switches):
    """Upstream's 009."""
    if switches == 2:
        persistent.attach("vale1:v0")
    with pytest.raises(PortError, match="attached") as refused:
        persistent.delete("v0")
    assert refused.value.errno == errno.EBUSY
    if switches == 2:
        persistent.detach("vale1:v0")
    persistent.detach("vale0:v0")
    persistent.delete("v0")
    assert persistent.list() == []


def test_a_persistent_port_is_attached_once_to_a_switch_and_to_two_at_most(persistent):
    """Upstream's 010."""
    with pytest.raises(PortError, match="it is attached") as refused:
        persistent.attach("vale0:v0")
    assert refused.value.errno == errno.EBUSY
    persistent.attach("vale1:v0")
    for name in ("vale1:v0", "vale2:v0"):
        with pytest.raises(PortError) as refused:
            persistent.attach(name)
        assert refused.value.errno == errno.EBUSY
    assert persistent.list() == [("vale0:v0", 0, 0), ("vale1:v0", 1, 0)]


def test_a_persistent_port_cannot_be_created_twice(persistent):
    """Upstream's 011."""
    with pytest.raises(PortError, match="exists") as refused:
        persistent.create("v0")
    assert refused.value.errno == errno.EEXIST


@numbered(12)
def test_an_rx_copy_monitor_sees_frames_before_their_owner_reads(nm, ports, burst):
    sender, receiver = ports
    with nm.open(f"{receiver.name}/r") as monitor:
        sender.send(burst)
        assert monitor.recv(timeout=0) == burst
        assert receiver.recv(timeout=0) == burst
        assert monitor.recv(timeout=0) == []


@numbered(15)
def test_an_rx_zero_copy_monitor_sees_frames_after_their_owner_has_read_them(nm, ports, burst):
    sender, receiver = ports
    with nm.open(f"{receiver.name}/rz") as monitor:
        assert monitor.mem_id == receiver.mem_id
        sender.send(burst)
        assert monitor.recv(timeout=0) == []
        assert receiver.recv(timeout=0) == burst
        assert monitor.recv(timeout=0) == burst


@numbered(18)
def test_a_tx_copy_monitor_sees_frames_as_they_are_sent(nm, ports, burst):
    sender, receiver = ports
    with nm.open(f"{sender.name}/t") as monitor:
        sender.send(burst)
        monitor.rxsync()
        assert (monitor.rx_rings[0].slots["flags"][:10] & abi.NS_TXMON).all()
        assert monitor.recv(timeout=0) == burst
        assert receiver.recv(timeout=0) == burst


@numbered(21)
def test_what_is_sent_is_received(ports, burst):
    sender, receiver = ports
    assert sender.send(burst) == 10
    assert receiver.recv(timeout=0) == burst
    assert receiver.send(burst[:3]) == 3
    assert sender.recv(timeout=0) == burst[:3]


@numbered(25)
def test_a_tx_zero_copy_monitor_sees_frames_once_their_slots_come_back(nm, ports, burst, kind):
    sender, receiver = ports
    with nm.open(f"{sender.name}/tz") as monitor:
        assert monitor.mem_id == sender.mem_id
        sender.send(burst)
        # A switch is done with a frame when the sync returns, a pipe when the other end has read it.
        assert len(monitor.recv(timeout=0)) == (0 if kind == "pipe" else 10)
        assert receiver.recv(timeout=0) == burst
        sender.txsync()
        assert len(monitor.recv(timeout=0)) == (10 if kind == "pipe" else 0)


@numbered(25)
def test_a_tx_zero_copy_monitor_gets_the_frames_themselves(nm, ports, burst):
    sender, receiver = ports
    with nm.open(f"{sender.name}/tz") as monitor:
        sender.send(burst)
        assert receiver.recv(timeout=0) == burst
        sender.txsync()
        monitor.rxsync()
        assert (monitor.rx_rings[0].slots["flags"][:10] & abi.NS_TXMON).all()
        assert monitor.recv(timeout=0) == burst
