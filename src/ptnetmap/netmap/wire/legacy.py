# SPDX-License-Identifier: BSD-2-Clause
"""Legacy requests, ``nmreq`` of NIOCREGIF and NIOCGINFO, as the requests that they have become, and back.

=============== ==================== ================================= =========================================
nr_cmd          request              in                                out
=============== ==================== ================================= =========================================
0 (REGIF)       REGISTER             arg2 memory, arg3 extra buffers   offset, memsize, counts, arg2, arg3
0 (GINFO)       PORT_INFO_GET        arg2 memory                       memsize, counts, arg2
BDG_ATTACH      VALE_ATTACH          arg1 & BDG_HOST: NIC_SW           as REGISTER
BDG_DETACH      VALE_DETACH
BDG_LIST        VALE_LIST (GINFO)    arg1 switch, arg2 port            name, arg1, arg2
BDG_VNET_HDR    PORT_HDR_SET         arg1 length                       arg1
VNET_HDR_GET    PORT_HDR_GET                                           arg1
BDG_NEWIF       VALE_NEWIF           counts, arg2 memory               counts, arg2
BDG_DELIF       VALE_DELIF
BDG_POLLING_ON  VALE_POLLING_ENABLE  mode in flags, ringid first CPU,
BDG_POLLING_OFF VALE_POLLING_DISABLE arg1 number of CPUs
=============== ==================== ================================= =========================================

``nr_version`` says which netmap the program was made for. Up to 13 that is the report's: the answer has version 11,
always, and today's modes do not exist. Today's kernel module refuses those; here both are served, as the ``api`` of the
descriptor, which decides about ring offsets too. Below 11 the structure was another one: EINVAL.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire.codec import Body, Fixed
from ptnetmap.netmap.wire.error import refused
from ptnetmap.netmap.wire.request import Request, decode_answer

_LAYOUT = Fixed(abi.nmreq, without=("nr_name",))
_COUNTS = ("nr_tx_slots", "nr_rx_slots", "nr_tx_rings", "nr_rx_rings")
_PIPE_BRACES = {abi.NR_REG_PIPE_MASTER: "{", abi.NR_REG_PIPE_SLAVE: "}"}
_REGISTER_CMDS = {
    0: abi.NETMAP_REQ_REGISTER,
    abi.NETMAP_BDG_ATTACH: abi.NETMAP_REQ_VALE_ATTACH,
    abi.NETMAP_BDG_DETACH: abi.NETMAP_REQ_VALE_DETACH,
    abi.NETMAP_BDG_VNET_HDR: abi.NETMAP_REQ_PORT_HDR_SET,
    abi.NETMAP_BDG_NEWIF: abi.NETMAP_REQ_VALE_NEWIF,
    abi.NETMAP_BDG_DELIF: abi.NETMAP_REQ_VALE_DELIF,
}
_CURRENT_CMDS = {
    abi.NETMAP_BDG_POLLING_ON: abi.NETMAP_REQ_VALE_POLLING_ENABLE,
    abi.NETMAP_BDG_POLLING_OFF: abi.NETMAP_REQ_VALE_POLLING_DISABLE,
    abi.NETMAP_VNET_HDR_GET: abi.NETMAP_REQ_PORT_HDR_GET,
}


def api_of(argument: bytes) -> int:
    """Return whose rules an ``nmreq`` follows: ``NETMAP_API_2015`` or ``NETMAP_API``. Raises WireError (EINVAL)."""
    return _api(_unpack(argument)["nr_version"])


def decode(ioctl: int, argument: bytes) -> Request:
    """Return the request that an ``nmreq`` means, for NIOCREGIF or NIOCGINFO.

    Raises WireError (EINVAL) for a version below 11, an unknown command or mode, or a name without end.
    """
    if ioctl not in (abi.NIOCREGIF, abi.NIOCGINFO):
        raise refused(f"ioctl {ioctl:#x} has no nmreq", "use NIOCREGIF or NIOCGINFO")
    nmr = _unpack(argument)
    name = _name(argument)
    reqtype = _reqtype(ioctl, nmr["nr_cmd"], _api(nmr["nr_version"]))
    if reqtype in (abi.NETMAP_REQ_REGISTER, abi.NETMAP_REQ_VALE_ATTACH):
        name, body = _register(name, nmr)
        if reqtype == abi.NETMAP_REQ_VALE_ATTACH:
            host = nmr["nr_arg1"] & abi.NETMAP_BDG_HOST
            body = {"reg": {**body, "nr_mode": abi.NR_REG_NIC_SW if host else abi.NR_REG_ALL_NIC}}
        return Request(reqtype, name, body)
    return Request(reqtype, name, _plain_body(reqtype, nmr))


def answer(argument: bytes, request: Request, answered: bytes, error: int = 0) -> bytes:
    """Return the ``nmreq`` as the ioctl leaves it.

    ``request`` is what :func:`decode` made of it, and ``answered`` what
    :func:`ptnetmap.netmap.wire.request.answer` made of that; its fields are written back only if ``error`` is 0.
    Numbers too big for the field are cut, as upstream.
    """
    nmr = _unpack(argument)
    name = argument[: abi.IFNAMSIZ]
    result = decode_answer(request, answered)
    body = result.body or {}
    reqtype = request.reqtype
    changes: Body = {}
    if error:
        pass
    elif reqtype in (abi.NETMAP_REQ_REGISTER, abi.NETMAP_REQ_VALE_ATTACH):
        reg = body["reg"] if reqtype == abi.NETMAP_REQ_VALE_ATTACH else body
        changes = {key: reg[key] for key in ("nr_offset", "nr_memsize", *_COUNTS)}
        changes |= {"nr_arg2": reg["nr_mem_id"], "nr_arg3": reg["nr_extra_bufs"]}
    elif reqtype == abi.NETMAP_REQ_PORT_INFO_GET:
        changes = {key: body[key] for key in ("nr_memsize", *_COUNTS)} | {"nr_arg2": body["nr_mem_id"]}
    elif reqtype == abi.NETMAP_REQ_VALE_NEWIF:
        changes = {key: body[key] for key in _COUNTS} | {"nr_arg2": body["nr_mem_id"]}
    elif reqtype == abi.NETMAP_REQ_VALE_LIST:
        name = result.name.encode()[: abi.IFNAMSIZ - 1].ljust(abi.IFNAMSIZ, b"\0")
        changes = {"nr_arg1": body["nr_bridge_idx"], "nr_arg2": body["nr_port_idx"]}
    elif reqtype in (abi.NETMAP_REQ_PORT_HDR_SET, abi.NETMAP_REQ_PORT_HDR_GET):
        changes = {"nr_arg1": body["nr_hdr_len"]}
    if _api(nmr["nr_version"]) == abi.NETMAP_API_2015:
        changes["nr_version"] = abi.NETMAP_API_2015
    cut = {key: value & _mask(key) for key, value in changes.items()}
    buffer = bytearray(argument)
    buffer[: abi.IFNAMSIZ] = name
    _LAYOUT.pack_into(buffer, 0, nmr | cut)
    return bytes(buffer)


def _mask(field: str) -> int:
    kind: np.dtype[Any] = abi.nmreq[field]
    return (1 << 8 * kind.itemsize) - 1


def _unpack(argument: bytes) -> Body:
    if len(argument) != abi.nmreq.itemsize:
        raise refused(f"nmreq has {len(argument)} bytes", f"send {abi.nmreq.itemsize}")
    return _LAYOUT.unpack(argument, 0)


def _api(version: int) -> int:
    if version < abi.NETMAP_API_2015:
        raise refused(f"nr_version is {version}", f"recompile the program: {abi.NETMAP_API_2015} is the oldest served")
    return abi.NETMAP_API_2015 if version < abi.NETMAP_MIN_API else abi.NETMAP_API


def _name(argument: bytes) -> str:
    text, nul, _ = argument[: abi.IFNAMSIZ].partition(b"\0")
    if not nul:
        raise refused("nr_name has no end", f"use at most {abi.IFNAMSIZ - 1} bytes")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise refused(f"nr_name is not UTF-8: {error.reason}", "use ASCII") from None


def _reqtype(ioctl: int, cmd: int, api: int) -> int:
    if ioctl == abi.NIOCGINFO:
        return abi.NETMAP_REQ_VALE_LIST if cmd == abi.NETMAP_BDG_LIST else abi.NETMAP_REQ_PORT_INFO_GET
    known = _REGISTER_CMDS if api == abi.NETMAP_API_2015 else _REGISTER_CMDS | _CURRENT_CMDS
    if cmd not in known:
        guests = cmd in (abi.NETMAP_PT_HOST_CREATE, abi.NETMAP_PT_HOST_DELETE)
        advice = "guests are served by SYNC_KLOOP_START" if guests else "use a command of netmap_legacy.h"
        raise refused(f"nr_cmd is {cmd}", advice)
    return known[cmd]


def _register(name: str, nmr: Body) -> tuple[str, Body]:
    ringid = nmr["nr_ringid"]
    mode = nmr["nr_flags"] & abi.NR_REG_MASK
    if mode > abi.NR_REG_PIPE_SLAVE and _api(nmr["nr_version"]) == abi.NETMAP_API_2015:
        raise refused(f"mode {mode} in nr_flags, of API {nmr['nr_version']}", f"use {abi.NR_REG_PIPE_SLAVE} or less")
    if mode == abi.NR_REG_DEFAULT:
        if ringid & abi.NETMAP_SW_RING:
            mode = abi.NR_REG_SW
        else:
            mode = abi.NR_REG_ONE_NIC if ringid & abi.NETMAP_HW_RING else abi.NR_REG_ALL_NIC
    number = ringid & abi.NETMAP_RING_MASK
    if mode in _PIPE_BRACES:
        name, mode, number = f"{name}{_PIPE_BRACES[mode]}{number}", abi.NR_REG_ALL_NIC, 0
    flags = nmr["nr_flags"] & ~abi.NR_REG_MASK
    flags |= abi.NR_NO_TX_POLL if ringid & abi.NETMAP_NO_TX_POLL else 0
    flags |= abi.NR_DO_RX_POLL if ringid & abi.NETMAP_DO_RX_POLL else 0
    body = {key: nmr[key] for key in ("nr_offset", "nr_memsize", *_COUNTS)}
    body |= {"nr_mode": mode, "nr_ringid": number, "nr_flags": flags}
    return name, body | {"nr_mem_id": nmr["nr_arg2"], "nr_extra_bufs": nmr["nr_arg3"]}


def _plain_body(reqtype: int, nmr: Body) -> Body | None:
    counted = {key: nmr[key] for key in _COUNTS} | {"nr_mem_id": nmr["nr_arg2"]}
    if reqtype == abi.NETMAP_REQ_PORT_INFO_GET:
        return {"nr_memsize": nmr["nr_memsize"], **counted}
    if reqtype == abi.NETMAP_REQ_VALE_NEWIF:
        return counted
    if reqtype == abi.NETMAP_REQ_VALE_LIST:
        return {"nr_bridge_idx": nmr["nr_arg1"], "nr_port_idx": nmr["nr_arg2"]}
    if reqtype == abi.NETMAP_REQ_PORT_HDR_SET:
        return {"nr_hdr_len": nmr["nr_arg1"]}
    if reqtype in (abi.NETMAP_REQ_VALE_POLLING_ENABLE, abi.NETMAP_REQ_VALE_POLLING_DISABLE):
        modes = {
            abi.NR_REG_ALL_NIC: abi.NETMAP_POLLING_MODE_SINGLE_CPU,
            abi.NR_REG_ONE_NIC: abi.NETMAP_POLLING_MODE_MULTI_CPU,
        }
        return {
            "nr_mode": modes.get(nmr["nr_flags"] & abi.NR_REG_MASK, 0),
            "nr_first_cpu_id": nmr["nr_ringid"] & abi.NETMAP_RING_MASK,
            "nr_num_polling_cpus": nmr["nr_arg1"],
        }
    return None
