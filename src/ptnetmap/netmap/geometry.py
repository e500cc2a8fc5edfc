# SPDX-License-Identifier: BSD-2-Clause
"""Shapes of netmap regions: how large the three pools are, and where they lie.

A region is three pools laid end to end: ``netmap_if`` objects, rings, packet buffers. Everything here is arithmetic;
nothing is allocated. The rules and numbers are those of upstream's allocator, so that a region has the size that
tools, logs and guests know: 334,980 KB for the global one, 42,369,024 bytes for a VALE port with default rings.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple, TypedDict, Unpack

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import MemoryPoolError

PAGE = 4096
"""Bytes of a page, upstream's unit for clusters and regions."""

OBJECT_ALIGN = 64
"""Object sizes are rounded up to a cache line."""

MAX_CLUSTER = 4 << 20
"""Most bytes of a cluster. An object size that fills no whole number of pages within it cannot be used."""

RESERVED_BUFFERS = 2
"""Buffers 0 and 1 belong to nobody: a slot with index 0 has no buffer."""

NIC_SHIFT = 256
"""Bytes between a page boundary and the buffer pool in a NIC's region: the kernel's XDP headroom."""


class PoolOverrides(TypedDict, total=False):
    """Sizes in bytes and counts of a region's objects, named as in ``@extmem`` and netmap's module parameters.

    0 stands for the default, as if not given.
    """

    if_size: int
    if_num: int
    ring_size: int
    ring_num: int
    buf_size: int
    buf_num: int


class _Limits(NamedTuple):
    """What a pool may look like, bounds included; sizes after rounding, counts before."""

    min_size: int
    max_size: int
    min_num: int
    max_num: int


_RING_LIMITS = _Limits(abi.ring.itemsize, 32 * PAGE, 2, 1024)
_BUF_LIMITS = _Limits(64, 65536, 4, 1_000_000)
_GLOBAL_LIMITS = {
    "if": _Limits(abi.netmap_if.itemsize, 4096, 10, 10_000),
    "ring": _RING_LIMITS,
    "buf": _BUF_LIMITS,
}
_PRIVATE_LIMITS = {**_GLOBAL_LIMITS, "if": _Limits(abi.netmap_if.itemsize, 4096, 1, 100)}

_MADE_OF = {"if": "pipes", "ring": "rings or pipes", "buf": "slots, rings, pipes or extra buffers"}

_GLOBAL_DEFAULTS = PoolOverrides(
    if_size=1024, if_num=100, ring_size=9 * PAGE, ring_num=200, buf_size=2048, buf_num=163_840
)
_PRIVATE_MINIMUMS = PoolOverrides(if_size=1024, if_num=2, ring_size=5 * PAGE, ring_num=4, buf_size=2048, buf_num=4098)


