# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Driver of ptnetmap-memdev: where the host's netmap memory is in the guest's (netmap-abi 5b.1)."""

from __future__ import annotations

from ptnetmap.abi.ptnet import (
    PTNET_MDEV_IO_MEMID,
    PTNETMAP_IO_PCI_BAR,
    PTNETMAP_MEM_PCI_BAR,
    PTNETMAP_PCI_DEVICE_ID,
    PTNETMAP_PCI_VENDOR_ID,
)
from ptnetmap.guest.console import end_line, put_number, put_text
from ptnetmap.guest.pci import bar_address, enable_function, find_device
from ptnetmap.guest.port import in32
from ptnetmap.guest.routine import Text, routine

_WANTED = Text("FAIL memdev: none shows memory ")
_FOUND = Text("; found:")
_BLANK = Text(" ")


@routine
def find_memory(boot, mem_id):
    """Return the address at which the memdev with a memory id shows its region; 0, and say which there are, if none does.

    A memdev that the hypervisor has no memory for has no BARs.
    """
    function = find_device(PTNETMAP_PCI_VENDOR_ID, PTNETMAP_PCI_DEVICE_ID, -1)
    while function >= 0:
        ports = bar_address(function, PTNETMAP_IO_PCI_BAR)
        if ports != 0 and in32(ports + PTNET_MDEV_IO_MEMID) == mem_id:
            enable_function(function)
            return bar_address(function, PTNETMAP_MEM_PCI_BAR)
        function = find_device(PTNETMAP_PCI_VENDOR_ID, PTNETMAP_PCI_DEVICE_ID, function)
    say_memories(boot, mem_id)
    return 0


@routine
def say_memories(boot, mem_id):
    """Say which memory was looked for, and which there are."""
    put_text(boot, _WANTED)
    put_number(boot, mem_id)
    put_text(boot, _FOUND)
    function = find_device(PTNETMAP_PCI_VENDOR_ID, PTNETMAP_PCI_DEVICE_ID, -1)
    while function >= 0:
        ports = bar_address(function, PTNETMAP_IO_PCI_BAR)
        put_text(boot, _BLANK)
        put_number(boot, 0 if ports == 0 else in32(ports + PTNET_MDEV_IO_MEMID))
        function = find_device(PTNETMAP_PCI_VENDOR_ID, PTNETMAP_PCI_DEVICE_ID, function)
    end_line(boot)
