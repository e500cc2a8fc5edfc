# SPDX-License-Identifier: BSD-2-Clause
import errno
import signal
import threading

import numpy as np
import pytest

from ptnetmap.abi.kvm import cpu, run
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.exits import (
    FailEntry,
    Hlt,
    InternalError,
    Interrupted,
    IoExit,
    MmioExit,
    MsrExit,
    Shutdown,
    SystemEvent,
    UnknownExit,
)
from ptnetmap.vmm.vcpu import KICK

DATA = 4096
DEADLINE = 30


@pytest.fixture
def vcpu(vm):
    return vm.create_vcpu(0)


@pytest.fixture
def leave(vcpu, fake_kvm):
    """Run the vCPU until an exit with these fields of its page, and return it."""

    def leave(reason, data=b"", **fields):
        def script(page, raw):
            page["exit_reason"] = reason
            for name, value in fields.items():
                union, _, field = name.partition("__")
                page[union][field] = value
            raw[DATA : DATA + len(data)] = data

        fake_kvm.script.append(script)
        return vcpu.run()

    return leave


@pytest.fixture
def raw(vcpu, fake_kvm):
    return memoryview(fake_kvm.pages[fake_kvm.vcpus[0]])


def io(direction, size, port, count=1):
    return {
        "io__direction": direction,
        "io__size": size,
        "io__port": port,
        "io__count": count,
        "io__data_offset": DATA,
    }


def fields(reason):
    return {name: getattr(reason, name) for name in type(reason).__slots__ if not name.startswith("_")}


class TestExits:
    def test_a_write_to_a_port_has_its_value(self, leave):
        reason = leave(run.KVM_EXIT_IO, b"\x34\x12", **io(1, 2, 0x3F8))
        assert isinstance(reason, IoExit)
        assert fields(reason) == {"port": 0x3F8, "size": 2, "write": True, "count": 1, "data": (0x1234,)}

    def test_a_string_of_writes_has_all_values(self, leave):
        reason = leave(run.KVM_EXIT_IO, b"\x01\x00\x02\x00\x03\x00", **io(1, 2, 0x10, 3))
        assert (reason.count, reason.data) == (3, (1, 2, 3))

    @pytest.mark.parametrize(("values", "expected"), [([1, 2, 0x1FF], b"\1\2\xff"), (-1, b"\xff\xff\xff")])
    def test_a_string_of_reads_is_answered_in_order(self, leave, raw, values, expected):
        reason = leave(run.KVM_EXIT_IO, b"abcd", **io(0, 1, 0x60, 3))
        assert (reason.write, reason.data) == (False, ())
        reason.reply(values)
        assert raw[DATA : DATA + 4] == expected + b"d"

    @pytest.mark.parametrize(("direction", "values"), [(0, [1]), (0, [1, 2, 3]), (1, 0)])
    def test_an_answer_that_does_not_fit_is_refused(self, leave, direction, values):
        reason = leave(run.KVM_EXIT_IO, **io(direction, 1, 0x60, 2))
        with pytest.raises(ValueError, match="reads"):
            reason.reply(values)

    def test_a_write_to_memory_has_its_value(self, leave):
        data = [0x78, 0x56, 0x34, 0x12, 9, 9, 9, 9]
        reason = leave(run.KVM_EXIT_MMIO, mmio__phys_addr=0xC0000004, mmio__len=4, mmio__is_write=1, mmio__data=data)
        assert isinstance(reason, MmioExit)
        assert fields(reason) == {"address": 0xC0000004, "size": 4, "write": True, "value": 0x12345678}
        with pytest.raises(ValueError, match="no answer"):
            reason.reply(1)

    def test_a_read_of_memory_is_answered_modulo_its_size(self, leave, raw):
        reason = leave(run.KVM_EXIT_MMIO, mmio__phys_addr=8, mmio__len=2, mmio__is_write=0, mmio__data=[7] * 8)
        assert (reason.write, reason.value) == (False, 0)
        reason.reply(0xABCDEF)
        assert bytes(raw[40:48]) == bytes.fromhex("efcd070707070707")

    def test_an_unknown_msr_is_answered_or_refused(self, leave, raw):
        reason = leave(run.KVM_EXIT_X86_RDMSR, msr__index=0xC0011029, msr__error=1)
        assert isinstance(reason, MsrExit)
        assert fields(reason) == {"index": 0xC0011029, "write": False, "value": 0}
        reason.reply(5)
        assert (raw[32], int.from_bytes(raw[48:56], "little")) == (0, 5)
        reason = leave(run.KVM_EXIT_X86_WRMSR, msr__index=0x8B, msr__data=9)
        assert (reason.write, reason.value) == (True, 9)
        reason.refuse()
        assert raw[32] == 1

    @pytest.mark.parametrize(
        ("reason", "page", "expected"),
        [
            (run.KVM_EXIT_HLT, {}, Hlt()),
            (run.KVM_EXIT_SHUTDOWN, {}, Shutdown()),
            (run.KVM_EXIT_INTR, {}, Interrupted()),
            (
                run.KVM_EXIT_FAIL_ENTRY,
                {"fail_entry__hardware_entry_failure_reason": 0x80000021, "fail_entry__cpu": 3},
                FailEntry(0x80000021, 3),
            ),
            (
                run.KVM_EXIT_SYSTEM_EVENT,
                {"system_event__type": 2, "system_event__ndata": 1, "system_event__data": [5] * 16},
                SystemEvent(2, (5,)),
            ),
            (run.KVM_EXIT_UNKNOWN, {"hw__hardware_exit_reason": 77}, UnknownExit(0, 77)),
            (99, {"hw__hardware_exit_reason": 0}, UnknownExit(99, 0)),
        ],
    )
    def test_other_reasons_have_their_own_classes(self, leave, reason, page, expected):
        assert leave(reason, **page) == expected

    def test_an_instruction_that_kvm_cannot_emulate_is_shown(self, leave):
        reason = leave(
            run.KVM_EXIT_INTERNAL_ERROR,
            emulation_failure__suberror=1,
            emulation_failure__ndata=3,
            emulation_failure__flags=1,
            emulation_failure__insn_size=3,
            emulation_failure__insn_bytes=[0x0F, 0x01, 0xC1, *[0x90] * 12],
        )
        assert (reason.suberror, reason.instruction) == (1, b"\x0f\x01\xc1")
        assert str(reason).startswith("KVM cannot go on: an instruction that it cannot emulate: 0f 01 c1 (0x1, ")

    def test_an_internal_error_without_data_is_shown_as_well(self, leave):
        reason = leave(
            run.KVM_EXIT_INTERNAL_ERROR, internal__suberror=3, internal__ndata=2, internal__data=[1, 2, *[0] * 14]
        )
        assert reason == InternalError(3, (1, 2), b"")


