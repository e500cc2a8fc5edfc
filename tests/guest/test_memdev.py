# SPDX-License-Identifier: BSD-2-Clause
import struct

import pytest

from ptnetmap.abi import ptnet
from ptnetmap.abi.pci import PCIR_BARS
from ptnetmap.guest.memdev import find_memory

FIRST_PORTS = 0x4000
HIGH = 0xD0_0000_0000


@pytest.fixture
def plug_memories(machine):
    """Plug memdevs that show memory with these ids, from slot 3 on; None for one that has no BARs."""

    def plug(*ids):
        known = {}
        for i, mem_id in enumerate(ids):
            space = machine.plug(3 + i, 0, ptnet.PTNETMAP_PCI_VENDOR_ID, ptnet.PTNETMAP_PCI_DEVICE_ID)
            if mem_id is None:
                continue
            ports = FIRST_PORTS + 0x100 * i
            known[ports + ptnet.PTNET_MDEV_IO_MEMID] = mem_id
            struct.pack_into("<I", space, PCIR_BARS + 4 * ptnet.PTNETMAP_IO_PCI_BAR, ports | 1)
            place = HIGH + (i << 32)
            struct.pack_into("<Q", space, PCIR_BARS + 4 * ptnet.PTNETMAP_MEM_PCI_BAR, place | 0xC)
        read = machine.read_port
        machine.read_port = lambda port, size: known[port] if port in known else read(port, size)

    return plug


def test_memory_is_found_by_its_id_at_any_address(machine, plug_memories):
    plug_memories(1, None, 7)
    assert find_memory(machine.boot, 7) == HIGH + (2 << 32)
    assert find_memory(machine.boot, 1) == HIGH


def test_without_a_match_the_id_is_said_and_those_that_there_are(machine, plug_memories):
    plug_memories(1, None, 7)
    assert find_memory(machine.boot, 9) == 0
    assert machine.lines() == ["FAIL memdev: none shows memory 9; found: 1 0 7"]
