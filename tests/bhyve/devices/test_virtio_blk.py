# SPDX-License-Identifier: BSD-2-Clause
import errno
import hashlib
import itertools
import os
import struct
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.devices import virtio_blk
from ptnetmap.bhyve.devices.virtio_blk import VirtioBlk
from ptnetmap.bhyve.pci.device import DEVICES
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.mock import MockDriver
from ptnetmap.errors import ConfigError

SECTOR = 512
SECTORS = 64
OK, IOERR, UNSUPP = 0, 1, 2
IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13


class Disk:
    """A device with a driver that sends one request at a time."""

    def __init__(self, host, path, options="", legacy=False, features=(1 << 64) - 1):
        self.device = VirtioBlk(host, Function(0, 2, 0), VirtioBlk.parse_options(f"{path}{options}"))
        self.driver = MockDriver(self.device, host.memory, legacy=legacy)
        self.driver.start(features)

    def ask(self, kind, sector=0, data=b"", room=0, *, cuts=(), indirect=False):
        """Send a request, cut at ``cuts``; return status and what was read."""
        self.offer(kind, sector, data, room, cuts=cuts, indirect=indirect)
        self.driver.kick(0)
        return self.wait()

    def offer(self, kind, sector=0, data=b"", room=0, *, cuts=(), indirect=False):
        sent = struct.pack("<IIQ", kind, 0, sector) + data
        return self.driver.queues[0].send(pieces(sent, cuts), lengths(room + 1, cuts), indirect=indirect)

    def wait(self):
        self.device.drain()
        [used] = self.driver.queues[0].reap()
        room = bytes(used.data)
        return room[-1], room[:-1]

    def config(self):
        size = abi.virtio_blk_config.itemsize
        return np.frombuffer(self.driver.read_config(0, size), abi.virtio_blk_config)[0]

    def close(self):
        self.device.close()


def pieces(data, cuts):
    ends = sorted({cut % len(data) for cut in cuts} - {0})
    return [data[start:end] for start, end in itertools.pairwise([0, *ends, len(data)])]


def lengths(total, cuts):
    return [len(piece) for piece in pieces(bytes(total), cuts)]


def ranges(*items):
    return b"".join(struct.pack("<QII", *item) for item in items)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(bytes([number]) * SECTOR for number in range(SECTORS)))
    return path


@pytest.fixture
def make_disk(host, path):
    disks = []

    def make(options="", **more):
        disks.append(Disk(host, path, options, **more))
        return disks[-1]

    yield make
    for disk in disks:
        disk.close()


# --- what the disk says of itself


def test_it_is_found_under_bhyves_name_and_ids(make_disk):
    driver = make_disk().driver
    assert DEVICES["virtio-blk"] is VirtioBlk
    assert (driver.config(0, 4), driver.config(0x2C, 4), driver.config(8, 4) >> 24) == (0x1001_1AF4, 0x0002_1AF4, 1)


@pytest.mark.parametrize("legacy", [True, False])
def test_the_configuration_describes_the_image(make_disk, legacy):
    config = make_disk(",sectorsize=512/4096", legacy=legacy).config()
    assert {name: int(config[name]) for name in ("capacity", "seg_max", "blk_size", "physical_block_exp")} == {
        "capacity": SECTORS,
        "seg_max": 126,
        "blk_size": 512,
        "physical_block_exp": 3,
    }


def test_a_disk_has_whole_sectors(make_disk, path):
    with path.open("ab") as file:
        file.write(b"x" * 1000)
    assert make_disk(",sectorsize=4096").config()["capacity"] == SECTORS


@pytest.mark.parametrize(
    ("options", "there", "missing"),
    [
        ("", {9, 13, 14}, {5}),
        (",ro", {5, 9}, {13, 14}),
        (",nodelete", {9, 14}, {5, 13}),
        (",nodelete=false,ro=0", {9, 13, 14}, {5}),
    ],
)
def test_features_follow_the_options(make_disk, options, there, missing):
    offered = make_disk(options).driver.offered()
    bits = {bit for bit in range(16) if offered >> bit & 1}
    assert there <= bits
    assert not missing & bits


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("/x/disk", {"path": "/x/disk"}),
        ("/x/a=b,ro,sectorsize=512/4096", {"path": "/x/a=b", "ro": "true", "sectorsize": "512/4096"}),
        ("path=/x/disk,nocache", {"path": "/x/disk", "nocache": "true"}),
    ],
)
def test_the_path_comes_first_and_has_no_key(text, options):
    assert VirtioBlk.parse_options(text) == options


