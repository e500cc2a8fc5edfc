# SPDX-License-Identifier: BSD-2-Clause
"""A simulated machine for interpreted routines, and memory that they can address."""

from __future__ import annotations

import ctypes
import mmap
import struct

import numpy as np
import pytest

from ptnetmap.abi.virtio_pci import VIRTIO_PCI_VENDOR
from ptnetmap.guest import layout, outside
from ptnetmap.guest.cpus import do_job
from ptnetmap.guest.layout import CALL_VECTOR, LOCAL_APIC, boot_info, cpu_block, offsets

MAP_32BIT = 0x40
TSC_KHZ = 2_500_000
PER_TICK = TSC_KHZ / 1_000_000  # of the APIC timer, which counts nanoseconds
BLOCK = offsets(cpu_block)
RNG_PORTS = 0x2000
MSIX_TABLE = 0xC0001000


class EndedError(Exception):
    """How the machine ended: "poweroff" or "crash"."""


class LowMemory:
    """Zeroed memory at addresses that 32 bits hold, as queue addresses of legacy devices must."""

    def __init__(self, size):
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT
        self.map = mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._bytes = (ctypes.c_uint8 * size).from_buffer(self.map)
        self.address = ctypes.addressof(self._bytes)
        self.size = size

    def text(self, characters, at=0):
        data = characters.encode() + b"\0"
        self.map[at : at + len(data)] = data
        return self.address + at

    def close(self):
        del self._bytes
        self.map.close()


class Rng:
    """A legacy virtio-rnd of one queue, at RNG_PORTS; ``serve`` may be replaced by something hostile."""

    def __init__(self, machine):
        self.machine = machine
        self.status = self.pfn = self.taken = 0
        self.vector = 0xFFFF
        self.fill = 1
        self.serve = self.answer

    def read(self, port):
        return {12: 8, 18: self.status, 22: self.vector}.get(port, 0)

    def write(self, port, value):
        if port == 18:
            self.status = value
        elif port == 8:
            self.pfn = value
        elif port == 22:
            self.vector = value
        elif port == 16:
            assert value == 0
            assert self.status == 7
            self.serve()

    def answer(self, used_id=0, extra=0, interrupt=True):
        queue = self.pfn << 12
        index = ctypes.c_uint16.from_address(queue + 8 * 16 + 2).value
        assert index == self.taken + 1 & 0xFFFF
        head = ctypes.c_uint16.from_address(queue + 8 * 16 + 4 + 2 * (self.taken % 8)).value
        address, length, flags, _ = struct.unpack("<QIHH", ctypes.string_at(queue + 16 * head, 16))
        assert flags == 2
        ctypes.memset(address, self.fill, length)
        self.fill += 1
        used = struct.pack("<II", used_id, length + extra)
        ctypes.memmove(queue + 4096 + 4 + 8 * (self.taken % 8), used, 8)
        self.taken = index
        ctypes.c_uint16.from_address(queue + 4096 + 2).value = index
        if interrupt and self.vector != 0xFFFF:
            self.machine.message(self.vector)


