# SPDX-License-Identifier: BSD-2-Clause
# DPDK's virtio-user, by testpmd, as the driver of a port: the vhost-user command and netmapd as processes of their own.
import operator
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import ptnetmap
from ptnetmap.bench.pair import two_cores
from ptnetmap.bench.prompt import Prompt
from ptnetmap.bench.testpmd import Link, command_line, look

pytestmark = pytest.mark.dpdk

PROGRAMS = Path(sys.executable).parent
PATIENCE = 120
SENT = 20_000
ROOM = 500
LAYOUTS = {
    "split": "mrg_rxbuf=0",
    "split, mergeable": "mrg_rxbuf=1",
    "split, in order": "in_order=1,mrg_rxbuf=0",
    "packed": "packed_vq=1,mrg_rxbuf=0",
    "packed, mergeable": "packed_vq=1,mrg_rxbuf=1",
    "packed, in order": "packed_vq=1,in_order=1,mrg_rxbuf=0",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a netmapd and a vhost-user server listen, until the end."""
    path = tmp_path_factory.mktemp("testpmd")
    environment = {**os.environ, "NETMAP_SOCKET": str(path / "netmapd")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETMAP_SOCKET", environment["NETMAP_SOCKET"])
        server = subprocess.Popen(
            [PROGRAMS / "ptnetmap", "vhost-user", "vale0:driver", path / "socket"],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE
        while not (path / "socket").exists():
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield path
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def driver(request, place):
    """A testpmd, at its prompt."""
    vdev = f"net_virtio_user0,path={{socket}},queues=1,queue_size=1024,{request.param}"
    command = command_line(Link("virtio-user", ("", vdev)), 1, two_cores() or (0, 0), str(place))
    with Prompt(command, {**os.environ, "RUNTIME_DIRECTORY": str(place)}, "testpmd> ", PATIENCE) as prompt:
        yield prompt


def collect(port, until):
    """Receive until ``until`` says of the frames so far that these are all."""
    frames = []
    deadline = time.monotonic() + PATIENCE
    while not until(len(frames)):
        assert time.monotonic() < deadline, f"{len(frames)} frames"
        frames += port.recv(timeout=0.1)
    return frames


def test_what_testpmd_sends_arrives_and_what_is_sent_to_it_is_counted_there(driver, frame):
    with ptnetmap.open("vale0:host", lossless=True) as port:
        for size in (60, 1514):
            driver.ask(f"set txpkts {size}")
            driver.ask("set fwd txonly")
            before = look(driver).tx_packets
            driver.ask("start")
            frames = collect(port, partial(operator.le, SENT))
            driver.ask("stop")
            sent = look(driver).tx_packets - before
            frames += collect(port, partial(operator.le, sent - len(frames)))
            assert len(frames) == sent
            assert {len(one) for one in frames} == {size}
            assert len({one[:42] for one in frames}) < SENT  # they are testpmd's: addresses, IP and UDP
            driver.ask("set fwd rxonly")
            driver.ask("start")
            counted = look(driver)
            for times in range(1, 4):  # no more at once than the driver has room for
                port.send([frame(255, 1, size, times)] * ROOM)
                deadline = time.monotonic() + PATIENCE
                while (now := look(driver)).rx_packets - counted.rx_packets < times * ROOM:
                    assert time.monotonic() < deadline, now
                    time.sleep(0.01)
            driver.ask("stop")
            assert now.rx_bytes - counted.rx_bytes == 3 * ROOM * size
