# SPDX-License-Identifier: BSD-2-Clause
"""The tools on network interfaces, as processes."""

import contextlib
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.root


@pytest.fixture
def program(netmapd):
    """Run one of the tools; it is told to stop at the end of the block."""

    @contextlib.contextmanager
    def run(name, *arguments):
        command = [sys.executable, "-m", f"ptnetmap.cli.{name}", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)

    return run


def read_until(process, text):
    """Read what a process prints until a line with ``text``, and return that."""
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return line
    raise AssertionError("".join(said))


def test_pkt_gen_sends_what_it_is_told_to(program, peer):
    with program("pkt_gen", "-i", "netmap:va", "-f", "tx", "-n", "1000", "-w", "0", "-l", "100") as pkt_gen:
        assert {len(frame) for frame in peer.recv(1000)} == {100}
        assert "Sent 1000 packets 100000 bytes" in read_until(pkt_gen, "Sent ")
        assert pkt_gen.wait(30) == 0


def test_pkt_gen_receives_what_comes(program, peer, frame):
    with program("pkt_gen", "-i", "netmap:va", "-f", "rx", "-n", "100", "-w", "0") as pkt_gen:
        read_until(pkt_gen, "reading from")
        for _ in range(100):
            peer.send(frame(255, 1))
        assert "Received 100 packets 6000 bytes" in read_until(pkt_gen, "Received ")


@pytest.mark.parametrize(("share", "how"), [("", "NOT supported"), ("@share=netmap:va", "supported")])
def test_bridge_joins_two_interfaces(program, namespace, peer, peer_of, frame, share, how):
    namespace("link add vc type veth peer name vd", "link set vc up", "link set vd up")
    other = peer_of("vd")
    with program("bridge", "-w", "0", "-i", "netmap:va", "-i", f"netmap:vc{share}") as bridge:
        assert f"zerocopy {how}" in read_until(bridge, "zerocopy")
        read_until(bridge, "Ready to go")
        for fill in range(10):
            for one, opposite in ((peer, other), (other, peer)):
                one.send(frame(255, 1, 60 + fill, fill))
                assert opposite.recv(1) == [frame(255, 1, 60 + fill, fill)]
