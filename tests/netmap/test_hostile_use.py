# SPDX-License-Identifier: BSD-2-Clause
import threading

import pytest

from ptnetmap import POLLIN, PeerError

WITHIN = 30
FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(46)

pytestmark = pytest.mark.interpreted


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_slots", 2), ("num_slots", 0), ("num_slots", 2**32 - 1), ("nr_buf_size", 0), ("buf_ofs", 1 << 40)],
)
def test_a_ring_whose_constants_were_overwritten_is_opened_and_read_as_it_was_made(nm, field, value):
    sender, reader = nm.open("netmap:x{1"), nm.open("netmap:x}1")
    sender.send([FRAME] * 5)
    reader.rx_rings[0].header[field] = value

    with nm.open("netmap:x}1") as again:
        assert again.rx_rings[0].num_slots == 1024
        assert again.rx_rings[0].buffer(0).shape == (2048,)
    seen = []
    assert reader.dispatch(lambda header, data: seen.append(bytes(data))) == 5
    assert seen == [FRAME] * 5


def test_a_port_closed_in_its_own_callback_hands_its_memory_on_only_after_the_callback(nm):
    sender, reader = nm.open("netmap:x{1"), nm.open("netmap:x}1")
    sender.send([FRAME] * 4)
    seen = []

    def close_and_reuse(header, data):
        seen.append(bytes(data))
        reader.close()
        sender.close()
        with nm.open("netmap:x{2") as other, nm.open("netmap:x}2") as target:
            other.send([b"secret".ljust(60)] * 5)
            assert [frame.strip() for frame in target.recv(timeout=1)] == [b"secret"] * 5

    assert reader.dispatch(close_and_reuse) == 1
    assert seen == [FRAME]
    assert nm.list() == []


def test_callbacks_that_close_each_others_port_do_not_wait_for_each_other(nm):
    ports = {name: (nm.open(f"netmap:{name}{{1"), nm.open(f"netmap:{name}}}1")) for name in ("x", "y")}
    both_inside = threading.Barrier(2)

    def serve(mine, other):
        def callback(header, data):
            both_inside.wait(WITHIN)
            ports[other][1].close()

        ports[mine][1].dispatch(callback, 1)

    for sender, _ in ports.values():
        sender.send([FRAME])
    threads = [threading.Thread(target=serve, args=pair) for pair in (("x", "y"), ("y", "x"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    assert not any(thread.is_alive() for thread in threads)


def test_a_port_that_joins_two_switches_comes_and_goes_under_traffic(nm):
    nm.create("joint")
    nm.attach("vale0:joint")
    sources = [nm.open(f"vale0:{i}") for i in range(2)]
    far = nm.open("vale1:far")
    stop = threading.Event()
    errors = []

    def flood(port):
        try:
            while not stop.is_set():
                port.send([FRAME] * 64)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=flood, args=(port,)) for port in sources]
    for thread in threads:
        thread.start()
    for _ in range(40):
        nm.attach("vale1:joint")
        far.recv(timeout=0)
        nm.detach("vale1:joint")
    stop.set()
    for thread in threads:
        thread.join(WITHIN)
    assert errors == []
    assert all(audit.ok for audit in nm.audit())


def test_a_reader_that_overwrites_head_between_syncs_gets_an_error_and_no_packet_twice(nm):
    sender, reader = nm.open("netmap:x{1"), nm.open("netmap:x}1")
    sender.send([FRAME] * 3)
    reader.rxsync()
    reader.rx_rings[0].head = 900

    with pytest.raises(PeerError):
        reader.recv(timeout=0)
    assert reader.poll(POLLIN, 0) & ~POLLIN
