# SPDX-License-Identifier: BSD-2-Clause
"""bpf(2), by its number: maps, programs and links, each a descriptor that closes itself.

All raise OSError with the kernel's errno; who calls knows what to say about it.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import bpf as abi

_LICENSE = b"BSD-2-Clause"
_LOG_BYTES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attribute: npt.NDArray[Any]) -> int:
    """Make the system call with one attribute structure, which may be written to. Raises OSError."""
    result: int = _libc.syscall(abi.SYS_BPF, command, ctypes.c_void_p(attribute.ctypes.data), attribute.nbytes)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _attribute(layout: np.dtype[Any], **fields: Any) -> npt.NDArray[Any]:
    attribute = np.zeros(1, layout)
    for name, value in fields.items():
        attribute[name] = value
    return attribute


def create_xskmap(entries: int) -> int:
    """Make a map from queues to AF_XDP sockets, for queues below ``entries``; return its descriptor."""
    return _bpf(
        abi.BPF_MAP_CREATE,
        _attribute(
            abi.map_create,
            map_type=abi.BPF_MAP_TYPE_XSKMAP,
            key_size=4,
            value_size=4,
            max_entries=entries,
            map_name=b"ptnetmap",
        ),
    )


def set_entry(map_fd: int, queue: int, fd: int) -> None:
    """Let a queue's frames go to a socket, which is bound."""
    key, value = np.array([queue, fd], np.uint32).reshape(2, 1)
    _bpf(
        abi.BPF_MAP_UPDATE_ELEM,
        _attribute(abi.map_elem, map_fd=map_fd, key=key.ctypes.data, value=value.ctypes.data),
    )


def delete_entry(map_fd: int, queue: int) -> None:
    """Let a queue's frames go to the host's stack."""
    key = np.array([queue], np.uint32)
    _bpf(abi.BPF_MAP_DELETE_ELEM, _attribute(abi.map_elem, map_fd=map_fd, key=key.ctypes.data))


def load_program(instructions: npt.NDArray[Any], flags: int = 0, *, kind: int = abi.BPF_PROG_TYPE_XDP) -> int:
    """Load a program, of XDP or another ``kind``; return its descriptor. A refusal has the verifier's reasons."""
    code = np.ascontiguousarray(instructions)
    license_text = ctypes.create_string_buffer(_LICENSE)
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attribute = _attribute(
        abi.prog_load,
        prog_type=kind,
        insn_cnt=len(code),
        insns=code.ctypes.data,
        license=ctypes.addressof(license_text),
        prog_flags=flags,
        prog_name=b"ptnetmap",
        expected_attach_type=abi.BPF_XDP if kind == abi.BPF_PROG_TYPE_XDP else 0,
    )
    try:
        return _bpf(abi.BPF_PROG_LOAD, attribute)
    except OSError as refusal:
        attribute["log_level"] = 1
        attribute["log_size"] = _LOG_BYTES
        attribute["log_buf"] = ctypes.addressof(log)
        try:
            return _bpf(abi.BPF_PROG_LOAD, attribute)
        except OSError:
            reasons = log.value.decode(errors="replace").strip()
            raise OSError(refusal.errno, f"{refusal.strerror}{': ' if reasons else ''}{reasons}") from None


def create_link(program_fd: int, ifindex: int, flags: int = 0, *, where: int = abi.BPF_XDP) -> int:
    """Attach a program to an interface until the returned descriptor, and every copy of it, is closed."""
    return _bpf(
        abi.BPF_LINK_CREATE,
        _attribute(abi.link_create, prog_fd=program_fd, target_ifindex=ifindex, attach_type=where, flags=flags),
    )


def detach_links(ifindex: int) -> int:
    """Detach every link on an interface, whoever made it; return how many there were. Needs CAP_SYS_ADMIN."""
    detached = 0
    attribute = _attribute(abi.get_id)
    while True:
        try:
            _bpf(abi.BPF_LINK_GET_NEXT_ID, attribute)
        except FileNotFoundError:
            return detached
        attribute["id"] = attribute["next_id"]
        try:
            fd = _bpf(abi.BPF_LINK_GET_FD_BY_ID, _attribute(abi.get_id, id=attribute["id"]))
        except FileNotFoundError:  # it has gone meanwhile
            continue
        try:
            if _is_on(fd, ifindex):
                _bpf(abi.BPF_LINK_DETACH, _attribute(np.dtype([("link_fd", "<u4")]), link_fd=fd))
                detached += 1
        finally:
            os.close(fd)


def _is_on(link_fd: int, ifindex: int) -> bool:
    info = np.zeros(1, abi.link_info)
    wanted = _attribute(abi.obj_get_info, bpf_fd=link_fd, info_len=info.nbytes, info=info.ctypes.data)
    _bpf(abi.BPF_OBJ_GET_INFO_BY_FD, wanted)
    return int(info["type"][0]) == abi.BPF_LINK_TYPE_XDP and int(info["ifindex"][0]) == ifindex
