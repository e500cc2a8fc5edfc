# SPDX-License-Identifier: BSD-2-Clause
"""Ports of network interfaces, on veth pairs whose other end is a packet socket or another port."""

import errno
import gc
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ptnetmap.errors import PortError
from ptnetmap.netmap.nic.interface import find_interface
from ptnetmap.netmap.nic.redirect import Redirect
from ptnetmap.netmap.runtime import Netmap

pytestmark = pytest.mark.root


def numbered(frame, count, size=60):
    return [frame(255, 1, 18) + i.to_bytes(4, "big") + bytes(size - 22) for i in range(count)]


def test_a_received_frame_has_the_bytes_that_were_sent(nm, peer, frame):
    with nm.open("netmap:va") as port:
        peer.send(frame(255, 1, 60, 7))
        assert port.recv(timeout=30) == [frame(255, 1, 60, 7)]


def test_a_received_frame_lies_at_the_beginning_of_its_netmap_buffer(nm, peer, frame):
    with nm.open("netmap:va") as port:
        peer.send(frame(255, 1, 100, 3))
        port.poll(timeout=30)
        ring = port.rx_rings[0]
        assert ring.space() == 1
        assert ring.buffer(0)[:100].tobytes() == frame(255, 1, 100, 3)


@pytest.mark.parametrize("size", [14, 59, 60, 61, 64, 1514])
def test_frames_of_any_size_pass_both_ways_unchanged(nm, peer, frame, size):
    with nm.open("netmap:va") as port:
        sent = frame(255, 1, size, 5)
        assert port.send([sent] * 3, timeout=30) == 3
        assert peer.recv(3) == [sent] * 3
        peer.send(sent)
        assert port.recv(timeout=30) == [sent]


def test_frames_keep_their_order_round_small_rings(nm, peer, frame, gather):
    frames = numbered(frame, 500)
    with nm.open("netmap:va", tx_slots=8, rx_slots=8) as port:
        got = []
        for i in range(0, len(frames), 5):
            assert port.send(frames[i : i + 5], timeout=30) == 5
            assert peer.recv(5) == frames[i : i + 5]
            for one in frames[i : i + 5]:
                peer.send(one)
            got += gather(port, 5)
        assert got == frames
        assert (port.stats.tx_packets, port.stats.rx_packets, port.stats.dropped, port.stats.missed) == (500, 500, 0, 0)


def test_more_frames_than_slots_are_sent_as_the_kernel_gives_slots_back(nm, peer, frame):
    frames = numbered(frame, 300)
    with nm.open("netmap:va", tx_slots=16) as port:
        assert port.send(frames, timeout=30) == 300
        assert peer.recv(300) == frames


def test_a_full_ring_costs_frames_and_counts_them_and_goes_on(nm, peer, frame, gather, eventually):
    frames = numbered(frame, 40)
    with nm.open("netmap:va", rx_slots=16) as port:
        for one in frames:
            peer.send(one)
        eventually(lambda: port.stats.missed == 25)
        assert gather(port, 15) == frames[:15]
        peer.send(frames[-1])
        assert gather(port, 1) == [frames[-1]]


def test_a_slot_with_more_than_a_chunk_holds_is_dropped_and_counted(nm, peer, frame):
    with nm.open("netmap:va") as port:
        ring = port.tx_rings[0]
        for length in (1793, 2048, 60):
            ring.buffer(ring.head)[:60] = list(frame(255, 1, 60))
            ring.slots[ring.head]["len"] = length
            ring.advance(1)
        port.txsync()
        assert peer.recv(1) == [frame(255, 1, 60)]
        assert port.stats.drops == {"too_long_for_xdp": 2}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("buf_idx", 1, "bad_slot"), ("buf_idx", 1 << 30, "bad_slot"), ("len", 13, "too_short"), ("len", 0, "too_short")],
)
def test_a_slot_that_cannot_be_sent_costs_only_itself(lax, peer, frame, field, value, reason):
    with lax.open("netmap:va", tx_slots=8) as port:
        for _ in range(3):  # around the ring
            ring = port.tx_rings[0]
            bad = ring.head
            before = int(ring.slots[bad]["buf_idx"])
            ring.slots[bad]["len"] = 60
            ring.slots[bad][field] = value
            ring.advance(1)
            port.txsync()
            ring.slots[bad]["buf_idx"] = before
            assert port.send([frame(255, 1, 60, 9)], timeout=30) == 1
            assert peer.recv(1) == [frame(255, 1, 60, 9)]
        assert port.stats.drops == {reason: 3}


