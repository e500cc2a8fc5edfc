# SPDX-License-Identifier: BSD-2-Clause
"""A netmapd of its own, interpreted, and machines without KVM whose devices pass its ports through."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import ptnetmap
from ptnetmap.bhyve import devices
from ptnetmap.bhyve.passthrough.mock import MockPtnet, MockVirtioNet
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.pci.device import DEVICES
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.netmap.client.session import connect
from ptnetmap.netmap.daemon.locks import holder, life_lock
from ptnetmap.netmap.daemon.patience import Patience
from ptnetmap.netmap.wire import extension

PATIENCE = 30
CSB = 0x10000


def wait_until(condition, what=""):
    """Return the first true value of a condition; fail if there is none for too long."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.001)
    return value


class Netmapd:
    """A netmapd at a socket of its own, interpreted or compiled, and what a test wants to know of it."""

    def __init__(self, path, *, interpreted=True):
        self.path = path
        self.interpreted = interpreted
        self.start()

    def start(self):
        path = self.path
        command = [sys.executable, "-m", "ptnetmap.cli.netmapd", "--socket", str(path), "--idle", "600"]
        environment = {**os.environ, "NUMBA_DISABLE_JIT": str(int(self.interpreted))}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        self.pid = holder(life_lock(path).file)

    def end(self, number=signal.SIGTERM):
        """End it, and return when it has ended."""
        if Path(f"/proc/{self.pid}").exists():
            os.kill(self.pid, number)
        with Patience(PATIENCE) as patience, life_lock(self.path) as lock:
            lock.acquire(patience)
        wait_until(lambda: not Path(f"/proc/{self.pid}").exists(), "the end of netmapd")

    def census(self):
        """Numbers of its descriptors, and of its mappings of guests' memory."""
        fds = sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())
        return fds, Path(f"/proc/{self.pid}/maps").read_text().count("memfd:guest-memory")

    def ask(self, reqtype, name="", body=None):
        with connect(str(self.path)) as session:
            if reqtype in extension.TEXT_REQUESTS:
                return extension.introspect(session.request, reqtype, name)
            return session.request(reqtype, name, body or {})

    def stats(self, name):
        """The counters of a port, as PORT_STATS has them."""
        return self.ask(extension.PORT_STATS, name)

    def served(self):
        """Rings that kthreads serve, by port."""
        return {port for thread in self.ask(extension.KTHREAD_LIST) for port in thread["ports"]}


@pytest.fixture(scope="session")
def _place():
    with tempfile.TemporaryDirectory(prefix="passthrough-") as directory:
        yield Path(directory) / "s"


@pytest.fixture(scope="session")
def _living(_place):
    daemons = []

    def living():
        if not daemons or not Path(f"/proc/{daemons[-1].pid}").exists():
            daemons.append(Netmapd(_place))
        return daemons[-1]

    yield living
    if daemons:
        daemons[-1].end()


@pytest.fixture
def netmapd(_living, monkeypatch):
    """The netmapd that devices and ports of a test find."""
    daemon = _living()
    monkeypatch.setenv("NETMAP_SOCKET", str(daemon.path))
    return daemon


@pytest.fixture
def patiently():
    """``patiently(condition, what)``: wait for it, with a deadline."""
    return wait_until


class Machine:
    """A machine with devices, by place: ``"4": "ptnet,ptvale1:1"``."""

    def __init__(self, host, slots):
        devices.load()
        self.host = host
        self.bus = PciBus(host)
        try:
            for place, text in slots.items():
                name, _, rest = text.partition(",")
                self.bus.create(Function.parse(place), name, DEVICES[name].parse_options(rest))
            self.bus.start()
        except BaseException:
            self.bus.close()
            raise

    def device(self, place):
        return self.bus.devices[Function.parse(place)]

    def ptnet(self, place="4"):
        return MockPtnet(self.bus, Function.parse(place))

    def virtio_net(self, place="4", **options):
        return MockVirtioNet(self.bus, Function.parse(place), **options)

    def close(self):
        self.bus.close()
        assert self.host.vm is None or self.host.vm.bufs == []


@pytest.fixture
def machine(netmapd, make_host):
    """Make machines: devices by place, and keywords for the host."""
    machines = []

    def make(slots, **options):
        machines.append(Machine(make_host(vm=True, **options), slots))
        return machines[-1]

    yield make
    for one in machines:
        one.close()


@pytest.fixture
def pair(machine):
    """A machine with a memdev and a ptnet on vale1:1."""
    return machine({"3": "ptnetmap-memdev", "4": "ptnet,ptvale1:1"})


@pytest.fixture
def peer(netmapd):
    """Open ports in this process; lossless unless told otherwise."""
    ports = []

    def open_port(name, **options):
        ports.append(ptnetmap.open(name, **options))
        return ports[-1]

    yield open_port
    for port in ports:
        port.close()


@pytest.fixture
def frame():
    """``frame(source, fill)``: a broadcast frame of 60 bytes."""
    return lambda source, fill=0: (b"\xff" * 6 + bytes([2, 0, 0, 0, 0, source]) + b"\x88\xb5" + bytes([fill]) * 60)[:60]
