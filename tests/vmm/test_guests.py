# SPDX-License-Identifier: BSD-2-Clause
"""What only a real KVM can show: small guests, in machine code, with what they do beside it."""

import mmap
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from ptnetmap.errors import HypervisorError
from ptnetmap.vmm import (
    CallbackHandler,
    EventfdHandler,
    GuestMemory,
    InternalError,
    Interrupted,
    IoExit,
    Kvm,
    MmioExit,
    MsrExit,
    Shutdown,
    Vm,
)

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="there is no /dev/kvm"),
]

MB = 1 << 20
PAGE = mmap.PAGESIZE
CODE = 0x1000
BAR = 0xC0000000
DONE = 0xE9
"""Port that a guest writes when it has nothing more to do."""
READY = 0xE8
"""Port that a guest writes before it waits for interrupts."""
DEADLINE = 60


@pytest.fixture(scope="module")
def kvm():
    # A machine that stays: the last one to go switches the processor's virtualisation off, the next one on again, and
    # QEMU's emulation of SVM, where CI runs this, does not survive that many times.
    with Kvm() as kvm, GuestMemory(MB) as memory, Vm("stays", memory, kvm=kvm):
        yield kvm


@pytest.fixture
def vm(kvm, memory):
    with Vm("test", memory, kvm=kvm) as vm:
        yield vm


@pytest.fixture
def real_mode(vm, memory):
    """Put 16-bit code into memory, and make a processor that starts there."""

    def start(*code):
        memory.write(CODE, b"".join(code) + out(DONE))
        vcpu = vm.create_vcpu(len(vm.vcpus))
        vcpu.set_cpuid(vm.kvm.supported_cpuid())
        flat = {"base": 0, "selector": 0}
        vcpu.set_sregs(dict.fromkeys(("cs", "ds", "es", "ss"), flat))
        vcpu.set_regs({"rip": CODE, "rflags": 2, "rsp": CODE})
        vcpu.set_mp_state(0)
        return vcpu

    return start


def out(port, width=1):
    """mov dx, port; out dx, al/ax/eax -- in 16-bit code."""
    return b"\xba" + struct.pack("<H", port) + {1: b"\xee", 2: b"\xef", 4: b"\x66\xef"}[width]


def mov_ax(value):
    return b"\xb8" + struct.pack("<H", value)


def exits(vcpu, vm=None):
    """Run a vCPU, with its I/O handlers if a machine is given, until it is done; return the exits for devices."""
    seen = []
    while True:
        out = vcpu.run()
        assert not isinstance(out, (InternalError, Shutdown)), str(out)
        if isinstance(out, IoExit) and out.port == DONE:
            return seen
        if vm is not None and isinstance(out, IoExit):
            value = out.data[0] if out.write else 0
            if vm.dispatch_io("port", out.port, out.size, out.write, value):
                if not out.write:
                    out.reply(0)
                continue
        seen.append(out)


def test_hello_from_real_mode(real_mode):
    hello = b"".join(b"\xb0" + bytes([letter]) + out(0x3F8) for letter in b"hello")  # mov al, letter; out
    written = exits(real_mode(hello))
    assert {(e.port, e.size, e.write) for e in written} == {(0x3F8, 1, True)}
    assert bytes(e.data[0] for e in written) == b"hello"


def test_strings_go_in_and_out_whatever_many_come_at_once(real_mode, memory):
    memory.write(0x2000, b"hello")
    # cld; mov si, 0x2000; mov cx, 5; mov dx, 0x3f8; rep outsb; mov di, 0x3000; mov cx, 5; rep insb
    vcpu = real_mode(bytes.fromhex("fcbe0020b90500baf803f36ebf0030b90500f36c"))
    written, letters = b"", list(b"world")
    while (out := vcpu.run()).port != DONE:
        if out.write:
            written += bytes(out.data)
        else:
            out.reply([letters.pop(0) for _ in range(out.count)])
    assert (written, letters) == (b"hello", [])
    assert memory.read(0x3000, 5) == b"world"


def test_a_read_gets_its_answer(real_mode):
    vcpu = real_mode(b"\xba\x60\x00\xed", out(0x80, 2))  # mov dx, 0x60; in ax, dx
    read = vcpu.run()
    assert (read.port, read.size, read.write) == (0x60, 2, False)
    read.reply(0x1BEEF)
    assert vcpu.run().data == (0xBEEF,)


