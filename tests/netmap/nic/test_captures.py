# SPDX-License-Identifier: BSD-2-Clause
"""Frames of an interface as programs of the kernel's side write them down, and as they read what we have written."""

import shutil
import subprocess

import pytest

from ptnetmap.netmap.runtime import Netmap
from ptnetmap.pcap import PcapngWriter, open_capture
from ptnetmap.tools.capture import Session

pytestmark = pytest.mark.root
COUNT = 50


def needed(program):
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install {program})")
    return found


@pytest.fixture
def frames(frame):
    return [frame(255, 1, 60 + 20 * i, i) for i in range(COUNT)]


def test_tcpdump_on_the_far_side_writes_down_what_was_sent(nm, veth, frames, tmp_path):
    path = tmp_path / "file"
    # A slot of its ring is as large as what an interface with offloads may hand over, so its usual 2 MB are too few for all.
    options = [
        "-i",
        "vb",
        "-w",
        str(path),
        "-c",
        str(COUNT),
        "-s",
        "2048",
        "-B",
        "16384",
        "--immediate-mode",
        "-Z",
        "root",
    ]
    with (
        subprocess.Popen([needed("tcpdump"), *options], stderr=subprocess.PIPE, text=True) as tcpdump,
        nm.open("netmap:va") as port,
    ):
        try:
            assert any("listening on vb" in line for line in tcpdump.stderr)
            assert port.send(frames, timeout=30) == COUNT
            assert tcpdump.wait(30) == 0
        finally:
            tcpdump.kill()
    with open_capture(path) as capture:
        assert [record.data for record in capture] == frames


@pytest.mark.tshark
@pytest.mark.parametrize("mode", ["xdp", "af_packet"])
def test_tshark_sees_the_frames_that_came_in_at_an_interface(peer, frames, tmp_path, mode):
    program, path = needed("tshark"), tmp_path / "file"
    with Netmap(nic_mode=mode) as nm, nm.open("netmap:va") as port, nm.open("netmap:va/r") as monitor:
        for one in frames:
            peer.send(one)
        got = []
        while len(got) < COUNT:
            got += port.recv(timeout=30)
        with PcapngWriter(path) as out:
            assert Session(monitor, out, count=COUNT).run().packets == COUNT
    fields = ["-e", "frame.len", "-e", "eth.src", "-e", "data.data"]
    done = subprocess.run(
        [program, "-n", "-r", str(path), "-T", "fields", *fields], capture_output=True, text=True, check=True
    )
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        [str(len(one)), "02:00:00:00:00:01", one[14:].hex()] for one in frames
    ]
