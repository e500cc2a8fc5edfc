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

HERE = Path(__file__).parent
PROGRAMS = Path(sys.executable).parent
NO_OFFLOADS = (
    *("csum", "guest_csum", "gso", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo"),
    *("host_tso4", "host_tso6", "host_ecn", "host_ufo", "mrg_rxbuf", "indirect_desc", "event_idx"),
)
ROLES = {1: "send", 2: "receive"}
PATIENCE = 60
MEGABYTES = 16
FEW_MEGABYTES = 4
SEGMENT = 1448


@pytest.fixture(scope="module")
def net_initramfs(kernel, tmp_path_factory):
    """Initial file system of a guest that exchanges files with its peer."""
    directory = tmp_path_factory.mktemp("net")
    path, init = directory / "initramfs", directory / "init"
    functions, program = ((HERE / name).read_text() for name in ("exchange.sh", "net_init.sh"))
    first, _, rest = program.partition("\n")
    init.write_text("\n".join([first, functions, rest]))
    modules = [f"--module={name}" for name in ("virtio_pci", "virtio_net")]
    run_nest(f"--initramfs={path}", f"--init={init}", *modules, check=True)
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
    return f"megabytes={MEGABYTES} eth0=10.0.0.{number},10.0.0.{3 - number},{ROLES[number]},5000"


def sent_whole(guest, megabytes):
    """Of each time that a guest sent a file: whether its frames were too few for TCP's segments."""
    return [int(frames) < megabytes * 2**20 / SEGMENT / 2 for frames in guest.facts["sent"]]


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
    assert sent_whole(sender, MEGABYTES) == [with_offloads], "TCP is sent whole exactly with offloads"


@pytest.fixture(scope="module")
def bhyve_guests(nest, kernel, net_initramfs):
    """Say what two guests of bhyve, and the nest that they run in, have found, by name."""
    generic = {**os.environ, "NUMBA_CPU_NAME": "generic"}
    subprocess.run([PROGRAMS / "ptnetmap", "warmup"], env=generic, check=True, capture_output=True, timeout=600)
    # With one processor the nest is emulated by Debian 12's own QEMU, and leaves the machine's other core to other tests.
    command = ["sh", HERE / "bhyve_net.sh", FEW_MEGABYTES, kernel.with_name("vmlinux"), net_initramfs, CMDLINE]
    done = nest("--cpus=1", *command)
    said = {}
    for part in done.stdout.split("== ")[1:]:
        name, _, output = part.partition("\n")
        said[name] = Guest(subprocess.CompletedProcess([], done.returncode, output, done.stderr))
    assert set(said) == {"nest", "guest1", "guest2"}, done.stdout + done.stderr
    for one in said.values():
        assert "failed" not in one.facts, one.output + one.errors
    return said


def test_two_guests_of_bhyve_exchange_a_file_over_a_switch(bhyve_guests):
    first, second = bhyve_guests["guest1"], bhyve_guests["guest2"]
    assert first.facts["status"] == second.facts["status"] == ["1"]
    assert set(first.facts["driver"] + second.facts["driver"]) == {"virtio_net"}
    assert second.facts["ping"] == ["5", "5"]
    sent = [first.facts["digest"][0], first.facts["digest"][-1]]
    assert sent == second.facts["digest"] == [first.facts["answer"][0], first.facts["answer"][-1]]
    assert sent[0] != sent[1]
    assert {*first.facts["rx_errors"], *second.facts["rx_errors"]} == {"0"}


def test_guests_of_bhyve_send_tcp_whole_while_their_drivers_offload(bhyve_guests):
    # How far TCP fills its frames is its own choice, and a slow machine's; it never fits a file into fewer by itself.
    whole, *_, cut = map(int, bhyve_guests["guest1"].facts["sent"])
    assert cut >= FEW_MEGABYTES * 2**20 / SEGMENT
    assert whole < cut


def test_a_guest_of_bhyve_exchanges_files_with_the_host_over_a_tap_device(bhyve_guests):
    guest, host = bhyve_guests["guest1"], bhyve_guests["nest"]
    assert guest.facts["digest"][1:3] == host.facts["digest"]
    assert host.facts["answer"] == guest.facts["digest"][1:2]
    assert guest.facts["answer"][1] == host.facts["digest"][1]