def test_addresses_without_memory_exit(real_mode):
    # mov word [0x10], 0x1234; mov al, [0x20]; out 0x80, al
    vcpu = real_mode(b"\xc7\x06\x10\x00\x34\x12\xa0\x20\x00", out(0x80))
    vcpu.set_sregs({"ds": {"base": BAR}})
    write = vcpu.run()
    assert (type(write), write.address, write.size, write.write, write.value) == (MmioExit, BAR + 0x10, 2, True, 0x1234)
    read = vcpu.run()
    assert (type(read), read.address, read.size, read.write) == (MmioExit, BAR + 0x20, 1, False)
    read.reply(0x5A)
    assert vcpu.run().data == (0x5A,)


class TestIoHandlers:
    PORT = 0x2010

    def test_an_exact_write_signals_without_an_exit_and_others_come_out(self, vm, real_mode, eventfds, count):
        fd = eventfds()
        vm.io_reg_handler(self.PORT, in_=False, size=2, mask=0xFFFF, data=7, kind="port", handler=EventfdHandler(fd))
        writes = mov_ax(7) + out(self.PORT, 2) + out(self.PORT, 1) + out(self.PORT, 4) + mov_ax(8) + out(self.PORT, 2)
        seen = exits(real_mode(writes))
        assert [(e.size, e.data[0] & 0xFF) for e in seen] == [(1, 7), (4, 7), (2, 8)]
        assert count(fd) == 1

    def test_any_width_and_partial_masks_signal_the_same_handler(self, vm, real_mode, eventfds, count):
        fd = eventfds()
        for at, mask, data in ((self.PORT, 0, 0), (self.PORT + 8, 0xF0, 0x30)):
            vm.io_reg_handler(at, in_=False, size=0, mask=mask, data=data, kind="port", handler=EventfdHandler(fd))
        writes = [out(self.PORT, width) for width in (1, 2, 4)]
        writes += [mov_ax(0x35), out(self.PORT + 8), mov_ax(0x45), out(self.PORT + 8)]
        seen = exits(real_mode(*writes), vm)
        assert [(e.port, e.data) for e in seen] == [(self.PORT + 8, (0x45,))]
        assert count(fd) == 4

    def test_reads_are_taken(self, vm, real_mode):
        values = []
        vm.io_reg_handler(
            self.PORT, in_=True, size=0, mask=0, data=0, kind="port", handler=CallbackHandler(values.append)
        )
        assert exits(real_mode(b"\xba" + struct.pack("<H", self.PORT) + b"\xec\xed"), vm) == []
        assert values == [0, 0]

    def test_a_group_moves_in_kvm_too(self, vm, real_mode, eventfds, count):
        fd = eventfds()
        group = vm.handler_group("port", 0x3000)
        group.add(4, size=2, handler=EventfdHandler(fd))
        group.move(0x4000)
        (seen,) = exits(real_mode(out(0x3004, 2), out(0x4004, 2)))
        assert (seen.port, count(fd)) == (0x3004, 1)
        group.close()

    def test_memory_registers_signal_too(self, vm, real_mode, eventfds, count):
        fd = eventfds()
        at = 0xC0000010
        vm.io_reg_handler(at, in_=False, size=2, mask=0, data=0, kind="mmio", handler=EventfdHandler(fd))
        # mov word [0x10], 7; mov byte [0x10], 7; mov al, [0x10]
        vcpu = real_mode(b"\xc7\x06\x10\x00\x07\x00\xc6\x06\x10\x00\x07\xa0\x10\x00")
        vcpu.set_sregs({"ds": {"base": 0xC0000000}})
        seen = exits(vcpu)
        assert [(e.address, e.size, e.write) for e in seen] == [(at, 1, True), (at, 1, False)]
        assert count(fd) == 1