def test_a_frame_in_several_buffers_passes_both_ways(nm, namespace, peer_of, frame):
    namespace("link add va mtu 4000 type veth peer name vb mtu 4000", "link set va up", "link set vb up")
    peer = peer_of("vb")
    with nm.open("netmap:va") as port:
        sent = frame(255, 1, 4014, 4)
        assert port.send([sent], timeout=30) == 1
        assert peer.recv(1) == [sent]
        peer.send(sent)
        assert port.recv(timeout=30) == [sent]
        assert port.stats.rx_packets == 1


def test_a_chain_that_has_not_ended_waits_for_its_end(nm, veth, peer, frame):
    with nm.open("netmap:va") as port:
        ring = port.tx_rings[0]
        whole = frame(255, 1, 200, 6)
        for start in (0, 100):
            ring.buffer(ring.head)[:100] = list(whole[start : start + 100])
            ring.slots[ring.head]["len"] = 100
            ring.slots[ring.head]["flags"] = 0x20 if start == 0 else 0
            ring.advance(1)
            port.txsync()
            assert peer.waits() == (start == 100)
        assert peer.recv(1) == [whole]


def test_a_port_can_be_closed_and_opened_again_and_again(nm, peer, frame, programs):
    for _ in range(10):
        with nm.open("netmap:va") as port:
            peer.send(frame(255, 1))
            assert port.recv(timeout=30) == [frame(255, 1)]
            assert len(programs("va")) == 1
        assert programs("va") == []


def test_frames_go_to_the_host_again_once_the_port_is_closed(nm, peer, peer_of, frame):
    host = peer_of("va")
    with nm.open("netmap:va") as port:
        peer.send(frame(255, 1, 60, 1))
        assert port.recv(timeout=30) == [frame(255, 1, 60, 1)]
    peer.send(frame(255, 1, 60, 2))
    assert host.recv(1) == [frame(255, 1, 60, 2)]


def test_two_ports_exchange_frames_by_their_interfaces(nm, veth, frame, gather):
    with nm.open("netmap:va") as a, nm.open("netmap:vb") as b:
        for one, other in ((a, b), (b, a)):
            frames = numbered(frame, 100)
            assert one.send(frames, timeout=30) == 100
            assert gather(other, 100) == frames


# -- queues -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_queues(namespace):
    queues = "numtxqueues 2 numrxqueues 2"
    namespace(f"link add va {queues} type veth peer name vb {queues}", "link set va up", "link set vb up")


def test_a_port_has_a_ring_for_each_queue(nm, two_queues, frame):
    with nm.open("netmap:va") as a, nm.open("netmap:vb") as b:
        assert [len(rings) for rings in (a.tx_rings, a.rx_rings, b.tx_rings, b.rx_rings)] == [2] * 4
        for queue in range(2):
            a.send([frame(255, 1, 60, queue)], ring=queue, timeout=30)
            b.poll(timeout=30)
            assert [ring.space() for ring in b.rx_rings] == [int(queue == 0), int(queue == 1)]
            assert b.recv(timeout=30) == [frame(255, 1, 60, queue)]


def test_one_queue_may_be_opened_and_the_host_keeps_the_other(nm, two_queues, peer_of, frame):
    host = peer_of("va")
    with nm.open("netmap:va-1") as a, nm.open("netmap:vb") as b:
        b.send([frame(255, 1, 60, 1)], ring=1, timeout=30)
        assert a.recv(timeout=30) == [frame(255, 1, 60, 1)]
        b.send([frame(255, 1, 60, 0)], ring=0, timeout=30)
        assert host.recv(1) == [frame(255, 1, 60, 0)]
        with nm.open("netmap:va-0") as other:
            b.send([frame(255, 1, 60, 2)], ring=0, timeout=30)
            assert other.recv(timeout=30) == [frame(255, 1, 60, 2)]
        b.send([frame(255, 1, 60, 3)], ring=0, timeout=30)
        assert host.recv(1) == [frame(255, 1, 60, 3)]
        b.send([frame(255, 1, 60, 4)], ring=1, timeout=30)
        assert a.recv(timeout=30) == [frame(255, 1, 60, 4)]


