# SPDX-License-Identifier: BSD-2-Clause
CSB = 0x10000


def test_packets_pass_between_guest_and_host(pair, peer, frame, patiently):
    host = peer("vale1:2")
    guest = pair.ptnet()
    assert guest.create(CSB) == 0
    for i in range(5):
        assert guest.tx[0].send([frame(1, i)]) == 1
        assert host.recv(timeout=30) == [frame(1, i)]
        host.send([frame(2, i)])
        assert patiently(guest.rx[0].receive, "a frame") == [frame(2, i)]
