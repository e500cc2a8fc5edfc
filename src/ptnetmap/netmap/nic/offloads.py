# SPDX-License-Identifier: BSD-2-Clause
"""Offloads of an interface that would spoil frames which are forwarded: what the driver does is not in the bytes."""

from __future__ import annotations

import errno
import fcntl
import socket

import numpy as np

from ptnetmap.abi import ethtool
from ptnetmap.errors import PortError


def check_offloads(name: str) -> str:
    """Raise PortError (EINVAL), which names the ethtool command, for offloads that make frames other than on the wire.

    Returns a warning where that cannot be seen from here, or "": at the other end of a veth, which may be in another
    namespace, the host may leave checksums and VLAN tags to an interface that does not add them.
    """
    if driver_of(name) == "veth":
        return (
            f"{name} is a veth: checksums and VLAN tags of what the host sends at its other end may be missing\n"
            "        there, run: ethtool -K PEER tx off txvlan off"
        )
    flags = _value(name, ethtool.ETHTOOL_GFLAGS)
    found = {
        "rxvlan": flags & ethtool.ETH_FLAG_RXVLAN,
        "lro": flags & ethtool.ETH_FLAG_LRO,
    }
    wrong = [offload for offload, on in found.items() if on]
    if wrong:
        raise PortError(
            errno.EINVAL,
            f"netmap: cannot attach {name}: frames would lack VLAN tags or be merged ({', '.join(wrong)} on)\n"
            f"        turn that off: ethtool -K {name} {' '.join(f'{offload} off' for offload in wrong)}",
        )
    return ""


def driver_of(name: str) -> str:
    """Return the name of an interface's driver; empty where it does not say."""
    info = np.zeros(1, ethtool.ethtool_drvinfo)
    info["cmd"] = ethtool.ETHTOOL_GDRVINFO
    return bytes(info["driver"][0]).decode(errors="replace") if _ask(name, info.ctypes.data) else ""


def _value(name: str, command: int) -> int:
    value = np.zeros(1, ethtool.ethtool_value)
    value["cmd"] = command
    return int(value["data"][0]) if _ask(name, value.ctypes.data) else 0


def _ask(name: str, address: int) -> bool:
    request = np.zeros(1, ethtool.ifreq)
    request["ifr_name"], request["ifr_data"] = name.encode(), address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        try:
            fcntl.ioctl(any_socket, ethtool.SIOCETHTOOL, bytearray(request.tobytes()))
        except OSError:
            return False
    return True
