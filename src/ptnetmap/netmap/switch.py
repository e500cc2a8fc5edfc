# SPDX-License-Identifier: BSD-2-Clause
"""VALE switches: which ports a switch has, and its lookup. What senders see of it is one published view."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.netmap import learning
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.lookup import Lookup, LookupFunction, as_lookup
from ptnetmap.netmap.view import MAX_PORTS, view, vport

if TYPE_CHECKING:
    from ptnetmap.netmap.valeport import ValeAdapter


@dataclass
class Attachment:
    """A port on a switch: its number there, the name it is listed under, and its vport."""

    index: int
    name: str
    adapter: ValeAdapter
    vport: Block


class Switch:
    """A VALE switch: up to 254 ports, and a lookup that decides where packets go.

    ``name`` is the whole name, "vale0". Ports come by opening or attaching; the switch goes with its last port. All
    changes are published at once, between batches of every sender.
    """

    def __init__(self, name: str, epoch: Epoch, ageing: int = learning.DEFAULT_AGEING) -> None:
        self.name = name
        self.epoch = epoch
        self.ports: dict[int, Attachment] = {}
        self.view_word = Block(np.uint64)
        self._learning_table = learning.learning_table(ageing)
        self._learning = learning_lookup(self._learning_table)
        self._lookup = self._learning
        self._published: tuple[Any, ...] = ()
        # The runtime's lock serialises changes of ports, but a lookup may be assigned by any thread at any time.
        self._changing = threading.RLock()

    def __repr__(self) -> str:
        return f"<Switch {self.name}: {len(self.ports)} ports, lookup {self._lookup.name}>"

    @property
    def lookup(self) -> Lookup:
        """The function that decides where packets go. Assign a function, ``(function, table)``, or a Lookup.

        It is replaced between two batches of each sender: no batch sees half of one, and no packet is lost. Assign
        None to go back to learning. Raises LookupCompileError and keeps the old one if the new one does not compile.
        """
        return self._lookup

    @lookup.setter
    def lookup(self, value: LookupFunction | Lookup | tuple[LookupFunction, Any] | None) -> None:
        chosen = self._learning if value is None else as_lookup(value)
        with self._changing:
            self._lookup = chosen
            self.publish()
        # A packet that a lossless port held back may go elsewhere now.
        self.wake_senders()

    @property
    def ageing(self) -> int:
        """Seconds after which the learning table forgets an address that is silent; 0 = never."""
        return int(self._learning_table[learning.AGEING])

    @ageing.setter
    def ageing(self, seconds: int) -> None:
        if seconds < 0:
            raise PortError(
                errno.EINVAL, f"{self.name}: asked for an ageing time of {seconds} s\n        use 0 for never"
            )
        self._learning_table[learning.AGEING] = seconds

    def learned(self) -> dict[str, int]:
        """What the learning table knows: MAC address to port number, without entries that have aged."""
        return dict(learning.learned(self._learning_table))

    def find(self, name: str) -> Attachment | None:
        """Return the port listed under a name such as "vale0:1", or None."""
        return next((port for port in self.ports.values() if port.name == name), None)

    def add(self, adapter: ValeAdapter, name: str) -> Attachment:
        """Give an adapter the lowest free port number. Raises PortError (ENOMEM) when there is none."""
        with self._changing:
            return self._add(adapter, name)

    def _add(self, adapter: ValeAdapter, name: str) -> Attachment:
        index = next((i for i in range(MAX_PORTS) if i not in self.ports), None)
        if index is None:
            raise PortError(
                errno.ENOMEM,
                f"netmap: cannot create {name}: {self.name} has {len(self.ports)} ports, which is all it can have\n"
                "        close a port, or use another switch",
            )
        attachment = Attachment(index, name, adapter, self._vport(adapter))
        self.ports[index] = attachment
        adapter.enter_switch(self, index)
        self.publish()
        return attachment

    def remove(self, attachment: Attachment) -> None:
        """Take a port off the switch; what the switch has learned about it is forgotten."""
        with self._changing:
            del self.ports[attachment.index]
            attachment.adapter.leave_switch()
            self.publish()
        learning.forget_port(self._learning_table, attachment.index)

    def refresh(self, adapter: ValeAdapter) -> None:
        """Publish a change of an adapter's header length or frame size."""
        for attachment in self.ports.values():
            if attachment.adapter is adapter:
                attachment.vport = self._vport(adapter)
        self.publish()

    @staticmethod
    def _vport(adapter: ValeAdapter) -> Block:
        block = Block(vport)
        block["kind"] = adapter.vport_kind
        block["rings"] = adapter.rings_in_use
        block["header"] = adapter.header
        block["mfs"] = adapter.mfs
        for i, ring in enumerate(adapter.rx):
            block.items["ring"][0, i] = ring.address
        return block

    def publish(self) -> None:
        """Make the present ports and lookup what senders see, and wait until none sees the old ones."""
        with self._changing:
            self._publish()

    def wake_senders(self) -> None:
        """Wake all who wait to send on this switch, to look again."""
        for port in list(self.ports.values()):
            for ring in port.adapter.tx:
                ring.wake()

    def _publish(self) -> None:
        snapshot = Block(view)
        snapshot["lookup"] = self._lookup.address
        snapshot["table"] = self._lookup.table.ctypes.data
        snapshot["table_length"] = len(self._lookup.table)
        snapshot["active_count"] = len(self.ports)
        snapshot.items["active"][0, : len(self.ports)] = sorted(self.ports)
        snapshot.items["port"][0, list(self.ports)] = [attachment.vport.address for attachment in self.ports.values()]
        senders = [ring.address for p in self.ports.values() for ring in [*p.adapter.tx, *p.adapter.feeders]]
        sender_list = Block(np.uint64, max(1, len(senders)))
        sender_list.items[: len(senders)] = senders
        snapshot["senders"] = sender_list.address
        snapshot["sender_count"] = len(senders)
        old = self._published
        self._published = (snapshot, sender_list, self._lookup, [p.vport for p in self.ports.values()])
        self.view_word.items[0] = snapshot.address
        self.epoch.synchronize()
        del old  # only now can no sender be using it


def learning_lookup(table: Any) -> Lookup:
    """Return the learning bridge over a table of its own; compiled once, and kept in the kernel cache."""
    return Lookup(learning.learning, table, compiled=learning.learning_entry)