@pytest.mark.parametrize(
    "options",
    ["sectorsize=512/", "sectorsize=100", "sectorsize=4096/512", "sectorsize=x", "ro=perhaps", "ser=" + "x" * 21],
)
def test_wrong_options_are_refused_and_leave_nothing_open(host, path, options):
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ConfigError):
        VirtioBlk(host, Function(0, 2, 0), VirtioBlk.parse_options(f"{path},{options}"))
    with pytest.raises(ConfigError):
        VirtioBlk(host, Function(0, 2, 0), VirtioBlk.parse_options(f"{path},legacy=no,modern=no"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("name", ["missing.img", "", "."])
def test_what_is_no_image_is_refused_by_name(host, tmp_path, name):
    with pytest.raises(ConfigError, match=str(tmp_path) if name else "no disk image"):
        VirtioBlk(host, Function(0, 2, 0), {"path": str(tmp_path / name) if name else ""})


# --- requests


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("options", ["", ",direct", ",nocache", ",nocache,sync"])
def test_what_is_written_is_in_the_file_and_is_read_back(make_disk, path, options, legacy):
    disk = make_disk(options, legacy=legacy)
    data = os.urandom(8 * SECTOR)
    assert disk.ask(OUT, 16, data) == (OK, b"")
    assert disk.ask(FLUSH) == (OK, b"")
    assert disk.ask(IN, 16, room=len(data)) == (OK, data)
    assert path.read_bytes()[16 * SECTOR : 24 * SECTOR] == data


def test_a_disk_has_a_name(make_disk, path):
    digest = hashlib.md5(str(path).encode()).hexdigest().upper()
    name = f"BHYVE-{digest[:4]}-{digest[4:8]}-{digest[8:12]}".encode()
    assert make_disk().ask(GET_ID, room=20) == (OK, name)
    assert make_disk(",ser=SN-1").ask(GET_ID, room=20) == (OK, b"SN-1".ljust(20, b"\0"))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((IN, SECTORS, b"", SECTOR), IOERR),
        ((IN, SECTORS - 1, b"", 2 * SECTOR), IOERR),
        ((IN, 2**64 - 1, b"", SECTOR), IOERR),
        ((IN, 2**55, b"", SECTOR), IOERR),
        ((IN, 0, b"", 100), IOERR),
        ((OUT, SECTORS, bytes(SECTOR)), IOERR),
        ((OUT, 0, bytes(100)), IOERR),
        ((DISCARD, 0, b""), IOERR),
        ((DISCARD, 0, bytes(15)), IOERR),
        ((DISCARD, 0, ranges((0, 1, 1))), UNSUPP),
        ((DISCARD, 0, ranges((SECTORS, 1, 0))), IOERR),
        ((DISCARD, 0, ranges((0, 1, 0), (0, 2**32 - 1, 0))), IOERR),
        ((DISCARD, 0, ranges(*[(0, 1, 0)] * 33)), IOERR),
        ((WRITE_ZEROES, 0, ranges((0, 1, 2))), UNSUPP),
        ((WRITE_ZEROES, 0, ranges((2**64 - 1, 1, 0))), IOERR),
        ((2, 0, b"", SECTOR), UNSUPP),
        ((0x80000000, 0, b"", SECTOR), UNSUPP),
    ],
)
def test_a_request_that_cannot_be_done_changes_nothing(make_disk, path, arguments, status):
    before = path.read_bytes()
    disk = make_disk()
    disk.offer(*arguments)
    disk.driver.kick(0)
    disk.device.drain()
    [used] = disk.driver.queues[0].reap()
    assert used.length == (1 if len(arguments) < 4 else 0)
    assert last_byte(disk.device.host.memory, disk.device.queues[0].desc) == status
    assert path.read_bytes() == before
    assert disk.ask(IN, 1, room=SECTOR) == (OK, b"\1" * SECTOR)


def test_a_full_file_system_is_an_io_error_that_changes_nothing_and_passes(make_disk, path, monkeypatch):
    before = path.read_bytes()
    disk = make_disk()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.pwritev", full)
        assert disk.ask(OUT, 1, bytes(SECTOR))[0] == IOERR
    assert path.read_bytes() == before
    assert disk.ask(OUT, 1, bytes(SECTOR))[0] == OK
    assert disk.ask(IN, 1, room=SECTOR) == (OK, bytes(SECTOR))


