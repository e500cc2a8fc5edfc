# SPDX-License-Identifier: BSD-2-Clause
import errno
import mmap
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.abi.kvm import ioctl
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.kvm import Handle, Kvm
from ptnetmap.vmm.memory import GuestMemory
from ptnetmap.vmm.slots import MAX_USER_BUFS, Slots
from ptnetmap.vmm.vm import Vm

PAGE = mmap.PAGESIZE
GB = 1 << 30
BAR = 0xC0000000


def test_ram_has_a_slot_for_each_segment(fake_kvm):
    with GuestMemory(4 * GB) as memory, Kvm("/dev/null", ioctl=fake_kvm) as kvm, Vm("large", memory, kvm=kvm):
        low, high = memory.segments
        assert fake_kvm.slots == {0: (0, 3 * GB, low.address, 0), 1: (4 * GB, GB, high.address, 0)}


def test_a_buffer_is_seen_where_asked_and_moves(vm, fake_kvm, page):
    address, _ = page
    buffer = vm.map_user_buf(BAR, address, PAGE)
    assert fake_kvm.slots[1] == (BAR, PAGE, address, 0)
    buffer.move(BAR + PAGE)
    assert fake_kvm.slots[1] == (BAR + PAGE, PAGE, address, 0)
    assert buffer.gpa == BAR + PAGE
    buffer.unmap()
    buffer.unmap()
    assert list(fake_kvm.slots) == [0]


def test_a_read_only_buffer_stays_so(vm, fake_kvm, page):
    buffer = vm.map_user_buf(BAR, page[0], PAGE, read_only=True)
    buffer.move(2 * BAR)
    assert fake_kvm.slots[1] == (2 * BAR, PAGE, page[0], 2)


def test_memory_that_could_vanish_is_refused(vm, fake_kvm, page, tmp_path):
    with (tmp_path / "file").open("wb") as file, pytest.raises(HypervisorError, match="can shrink"):
        vm.map_user_buf(BAR, page[0], PAGE, fd=file.fileno())
    assert list(fake_kvm.slots) == [0]
    with GuestMemory(PAGE) as sealed:
        vm.map_user_buf(BAR, sealed.host(0, PAGE), PAGE, fd=sealed.fd).unmap()


@pytest.mark.parametrize(
    ("gpa", "number"),
    [
        (0, errno.EEXIST),
        (BAR + PAGE, errno.EEXIST),
        (BAR + 1, errno.EINVAL),
        (-PAGE, errno.EINVAL),
        (1 << 64, errno.EINVAL),
        (1 << 52, errno.EINVAL),
    ],
)
def test_a_place_that_cannot_be_changes_nothing(vm, fake_kvm, page, gpa, number):
    vm.map_user_buf(BAR + PAGE, page[0], PAGE)
    buffer = vm.map_user_buf(BAR, page[0], PAGE)
    before = dict(fake_kvm.slots)
    for act in (lambda: buffer.move(gpa), lambda: vm.map_user_buf(gpa, page[0], PAGE)):
        with pytest.raises(HypervisorError) as raised:
            act()
        assert raised.value.errno == number
    assert fake_kvm.slots == before
    assert buffer.gpa == BAR


@pytest.mark.parametrize(("address", "size"), [(0, 0), (PAGE, -PAGE), (PAGE, 100), (100, PAGE)])
def test_only_whole_pages_are_shown(vm, address, size):
    with pytest.raises(HypervisorError, match="multiples of 4,096") as raised:
        vm.map_user_buf(BAR, address, size)
    assert raised.value.errno == errno.EINVAL


def test_64_buffers_are_the_most(vm, page):
    buffers = [vm.map_user_buf(BAR + i * PAGE, page[0], PAGE) for i in range(MAX_USER_BUFS)]
    with pytest.raises(HypervisorError, match="64 buffers") as raised:
        vm.map_user_buf(2 * BAR, page[0], PAGE)
    assert raised.value.errno == errno.ENOSPC
    buffers[5].unmap()
    vm.map_user_buf(2 * BAR, page[0], PAGE)