class TestUserBuf:
    # mov al, [0x10]; out 0x80, al; inc byte [0x10]
    CODE = b"\xa0\x10\x00" + out(0x80) + b"\xfe\x06\x10\x00"

    @pytest.fixture
    def vcpu(self, real_mode):
        vcpu = real_mode(self.CODE * 3)
        vcpu.set_sregs({"ds": {"base": BAR}})
        return vcpu

    def test_is_shared_with_the_guest_and_moves(self, vm, vcpu, page):
        address, ours = page
        buffer = vm.map_user_buf(BAR, address, PAGE)
        ours[0x10] = 0x40
        assert vcpu.run().data == (0x40,)
        ours[0x10] = 0x50  # the guest adds 1 now
        assert vcpu.run().data == (0x51,)
        buffer.move(BAR + 0x10000)
        write = vcpu.run()  # where the buffer was: inc reads, then writes
        assert (type(write), write.address, write.write) == (MmioExit, BAR + 0x10, False)
        write.reply(0)
        vcpu.run()
        buffer.move(BAR)
        assert vcpu.run().data == (0x51,)
        buffer.unmap()
        assert isinstance(vcpu.run(), MmioExit)

    def test_read_only_lets_reads_through(self, vm, vcpu, page):
        address, ours = page
        buffer = vm.map_user_buf(BAR, address, PAGE, read_only=True)
        ours[0x10] = 0x40
        assert vcpu.run().data == (0x40,)
        write = vcpu.run()
        assert (type(write), write.address, write.write, write.value) == (MmioExit, BAR + 0x10, True, 0x41)
        assert ours[0x10] == 0x40
        buffer.unmap()

    def test_kvm_agrees_about_places_that_cannot_be(self, vm, page):
        buffer = vm.map_user_buf(BAR, page[0], PAGE)
        for gpa in (0, 1 << 62):
            with pytest.raises(HypervisorError):
                buffer.move(gpa)
        assert buffer.gpa == BAR
        buffer.unmap()


def test_an_unknown_msr_exits_when_asked_to(vm, real_mode):
    vm.exit_on_unknown_msrs()
    # mov ecx, 0xc0deface; rdmsr; out 0x80, ax; wrmsr
    vcpu = real_mode(b"\x66\xb9\xce\xfa\xde\xc0\x0f\x32", out(0x80, 2), b"\x0f\x30")
    read = vcpu.run()
    assert (type(read), read.index, read.write) == (MsrExit, 0xC0DEFACE, False)
    read.reply(0x77)
    assert vcpu.run().data == (0x77,)
    write = vcpu.run()
    assert (type(write), write.write, write.value & 0xFFFF) == (MsrExit, True, 0x77)
    write.reply()
    assert vcpu.run().port == DONE


def test_registers_are_what_was_set(real_mode):
    vcpu = real_mode()
    vcpu.set_regs({"rbx": 0x1122334455667788})
    assert int(vcpu.get_regs()["rbx"]) == 0x1122334455667788
    fpu = vcpu.get_fpu()
    fpu["mxcsr"] = 0x1F80
    fpu["xmm"][3] = range(16)
    vcpu.set_fpu(fpu)
    assert vcpu.get_fpu()["xmm"][3].tolist() == list(range(16))
    vcpu.set_msrs({0x277: 0x0007040600070406})
    assert vcpu.get_msrs([0x277]) == {0x277: 0x0007040600070406}
    assert len(vcpu.get_cpuid()) > 10
    with pytest.raises(HypervisorError, match="no MSR 0xc0deface"):
        vcpu.set_msrs({0xC0DEFACE: 0})


def run_in_thread(vcpu):
    """Run a vCPU in another thread, until one exit, which is put into the list."""
    found = []
    thread = threading.Thread(target=lambda: found.append(vcpu.run()))
    thread.start()
    return thread, found


