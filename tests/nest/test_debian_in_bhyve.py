# SPDX-License-Identifier: BSD-2-Clause
"""Debian's stock kernel and drivers in our bhyve, and, to tell our faults from the guest's, in QEMU."""

import hashlib
import random
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

pytestmark = pytest.mark.nest

CMDLINE = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off"
# The processor that QEMU emulates is so old that Linux looks for an AGP bridge on each bus, twice; pci=noearly leaves
# that out, and a guest in a nest boots sooner.
QUICKLY = f"{CMDLINE} pci=noearly"
CPUS = 2
MEMORY = 512 << 20
SECTORS = 4096
PORT = "org.ptnetmap.echo"
ECHOED = 100_000
WRITTEN = hashlib.md5((b"written\n" * 512), usedforsecurity=False).hexdigest()


class Guest:
    """What a guest that ran to its end printed, and how it ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.output = done.stdout
        self.errors = done.stderr
        self.facts = defaultdict(list)
        for line in done.stdout.splitlines():
            name, colon, value = line.partition(": ")
            if colon:
                self.facts[name].append(value)


def conversation(disk: Path, *command: object) -> str:
    """Shell command that boots a guest, talks with it, and says what it wrote to its disk."""
    converse = Path(__file__).with_name("converse.py")
    lines = ["guest# ", "echo answer: $((6*7))", "poweroff -f"]
    words = [str(word) for word in ("timeout", "300", sys.executable, converse, *lines, "--", *command)]
    digest = f"dd if={shlex.quote(str(disk))} bs=4096 skip=1 count=1 2>/dev/null | md5sum | cut -d ' ' -f 1"
    echo = [
        str(word) for word in (sys.executable, Path(__file__).with_name("echo_client.py"), echo_socket(disk), ECHOED)
    ]
    said = f'echo "on the host: $({digest})"'
    # Not among what the guest says, whose lines come in pieces.
    told = shlex.quote(f"{echo_socket(disk)}.told")
    return f"{shlex.join(echo)} >{told} & {shlex.join(words)}; status=$?; {said}; wait; cat {told}; exit $status"


def echo_socket(disk: Path) -> Path:
    """The socket of the console's port, of the guest with this disk."""
    return disk.with_name("echo")


def in_qemu(kernel: Path, initramfs: Path, disk: Path) -> subprocess.CompletedProcess[str]:
    command = conversation(
        disk,
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", CPUS, "-m", f"{MEMORY >> 20}M"),
        *("-kernel", kernel, "-initrd", initramfs, "-append", QUICKLY),
        *("-drive", f"file={disk},format=raw,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk"),
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=echo,path={echo_socket(disk)},server=on,wait=off"),
        *("-device", f"virtserialport,chardev=echo,name={PORT}"),
    )
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


def in_bhyve(nest, kernel: Path, initramfs: Path, disk: Path) -> subprocess.CompletedProcess[str]:
    command = conversation(
        disk,
        *(Path(sys.executable).with_name("bhyve"), "-A", "-H", "-P", "-c", CPUS, "-m", f"{MEMORY >> 20}M"),
        *("-s", "0,hostbridge", "-s", "1,lpc", "-l", "com1,stdio"),
        *("-s", f"2,virtio-blk,{disk}", "-s", "3:1,virtio-rnd"),
        *("-s", f"4,virtio-console,{PORT}={echo_socket(disk)}"),
        *("-o", f"kernel={kernel}", "-o", f"initrd={initramfs}", "-o", f"cmdline={QUICKLY}", "debian"),
    )
    # The guest's two processors take turns in a nest with one.
    return nest("--cpus=1", "sh", "-c", command)


@pytest.fixture(scope="module")
def contents():
    return random.Random(0).randbytes(SECTORS * 512)


@pytest.fixture(scope="module", params=["qemu, vmlinux", "bhyve, vmlinux", "bhyve, vmlinuz"])
def guest(request, nest, kernel, initramfs, contents, tmp_path_factory):
    hypervisor, image = request.param.split(", ")
    disk = tmp_path_factory.mktemp("disk") / "disk"
    disk.write_bytes(contents)
    path = kernel.with_name(image)
    if hypervisor == "qemu":
        return Guest(in_qemu(path, initramfs, disk)), 0
    return Guest(in_bhyve(nest, path, initramfs, disk)), 1


def test_guest_powers_off_with_the_status_for_that(guest):
    ran, powered_off = guest
    assert ran.status == powered_off, ran.output + ran.errors


def test_guest_finds_its_processors_and_memory(guest):
    ran, _ = guest
    assert ran.facts["cpus"] == [str(CPUS)]
    assert 0.8 * MEMORY < int(ran.facts["memory"][0]) * 1024 < MEMORY


def test_every_driver_loads_and_finds_its_device(guest):
    ran, _ = guest
    assert "failed" not in ran.facts
    bound = [line.split()[1:] for line in ran.facts["pci"] if line.endswith("virtio-pci")]
    assert [words[:2] for words in bound] == [["0x1af4", "0x1001"], ["0x1af4", "0x1005"], ["0x1af4", "0x1003"]]


def test_guest_reads_the_disk_as_it_is(guest, contents):
    ran, _ = guest
    assert ran.facts["sectors"] == [str(SECTORS)]
    assert ran.facts["digest"] == [hashlib.md5(contents, usedforsecurity=False).hexdigest()]


def test_what_the_guest_writes_is_on_the_hosts_disk(guest):
    ran, _ = guest
    assert ran.facts["written"] == [WRITTEN]
    assert ran.facts["on the host"] == [WRITTEN]


def test_guest_gets_random_numbers(guest):
    ran, _ = guest
    assert ran.facts["rng"] == ["virtio_rng.0"]
    assert len(set(bytes.fromhex(ran.facts["random"][0]))) > 16


def test_a_port_of_the_console_carries_bytes_both_ways(guest):
    ran, _ = guest
    assert ran.facts["port"] == [PORT]
    [sent], [returned] = ran.facts["sent to the port"], ran.facts["from the port"]
    assert sent == returned


def test_the_devices_interrupt_by_msi(guest):
    ran, _ = guest
    counts = {}
    for line in ran.facts["interrupt"]:
        _, *words, name = line.split()
        assert "PCI-MSI" in words
        counts[name] = sum(int(word) for word in words[:CPUS])
    assert counts["virtio0-req.0"] > 0
    assert counts["virtio1-input"] > 0
    assert sum(count for name, count in counts.items() if name.startswith("virtio2-")) > 0


def test_guests_prompt_answers_what_is_typed(guest):
    ran, _ = guest
    assert ran.facts["answer"] == ["42"]
