# SPDX-License-Identifier: BSD-2-Clause
import threading

import pytest

from ptnetmap.abi.kvm.run import KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN
from ptnetmap.bhyve.iospace import IoSpace
from ptnetmap.bhyve.processors import Processors
from ptnetmap.errors import GuestError
from ptnetmap.vmm import FailEntry, InternalError, Interrupted, IoExit, MmioExit, MsrExit, Shutdown, SystemEvent

WITHIN = 30


class Vcpu:
    """Comes out of the guest for one reason after the other, then stays inside until it is kicked."""

    def __init__(self, *exits, index=0):
        self.index = index
        self.exits = list(exits)
        self.kicked = threading.Event()
        self.inside = True
        self.nmis = []

    def run(self):
        if self.exits:
            left = self.exits.pop(0)
            if isinstance(left, Exception):
                raise left
            return left
        assert self.kicked.wait(WITHIN)
        self.kicked.clear()
        self.inside = False
        return Interrupted()

    def kick(self):
        self.kicked.set()

    def inject_nmi(self):
        assert not self.inside
        self.nmis.append(threading.current_thread().name)

    def get_regs(self):
        return {"rip": 0x1234}


class Vm:
    def __init__(self, *vcpus, taken=()):
        self.vcpus = list(vcpus)
        self.taken = taken

    def dispatch_io(self, kind, address, size, write, value):
        return (kind, address, write) in self.taken


class Register:
    """A register that remembers what was done to it, and whether the lock was held."""

    def __init__(self, lock):
        self.lock = lock
        self.accesses = []

    def read(self, offset, size):
        assert self.lock.held
        self.accesses.append(("read", offset, size))
        return 0xA0 + len(self.accesses)

    def write(self, offset, size, value):
        assert self.lock.held
        if value == 0xDEAD:
            raise RuntimeError("no such value")
        self.accesses.append(("write", offset, size, value))


class Lock:
    def __init__(self):
        self._lock = threading.RLock()
        self.held = False

    def __enter__(self):
        self._lock.acquire()
        self.held = True

    def __exit__(self, *_):
        self.held = False
        self._lock.release()


class Machine:
    """Processors over fakes; ``ended`` and ``failures`` are what they reported."""

    def __init__(self, *vcpus, taken=(), strict=False):
        self.lock = Lock()
        self.port, self.memory = Register(self.lock), Register(self.lock)
        ports, mmio = IoSpace("port", 1 << 16, strict=strict), IoSpace("address", 1 << 64)
        ports.add(0x100, 16, self.port)
        mmio.add(0xC0000000, 16, self.memory)
        self.ended, self.failures = [], []
        self.news = threading.Event()
        self.processors = Processors(
            Vm(*vcpus, taken=taken),
            ports=ports,
            mmio=mmio,
            lock=self.lock,
            suspend=lambda how: (self.ended.append(how), self.news.set()),
            failed=lambda error: (self.failures.append(error), self.news.set()),
        )

    def run_until_news(self):
        self.processors.start()
        assert self.news.wait(WITHIN)
        self.processors.stop()
        return self


def io(port, size, *data, write=True, count=1):
    return IoExit(port, size, write, len(data) or count, data, memoryview(bytearray(size * count)))


def mmio(address, size, value=None):
    return MmioExit(address, size, value is not None, value or 0, memoryview(bytearray(8)))


def test_accesses_reach_the_device_with_the_lock_held_and_reads_are_answered():
    port_read, memory_read = io(0x104, 2, write=False, count=3), mmio(0xC0000008, 4)
    machine = Machine(Vcpu(io(0x102, 1, 7, 8), port_read, mmio(0xC0000000, 8, 1 << 40), memory_read, Shutdown()))

    machine.run_until_news()

    assert machine.port.accesses == [("write", 2, 1, 7), ("write", 2, 1, 8)] + [("read", 4, 2)] * 3
    assert bytes(port_read._place) == bytes([0xA3, 0, 0xA4, 0, 0xA5, 0])
    assert machine.memory.accesses == [("write", 0, 8, 1 << 40), ("read", 8, 4)]
    assert bytes(memory_read._place) == bytes([0xA2]) + bytes(7)
    assert machine.processors.exits == {0: 5}


def test_a_register_with_a_handler_is_not_shown_to_devices():
    read = io(0x101, 1, write=False)
    taken = {("port", 0x100, True), ("port", 0x101, False), ("mmio", 0xC0000000, True)}
    machine = Machine(Vcpu(io(0x100, 1, 5), read, mmio(0xC0000000, 4, 9), Shutdown()), taken=taken)

    machine.run_until_news()

    assert machine.port.accesses == machine.memory.accesses == []
    assert bytes(read._place) == b"\0"


@pytest.mark.parametrize(
    ("left", "how"),
    [
        (Shutdown(), "triplefault"),
        (SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, ()), "poweroff"),
        (SystemEvent(KVM_SYSTEM_EVENT_RESET, ()), "reset"),
    ],
)
def test_how_the_guest_ended_is_told(left, how):
    machine = Machine(Vcpu(left)).run_until_news()

    assert machine.ended == [how]
    assert machine.failures == []


@pytest.mark.parametrize(
    "left",
    [InternalError(1, (0xF1, 2), b"\x0f\x05"), FailEntry(0x80000021, 1), SystemEvent(99, ())],
)
def test_a_processor_that_cannot_go_on_says_why_and_where(left):
    (error,) = Machine(Vcpu(left)).run_until_news().failures

    assert isinstance(error, GuestError)
    assert "vCPU 0 stopped at rip 0x1234" in str(error)


def test_a_defect_of_a_device_model_ends_the_machine_and_not_the_process(monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: seen.append(arguments.exc_type))

    (error,) = Machine(Vcpu(io(0x100, 2, 0xDEAD))).run_until_news().failures

    assert "a device model failed: RuntimeError: no such value" in str(error)
    assert seen == [RuntimeError]


def test_strict_io_ends_the_machine_at_a_port_without_a_device():
    (error,) = Machine(Vcpu(io(0x999, 1, 1)), strict=True).run_until_news().failures

    assert "port 0x999" in str(error)


def test_unknown_msrs_read_as_zero_and_take_writes():
    place, error = bytearray(b"x" * 8), bytearray(b"\1")
    left = MsrExit(0x123, False, 0, memoryview(error), memoryview(place))

    Machine(Vcpu(left, Shutdown())).run_until_news()

    assert (bytes(error), bytes(place)) == (b"\0", bytes(8))


def test_all_processors_are_out_of_the_guest_once_stopped():
    vcpus = [Vcpu(index=i) for i in range(3)]
    machine = Machine(*vcpus)
    machine.processors.start()

    machine.processors.stop()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vcpu")]


def test_an_nmi_is_given_by_each_processors_own_thread_out_of_the_guest():
    vcpus = [Vcpu(index=i) for i in range(2)]
    machine = Machine(*vcpus)
    machine.processors.inject_nmi()
    machine.processors.start()
    machine.processors.stop()

    assert [vcpu.nmis for vcpu in vcpus] == [["vcpu 0"], ["vcpu 1"]]
