# SPDX-License-Identifier: BSD-2-Clause
"""Debian's stock kernel with its root file system on a disk of our bhyve: reboots, its power button, kill -9, force."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.nest import root_image
from tests.nest.conftest import run_nest
from tests.nest.test_debian_in_bhyve import QUICKLY

pytestmark = pytest.mark.nest

HERE = Path(__file__).parent
CPUS = 2
MEGABYTES = 48
SYNCED = re.compile(r"^synced: (\d+) ([0-9a-f]{64})$", re.MULTILINE)


@pytest.fixture(scope="module")
def life(nest, kernel, tmp_path_factory):
    """What disk_life.py tells of a machine's life."""
    directory = tmp_path_factory.mktemp("disk")
    image, initramfs = directory / "image", directory / "initramfs"
    modules = kernel.with_name("modules") / "kernel/drivers"
    root_image.make(image, MEGABYTES, HERE / "disk_rc.sh", [modules / "acpi/button.ko", modules / "input/evdev.ko"])
    # ext4 asks user space for the checksums that it needs by name, so they are nobody's dependency.
    drivers = [f"--module={name}" for name in ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")]
    run_nest(f"--initramfs={initramfs}", f"--init={HERE / 'disk_init.sh'}", *drivers, check=True)
    # The guest's two processors take turns.
    program = [sys.executable, HERE / "disk_life.py", image, kernel.with_name("vmlinux"), initramfs, QUICKLY, CPUS]
    done = nest("--cpus=1", *program)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert "late" not in told, json.dumps(told, indent=1)
    return told


def facts(part, name):
    """Values that the guest gave for a name, in order; the last line may be cut."""
    return re.findall(rf"^{name}: (.*)\n", part["said"], re.MULTILINE)


def test_the_root_file_system_is_on_the_disk_and_can_be_written(life):
    assert facts(life["live"], "root") == ["/dev/vda ext4 rw"] * 2
    assert facts(life["write"], "root") == facts(life["verify"], "root") == ["/dev/vda ext4 rw"]


def test_a_guest_that_reboots_is_started_again_and_finds_what_it_wrote(life):
    assert life["live"]["commands"]["start"] == {"code": 0, "output": ""}
    assert life["live"]["log"].count("the guest rebooted") == 1
    [written], [read] = facts(life["live"], "written"), facts(life["live"], "read")
    assert written == read


def test_two_processors_compute_right_while_the_disk_is_read(life):
    [digest] = facts(life["live"], "written")
    assert sorted(facts(life["live"], "computed")) == sorted(f"{cpu} {digest}" for cpu in range(CPUS) for _ in range(3))
    assert facts(life["live"], "disk") == [digest] * 3


def test_the_power_button_shuts_a_guest_down_that_listens_with_its_file_system_clean(life):
    assert life["live"]["commands"]["press"]["code"] == 0
    assert "reboot: Power down" in life["live"]["said"]
    assert life["live"]["ended"] == {"state": "stopped", "ended": "powered off"}
    checked = life["live"]["commands"]["e2fsck"]
    assert checked["code"] == life["live"]["whole"] == 0
    assert re.search(r": clean, \d+/\d+ files", checked["output"])


def test_a_guest_that_does_not_listen_runs_on_and_that_is_said(life):
    for command in ("press", "stop"):
        said = life["write"]["commands"][command]
        assert said["code"] == 1
        assert "does not listen to the power button" in said["output"]
    assert "bhyvectl" not in life["write"]["commands"]["stop"]["output"]
    assert life["write"]["ended"]["ended"] == "killed by signal 9"


def test_what_was_synced_before_bhyve_was_killed_is_on_the_disk(life):
    part = life["write"]
    assert "needs_recovery" in part["commands"]["journal"]["output"], "the file system was in use"
    assert part["commands"]["repair"]["code"] in (0, 1), part["commands"]["repair"]
    assert "recovering journal" in part["commands"]["repair"]["output"]
    assert part["commands"]["e2fsck"]["code"] == 0, part["commands"]["e2fsck"]
    synced = dict(SYNCED.findall(part["said"]))
    files = dict(enumerate(part["files"], start=1))
    assert len(files) == 3
    assert {number: synced[str(number)] for number in files} == files


def test_the_next_boot_after_a_kill_finds_what_was_synced(life):
    synced = dict(SYNCED.findall(life["write"]["said"]))
    assert facts(life["verify"], "found") == [f"{number} {synced[str(number)]}" for number in (1, 2, 3)]


def test_a_guest_that_ignores_the_button_is_waited_for_told_of_and_ended_by_force(life):
    asked = life["verify"]["commands"]["stop"]
    assert asked["code"] == 1
    assert "was asked to shut down, and has not within 1 s; it still runs" in asked["output"]
    assert life["verify"]["alive"]["state"] == "running"
    assert life["verify"]["commands"]["force"]["code"] == 0
    assert life["verify"]["ended"]["state"] == "stopped"
