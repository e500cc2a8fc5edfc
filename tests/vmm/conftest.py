# SPDX-License-Identifier: BSD-2-Clause
import ctypes
import errno
import gc
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from ptnetmap.abi.kvm import cpu, ioctl, machine
from ptnetmap.abi.kvm.run import kvm_run
from ptnetmap.vmm.kvm import Kvm
from ptnetmap.vmm.memory import GuestMemory
from ptnetmap.vmm.vm import Vm

MB = 1 << 20


def resources():
    """What this process holds: descriptors, memory mappings of devices and memfds, threads."""
    gc.collect()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    lines = Path("/proc/self/maps").read_text().splitlines()
    named = [line for line in lines if "memfd" in line or "anon_inode" in line]
    return descriptors, len(named), len(list(Path("/proc/self/task").iterdir()))


@pytest.fixture
def nothing_left():
    """Fail the test if it leaves descriptors, mappings or threads behind."""
    before = resources()
    yield
    assert resources() == before


def fail(number):
    raise OSError(number, os.strerror(number))


class FakeKvm:
    """The kernel's side of the ioctl interface: keeps its rules, records each call, runs what a test scripts.

    ``calls`` are (name, argument) with a copy of the argument; ``refuse[name]`` is an errno to give;
    ``script`` are functions of (run page, its bytes) that KVM_RUN calls in turn: each leaves an exit there.
    """

    def __init__(self):
        self.calls = []
        self.refuse = {}
        self.capabilities = dict.fromkeys(ioctl.CAPABILITIES.values(), 1)
        self.capabilities[ioctl.CAPABILITIES["KVM_CAP_IRQ_ROUTING"]] = 4096
        self.capabilities[ioctl.CAPABILITIES["KVM_CAP_MAX_VCPU_ID"]] = 8
        self.version = 12
        self.slots = {}
        self.routes = []
        self.irqfds = {}
        self.ioeventfds = {}
        self.lines = {}
        self.messages = []
        self.vcpus = {}
        self.pages = {}
        self.states = {}
        self.script = []

    def __call__(self, fd, request, argument=0):
        name = ioctl.NAMES[request]
        self.calls.append((name, argument if isinstance(argument, int) else argument.copy()))
        os.fstat(fd)  # EBADF
        if name in self.refuse:
            fail(self.refuse[name])
        answer = getattr(self, name.removeprefix("KVM_").lower(), None)
        if answer is not None:
            return answer(fd, argument) or 0
        if name.startswith(("KVM_GET_", "KVM_SET_")):
            return self.keep(fd, name, argument)
        return 0

    def named(self, name):
        return [argument for called, argument in self.calls if called == name]

    def keep(self, fd, name, argument):
        key = fd, name[8:]
        if name.startswith("KVM_SET_"):
            self.states[key] = argument if isinstance(argument, int) else argument.copy()
        elif key in self.states:
            argument[...] = self.states[key]
        return 0

    def get_api_version(self, fd, argument):
        return self.version

    def check_extension(self, fd, argument):
        return self.capabilities.get(argument, 0)

    def get_vcpu_mmap_size(self, fd, argument):
        return 3 * mmap.PAGESIZE

    def get_supported_cpuid(self, fd, table):
        leaves = [(0, 0, 0, 0xD, 1, 2, 3, [0, 0, 0]), (0x80000008, 0, 0, 40, 0, 0, 0, [0, 0, 0])]
        self.put(table, cpu.kvm_cpuid2, np.array(leaves, cpu.kvm_cpuid_entry2))

    def get_cpuid2(self, fd, table):
        kept = self.states[fd, "CPUID2"]
        table[: len(kept)] = kept

    @staticmethod
    def put(table, head, entries):
        table[:4].view("<u4")[0] = len(entries)
        table[head.itemsize :].view(entries.dtype)[: len(entries)] = entries

    def get_msrs(self, fd, table):
        entries = table[8:].view(cpu.kvm_msr_entry)
        for at, entry in enumerate(entries):
            if (fd, int(entry["index"])) not in self.states:
                return at
            entry["data"] = self.states[fd, int(entry["index"])]
        return len(entries)

    def set_msrs(self, fd, table):
        entries = table[8:].view(cpu.kvm_msr_entry)
        for at, entry in enumerate(entries):
            if entry["index"] >= 0xFFFF0000:
                return at
            self.states[fd, int(entry["index"])] = int(entry["data"])
        return len(entries)

    def create_vm(self, fd, argument):
        return os.eventfd(0, os.EFD_CLOEXEC)

    def create_vcpu(self, fd, index):
        if index in self.vcpus:
            fail(errno.EEXIST)
        made = os.memfd_create("vcpu", os.MFD_CLOEXEC)
        os.ftruncate(made, 3 * mmap.PAGESIZE)
        self.vcpus[index] = made
        self.pages[made] = mmap.mmap(made, 3 * mmap.PAGESIZE)
        return made

    def run(self, fd, argument):
        page = np.frombuffer(self.pages[fd], kvm_run, count=1)[0]
        if page["immediate_exit"]:
            fail(errno.EINTR)
        self.script.pop(0)(page, memoryview(self.pages[fd]))

    def set_user_memory_region(self, fd, region):
        number, start, size = (int(region[name]) for name in ("slot", "guest_phys_addr", "memory_size"))
        if not size:
            return 0 if self.slots.pop(number, None) else fail(errno.EINVAL)
        if (start | size | int(region["userspace_addr"])) % mmap.PAGESIZE or start + size > 1 << 40:
            fail(errno.EINVAL)
        for other, (gpa, length, *_) in self.slots.items():
            if other != number and start < gpa + length and gpa < start + size:
                fail(errno.EEXIST)
        self.slots[number] = (start, size, int(region["userspace_addr"]), int(region["flags"]))
        return 0

    def set_gsi_routing(self, fd, table):
        count = int(table[:4].view("<u4")[0])
        entries = table[8:].view(machine.kvm_irq_routing_entry)
        assert len(entries) == count
        if count > 4096 or any(entry["gsi"] >= 4096 for entry in entries):
            fail(errno.EINVAL)
        pins = [
            (int(e["gsi"]), int(e["irqchip"]["irqchip"]))
            for e in entries
            if e["type"] == machine.KVM_IRQ_ROUTING_IRQCHIP
        ]
        if len(set(pins)) < len(pins):
            fail(errno.EINVAL)
        self.routes = entries.copy()

    def message(self, gsi):
        """The (address, data) that a GSI's message has."""
        for entry in self.routes:
            if entry["gsi"] == gsi and entry["type"] == machine.KVM_IRQ_ROUTING_MSI:
                msi = entry["msi"]
                return int(msi["address_lo"]) | int(msi["address_hi"]) << 32, int(msi["data"])
        return None

    def irqfd(self, fd, argument):
        eventfd, gsi, flags = (int(argument[name]) for name in ("fd", "gsi", "flags"))
        os.fstat(eventfd)
        if flags & machine.KVM_IRQFD_FLAG_DEASSIGN:
            self.irqfds.pop((eventfd, gsi), None)
            return
        if any(eventfd == joined for joined, _ in self.irqfds):
            fail(errno.EBUSY)
        resample = flags & machine.KVM_IRQFD_FLAG_RESAMPLE
        self.irqfds[eventfd, gsi] = int(argument["resamplefd"]) if resample else None

    def irq_line(self, fd, argument):
        self.lines[int(argument["irq"])] = int(argument["level"])

    def signal_msi(self, fd, argument):
        self.messages.append((int(argument["address_lo"]) | int(argument["address_hi"]) << 32, int(argument["data"])))
        return 1

    def ioeventfd(self, fd, argument):
        flags, address, width = (int(argument[name]) for name in ("flags", "addr", "len"))
        bus = "port" if flags & machine.KVM_IOEVENTFD_FLAG_PIO else "mmio"
        data = int(argument["datamatch"]) if flags & machine.KVM_IOEVENTFD_FLAG_DATAMATCH else None
        eventfd = int(argument["fd"])
        os.fstat(eventfd)
        if width not in (1, 2, 4, 8):
            fail(errno.EINVAL)
        key = (bus, address, width, data)
        if flags & machine.KVM_IOEVENTFD_FLAG_DEASSIGN:
            if self.ioeventfds.get(key) != eventfd:
                fail(errno.ENOENT)
            del self.ioeventfds[key]
            return
        for other in self.ioeventfds:
            if other[:3] == key[:3] and (None in (data, other[3]) or data == other[3]):
                fail(errno.EEXIST)
        self.ioeventfds[key] = eventfd

    def guest_writes(self, bus, address, width, value):
        """Do what the kernel does for a write of the guest; False if it comes out."""
        for data in (value, None):
            eventfd = self.ioeventfds.get((bus, address, width, data))
            if eventfd is not None:
                os.eventfd_write(eventfd, 1)
                return True
        return False


@pytest.fixture
def fake_kvm():
    return FakeKvm()


@pytest.fixture(scope="session")
def fake_kvm_class():
    """For tests that need a new one per example."""
    return FakeKvm


@pytest.fixture
def memory():
    with GuestMemory(2 * MB) as memory:
        yield memory


@pytest.fixture
def vm(fake_kvm, memory):
    with Kvm("/dev/null", ioctl=fake_kvm) as kvm, Vm("test", memory, kvm=kvm) as vm:
        fake_kvm.calls.clear()
        yield vm


@pytest.fixture
def eventfds():
    """Make eventfds that do not block, closed after the test."""
    made = []

    def make():
        made.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


@pytest.fixture
def count():
    """Take an eventfd's counter, 0 if nobody signalled it."""

    def take(fd):
        try:
            return os.eventfd_read(fd)
        except BlockingIOError:
            return 0

    return take


@pytest.fixture
def page():
    """A page-aligned private page, as (address, bytes)."""
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    pointer = ctypes.c_char.from_buffer(memory)
    yield ctypes.addressof(pointer), memory
    del pointer
    memory.close()