class TestRunning:
    def test_a_kick_before_running_interrupts_the_next_run_once(self, vcpu, leave):
        vcpu.kick()
        vcpu.kick()
        assert vcpu.run() == Interrupted()
        assert leave(run.KVM_EXIT_SHUTDOWN) == Shutdown()

    def test_a_kick_while_running_is_not_lost_with_another_exit(self, vcpu, fake_kvm):
        def script(page, raw):
            vcpu.kick()  # as another thread would
            page["exit_reason"] = run.KVM_EXIT_HLT

        fake_kvm.script.append(script)
        assert vcpu.run() == Hlt()
        assert vcpu.run() == Interrupted()

    def test_a_kick_signals_the_thread_that_runs_and_runs_no_handler(self, vcpu, fake_kvm):
        assert signal.getsignal(KICK) == signal.SIG_DFL
        entered, exits = threading.Event(), []

        def script(page, raw):
            entered.set()
            assert signal.sigtimedwait({KICK}, DEADLINE) is not None
            raise InterruptedError(errno.EINTR, "signal")

        fake_kvm.script.append(script)
        thread = threading.Thread(target=lambda: exits.append(vcpu.run()))
        thread.start()
        assert entered.wait(DEADLINE)
        assert vcpu.running
        vcpu.kick()
        thread.join(DEADLINE)
        assert exits == [Interrupted()]
        assert not vcpu.running

    def test_the_signal_is_let_through_only_in_kvm_run(self, vcpu, fake_kvm):
        fake_kvm.script += [lambda page, raw: None] * 2
        vcpu.run()
        vcpu.run()
        (mask,) = fake_kvm.named("KVM_SET_SIGNAL_MASK")
        length, low, high = mask.tolist()
        assert length == 8
        assert not (low | high << 32) >> KICK - 1 & 1
        assert KICK in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def test_a_processor_that_was_just_started_goes_on_by_itself(self, vcpu, fake_kvm):
        def started(page, raw):
            raise BlockingIOError(errno.EAGAIN, "again")

        def exits(page, raw):
            page["exit_reason"] = run.KVM_EXIT_SHUTDOWN

        fake_kvm.script += [started, exits]
        assert vcpu.run() == Shutdown()

    def test_a_failing_run_names_the_processor(self, vcpu, fake_kvm):
        fake_kvm.refuse["KVM_RUN"] = errno.EFAULT
        with pytest.raises(HypervisorError, match="KVM_RUN failed for vCPU 0 of virtual machine 'test'") as raised:
            vcpu.run()
        assert raised.value.errno == errno.EFAULT
        assert not vcpu.running

    def test_two_threads_cannot_run_one_processor_and_nobody_closes_it(self, vm, vcpu, fake_kvm):
        refused = []

        def script(page, raw):
            for act in (vcpu.run, vcpu.close, vm.close):
                with pytest.raises(HypervisorError) as raised:
                    act()
                refused.append(raised.value.errno)
            page["exit_reason"] = run.KVM_EXIT_HLT

        fake_kvm.script.append(script)
        assert vcpu.run() == Hlt()
        assert refused == [errno.EBUSY] * 3

    def test_a_closed_processor_neither_runs_nor_minds_a_kick(self, vcpu):
        vcpu.close()
        vcpu.kick()
        with pytest.raises(HypervisorError, match="closed"):
            vcpu.run()


