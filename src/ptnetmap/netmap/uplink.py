# SPDX-License-Identifier: BSD-2-Clause
"""Network interfaces as ports of switches: what comes in there enters the switch, and what is sent to it, leaves there.

The port of the interface and the port of the switch share the interface's memory. Between them buffers change places, as
over a bridge, so the only copy of a packet is the switch's.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PtnetmapError
from ptnetmap.netmap.bridge.session import Bridge
from ptnetmap.netmap.name_options import Conf
from ptnetmap.netmap.names import PortName
from ptnetmap.netmap.nic.message import Interface
from ptnetmap.netmap.nic.offloads import check_offloads
from ptnetmap.netmap.port import Port
from ptnetmap.netmap.valeport import ValeAdapter

if TYPE_CHECKING:
    from ptnetmap.netmap.runtime import Netmap

_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_MR_PROMISC = 1
_log = logging.getLogger(__name__)


class Uplink:
    """The interface as port ``name`` of a switch, until :meth:`close`. A thread of its own serves it, in compiled code.

    With ``host`` it is the host's side of the interface: what the stack sends there, and receives.

    The interface is promiscuous meanwhile. ``warning`` is what may be wrong with its frames, or empty; ``failure`` is why
    nothing passes any more, if the interface has gone: the port stays on its switch until it is closed.

    Raises PortError: EBUSY if somebody has the interface or such a port, EINVAL for offloads that would spoil frames, and
    as opening the interface does.
    """

    def __init__(self, netmap: Netmap, name: str, interface: Interface, *, host: bool = False) -> None:
        self.failure: PtnetmapError | None = None
        self.warning = "" if host else check_offloads(interface.name)
        with ExitStack() as opened:
            wanted = PortName(interface.name, mode=abi.NR_REG_SW if host else abi.NR_REG_ALL_NIC)
            nic = netmap.register(Port, interface.name, wanted, Conf(), abi.NR_EXCLUSIVE)
            opened.callback(nic.close)
            opened.enter_context(_promiscuous(interface.index))
            tx, rx = nic.tx_rings, nic.rx_rings
            conf = Conf(tx_rings=len(rx), rx_rings=len(tx), tx_slots=rx[0].num_slots, rx_slots=tx[0].num_slots)
            parsed = replace(PortName(name), mem_id=nic.mem_id)
            port = netmap.register(Port, name, parsed, conf, abi.NR_EXCLUSIVE)
            opened.callback(port.close)
            assert isinstance(port.adapter, ValeAdapter)
            self.adapter = port.adapter
            self._bridge = Bridge(nic, port)
            opened.callback(self._bridge.close)
            self._opened = opened.pop_all()
        self._name = name
        self._thread = threading.Thread(target=self._run, name=f"uplink-{name.partition(':')[2]}", daemon=True)
        self._thread.start()
        if self.warning:
            _log.warning("netmap: %s", self.warning)

    def _run(self) -> None:
        try:
            self._bridge.run()
        except PtnetmapError as error:
            self.failure = error
            _log.warning("netmap: %s passes nothing any more: %s", self._name, error)

    def close(self) -> int:
        """Take the port off its switch, and give the interface back; return the number it had there."""
        index = self.adapter.index
        self._bridge.stop()
        self._thread.join()
        self._opened.close()
        return index


def _promiscuous(index: int) -> socket.socket:
    """Return a socket that gets nothing, and keeps an interface promiscuous: frames for others come here too."""
    keeper = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        keeper.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, struct.pack("iHH8s", index, _PACKET_MR_PROMISC, 0, b""))
    except BaseException:
        keeper.close()
        raise
    return keeper
