# SPDX-License-Identifier: BSD-2-Clause
"""bpf(2): maps, programs and links, as far as an AF_XDP port needs them (Linux, include/uapi/linux/bpf.h).

Each command takes an attribute structure; one that is shorter than the kernel's stands for zeros in the rest.
"""

from __future__ import annotations

import numpy as np

SYS_BPF = 321
"""The system call's number on x86-64."""

BPF_MAP_CREATE = 0
BPF_MAP_UPDATE_ELEM = 2
BPF_MAP_DELETE_ELEM = 3
BPF_PROG_LOAD = 5
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_LINK_CREATE = 28
BPF_LINK_GET_FD_BY_ID = 30
BPF_LINK_GET_NEXT_ID = 31
BPF_LINK_DETACH = 34

BPF_MAP_TYPE_XSKMAP = 17
"""A map from a queue's number to the AF_XDP socket that gets its frames."""
BPF_PROG_TYPE_XDP = 6
"""A program that sees each frame an interface receives."""
BPF_PROG_TYPE_SCHED_CLS = 3
"""A program of traffic control, that sees the stack's frames."""
BPF_XDP = 37
"""The attach type of an XDP program, and of a link with one."""
BPF_TCX_INGRESS = 46
"""The attach type of a link with a program of traffic control: what the stack receives (Linux 6.6)."""
BPF_TCX_EGRESS = 47
"""The same, for what the stack sends."""
BPF_LINK_TYPE_XDP = 6
"""What a link to an interface says of itself."""
BPF_F_XDP_HAS_FRAGS = 1 << 5
"""The program can be given frames in several buffers (Linux 5.18)."""
BPF_OBJ_NAME_LEN = 16
"""Bytes of a map's or program's name, with its final NUL."""

map_create = np.dtype(
    [
        ("map_type", "<u4"),
        ("key_size", "<u4"),
        ("value_size", "<u4"),
        ("max_entries", "<u4"),
        ("map_flags", "<u4"),
        ("inner_map_fd", "<u4"),
        ("numa_node", "<u4"),
        ("map_name", f"S{BPF_OBJ_NAME_LEN}"),
    ]
)
"""``BPF_MAP_CREATE``: 44 bytes.

====== ==== ============ ==========================================================================================
offset size field        meaning
====== ==== ============ ==========================================================================================
0      4    map_type     ``BPF_MAP_TYPE_*``
4      4    key_size     bytes of a key
8      4    value_size   bytes of a value
12     4    max_entries  at the most
16     4    map_flags    0
20     4    inner_map_fd 0
24     4    numa_node    0
28     16   map_name     for listings
====== ==== ============ ==========================================================================================
"""

map_elem = np.dtype([("map_fd", "<u4"), ("_pad", "<u4"), ("key", "<u8"), ("value", "<u8"), ("flags", "<u8")])
"""``BPF_MAP_UPDATE_ELEM``, ``BPF_MAP_DELETE_ELEM``: 32 bytes.

====== ==== ====== ================================================================================================
offset size field  meaning
====== ==== ====== ================================================================================================
0      4    map_fd the map
4      4    _pad   0
8      8    key    address of the key
16     8    value  address of the value; 0 to delete it
24     8    flags  0
====== ==== ====== ================================================================================================
"""

prog_load = np.dtype(
    [
        ("prog_type", "<u4"),
        ("insn_cnt", "<u4"),
        ("insns", "<u8"),
        ("license", "<u8"),
        ("log_level", "<u4"),
        ("log_size", "<u4"),
        ("log_buf", "<u8"),
        ("kern_version", "<u4"),
        ("prog_flags", "<u4"),
        ("prog_name", f"S{BPF_OBJ_NAME_LEN}"),
        ("prog_ifindex", "<u4"),
        ("expected_attach_type", "<u4"),
    ]
)
"""``BPF_PROG_LOAD``: 72 bytes.

====== ==== ==================== ==================================================================================
offset size field                meaning
====== ==== ==================== ==================================================================================
0      4    prog_type            ``BPF_PROG_TYPE_*``
4      4    insn_cnt             instructions, of 8 bytes each
8      8    insns                their address
16     8    license              address of a string
24     4    log_level            0, or 1 for the verifier's reasons
28     4    log_size             bytes for them
32     8    log_buf              where they go
40     4    kern_version         0
44     4    prog_flags           ``BPF_F_XDP_HAS_FRAGS`` or 0
48     16   prog_name            for listings
64     4    prog_ifindex         0
68     4    expected_attach_type ``BPF_XDP``, or 0 for traffic control
====== ==== ==================== ==================================================================================
"""