def round_up(value: int, unit: int) -> int:
    """Return the smallest multiple of ``unit`` that is not below ``value``."""
    return -(-value // unit) * unit


def cluster_objects(objsize: int) -> int:
    """Return how many objects of ``objsize`` bytes make a cluster: the fewest that fill whole pages."""
    return PAGE // gcd(PAGE, objsize)


@dataclass(frozen=True)
class Pool:
    """One pool: ``objtotal`` objects of ``objsize`` bytes each, in whole clusters, and so in whole pages.

    ``name`` is "if", "ring" or "buf". Raises MemoryPoolError (EINVAL) for a size or count that is not rounded;
    :func:`make_pool` rounds.
    """

    name: str
    objsize: int
    objtotal: int

    def __post_init__(self) -> None:
        """Refuse what would let the next pool begin inside a page."""
        if self.objsize <= 0 or self.objsize % OBJECT_ALIGN or self.objtotal < 0 or self.objtotal % self.cluster:
            raise _refusal(
                self.name,
                f"asked for {self.objtotal:,} objects of {self.objsize:,} bytes",
                f"sizes are multiples of {OBJECT_ALIGN}, and objects come in clusters that fill pages",
                "let make_pool() round them up",
            )

    @property
    def cluster(self) -> int:
        """Objects in a cluster."""
        return cluster_objects(self.objsize)

    @property
    def size(self) -> int:
        """Bytes of the pool, a multiple of the page size."""
        return self.objsize * self.objtotal


@dataclass(frozen=True)
class Geometry:
    """A region's pools and their places; offsets are bytes from the region's beginning.

    ``shift`` is 0, which is upstream's layout, for all but NICs' regions. A NIC's region is also the UMEM of an
    AF_XDP socket, which must begin on a page and is cut into chunks of a buffer's size; the kernel puts a received
    frame 256 bytes (the XDP headroom) into its chunk. With ``shift`` = 256 the buffer pool begins 256 bytes past a
    page and the UMEM on that page: chunk i begins 256 bytes before buffer i, so frames begin exactly where netmap
    wants them, and slots can be handed on without a copy. A chunk ends 256 bytes before its buffer does; the headroom
    of chunk i is the tail of buffer i - 1. ::

        page                          +256                                              total (page)
        | headroom of chunk 0         | buffer 0              | buffer 1     ...        |  unused |
        | chunk 0                               | chunk 1                    ... |

    The last buffer ends 256 bytes past a page, so the region is one page longer than its pools.
    """

    if_pool: Pool
    ring_pool: Pool
    buf_pool: Pool
    shift: int = 0

    @property
    def if_offset(self) -> int:
        """Where the ``netmap_if`` objects begin: 0."""
        return 0

    @property
    def ring_offset(self) -> int:
        """Where the rings begin."""
        return self.if_pool.size

    @property
    def umem_offset(self) -> int:
        """The page at or before buffer 0: where a UMEM of ``buf_pool.size`` bytes begins."""
        return self.ring_offset + self.ring_pool.size

    @property
    def buf_offset(self) -> int:
        """Where buffer 0 begins; a ring's ``buf_ofs`` is this minus the ring's own offset."""
        return self.umem_offset + self.shift

    @property
    def room(self) -> int:
        """Bytes of a packet that a buffer is good for: in a NIC's region, up to the end of its chunk."""
        return self.buf_pool.objsize - self.shift

    @property
    def total(self) -> int:
        """Bytes of the region, a multiple of the page size."""
        return round_up(self.buf_offset + self.buf_pool.size, PAGE)

    def require_ring(self, slots: int) -> None:
        """Raise MemoryPoolError (ENOMEM) unless a ring of ``slots`` slots fits in an object of the ring pool."""
        needed, objsize = abi.ring_size(slots), self.ring_pool.objsize
        if needed > objsize:
            raise _refusal(
                "ring",
                f"asked for rings of {slots:,} slots = {needed:,} bytes each",
                f"pool objects are {objsize:,} bytes",
                f"use fewer slots (up to {_slots_in(objsize):,}), or set ring_size to {needed:,} or more",
                errno.ENOMEM,
            )


def make_pool(name: str, objsize: int, objtotal: int, private: bool = True) -> Pool:
    """Return a pool of at least ``objtotal`` objects of at least ``objsize`` bytes, rounded up as upstream does.

    ``name`` is "if", "ring" or "buf"; ``private`` chooses upstream's limits for private regions or for the global
    one. Raises MemoryPoolError (EINVAL) outside of these limits, or for a size that needs clusters above 4 MB.
    """
    limits = (_PRIVATE_LIMITS if private else _GLOBAL_LIMITS)[name]
    rounded = round_up(objsize, OBJECT_ALIGN)
    if not limits.min_size <= rounded <= limits.max_size:
        advice = f"set {name}_size within the limits"
        if name == "ring" and rounded > limits.max_size:
            advice = f"use rings of at most {_slots_in(limits.max_size):,} slots, and ring_size within the limits"
        found = f"limits are {limits.min_size:,} to {limits.max_size:,}"
        raise _refusal(name, f"asked for objects of {objsize:,} bytes", found, advice)
    if not limits.min_num <= objtotal <= limits.max_num:
        advice = f"use fewer {_MADE_OF[name]}, or {name}_num within the limits"
        if objtotal < limits.min_num:
            advice = f"set {name}_num to {limits.min_num:,} or more"
        found = f"limits are {limits.min_num:,} to {limits.max_num:,}"
        raise _refusal(name, f"asked for {objtotal:,} objects", found, advice)
    cluster = cluster_objects(rounded)
    if cluster * rounded > MAX_CLUSTER:
        # Only rings can be so large. Every other multiple of a line is a multiple of two, and needs half the cluster.
        better = rounded + OBJECT_ALIGN
        raise _refusal(
            name,
            f"asked for objects of {rounded:,} bytes",
            f"{cluster} of them fill whole pages, {cluster * rounded:,} bytes, but the limit is {MAX_CLUSTER:,}",
            f"use rings of {_slots_in(better):,} slots, or set {name}_size to {better:,}",
        )
    return Pool(name, rounded, round_up(objtotal, cluster))


def global_geometry(**overrides: Unpack[PoolOverrides]) -> Geometry:
    """Return the shape of the region that upstream's NICs share: 334,980 KB unless overridden.

    Raises MemoryPoolError (EINVAL) for overrides outside of upstream's limits.
    """
    return _geometry(_overridden(_GLOBAL_DEFAULTS, overrides), private=False)


def private_geometry(
    tx_rings: int,
    rx_rings: int,
    tx_slots: int,
    rx_slots: int,
    pipes: int = 2,
    extra_bufs: int = 0,
    **overrides: Unpack[PoolOverrides],
) -> Geometry:
    """Return the shape of a region for one port and its pipes: a VALE port, a monitor, memory for guests.

    ``tx_rings`` and ``rx_rings`` are the port's real rings; a host ring in each direction is added here. ``pipes`` is
    how many pipes to leave room for (upstream: 2 for VALE ports, 0 for monitors). ``overrides`` replace upstream's
    minimums, as its ``priv_`` module parameters do; what the rings need is never undercut.
    Raises MemoryPoolError (EINVAL) outside of upstream's limits, TypeError for an unknown override.
    """
    sizes = _private_sizes(tx_rings, rx_rings, tx_slots, rx_slots, pipes, extra_bufs, overrides)
    return _geometry(sizes, private=True)


def nic_geometry(
    tx_rings: int,
    rx_rings: int,
    tx_slots: int,
    rx_slots: int,
    pipes: int = 2,
    extra_bufs: int = 0,
    **overrides: Unpack[PoolOverrides],
) -> Geometry:
    """Return the shape of a NIC's own region: :func:`private_geometry`, shifted to serve as an AF_XDP UMEM.

    Buffers are 2048 or 4096 bytes, the chunk sizes that AF_XDP takes, of which frames may fill all but 256.
    Raises MemoryPoolError (EINVAL) as :func:`private_geometry`, and for other buffer sizes.
    """
    sizes = _private_sizes(tx_rings, rx_rings, tx_slots, rx_slots, pipes, extra_bufs, overrides)
    if sizes["buf_size"] not in (2048, PAGE):
        raise _refusal(
            "buf",
            f"asked for buffers of {sizes['buf_size']:,} bytes in a NIC's region",
            f"AF_XDP takes chunks of 2,048 or {PAGE:,}",
            "set buf_size to one of these",
        )
    return _geometry(sizes, private=True, shift=NIC_SHIFT)


def _private_sizes(
    tx_rings: int, rx_rings: int, tx_slots: int, rx_slots: int, pipes: int, extra_bufs: int, overrides: PoolOverrides
) -> PoolOverrides:
    asked = {"tx_rings": tx_rings, "rx_rings": rx_rings, "tx_slots": tx_slots, "rx_slots": rx_slots}
    for what, value in {**asked, "pipes": pipes, "extra_bufs": extra_bufs}.items():
        if value < 0:
            message = f"netmap: cannot size a region: asked for {what} = {value}, and the limit is 0\n        "
            raise MemoryPoolError(f"{message}give 0 or more", errno.EINVAL)
    tx, rx = tx_rings + 1, rx_rings + 1
    sizes = _overridden(_PRIVATE_MINIMUMS, overrides)
    sizes["if_size"] = max(sizes["if_size"], abi.netmap_if_size(tx + rx))
    # A pipe has two ends, and upstream leaves room for twice that.
    sizes["if_num"] = max(sizes["if_num"], 2 + 4 * pipes)
    sizes["ring_size"] = max(sizes["ring_size"], abi.ring_size(max(tx_slots, rx_slots)))
    # Each end of a pipe takes four rings: one and a host ring, in each direction.
    sizes["ring_num"] = max(sizes["ring_num"], tx + rx + 8 * pipes)
    # A pipe's four real rings may have other sizes than the parent's: twice what they need if equal.
    needed = (4 * pipes + rx) * rx_slots + (4 * pipes + tx) * tx_slots + RESERVED_BUFFERS + extra_bufs
    sizes["buf_num"] = max(sizes["buf_num"], needed)
    return sizes


def _overridden(defaults: PoolOverrides, overrides: PoolOverrides) -> PoolOverrides:
    unknown = sorted(overrides.keys() - defaults.keys())
    if unknown:
        raise TypeError(f"unknown override {unknown[0]!r}: use some of {', '.join(defaults)}")
    sizes = defaults.copy()
    sizes.update({key: value for key, value in overrides.items() if value})  # type: ignore[typeddict-item]
    return sizes


def _geometry(sizes: PoolOverrides, private: bool, shift: int = 0) -> Geometry:
    return Geometry(
        make_pool("if", sizes["if_size"], sizes["if_num"], private),
        make_pool("ring", sizes["ring_size"], sizes["ring_num"], private),
        make_pool("buf", sizes["buf_size"], sizes["buf_num"], private),
        shift,
    )


def _slots_in(objsize: int) -> int:
    """Return how many slots a ring of ``objsize`` bytes can have."""
    return (objsize - abi.ring.itemsize) // abi.slot.itemsize


def _refusal(pool: str, asked: str, found: str, advice: str, number: int = errno.EINVAL) -> MemoryPoolError:
    return MemoryPoolError(f"netmap: cannot size the {pool} pool: {asked}, and {found}\n        {advice}", number)
