# SPDX-License-Identifier: BSD-2-Clause
"""What can be refused in a request without looking at any port: upstream's EINVALs for values that are never right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import NameSyntaxError
from ptnetmap.netmap import names
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.codec import Body
from ptnetmap.netmap.wire.error import refused
from ptnetmap.netmap.wire.request import Request

HEADER_LENGTHS = (0, 10, 12)
"""Lengths that a virtio-net header may have, 0 for none."""

MAX_QUEUE_PAIRS = 16
"""Pairs of queues of a virtio-net device: as many as a port has rings."""
MAX_QUEUE = 32768
"""Entries of a virtqueue."""
MIN_MTU = 68
MAX_MTU = 65521
"""MTUs that a virtio-net device may have."""

MAX_KLOOP_SLEEP = 1_000_000
"""Microseconds that a sync loop may sleep between two rounds."""

_MODES = (abi.NR_REG_ALL_NIC, abi.NR_REG_SW, abi.NR_REG_NIC_SW, abi.NR_REG_ONE_NIC, abi.NR_REG_NULL, abi.NR_REG_ONE_SW)


def check(request: Request) -> None:
    """Raise WireError (EINVAL) for a request that no netmap could grant, whatever ports there are."""
    rule = _RULES.get(request.reqtype)
    if rule is not None:
        rule(request, request.body or {})


def check_mode(name: str, mode: int, mem_id: int) -> None:
    """Raise WireError (EINVAL) for a mode that a REGISTER cannot have, or not for this name."""
    if mode not in _MODES:
        advice = f"name the pipe: {name}{{ID or {name}}}ID" if mode in (5, 6) else "use another NR_REG_*"
        raise refused(f"nr_mode is {mode}", advice)
    if mode == abi.NR_REG_NULL and not mem_id:
        raise refused("a port without traffic, of no memory", "give the nr_mem_id of a port")
    if names.split_pipe(name) and mode not in (abi.NR_REG_ALL_NIC, abi.NR_REG_ONE_NIC, abi.NR_REG_NULL):
        raise refused(f"nr_mode is {mode} for pipe {name}", "use NR_REG_ALL_NIC or NR_REG_ONE_NIC")


def _register(request: Request, body: Body) -> None:
    check_mode(request.name, body["nr_mode"], body["nr_mem_id"])
    if body["nr_flags"] & abi.NR_PTNETMAP_HOST and not body["nr_flags"] & abi.NR_EXCLUSIVE:
        raise refused("a port for a guest that others may bind", "register with NR_EXCLUSIVE, too")


def _info(request: Request, _: Body) -> None:
    if request.name:  # without a name it is a question about memory
        check_name(request.name)


def _attach(request: Request, body: Body) -> None:
    _switch_port(request, body)
    reg = body["reg"]
    if reg["nr_mode"] not in (abi.NR_REG_ALL_NIC, abi.NR_REG_NIC_SW) or reg["nr_ringid"]:
        raise refused(
            f"attaching {request.name} with nr_mode {reg['nr_mode']}, nr_ringid {reg['nr_ringid']}",
            "use NR_REG_ALL_NIC or NR_REG_NIC_SW, and ring 0",
        )


def _switch_port(request: Request, _: Body) -> None:
    if names.split_vale(request.name) is None:
        raise refused(f"{request.name!r} is no port of a switch", "write valeX:NAME")


def _list(request: Request, _: Body) -> None:
    if request.name and not names.is_vale(request.name):
        raise refused(f"{request.name!r} is not on a switch", "write valeX:NAME, or nothing to list all ports")


def _header(_: Request, body: Body) -> None:
    if body["nr_hdr_len"] not in HEADER_LENGTHS:
        raise refused(f"a virtio-net header of {body['nr_hdr_len']} bytes", "use 0, 10 or 12")


def _newif(request: Request, _: Body) -> None:
    name = request.name
    if names.is_vale(name) or names.split_pipe(name) or len(name.encode()) >= abi.IFNAMSIZ:
        raise refused(
            f"{name!r} as the name of a persistent port",
            f"use fewer than {abi.IFNAMSIZ} bytes that do not begin with {abi.NM_BDG_NAME}, and no pipe",
        )
    check_name(name)


def _polling(request: Request, body: Body) -> None:
    _switch_port(request, body)
    mode, cpus = body["nr_mode"], body["nr_num_polling_cpus"]
    if mode not in (abi.NETMAP_POLLING_MODE_SINGLE_CPU, abi.NETMAP_POLLING_MODE_MULTI_CPU):
        raise refused(f"polling mode {mode}", "use 1 (one CPU) or 2 (one CPU per ring)")
    if cpus == 0 or (mode == abi.NETMAP_POLLING_MODE_SINGLE_CPU and cpus != 1):
        raise refused(f"polling mode {mode} with {cpus} CPUs", "use 1 CPU in mode 1, at least 1 in mode 2")


def _kloop(_: Request, body: Body) -> None:
    if body["sleep_us"] > MAX_KLOOP_SLEEP:
        raise refused(f"a sync loop that sleeps {body['sleep_us']} us", f"use {MAX_KLOOP_SLEEP} at most")


def _csb(request: Request, _: Body) -> None:
    if abi.NETMAP_REQ_OPT_CSB not in request.options:
        raise refused("CSB_ENABLE without a CSB", "send one option that says where it is")


def _ptnetmap(request: Request, body: Body) -> None:
    if body["layout"] not in (extension.CSB_ENTRIES, extension.CSB_PAGE_2015):
        raise refused(f"a CSB of layout {body['layout']}", "use CSB_ENTRIES or CSB_PAGE_2015")
    for option, what in (
        (abi.NETMAP_REQ_OPT_CSB, "a CSB"),
        (abi.NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, "eventfds"),
    ):
        if option not in request.options:
            raise refused(f"PTNETMAP_CREATE without {what}", "send one option that says which")


def _virtio_create(request: Request, body: Body) -> None:
    if not names.split_pipe(request.name) and not body["flags"] & extension.PORT_IS_TAP:
        _switch_port(request, body)
    pairs, size, mtu = body["pairs"], body["size"], body["mtu"]
    if not 1 <= pairs <= MAX_QUEUE_PAIRS:
        raise refused(f"a device of {pairs} queue pairs", f"use 1 to {MAX_QUEUE_PAIRS}")
    if not 1 <= size <= MAX_QUEUE or size & (size - 1):
        raise refused(f"queues of {size} entries", f"use a power of two up to {MAX_QUEUE:,}")
    _mtu(mtu)


def _virtio_set(_: Request, body: Body) -> None:
    if body["pairs"] > MAX_QUEUE_PAIRS:
        raise refused(f"{body['pairs']} queue pairs", f"use up to {MAX_QUEUE_PAIRS}, or 0 to leave them")
    _mtu(body["mtu"])


def _mtu(mtu: int) -> None:
    if mtu and not MIN_MTU <= mtu <= MAX_MTU:
        raise refused(f"an MTU of {mtu}", f"use {MIN_MTU} to {MAX_MTU:,}, or 0 for the usual one")


def _virtio_memory(_: Request, body: Body) -> None:
    if not 1 <= body["count"] <= extension.MAX_MEMORY:
        raise refused(f"guest memory of {body['count']} regions", f"use 1 to {extension.MAX_MEMORY}")


def _lossless(_: Request, body: Body) -> None:
    if body["on"] not in (0, 1):
        raise refused(f"lossless is {body['on']}", "use 0 or 1")


def check_name(name: str) -> None:
    """Raise WireError (EINVAL) unless ``name`` is a kernel-level name that :func:`ptnetmap.netmap.names.parse` gives."""
    try:
        understood = names.parse(str(names.PortName(name)))
    except NameSyntaxError as error:
        raise refused(f"{name!r} is no port's name", str(error).partition(": ")[2]) from None
    if understood != names.PortName(name):
        raise refused(f"{name!r} is more than a port's name", f"use {understood.name!r}, and fields for the rest")


_RULES: Mapping[int, Callable[[Request, Body], None]] = MappingProxyType(
    {
        abi.NETMAP_REQ_REGISTER: _register,
        abi.NETMAP_REQ_PORT_INFO_GET: _info,
        abi.NETMAP_REQ_VALE_ATTACH: _attach,
        abi.NETMAP_REQ_VALE_DETACH: _switch_port,
        abi.NETMAP_REQ_VALE_LIST: _list,
        abi.NETMAP_REQ_PORT_HDR_SET: _header,
        abi.NETMAP_REQ_VALE_NEWIF: _newif,
        abi.NETMAP_REQ_VALE_POLLING_ENABLE: _polling,
        abi.NETMAP_REQ_VALE_POLLING_DISABLE: _switch_port,
        abi.NETMAP_REQ_SYNC_KLOOP_START: _kloop,
        abi.NETMAP_REQ_CSB_ENABLE: _csb,
        extension.LOSSLESS_SET: _lossless,
        extension.PTNETMAP_CREATE: _ptnetmap,
        extension.VIRTIO_CREATE: _virtio_create,
        extension.VIRTIO_MEMORY: _virtio_memory,
        extension.VIRTIO_SET: _virtio_set,
    }
)