class TestKick:
    LOOP = b"\xeb\xfe"

    def test_takes_a_busy_processor_out_of_the_guest(self, real_mode):
        vcpu = real_mode(self.LOOP)
        for _ in range(50):
            thread, found = run_in_thread(vcpu)
            vcpu.kick()  # before, while or after it enters
            thread.join(DEADLINE)
            assert found == [Interrupted()]

    @pytest.mark.parametrize("code", [b"\xf4", b"\xfb\xf4"])  # hlt; sti, hlt
    def test_takes_a_halted_processor_out_of_the_guest(self, real_mode, code):
        vcpu = real_mode(code)
        thread, found = run_in_thread(vcpu)
        vcpu.kick()
        thread.join(DEADLINE)
        assert found == [Interrupted()]

    def test_takes_a_processor_out_that_was_never_started(self, vm):
        vm.create_vcpu(0)
        waiting = vm.create_vcpu(1)
        thread, found = run_in_thread(waiting)
        waiting.kick()
        thread.join(DEADLINE)
        assert found == [Interrupted()]

    def test_loses_no_access_that_was_under_way(self, real_mode):
        vcpu = real_mode(b"\xba\x60\x00\xec", out(0x80))
        read = vcpu.run()
        read.reply(0x42)
        vcpu.kick()
        assert vcpu.run() == Interrupted()
        assert vcpu.run().data == (0x42,)


# -- interrupts, in 64-bit code -----------------------------------------------------------------------------------------


GDT, IDT, TSS, TABLES, STACK, HANDLERS, USER = 0x2000, 0x3000, 0x4000, 0x10000, 0x9000, 0xA000, 0x20000
VECTOR = 0x41
OTHER_VECTOR = 0x42
LEVEL_TRIGGERED = 1 << 15


def descriptor(access, flags):
    return access << 40 | flags << 52 | 0xF << 48 | 0xFFFF


def build_long_mode(memory):
    """Write page tables (4 GB, identical, for everybody), GDT, TSS with all ports, and an IDT with two gates."""
    memory.write_int(TABLES, 8, TABLES + 0x1000 | 7)
    for gigabyte in range(4):
        table = TABLES + 0x2000 + gigabyte * PAGE
        memory.write_int(TABLES + 0x1000 + 8 * gigabyte, 8, table | 7)
        leaves = np.arange(512, dtype="<u8") * (2 * MB) + gigabyte * 1024 * MB | 0x87
        memory.write(table, leaves.tobytes())
    tss_low = 0x2068 | (TSS & 0xFFFFFF) << 16 | 0x8B << 40
    entries = [0, 0, descriptor(0x9B, 0xA), descriptor(0x93, 0xC), 0, descriptor(0xF3, 0xC), descriptor(0xFB, 0xA), 0]
    memory.write(GDT, struct.pack("<10Q", *entries, tss_low, 0))
    memory.write_int(TSS + 4, 8, STACK)
    memory.write_int(TSS + 102, 2, 104)
    memory.write(TSS + 104, bytes(8192) + b"\xff")


def set_gate(memory, vector, handler, dpl=0):
    low = handler & 0xFFFF | 0x10 << 16 | (0x8E | dpl << 5) << 40 | (handler >> 16 & 0xFFFF) << 48
    memory.write(IDT + 16 * vector, struct.pack("<QQ", low, handler >> 32))


def segment(selector, type_, dpl, *, code=False):
    return {
        "base": 0,
        "limit": 0xFFFFFFFF,
        "selector": selector,
        "type": type_,
        "present": 1,
        "dpl": dpl,
        "db": int(not code),
        "s": 1,
        "l": int(code),
        "g": 1,
        "unusable": 0,
    }


@pytest.fixture
def user_mode(vm, memory):
    """Make a processor that starts 64-bit code at CPL 3, with the selectors that every back end of KVM can run."""
    build_long_mode(memory)

    def start(code):
        memory.write(USER, code)
        vcpu = vm.create_vcpu(0)
        vcpu.set_cpuid(vm.kvm.supported_cpuid())
        data = segment(0x2B, 3, 3)
        # VT-x wants a busy task; QEMU's emulation of SVM gives the map of ports only to one that is not.
        leaves = vm.kvm.supported_cpuid()
        amd = leaves["ebx"][leaves["function"] == 0][0] == int.from_bytes(b"Auth", "little")
        tss = {
            "base": TSS,
            "limit": 0x2068,
            "selector": 0x40,
            "type": 9 if amd else 11,
            "present": 1,
            "s": 0,
            "unusable": 0,
        }
        vcpu.set_sregs(
            {
                "cs": segment(0x33, 11, 3, code=True),
                **dict.fromkeys(("ds", "es", "fs", "gs", "ss"), data),
                "tr": tss,
                "gdt": {"base": GDT, "limit": 0x4F},
                "idt": {"base": IDT, "limit": 0xFFF},
                "cr0": 0x80050033,
                "cr3": TABLES,
                "cr4": 0x40620,
                "efer": 0xD01,
            }
        )
        vcpu.set_xcrs({0: 7})
        vcpu.set_regs({"rip": USER, "rsp": STACK - 0x800, "rflags": 0x202})
        vcpu.set_lapic({0xF0: 0x1FF, 0x350: 0x10700})  # LINT0, where the PICs are, masked
        return vcpu

    return start


