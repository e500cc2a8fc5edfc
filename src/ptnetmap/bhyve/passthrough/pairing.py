# SPDX-License-Identifier: BSD-2-Clause
"""Which memdev shows which memory: by memory id, whatever the order of devices on the command line (netmap-abi 5a.8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

Memdev = TypeVar("Memdev")
Port = TypeVar("Port")


def pair(memdevs: Sequence[Memdev], ports: Iterable[tuple[int, Port]]) -> dict[Memdev, Port]:
    """Return the port whose memory each memdev shows; a memdev without one is left out.

    ``ports`` are memory ids and ports. The first memdev takes the memory of the first port, the second one the next
    memory: ports of one allocator share a memdev. Both are in the order of their places on the PCI bus.
    """
    by_memory: dict[int, Port] = {}
    for mem_id, port in ports:
        by_memory.setdefault(mem_id, port)
    return dict(zip(memdevs, by_memory.values(), strict=False))
