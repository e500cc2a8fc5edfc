# SPDX-License-Identifier: BSD-2-Clause
"""VALE_LIST: finding a port on a switch, or the next one of a listing."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import NamedTuple

from ptnetmap.errors import PortError
from ptnetmap.netmap import names
from ptnetmap.netmap.wire.codec import Body, Values

NO_PORT = 255
"""What stands for the port's number when only a switch was named, or the port is not on it."""


class Listed(NamedTuple):
    """A port on a switch: its name there, the number of the switch, the number of the port."""

    name: str
    bridge_idx: int
    port_idx: int

    @property
    def body(self) -> Body:
        """The fields of the answer."""
        return {"nr_bridge_idx": self.bridge_idx, "nr_port_idx": self.port_idx}


def find_listed(listing: Iterable[tuple[str, int, int]], name: str, body: Values) -> Listed:
    """Return what VALE_LIST answers, out of all ports on all switches: (name, switch's number, port's number).

    Without a name: the first port at ``nr_bridge_idx``, ``nr_port_idx`` or after; ENOENT (PortError) at the end. With
    one: that port, or :data:`NO_PORT` on its switch; ENOENT if there is no such switch.
    """
    ports = sorted((Listed(*entry) for entry in listing), key=lambda port: (port.bridge_idx, port.port_idx))
    if not name:
        start = (body["nr_bridge_idx"], body["nr_port_idx"])
        for port in ports:
            if (port.bridge_idx, port.port_idx) >= start:
                return port
        raise PortError(errno.ENOENT, "netmap: there are no more ports on switches\n        the listing is complete")
    for port in ports:
        if port.name == name:
            return port
    switch = name.partition(":")[0]
    for port in ports:
        vale = names.split_vale(port.name)
        if vale is not None and vale.switch == switch:
            return Listed(name, port.bridge_idx, NO_PORT)
    raise PortError(errno.ENOENT, f"netmap: there is no switch {switch}\n        open a port on it first")
