# SPDX-License-Identifier: BSD-2-Clause
"""Debian's stock kernel in our bhyve, with this package inside: a port of the host's switch, passed through to Python."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.nest.conftest import run_nest
from tests.nest.python_tree import write
from tests.nest.test_debian_in_bhyve import CMDLINE

pytestmark = pytest.mark.nest

HERE = Path(__file__).parent
PROGRAM = HERE / "ptnet_guest.py"
FEW, MANY = 200_000, 3_000_000
FRAMES = 64
PCAP_HEADER, RECORD_HEADER = 24, 16


@pytest.fixture(scope="module")
def cache():
    """What kernels are compiled to, for any processor."""
    generic = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    generic.pop("NUMBA_DISABLE_JIT", None)
    ptnetmap = Path(sys.executable).with_name("ptnetmap")
    said = subprocess.run([ptnetmap, "warmup"], env=generic, capture_output=True, text=True, check=True).stdout
    directory = Path(said.rpartition("kept in ")[2].strip())
    (directory / "runtime.compiled").touch()  # so each is loaded when it is called, and not all at first
    return directory


@pytest.fixture(scope="module")
def python_initramfs(kernel, cache, tmp_path_factory):
    """Initial file system of a guest with this Python and this package."""
    path = tmp_path_factory.mktemp("python") / "initramfs"
    run_nest(f"--initramfs={path}", f"--init={HERE / 'ptnet_init.sh'}", "--module=uio_pci_generic", check=True)
    tree = path.with_name("tree")
    write(tree, cache, PROGRAM)
    with path.open("ab") as whole, tree.open("rb") as rest:
        while data := rest.read(1 << 24):
            whole.write(data)
    tree.unlink()
    return path


@pytest.fixture(scope="module")
def run_guests(nest, kernel, cache, python_initramfs):
    """Run both guests in a nest of so many processors, and say what each said, and the last sender of the host."""

    def run(cpus, sent):
        words = f"{CMDLINE} python={sys.executable} cache={cache.parent} program={PROGRAM},{sent}"
        script = HERE / "bhyve_ptnet.sh"
        done = nest(f"--cpus={cpus}", "sh", script, kernel.with_name("vmlinux"), python_initramfs, words)
        assert done.returncode == 0, done.stdout + done.stderr
        parts = re.split(r"^== (\w+)\n", done.stdout, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))

    return run


@pytest.fixture(scope="module")
def said(run_guests):
    return run_guests(1, FEW)


@pytest.fixture(scope="module")
def facts(said):
    found = defaultdict(list)
    for line in said["linux"].splitlines():
        name, colon, value = line.rstrip().partition(": ")
        if colon:
            found[name].append(value)
    assert "failed" not in found, said["linux"]
    return found


def test_guest_does_it_all_and_powers_off(said, facts):
    assert facts["status"] == ["1"], said["linux"]


def test_pkt_gen_sends_from_the_guest(facts):
    assert facts["sent by pkt-gen"] == ["0", "0"]


def test_python_receives_what_the_hosts_pkt_gen_sends(facts):
    assert facts["rings"] == ["1 1 1024"]
    assert facts["received"] == [f"{FRAMES} of 60 bytes, 1 different"]


def test_pkt_gen_receives_in_the_guest(said, facts):
    assert facts["received by pkt-gen"] == ["0"]
    assert f"Received {FRAMES} packets" in said["linux"]


def test_capture_writes_what_the_guest_receives(facts):
    assert facts["captured"] == ["0"]
    assert facts["file"] == [str(PCAP_HEADER + FRAMES * (RECORD_HEADER + 60))]


def test_a_program_sleeps_until_the_hosts_interrupt(facts):
    assert facts["received by interrupts"] == [str(FRAMES)]
    assert int(facts["interrupted"][0]) > 0


def test_a_device_is_for_one_program_until_that_ends_however(facts):
    assert facts["second"][0].startswith("EBUSY")
    assert facts["after a death"] == ["opened"]


def test_what_is_in_the_way_is_told(facts):
    assert facts["third"][0].startswith("ENXIO")
    assert facts["nobody"][0].startswith("EACCES")


# Emulating two processors and SVM, QEMU loses the nest now and then: this one is run by hand (-m nest -s).
@pytest.mark.slow
def test_rates_of_both_guests_are_told(run_guests):
    """Half of the built-in guest's is what is wanted of Python's; but the emulation's rates vary by more than that."""
    said = run_guests(2, MANY)
    built_in = re.search(r"done packets=(\d+) .*nanoseconds=(\d+)", said["builtin"])
    linux = re.findall(r"^Speed: ([0-9.]+) ([MK])pps", said["linux"], re.MULTILINE)[:2]
    rates = [1e3 * int(built_in[1]) / int(built_in[2]), max(float(n) * {"M": 1, "K": 1e-3}[unit] for n, unit in linux)]
    print("Mpps of the built-in guest and of Python in Linux, both nested: {:.2f}, {:.2f}".format(*rates))
    assert min(rates) > 0
