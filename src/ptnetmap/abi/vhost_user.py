# SPDX-License-Identifier: BSD-2-Clause
"""vhost-user: how a virtual machine's process (the front-end) hands virtqueues to another one (the back-end).

Messages over a stream socket, each a header, a payload of as many bytes as the header says, and file descriptors beside
the first byte. All numbers are in the machine's byte order, little endian here. Only requests that this package serves
or sends are named. Source: QEMU, docs/interop/vhost-user.rst (here: vhost-user).
"""

from __future__ import annotations

import numpy as np

VHOST_USER_VERSION = 1
"""The version in the lowest two bits of a header's flags (vhost-user, Header)."""
VHOST_USER_VERSION_MASK = 0x3
"""The bits of a header's flags that hold the version (vhost-user, Header)."""
VHOST_USER_REPLY = 0x4
"""In a header's flags: this is the back-end's reply (vhost-user, Header)."""
VHOST_USER_NEED_REPLY = 0x8
"""In a header's flags: the back-end is to say how it went; with REPLY_ACK (vhost-user, Header)."""

vhost_user_header = np.dtype([("request", "<u4"), ("flags", "<u4"), ("size", "<u4")])
"""The start of each message: 12 bytes (vhost-user, Header).

====== ==== ======= ==============================================================================================
offset size field   meaning
====== ==== ======= ==============================================================================================
0      4    request ``VHOST_USER_*``
4      4    flags   the version, ``VHOST_USER_REPLY``, ``VHOST_USER_NEED_REPLY``
8      4    size    bytes of payload that follow
====== ==== ======= ==============================================================================================
"""

vhost_vring_state = np.dtype([("index", "<u4"), ("num", "<u4")])
"""A number that belongs to a queue: 8 bytes (vhost-user, A vring state description).

====== ==== ===== ================================================================================================
offset size field meaning
====== ==== ===== ================================================================================================
0      4    index of the queue
4      4    num   entries; or where the queue stands (``VHOST_USER_VRING_BASE_*``); or 1 to enable, 0 to disable it
====== ==== ===== ================================================================================================
"""

VHOST_USER_VRING_BASE_MASK = 0x7FFF
"""Where a packed queue stands: the index in each 16-bit half; the lower half is the driver's (available) side."""
VHOST_USER_VRING_BASE_WRAP = 0x8000
"""Where a packed queue stands: the wrap counter in each 16-bit half; the upper half is the device's (used) side."""

vhost_vring_addr = np.dtype(
    [
        ("index", "<u4"),
        ("flags", "<u4"),
        ("descriptor", "<u8"),
        ("used", "<u8"),
        ("available", "<u8"),
        ("log", "<u8"),
    ]
)
"""Where the parts of a queue are: 40 bytes (vhost-user, A vring address description).

====== ==== ========== ===========================================================================================
offset size field      meaning
====== ==== ========== ===========================================================================================
0      4    index      of the queue
4      4    flags      ``VHOST_VRING_F_LOG`` or 0
8      8    descriptor user address of the descriptor table, or of the packed ring
16     8    used       user address of the used ring, or of the device's event suppression (packed)
24     8    available  user address of the available ring, or of the driver's event suppression (packed)
32     8    log        guest address that stands for the used ring in the log
====== ==== ========== ===========================================================================================
"""

VHOST_VRING_F_LOG = 1
"""What is written to the used ring is to be logged (vhost-user, Migration; a bit, not its number)."""

VHOST_USER_VRING_INDEX_MASK = 0xFF
"""The queue in the payload of SET_VRING_KICK, _CALL and _ERR."""
VHOST_USER_VRING_NO_FD = 0x100
"""In the payload of SET_VRING_KICK, _CALL and _ERR: there is no descriptor; poll, or do not signal."""

vhost_user_memory_region = np.dtype([("guest", "<u8"), ("size", "<u8"), ("user", "<u8"), ("offset", "<u8")])
"""A region of guest memory, in one file: 32 bytes (vhost-user, Memory region description).

====== ==== ====== ===============================================================================================
offset size field  meaning
====== ==== ====== ===============================================================================================
0      8    guest  guest address of its first byte
8      8    size   bytes
16     8    user   address of its first byte in the front-end's process
24     8    offset of its first byte in the file
====== ==== ====== ===============================================================================================
"""

