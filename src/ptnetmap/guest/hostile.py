# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The program ``hostile``: writes junk over all that it shares with the host's kthreads, as fast as it can.

Options: ``count=N`` writes (default 100,000,000), ``seed=N`` to begin from, ``port=N``. The same seed gives the same
writes; what the kthreads see of them is up to chance. Junk is mostly of plausible size, as that goes furthest: it hits
the fields of the CSB, slots, the rings' headers, and buffers. At times it kicks.
"""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.guest.cmdline import number_option
from ptnetmap.guest.console import end_line, put_number, put_text
from ptnetmap.guest.cpu import divide, remainder
from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.netmapport import RING, RX_RINGS, TX_RINGS, tx_ring
from ptnetmap.guest.openport import close_port, open_port
from ptnetmap.guest.port import out16, out32
from ptnetmap.guest.power import fail, power_off
from ptnetmap.guest.routine import Text, routine
from ptnetmap.jit.memory import load64, store32

_CMDLINE = offsets(boot_info)["cmdline"]
_DEFAULT_COUNT = 100_000_000
_DEFAULT_SEED = 88172645463325252
_KICK_EVERY = 1 << 16
_MASK = 0xFFFFFFFFFFFFFFFF

_SLOTS = RING["slots"]
_BUFFERS = RING["buffers"]
_NUM_SLOTS = RING["num_slots"]
_BUF_SIZE = RING["buf_size"]
_HEAD_AT = RING["head_at"]
_HWCUR_AT = RING["hwcur_at"]
_KICK_PORT = RING["kick_port"]
_KICK_VALUE = RING["kick_value"]
_IS_2015 = RING["is_2015"]

_SLOT_WORDS = abi.slot.itemsize // 4
_RING_SIZE = abi.ring.itemsize
_CSB_WORDS = 4
_BUFFERS_HIT = 2048

_COUNT = Text("count")
_SEED = Text("seed")
_PORT = Text("port")
_READY = Text("hostile: ready")
_DONE = Text("hostile: done writes=")


@routine
def next_random(state):
    """Return the next state of a 64-bit xorshift generator."""
    state ^= (state << 13) & _MASK
    state ^= (state >> 7) & 0x01FFFFFFFFFFFFFF
    state ^= (state << 17) & _MASK
    return state


@routine
def target(r, state):
    """Return the address of the 32-bit word that is hit: of the CSB, a slot, the ring's header, or a buffer."""
    where = state & 15
    place = (state >> 4) & 0xFFFFFF
    if where < 6:
        return load64(r + _HEAD_AT) + 4 * remainder(place, _CSB_WORDS)
    if where < 7:
        return load64(r + _HWCUR_AT) + 4 * remainder(place, _CSB_WORDS)
    if where < 13:
        return load64(r + _SLOTS) + 4 * remainder(place, load64(r + _NUM_SLOTS) * _SLOT_WORDS)
    if where < 15:
        return load64(r + _SLOTS) - _RING_SIZE + 4 * remainder(place, _RING_SIZE // 4)
    return load64(r + _BUFFERS) + 4 * remainder(place, divide(load64(r + _BUF_SIZE) * _BUFFERS_HIT, 4))


@routine
def junk(r, state):
    """Return what is written there: an index, a length with flags, or anything."""
    kind = (state >> 28) & 7
    value = (state >> 31) & 0xFFFFFFFF
    if kind < 4:
        return remainder(value, load64(r + _NUM_SLOTS) + 4)
    if kind < 6:
        return (value & 0x003F0FFF) | (value & 0x00010000)
    return value


@routine
def kick_anyway(r):
    """Kick, asked for or not."""
    if load64(r + _IS_2015) != 0:
        out16(load64(r + _KICK_PORT), load64(r + _KICK_VALUE))
    else:
        out32(load64(r + _KICK_PORT), load64(r + _KICK_VALUE))


@routine
def write_junk(port, count, state):
    """Write ``count`` words of junk, in turn to all rings of the port; return the generator's last state."""
    rings = load64(port + TX_RINGS) + load64(port + RX_RINGS)
    made = 0
    while made < count:
        r = tx_ring(port, remainder(made, rings))
        state = next_random(state)
        store32(target(r, state), junk(r, state))
        made += 1
        if made & (_KICK_EVERY - 1) == 0:
            kick_anyway(r)
    return state


@routine
def hostile(block, boot):
    """Run on the processor of ``block``, and power off."""
    cmdline = load64(boot + _CMDLINE)
    port = open_port(block, boot, number_option(cmdline, _PORT, 0))
    if port == 0:
        fail(boot)
    put_text(boot, _READY)
    end_line(boot)
    count = number_option(cmdline, _COUNT, _DEFAULT_COUNT)
    write_junk(port, count, number_option(cmdline, _SEED, _DEFAULT_SEED))
    close_port(port)
    put_text(boot, _DONE)
    put_number(boot, count)
    end_line(boot)
    power_off(boot)
