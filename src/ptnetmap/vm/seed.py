# SPDX-License-Identifier: BSD-2-Clause
"""Makes seeds for cloud-init's data source NoCloud: a volume CIDATA with user-data, meta-data and network-config.

The files are YAML, of which JSON is a part: nothing that a user gives can be taken for more than a value.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from typing import Any

from ptnetmap.errors import ConfigError
from ptnetmap.vm import iso9660


def build(
    name: str,
    instance: str,
    *,
    user: str,
    keys: Sequence[str],
    address: str = "",
    gateway: str = "",
    dns: Sequence[str] = (),
) -> bytes:
    """Return the image of a seed.

    ``name`` becomes the host's name; a new ``instance`` makes cloud-init start over. ``keys`` are lines of OpenSSH
    public keys; ``address`` is ``ADDRESS/LENGTH`` for the first interface, DHCP without it. Raises ConfigError.
    """
    users = {
        "name": user,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "lock_passwd": True,
        "ssh_authorized_keys": [_key(line) for line in keys],
    }
    user_data = {"users": [users], "ssh_pwauth": False}
    files = {
        "user-data": b"#cloud-config\n" + _yaml(user_data),
        "meta-data": _yaml({"instance-id": instance, "local-hostname": name.replace("_", "-")}),
        "network-config": _yaml(network(address, gateway, dns)),
    }
    return iso9660.build("CIDATA", files)


def network(address: str, gateway: str, dns: Sequence[str]) -> dict[str, Any]:
    """Return a network-config of version 2 for the interfaces named e*."""
    card: dict[str, Any] = {"match": {"name": "e*"}}
    try:
        if address:
            if "/" not in address:
                raise ValueError(f"{address} has no length of its network")
            card["addresses"] = [str(ipaddress.ip_interface(address))]
        else:
            card["dhcp4"] = True
        if gateway:
            way = ipaddress.ip_address(gateway)
            card["routes"] = [{"to": "0.0.0.0/0" if way.version == 4 else "::/0", "via": str(way)}]
        if dns:
            card["nameservers"] = {"addresses": [str(ipaddress.ip_address(each)) for each in dns]}
    except ValueError as error:
        raise ConfigError(
            f"the network of the seed: {error}\n        write --address 10.0.0.2/24 --gateway 10.0.0.1 --dns 10.0.0.1"
        ) from error
    return {"version": 2, "ethernets": {"first": card}}


def _key(line: str) -> str:
    words = line.split()
    if "PRIVATE" in line or len(words) < 2 or not words[0].startswith(("ssh-", "ecdsa-", "sk-")):
        raise ConfigError("this is no public key of OpenSSH's\n        give --ssh-key FILE.pub, not the private one")
    return line.strip()


def _yaml(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"