vhost_user_memory = np.dtype([("regions", "<u4"), ("padding", "<u4")])
"""The head of a memory table: 8 bytes; so many :data:`vhost_user_memory_region` follow.

====== ==== ======= ==============================================================================================
offset size field   meaning
====== ==== ======= ==============================================================================================
0      4    regions that follow, ``VHOST_MEMORY_BASELINE_NREGIONS`` at the most; each has a descriptor
4      4    padding 0
====== ==== ======= ==============================================================================================
"""

VHOST_MEMORY_BASELINE_NREGIONS = 8
"""Regions of a memory table at the most, and descriptors beside a message."""

vhost_user_single_memory_region = np.dtype([("padding", "<u8"), *vhost_user_memory_region.descr])
"""One region to add or remove: 40 bytes (vhost-user, Single memory region description).

====== ==== ======= ==============================================================================================
offset size field   meaning
====== ==== ======= ==============================================================================================
0      8    padding 0
8      8    guest   as in :data:`vhost_user_memory_region`, like the next three
16     8    size
24     8    user
32     8    offset
====== ==== ======= ==============================================================================================
"""

vhost_user_log = np.dtype([("size", "<u8"), ("offset", "<u8")])
"""The memory in which written pages are marked: 16 bytes (vhost-user, Log description).

====== ==== ====== ===============================================================================================
offset size field  meaning
====== ==== ====== ===============================================================================================
0      8    size   bytes
8      8    offset in the file of the bit for guest address 0
====== ==== ====== ===============================================================================================
"""

VHOST_LOG_PAGE = 0x1000
"""Bytes of guest memory for each bit of the log (vhost-user, Migration)."""

vhost_user_inflight = np.dtype(
    [("size", "<u8"), ("offset", "<u8"), ("queues", "<u2"), ("queue_size", "<u2"), ("padding", "<u4")]
)
"""The memory in which buffers in flight are noted: 24 bytes (vhost-user, Inflight description).

====== ==== ========== ===========================================================================================
offset size field      meaning
====== ==== ========== ===========================================================================================
0      8    size       bytes
8      8    offset     of its first byte in the file
16     2    queues     that have a part in it
18     2    queue_size entries of each of these
20     4    padding    0; some front-ends leave it out, which makes 20 bytes
====== ==== ========== ===========================================================================================
"""

vhost_user_config = np.dtype([("offset", "<u4"), ("size", "<u4"), ("flags", "<u4")])
"""A piece of the device's configuration space: 12 bytes (vhost-user, Virtio device config space).

====== ==== ====== ===============================================================================================
offset size field  meaning
====== ==== ====== ===============================================================================================
0      4    offset in the space
4      4    size   bytes; so many follow, also in the request that asks for them
8      4    flags  0, or 1 while a machine migrates
====== ==== ====== ===============================================================================================
"""

VHOST_USER_MAX_CONFIG_SIZE = 256
"""Bytes of configuration space in one message at the most."""

VHOST_F_LOG_ALL = 1 << 26
"""Feature: everything that is written to guest memory is to be logged (vhost-user, Migration)."""
VHOST_USER_F_PROTOCOL_FEATURES = 1 << 30
"""Feature: there are protocol features, and queues are disabled until they are enabled (vhost-user, Communication)."""

VHOST_USER_PROTOCOL_F_MQ = 1 << 0
"""GET_QUEUE_NUM is there (vhost-user, Protocol features, as all that follow)."""
VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1 << 1
"""SET_LOG_BASE comes with the log's descriptor, and is replied to."""
VHOST_USER_PROTOCOL_F_RARP = 1 << 2
"""SEND_RARP is there."""
VHOST_USER_PROTOCOL_F_REPLY_ACK = 1 << 3
"""``VHOST_USER_NEED_REPLY`` is understood."""
VHOST_USER_PROTOCOL_F_NET_MTU = 1 << 4
"""NET_SET_MTU is there."""
VHOST_USER_PROTOCOL_F_CONFIG = 1 << 9
"""GET_CONFIG and SET_CONFIG are there."""
VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 1 << 12
"""GET_INFLIGHT_FD and SET_INFLIGHT_FD are there."""
VHOST_USER_PROTOCOL_F_RESET_DEVICE = 1 << 13
"""RESET_DEVICE is there."""
VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 1 << 15
"""GET_MAX_MEM_SLOTS, ADD_MEM_REG and REM_MEM_REG are there."""
VHOST_USER_PROTOCOL_F_STATUS = 1 << 16
"""SET_STATUS and GET_STATUS are there."""

