# SPDX-License-Identifier: BSD-2-Clause
import os
import signal
import subprocess
import sys

import pytest

from ptnetmap.errors import ConfigError
from ptnetmap.netmap.client import guestport

CSB = 0x10000
HYPERVISOR = """
import os, time
from ptnetmap.netmap.client.guestport import CSB_ENTRIES, CSB_PAGE_2015, GuestPort
from ptnetmap.vmm.memory import GuestMemory

port = GuestPort({name!r})
memory = GuestMemory(1 << 20)
kicks, irqs = ([os.eventfd(0) for _ in range(2)] for _ in range(2))
port.start({layout}, memory.fd, [0x4000, 0x5000], kicks, irqs)
print("started", flush=True)
time.sleep(600)
"""


def opened(machine, name):
    """A machine that passes the port through, None while somebody has it."""
    try:
        return machine({"3": "ptnetmap-memdev", "4": f"ptnet,pt{name}"})
    except ConfigError:
        return None


@pytest.mark.parametrize("layout", ["CSB_ENTRIES", "CSB_PAGE_2015"])
@pytest.mark.parametrize("name", ["vale1:1", "netmap:x{1"])
def test_the_port_of_a_machine_that_was_killed_can_be_opened_again(
    netmapd, machine, peer, frame, patiently, name, layout
):
    before = netmapd.census()
    other = peer("netmap:x}1" if "{" in name else "vale1:2")
    program = HYPERVISOR.format(name=name, layout=layout)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        assert netmapd.census()[1] > before[1]
        process.kill()

    guest = patiently(lambda: opened(machine, name), "the port").ptnet()
    assert guest.create(CSB) == 0
    guest.tx[0].send([frame(1)])
    assert other.recv(timeout=30) == [frame(1)]
    assert netmapd.census()[1] == 2


def test_a_netmapd_that_answers_too_late_serves_nobody_then(netmapd, machine, peer, frame, patiently, monkeypatch):
    before = netmapd.census()
    monkeypatch.setattr(guestport, "PATIENCE", 0.2)
    late = machine({"3": "ptnetmap-memdev", "4": "ptnet,ptvale1:1"})
    os.kill(netmapd.pid, signal.SIGSTOP)
    try:
        assert late.ptnet().create(CSB) != 0
    finally:
        os.kill(netmapd.pid, signal.SIGCONT)
    assert late.device("4").port.netmap.gone
    assert late.device("4").port.netmap.loss == "has not answered for 0.2 s"
    monkeypatch.undo()
    monkeypatch.setenv("NETMAP_SOCKET", str(netmapd.path))

    guest = patiently(lambda: opened(machine, "vale1:1"), "the port").ptnet()
    other = peer("vale1:2")
    assert guest.create(CSB) == 0
    guest.tx[0].send([frame(1)])
    assert other.recv(timeout=30) == [frame(1)]
    assert netmapd.census()[1] == before[1] + 2