def test_a_port_that_only_sends_leaves_frames_to_the_host(nm, peer, peer_of, frame):
    host = peer_of("va")
    with nm.open("netmap:va/T") as port:
        peer.send(frame(255, 1, 60, 1))
        assert host.recv(1) == [frame(255, 1, 60, 1)]
        with nm.open("netmap:va/R") as receiver:
            peer.send(frame(255, 1, 60, 2))
            assert receiver.recv(timeout=30) == [frame(255, 1, 60, 2)]
        port.send([frame(255, 1, 60, 3)], timeout=30)
        assert peer.recv(1) == [frame(255, 1, 60, 3)]
        with nm.open("netmap:va/R") as receiver:
            peer.send(frame(255, 1, 60, 4))
            assert receiver.recv(timeout=30) == [frame(255, 1, 60, 4)]


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_a_sleeping_receiver_is_woken_by_a_frame(nm, peer, frame, meanwhile, wait_until_asleep):
    with nm.open("netmap:va") as port:
        received = meanwhile(port.recv, timeout=60)
        wait_until_asleep(port)
        peer.send(frame(255, 1))
        assert received() == [frame(255, 1)]


def test_a_sleeping_receiver_is_woken_by_closing_the_port(nm, veth, meanwhile, wait_until_asleep):
    port = nm.open("netmap:va")
    received = meanwhile(port.recv)
    wait_until_asleep(port)
    port.close()
    with pytest.raises(PortError, match="closed"):
        received()


def test_the_descriptor_is_readable_while_frames_are_there(nm, peer, frame):
    with nm.open("netmap:va") as port:
        poller = select.poll()
        poller.register(port.fileno(), select.POLLIN)
        assert poller.poll(0) == []
        for _ in range(2):
            peer.send(frame(255, 1))
            assert poller.poll(30000) != []
            assert port.recv(timeout=30) == [frame(255, 1)]
            port.rxsync()
            assert poller.poll(0) == []


# -- what hangs on a port ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["/rt", "/rtz"])
def test_a_monitor_sees_both_directions(nm, peer, frame, suffix, gather):
    with nm.open("netmap:va") as port, nm.open(f"netmap:va{suffix}") as monitor:
        peer.send(frame(255, 1, 60, 1))
        assert port.recv(timeout=30) == [frame(255, 1, 60, 1)]
        assert gather(monitor, 1) == [frame(255, 1, 60, 1)]
        port.send([frame(255, 1, 60, 2)], timeout=30)
        assert peer.recv(1) == [frame(255, 1, 60, 2)]
        port.txsync()
        assert gather(monitor, 1) == [frame(255, 1, 60, 2)]


def test_buffers_go_on_to_a_pipe_and_back_without_a_copy(nm, peer, frame):
    with nm.open("netmap:va") as port, nm.open("netmap:va{1") as master, nm.open("netmap:va}1") as slave:
        assert port.mem_id == master.mem_id
        for fill in range(5):
            peer.send(frame(255, 1, 60, fill))
            port.poll(timeout=30)
            source, target = port.rx_rings[0], master.tx_rings[0]
            index = int(source.slots[source.head]["buf_idx"])
            source.slots[source.head]["buf_idx"] = target.slots[target.head]["buf_idx"]
            target.slots[target.head]["buf_idx"] = index
            target.slots[target.head]["len"] = 60
            source.advance(1)
            target.advance(1)
            master.txsync()
            port.rxsync()
            slave.poll(timeout=30)
            assert int(slave.rx_rings[0].slots[slave.rx_rings[0].head]["buf_idx"]) == index
            assert slave.recv(timeout=30) == [frame(255, 1, 60, fill)]


# -- what cannot be opened --------------------------------------------------------------------------------------------


def test_an_interface_that_does_not_exist_is_refused(nm, namespace, refusal):
    refusal("ENXIO", nm.open, "netmap:nobody0", match="no port or network interface is called nobody0")


def test_an_interface_without_ethernet_frames_is_refused(nm, namespace, refusal):
    namespace("tuntap add t0 mode tun")
    refusal("EINVAL", nm.open, "netmap:t0", match="not Ethernet")


def test_somebody_elses_program_is_respected_unless_forced(nm, veth, peer, refusal, programs, frame):
    with Netmap() as other, other.open("netmap:va") as first:
        (number,) = programs("va")
        refusal("EBUSY", nm.open, "netmap:va", match=f"XDP program {number} of somebody else")
        assert programs("va") == [number]
        peer.send(frame(255, 1))
        assert first.recv(timeout=30) == [frame(255, 1)]
    with nm.open("netmap:va") as port:
        peer.send(frame(255, 1))
        assert port.recv(timeout=30) == [frame(255, 1)]


