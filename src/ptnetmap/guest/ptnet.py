# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Driver of ptnet, today's device of a passed-through port (netmap-abi 5b.2, 5b.4)."""

from __future__ import annotations

from ptnetmap.abi import ptnet as registers
from ptnetmap.abi.netmap.csb import CSB_ALIGN, nm_csb_atok, nm_csb_ktoa
from ptnetmap.guest.console import end_line, put_number, put_text, say
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.interrupts import allocate_vector
from ptnetmap.guest.layout import offsets
from ptnetmap.guest.netmapport import PORT, RING, RX_RINGS, TX_RINGS, allocate_port, join_memory, tx_ring
from ptnetmap.guest.netmapring import begin_ring
from ptnetmap.guest.pci import bar_address, bar_is_port, enable_function, msix_enable, msix_set
from ptnetmap.guest.port import in32, out32
from ptnetmap.guest.routine import Text, routine
from ptnetmap.jit.memory import load64, store32, store64

_PTCTL = registers.PTNET_IO_PTCTL
_MAC_LO = registers.PTNET_IO_MAC_LO
_MAC_HI = registers.PTNET_IO_MAC_HI
_NIFP_OFS = registers.PTNET_IO_NIFP_OFS
_NUM_TX_RINGS = registers.PTNET_IO_NUM_TX_RINGS
_NUM_RX_RINGS = registers.PTNET_IO_NUM_RX_RINGS
_HOSTMEMID = registers.PTNET_IO_HOSTMEMID
_GH_BAH = registers.PTNET_IO_CSB_GH_BAH
_GH_BAL = registers.PTNET_IO_CSB_GH_BAL
_HG_BAH = registers.PTNET_IO_CSB_HG_BAH
_HG_BAL = registers.PTNET_IO_CSB_HG_BAL
_KICK_BASE = registers.PTNET_IO_KICK_BASE
_CREATE = registers.PTNETMAP_PTCTL_CREATE
_DELETE = registers.PTNETMAP_PTCTL_DELETE

_ATOK = offsets(nm_csb_atok)
_KTOA = offsets(nm_csb_ktoa)
_HEAD = _ATOK["head"]
_CUR = _ATOK["cur"]
_APPL_NEED_KICK = _ATOK["appl_need_kick"]
_HWCUR = _KTOA["hwcur"]
_HWTAIL = _KTOA["hwtail"]
_KERN_NEED_KICK = _KTOA["kern_need_kick"]

_PORTS = PORT["ports"]
_MAC = PORT["mac"]
_RING_HEAD_AT = RING["head_at"]
_RING_CUR_AT = RING["cur_at"]
_RING_HWCUR_AT = RING["hwcur_at"]
_RING_HWTAIL_AT = RING["hwtail_at"]
_RING_APPL_AT = RING["appl_need_kick_at"]
_RING_KERN_AT = RING["kern_need_kick_at"]
_RING_KICK_PORT = RING["kick_port"]
_RING_VECTOR = RING["vector"]
_RING_BLOCK = RING["block"]

_BAR = registers.PTNETMAP_IO_PCI_BAR
_PAGE = 4096

_NO_REGISTERS = Text("FAIL ptnet: no registers, or no memory left for the CSB")
_REFUSED = Text("FAIL ptnet: CREATE came to error ")


@routine
def open_ptnet(block, boot, function):
    """Start the ptnet at ``function``, with a vector of the processor of ``block`` for each ring.

    Return the address of its :data:`~ptnetmap.guest.netmapport.netmap_port`, 0 if it cannot be used, which is said.
    """
    ports = bar_address(function, _BAR)
    atok = allocate(boot, _PAGE, _PAGE)
    ktoa = allocate(boot, _PAGE, _PAGE)
    if ports == 0 or bar_is_port(function, _BAR) == 0 or atok == 0 or ktoa == 0:
        say(boot, _NO_REGISTERS)
        return 0
    enable_function(function)
    port = allocate_port(boot, in32(ports + _NUM_TX_RINGS), in32(ports + _NUM_RX_RINGS))
    if port == 0 or join_memory(boot, port, in32(ports + _HOSTMEMID), in32(ports + _NIFP_OFS)) == 0:
        return 0
    store64(port + _PORTS, ports)
    store64(port + _MAC, (in32(ports + _MAC_HI) << 32) | in32(ports + _MAC_LO))
    place_csb(block, boot, port, function, atok, ktoa)
    out32(ports + _GH_BAH, atok >> 32)
    out32(ports + _GH_BAL, atok)
    out32(ports + _HG_BAH, ktoa >> 32)
    out32(ports + _HG_BAL, ktoa)
    out32(ports + _PTCTL, _CREATE)
    error = in32(ports + _PTCTL)
    if error != 0:
        put_text(boot, _REFUSED)
        put_number(boot, error)
        end_line(boot)
        return 0
    for i in range(load64(port + TX_RINGS) + load64(port + RX_RINGS)):
        begin_ring(tx_ring(port, i))
    return port


@routine
def place_csb(block, boot, port, function, atok, ktoa):
    """Give each ring its entries of the CSB, its kick register and its interrupt. Receivers want the first interrupt."""
    tx_rings = load64(port + TX_RINGS)
    for i in range(tx_rings + load64(port + RX_RINGS)):
        r = tx_ring(port, i)
        told = atok + i * CSB_ALIGN
        known = ktoa + i * CSB_ALIGN
        store64(r + _RING_HEAD_AT, told + _HEAD)
        store64(r + _RING_CUR_AT, told + _CUR)
        store64(r + _RING_APPL_AT, told + _APPL_NEED_KICK)
        store64(r + _RING_HWCUR_AT, known + _HWCUR)
        store64(r + _RING_HWTAIL_AT, known + _HWTAIL)
        store64(r + _RING_KERN_AT, known + _KERN_NEED_KICK)
        store64(r + _RING_KICK_PORT, load64(port + _PORTS) + _KICK_BASE + 4 * i)
        store64(r + _RING_BLOCK, block)
        vector = allocate_vector(boot)
        store64(r + _RING_VECTOR, vector if vector >= 0 and msix_set(function, i, block, vector) == 1 else -1)
        store32(known + _KERN_NEED_KICK, 1)
        store32(told + _APPL_NEED_KICK, 0 if i < tx_rings else 1)
    msix_enable(function)


@routine
def close_ptnet(port):
    """Let the host serve the port no longer."""
    out32(load64(port + _PORTS) + _PTCTL, _DELETE)