def out64(port):
    return b"\x66\xba" + struct.pack("<H", port) + b"\xee"  # mov dx, port; out dx, al


def test_a_guest_starts_at_cpl_3_with_its_ports(user_mode):
    # mov ax, cs
    seen = exits(user_mode(b"\x66\x8c\xc8" + out64(0x80) + out64(DONE)))
    assert [e.data for e in seen] == [(0x33,)]


@pytest.fixture
def waiting_guest(user_mode, memory):
    """Start a CPL 3 guest that waits by int3 until a byte is not 0, clears it, tells its value, and starts again.

    The stub at CPL 0 skips if work came, else does sti and hlt. Both vectors store their number and end the interrupt.
    ``redirections`` are I/O APIC entries by pin, which it programs first.
    """
    flag = struct.pack("<I", 0x8000)
    # cmp byte [flag], 0; jne 1f; sti; hlt; 1: iretq
    memory.write(HANDLERS, b"\x80\x3c\x25" + flag + b"\x00\x75\x02\xfb\xf4\x48\xcf")
    set_gate(memory, 3, HANDLERS, dpl=3)
    for at, vector in ((0x100, VECTOR), (0x200, OTHER_VECTOR)):
        # mov byte [flag], vector; push rax; mov eax, 0xfee000b0; mov dword [rax], 0; pop rax; iretq
        end = b"\x50\xb8\xb0\x00\xe0\xfe\xc7\x00\x00\x00\x00\x00\x58\x48\xcf"
        memory.write(HANDLERS + at, b"\xc6\x04\x25" + flag + bytes([vector]) + end)
        set_gate(memory, vector, HANDLERS + at)

    def start(redirections=()):
        program = b"\xb8\x00\x00\xc0\xfe"  # mov eax, 0xfec00000
        for pin, entry in dict(redirections).items():
            # mov dword [rax], register; mov dword [rax + 0x10], entry
            program += b"\xc7\x00" + struct.pack("<I", 0x10 + 2 * pin) + b"\xc7\x40\x10" + struct.pack("<I", entry)
        # 1: int3; mov al, [flag]; test al, al; jz 1b; mov byte [flag], 0; mov dx, 0x80; out dx, al; jmp 1b
        loop = b"\xcc\x8a\x04\x25" + flag + b"\x84\xc0\x74\xf4\xc6\x04\x25" + flag + b"\x00" + out64(0x80)
        vcpu = user_mode(program + out64(READY) + loop + b"\xeb" + bytes([256 - len(loop) - 2]))
        assert vcpu.run().port == READY
        return vcpu

    return start


