# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Driver of an ordinary virtio-net: two queues, and a header before each frame (virtio 1.2 §5.1, §4.1.4.10).

A frame is one buffer, with a header of 10 bytes that says nothing: no offloads are taken.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.abi.pci import PCIR_VENDOR
from ptnetmap.abi.virtio import VIRTQ_DESC_F_WRITE, virtio_net_hdr
from ptnetmap.abi.virtio_pci import (
    VIRTIO_ID_NET,
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_QUEUE_RX,
    VIRTIO_NET_QUEUE_TX,
    VIRTIO_PCI_QUEUE_NOTIFY,
    VIRTIO_PCI_TRANSITIONAL,
    VIRTIO_PCI_VENDOR,
)
from ptnetmap.guest.console import end_line, put_number, put_text, say
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.layout import offsets
from ptnetmap.guest.pci import bar_address, bar_is_port, config_read32, enable_function, next_function
from ptnetmap.guest.routine import Text, routine
from ptnetmap.guest.virtio_legacy import (
    drive_device,
    place_queue,
    queue_size,
    route_interrupt,
    start_device,
    stop_device,
)
from ptnetmap.guest.virtio_net import passes_through, read_mac
from ptnetmap.guest.virtqueue import VRING, join_queue, offer, vring
from ptnetmap.jit.memory import load64, store64

etherport = np.dtype([("ports", "<u8"), ("mac", "<u8"), ("rx", "<u8"), ("tx", "<u8")])
"""A device in use: the first port of its registers, its address, and its :data:`~ptnetmap.guest.virtqueue.vring`s."""

MAC = offsets(etherport)["mac"]
RX = offsets(etherport)["rx"]
TX = offsets(etherport)["tx"]
_PORTS = offsets(etherport)["ports"]
_ETHERPORT_SIZE = etherport.itemsize
_VRING_SIZE = vring.itemsize
_SIZE = VRING["size"]
_BUFFERS = VRING["buffers"]
_STRIDE = VRING["stride"]
_RECEIVES = VRING["receives"]
_KICK_PORT = VRING["kick_port"]
_KICK_VALUE = VRING["kick_value"]
_VECTOR = VRING["vector"]
_BLOCK = VRING["block"]

HEADER = virtio_net_hdr.itemsize
"""Bytes of header before each frame."""
BUFFER = 2048
"""Bytes of a buffer, its header included."""
_IDENTITY = (VIRTIO_PCI_TRANSITIONAL[VIRTIO_ID_NET] << 16) | VIRTIO_PCI_VENDOR
_RX_INDEX = VIRTIO_NET_QUEUE_RX
_TX_INDEX = VIRTIO_NET_QUEUE_TX
_WRITE = VIRTQ_DESC_F_WRITE

_MISSING = Text("FAIL virtio-net: there is no ordinary virtio-net ")
_FOUND = Text("; found: ")
_UNUSABLE = Text("FAIL virtio-net: no registers, or no memory left for its queues and buffers")


@routine
def open_ether(block, boot, number):
    """Start the ordinary virtio-net with this number, from 0; return its :data:`etherport`, 0 if it cannot be, which is said.

    All its receive buffers are offered.
    """
    found = 0
    function = next_function(-1)
    while function >= 0:
        if config_read32(function, PCIR_VENDOR) == _IDENTITY and passes_through(function) == 0:
            if found == number:
                return start_ether(block, boot, function)
            found += 1
        function = next_function(function)
    put_text(boot, _MISSING)
    put_number(boot, number)
    put_text(boot, _FOUND)
    put_number(boot, found)
    end_line(boot)
    return 0


@routine
def start_ether(block, boot, function):
    """Start the device at ``function``, with the interrupts of both queues to the processor of ``block``."""
    ports = bar_address(function, 0)
    port = allocate(boot, _ETHERPORT_SIZE, 64)
    if ports == 0 or bar_is_port(function, 0) == 0 or port == 0:
        say(boot, _UNUSABLE)
        return 0
    enable_function(function)
    start_device(ports, VIRTIO_NET_F_MAC)
    rx = start_queue(block, boot, function, _RX_INDEX, _WRITE)
    tx = start_queue(block, boot, function, _TX_INDEX, 0)
    if rx == 0 or tx == 0:
        say(boot, _UNUSABLE)
        return 0
    store64(port + _PORTS, ports)
    store64(port + RX, rx)
    store64(port + TX, tx)
    drive_device(ports)
    store64(port + MAC, read_mac(ports))
    offer(rx, load64(rx + _SIZE))
    return port


@routine
def start_queue(block, boot, function, index, flags):
    """Set up queue ``index``, with descriptors of these ``flags``; return its vring, 0 without memory or entries."""
    ports = bar_address(function, 0)
    size = queue_size(ports, index)
    queue = place_queue(boot, ports, size)
    v = allocate(boot, _VRING_SIZE, 64)
    if queue == 0 or v == 0:
        return 0
    buffers = allocate(boot, size * BUFFER, 4096)
    if buffers == 0:
        return 0
    store64(v + _BUFFERS, buffers)
    store64(v + _STRIDE, BUFFER)
    store64(v + _RECEIVES, 1 if flags != 0 else 0)
    store64(v + _KICK_PORT, ports + VIRTIO_PCI_QUEUE_NOTIFY)
    store64(v + _KICK_VALUE, index)
    store64(v + _VECTOR, route_interrupt(function, ports, index, block, boot))
    store64(v + _BLOCK, block)
    join_queue(v, queue, size, BUFFER, flags)
    return v


@routine
def close_ether(port):
    """Stop the device; its memory is its own no more."""
    stop_device(load64(port + _PORTS))
