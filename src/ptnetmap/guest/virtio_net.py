# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Driver of virtio-net with the pass-through of 2015: registers behind its configuration, one page of CSB (netmap-abi 5a).

The queues carry nothing. Their notify register is the kick, and their interrupts are the host's.
"""

from __future__ import annotations

from ptnetmap.abi import ptnet as registers
from ptnetmap.abi.netmap.csb import NETMAP_VIRT_CSB_SIZE, csb_2015, csb_2015_ring
from ptnetmap.abi.virtio import virtq_avail, virtq_desc
from ptnetmap.abi.virtio_pci import (
    VIRTIO_MSI_QUEUE_VECTOR,
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_QUEUE_TX,
    VIRTIO_PCI_HOST_FEATURES,
    VIRTIO_PCI_QUEUE_NOTIFY,
)
from ptnetmap.guest.console import end_line, put_number, put_text, say
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.layout import offsets
from ptnetmap.guest.netmapport import IS_2015, PORT, RING, allocate_port, join_memory, rx_ring, tx_ring
from ptnetmap.guest.netmapring import begin_ring
from ptnetmap.guest.pci import bar_address, bar_is_port, enable_function
from ptnetmap.guest.port import in8, in32, out8
from ptnetmap.guest.routine import Text, routine
from ptnetmap.guest.virtio_legacy import (
    available_at,
    drive_device,
    place_queue,
    queue_size,
    route_interrupt,
    start_device,
    stop_device,
)
from ptnetmap.jit.atomic import store32_release
from ptnetmap.jit.memory import load32, store32, store64

_PTNETMAP = 1 << registers.VIRTIO_NET_F_PTNETMAP
_BASE = registers.PTNETMAP_VIRTIO_IO_BASE_MSIX
_PTFEAT = registers.PTNETMAP_VIRTIO_IO_PTFEAT
_PTCTL = registers.PTNETMAP_VIRTIO_IO_PTCTL
_PTSTS = registers.PTNETMAP_VIRTIO_IO_PTSTS
_CSBBAH = registers.PTNETMAP_VIRTIO_IO_CSBBAH
_CSBBAL = registers.PTNETMAP_VIRTIO_IO_CSBBAL
_F_BASE = registers.PTNETMAP_F_BASE
_CONFIG = registers.PTNETMAP_PTCTL_CONFIG
_HOSTMEMID = registers.PTNETMAP_PTCTL_HOSTMEMID
_REGIF = registers.PTNETMAP_PTCTL_REGIF
_UNREGIF = registers.PTNETMAP_PTCTL_UNREGIF

_CSB = offsets(csb_2015)
_CSB_ON = _CSB["guest_csb_on"]
_NIFP_OFFSET = _CSB["nifp_offset"]
_TX_RING = _CSB["tx_ring"]
_RX_RING = _CSB["rx_ring"]
_GUEST_TX = _CSB["guest_need_txkick"]
_GUEST_RX = _CSB["guest_need_rxkick"]
_HOST_TX = _CSB["host_need_txkick"]
_HOST_RX = _CSB["host_need_rxkick"]
_HEAD = offsets(csb_2015_ring)["head"]
_CUR = offsets(csb_2015_ring)["cur"]
_HWCUR = offsets(csb_2015_ring)["hwcur"]
_HWTAIL = offsets(csb_2015_ring)["hwtail"]

_PORTS = PORT["ports"]
_MAC = PORT["mac"]
_RING_HEAD_AT = RING["head_at"]
_RING_CUR_AT = RING["cur_at"]
_RING_HWCUR_AT = RING["hwcur_at"]
_RING_HWTAIL_AT = RING["hwtail_at"]
_RING_APPL_AT = RING["appl_need_kick_at"]
_RING_KERN_AT = RING["kern_need_kick_at"]
_RING_IS_2015 = RING["is_2015"]
_RING_KICK_PORT = RING["kick_port"]
_RING_KICK_VALUE = RING["kick_value"]
_RING_VECTOR = RING["vector"]
_RING_BLOCK = RING["block"]

_DESC_LEN = offsets(virtq_desc)["len"]
_AVAIL_HEAD = virtq_avail.itemsize
_PAGE = 4096
_DUMMY = 64
_MAC_BYTES = 6
_MAC_AT = VIRTIO_MSI_QUEUE_VECTOR + 2  # the configuration, which the registers of vectors have moved

_NO_REGISTERS = Text("FAIL virtio-net: no registers, or no memory left for queues and CSB")
_NO_PASS = Text("FAIL virtio-net: it does not take the features that it offers")
_REFUSED = Text("FAIL virtio-net: REGIF came to error ")


@routine
def passes_through(function):
    """Return 1 if the virtio-net at ``function`` offers the pass-through of 2015."""
    ports = bar_address(function, 0)
    if ports == 0 or bar_is_port(function, 0) == 0:
        return 0
    return 1 if in32(ports + VIRTIO_PCI_HOST_FEATURES) & _PTNETMAP != 0 else 0


@routine
def read_2015(ports, register):
    """Return a register of 2015, read as its drivers do: byte by byte."""
    value = 0
    for i in range(4):
        value |= in8(ports + _BASE + register + i) << (8 * i)
    return value


@routine
def write_2015(ports, register, value):
    """Write one: byte by byte, that at its own offset last, which makes it effective."""
    for i in range(4):
        at = 3 - i
        out8(ports + _BASE + register + at, (value >> (8 * at)) & 0xFF)


@routine
def command_2015(ports, command):
    """Give a command, and return what it came to."""
    write_2015(ports, _PTCTL, command)
    return read_2015(ports, _PTSTS)


@routine
def open_virtio_net(block, boot, function):
    """Start the virtio-net at ``function``, with the interrupts of both queues to the processor of ``block``.

    Return the address of its :data:`~ptnetmap.guest.netmapport.netmap_port`, 0 if it cannot be used, which is said.
    """
    ports = bar_address(function, 0)
    csb = allocate(boot, NETMAP_VIRT_CSB_SIZE, _PAGE)
    dummy = allocate(boot, _DUMMY, 64)
    port = allocate_port(boot, 1, 1)
    if ports == 0 or csb == 0 or dummy == 0 or port == 0:
        say(boot, _NO_REGISTERS)
        return 0
    enable_function(function)
    start_device(ports, _PTNETMAP | VIRTIO_NET_F_MAC)
    store64(port + _PORTS, ports)
    store64(port + IS_2015, 1)
    if place_queues(block, boot, port, function, dummy) == 0:
        say(boot, _NO_REGISTERS)
        return 0
    drive_device(ports)
    store64(port + _MAC, read_mac(ports))
    write_2015(ports, _PTFEAT, _F_BASE)
    if read_2015(ports, _PTFEAT) & _F_BASE == 0:
        say(boot, _NO_PASS)
        return 0
    return register_2015(boot, port, ports, csb)


@routine
def place_queues(block, boot, port, function, dummy):
    """Set up both queues, and put a packet that is never sent into the transmitting one: it readies its interrupts.

    Return 1, 0 if there is no memory for them.
    """
    ports = bar_address(function, 0)
    for index in range(2):
        r = tx_ring(port, 0) if index == VIRTIO_NET_QUEUE_TX else rx_ring(port, 0)
        size = queue_size(ports, index)
        queue = place_queue(boot, ports, size)
        if queue == 0:
            return 0
        store64(r + _RING_VECTOR, route_interrupt(function, ports, index, block, boot))
        store64(r + _RING_BLOCK, block)
        store64(r + _RING_KICK_PORT, ports + VIRTIO_PCI_QUEUE_NOTIFY)
        store64(r + _RING_KICK_VALUE, index)
        if index == VIRTIO_NET_QUEUE_TX:
            store64(queue, dummy)
            store32(queue + _DESC_LEN, _DUMMY)
            store32_release(queue + available_at(size), 1 << 16)  # flags 0, and the index: entry 0 is descriptor 0
    return 1


@routine
def read_mac(ports):
    """Return the MAC address in the configuration."""
    mac = 0
    for i in range(_MAC_BYTES):
        mac = (mac << 8) | in8(ports + _MAC_AT + i)
    return mac


@routine
def register_2015(boot, port, ports, csb):
    """Give the CSB, find the memory, and let the host serve the rings; return the port, or 0."""
    store32(csb + _CSB_ON, 1)
    write_2015(ports, _CSBBAH, csb >> 32)
    write_2015(ports, _CSBBAL, csb & 0xFFFFFFFF)
    place_csb_2015(tx_ring(port, 0), csb + _TX_RING, csb + _GUEST_TX, csb + _HOST_TX)
    place_csb_2015(rx_ring(port, 0), csb + _RX_RING, csb + _GUEST_RX, csb + _HOST_RX)
    command_2015(ports, _CONFIG)
    if join_memory(boot, port, command_2015(ports, _HOSTMEMID), load32(csb + _NIFP_OFFSET)) == 0:
        return 0
    error = command_2015(ports, _REGIF)
    if error != 0:
        put_text(boot, _REFUSED)
        put_number(boot, error)
        end_line(boot)
        return 0
    begin_ring(tx_ring(port, 0))
    begin_ring(rx_ring(port, 0))
    return port


@routine
def place_csb_2015(r, fields, guest_need_kick, host_need_kick):
    """Tell a ring where its fields of the CSB are."""
    store64(r + _RING_IS_2015, 1)
    store64(r + _RING_HEAD_AT, fields + _HEAD)
    store64(r + _RING_CUR_AT, fields + _CUR)
    store64(r + _RING_HWCUR_AT, fields + _HWCUR)
    store64(r + _RING_HWTAIL_AT, fields + _HWTAIL)
    store64(r + _RING_APPL_AT, guest_need_kick)
    store64(r + _RING_KERN_AT, host_need_kick)


@routine
def close_virtio_net(port, ports):
    """Let the host serve the port no longer, and stop the device."""
    command_2015(ports, _UNREGIF)
    write_2015(ports, _CSBBAH, 0)
    write_2015(ports, _CSBBAL, 0)
    stop_device(ports)
