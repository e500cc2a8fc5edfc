# SPDX-License-Identifier: BSD-2-Clause
"""Debian's stock kernel and virtio_net on a switch of ours: two guests of QEMU by vhost-user, or of bhyve."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.nest.conftest import run_nest
from tests.nest.test_debian_in_bhyve import CMDLINE, Guest

pytestmark = pytest.mark.nest

PROGRAMS = Path(sys.executable).parent
NO_OFFLOADS = (
    *("csum", "guest_csum", "gso", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo"),
    *("host_tso4", "host_tso6", "host_ecn", "host_ufo", "mrg_rxbuf", "indirect_desc", "event_idx"),
)
ROLES = {1: "send", 2: "receive"}
PATIENCE = 60


@pytest.fixture(scope="module")
def net_initramfs(kernel, tmp_path_factory):
    """Initial file system of a guest that exchanges files with its peer."""
    path = tmp_path_factory.mktemp("net") / "initramfs"
    modules = [f"--module={name}" for name in ("virtio_pci", "virtio_net")]
    run_nest(f"--initramfs={path}", f"--init={Path(__file__).with_name('net_init.sh')}", *modules, check=True)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a netmapd's socket in it, which goes when nobody uses it any more."""
    path = tmp_path_factory.mktemp("switch")
    environment = {**os.environ, "NETMAP_SOCKET": str(path / "netmapd")}
    subprocess.run(
        [PROGRAMS / "netmapd", "--idle", "5"], env=environment, check=True, stdout=subprocess.DEVNULL, timeout=300
    )
    return path


@pytest.fixture
def vhost_user(place):
    """Serve a vhost-user socket for a port of the switch; return the socket's path."""
    servers = []

    def serve(port):
        path = place / port.replace(":", "-")
        environment = {**os.environ, "NETMAP_SOCKET": str(place / "netmapd")}
        servers.append(
            subprocess.Popen(
                [PROGRAMS / "ptnetmap", "vhost-user", port, path], env=environment, stdout=subprocess.DEVNULL
            )
        )
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            assert servers[-1].poll() is None, "the server has ended"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return path

    yield serve
    for server in servers:
        server.send_signal(signal.SIGTERM)
    assert [server.wait(PATIENCE) for server in servers] == [0] * len(servers)


def qemu(kernel, initramfs, number, socket, options, memory):
    # Without MSI-X: QEMU 7.2 crashes when a back end of vhost-user gets interrupts of a guest that it emulates.
    device = ",".join(["virtio-net-pci", "netdev=net", "vectors=0", f"mac=02:00:00:00:00:0{number}", *options])
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-M", "q35,memory-backend=ram", "-accel", "tcg", "-cpu", "max", "-m", "256M"),
        *("-object", f"{memory},id=ram,size=256M,share=on"),
        *("-kernel", kernel, "-initrd", initramfs, "-append", f"{CMDLINE} {arguments(number)}"),
        *("-chardev", f"socket,id=port,path={socket}", "-netdev", "vhost-user,id=net,chardev=port"),
        *("-device", device),
    ]


def arguments(number):
    return f"address=10.0.0.{number} peer=10.0.0.{3 - number} role={ROLES[number]}"


@pytest.fixture(params=["every offload", "no offload", "memory that may vanish"])
def guests(request, kernel, net_initramfs, vhost_user, tmp_path):
    memory = "memory-backend-memfd"
    if request.param == "memory that may vanish":  # a worker process serves the guest then
        memory = f"memory-backend-file,mem-path={tmp_path}"
    options = [f"{name}=off" for name in NO_OFFLOADS] if request.param == "no offload" else []
    running = [
        subprocess.Popen(
            qemu(kernel, net_initramfs, number, vhost_user(f"vale0:{number}"), options, memory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in ROLES
    ]
    done = []
    for one in running:
        output, errors = one.communicate(timeout=300)
        done.append(Guest(subprocess.CompletedProcess(one.args, one.returncode, output, errors)))
    return done, not options


def test_two_guests_of_qemu_exchange_a_file_by_vhost_user(guests):
    (sender, receiver), with_offloads = guests
    for guest in (sender, receiver):
        assert guest.status == 0, guest.output + guest.errors
        assert "failed" not in guest.facts, guest.output
        assert guest.facts["driver"] == ["virtio_net"]
        assert guest.facts["ping"] == ["5"]
        assert guest.facts["rx_errors"] == ["0"]
        # Features 0, 1, 11: checksums either way, TCP segmentation.
        assert {guest.facts["features"][0][bit] for bit in (0, 1, 11)} == {"1" if with_offloads else "0"}
    assert sender.facts["digest"] == receiver.facts["digest"] == sender.facts["answer"]
    frames = int(sender.facts["tx_packets"][0])
    assert (frames < 2 * 16 * 2**20 / 1448 / 2) == with_offloads, "TCP is sent whole exactly with offloads"
