# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import errno
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.errors import HypervisorError
from ptnetmap.vmm import iohandler
from ptnetmap.vmm.ioeventfd import IoHandlers
from ptnetmap.vmm.iohandler import CallbackHandler, EventfdHandler, Match, Registry, full_mask
from ptnetmap.vmm.kvm import Handle

PORT = 0x2010
ANY = {"in_": False, "size": 0, "mask": 0, "data": 0}


@pytest.fixture
def register(vm):
    """Register a handler for a write, unless told otherwise."""

    def register(handler, at=PORT, kind="port", **fields):
        vm.io_reg_handler(at, **(ANY | {"kind": kind, "handler": handler} | fields))

    return register


def known(fake):
    return set(fake.ioeventfds)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"size": 2, "mask": 0xFFFF, "data": 3}, {("port", PORT, 2, 3)}),
        ({"size": 4}, {("port", PORT, 4, None)}),
        ({}, {("port", PORT, width, None) for width in (1, 2, 4)}),
        ({"mask": 0xFFFFFFFF, "data": 3}, {("port", PORT, width, 3) for width in (1, 2, 4)}),
        ({"mask": 0xFFFFFFFF, "data": 0x300}, {("port", PORT, width, 0x300) for width in (2, 4)}),
        ({"mask": 0xFF, "data": 3}, {("port", PORT, 1, 3)}),
        ({"size": 2, "mask": 0xF0FF, "data": 3}, set()),
        ({"in_": True}, set()),
        ({"in_": True, "size": 4}, set()),
        ({"kind": "mmio"}, {("mmio", PORT, width, None) for width in (1, 2, 4, 8)}),
        ({"kind": "mmio", "size": 8, "mask": full_mask(8), "data": 1 << 63}, {("mmio", PORT, 8, 1 << 63)}),
    ],
)
def test_kvm_serves_what_it_can_match_exactly(register, fake_kvm, eventfds, fields, expected):
    register(EventfdHandler(eventfds()), **fields)
    assert known(fake_kvm) == expected


def test_only_eventfds_can_be_kvms(register, fake_kvm):
    register(CallbackHandler(print))
    assert known(fake_kvm) == set()


@pytest.mark.parametrize(
    ("access", "taken"),
    [
        ((2, True, 0x1234), True),
        ((2, True, 0x5634), True),
        ((1, True, 0x34), True),
        ((4, True, 0xAABB1234), True),
        ((2, True, 0x1235), False),
        ((2, False, 0x1234), False),
    ],
)
def test_a_partial_mask_is_matched_after_the_exit(vm, register, eventfds, count, access, taken):
    fd = eventfds()
    register(EventfdHandler(fd), mask=0xFF, data=0x34)
    assert vm.dispatch_io("port", PORT, *access) is taken
    assert count(fd) == taken
    assert vm.dispatch_io("port", PORT + 1, *access) is False
    assert vm.dispatch_io("mmio", PORT, *access) is False


def test_reads_are_matched_after_the_exit(vm, register, eventfds, count):
    fd = eventfds()
    register(EventfdHandler(fd), in_=True, size=2)
    assert vm.dispatch_io("port", PORT, 2, False, 0)
    assert not vm.dispatch_io("port", PORT, 4, False, 0)
    assert not vm.dispatch_io("port", PORT, 2, True, 0)
    assert count(fd) == 1


def test_the_mask_is_narrowed_to_the_access(vm, register):
    values = []
    register(CallbackHandler(values.append), mask=0xFFFF00FF, data=0x00120034)
    assert not vm.dispatch_io("port", PORT, 1, True, 0x34)  # the value's upper half never comes in one byte
    assert vm.dispatch_io("port", PORT, 4, True, 0x00125634)
    assert values == [0x00125634]


def test_a_full_eventfd_is_signalled_enough(vm, register, eventfds, count):
    fd = eventfds()
    os.eventfd_write(fd, (1 << 64) - 2)
    register(EventfdHandler(fd), in_=True)
    assert vm.dispatch_io("port", PORT, 4, False, 0)
    assert count(fd) == (1 << 64) - 2


def test_the_first_of_two_that_overlap_is_signalled(vm, register, fake_kvm, eventfds, count):
    first, second = eventfds(), eventfds()
    register(EventfdHandler(first), size=2, mask=0xFFFF, data=1)
    register(EventfdHandler(second), size=2)
    assert known(fake_kvm) == {("port", PORT, 2, 1)}
    assert fake_kvm.guest_writes("port", PORT, 2, 1)
    assert vm.dispatch_io("port", PORT, 2, True, 2)
    assert (count(first), count(second)) == (1, 1)