def test_a_queue_of_another_program_is_refused_even_when_its_program_is_replaced(veth, refusal, programs):
    with Netmap() as first, first.open("netmap:va"), Netmap(force_xdp=True) as second:
        refusal("EBUSY", second.open, "netmap:va", match="queue 0 cannot be bound")


def test_a_forced_port_takes_the_place_of_a_program_that_has_no_socket(veth, peer, frame, programs):
    foreign = Redirect(find_interface("va"), 1)
    (number,) = programs("va")
    with Netmap(force_xdp=True) as nm, nm.open("netmap:va") as port:
        assert number not in programs("va")
        peer.send(frame(255, 1))
        assert port.recv(timeout=30) == [frame(255, 1)]
    foreign.close()
    assert programs("va") == []


def test_memory_that_is_not_laid_out_for_frames_is_refused(nm, veth, refusal):
    with nm.open("vale0:a"):
        refusal("EINVAL", nm.open, "netmap:va@share=vale0:a", match="not laid out for AF_XDP")


def test_an_exclusive_port_is_alone(nm, veth, refusal):
    with nm.open("netmap:va/x"):
        refusal("EBUSY", nm.open, "netmap:va", match="exclusively")
    with nm.open("netmap:va"), nm.open("netmap:va"):
        refusal("EBUSY", nm.open, "netmap:va/x", match="exclusively")


def test_neither_an_opening_that_fails_nor_a_port_that_is_closed_leaves_anything_behind(nm, veth, refusal):
    def descriptors():
        gc.collect()
        return sorted(path.name for path in Path("/proc/self/fd").iterdir())

    nm.open("netmap:va").close()  # the thread that watches interfaces stays
    before = descriptors()
    foreign = Redirect(find_interface("va"), 1)
    for _ in range(3):
        refusal("EBUSY", nm.open, "netmap:va")
    foreign.close()
    nm.open("netmap:va").close()
    assert descriptors() == before
    assert nm.audit() == []


# -- what becomes of the interface, and of us -------------------------------------------------------------------------


def test_an_interface_that_goes_ends_the_wait_with_an_error(nm, veth, meanwhile, wait_until_asleep):
    with nm.open("netmap:va") as port:
        received = meanwhile(port.recv)
        wait_until_asleep(port)
        veth("link del va")
        with pytest.raises(PortError, match="va has gone") as gone:
            received()
        assert gone.value.errno == errno.ENXIO
        with pytest.raises(PortError, match="va has gone"):
            port.send([bytes(60)], timeout=30)


def test_another_interface_of_the_name_can_be_opened_beside_the_one_that_went(nm, veth, peer_of, frame, eventually):
    with nm.open("netmap:va") as lost:
        veth("link del va")
        eventually(lambda: lost.adapter.is_gone)
        veth("link add va type veth peer name vb", "link set va up", "link set vb up")
        with nm.open("netmap:va") as port:
            peer_of("vb").send(frame(255, 1))
            assert port.recv(timeout=30) == [frame(255, 1)]
    with nm.open("netmap:va"):
        pass


def test_a_port_outlives_its_interface_being_turned_off_and_on(nm, veth, peer, frame, eventually):
    with nm.open("netmap:va", tx_slots=8) as port:
        veth("link set va down")
        port.inject(frame(255, 1, 60, 1))
        port.txsync()
        veth("link set va up")
        port.send([frame(255, 1, 60, 2)], timeout=30)
        eventually(lambda: port.txsync() is None and peer.waits())
        assert peer.recv(2) == [frame(255, 1, 60, 1), frame(255, 1, 60, 2)]


def test_an_interface_that_is_down_when_opened_works_once_it_is_up(nm, namespace, peer_of, frame):
    namespace("link add va type veth peer name vb", "link set vb up")
    with nm.open("netmap:va") as port:
        namespace("link set va up")
        peer_of("vb").send(frame(255, 1))
        assert port.recv(timeout=30) == [frame(255, 1)]


def test_a_process_that_is_killed_leaves_no_program_behind(veth, peer, peer_of, frame, programs, eventually):
    code = "import ptnetmap, time; p = ptnetmap.Netmap().open('netmap:va'); print('open', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"open\n"
            assert len(programs("va")) == 1
        finally:
            os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: programs("va") == [])
    with Netmap() as nm, nm.open("netmap:va") as port:
        peer.send(frame(255, 1))
        assert port.recv(timeout=30) == [frame(255, 1)]


