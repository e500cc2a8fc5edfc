# SPDX-License-Identifier: BSD-2-Clause
"""The tools on network interfaces, as processes."""

import pytest

pytestmark = pytest.mark.root


def test_pkt_gen_sends_what_it_is_told_to(program, read_until, peer):
    with program("pkt_gen", "-i", "netmap:va", "-f", "tx", "-n", "1000", "-w", "0", "-l", "100") as pkt_gen:
        assert {len(frame) for frame in peer.recv(1000)} == {100}
        assert "Sent 1000 packets 100000 bytes" in read_until(pkt_gen, "Sent ")
        assert pkt_gen.wait(30) == 0


def test_pkt_gen_receives_what_comes(program, read_until, peer, frame):
    with program("pkt_gen", "-i", "netmap:va", "-f", "rx", "-n", "100", "-w", "0") as pkt_gen:
        read_until(pkt_gen, "reading from")
        for _ in range(100):
            peer.send(frame(255, 1))
        assert "Received 100 packets 6000 bytes" in read_until(pkt_gen, "Received ")


@pytest.mark.parametrize(("share", "how"), [("", "NOT supported"), ("@share=netmap:va", "supported")])
def test_bridge_joins_two_interfaces(program, read_until, namespace, peer, peer_of, frame, share, how):
    namespace("link add vc type veth peer name vd", "link set vc up", "link set vd up")
    other = peer_of("vd")
    with program("bridge", "-w", "0", "-i", "netmap:va", "-i", f"netmap:vc{share}") as bridge:
        assert f"zerocopy {how}" in read_until(bridge, "zerocopy")
        read_until(bridge, "Ready to go")
        for fill in range(10):
            for one, opposite in ((peer, other), (other, peer)):
                one.send(frame(255, 1, 60 + fill, fill))
                assert opposite.recv(1) == [frame(255, 1, 60 + fill, fill)]
