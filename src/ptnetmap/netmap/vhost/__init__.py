# SPDX-License-Identifier: BSD-2-Clause
"""vhost-user: a virtual machine's process hands its virtqueues to another process; both sides of it.

:mod:`.message` reads and writes messages. The back-end's side is :class:`.Connection`, which keeps what a front-end has
said (:mod:`.memory`, :mod:`.queue`) and calls a :class:`.Device`; :class:`.Channel` takes messages from a socket and
sends replies. The front-end's side is :class:`.FrontEnd`. A back-end's way, whenever its socket is readable::

    while (got := channel.receive()) is not None:               PeerError here and below: close both
        reply = connection.receive(*got)
        if reply is not None:
            channel.send(*reply)

No compiled code here, and no thread. Source: QEMU, docs/interop/vhost-user.rst.
"""

from ptnetmap.netmap.vhost.channel import Channel, Message
from ptnetmap.netmap.vhost.connection import PROTOCOL_FEATURES, Connection, Reply
from ptnetmap.netmap.vhost.device import Device
from ptnetmap.netmap.vhost.frontend import FrontEnd
from ptnetmap.netmap.vhost.memory import Region
from ptnetmap.netmap.vhost.message import MemoryRegion
from ptnetmap.netmap.vhost.queue import Setup

__all__ = [
    "PROTOCOL_FEATURES",
    "Channel",
    "Connection",
    "Device",
    "FrontEnd",
    "MemoryRegion",
    "Message",
    "Region",
    "Reply",
    "Setup",
]