link_create = np.dtype([("prog_fd", "<u4"), ("target_ifindex", "<u4"), ("attach_type", "<u4"), ("flags", "<u4")])
"""``BPF_LINK_CREATE``: 16 bytes. The program is detached when the link's last descriptor is closed.

====== ==== ============== ========================================================================================
offset size field          meaning
====== ==== ============== ========================================================================================
0      4    prog_fd        the program
4      4    target_ifindex the interface
8      4    attach_type    ``BPF_XDP``, ``BPF_TCX_*``
12     4    flags          ``XDP_FLAGS_DRV_MODE`` or ``XDP_FLAGS_SKB_MODE``; 0 for traffic control
====== ==== ============== ========================================================================================
"""

get_id = np.dtype([("id", "<u4"), ("next_id", "<u4"), ("open_flags", "<u4")])
"""``BPF_LINK_GET_NEXT_ID`` (``id`` to start after, ``next_id`` answered), ``BPF_LINK_GET_FD_BY_ID``: 12 bytes.

====== ==== ========== ============================================================================================
offset size field      meaning
====== ==== ========== ============================================================================================
0      4    id         of a link
4      4    next_id    the next link's
8      4    open_flags 0
====== ==== ========== ============================================================================================
"""

obj_get_info = np.dtype([("bpf_fd", "<u4"), ("info_len", "<u4"), ("info", "<u8")])
"""``BPF_OBJ_GET_INFO_BY_FD``: 16 bytes.

====== ==== ======== ==============================================================================================
offset size field    meaning
====== ==== ======== ==============================================================================================
0      4    bpf_fd   of a link, here
4      4    info_len bytes there is room for; bytes there are
8      8    info     address of :data:`link_info`
====== ==== ======== ==============================================================================================
"""

link_info = np.dtype([("type", "<u4"), ("id", "<u4"), ("prog_id", "<u4"), ("_pad", "<u4"), ("ifindex", "<u4")])
"""What a link says of itself, up to what an XDP link has of its own: 20 bytes.

====== ==== ======= ===============================================================================================
offset size field   meaning
====== ==== ======= ===============================================================================================
0      4    type    ``BPF_LINK_TYPE_XDP``, or another
4      4    id      its number
8      4    prog_id its program's number
12     4    _pad    0
16     4    ifindex the interface; 0 once that is gone or the link detached
====== ==== ======= ===============================================================================================
"""

bpf_insn = np.dtype([("code", "u1"), ("regs", "u1"), ("off", "<i2"), ("imm", "<i4")])
"""One instruction: 8 bytes.

====== ==== ===== =================================================================================================
offset size field meaning
====== ==== ===== =================================================================================================
0      1    code  what to do
1      1    regs  destination register, and source register << 4
2      2    off   offset in memory
4      4    imm   constant
====== ==== ===== =================================================================================================
"""

BPF_LDX_MEM_W = 0x61
"""dst = the 32-bit word at src + off (BPF_LDX | BPF_MEM | BPF_W)."""
BPF_LD_IMM64 = 0x18
"""dst = a 64-bit constant, whose upper half is in the next instruction (BPF_LD | BPF_IMM | BPF_DW)."""
BPF_MOV64_IMM = 0xB7
"""dst = imm (BPF_ALU64 | BPF_MOV | BPF_K)."""
BPF_CALL = 0x85
"""Call the kernel's function number imm with r1 to r5; the result is r0 (BPF_JMP | BPF_CALL)."""
BPF_EXIT = 0x95
"""Return r0 (BPF_JMP | BPF_EXIT)."""
BPF_PSEUDO_MAP_FD = 1
"""As the source register of ``BPF_LD_IMM64``: the constant is a map's descriptor."""
BPF_FUNC_redirect = 23
"""bpf_redirect(ifindex, flags): send the frame by another interface, or with ``BPF_F_INGRESS`` let that receive it."""
BPF_F_INGRESS = 1
BPF_FUNC_redirect_map = 51
"""bpf_redirect_map(map, key, flags): where the frame goes; without such a key, what flags' lowest bits say."""
