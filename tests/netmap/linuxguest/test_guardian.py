# SPDX-License-Identifier: BSD-2-Clause
"""What guards a device, and the pages that it writes to: a file plays the registers."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptnetmap.errors import PortError
from ptnetmap.netmap.linuxguest.csbpages import PAGE, CsbPages
from ptnetmap.netmap.linuxguest.guardian import Guardian

pytestmark = pytest.mark.interpreted

PATIENCE = 30
OWNER = """
import os, sys
from ptnetmap.netmap.linuxguest.guardian import Guardian
guardian = Guardian(int(sys.argv[1]), 4, 2, [])
print(guardian.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def registers(tmp_path):
    fd = os.open(tmp_path / "registers", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(fd, bytes(8))
    yield fd
    os.close(fd)


def command(registers):
    return struct.unpack("<I", os.pread(registers, 4, 4))[0]


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_device_is_stopped_when_its_program_dies(registers, end):
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(registers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[registers],
    ) as owner:
        guardian = int(owner.stdout.readline())
        assert command(registers) == 0
        owner.send_signal(end)
        owner.wait()
        wait_until(lambda: is_gone(guardian))
    assert command(registers) == 2


def test_who_is_dismissed_writes_nothing(registers):
    guardian = Guardian(registers, 4, 2, [])
    guardian.dismiss()
    guardian.dismiss()
    assert is_gone(guardian.pid)
    assert command(registers) == 0


def test_signals_meant_for_the_program_do_not_end_its_guardian(registers):
    guardian = Guardian(registers, 4, 2, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guardian.pid, number)
    assert os.getsid(guardian.pid) != os.getsid(0)
    assert not is_gone(guardian.pid)
    guardian.dismiss()


def test_the_guardian_keeps_what_it_is_given(registers):
    reader, writer = os.pipe()
    guardian = Guardian(registers, 4, 2, [writer])
    os.close(writer)
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    guardian.dismiss()
    assert os.read(reader, 1) == b""
    os.close(reader)


# --- pages


def descriptors():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def told(monkeypatch):
    """What pagemap says of pages, in turn."""

    def say(*entries):
        rest = list(entries)
        real = os.pread

        def pread(fd, size, offset):
            if size == 8 and rest and Path(f"/proc/self/fd/{fd}").readlink().name == "pagemap":
                return struct.pack("<Q", rest.pop(0))
            return real(fd, size, offset)

        monkeypatch.setattr(os, "pread", pread)

    return say


def test_pages_are_where_pagemap_says(told):
    told(1 << 63 | 0x1234, 1 << 63 | 0x77)
    pages = CsbPages()
    assert pages.places == [0x1234 * PAGE, 0x77 * PAGE]
    pages.close()


@pytest.mark.parametrize("entry", [0, 1 << 63, 0x1234])
def test_who_is_not_told_where_pages_are_is_refused(told, entry):
    told(entry)
    before = descriptors()
    with pytest.raises(PortError, match="be root"):
        CsbPages()
    assert descriptors() == before


def test_pages_are_locked_and_zero(told):
    told(1 << 63 | 1, 1 << 63 | 2)
    pages = CsbPages()
    smaps = Path("/proc/self/smaps").read_text().split("memfd:ptnetmap-csb")[1]
    locked = next(line for line in smaps.splitlines() if line.startswith("Locked:"))
    assert locked.split()[1] == str(2 * PAGE // 1024)
    assert pages._mapping.view(0, "u1", 2 * PAGE).any() == 0
    pages.close()