WITH_CAPABILITIES = """if True:
    import ctypes, resource, sys
    import ptnetmap
    resource.setrlimit(resource.RLIMIT_MEMLOCK, ({limit}, {limit}))
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    for capability in {capabilities}:
        sets[3 * (capability // 32)] |= 1 << capability % 32  # effective
        sets[3 * (capability // 32) + 1] |= 1 << capability % 32  # permitted
    assert ctypes.CDLL(None).capset(header, sets) == 0
    try:
        with ptnetmap.Netmap(nic_mode="{mode}") as nm, nm.open("netmap:va") as port:
            print("open", len(port.rx_rings), port.adapter.mode, port.rx_rings[0].num_slots)
    except ptnetmap.PortError as error:
        print(error.name, error)
"""
NET_ADMIN, NET_RAW, IPC_LOCK, BPF = 12, 13, 14, 39


@pytest.mark.parametrize(
    ("capabilities", "outcome"),
    [
        ([NET_ADMIN, NET_RAW, IPC_LOCK, BPF], "open 1 copy"),
        ([NET_ADMIN, NET_RAW, BPF], "ulimit -l"),  # a limit of 64 KiB: too little for any rings
        ([NET_ADMIN, IPC_LOCK, BPF], "CAP_NET_RAW"),
        ([NET_RAW, IPC_LOCK, BPF], "open 1 AF_PACKET"),
        ([NET_ADMIN, NET_RAW, IPC_LOCK], "open 1 AF_PACKET"),
        ([NET_RAW], "open 1 AF_PACKET"),
        ([], "CAP_NET_RAW"),
    ],
)
def test_a_port_needs_few_capabilities_and_an_error_names_what_is_missing(veth, programs, capabilities, outcome):
    code = WITH_CAPABILITIES.format(capabilities=capabilities, mode="auto", limit=1 << 16)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome in ended.stdout, ended.stderr
    assert programs("va") == []


@pytest.mark.parametrize(
    ("capabilities", "missing"),
    [([NET_RAW, IPC_LOCK, BPF], "CAP_NET_ADMIN"), ([NET_ADMIN, NET_RAW, IPC_LOCK], "CAP_BPF")],
)
def test_a_port_that_must_be_of_af_xdp_is_refused_where_that_is_not_allowed(veth, capabilities, missing):
    code = WITH_CAPABILITIES.format(capabilities=capabilities, mode="xdp", limit=1 << 16)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert missing in ended.stdout, ended.stderr


@pytest.mark.parametrize(("limit", "slots"), [(6 << 20, 512), (1 << 20, 64)])
def test_a_ports_memory_fits_the_limit_of_locked_memory(veth, limit, slots):
    code = WITH_CAPABILITIES.format(capabilities=[NET_ADMIN, NET_RAW, BPF], mode="xdp", limit=limit)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == f"open 1 copy {slots}\n", ended.stderr


# -- busy polling

_SO_PREFER_BUSY_POLL = 69


def test_frames_pass_both_ways_while_our_calls_poll_the_driver(peer, frame, gather):
    settings = "echo 2 >napi_defer_hard_irqs && echo 200000 >gro_flush_timeout"
    shell = f"mount -t sysfs sysfs /sys && cd /sys/class/net/va && {settings}"  # /sys shows another namespace
    subprocess.run(["unshare", "--mount", "sh", "-c", shell], check=True)
    frames = numbered(frame, 500)
    with Netmap(busy_poll=64) as nm, nm.open("netmap:va", tx_slots=64, rx_slots=64) as port:
        kernels = port.adapter._queues._open[0].socket._socket
        assert kernels.getsockopt(socket.SOL_SOCKET, _SO_PREFER_BUSY_POLL) == 1
        for i in range(0, len(frames), 50):
            assert port.send(frames[i : i + 50], timeout=30) == 50
            assert peer.recv(50) == frames[i : i + 50]
            for one in frames[i : i + 50]:
                peer.send(one)
            assert gather(port, 50) == frames[i : i + 50]
    assert nm.audit() == []


@pytest.mark.parametrize("frames", [-1, 65_536])
def test_a_driver_cannot_be_polled_for_fewer_frames_than_none_or_more_than_the_kernel_counts(refusal, frames):
    refusal("EINVAL", Netmap, busy_poll=frames, match="use 1 to 65535")