def test_an_unmapped_buffer_does_not_come_back(vm, page):
    buffer = vm.map_user_buf(BAR, page[0], PAGE)
    buffer.unmap()
    with pytest.raises(HypervisorError, match="unmapped"):
        buffer.move(2 * BAR)


steps = st.lists(
    st.tuples(st.sampled_from(["map", "move", "unmap"]), st.integers(0, 5), st.integers(0, 12), st.integers(1, 3)),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=steps)
def test_kvm_knows_what_the_buffers_say_and_nothing_overlaps(fake_kvm_class, steps):
    fake = fake_kvm_class()
    handle = Handle(os.eventfd(0), "test", fake)
    with GuestMemory(4 * PAGE) as memory:
        slots = Slots(handle, memory)
        buffers, refusals = [], set()
        for action, which, place, pages in steps:
            buffer = buffers[which % len(buffers)] if buffers else None
            try:
                if action == "map":
                    buffers.append(slots.add(place * PAGE, PAGE, pages * PAGE, False))
                elif buffer and action == "move":
                    buffer.move(place * PAGE)
                elif buffer:
                    buffer.unmap()
                    buffers.remove(buffer)
            except HypervisorError as error:
                refusals.add(error.errno)
            ram = {0: (0, 4 * PAGE, memory.host(0, 1), 0)}
            assert fake.slots == ram | {b.number: (b.gpa, b.size, b.address, 0) for b in buffers}
    assert refusals <= {errno.EEXIST}
    handle.close()


def test_unknown_msrs_exit_when_asked_to(vm, fake_kvm):
    vm.exit_on_unknown_msrs()
    (argument,) = fake_kvm.named("KVM_ENABLE_CAP")
    assert (int(argument["cap"]), argument["args"].tolist()) == (188, [3, 0, 0, 0])


def test_what_this_kvm_does_not_have_is_refused_by_name(vm, fake_kvm, page):
    for name in ("KVM_CAP_X86_USER_SPACE_MSR", "KVM_CAP_READONLY_MEM"):
        fake_kvm.capabilities[ioctl.CAPABILITIES[name]] = 0
    for act in (vm.exit_on_unknown_msrs, lambda: vm.map_user_buf(BAR, page[0], PAGE, read_only=True)):
        with pytest.raises(HypervisorError) as raised:
            act()
        assert raised.value.errno == errno.ENOTSUP


def test_a_processor_has_one_number_within_kvms_limit(vm):
    assert [vm.create_vcpu(i).index for i in (0, 7)] == [0, 7]
    assert [vcpu.index for vcpu in vm.vcpus] == [0, 7]
    for index, number in ((0, errno.EEXIST), (8, errno.EINVAL), (-1, errno.EINVAL)):
        with pytest.raises(HypervisorError) as raised:
            vm.create_vcpu(index)
        assert raised.value.errno == number
    assert len(vm.vcpus) == 2


@pytest.mark.usefixtures("nothing_left")
def test_a_closed_machine_leaves_nothing_and_its_parts_close_after_it(fake_kvm):
    with GuestMemory(1 << 20) as memory, Kvm("/dev/null", ioctl=fake_kvm) as kvm:
        eventfd = os.eventfd(0)
        vm = Vm("one", memory, kvm=kvm)
        vm.create_vcpu(0)
        buffer = vm.map_user_buf(BAR, memory.host(0, PAGE), PAGE)
        route, line = vm.interrupts.allocate_msi(), vm.interrupts.line(5)
        route.set(0xFEE00000, 1)
        route.attach(eventfd)
        group = vm.handler_group("port", 0x100)
        vm.close()
        vm.close()
        calls = len(fake_kvm.calls)
        for close in (buffer.unmap, route.close, line.close, group.close):
            close()
        assert len(fake_kvm.calls) == calls
        os.close(eventfd)
    fake_kvm.pages.clear()
