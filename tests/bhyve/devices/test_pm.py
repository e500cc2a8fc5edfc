# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.boot import acpi
from ptnetmap.bhyve.devices import pm
from ptnetmap.bhyve.devices.pm import Pm1, PmTimer, PowerManagement
from ptnetmap.bhyve.iospace import IoSpace

STATUS, ENABLE, CONTROL = 0x400, 0x402, 0x404


@pytest.fixture
def power(host):
    power = PowerManagement(host)
    yield power
    power.close()


def test_the_tables_name_the_ports_and_values_that_are_here():
    assert (acpi.PM1A_EVENT, acpi.PM1A_CONTROL, acpi.RESET_PORT) == (pm.PM1A_EVENT, pm.PM1A_CONTROL, pm.RESET_PORT)
    assert acpi.RESET_VALUE & pm.RESET_CPU
    assert (acpi.ACPI_ENABLE, acpi.ACPI_DISABLE) == (pm.ACPI_ENABLE, pm.ACPI_DISABLE)


def test_sleep_state_5_powers_off_and_others_do_not(host, power):
    for sleep_type in range(8):
        host.ports.write(CONTROL, 2, sleep_type << 10)
        assert host.suspended == []
        host.ports.write(CONTROL, 2, pm.CNT_SLP_EN | sleep_type << 10)
        assert host.suspended == (["poweroff"] if sleep_type == 5 else [])
        host.suspended.clear()


def test_power_off_works_by_bytes_and_by_a_double_word(host, power):
    host.ports.write(CONTROL, 1, 0)
    host.ports.write(CONTROL + 1, 1, 0x34)
    host.ports.write(CONTROL, 4, 0x3400)

    assert host.suspended == ["poweroff", "poweroff"]


def test_the_reset_register_resets(host, power):
    host.ports.write(pm.RESET_PORT, 1, 2)
    assert host.suspended == []
    host.ports.write(pm.RESET_PORT, 1, 6)

    assert host.suspended == ["reset"]
    assert host.ports.read(pm.RESET_PORT, 1) == 2


def test_acpi_is_switched_on_and_off_by_the_smi_command(host, power):
    host.ports.write(CONTROL, 2, 1)
    assert host.ports.read(CONTROL, 2) == 0
    host.ports.write(pm.SMI_COMMAND, 1, pm.ACPI_ENABLE)
    assert host.ports.read(CONTROL, 2) == pm.CNT_SCI_EN
    host.ports.write(CONTROL, 2, 0)
    assert host.ports.read(CONTROL, 2) == pm.CNT_SCI_EN
    host.ports.write(pm.SMI_COMMAND, 1, pm.ACPI_DISABLE)
    assert host.ports.read(CONTROL, 2) == 0


def test_acpi_that_is_always_on_cannot_be_switched_off(host):
    power = PowerManagement(host, always_on=True)
    host.ports.write(pm.SMI_COMMAND, 1, pm.ACPI_DISABLE)
    power.reset()

    assert host.ports.read(CONTROL, 2) == pm.CNT_SCI_EN
    power.close()


def test_the_power_button_interrupts_until_its_status_is_cleared(host, power):
    host.ports.write(pm.SMI_COMMAND, 1, pm.ACPI_ENABLE)
    host.ports.write(ENABLE, 2, pm.PM1_PWRBTN)
    assert power.press_power_button()
    assert host.interrupts.high == {pm.SCI}
    assert power.press_power_button()
    assert host.ports.read(STATUS, 2) == pm.PM1_PWRBTN
    host.ports.write(STATUS, 2, pm.PM1_PWRBTN)

    assert host.ports.read(STATUS, 2) == 0
    assert host.interrupts.lines[pm.SCI].levels == [True, False]


def test_a_guest_that_does_not_listen_to_the_power_button_is_told_apart(host, power):
    assert not power.press_power_button()
    host.ports.write(pm.SMI_COMMAND, 1, pm.ACPI_ENABLE)
    assert not power.press_power_button()
    assert host.interrupts.high == set()
    host.ports.write(ENABLE, 2, pm.PM1_PWRBTN)

    assert host.interrupts.high == {pm.SCI}


def test_a_reset_and_the_end_let_the_interrupt_go(host, power):
    host.ports.write(pm.SMI_COMMAND, 1, pm.ACPI_ENABLE)
    host.ports.write(ENABLE, 2, pm.PM1_PWRBTN)
    power.press_power_button()
    power.reset()

    assert host.interrupts.high == set()
    assert host.ports.read(STATUS, 8) == 0


def test_the_timer_counts_at_its_rate_and_wraps_at_32_bits():
    now = [5]
    timer = PmTimer(lambda: now[0])
    assert timer.read(0, 4) == 0
    now[0] += 1_000_000_000
    assert timer.read(0, 4) == 3_579_545
    assert timer.read(1, 2) & 0xFFFF == 3_579_545 >> 8 & 0xFFFF
    now[0] += 1 << 42
    assert timer.read(0, 4) == (1_000_000_000 + (1 << 42)) * 3_579_545 // 1_000_000_000 % (1 << 32)


ACCESSES = st.lists(st.tuples(st.integers(0, 6), st.sampled_from([1, 2, 4]), st.integers(0, 0xFFFFFFFF)), max_size=30)


@settings(max_examples=50, deadline=None)
@given(ACCESSES, st.booleans())
def test_any_accesses_keep_the_rules_of_the_registers(accesses, always_on):
    pm1 = Pm1(always_on=always_on)
    for offset, size, value in accesses:
        value &= (1 << 8 * size) - 1
        pm1.press_power_button()
        before = pm1.status, pm1.control
        off = pm1.write(offset, size, value)
        written = value << 8 * offset
        assert pm1.status == before[0] & ~written
        assert pm1.enable & ~(pm.PM1_PWRBTN | pm.PM1_GBL | pm.PM1_SLPBTN | pm.PM1_RTC) == 0
        assert pm1.status & ~pm.PM1_PWRBTN == 0
        assert pm1.control & pm.CNT_SCI_EN == before[1] & pm.CNT_SCI_EN
        assert not pm1.control & (pm.CNT_SLP_EN | 0xC006)
        assert off <= bool(written >> 32 & pm.CNT_SLP_EN)
        assert pm1.sci == bool(pm1.status & pm1.enable)
        assert pm1.read(0, 8) == pm1.status | pm1.enable << 16 | pm1.control << 32


def test_ports_and_line_are_given_back(host):
    for _ in range(2):
        power = PowerManagement(host)
        power.close()
        power.close()
    assert host.interrupts.lines[pm.SCI].closed


def test_ports_that_are_taken_leave_nothing_behind(host):
    class Taken:
        def read(self, offset, size):
            return 0

        def write(self, offset, size, value):
            pass

    assert isinstance(host.ports, IoSpace)
    region = host.ports.add(pm.RESET_PORT, 1, Taken())
    with pytest.raises(ValueError, match="0xcf9"):
        PowerManagement(host)
    host.ports.remove(region)
    PowerManagement(host).close()
