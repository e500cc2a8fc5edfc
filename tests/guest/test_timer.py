# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.guest import interrupts, timer
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.layout import TIMER_VECTOR

TSC_KHZ = 2_500_000


def start(machine):
    return timer.start_timer(machine.boot, allocate(machine.boot, 32, 64))


def close_to(rate):
    return pytest.approx(rate, rel=0.001)


def test_a_rate_that_nobody_told_is_measured(make_machine):
    machine = make_machine()
    assert start(machine) == 1
    assert machine.info["tsc_khz"][0] == close_to(TSC_KHZ)
    assert machine.info["apic_khz"][0] == 1_000_000


def test_the_apic_timer_is_measured_where_the_other_rate_is_known(make_machine):
    machine = make_machine()
    machine.info["tsc_khz"] = 2 * TSC_KHZ
    assert start(machine) == 1
    assert machine.info["apic_khz"][0] == close_to(2_000_000)


def test_a_timer_that_stands_still_is_noticed(make_machine, monkeypatch):
    monkeypatch.setattr(timer, "_PATIENCE", 100)
    machine = make_machine()
    machine.write_register = lambda *_: None
    assert start(machine) == 0


def test_sleeping_takes_as_long_as_asked_and_halts(machine):
    before = machine.now
    timer.sleep(machine.block(0), machine.boot, 3000)
    assert machine.now - before >= 3 * TSC_KHZ
    assert machine.waits >= 1
    assert machine.timer_set is None


def test_waiting_for_an_interrupt_that_does_not_come_ends_in_time(machine):
    before = machine.now
    assert timer.await_count(machine.block(0), machine.boot, 0x30, 0, 2000) == 0
    assert 2 * TSC_KHZ <= machine.now - before < 3 * TSC_KHZ


def test_an_interrupt_ends_the_wait_for_it(machine):
    woken = machine.wait

    def wait(address, seen):
        machine.deliver(0x30)
        woken(address, seen)

    machine.wait = wait
    assert timer.await_count(machine.block(0), machine.boot, 0x30, 0, 2000) == 1
    assert machine.count(TIMER_VECTOR) == 0
    assert machine.timer_set is None


def test_an_interrupt_before_the_wait_is_not_waited_for(machine):
    machine.deliver(0x30)
    interrupts.await_interrupt(machine.block(0), 0x30, 0)
    assert timer.await_count(machine.block(0), machine.boot, 0x30, 0, 2000) == 1
    assert machine.waits == 0


def test_a_long_time_is_cut_to_what_the_timer_can_count(machine):
    timer.set_timer(machine.boot, 10**8)
    assert machine.apic[0x380] == 0xFFFFFFFF


def test_starting_interrupts_enables_the_apic_and_masks_what_is_no_message(make_machine):
    machine = make_machine()
    machine.apic[0x20] = 5 << 24
    interrupts.start_interrupts(machine.block(0))
    assert {0xF0: 0x1FF, 0x80: 0, 0x350: 0x10000, 0x360: 0x10000}.items() <= machine.apic.items()
    assert {(0x21, 1, 0xFF), (0xA1, 1, 0xFF)} <= set(machine.port_writes)
    assert interrupts.message_address(machine.block(0)) == 0xFEE05000


def test_vectors_for_devices_run_out(machine):
    given = []
    while (vector := interrupts.allocate_vector(machine.boot)) >= 0:
        given.append(vector)
    assert given == list(range(0x30, 0xED))
