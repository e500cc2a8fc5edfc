# SPDX-License-Identifier: BSD-2-Clause
import errno
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.abi.kvm import ioctl, machine
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.interrupts import Interrupts
from ptnetmap.vmm.kvm import Handle, Kvm
from ptnetmap.vmm.vm import Vm

ADDRESS = 0xFEE00000


@pytest.fixture
def interrupts(vm):
    return vm.interrupts


def pins(fake):
    entries = [entry for entry in fake.routes if entry["type"] == machine.KVM_IRQ_ROUTING_IRQCHIP]
    return {(int(e["gsi"]), int(e["irqchip"]["irqchip"]), int(e["irqchip"]["pin"])) for e in entries}


def test_lines_reach_the_pics_and_the_ioapic_as_on_a_pc(vm, fake_kvm):
    pics = {(gsi, gsi // 8, gsi % 8) for gsi in range(16)}
    ioapic = {(gsi, 2, gsi) for gsi in range(24) if gsi not in (0, 2)} | {(0, 2, 2)}
    assert pins(fake_kvm) == pics | ioapic


def test_lines_keep_their_routes_whatever_messages_come_and_go(interrupts, fake_kvm, eventfds):
    before = pins(fake_kvm)
    routes = [interrupts.allocate_msi() for _ in range(5)]
    for data, route in enumerate(routes):
        route.attach(eventfds())
        route.set(ADDRESS, data)
    routes[2].close()
    routes[0].mask()
    routes[1].set(ADDRESS, 0x99)
    assert pins(fake_kvm) == before


@pytest.mark.parametrize("gsi", [-1, 24, 1000])
def test_there_are_24_lines(interrupts, gsi):
    with pytest.raises(HypervisorError, match="0 to 23"):
        interrupts.line(gsi)


def test_a_line_has_the_level_that_was_set(interrupts, fake_kvm):
    line = interrupts.line(4)
    line.set(True)
    assert fake_kvm.lines == {4: 1}
    line.close()
    assert fake_kvm.lines == {4: 0}


def test_a_lines_eventfds_are_joined_until_it_closes(interrupts, fake_kvm, eventfds):
    edge, level, ended = eventfds(), eventfds(), eventfds()
    line = interrupts.line(11)
    line.irqfd(edge)
    line.irqfd(level, ended)
    assert fake_kvm.irqfds == {(edge, 11): None, (level, 11): ended}
    line.close()
    assert fake_kvm.irqfds == {}


def test_a_masked_route_delivers_nothing(interrupts, fake_kvm):
    route = interrupts.allocate_msi()
    route.signal()
    route.set(ADDRESS, 0x41)
    route.signal()
    route.mask()
    route.signal()
    route.set(ADDRESS, 0x42)
    route.signal()
    assert fake_kvm.messages == [(ADDRESS, 0x41), (ADDRESS, 0x42)]


def test_kvm_listens_to_an_eventfd_exactly_while_there_is_a_message(interrupts, fake_kvm, eventfds):
    route, eventfd = interrupts.allocate_msi(), eventfds()
    joined = {(eventfd, route.gsi): None}
    route.attach(eventfd)
    assert fake_kvm.irqfds == {}
    route.set(ADDRESS, 0x41)
    assert fake_kvm.irqfds == joined
    route.mask()
    assert fake_kvm.irqfds == {}
    route.set(ADDRESS, 0x41)
    assert fake_kvm.irqfds == joined
    route.detach()
    assert fake_kvm.irqfds == {}


def test_the_table_names_the_message_before_an_eventfd_is_joined(interrupts, fake_kvm, eventfds):
    route = interrupts.allocate_msi()
    route.set(0x12_FEE01000, 0x41)
    route.attach(eventfds())
    assert [name for name, _ in fake_kvm.calls] == ["KVM_SET_GSI_ROUTING", "KVM_IRQFD"]
    assert fake_kvm.message(route.gsi) == (0x12_FEE01000, 0x41)


def test_a_message_changes_under_a_joined_eventfd_without_a_gap(interrupts, fake_kvm, eventfds):
    route, eventfd = interrupts.allocate_msi(), eventfds()
    route.attach(eventfd)
    route.set(ADDRESS, 1)
    fake_kvm.calls.clear()
    route.set(ADDRESS, 2)
    route.set(ADDRESS, 2)
    assert [name for name, _ in fake_kvm.calls] == ["KVM_SET_GSI_ROUTING"]
    assert fake_kvm.message(route.gsi) == (ADDRESS, 2)


def test_another_eventfd_replaces_the_first(interrupts, fake_kvm, eventfds):
    route, first, second = interrupts.allocate_msi(), eventfds(), eventfds()
    route.set(ADDRESS, 1)
    route.attach(first)
    route.attach(second)
    assert fake_kvm.irqfds == {(second, route.gsi): None}


def test_an_eventfd_in_use_is_refused_and_changes_nothing(interrupts, fake_kvm, eventfds):
    one, two, first, second = interrupts.allocate_msi(), interrupts.allocate_msi(), eventfds(), eventfds()
    for route, eventfd in ((one, first), (two, second)):
        route.set(ADDRESS, 1)
        route.attach(eventfd)
    before = dict(fake_kvm.irqfds)
    with pytest.raises(HypervisorError, match=f"not joined to an interrupt yet, for GSI {two.gsi}") as raised:
        two.attach(first)
    assert raised.value.errno == errno.EBUSY
    assert fake_kvm.irqfds == before


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
def test_a_message_that_no_processor_takes_is_lost(interrupts, fake_kvm, number):
    fake_kvm.refuse["KVM_SIGNAL_MSI"] = number
    interrupts.signal_msi((1 << 64) - 1, (1 << 32) - 1)


def test_a_message_that_kvm_cannot_take_at_all_is_an_error(interrupts, fake_kvm):
    fake_kvm.refuse["KVM_SIGNAL_MSI"] = errno.ENXIO
    with pytest.raises(HypervisorError, match="KVM_SIGNAL_MSI"):
        interrupts.signal_msi(ADDRESS, 1)


def test_a_closed_route_gives_its_number_back_and_cannot_be_used(interrupts, fake_kvm, eventfds):
    route = interrupts.allocate_msi()
    route.set(ADDRESS, 1)
    route.attach(eventfds())
    route.close()
    route.close()
    assert fake_kvm.irqfds == {}
    with pytest.raises(HypervisorError, match="closed"):
        route.set(ADDRESS, 1)
    assert interrupts.allocate_msi().gsi == route.gsi


def test_routes_end_with_kvms_table(fake_kvm, memory, eventfds):
    fake_kvm.capabilities[ioctl.CAPABILITIES["KVM_CAP_IRQ_ROUTING"]] = 42  # 16 + 23 pins of lines, and 3
    with Kvm("/dev/null", ioctl=fake_kvm) as kvm, Vm("small", memory, kvm=kvm) as vm:
        for _ in range(3):
            route = vm.interrupts.allocate_msi()
            route.set(ADDRESS, 1)
            route.attach(eventfds())
        with pytest.raises(HypervisorError, match="all 3 message interrupts") as raised:
            vm.interrupts.allocate_msi()
        assert raised.value.errno == errno.ENOSPC


steps = st.lists(
    st.tuples(
        st.sampled_from(["new", "set", "mask", "attach", "detach", "close"]), st.integers(0, 3), st.integers(0, 5)
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=steps)
def test_kvm_delivers_what_the_routes_say_after_any_steps(fake_kvm_class, steps):
    fake = fake_kvm_class()
    handle = Handle(os.eventfd(0), "test", fake)
    interrupts = Interrupts(handle, 4096)
    eventfds = [os.eventfd(0) for _ in range(6)]
    routes, said, refusals = [], {}, set()
    for action, which, number in steps:
        route = routes[which % len(routes)] if routes else None
        try:
            if action == "new":
                routes.append(interrupts.allocate_msi())
                said[routes[-1]] = (None, None)
            elif route:
                message, eventfd = said[route]
                if action == "set":
                    route.set(ADDRESS, number)
                    message = ADDRESS, number
                elif action == "mask":
                    route.mask()
                    message = None
                elif action == "attach":
                    route.attach(eventfds[number])
                    eventfd = eventfds[number]
                elif action == "detach":
                    route.detach()
                    eventfd = None
                said[route] = (message, eventfd)
                if action == "close":
                    route.close()
                    routes.remove(route)
                    del said[route]
        except HypervisorError as error:
            refusals.add(error.errno)
        delivered = {fd: fake.message(gsi) for fd, gsi in fake.irqfds}
        assert delivered == {fd: message for message, fd in said.values() if message is not None and fd is not None}
    assert refusals <= {errno.EBUSY}
    for fd in eventfds:
        os.close(fd)
    handle.close()
