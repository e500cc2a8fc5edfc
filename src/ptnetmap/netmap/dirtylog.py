# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The log of written guest memory, by which a hypervisor knows what to send again when it moves a guest.

Bit n of the log stands for the page of 4,096 bytes at guest address 4,096 n (VHOST_LOG_PAGE). The hypervisor takes bits
away, in one step each word, before it reads the pages: so a bit is set after the bytes are written, never before.
"""

from __future__ import annotations

from ptnetmap.abi.vhost_user import VHOST_LOG_PAGE
from ptnetmap.jit.atomic import cas32, fence
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load32, load64
from ptnetmap.netmap.queuestate import memory_region, virtqueue

_AT = offsets(virtqueue)
_LOG = _AT["log"]
_LOG_PAGES = _AT["log_pages"]
_REGIONS = _AT["regions"]
_MEMORY = _AT["memory"]
_REGION_BYTES = memory_region.itemsize
_REGION_SIZE = offsets(memory_region)["size"]
_REGION_HOST = offsets(memory_region)["host"]


@piece
def log_write(queue, host, octets):
    """Note that ``octets`` bytes at the host address ``host`` have been written, if that is to be noted."""
    if load64(queue + _LOG) != 0:
        _mark(queue, host, octets)


@piece
def _mark(queue, host, octets):
    for number in range(load32(queue + _REGIONS)):
        region = queue + _MEMORY + number * _REGION_BYTES
        offset = host - load64(region + _REGION_HOST)
        if offset >= 0 and offset < load64(region + _REGION_SIZE):
            # One piece of memory may be in several places of the guest's.
            guest = load64(region) + offset
            last = min((guest + octets - 1) // VHOST_LOG_PAGE, load64(queue + _LOG_PAGES) - 1)
            for page in range(guest // VHOST_LOG_PAGE, last + 1):
                _set_bit(load64(queue + _LOG) + (page >> 5) * 4, 1 << (page & 31))


@piece
def _set_bit(word, bit):
    """Set a bit that others may take away at any time."""
    fence()  # also where it is set already: whoever takes it away next must find the bytes
    before = load32(word)
    while before & bit == 0:
        if cas32(word, before, before | bit):
            break
        before = load32(word)
