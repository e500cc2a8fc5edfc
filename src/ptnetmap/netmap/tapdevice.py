# SPDX-License-Identifier: BSD-2-Clause
"""Tap devices: opened by name, made if they are not there and that is allowed, and brought up."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

import numpy as np

from ptnetmap.abi import ethtool
from ptnetmap.abi.virtio import virtio_net_hdr_mrg_rxbuf
from ptnetmap.errors import PortError

_TUN = "/dev/net/tun"
_IFREQ = struct.Struct("16sH22x")
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_TSO_ECN = 1, 2, 4, 8
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1
_LONGEST = 15


def is_tap(name: str) -> bool:
    """Whether an interface is a tap device, or could be made one: its name begins so, and there is none."""
    try:
        socket.if_nametoindex(name)
    except (OSError, ValueError):
        return name.startswith("tap")
    info = np.zeros(1, ethtool.ethtool_drvinfo)
    info["cmd"] = ethtool.ETHTOOL_GDRVINFO
    request = np.zeros(1, ethtool.ifreq)
    request["ifr_name"], request["ifr_data"] = name.encode(), info.ctypes.data
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, ethtool.SIOCETHTOOL, bytearray(request.tobytes()))
        except OSError:
            return False
    return bool(info["driver"][0] == b"tun" and info["bus_info"][0] == b"tap")


def open_tap(name: str) -> int:
    """Return a descriptor of the tap device ``name``, whose packets have virtio-net headers of 12 bytes, and bring it up.

    Raises PortError, with what to do: it cannot be made, is somebody else's, or is in use.
    """
    if not 0 < len(name.encode()) <= _LONGEST or "/" in name:
        raise PortError(errno.EINVAL, f"{name!r} is no name of a tap device\n        use up to {_LONGEST} bytes")
    try:
        fd = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refusal(name, error, f"cannot open {_TUN}") from None
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", virtio_net_hdr_mrg_rxbuf.itemsize))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 | _TUN_F_TSO_ECN)
        _bring_up(name)
    except OSError as error:
        os.close(fd)
        raise _refusal(name, error, "cannot have it") from None
    return fd


def _bring_up(name: str) -> None:
    """Bring the interface up; one that is up stays so, whoever may change it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(name.encode(), 0))
        flags = _IFREQ.unpack(request)[1]
        if not flags & _IFF_UP:
            fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(name.encode(), flags | _IFF_UP))


def _refusal(name: str, error: OSError, what: str) -> PortError:
    advice = {
        errno.EPERM: f"make it for this user: ip tuntap add {name} mode tap user $USER, and ip link set {name} up",
        errno.EBUSY: "it is in use; choose another name",
        errno.EINVAL: "it is no tap device, or one of several queues; choose another name",
        errno.ENOENT: "load the kernel's tun module",
    }.get(error.errno or 0, "see what the system says")
    return PortError(error.errno or errno.EIO, f"{name}: {what}: {error.strerror}\n        {advice}")
