# SPDX-License-Identifier: BSD-2-Clause
"""The control queue of a network device: what its driver asks for besides packets (virtio 1.2 §5.1.6.5).

A port of a switch receives all frames that the switch has for it, whatever their addresses are. So there is nothing to
do to receive more, and nothing is promised where a driver wants less, other than as the standard has it: unwanted frames
may still arrive (§5.1.6.5.1). What could not be had that way is not offered: filters of VLANs, and modes without
groups or broadcasts.
"""

from __future__ import annotations

import errno
import struct
from typing import Protocol

from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.virtio.queue import Chain
from ptnetmap.errors import GuestError

QUEUE_SIZE = 64
"""Entries of the queue."""

FEATURES = abi.VIRTIO_NET_F_CTRL_VQ | abi.VIRTIO_NET_F_CTRL_RX | abi.VIRTIO_NET_F_CTRL_MAC_ADDR
"""What a device with such a queue offers; with several pairs of queues, VIRTIO_NET_F_MQ besides."""

_HEADER = abi.virtio_net_ctrl_hdr.itemsize
_COUNT = struct.Struct("<I")
_MAC = 6
_PAIRS = 2
_TABLES = 2


class NetworkDevice(Protocol):
    """What commands change. The methods return whether it is done; if not, nothing has changed."""

    def set_mac(self, mac: bytes) -> bool:
        """Have this address of 6 bytes."""

    def use_pairs(self, pairs: int) -> bool:
        """Use so many pairs of queues."""


def answer(device: NetworkDevice, features: int, chain: Chain) -> int:
    """Carry out a command of a driver that has taken ``features``, and return how many bytes of answer it got.

    Raises GuestError (EINVAL) for a chain without room for the answer.
    """
    if not chain.writable_bytes:
        raise GuestError(
            errno.EINVAL,
            f"virtio-net: a command of {chain.readable_bytes:,} bytes leaves no room for an answer\n"
            "        the driver must add a byte that the device writes",
        )
    done = chain.readable_bytes >= _HEADER and _carry_out(device, features, chain)
    return chain.write(bytes([abi.VIRTIO_NET_OK if done else abi.VIRTIO_NET_ERR]))


def _carry_out(device: NetworkDevice, features: int, chain: Chain) -> bool:
    length = chain.readable_bytes - _HEADER
    match tuple(chain.read(_HEADER)):
        case abi.VIRTIO_NET_CTRL_RX, abi.VIRTIO_NET_CTRL_RX_PROMISC | abi.VIRTIO_NET_CTRL_RX_ALLMULTI:
            return bool(features & abi.VIRTIO_NET_F_CTRL_RX) and length == 1
        case abi.VIRTIO_NET_CTRL_MAC, abi.VIRTIO_NET_CTRL_MAC_TABLE_SET:
            return bool(features & abi.VIRTIO_NET_F_CTRL_RX) and _are_tables(chain)
        case abi.VIRTIO_NET_CTRL_MAC, abi.VIRTIO_NET_CTRL_MAC_ADDR_SET:
            return (
                bool(features & abi.VIRTIO_NET_F_CTRL_MAC_ADDR)
                and length == _MAC
                and device.set_mac(chain.read(_MAC, _HEADER))
            )
        case abi.VIRTIO_NET_CTRL_MQ, abi.VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET:
            return (
                bool(features & abi.VIRTIO_NET_F_MQ)
                and length == _PAIRS
                and device.use_pairs(int.from_bytes(chain.read(_PAIRS, _HEADER), "little"))
            )
    return False


def _are_tables(chain: Chain) -> bool:
    """Whether a command ends with two tables of addresses, which need not be kept."""
    offset = _HEADER
    for _ in range(_TABLES):
        count = chain.read(_COUNT.size, offset)
        if len(count) < _COUNT.size:
            return False
        offset += _COUNT.size + _MAC * _COUNT.unpack(count)[0]
    return offset == chain.readable_bytes
