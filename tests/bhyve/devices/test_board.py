# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.bhyve.devices import pm
from ptnetmap.bhyve.devices.board import POST_PORT, Board


@pytest.fixture
def board(host):
    board = Board(host)
    yield board
    board.close()


def test_a_guest_resets_by_either_of_the_usual_ways(host, board):
    host.ports.write(0x64, 1, 0xFE)
    host.ports.write(0xCF9, 1, 6)
    assert host.suspended == ["reset", "reset"]


def test_the_keyboard_controller_is_ready_at_its_ports(host, board):
    assert host.ports.read(0x64, 1) & 0x03 == 0
    host.ports.write(0x64, 1, 0xAA)
    assert host.ports.read(0x64, 1) & 1
    assert host.ports.read(0x60, 1) == 0x55


def test_the_post_code_is_kept(host, board):
    host.ports.write(POST_PORT, 1, 0x42)
    assert board.post.code == 0x42


def test_acpi_is_off_at_first_unless_there_is_no_switch(host, board):
    assert host.ports.read(pm.PM1A_CONTROL, 2) == 0
    board.close()
    always_on = Board(host, acpi_always_on=True)
    assert host.ports.read(pm.PM1A_CONTROL, 2) == pm.CNT_SCI_EN
    always_on.close()


def test_a_reset_returns_to_the_first_state(host, board):
    host.ports.write(pm.SMI_COMMAND, 1, pm.ACPI_ENABLE)
    host.ports.write(0x64, 1, 0xAA)
    board.reset()
    assert host.ports.read(pm.PM1A_CONTROL, 2) == 0
    assert not host.ports.read(0x64, 1) & 1


def test_ports_that_are_taken_leave_nothing_behind(host, board):
    with pytest.raises(ValueError, match="overlap"):
        Board(host)
    board.close()
    blocker = host.ports.add(POST_PORT, 1, board.post)
    with pytest.raises(ValueError, match="0x80"):
        Board(host)
    host.ports.remove(blocker)
    Board(host).close()
