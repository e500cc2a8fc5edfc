# SPDX-License-Identifier: BSD-2-Clause
import ctypes

import pytest

from ptnetmap.guest.heap import allocate
from ptnetmap.guest.virtio_rng import close_rng, open_rng, read_rng, rng

MICROSECONDS = 1000


@pytest.fixture
def device(machine):
    machine.plug_rng()
    opened = open_rng(machine.block(0), machine.boot)
    assert opened > 0
    return opened


@pytest.fixture
def read(machine, device):
    place = allocate(machine.boot, 64, 64)

    def one(length=64):
        came = read_rng(device, machine.boot, place, length, MICROSECONDS)
        return came, ctypes.string_at(place, length)

    return one


def test_bytes_come_by_an_interrupt_each_time_round_the_ring(machine, read):
    for number in range(1, 20):
        assert read() == (64, bytes([number]) * 64)
        assert machine.count(0x30) == number


def test_indices_wrap_at_65536(machine, device, read):
    state = (ctypes.c_uint8 * rng.itemsize).from_address(device)
    offset = rng.fields["requests"][1]
    ctypes.c_uint64.from_buffer(state, offset).value = machine.rng.taken = 0xFFFF
    assert read() == (64, b"\x01" * 64)
    assert machine.rng.taken == 0
    assert read() == (64, b"\x02" * 64)


def test_without_msix_the_ring_is_polled(machine):
    machine.plug_rng(msix=False)
    device = open_rng(machine.block(0), machine.boot)
    place = allocate(machine.boot, 64, 64)
    assert read_rng(device, machine.boot, place, 64, MICROSECONDS) == 64
    assert machine.waits == 0


def test_a_missing_device_is_told_from_a_broken_one(machine):
    assert open_rng(machine.block(0), machine.boot) == 0
    machine.plug_rng()[0x10:0x14] = bytes(4)
    assert open_rng(machine.block(0), machine.boot) == -1


def test_a_device_without_a_queue_is_broken(machine):
    machine.plug_rng()
    machine.rng.read = lambda port: 0
    assert open_rng(machine.block(0), machine.boot) == -1


@pytest.mark.parametrize("answer", [{"extra": 1}, {"used_id": 3}, {"extra": 2**32 - 65}])
def test_an_answer_that_cannot_be_is_refused(machine, read, answer):
    machine.rng.serve = lambda: machine.rng.answer(**answer)
    assert read()[0] == -1


def test_a_device_that_does_not_answer_is_given_up(machine, read):
    machine.rng.serve = lambda: None
    assert read()[0] == -1


def test_an_interrupt_without_an_answer_is_given_up(machine, read):
    machine.rng.serve = lambda: machine.deliver(0x30)
    assert read()[0] == -1


def test_closing_resets_the_device(machine, device):
    close_rng(device)
    assert machine.rng.status == 0