class TestInterrupts:
    def await_value(self, vcpu, act):
        """Let the guest wait, act, and return the value that it tells."""
        thread, seen = run_in_thread(vcpu)
        act()
        thread.join(DEADLINE)
        if thread.is_alive():
            vcpu.kick()
            thread.join()
        assert isinstance(seen[0], IoExit), (seen, vcpu.get_regs())
        return seen[0].data[0]

    def interrupt(self, vcpu):
        """Let the guest run a while, without telling anything."""
        thread, seen = run_in_thread(vcpu)
        vcpu.kick()
        thread.join(DEADLINE)
        assert seen == [Interrupted()]

    def test_a_message_wakes_the_guest(self, vm, waiting_guest):
        vcpu = waiting_guest()
        route = vm.interrupts.allocate_msi()
        route.set(0xFEE00000, VECTOR)
        assert self.await_value(vcpu, route.signal) == VECTOR
        assert self.await_value(vcpu, lambda: vm.interrupts.signal_msi(0xFEE00000, OTHER_VECTOR)) == OTHER_VECTOR

    def test_a_message_to_nobody_is_lost(self, vm, waiting_guest):
        waiting_guest()
        vm.interrupts.signal_msi(0xFEE77000, VECTOR)
        vm.interrupts.signal_msi((1 << 64) - 1, (1 << 32) - 1)

    def test_an_eventfd_delivers_the_message_of_its_route(self, vm, waiting_guest, eventfds):
        vcpu = waiting_guest()
        routes = [vm.interrupts.allocate_msi() for _ in range(2)]
        fds = [eventfds() for _ in routes]
        for route, fd, vector in zip(routes, fds, (VECTOR, OTHER_VECTOR), strict=True):
            route.set(0xFEE00000, vector)
            route.attach(fd)
        for fd, vector in zip(fds * 2, (VECTOR, OTHER_VECTOR) * 2, strict=True):
            assert self.await_value(vcpu, lambda fd=fd: os.eventfd_write(fd, 1)) == vector
        routes[0].set(0xFEE00000, OTHER_VECTOR)
        assert self.await_value(vcpu, lambda: os.eventfd_write(fds[0], 1)) == OTHER_VECTOR

    def test_what_comes_while_masked_is_delivered_once_when_unmasked(self, vm, waiting_guest, eventfds, count):
        vcpu = waiting_guest()
        route, fd = vm.interrupts.allocate_msi(), eventfds()
        route.set(0xFEE00000, VECTOR)
        route.attach(fd)
        route.mask()
        os.eventfd_write(fd, 1)
        os.eventfd_write(fd, 1)
        self.interrupt(vcpu)
        assert self.await_value(vcpu, lambda: route.set(0xFEE00000, VECTOR)) == VECTOR
        self.interrupt(vcpu)
        route.detach()
        assert count(fd) == 0
        os.eventfd_write(fd, 1)
        self.interrupt(vcpu)
        assert count(fd) == 1

    @pytest.mark.parametrize("gsi", [5, 20])
    def test_a_level_irqfd_stays_until_the_end_of_interrupt(self, vm, waiting_guest, eventfds, count, gsi):
        vcpu = waiting_guest({gsi: VECTOR | LEVEL_TRIGGERED})
        irq, ended = eventfds(), eventfds()
        line = vm.interrupts.line(gsi)
        line.irqfd(irq, ended)
        for _ in range(2):
            assert self.await_value(vcpu, lambda: os.eventfd_write(irq, 1)) == VECTOR
            assert count(ended) == 1
        line.close()

    def test_a_line_raised_by_hand_interrupts(self, vm, waiting_guest):
        vcpu = waiting_guest({4: VECTOR, 17: OTHER_VECTOR})
        for gsi, vector in ((4, VECTOR), (17, OTHER_VECTOR), (4, VECTOR)):
            line = vm.interrupts.line(gsi)

            def pulse(line=line):
                line.set(True)
                line.set(False)

            assert self.await_value(vcpu, pulse) == vector

    def test_the_timer_arrives_at_pin_2(self, vm, waiting_guest):
        vcpu = waiting_guest({0: OTHER_VECTOR, 2: VECTOR})
        line = vm.interrupts.line(0)
        assert self.await_value(vcpu, lambda: (line.set(True), line.set(False))) == VECTOR


@pytest.mark.slow
def test_a_thousand_machines_leave_nothing(kvm, nothing_left):
    with GuestMemory(MB) as memory:
        memory.write(CODE, b"\xeb\xfe")
        for _ in range(1000):
            with Vm("short", memory, kvm=kvm) as vm:
                vcpu = vm.create_vcpu(0)
                buffer = vm.map_user_buf(BAR, memory.host(0, PAGE), PAGE)
                eventfd = os.eventfd(0, os.EFD_CLOEXEC)
                vm.io_reg_handler(
                    0x100, in_=False, size=2, mask=0, data=0, kind="port", handler=EventfdHandler(eventfd)
                )
                route = vm.interrupts.allocate_msi()
                route.set(0xFEE00000, VECTOR)
                route.attach(eventfd)
                vcpu.set_sregs({"cs": {"base": 0, "selector": 0}})
                vcpu.set_regs({"rip": CODE})
                vcpu.kick()
                assert vcpu.run() == Interrupted()
                buffer.unmap()
                os.close(eventfd)
