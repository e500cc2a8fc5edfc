# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Memory for drivers: taken from the start of what is left, and never given back."""

from __future__ import annotations

from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.routine import routine
from ptnetmap.jit.memory import fill_bytes, load64, store64

_HEAP = offsets(boot_info)["heap"]
_HEAP_END = offsets(boot_info)["heap_end"]


@routine
def allocate(boot, size, alignment):
    """Return the address of ``size`` zeroed bytes of low memory, 0 if there are none; ``alignment`` is a power of two."""
    start = (load64(boot + _HEAP) + alignment - 1) & -alignment
    if size < 0 or size > load64(boot + _HEAP_END) - start:
        return 0
    store64(boot + _HEAP, start + size)
    fill_bytes(start, 0, size)
    return start
