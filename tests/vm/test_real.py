# SPDX-License-Identifier: BSD-2-Clause
"""The same with bhyve and the built-in guest."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ptnetmap.bhyve.control import client
from ptnetmap.vm import store

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="there is no /dev/kvm"),
]

DEADLINE = 120


@pytest.fixture
def idle(places, disk, vm):
    assert vm("create", "web", "--image", disk, "--memory", "256M", "--cmdline", "program=idle")[0] == 0
    assert vm("start", "web")[0] == 0


def console():
    program = [sys.executable, "-m", "ptnetmap.cli.main", "vm", "console", "web"]
    return subprocess.Popen(program, stdin=-1, stdout=-1, stderr=-1)


def test_a_guest_says_on_the_console_that_it_runs(idle):
    with console() as terminal:
        while b"idle: ready" not in (line := terminal.stdout.readline()):
            assert line
        terminal.stdin.write(b"\x1d")
        terminal.stdin.flush()
        assert terminal.wait(DEADLINE) == 0


def test_a_guest_without_acpi_is_told_of_and_ended_by_force(idle, vm):
    code, _, err = vm("stop", "web")
    assert code == 1
    assert "does not listen to the power button" in err
    assert store.is_running("web")
    assert vm("stop", "web", "--force")[0] == 0
    assert store.ended("web") == "powered off"


def test_a_killed_machine_starts_again_with_its_image_as_it_was(idle, vm, disk):
    with console() as terminal:
        assert terminal.stdout.readline()
        os.kill(client.describe("web")["pid"], signal.SIGKILL)
        assert terminal.wait(DEADLINE) == 0
    assert store.ended("web") == "killed by signal 9"
    assert disk.read_bytes() == bytes(1 << 20)
    assert vm("start", "web")[0] == 0


def test_a_reset_machine_runs_again(idle):
    before = client.describe("web")["pid"]
    with client.Connection("web") as connection:
        connection.request("force-reset")
    with console() as terminal:
        while b"idle: ready" not in (line := terminal.stdout.readline()):
            assert line
        assert client.describe("web")["pid"] != before
        terminal.stdin.write(b"\x1d")
        terminal.stdin.flush()
        assert terminal.wait(DEADLINE) == 0
