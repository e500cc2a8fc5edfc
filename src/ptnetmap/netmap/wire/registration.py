# SPDX-License-Identifier: BSD-2-Clause
"""REGISTER requests and port names: one table for both ways.

A client turns a parsed name into a request with :func:`register_request`; netmapd turns it into what its directory
takes with :func:`registration`. What the name says of ``@share`` and ``@extmem`` only the client can resolve.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import NamedTuple

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.name_options import Conf, ExtMem
from ptnetmap.netmap.names import PortName
from ptnetmap.netmap.wire.codec import Body, Values
from ptnetmap.netmap.wire.error import refused
from ptnetmap.netmap.wire.option import FilePlace
from ptnetmap.netmap.wire.request import Request
from ptnetmap.netmap.wire.rules import check_mode, check_name

_COUNTS = tuple(f.name for f in fields(Conf))
_POOL_COUNTS = {f"{pool}_num": f"nr_{pool}_pool_objtotal" for pool in ("if", "ring", "buf")}
_POOL_SIZES = {f"{pool}_size": f"nr_{pool}_pool_objsize" for pool in ("if", "ring", "buf")}


class Registration(NamedTuple):
    """What a REGISTER request asks for, as the runtime's directory takes it: the name, shape, NR_* flags, buffers."""

    port: PortName
    conf: Conf
    flags: int
    extra_bufs: int


def counts(conf: Conf) -> Body:
    """Return the numbers of rings and slots as fields of a body: of REGISTER, PORT_INFO_GET, ..."""
    return {f"nr_{name}": getattr(conf, name) for name in _COUNTS}


def conf_of(body: Values) -> Conf:
    """Return the numbers of rings and slots in a body; those that this body has no field for are 0."""
    return Conf(**{name: body.get(f"nr_{name}", 0) for name in _COUNTS})


def register_request(
    port: PortName,
    *,
    conf: Conf | None = None,
    flags: int = 0,
    extra_bufs: int = 0,
    shared_mem_id: int = 0,
    extmem_place: FilePlace | None = None,
    extmem_size: int = 0,
) -> Request:
    """Return the request that binds a port.

    ``conf`` has numbers of rings and slots that override the name's, where they are not 0; ``flags`` are more NR_* bits.
    For a name with ``@share``, ``shared_mem_id`` is the memory id of that port; for one with ``@extmem``,
    ``extmem_place`` is where its file is among those sent, and ``extmem_size`` the bytes of it.
    Raises WireError (EINVAL) if one of those is missing, for a mode or name that cannot be, or counts that do not fit.
    """
    if port.share is not None and not shared_mem_id:
        raise refused(f"{port} needs the memory id of {port.share}", "ask for it with PORT_INFO_GET first")
    if port.mem_id and shared_mem_id not in (0, port.mem_id):
        raise refused(f"{port} has two memories, {port.mem_id} and {shared_mem_id}", "leave out one")
    asked = Conf() if conf is None else conf
    merged = Conf(**{name: getattr(asked, name) or getattr(port.conf, name) for name in _COUNTS})
    mem_id = port.mem_id or shared_mem_id
    check_mode(port.name, port.mode, mem_id)
    options: dict[int, Body] = {}
    if port.extmem is not None:
        if extmem_place is None:
            raise refused(f"{port} needs its file", "send the file's descriptor, and say which one it is")
        options[abi.NETMAP_REQ_OPT_EXTMEM] = _extmem_option(port.extmem, extmem_place, extmem_size)
    if port.offset is not None:
        initial, bits = port.offset
        options[abi.NETMAP_REQ_OPT_OFFSETS] = {
            "nro_initial_offset": initial,
            "nro_max_offset": initial,  # as libnetmap asks for a name's offset
            "nro_offset_bits": bits,
        }
    body = {
        **counts(merged),
        "nr_mode": port.mode,
        "nr_ringid": port.ringid,
        "nr_flags": port.flags | flags,
        "nr_mem_id": mem_id,
        "nr_extra_bufs": extra_bufs,
    }
    return Request(abi.NETMAP_REQ_REGISTER, port.name, body, options)


def registration(request: Request) -> Registration:
    """Return what a REGISTER request asks for; the inverse of :func:`register_request`.

    The port's ``mem_id`` is that of ``@share`` too; ``extmem`` is left to who takes the option. Raises WireError
    (EINVAL) for a mode that cannot be, and for a name that the grammar of port names does not have.
    """
    body = request.body or {}
    if request.reqtype != abi.NETMAP_REQ_REGISTER:
        raise refused(f"request type {request.reqtype} registers nothing", "send REGISTER")
    check_mode(request.name, body["nr_mode"], body["nr_mem_id"])
    if body["nr_mode"] != abi.NR_REG_NULL:
        check_name(request.name)
    flags, conf = body["nr_flags"], conf_of(body)
    port = PortName(request.name, body["nr_mode"], body["nr_ringid"], flags, body["nr_mem_id"], conf=conf)
    if offsets := request.options.get(abi.NETMAP_REQ_OPT_OFFSETS):
        port = replace(port, offset=(offsets["nro_initial_offset"], offsets["nro_offset_bits"]))
    return Registration(port, conf, flags, body["nr_extra_bufs"])


def _extmem_option(extmem: ExtMem, place: FilePlace, size: int) -> Body:
    pools = {field: getattr(extmem, name) for name, field in (_POOL_COUNTS | _POOL_SIZES).items()}
    return {"nro_usrptr": int(place), "nro_info": {"nr_memsize": size, **pools}}
