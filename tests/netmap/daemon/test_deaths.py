# SPDX-License-Identifier: BSD-2-Clause
"""Clients that die at every line of their syncs, one after the other: nobody else may notice."""

import os
import signal
import subprocess
import sys

import pytest

import ptnetmap
from ptnetmap.netmap.client.session import connect
from ptnetmap.netmap.daemon.locks import holder
from ptnetmap.netmap.daemon.place import beside
from ptnetmap.netmap.wire import extension

DYING = """
import os, signal, sys
import ptnetmap
from ptnetmap.netmap.scratch import scratch
scratch()
FRAME = bytes.fromhex("ffffffffffff0200000000090800") + bytes(46)
WATCHED = ("csb.py", "sync.py", "pipe.py", "packets.py", "kring.py")

def die_after(lines):
    left = lines
    def trace(frame, event, argument):
        nonlocal left
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)

def work(name, lines):
    port = ptnetmap.open(name)
    port.recv(timeout=0)
    die_after(lines)
    while True:
        port.send([FRAME] * 3, timeout=0)
        port.recv(2, timeout=0)
        for ring in port.tx_rings:  # as a bridge does: two buffers change places, with death in between
            if ring.space() > 1:
                first, second = ring.slots[ring.head], ring.slots[(ring.head + 1) % ring.num_slots]
                first["buf_idx"], second["buf_idx"] = second["buf_idx"], first["buf_idx"]

for command in sys.stdin:
    name, lines = command.split()
    pid = os.fork()
    if pid == 0:
        work(name, int(lines))
    os.waitpid(pid, 0)
    print("dead", flush=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("netmapd")
    directory.chmod(0o700)
    path = directory / "netmap"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETMAP_SOCKET", str(path))
        yield path
    pid = holder(beside(path, "lock"))
    if pid:
        os.kill(pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def undertaker(place):
    """Forks processes that open a port and die at a given line, from one that has imported everything."""
    ptnetmap.open("vale0:first").close()
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", DYING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )

    def die(name, lines):
        process.stdin.write(f"{name} {lines}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "dead\n"

    with process:
        yield die
        process.stdin.close()


def audit():
    with connect(start=False) as session:
        return extension.introspect(session.request, extension.AUDIT)


def frame(number):
    return b"\xff" * 6 + bytes([2, 0, 0, 0, 0, 1]) + b"\x08\x00" + number.to_bytes(4, "big") + bytes(42)


NAMES = ["vale0:dying", "netmap:q{1", "netmap:q}1"]
SOME = range(5, 700, 131)
MANY = [*range(0, 160, 3), *range(160, 1200, 31)]


@pytest.mark.parametrize(
    ("name", "deaths"),
    [*((name, SOME) for name in NAMES), *(pytest.param(name, MANY, marks=pytest.mark.slow) for name in NAMES)],
)
def test_a_client_may_die_at_any_line_of_its_syncs(undertaker, name, deaths):
    other = {"netmap:q{1": "netmap:q}1", "netmap:q}1": "netmap:q{1"}.get(name, "vale0:dying2")
    with (
        ptnetmap.open("vale0:a") as a,
        ptnetmap.open("vale0:b", lossless=True) as b,
        ptnetmap.open(other) as peer,
    ):
        for lines in deaths:
            undertaker(name, lines)
            b.recv(4000, timeout=0)
            assert a.send([frame(lines)], timeout=60) == 1
            assert frame(lines) in b.recv(timeout=60)
            assert peer.recv(4000, timeout=0) is not None
            peer.send([frame(1)] * 5, timeout=0)
            for one in audit():
                assert one["ok"], f"killed after {lines} lines: {one['report']}"
