# SPDX-License-Identifier: BSD-2-Clause
"""A whole machine's devices, driven by bytes: what a guest could do with them, without a guest.

Hypothesis chooses the bytes in ``test_fuzz.py``. With atheris (``pip install --group fuzz``), which follows what the
bytes reach, they are chosen for as long as you like::

    .venv/bin/python -m tests.bhyve.fuzz -max_len=1600 -len_control=0 -max_total_time=60
"""

import logging
import struct
import sys
import tempfile
from pathlib import Path

from ptnetmap.abi import pci
from ptnetmap.bhyve import devices
from ptnetmap.bhyve.devices.board import Board
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.pci.function import Function
from tests.bhyve.conftest import FakeHost

STEP = struct.Struct("<BBHI")
"""One access: what to do and its width, a selector, an offset, a value."""
RAM = 1 << 20
PLUGGED = ["hostbridge", "lpc", "virtio-rnd", "virtio-blk", "uart", "virtio-net", "dummy", "ptnetmap-memdev"]
PLUGGED += ["virtio-console"]
BOARD = [0x20, 0x40, 0x60, 0x64, 0x70, 0x71, 0x80, 0x92, 0xB2, 0x3F8, 0x2F8, 0x400, 0xCF9]
VALUES = [0, 1, 0xFFFFFFFF, 0x80, 0x1000, RAM - 16, RAM, 0xC0000000, 0xFEC00000, 0x2000]


class Machine:
    """All devices on a bus, in a machine that has no processor."""

    def __init__(self, disk: Path) -> None:
        self.host = FakeHost(RAM, vm=True)
        self.bus = PciBus(self.host)
        self.board = Board(self.host, acpi_always_on=True)
        devices.load(PLUGGED)
        options = {
            "virtio-blk": {"path": str(disk)},
            "virtio-console": {"port.0.name": "port", "port.0.path": str(disk.with_suffix(".port"))},
        }
        for slot, name in enumerate(PLUGGED):
            self.bus.create(Function(0, slot, 0), name, options.get(name, {}))
        self.bus.start()
        self.places = sorted(self.bus.devices)

    def close(self) -> None:
        self.bus.close()
        self.board.close()
        self.host.close()

    def step(self, what: int, selector: int, offset: int, value: int) -> None:
        """Make one access: every combination of arguments is one that a guest can make."""
        width = (1, 2, 4)[what >> 4 & 3] if what >> 4 & 3 < 3 else 4
        value = (VALUES[value % len(VALUES)] if what & 0x80 else value) & (1 << 8 * width) - 1
        place = self.places[selector % len(self.places)]
        with self.host.lock:
            match what & 7:
                case 0 | 1:
                    self.bus.write_config(place, offset % 256 & -width, width, value)
                case 2:
                    self.bus.read_config(place, offset % 256 & -width, width)
                case 3:
                    self.host.ports.write(BOARD[selector % len(BOARD)] + offset % 8, width, value)
                case 4:
                    self.host.ports.read(BOARD[selector % len(BOARD)] + offset % 8, width)
                case 5 | 6:
                    self.touch_bar(place, selector >> 4, offset, width, value, write=what & 1 == 1)
                case _:
                    self.host.memory.write_int(offset % (RAM >> 4) * 8, width, value)

    def touch_bar(self, place: Function, number: int, offset: int, width: int, value: int, *, write: bool) -> None:
        """Access a BAR where its registers say that it is, be it decoded there or not."""
        bars = sorted(self.bus.devices[place].bars)
        if not bars:
            return
        register = pci.PCIR_BARS + 4 * bars[number % len(bars)]
        low = self.bus.read_config(place, register, 4)
        is_port = low & pci.PCIM_BAR_IO_SPACE
        space, address = (self.host.ports, low & 0xFFFC) if is_port else (self.host.mmio, low & 0xFFFFFFF0)
        address += offset % 4096
        if is_port:
            address &= 0xFFFF
        if write:
            space.write(address, width, value)
        else:
            space.read(address, width)


def drive(data: bytes, disk: Path) -> Machine:
    """Let a new machine take all accesses that ``data`` says; return it. Whoever drives it closes it."""
    machine = Machine(disk)
    try:
        for at in range(0, len(data) - STEP.size + 1, STEP.size):
            machine.step(*STEP.unpack_from(data, at))
    except BaseException:
        machine.close()
        raise
    return machine


def main() -> None:
    """Let atheris choose the bytes."""
    import atheris

    disk = Path(tempfile.mkstemp(suffix=".img")[1])
    disk.write_bytes(bytes(1 << 16))
    logging.disable(logging.CRITICAL)
    atheris.instrument_all()
    atheris.Setup(sys.argv, lambda data: drive(data, disk).close())
    atheris.Fuzz()


if __name__ == "__main__":
    main()
