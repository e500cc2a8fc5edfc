# SPDX-License-Identifier: BSD-2-Clause

import pytest

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