@pytest.fixture
def small():
    """A file system of 256 KiB, in a mount namespace of a process that waits; its path, as seen from here."""
    program = "mount -t tmpfs -o size=256k tmpfs /mnt && echo ready && read end"
    whose = [] if os.geteuid() == 0 else ["--map-root-user"]
    with subprocess.Popen(
        ["unshare", "--mount", *whose, "sh", "-c", program], stdin=-1, stdout=-1, text=True
    ) as holder:
        try:
            if holder.stdout.readline() != "ready\n":
                pytest.skip("no user namespace with mounts of its own is allowed here")
            yield Path(f"/proc/{holder.pid}/root/mnt")
        finally:
            holder.communicate("end\n")


def test_a_sparse_image_on_a_full_file_system_keeps_what_it_has_and_writes_on_when_there_is_room(host, small):
    image, other = small / "disk.img", small / "other"
    image.touch()
    os.truncate(image, 1 << 20)
    other.write_bytes(b"o" * (64 << 10))
    disk = Disk(host, image)
    try:
        block = 4096
        written, failed = {}, []
        for number in range((1 << 20) // block):
            data = bytes([number % 251 + 1]) * block
            status, _ = disk.ask(OUT, number * block // SECTOR, data)
            if status == OK:
                written[number] = data
            else:
                assert status == IOERR
                failed.append(number)
        assert written
        assert failed
        assert not disk.driver.needs_reset

        assert disk.ask(FLUSH)[0] == OK
        for number, data in written.items():
            assert disk.ask(IN, number * block // SECTOR, room=block) == (OK, data)
        assert other.read_bytes() == b"o" * (64 << 10)
        first = min(written)
        assert disk.ask(OUT, first * block // SECTOR, b"again" + bytes(block - 5))[0] == OK

        other.unlink()
        assert disk.ask(IN, failed[0] * block // SECTOR, room=block) == (OK, bytes(block))
        assert disk.ask(OUT, failed[0] * block // SECTOR, b"room!" + bytes(block - 5))[0] == OK
        assert disk.ask(IN, failed[0] * block // SECTOR, room=block)[1].startswith(b"room!")
    finally:
        disk.close()


def last_byte(memory, descriptors):
    """The last byte of the chain that starts at descriptor 0."""
    position = 0
    while True:
        address, length, flags, following = struct.unpack("<QIHH", memory.read(descriptors + 16 * position, 16))
        if not flags & 1:
            return memory.read(address + length - 1, 1)[0]
        position = following


def test_a_disk_that_cannot_be_written_is_only_read(make_disk, path):
    before = path.read_bytes()
    disk = make_disk(",ro")
    assert disk.ask(OUT, 0, bytes(SECTOR)) == (IOERR, b"")
    assert disk.ask(DISCARD, 0, ranges((0, 1, 0))) == (IOERR, b"")
    assert disk.ask(WRITE_ZEROES, 0, ranges((0, 1, 0))) == (IOERR, b"")
    assert disk.ask(IN, 3, room=SECTOR) == (OK, b"\3" * SECTOR)
    assert path.read_bytes() == before


def test_a_disk_without_discard_still_zeroes(make_disk):
    disk = make_disk(",nodelete")
    assert disk.ask(DISCARD, 0, ranges((0, 1, 0))) == (UNSUPP, b"")
    assert disk.ask(WRITE_ZEROES, 0, ranges((1, 1, 1))) == (OK, b"")
    assert disk.ask(IN, 1, room=2 * SECTOR) == (OK, bytes(SECTOR) + b"\2" * SECTOR)


def test_an_image_that_was_cut_gives_errors(make_disk, path):
    disk = make_disk()
    os.truncate(path, SECTOR)
    disk.offer(IN, 0, room=2 * SECTOR)
    disk.driver.kick(0)
    disk.device.drain()
    assert len(disk.driver.queues[0].reap()) == 1
    assert last_byte(disk.device.host.memory, disk.device.queues[0].desc) == IOERR


@pytest.mark.parametrize(
    "chain",
    [
        ([b"short"], [1]),
        ([bytes(16)], []),
        ([], [17]),
    ],
)
def test_a_request_without_header_or_status_needs_a_reset(make_disk, chain):
    disk = make_disk()
    disk.driver.queues[0].send(*chain)
    disk.driver.kick(0)
    assert disk.driver.needs_reset
    disk.driver.start()
    assert disk.ask(IN, 2, room=SECTOR) == (OK, b"\2" * SECTOR)


@pytest.mark.parametrize("features", [(1 << 64) - 1, ~abi.VIRTIO_BLK_F_FLUSH])
def test_a_driver_that_does_not_flush_has_its_writes_flushed(make_disk, monkeypatch, features):
    disk = make_disk(features=features)
    flushed = []
    monkeypatch.setattr(disk.device.image, "flush", lambda: flushed.append(1))
    assert disk.ask(OUT, 0, bytes(SECTOR)) == (OK, b"")
    assert bool(flushed) == (features & abi.VIRTIO_BLK_F_FLUSH == 0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from([IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES]),
            st.integers(0, SECTORS + 1),
            st.integers(0, 12),
            st.lists(st.integers(1, 8000), max_size=4),
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=12,
    ),
    legacy=st.booleans(),
    indirect=st.booleans(),
    nocache=st.booleans(),
)
def test_a_disk_is_an_array_of_sectors(make_host, path, requests, legacy, indirect, nocache):
    oracle = bytearray(os.urandom(SECTORS * SECTOR))
    path.write_bytes(oracle)
    host = make_host(1 << 20)
    disk = Disk(host, path, ",nocache" if nocache else "", legacy=legacy)
    for number, (kind, sector, count, cuts, byte) in enumerate(requests):
        fits = sector + count <= SECTORS
        here = slice(sector * SECTOR, (sector + count) * SECTOR)
        more = {"cuts": cuts, "indirect": indirect}
        match kind:
            case abi.VIRTIO_BLK_T_IN if fits:
                assert disk.ask(kind, sector, room=count * SECTOR, **more) == (OK, bytes(oracle[here]))
            case abi.VIRTIO_BLK_T_IN:
                disk.offer(kind, sector, room=count * SECTOR, **more)
                disk.driver.kick(0)
                disk.device.drain()
                [used] = disk.driver.queues[0].reap()
                assert used.length == (count == 0)
            case abi.VIRTIO_BLK_T_OUT:
                data = bytes((byte + i) & 0xFF for i in range(count * SECTOR))
                assert disk.ask(kind, sector, data, **more)[0] == (OK if fits else IOERR)
                if fits:
                    oracle[here] = data
            case abi.VIRTIO_BLK_T_DISCARD | abi.VIRTIO_BLK_T_WRITE_ZEROES:
                other = number % SECTORS
                data = ranges((sector, count, 0), (other, 1, kind == WRITE_ZEROES and byte & 1))
                assert disk.ask(kind, 0, data, **more)[0] == (OK if fits else IOERR)
                if fits:
                    oracle[here] = bytes(count * SECTOR)
                    oracle[other * SECTOR : (other + 1) * SECTOR] = bytes(SECTOR)
            case abi.VIRTIO_BLK_T_FLUSH:
                assert disk.ask(kind, **more) == (OK, b"")
            case abi.VIRTIO_BLK_T_GET_ID:
                assert disk.ask(kind, room=20, **more) == (OK, disk.device.ident)
    disk.close()
    host.close()
    assert path.read_bytes() == oracle


# --- several at once


def test_requests_under_way_end_before_a_reset_does(make_disk, monkeypatch):
    disk = make_disk()
    queue = disk.driver.queues[0]
    memory = disk.device.host.memory
    begun, go_on = threading.Semaphore(0), threading.Event()
    read = disk.device.image.read

    def slow_read(views, offset):
        begun.release()
        assert go_on.wait(10)
        read(views, offset)

    monkeypatch.setattr(disk.device.image, "read", slow_read)
    for sector in range(virtio_blk.THREADS + 4):
        disk.offer(IN, sector, room=SECTOR)
    disk.driver.kick(0)
    for _ in range(virtio_blk.THREADS):
        assert begun.acquire(timeout=10)
    resetter = threading.Thread(target=setattr, args=(disk.driver, "status", 0))
    resetter.start()
    go_on.set()
    resetter.join(10)
    assert not resetter.is_alive()
    before = memory.read(queue.desc, queue.used + 4096 - queue.desc)
    disk.device.drain()
    assert memory.read(queue.desc, queue.used + 4096 - queue.desc) == before
    assert queue.reap() == []
    disk.driver.start()
    assert disk.ask(IN, 9, room=SECTOR) == (OK, b"\x09" * SECTOR)


def test_many_requests_at_once_are_all_answered(make_disk):
    disk = make_disk()
    queue = disk.driver.queues[0]
    heads = {disk.offer(IN, sector, room=SECTOR): sector for sector in range(40)}
    disk.driver.kick(0)
    disk.device.drain()
    answers = {used.head: used.data for used in queue.reap()}
    assert answers == {head: bytes([sector]) * SECTOR + b"\0" for head, sector in heads.items()}
    assert disk.device.host.interrupts.messages