def test_what_the_first_left_free_becomes_kvms(register, fake_kvm, eventfds):
    register(CallbackHandler(print), size=2, mask=0xF, data=1)
    register(EventfdHandler(eventfds()), size=2)
    assert known(fake_kvm) == set()
    register(None, size=2, mask=0xF, data=1, delete=True)
    assert known(fake_kvm) == {("port", PORT, 2, None)}


def test_the_same_match_twice_is_refused(register, fake_kvm, eventfds):
    fields = {"size": 2, "mask": 0xFFFF, "data": 1}
    register(EventfdHandler(eventfds()), **fields)
    with pytest.raises(
        HypervisorError, match=r"for writes of 2 bytes, value & 0xffff == 0x1, at port 0x2010"
    ) as raised:
        register(EventfdHandler(eventfds()), **fields)
    assert raised.value.errno == errno.EEXIST
    assert known(fake_kvm) == {("port", PORT, 2, 1)}


def test_deleting_what_is_not_there_is_refused(register, eventfds):
    register(EventfdHandler(eventfds()), size=2)
    with pytest.raises(HypervisorError) as raised:
        register(None, size=4, delete=True)
    assert raised.value.errno == errno.ENOENT


def test_the_table_is_bounded():
    entries = [
        ((Match("port", at, False, 2, 0, 0), None), CallbackHandler(print)) for at in range(iohandler.CAPACITY + 1)
    ]
    full = Registry().changed([], entries[:-1])
    with pytest.raises(HypervisorError, match="1,024") as raised:
        full.changed([], entries[-1:])
    assert raised.value.errno == errno.ENOMEM
    assert len(full.changed([entries[0][0]], entries[-1:])) == iohandler.CAPACITY


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 3},
        {"size": 8},
        {"size": -1},
        {"at": 0x10000},
        {"at": 0xFFFF, "size": 2},
        {"at": -1},
        {"kind": "msr"},
        {"kind": "mmio", "at": (1 << 64) - 2, "size": 4},
        {"in_": True, "mask": 0xFF},
        {"in_": True, "data": 1},
        {"size": 1, "mask": 0x1FF},
        {"size": 2, "mask": 0xFF, "data": 0x100},
        {"data": 1},
        {"mask": -1},
    ],
)
def test_what_no_access_can_be_is_refused(register, fake_kvm, fields):
    with pytest.raises(HypervisorError, match="no I/O handler can be at") as raised:
        register(CallbackHandler(print), **fields)
    assert raised.value.errno == errno.EINVAL


def test_what_kvm_refuses_changes_nothing(vm, register, fake_kvm, eventfds):
    register(EventfdHandler(eventfds()), size=1)
    fake_kvm.refuse["KVM_IOEVENTFD"] = errno.EBADF
    with pytest.raises(HypervisorError, match="give an open eventfd"):
        register(EventfdHandler(1000), size=2)
    fake_kvm.refuse.clear()
    assert known(fake_kvm) == {("port", PORT, 1, None)}
    assert not vm.dispatch_io("port", PORT, 2, True, 0)
    register(EventfdHandler(eventfds()), size=2)


def test_a_full_bus_of_kvms_only_makes_it_slower(vm, register, fake_kvm, eventfds, count):
    fd = eventfds()
    fake_kvm.refuse["KVM_IOEVENTFD"] = errno.ENOSPC
    register(EventfdHandler(fd), size=2)
    assert vm.dispatch_io("port", PORT, 2, True, 7)
    assert count(fd) == 1