class TestRegisters:
    def test_some_are_set_and_the_others_stay(self, vcpu):
        vcpu.set_regs({"rip": 0x1000, "rflags": 2})
        vcpu.set_regs({"rax": 7})
        regs = vcpu.get_regs()
        assert {name: int(regs[name]) for name in ("rip", "rflags", "rax", "rbx")} == {
            "rip": 0x1000,
            "rflags": 2,
            "rax": 7,
            "rbx": 0,
        }

    def test_segments_nest(self, vcpu):
        vcpu.set_sregs({"cs": {"base": 0x10, "l": 1}, "cr0": 0x80050033, "gdt": {"limit": 0x4F}})
        vcpu.set_sregs({"cs": {"selector": 0x33}})
        sregs = vcpu.get_sregs()
        assert (int(sregs["cs"]["base"]), int(sregs["cs"]["l"]), int(sregs["cs"]["selector"])) == (0x10, 1, 0x33)
        assert (int(sregs["cr0"]), int(sregs["gdt"]["limit"])) == (0x80050033, 0x4F)

    @pytest.mark.parametrize("what", ["regs", "sregs", "fpu", "lapic"])
    def test_a_whole_structure_is_set_as_it_is(self, vcpu, what):
        state = getattr(vcpu, f"get_{what}")()
        raw = np.arange(state.dtype.itemsize, dtype="u1") if state.dtype.itemsize < 256 else None
        if raw is not None:
            state = raw.view(state.dtype).reshape(())
        getattr(vcpu, f"set_{what}")(state)
        assert getattr(vcpu, f"get_{what}")().tobytes() == state.tobytes()

    def test_the_local_apic_is_set_by_offset(self, vcpu):
        vcpu.set_lapic({0xF0: 0x1FF, 0x350: 0x10700})
        vcpu.set_lapic({0x350: 0x700})
        words = vcpu.get_lapic()["regs"].view("<u4")
        assert (words[0xF0 // 4], words[0x350 // 4]) == (0x1FF, 0x700)

    def test_extended_control_registers_are_set_by_number(self, vcpu):
        vcpu.set_xcrs({0: 7})
        assert vcpu.get_xcrs() == {0: 7}

    def test_cpuid_is_what_was_set(self, vm, vcpu):
        leaves = vm.kvm.supported_cpuid()
        vcpu.set_cpuid(leaves)
        assert vcpu.get_cpuid().tobytes() == leaves.tobytes()

    def test_msrs_are_set_by_index(self, vcpu):
        vcpu.set_msrs({0x277: 6, 0xC0000080: 0xD01})
        assert vcpu.get_msrs([0xC0000080, 0x277]) == {0xC0000080: 0xD01, 0x277: 6}

    def test_an_msr_that_kvm_refuses_is_named(self, vcpu):
        with pytest.raises(HypervisorError, match="no MSR 0xffff0001"):
            vcpu.set_msrs({0x277: 6, 0xFFFF0001: 0})
        with pytest.raises(HypervisorError, match="no MSR 0x10") as raised:
            vcpu.get_msrs([0x277, 0x10])
        assert raised.value.errno == errno.EINVAL

    def test_a_processor_is_started_without_init(self, vcpu):
        vcpu.set_mp_state(cpu.KVM_MP_STATE_HALTED)
        assert vcpu.get_mp_state() == cpu.KVM_MP_STATE_HALTED

    def test_values_that_cannot_be_are_refused_by_name(self, vcpu, fake_kvm):
        fake_kvm.refuse["KVM_SET_SREGS"] = errno.EINVAL
        with pytest.raises(HypervisorError, match="KVM_SET_SREGS failed for vCPU 0") as raised:
            vcpu.set_sregs({"cr0": 1 << 40})
        assert raised.value.errno == errno.EINVAL

    def test_an_nmi_is_injected(self, vcpu, fake_kvm):
        vcpu.inject_nmi()
        assert fake_kvm.named("KVM_NMI") == [0]
