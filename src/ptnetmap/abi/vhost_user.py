# SPDX-License-Identifier: BSD-2-Clause
"""The vhost-user protocol: how a hypervisor hands a device's queues to another process, over a Unix stream socket.

A message is a :data:`header` and ``size`` bytes of payload; descriptors come along as SCM_RIGHTS. All fields are in the
byte order of the machine. Source: the vhost-user protocol, QEMU's interop documents.
"""

from __future__ import annotations

import numpy as np

header = np.dtype([("request", "<u4"), ("flags", "<u4"), ("size", "<u4")])
"""Before every message: 12 bytes.

====== ==== ======= ===============================================================================================
offset size field   meaning
====== ==== ======= ===============================================================================================
0      4    request ``VHOST_USER_*``
4      4    flags   ``VHOST_USER_VERSION`` in the low two bits, ``VHOST_USER_REPLY``, ``VHOST_USER_NEED_REPLY``
8      4    size    bytes of payload
====== ==== ======= ===============================================================================================
"""

VHOST_USER_VERSION = 0x1
VHOST_USER_VERSION_MASK = 0x3
VHOST_USER_REPLY = 0x4
VHOST_USER_NEED_REPLY = 0x8
"""The front end waits for a u64 that says 0, or an error; with REPLY_ACK."""

VHOST_USER_GET_FEATURES = 1
VHOST_USER_SET_FEATURES = 2
VHOST_USER_SET_OWNER = 3
VHOST_USER_RESET_OWNER = 4
VHOST_USER_SET_MEM_TABLE = 5
VHOST_USER_SET_LOG_BASE = 6
VHOST_USER_SET_LOG_FD = 7
VHOST_USER_SET_VRING_NUM = 8
VHOST_USER_SET_VRING_ADDR = 9
VHOST_USER_SET_VRING_BASE = 10
VHOST_USER_GET_VRING_BASE = 11
VHOST_USER_SET_VRING_KICK = 12
VHOST_USER_SET_VRING_CALL = 13
VHOST_USER_SET_VRING_ERR = 14
VHOST_USER_GET_PROTOCOL_FEATURES = 15
VHOST_USER_SET_PROTOCOL_FEATURES = 16
VHOST_USER_GET_QUEUE_NUM = 17
VHOST_USER_SET_VRING_ENABLE = 18
VHOST_USER_NET_SET_MTU = 20
VHOST_USER_GET_INFLIGHT_FD = 31
VHOST_USER_SET_INFLIGHT_FD = 32
VHOST_USER_RESET_DEVICE = 34
VHOST_USER_GET_MAX_MEM_SLOTS = 36
VHOST_USER_ADD_MEM_REG = 37
VHOST_USER_REM_MEM_REG = 38
VHOST_USER_SET_STATUS = 39
VHOST_USER_GET_STATUS = 40

VHOST_USER_PROTOCOL_F_MQ = 1 << 0
"""There may be more than one pair of queues: GET_QUEUE_NUM."""
VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1 << 1
"""The log of written pages is shared memory: SET_LOG_BASE."""
VHOST_USER_PROTOCOL_F_REPLY_ACK = 1 << 3
"""Every message may be answered: VHOST_USER_NEED_REPLY."""
VHOST_USER_PROTOCOL_F_MTU = 1 << 4
"""The front end tells the device's MTU: NET_SET_MTU."""
VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 1 << 12
"""What is in flight is told in shared memory: GET_INFLIGHT_FD."""
VHOST_USER_PROTOCOL_F_RESET_DEVICE = 1 << 13
"""RESET_DEVICE."""
VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 1 << 15
"""Memory comes and goes region by region: ADD_MEM_REG."""
VHOST_USER_PROTOCOL_F_STATUS = 1 << 16
"""The driver's status is told: SET_STATUS."""

VHOST_F_LOG_ALL = 1 << 26
"""Feature: what the back end writes in the guest's memory is logged."""
VHOST_USER_F_PROTOCOL_FEATURES = 1 << 30
"""Feature: there are protocol features to negotiate."""

VHOST_MEMORY_BASELINE_NREGIONS = 8
"""Regions of SET_MEM_TABLE at the most."""
VHOST_USER_VRING_INDEX_MASK = 0xFF
VHOST_USER_VRING_NOFD_MASK = 0x100
"""In the u64 of SET_VRING_KICK, CALL and ERR: the ring, and that no descriptor comes along."""

memory_region = np.dtype([("guest", "<u8"), ("size", "<u8"), ("user", "<u8"), ("offset", "<u8")])
"""A region of guest memory: 32 bytes.

====== ==== ====== ================================================================================================
offset size field  meaning
====== ==== ====== ================================================================================================
0      8    guest  guest-physical address
8      8    size   bytes
16     8    user   its address in the front end, in terms of which rings are placed
24     8    offset where it begins in its file
====== ==== ====== ================================================================================================
"""

memory_table = np.dtype([("count", "<u4"), ("_pad", "V4")])
"""Payload of SET_MEM_TABLE: 8 bytes, and ``count`` regions, with a descriptor each."""

single_region = np.dtype([("_pad", "V8"), ("region", memory_region)])
"""Payload of ADD_MEM_REG, which comes with a descriptor, and REM_MEM_REG: 40 bytes."""

vring_state = np.dtype([("index", "<u4"), ("num", "<u4")])
"""Payload of SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_ENABLE: 8 bytes, a ring and a number."""

vring_addr = np.dtype(
    [("index", "<u4"), ("flags", "<u4"), ("desc", "<u8"), ("used", "<u8"), ("avail", "<u8"), ("log", "<u8")]
)
"""Payload of SET_VRING_ADDR: 40 bytes.

====== ==== ===== =================================================================================================
offset size field meaning
====== ==== ===== =================================================================================================
0      4    index the ring
4      4    flags 1: writes to the used ring are logged
8      8    desc  descriptor table, an address in the front end
16     8    used  used ring, likewise
24     8    avail available ring, likewise
32     8    log   guest-physical address of the used ring, for the log
====== ==== ===== =================================================================================================
"""

log_place = np.dtype([("size", "<u8"), ("offset", "<u8")])
"""Payload of SET_LOG_BASE: 16 bytes, and a descriptor: one bit for each 4096-byte page."""

inflight = np.dtype([("size", "<u8"), ("offset", "<u8"), ("queues", "<u2"), ("queue_size", "<u2"), ("_pad", "V4")])
"""Payload of GET_INFLIGHT_FD, its reply, and SET_INFLIGHT_FD: 24 bytes, of which 20 are used.

====== ==== ========== ============================================================================================
offset size field      meaning
====== ==== ========== ============================================================================================
0      8    size       bytes of the shared memory
8      8    offset     where it begins in its file
16     2    queues     how many queues it is for
18     2    queue_size entries of each
====== ==== ========== ============================================================================================
"""

NAMES = {
    value: name.removeprefix("VHOST_USER_")
    for name, value in globals().items()
    if name.startswith(("VHOST_USER_GET_", "VHOST_USER_SET_", "VHOST_USER_RESET_"))
    or name in ("VHOST_USER_NET_SET_MTU", "VHOST_USER_ADD_MEM_REG", "VHOST_USER_REM_MEM_REG")
}
"""Name of each request, for messages to people."""