VHOST_USER_GET_FEATURES = 1
"""Reply: u64, the features that the back-end has (vhost-user, Front-end message types, as all that follow)."""
VHOST_USER_SET_FEATURES = 2
"""u64: the features that are used."""
VHOST_USER_SET_OWNER = 3
"""A session begins."""
VHOST_USER_RESET_OWNER = 4
"""Deprecated, and best ignored."""
VHOST_USER_SET_MEM_TABLE = 5
""":data:`vhost_user_memory`, with a descriptor for each region."""
VHOST_USER_SET_LOG_BASE = 6
""":data:`vhost_user_log`, with a descriptor. Reply: u64, 0."""
VHOST_USER_SET_LOG_FD = 7
"""An eventfd to signal when something was logged."""
VHOST_USER_SET_VRING_NUM = 8
""":data:`vhost_vring_state`: entries of a queue."""
VHOST_USER_SET_VRING_ADDR = 9
""":data:`vhost_vring_addr`."""
VHOST_USER_SET_VRING_BASE = 10
""":data:`vhost_vring_state`: where a queue stands."""
VHOST_USER_GET_VRING_BASE = 11
""":data:`vhost_vring_state`: stop a queue. Reply: the same, where it stands."""
VHOST_USER_SET_VRING_KICK = 12
"""u64: a queue, with the eventfd that is signalled when buffers become available; starts the queue."""
VHOST_USER_SET_VRING_CALL = 13
"""u64: a queue, with an eventfd to signal when buffers were used."""
VHOST_USER_SET_VRING_ERR = 14
"""u64: a queue, with an eventfd to signal when it breaks."""
VHOST_USER_GET_PROTOCOL_FEATURES = 15
"""Reply: u64, the protocol features that the back-end has."""
VHOST_USER_SET_PROTOCOL_FEATURES = 16
"""u64: the protocol features that are used."""
VHOST_USER_GET_QUEUE_NUM = 17
"""Reply: u64, how many queues the back-end has."""
VHOST_USER_SET_VRING_ENABLE = 18
""":data:`vhost_vring_state`: 1 to enable a queue, 0 to disable it."""
VHOST_USER_SEND_RARP = 19
"""u64: the first 6 bytes are the MAC address to announce."""
VHOST_USER_NET_SET_MTU = 20
"""u64: the MTU that the guest sees."""
VHOST_USER_GET_CONFIG = 24
""":data:`vhost_user_config` and as many bytes. Reply: the same; no payload if it cannot be."""
VHOST_USER_SET_CONFIG = 25
""":data:`vhost_user_config` and the bytes."""
VHOST_USER_GET_INFLIGHT_FD = 31
""":data:`vhost_user_inflight`: make such memory. Reply: the same, with its descriptor."""
VHOST_USER_SET_INFLIGHT_FD = 32
""":data:`vhost_user_inflight`, with its descriptor."""
VHOST_USER_RESET_DEVICE = 34
"""Make the device as new; its owner stays."""
VHOST_USER_GET_MAX_MEM_SLOTS = 36
"""Reply: u64, regions of memory at the most."""
VHOST_USER_ADD_MEM_REG = 37
""":data:`vhost_user_single_memory_region`, with a descriptor."""
VHOST_USER_REM_MEM_REG = 38
""":data:`vhost_user_single_memory_region`; its offset means nothing."""
VHOST_USER_SET_STATUS = 39
"""u64: the device's status as in virtio (virtio 1.2 §2.1)."""
VHOST_USER_GET_STATUS = 40
"""Reply: u64, the device's status."""
