# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Four lookup functions for a switch, to use or to start from; what they get and answer: :mod:`ptnetmap.netmap.lookup`.

======================= ================================================================================
function                makes of the switch
======================= ================================================================================
:func:`static_macs`     one that knows its addresses from the start, and learns none
:func:`vlan_trunk`      one trunk port and an access port for each VLAN
:func:`balance_flows`   a load balancer: one uplink, flows spread over workers and their rings
:func:`block_ports`     a cable between ports 0 and 1 that lets some TCP and UDP ports not through
======================= ================================================================================

Each has a function that makes its table::

    from ptnetmap.examples.lookups import static_macs, static_macs_table

    switch = nm.switch("vale0")
    switch.lookup = static_macs, static_macs_table({"02:00:00:00:00:01": 0, "02:00:00:00:00:02": 1})

The table is used in place: ``switch.lookup.table[...] = ...`` changes a running switch.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.memory import load8, load16_be, load32, load64
from ptnetmap.netmap.view import BROADCAST, DROP

_MAC = 0xFFFFFFFFFFFF
_ETHERNET = 14
_ETHERTYPE = 12
_IPV4 = 0x0800
_IPV6 = 0x86DD
_VLAN = 0x8100
_TCP = 6
_UDP = 17
_IPV4_HEADER = 20
_IPV6_HEADER = 40


def static_macs_table(ports, entries=1024):
    """Return the table of :func:`static_macs`: ``ports`` maps addresses such as "02:00:00:00:00:01" to port numbers.

    ``entries`` is a power of two, more than there are addresses. Raises ValueError if they do not fit.
    """
    if entries & (entries - 1) or entries <= len(ports):
        raise ValueError(f"{len(ports)} addresses need a table with a power of two of entries that is larger")
    table = np.zeros(entries, np.int64)
    for text, port in ports.items():
        mac = int.from_bytes(bytes.fromhex(text.replace(":", "")), "little")
        entry = (mac ^ (mac >> 24)) & (entries - 1)
        while table[entry]:
            entry = (entry + 1) & (entries - 1)
        table[entry] = mac | ((port + 1) << 48)
    return table


def static_macs(packets, lengths, source, table, ports, rings):
    """Send each frame to the port of its destination address; groups go everywhere, unknown addresses nowhere.

    The table is a hash table of int64 words ``mac | (port + 1) << 48``, 0 where unused; a used entry sends who looks
    for another address to the next one.
    """
    mask = len(table) - 1
    for i in range(len(packets)):
        if lengths[i] < _ETHERNET:
            continue
        destination = load64(packets[i]) & _MAC
        if destination & 1:
            ports[i] = BROADCAST
            continue
        entry = (destination ^ (destination >> 24)) & mask
        for _ in range(len(table)):
            word = table[entry]
            if word == 0:
                break
            if word & _MAC == destination:
                ports[i] = (word >> 48) - 1
                break
            entry = (entry + 1) & mask


def vlan_trunk_table(trunk, access):
    """Return the table of :func:`vlan_trunk`: the trunk's port number, and VLAN id to port number for the others."""
    table = np.full(4097, DROP, np.uint8)
    for vlan, port in access.items():
        table[vlan] = port
    table[4096] = trunk
    return table


def vlan_trunk(packets, lengths, source, table, ports, rings):
    """Pass frames with an 802.1Q tag between the trunk and the one port of their VLAN; drop all others.

    The table has a port number for each of 4096 VLAN ids, DROP for none, and then the trunk's.
    """
    trunk = table[4096]
    for i in range(len(packets)):
        if lengths[i] < _ETHERNET + 4 or load16_be(packets[i] + _ETHERTYPE) != _VLAN:
            continue
        port = table[load16_be(packets[i] + _ETHERNET) & 0xFFF]
        if source == trunk:
            ports[i] = port
        elif source == port:
            ports[i] = trunk


def balance_flows_table(uplink, workers):
    """Return the table of :func:`balance_flows`: the uplink's port number, and those of the workers."""
    return np.array([uplink, *workers], np.int64)


def balance_flows(packets, lengths, source, table, ports, rings):
    """Spread what comes from the uplink over the workers, by flow; what workers send goes to the uplink.

    A flow is a pair of addresses, and of ports for TCP and UDP over IPv4 without fragments; either direction of it has
    the same worker and ring. Frames that are not IP go to the first worker. The table is the uplink's number, then the
    workers'.
    """
    workers = len(table) - 1
    for i in range(len(packets)):
        if lengths[i] < _ETHERNET or workers < 1:
            continue
        if source != table[0]:
            ports[i] = table[0]
            continue
        at = packets[i]
        kind = load16_be(at + _ETHERTYPE)
        flow = 0
        if kind == _IPV4 and lengths[i] >= _ETHERNET + _IPV4_HEADER:
            flow = load32(at + 26) ^ load32(at + 30)
            payload = _ETHERNET + 4 * (load8(at + _ETHERNET) & 15)
            protocol = load8(at + 23)
            whole = load16_be(at + 20) & 0x3FFF == 0
            if whole and protocol in (_TCP, _UDP) and lengths[i] >= payload + 4:
                flow ^= load16_be(at + payload) ^ load16_be(at + payload + 2)
        elif kind == _IPV6 and lengths[i] >= _ETHERNET + _IPV6_HEADER:
            for word in range(22, 54, 4):
                flow ^= load32(at + word)
        # Addresses differ in their last byte, the word's highest: fold it down, and let a multiplication spread it. The
        # product of 32 and 31 bits fits a signed word.
        flow ^= flow >> 16
        mixed = (flow * 0x45D9F3B7) >> 16
        ports[i] = table[1 + (mixed & 0x7FFFFFFF) % workers]
        rings[i] = (mixed >> 8) & 15


def block_ports_table(blocked):
    """Return the table of :func:`block_ports`: the TCP and UDP port numbers that do not pass."""
    table = np.zeros(65536, np.uint8)
    table[list(blocked)] = 1
    return table


def block_ports(packets, lengths, source, table, ports, rings):
    """Join ports 0 and 1, but for TCP and UDP over IPv4 to a destination port that is 1 in the table.

    IPv4 fragments without the ports in them do not pass at all; everything that is not IPv4 does.
    """
    for i in range(len(packets)):
        if lengths[i] < _ETHERNET or source > 1:
            continue
        other = 1 - source
        at = packets[i]
        if load16_be(at + _ETHERTYPE) != _IPV4:
            ports[i] = other
            continue
        if lengths[i] < _ETHERNET + _IPV4_HEADER:
            continue
        protocol = load8(at + 23)
        if protocol not in (_TCP, _UDP):
            ports[i] = other
            continue
        payload = _ETHERNET + 4 * (load8(at + _ETHERNET) & 15)
        if load16_be(at + 20) & 0x1FFF != 0 or lengths[i] < payload + 4:
            continue
        if table[load16_be(at + payload + 2)] == 0:
            ports[i] = other
