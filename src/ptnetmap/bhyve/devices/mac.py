# SPDX-License-Identifier: BSD-2-Clause
"""MAC addresses of network devices: the one that was asked for, or bhyve's for a slot (netmap-abi 5a.10)."""

from __future__ import annotations

import hashlib
import re

from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import ConfigError

_PREFIX = bytes.fromhex("00a098")
_FORM = re.compile(r"[0-9a-fA-F]{1,2}(?::[0-9a-fA-F]{1,2}){5}")


def mac_address(function: Function, vm: str, asked: str | None = None) -> bytes:
    """Return the 6 bytes of a device's MAC address: ``asked``, or one that follows from its place and the VM's name.

    Raises ConfigError for text that is none, and for a group's address.
    """
    if asked is None:
        text = f"{function.slot}-{function.function}-{vm}"
        return _PREFIX + hashlib.md5(text.encode(errors="surrogateescape"), usedforsecurity=False).digest()[:3]
    mac = bytes(int(part, 16) for part in asked.split(":")) if _FORM.fullmatch(asked) else b"\1"
    if mac[0] & 1 or not any(mac):
        raise ConfigError(f"Invalid MAC address '{asked}'\n        write mac=02:00:00:00:00:01; the first byte is even")
    return mac
