# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Driver of virtio-rnd: random bytes of the host, through one legacy queue (virtio 1.2 §5.4, §4.1.4.10, §2.7.2)."""

from __future__ import annotations

import numpy as np

from ptnetmap.abi.virtio import (
    VIRTQ_DESC_F_WRITE,
    virtq_avail,
    virtq_avail_elem,
    virtq_desc,
    virtq_used,
    virtq_used_elem,
)
from ptnetmap.abi.virtio_pci import (
    VIRTIO_ID_ENTROPY,
    VIRTIO_PCI_QUEUE_NOTIFY,
    VIRTIO_PCI_TRANSITIONAL,
    VIRTIO_PCI_VENDOR,
)
from ptnetmap.guest.cpu import timestamp
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.interrupts import interrupt_count
from ptnetmap.guest.layout import offsets
from ptnetmap.guest.pci import bar_address, bar_is_port, enable_function, find_device
from ptnetmap.guest.port import out16
from ptnetmap.guest.routine import routine
from ptnetmap.guest.timer import await_count, deadline_after
from ptnetmap.guest.virtio_legacy import (
    available_at,
    drive_device,
    place_queue,
    queue_size,
    route_interrupt,
    start_device,
    stop_device,
    used_at,
)
from ptnetmap.jit.atomic import load32_acquire, pause, store32_release
from ptnetmap.jit.memory import load32, load64, store16, store32, store64

rng = np.dtype(
    [
        ("function", "<u8"),
        ("ports", "<u8"),
        ("size", "<u8"),
        ("descriptors", "<u8"),
        ("available", "<u8"),
        ("used", "<u8"),
        ("requests", "<u8"),
        ("vector", "<i8"),
        ("block", "<u8"),
    ]
)
"""A device in use: 72 bytes.

====== ==== =========== ==========================================================================================
offset size field       meaning
====== ==== =========== ==========================================================================================
0      8    function    its place on the bus
8      8    ports       first port of its registers
16     8    size        entries of its queue
24     8    descriptors address of the descriptor table
32     8    available   address of the available ring
40     8    used        address of the used ring
48     8    requests    requests made so far
56     8    vector      vector of its interrupts, -1 if it is polled
64     8    block       the processor that gets them
====== ==== =========== ==========================================================================================
"""

_DEVICE = VIRTIO_PCI_TRANSITIONAL[VIRTIO_ID_ENTROPY]
_FUNCTION = offsets(rng)["function"]
_PORTS = offsets(rng)["ports"]
_SIZE = offsets(rng)["size"]
_DESCRIPTORS = offsets(rng)["descriptors"]
_AVAILABLE = offsets(rng)["available"]
_USED = offsets(rng)["used"]
_REQUESTS = offsets(rng)["requests"]
_VECTOR = offsets(rng)["vector"]
_BLOCK = offsets(rng)["block"]
_STATE_SIZE = rng.itemsize

_DESC_SIZE = virtq_desc.itemsize
_DESC_LEN = offsets(virtq_desc)["len"]
_DESC_FLAGS = offsets(virtq_desc)["flags"]
_AVAIL_HEAD = virtq_avail.itemsize
_AVAIL_ELEM = virtq_avail_elem.itemsize
_USED_HEAD = virtq_used.itemsize
_USED_ELEM = virtq_used_elem.itemsize
_USED_LEN = offsets(virtq_used_elem)["len"]

_NO_DEVICE = 0
_UNUSABLE = -1


@routine
def open_rng(block, boot):
    """Find virtio-rnd and start it, with its interrupts to this processor if it has MSI-X.

    Return the address of its :data:`rng`, 0 if there is no such device, -1 if it does not work as it must.
    """
    function = find_device(VIRTIO_PCI_VENDOR, _DEVICE, -1)
    if function < 0:
        return _NO_DEVICE
    ports = bar_address(function, 0)
    device = allocate(boot, _STATE_SIZE, 64)
    if ports == 0 or bar_is_port(function, 0) == 0 or device == 0:
        return _UNUSABLE
    enable_function(function)
    start_device(ports, 0)
    size = queue_size(ports, 0)
    queue = place_queue(boot, ports, size)
    if queue == 0:
        return _UNUSABLE
    store64(device + _FUNCTION, function)
    store64(device + _PORTS, ports)
    store64(device + _SIZE, size)
    store64(device + _DESCRIPTORS, queue)
    store64(device + _AVAILABLE, queue + available_at(size))
    store64(device + _USED, queue + used_at(size))
    store64(device + _BLOCK, block)
    store64(device + _VECTOR, route_interrupt(function, ports, 0, block, boot))
    drive_device(ports)
    return device


@routine
def read_rng(device, boot, address, length, microseconds):
    """Ask for ``length`` random bytes at ``address``; wait for so many microseconds at the most.

    Return how many came, -1 if none did in this time, or if the device says what cannot be.
    """
    requests = load64(device + _REQUESTS)
    slot = requests & (load64(device + _SIZE) - 1)
    descriptor = load64(device + _DESCRIPTORS)
    store64(descriptor, address)
    store32(descriptor + _DESC_LEN, length)
    store16(descriptor + _DESC_FLAGS, VIRTQ_DESC_F_WRITE)
    available = load64(device + _AVAILABLE)
    store16(available + _AVAIL_HEAD + _AVAIL_ELEM * slot, 0)
    requests += 1
    store64(device + _REQUESTS, requests)
    vector = load64(device + _VECTOR)
    seen = 0 if vector < 0 else interrupt_count(load64(device + _BLOCK), vector)
    store32_release(available, (requests & 0xFFFF) << 16)  # flags 0, and the index behind them
    out16(load64(device + _PORTS) + VIRTIO_PCI_QUEUE_NOTIFY, 0)
    if vector >= 0 and await_count(load64(device + _BLOCK), boot, vector, seen, microseconds) == 0:
        return -1
    deadline = deadline_after(boot, microseconds)
    used = load64(device + _USED)
    while load32_acquire(used) >> 16 != requests & 0xFFFF:
        if timestamp() > deadline:
            return -1
        pause()
    element = used + _USED_HEAD + _USED_ELEM * slot
    came = load32(element + _USED_LEN)
    return came if load32(element) == 0 and came <= length else -1


@routine
def close_rng(device):
    """Stop the device; its memory is its own no more."""
    stop_device(load64(device + _PORTS))
