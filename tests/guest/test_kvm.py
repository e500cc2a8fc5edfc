# SPDX-License-Identifier: BSD-2-Clause
"""The built-in guest on a real KVM, with no more around it than a console and a switch.

Where compiling is slow, as in a nest, share a cache in which the image is already (PTNETMAP_CACHE_DIR).
"""

import re
import threading
from pathlib import Path

import pytest

from ptnetmap.guest.image import built_in
from ptnetmap.guest.load import load
from ptnetmap.guest.spin import spin
from ptnetmap.vmm import GuestMemory, Interrupted, IoExit, Kvm, Shutdown, Vm

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="there is no /dev/kvm"),
]

MB = 1 << 20
COM1, LINE_STATUS, PM1A_CONTROL = 0x3F8, 0x3FD, 0x404
SENT = 0x60
DIVISOR = 1  # of the speed, which goes to the same port
DEADLINE = 120


@pytest.fixture(scope="module")
def kvm():
    # A machine that stays: switching the processor's virtualisation off and on is not for every test (see tests/vmm).
    with Kvm() as kvm, GuestMemory(MB) as memory, Vm("stays", memory, kvm=kvm):
        yield kvm


class Runner:
    """Runs a machine until it powers off, or fails: ``said`` is its console's output, ``end`` how it ended."""

    def __init__(self, vm):
        self.vm = vm
        self.said = bytearray()
        self.end = None
        self._over = threading.Event()

    def run(self, states):
        cpuid = self.vm.kvm.supported_cpuid()
        threads = []
        for state in states:
            vcpu = self.vm.create_vcpu(state.index)
            vcpu.set_cpuid(cpuid)
            vcpu.set_sregs(state.sregs())
            vcpu.set_regs(state.regs())
            vcpu.set_lapic(state.lapic)
            vcpu.set_mp_state(0)
            threads.append(threading.Thread(target=self._go, args=(vcpu,)))
        for thread in threads:
            thread.start()
        over = self._over.wait(DEADLINE)
        self._stop(None)
        for thread in threads:
            thread.join()
        assert over, self.said.decode()

    def _stop(self, how):
        if not self._over.is_set():
            self.end = how
            self._over.set()
        for vcpu in self.vm.vcpus:
            vcpu.kick()

    def _go(self, vcpu):
        while not self._over.is_set():
            exit_ = vcpu.run()
            if isinstance(exit_, IoExit):
                self._port(exit_)
            elif not isinstance(exit_, Interrupted):
                self._stop(exit_)

    def _port(self, access):
        if not access.write:
            access.reply(SENT if access.port == LINE_STATUS else 0xFFFFFFFF)
        elif access.port == COM1:
            self.said += bytes(byte for byte in access.data if byte != DIVISOR)
        elif access.port == PM1A_CONTROL:
            self._stop(access.data)


@pytest.fixture
def run(kvm):
    def one(cmdline, vcpus=1, size=64 * MB):
        with GuestMemory(size) as memory, Vm("test", memory, kvm=kvm) as vm:
            runner = Runner(vm)
            runner.run(load(memory, cmdline, vcpus, image=built_in()))
        lines = runner.said.decode().replace("\r\n", "\n").splitlines()
        return runner.end, lines

    return one


@pytest.mark.parametrize(("vcpus", "size"), [(1, 32 * MB), (2, 64 * MB), (2, 3200 * MB)])
def test_the_self_test_passes(run, vcpus, size):
    end, lines = run("program=selftest", vcpus, size)
    assert end == (0x3400,)
    assert [line for line in lines if line.startswith("FAIL")] == []
    assert lines[-1] == "selftest: 4 ok, 0 failed, 2 skipped"
    assert f"ok   processors: {vcpus}" in lines


def test_a_loop_computes_in_the_guest_what_it_computes_here(run):
    end, lines = run("program=spin rounds=20000", 1, 32 * MB)
    assert end == (0x3400,)
    found = re.fullmatch(r"spin: 20000 rounds in (\d+) cycles at (\d+) kHz, result (.*)", lines[-1])
    assert found
    assert found[3] == f"{spin(20000):08x}"


def test_an_exception_is_reported_and_ends_the_machine_by_a_triple_fault(run):
    end, lines = run("program=fault")
    assert end == Shutdown()
    assert re.fullmatch(r"FAIL exception 14 error 0x00000004 rip 0x0{10}1.{5} address 0x0{16}", lines[-1])


def test_a_strict_self_test_fails_where_something_is_missing(run):
    end, lines = run("program=selftest strict")
    assert end == Shutdown()
    assert lines[-1] == "selftest: 4 ok, 0 failed, 2 skipped"
