# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.devices import i8042
from ptnetmap.bhyve.devices.i8042 import KeyboardController


@pytest.fixture
def resets():
    return []


@pytest.fixture
def controller(resets):
    return KeyboardController(lambda: resets.append(True))


def ask(controller, command):
    controller.write_command(command)
    assert controller.read_status() & i8042.STATUS_OUTPUT
    return controller.read_data()


@pytest.mark.parametrize("pulse", [0xF0, 0xFE, 0xFC])
def test_pulling_the_reset_line_resets(controller, resets, pulse):
    controller.write_command(pulse)
    assert resets == [True]


def test_the_output_port_resets_when_its_bit_goes_low(controller, resets):
    for outputs in (3, 2):
        controller.write_command(i8042.WRITE_OUTPUTS)
        controller.write_data(outputs)
    assert resets == [True]


def test_it_passes_its_test_and_has_neither_keyboard_nor_mouse(controller, resets):
    assert ask(controller, i8042.SELF_TEST) == 0x55
    assert ask(controller, i8042.TEST_KEYBOARD) != 0
    assert ask(controller, i8042.TEST_AUX) != 0
    for byte in (0xED, 0xF2, 0xFF):
        controller.write_data(byte)
        assert not controller.read_status() & i8042.STATUS_OUTPUT
    controller.write_command(0xFF)  # pulses nothing
    assert resets == []


def test_the_command_byte_is_kept_and_switched_by_commands(controller):
    controller.write_command(i8042.WRITE_RAM)
    controller.write_data(0x47)
    assert ask(controller, i8042.READ_RAM) == 0x47
    controller.write_command(i8042.DISABLE_KEYBOARD)
    controller.write_command(i8042.DISABLE_AUX)
    assert ask(controller, i8042.READ_RAM) == 0x77
    controller.write_command(i8042.ENABLE_KEYBOARD)
    controller.write_command(i8042.ENABLE_AUX)
    assert ask(controller, i8042.READ_RAM) == 0x47


def test_a_command_that_interrupts_another_takes_its_place(controller):
    controller.write_command(i8042.WRITE_RAM)
    controller.write_command(i8042.SELF_TEST)
    before = ask(controller, i8042.READ_RAM)
    controller.write_data(0xAA)
    assert ask(controller, i8042.READ_RAM) == before


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("rswc"), st.integers(0, 255)), max_size=60))
def test_it_is_always_ready_for_more(accesses):
    controller = KeyboardController(lambda: None)
    for kind, value in accesses:
        if kind == "r":
            assert 0 <= controller.read_data() <= 0xFF
        elif kind == "w":
            controller.write_data(value)
        elif kind == "c":
            controller.write_command(value)
        assert not controller.read_status() & 0x02