class TestGroup:
    @pytest.fixture
    def group(self, vm):
        return vm.handler_group("mmio", 0xC0000000)

    def test_moves_with_its_base(self, group, fake_kvm, eventfds):
        for offset in (0, 4):
            group.add(offset, size=4, handler=EventfdHandler(eventfds()))
        assert known(fake_kvm) == {("mmio", 0xC0000000 + offset, 4, None) for offset in (0, 4)}
        group.move(0xD0000000)
        assert known(fake_kvm) == {("mmio", 0xD0000000 + offset, 4, None) for offset in (0, 4)}

    def test_hides_and_comes_back(self, vm, group, fake_kvm, eventfds):
        group.add(0, size=2, handler=EventfdHandler(eventfds()))
        group.move(None)
        assert known(fake_kvm) == set()
        group.add(8, size=2, handler=EventfdHandler(eventfds()))
        assert not vm.dispatch_io("mmio", 0xC0000008, 2, True, 0)
        group.move(0x1000)
        assert known(fake_kvm) == {("mmio", 0x1000, 2, None), ("mmio", 0x1008, 2, None)}

    def test_on_another_is_signalled_when_that_one_left(self, vm, group, fake_kvm, eventfds, count):
        first, second = eventfds(), eventfds()
        group.add(0, size=2, handler=EventfdHandler(first))
        other = vm.handler_group("mmio")
        other.add(0, size=2, handler=EventfdHandler(second))
        other.move(0xC0000000)
        assert fake_kvm.guest_writes("mmio", 0xC0000000, 2, 0)
        group.close()
        assert fake_kvm.guest_writes("mmio", 0xC0000000, 2, 0)
        assert (count(first), count(second)) == (1, 1)

    def test_refuses_the_same_twice_and_what_is_not_there(self, group, eventfds):
        group.add(0, size=2, handler=EventfdHandler(eventfds()))
        with pytest.raises(HypervisorError) as twice:
            group.add(0, size=2, handler=EventfdHandler(eventfds()))
        with pytest.raises(HypervisorError) as missing:
            group.remove(0, size=4)
        assert (twice.value.errno, missing.value.errno) == (errno.EEXIST, errno.ENOENT)
        group.remove(0, size=2)
        group.add(0, size=2, handler=EventfdHandler(eventfds()))

    def test_does_not_move_where_there_are_no_addresses(self, vm, fake_kvm, eventfds):
        group = vm.handler_group("port", 0x100)
        group.add(0x10, size=2, handler=EventfdHandler(eventfds()))
        with pytest.raises(HypervisorError):
            group.move(0xFFF0)
        assert known(fake_kvm) == {("port", 0x110, 2, None)}
        assert group.base == 0x100


values = st.sampled_from([0, 1, 2, 0x101, 0x10001, full_mask(1), full_mask(2), full_mask(4)])


@st.composite
def matches(draw):
    size = draw(st.sampled_from([0, 1, 2, 4]))
    widest = full_mask(size or 4)
    in_ = draw(st.sampled_from([False, False, False, True]))
    mask = 0 if in_ else draw(st.sampled_from([0, 1, 0xFF, 0xFFFF, 0xFFFFFFFF])) & widest
    return Match("port", draw(st.sampled_from([1, 2])), in_, size, mask, draw(values) & mask)


class Recorder:
    def __init__(self, number):
        self.number = number
        self.seen = 0

    def signal(self, value):
        self.seen += 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(st.tuples(matches(), st.booleans(), st.booleans()), max_size=12))
def test_every_access_signals_the_first_handler_that_takes_it_and_no_other(fake_kvm_class, steps):
    fake = fake_kvm_class()
    handle = Handle(os.eventfd(0), "test", fake)
    handlers = IoHandlers(handle, Registry())
    entries, opened = {}, []
    for match, delete, by_eventfd in steps:
        if delete and match in entries:
            handlers.change([(match, None)], [])
            del entries[match]
        elif match not in entries:
            if by_eventfd:
                opened.append(os.eventfd(0, os.EFD_NONBLOCK))
                handler = EventfdHandler(opened[-1])
            else:
                handler = Recorder(len(opened))
            handlers.change([], [((match, None), handler)])
            entries[match] = handler
    for address in (1, 2):
        for size in (1, 2, 4):
            for write in (True, False):
                for value in (0, 1, 2, 3, 0x101, 0x10001, full_mask(4)):
                    value &= full_mask(size) if write else 0
                    in_kernel = write and fake.guest_writes("port", address, size, value)
                    taken = in_kernel or handlers.dispatch("port", address, size, write, value)
                    expected = [h for m, h in entries.items() if m.address == address and m.takes(size, write, value)][
                        :1
                    ]
                    signalled = [h for h in entries.values() if signals_of(h)]
                    assert signalled == expected
                    assert taken == bool(expected)
    for fd in opened:
        os.close(fd)
    handle.close()


def signals_of(handler):
    if isinstance(handler, Recorder):
        seen, handler.seen = handler.seen, 0
        return seen
    with contextlib.suppress(BlockingIOError):
        return os.eventfd_read(handler.fd)
    return 0
