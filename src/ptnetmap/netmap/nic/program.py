# SPDX-License-Identifier: BSD-2-Clause
"""The BPF programs of a port: a few instructions each, put together by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import bpf
from ptnetmap.abi.xdp import XDP_PASS, xdp_md
from ptnetmap.jit.block import offsets

_RX_QUEUE = offsets(xdp_md)["rx_queue_index"]


def redirect_program(map_fd: int) -> npt.NDArray[np.void]:
    """Return the instructions of ``return bpf_redirect_map(map, ctx->rx_queue_index, XDP_PASS)``.

    A frame of a queue without a socket in the map goes on to the host's stack. The map's descriptor is a constant of
    the program; loading it takes two of the places.
    """
    instructions = np.zeros(6, bpf.bpf_insn)
    instructions[:] = [
        (bpf.BPF_LDX_MEM_W, _registers(2, 1), _RX_QUEUE, 0),
        (bpf.BPF_LD_IMM64, _registers(1, bpf.BPF_PSEUDO_MAP_FD), 0, map_fd),
        (0, 0, 0, 0),
        (bpf.BPF_MOV64_IMM, _registers(3, 0), 0, XDP_PASS),
        (bpf.BPF_CALL, 0, 0, bpf.BPF_FUNC_redirect_map),
        (bpf.BPF_EXIT, 0, 0, 0),
    ]
    return instructions


def forward_program(ifindex: int, flags: int) -> npt.NDArray[np.void]:
    """Return the instructions of ``return bpf_redirect(ifindex, flags)``, for traffic control."""
    instructions = np.zeros(4, bpf.bpf_insn)
    instructions[:] = [
        (bpf.BPF_MOV64_IMM, _registers(1, 0), 0, ifindex),
        (bpf.BPF_MOV64_IMM, _registers(2, 0), 0, flags),
        (bpf.BPF_CALL, 0, 0, bpf.BPF_FUNC_redirect),
        (bpf.BPF_EXIT, 0, 0, 0),
    ]
    return instructions


def _registers(destination: int, source: int) -> int:
    return destination | source << 4
