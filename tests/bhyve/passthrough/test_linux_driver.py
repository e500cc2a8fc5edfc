# SPDX-License-Identifier: BSD-2-Clause
"""The driver that runs in Linux guests, on a sysfs made of files and our device models behind it."""

import errno
import os
import select
import struct
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.abi import pci, ptnet
from ptnetmap.abi.netmap.csb import nm_csb_atok
from ptnetmap.bhyve.passthrough import mock
from ptnetmap.bhyve.pci.bar import BarKind
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import PortError
from ptnetmap.netmap import names
from ptnetmap.netmap.linuxguest.csbpages import PAGE
from ptnetmap.netmap.linuxguest.device import Machine
from ptnetmap.netmap.linuxguest.names import device_number
from ptnetmap.netmap.linuxguest.port import open_device
from ptnetmap.netmap.linuxguest.uio import UioInterrupts

pytestmark = pytest.mark.interpreted

CSB = 0x10000


class ModelRegisters(mock.Registers):
    """Registers of a device model; a kick is what KVM would make of it: an eventfd."""

    fd = -1

    def kick(self, offset):
        bells = self.bus.devices[self.place]._kicks
        return os.dup(bells[(offset - ptnet.PTNET_IO_KICK_BASE) // 4].eventfd), 0

    def close(self):
        pass


class GuestPages:
    """Two pages of a machine's memory."""

    second = CSB + PAGE

    def __init__(self, memory):
        view = memory.view(CSB, 2 * PAGE)
        view[:] = bytes(2 * PAGE)
        self.address = np.frombuffer(view, np.uint8).ctypes.data
        self.places = [CSB, self.second]
        self.fds = []
        self.closed = False

    def close(self):
        self.closed = True


class Guard:
    dismissed = False

    def dismiss(self):
        self.dismissed = True


class FakeGuest(Machine):
    """A guest's sysfs below ``root``, of the functions of a machine's bus."""

    def __init__(self, root, machine):
        super().__init__(root)
        self.machine = machine
        self.guards = []
        self.taken = []
        for place in machine.bus.devices:
            self.show(place)

    def directory(self, place):
        return self.sysfs / "bus/pci/devices" / f"0000:{place.bus:02x}:{place.slot:02x}.{place.function}"

    def show(self, place):
        directory = self.directory(place)
        directory.mkdir(parents=True)
        word = self.machine.bus.read_config(place, pci.PCIR_VENDOR, 4)
        code = self.machine.bus.read_config(place, pci.PCIR_REVID, 4) >> 8
        device = self.machine.bus.devices[place]
        lines = []
        for number in range(6):
            bar = device.bars.get(number)
            if bar is None:
                lines.append("0x0 0x0 0x0\n")
            else:
                lines.append(f"0x1000 {0xFFF + bar.size:#x} {0x100 if bar.kind is BarKind.IO else 0x200:#x}\n")
        for name, text in {
            "vendor": f"{word & 0xFFFF:#06x}\n",
            "device": f"{word >> 16:#06x}\n",
            "class": f"{code:#08x}\n",
            "enable": "0\n",
            "resource": "".join(lines),
        }.items():
            (directory / name).write_text(text)
        (directory / "config").write_bytes(bytes(64))
        if getattr(device, "_fd", -1) >= 0:
            (directory / "resource1").symlink_to(f"/proc/self/fd/{device._fd}")

    def bind(self, place, driver):
        target = self.sysfs / "bus/pci/drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (self.directory(Function.parse(place)) / "driver").symlink_to(target)

    def registers(self, function):
        place = next(place for place in self.machine.bus.devices if self.directory(place).name == function.address)
        return ModelRegisters(self.machine.bus, place)

    def pages(self):
        self.taken.append(GuestPages(self.machine.host.memory))
        return self.taken[-1]

    def guard(self, registers, fds):
        self.guards.append(Guard())
        return self.guards[-1]

    @contextmanager
    def open(self, name="netmap:ptnet0", flags=0, **options):
        parsed = names.parse(name)
        port = open_device(name, parsed, device_number(parsed, self.sysfs), flags, machine=self, **options)
        try:
            yield port
        finally:
            port.close()


@pytest.fixture
def guest_of(tmp_path):
    """A guest on a machine."""
    return lambda machine: FakeGuest(tmp_path / "sys", machine)


@pytest.fixture
def guest(guest_of, pair):
    return guest_of(pair)


def refused(guest, name="netmap:ptnet0", **options):
    with pytest.raises(PortError) as caught, guest.open(name, **options):
        pass
    return caught.value


# --- packets


def test_frames_pass_between_the_guests_program_and_the_hosts(guest, peer, frame):
    host = peer("vale1:2")
    with guest.open() as port:
        for i in range(5):
            assert port.send([frame(1, i)]) == 1
            assert host.recv(timeout=30) == [frame(1, i)]
            host.send([frame(2, i)])
            assert port.recv(timeout=30) == [frame(2, i)]


def test_more_than_a_ring_passes_both_ways(guest, peer, frame, pair):
    pair.device("4").port.netmap.set_lossless(True)
    host = peer("vale1:2", lossless=True)
    with guest.open() as port:
        frames = [frame(1, i % 256) for i in range(1500)]
        got = []
        for i in range(0, len(frames), 500):
            port.send(frames[i : i + 500])
            while len(got) < i + 500:
                got += host.recv(1000, timeout=30)
        assert got == frames
        back = [frame(2, i % 256) for i in range(1500)]
        got = []
        for i in range(0, len(back), 500):
            host.send(back[i : i + 500])
            while len(got) < i + 500:
                got += port.recv(1000, timeout=30)
        assert got == back


def test_a_port_that_is_opened_again_goes_on(guest, peer, frame):
    host = peer("vale1:2")
    for i in range(3):
        with guest.open() as port:
            port.send([frame(1, i)])
            assert host.recv(timeout=30) == [frame(1, i)]


def test_rings_are_the_hosts_memory(guest, pair):
    with guest.open() as port:
        netmap = pair.device("4").port.netmap
        assert (port.mem_id, port.memsize, port.nifp_offset) == (netmap.mem_id, netmap.memsize, netmap.nifp_offset)
        assert [(ring.num_slots, ring.space()) for ring in (*port.tx_rings, *port.rx_rings)] == [
            (1024, 1023),
            (1024, 0),
        ]
        assert port.mac == pair.device("4")._mac.hex()


def test_figures_of_a_port_are_what_its_program_did(guest, peer, frame):
    host = peer("vale1:2")
    with guest.open() as port:
        before = port.stats.syncs
        port.send([frame(1)])
        assert host.recv(timeout=30) == [frame(1)]
        assert port.stats.syncs > before
        assert (port.stats.missed, port.stats.dropped) == (0, 0)


@pytest.mark.parametrize("name", ["netmap:ptnet0^", "netmap:ptnet0*"])
def test_a_port_of_the_hosts_has_no_host_rings(guest, name):
    with pytest.raises(PortError, match="the host rings of ptnet0: it has none") as caught, guest.open(name):
        pass
    assert caught.value.errno == errno.EINVAL


def test_all_rings_of_a_port_are_found(guest_of, machine, peer, frame):
    one = machine({"3": "ptnetmap-memdev", "4": "ptnet,ptvale1:1@conf:rings=2"})
    guest = guest_of(one)
    with guest.open() as port:
        assert (len(port.tx_rings), len(port.rx_rings)) == (2, 2)
        host = peer("vale1:2")
        port.send([frame(1)], ring=1)
        assert host.recv(timeout=30) == [frame(1)]
    with guest.open("netmap:ptnet0/R") as port:
        assert (len(port.tx_rings), len(port.rx_rings)) == (0, 2)


def test_a_header_can_be_asked_for_and_is_gone_with_the_next_program(guest, pair):
    with guest.open(flags=abi.NR_ACCEPT_VNET_HDR) as port:
        port.adapter.set_header(12)
        assert port.adapter.header == pair.device("4").header == 12
        with pytest.raises(PortError, match="no virtio-net header of 11 bytes"):
            port.adapter.set_header(11)
    with guest.open() as port:
        assert port.adapter.header == pair.device("4").header == 0


# --- what is held, and given back


def test_functions_are_enabled_while_they_are_used(guest):
    def enabled():
        return [(function.path / "enable").read_text().strip() for function in (*guest.memdevs(), *guest.ptnets())]

    with guest.open():
        assert enabled() == ["1", "1"]
    assert enabled() == ["0", "0"]


def test_the_device_is_stopped_before_its_pages_and_its_guardian_go(guest, pair):
    with guest.open():
        assert pair.device("4").port.served
        assert not guest.guards[0].dismissed
    assert not pair.device("4").port.served
    assert guest.guards[0].dismissed
    assert guest.taken[0].closed


def test_after_a_refusal_nothing_is_held(guest, monkeypatch):
    monkeypatch.setattr(GuestPages, "second", 1 << 40)  # outside of the guest's memory
    assert refused(guest).errno == errno.EFAULT
    assert guest.guards[0].dismissed
    assert guest.taken[0].closed


def test_without_interrupts_the_host_is_never_asked_for_any(guest, peer, frame):
    host = peer("vale1:2")
    with guest.open() as port:
        assert port.poll(timeout=0.05) == 0
        asked = struct.unpack_from("<I", guest.machine.host.memory.read(CSB + nm_csb_atok.itemsize, 64), 8)
        assert asked == (0,)
        host.send([frame(2)])
        assert port.poll(timeout=30) == 1
        with pytest.raises(PortError, match="uio_pci_generic") as caught:
            port.fileno()
        assert caught.value.errno == errno.EOPNOTSUPP


class Interrupts:
    """Vectors as vfio-pci gives them, of a device model whose MSI-X is enabled."""

    def __init__(self, function, count):
        self.fds = []
        self.eventfds = []

    def waiting(self, vector):
        eventfd = os.dup(self.device.msix.vectors[vector].eventfd)
        with select.epoll(flags=select.EPOLL_CLOEXEC) as epoll:
            epoll.register(eventfd, select.EPOLLIN | select.EPOLLET)
            self.eventfds.append(eventfd)
            return os.dup(epoll.fileno())

    def close(self):
        while self.eventfds:
            os.close(self.eventfds.pop())


def test_with_interrupts_a_waiting_program_is_woken(guest, pair, peer, frame, monkeypatch):
    guest.bind("4", "vfio-pci")
    Interrupts.device = pair.device("4")
    monkeypatch.setattr("ptnetmap.netmap.linuxguest.device.VfioInterrupts", Interrupts)
    host = peer("vale1:2")
    with guest.open() as port:
        fd = port.fileno()
        assert select.select([fd], [], [], 0)[0] == []
        host.send([frame(2)])
        assert select.select([fd], [], [], 30)[0] == [fd]
        assert port.recv(timeout=0) == [frame(2)]
        command = int.from_bytes((guest.ptnets()[0].path / "config").read_bytes()[4:6], "little")
        assert command & pci.PCIM_CMD_BUSMASTEREN


class UioGuest(FakeGuest):
    """A guest with a /dev of its own, in which a pipe plays what uio_pci_generic has."""

    def interrupts(self, function, count):
        (function.path / "uio/uio7").mkdir(parents=True)
        self.dev.mkdir()
        os.mkfifo(self.dev / "uio7")
        return UioInterrupts(function, count, self.dev)

    @property
    def dev(self):
        return self.sysfs / "dev"

    @property
    def command(self):
        return int.from_bytes((self.ptnets()[0].path / "config").read_bytes()[4:6], "little")


def test_the_pin_wakes_a_waiting_program_and_is_unmasked(pair, peer, frame, tmp_path, patiently):
    guest = UioGuest(tmp_path / "sys", pair)
    [function] = guest.ptnets()
    masked = bytes(4) + (pci.PCIM_CMD_INTxDIS | 3).to_bytes(2, "little") + bytes(58)
    (function.path / "config").write_bytes(masked)
    host = peer("vale1:2")
    with guest.open() as port, (guest.dev / "uio7").open("r+b", buffering=0) as uio:
        assert guest.command == 3
        fd = port.fileno()
        host.send([frame(2)])
        patiently(lambda: event_of(pair.device("4").msix.vectors[1].eventfd), "an event of the RX ring")
        (function.path / "config").write_bytes(masked)
        uio.write(bytes(4))
        assert select.select([fd], [], [], 30)[0] == [fd]
        patiently(lambda: guest.command == 3, "the pin's unmasking")
        assert port.recv(timeout=30) == [frame(2)]
    assert not [thread for thread in threading.enumerate() if "uio7" in thread.name]


def event_of(eventfd):
    try:
        return os.read(eventfd, 8)
    except BlockingIOError:
        return b""


# --- what is in the way


def test_a_name_means_a_device_only_where_there_is_one(guest, tmp_path):
    ask = lambda name: device_number(names.parse(name), guest.sysfs)  # noqa: E731
    assert [ask(f"netmap:{name}") for name in ("ptnet0", "ptnet7", "ptnet0{1", "eth0", "ptnet")] == [
        0,
        7,
        None,
        None,
        None,
    ]
    (guest.sysfs / "class/net/ptnet0").mkdir(parents=True)
    assert ask("netmap:ptnet0") is None
    assert device_number(names.parse("netmap:ptnet0"), tmp_path) is None


def test_functions_with_the_same_ids_and_another_class_are_others(guest):
    [function] = guest.ptnets()
    (function.path / "class").write_text("0x0c0330\n")  # QEMU's USB controller
    assert guest.ptnets() == []


def test_a_number_too_high_is_told_which_there_are(guest):
    error = refused(guest, "netmap:ptnet3")
    assert error.errno == errno.ENXIO
    assert "ptnet0 at 0000:00:04.0" in str(error)


@pytest.mark.parametrize("place", ["3", "4"])
def test_a_device_that_a_driver_has_is_refused(guest, place):
    guest.bind(place, "ptnet")
    error = refused(guest)
    assert error.errno == errno.EBUSY
    assert f"echo 0000:00:0{place}.0 > /sys/bus/pci/drivers/ptnet/unbind" in str(error)


@pytest.mark.parametrize(
    ("text", "mode"), [("none [integrity] confidentiality\n", "integrity"), ("[none] integrity\n", "")]
)
def test_lockdown_is_told(guest, text, mode):
    (guest.sysfs / "kernel/security").mkdir(parents=True)
    (guest.sysfs / "kernel/security/lockdown").write_text(text)
    if not mode:
        with guest.open():
            return
    error = refused(guest)
    assert error.errno == errno.EPERM
    assert f"locked down ({mode})" in str(error)


def test_a_missing_memdev_is_told(guest):
    [memdev] = guest.memdevs()
    (memdev.path / "class").write_text("0x060400\n")
    error = refused(guest)
    assert error.errno == errno.ENODEV
    assert "there is no ptnetmap-memdev" in str(error)


def test_the_memory_that_the_memdevs_show_is_told(guest, pair):
    registers = bytearray(pair.device("3")._registers)
    struct.pack_into("<I", registers, ptnet.PTNET_MDEV_IO_MEMID, 999)
    pair.device("3")._registers = bytes(registers)
    assert "the memdevs show 999" in str(refused(guest))


@pytest.mark.parametrize("at", [ptnet.PTNET_MDEV_IO_BUF_POOL_OFS, ptnet.PTNET_MDEV_IO_BUF_POOL_OBJSZ])
@pytest.mark.parametrize("value", [1, 0xFFFFFFFF])
def test_a_memdev_that_describes_nonsense_is_refused(guest, pair, at, value):
    registers = bytearray(pair.device("3")._registers)
    struct.pack_into("<I", registers, at, value)
    pair.device("3")._registers = bytes(registers)
    assert refused(guest).errno == errno.EINVAL


def test_a_bar_that_the_kernel_has_not_placed_is_told(guest):
    [function] = guest.ptnets()
    (function.path / "resource").write_text("0x0 0x0 0x0\n" * 6)
    error = refused(guest)
    assert error.errno == errno.ENXIO
    assert "BAR 0" in str(error)


def test_who_may_not_open_a_bar_is_told_what_to_be(guest):
    [memdev] = guest.memdevs()
    (memdev.path / "resource1").unlink()
    assert "BAR 1" in str(refused(guest))


def test_monitors_are_for_the_host(guest):
    error = refused(guest, "netmap:ptnet0/r")
    assert error.errno == errno.EOPNOTSUPP
    assert "monitor it on the host" in str(error)


def test_losses_are_the_hosts_business(guest):
    assert refused(guest, lossless=True).errno == errno.EOPNOTSUPP