class Machine:
    """Ports, local APIC, PCI bus and time of ``cpus`` processors, of which only the first one really runs."""

    def __init__(self, cpus=1, heap_size=1 << 20, cmdline=""):
        self.cpus = cpus
        block = cpu_block.itemsize
        self.memory = LowMemory(heap_size + block * (cpus + 2))
        base = self.memory.address
        self.boot = base
        self.blocks = -(-(base + block) // block) * block
        self.info = np.frombuffer(self.memory.map, boot_info, 1)
        self.info["cpus"], self.info["blocks"], self.info["running"] = cpus, self.blocks, cpus - 1
        self.info["heap"] = self.blocks + cpus * block
        self.info["heap_end"] = base + self.memory.size
        self.info["cmdline"] = self.memory.text(cmdline, 0x1000)
        self.info["idt"] = base + 0x2000
        for index in range(cpus):
            ctypes.c_uint64.from_address(self.block(index) + BLOCK["index"]).value = index
            ctypes.c_uint64.from_address(self.block(index) + BLOCK["apic_id"]).value = index
        self.now = 1_000_000
        self.step = 50
        self.said = bytearray()
        self.apic = {}
        self.timer_set = None
        self.config = {}
        self.address = 0
        self.rng = Rng(self)
        self.registers = {}
        self.port_writes = []
        self.waits = 0

    def block(self, index):
        return self.blocks + index * cpu_block.itemsize

    def count(self, vector, index=0):
        return ctypes.c_uint64.from_address(self.block(index) + BLOCK["counters"] + 8 * vector).value

    def lines(self):
        return self.said.decode().replace("\r\n", "\n").splitlines()

    def close(self):
        self.info = None
        self.memory.close()

    # what the processor takes

    def deliver(self, vector, index=0):
        for slot in (0, vector):
            ctypes.c_uint64.from_address(self.block(index) + BLOCK["counters"] + 8 * slot).value += 1

    def message(self, entry):
        table = [self.registers.get(MSIX_TABLE + 16 * entry + 4 * word, 0) for word in range(4)]
        if table[3] & 1 == 0:
            self.deliver(table[2], (table[0] >> 12) & 0xFF)

    def tick(self):
        self.now += self.step
        if self.timer_set is None:
            return
        start, ticks = self.timer_set
        if (self.now - start) / PER_TICK >= ticks:
            self.timer_set = None
            if self.apic.get(0x320, 0x10000) & 0x10000 == 0:
                self.deliver(self.apic[0x320] & 0xFF)

    # the Outside protocol

    def timestamp(self):
        self.tick()
        return self.now

    def wait(self, address, seen):
        self.waits += 1
        while ctypes.c_uint64.from_address(address).value == seen:
            if self.timer_set is None:
                raise AssertionError("this processor would sleep for ever")
            start, ticks = self.timer_set
            self.now = max(self.now, start + int(ticks * PER_TICK))
            self.tick()

    def crash(self):
        raise EndedError("crash")

    def read_register(self, address, size):
        self.tick()
        if address & ~0xFFF == LOCAL_APIC:
            offset = address - LOCAL_APIC
            if offset == 0x390:
                if self.timer_set is None:
                    return 0
                start, ticks = self.timer_set
                return max(0, ticks - int((self.now - start) / PER_TICK))
            return self.apic.get(offset, 0)
        return self.registers.get(address, 0)

    def write_register(self, address, size, value):
        assert size == 4
        if address & ~0xFFF != LOCAL_APIC:
            self.registers[address] = value
            return
        offset = address - LOCAL_APIC
        self.apic[offset] = value
        if offset == 0x380:
            self.timer_set = (self.now, value) if value else None
        if offset == 0x300:
            self.interrupt(self.apic[0x310] >> 24, value & 0xFF)

    def interrupt(self, index, vector):
        self.deliver(vector, index)
        if vector == CALL_VECTOR and index != 0:
            do_job(self.block(index))

    def read_port(self, port, size):
        self.tick()
        if port == 0x3FD:
            return 0x60
        if 0xCFC <= port < 0xD00:
            space = self.config.get(self.address >> 8 & 0xFFFF)
            at = (self.address & 0xFC) + port - 0xCFC
            return (1 << 8 * size) - 1 if space is None else int.from_bytes(space[at : at + size], "little")
        if RNG_PORTS <= port < RNG_PORTS + 32:
            return self.rng.read(port - RNG_PORTS)
        return (1 << 8 * size) - 1

    def write_port(self, port, size, value):
        self.port_writes.append((port, size, value))
        if port == 0x3F8 and (0x3FB, 1, 3) in self.port_writes:  # no longer the divisor
            self.said.append(value)
        elif port == 0x404 and value == 0x3400:
            raise EndedError("poweroff")
        elif port == 0xCF8:
            self.address = value
        elif 0xCFC <= port < 0xD00 and (self.address >> 8 & 0xFFFF) in self.config:
            at = (self.address & 0xFC) + port - 0xCFC
            self.config[self.address >> 8 & 0xFFFF][at : at + size] = value.to_bytes(size, "little")
        elif RNG_PORTS <= port < RNG_PORTS + 32:
            self.rng.write(port - RNG_PORTS, value)

    # what is plugged in

    def plug(self, slot, function=0, vendor=0x1275, device=0x1275, class_code=0x060000, header_type=0):
        space = bytearray(256)
        struct.pack_into("<HH", space, 0, vendor, device)
        struct.pack_into("<I", space, 8, class_code << 8)
        space[0xE] = header_type
        self.config[slot << 3 | function] = space
        return space

    def plug_rng(self, slot=3, msix=True):
        space = self.plug(slot, 0, VIRTIO_PCI_VENDOR, 0x1005, 0x100000)
        struct.pack_into("<II", space, 0x10, RNG_PORTS | 1, MSIX_TABLE)
        if msix:
            space[6] |= 0x10
            space[0x34] = 0x40
            struct.pack_into("<BBHII", space, 0x40, 0x11, 0, 1, 0x1, 0x801)
        return space


@pytest.fixture
def make_machine():
    machines = []

    def make(**options):
        machine = Machine(**options)
        machines.append(machine)
        attached = outside.attached(machine)
        attached.__enter__()
        machine.detach = attached
        return machine

    yield make
    for machine in machines:
        machine.detach.__exit__(None, None, None)
        machine.close()


@pytest.fixture
def machine(make_machine):
    made = make_machine()
    made.info["tsc_khz"], made.info["apic_khz"] = TSC_KHZ, 1_000_000
    made.write_port(0x3FB, 1, 3)
    return made


@pytest.fixture(scope="module")
def executable_memory():
    memory = LowMemory(1 << 20)
    yield memory
    memory.close()


@pytest.fixture
def low_memory():
    memory = LowMemory(1 << 20)
    yield memory
    memory.close()


@pytest.fixture
def guest_ram():
    """What the loader writes to: RAM of any size as pieces by address."""

    class Ram:
        def __init__(self, low=64 << 20, high=0):
            self.low_size, self.high_size = low, high
            self.bytes = bytearray(min(low, 64 << 20))

        def write(self, gpa, data):
            assert gpa + len(data) <= self.low_size
            self.bytes[gpa : gpa + len(data)] = data

        def word(self, gpa):
            return int.from_bytes(self.bytes[gpa : gpa + 8], "little")

    assert layout.IMAGE_BASE
    return Ram
