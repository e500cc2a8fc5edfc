# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The program ``pkt-gen``: sends, receives, or measures round trips on a passed-through port.

Options of the command line: ``function=tx|rx|ping|pong``, ``port=N`` (the N-th passed-through port, from 0), ``ring=N``,
``count=N`` packets, ``ms=N`` milliseconds at the most, ``length=N`` bytes, ``batch=N`` packets per sync, ``rate=N``
packets per second, ``dst=MAC``, ``quiet=N`` milliseconds after which a receiver ends when nothing comes any more,
``numbered`` frames, ``wait=N`` microseconds to look before halting, ``wait=spin`` on a core of one's own, ``idle=N``
microseconds between round trips, ``report`` once a second. It prints a line when it begins, ``pkt-gen: ready ...``, and
one with its figures, ``pkt-gen: done name=value ...``, in nanoseconds where they are times; then it powers off.
"""

from __future__ import annotations

from ptnetmap.guest.cmdline import find_option, hex_option, number_option, option_is
from ptnetmap.guest.console import end_line, put_hex, put_number, put_text, say
from ptnetmap.guest.cpu import divide, timestamp
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.interrupts import interrupt_count
from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.netmapport import PORT, RING, RX_RINGS, TX_RINGS, rx_ring, tx_ring
from ptnetmap.guest.netmapring import NEVER, advance, await_taken
from ptnetmap.guest.openport import close_port, open_port
from ptnetmap.guest.pace import rate_of
from ptnetmap.guest.pingpong import LAST_LENGTH, MEDIAN, P99, TRIPS, ping, ping_figures, pong
from ptnetmap.guest.power import fail, power_off
from ptnetmap.guest.routine import Text, routine
from ptnetmap.guest.timer import halt_cost
from ptnetmap.guest.traffic import (
    BYTES,
    FIRST,
    LAST,
    NEXT_REPORT,
    PACKETS,
    WRONG,
    buffer_of,
    fill_ring,
    nanoseconds,
    receive,
    send,
    set_lengths,
    transfer,
    write_frame,
)
from ptnetmap.jit.memory import load64, store64

_CMDLINE = offsets(boot_info)["cmdline"]
_TSC_KHZ = offsets(boot_info)["tsc_khz"]
_PORT_MAC = PORT["mac"]
_KICKS = RING["kicks"]
_HALTS = RING["halts"]
_VECTOR = RING["vector"]
_BLOCK = RING["block"]
_SLOTS = RING["slots"]
_RING_HEAD = RING["head"]
_NUM_SLOTS = RING["num_slots"]
_BUF_SIZE = RING["buf_size"]

_RUN_SIZE = transfer.itemsize

BROADCAST = 0xFFFFFFFFFFFF
SHORTEST = 60
_MOST_PACKETS = 1 << 60
_FOR_EVER_MS = 1 << 40
_DEFAULT_BATCH = 256
_DEFAULT_QUIET = 1000
_PATIENCE_MS = 10_000
_WORTH = 3

_FUNCTION = Text("function")
_TX = Text("tx")
_RX = Text("rx")
_PING = Text("ping")
_PONG = Text("pong")
_PORT = Text("port")
_RING = Text("ring")
_COUNT = Text("count")
_MS = Text("ms")
_LENGTH = Text("length")
_BATCH = Text("batch")
_DST = Text("dst")
_QUIET = Text("quiet")
_NUMBERED = Text("numbered")
_WAIT = Text("wait")
_SPIN = Text("spin")
_REPORT = Text("report")
_IDLE = Text("idle")

_READY = Text("pkt-gen: ready mac=")
_DONE = Text("pkt-gen: done packets=")
_BYTES = Text(" bytes=")
_NANOSECONDS = Text(" nanoseconds=")
_WRONG = Text(" wrong=")
_KICKS_TEXT = Text(" kicks=")
_INTERRUPTS = Text(" interrupts=")
_HALTS_TEXT = Text(" halts=")
_SPIN_TEXT = Text(" spin=")
_TRIPS = Text(" trips=")
_MEDIAN = Text(" median_ns=")
_P99 = Text(" p99_ns=")

_NO_FUNCTION = Text("FAIL pkt-gen: no such function; there are: tx rx ping pong")
_NO_RING = Text("FAIL pkt-gen: the port has no such ring")
_NO_LENGTH = Text("FAIL pkt-gen: a frame has 60 bytes at least, and no more than a buffer")


@routine
def cycles_of(boot, milliseconds):
    """Return how many cycles of the time stamp counter so many milliseconds are."""
    return milliseconds * load64(boot + _TSC_KHZ)


@routine
def deadline_of(boot, cmdline):
    """Return the time stamp counter at which the run ends."""
    milliseconds = number_option(cmdline, _MS, 0)
    return timestamp() + cycles_of(boot, milliseconds if milliseconds > 0 else _FOR_EVER_MS)


@routine
def say_ready(boot, port):
    """Say that the port is up."""
    put_text(boot, _READY)
    put_hex(boot, load64(port + _PORT_MAC), 12)
    end_line(boot)


@routine
def put_pair(boot, name, value):
    """Add a name and its value to the line."""
    put_text(boot, name)
    put_number(boot, value)


@routine
def put_events(boot, r, spin):
    """Add what a ring's packets cost in events."""
    put_pair(boot, _KICKS_TEXT, load64(r + _KICKS))
    vector = load64(r + _VECTOR)
    put_pair(boot, _INTERRUPTS, 0 if vector < 0 else interrupt_count(load64(r + _BLOCK), vector))
    put_pair(boot, _HALTS_TEXT, load64(r + _HALTS))
    put_pair(boot, _SPIN_TEXT, spin)


@routine
def say_done(boot, r, run, spin):
    """Say what a sender or receiver has done."""
    put_pair(boot, _DONE, load64(run + PACKETS))
    put_pair(boot, _BYTES, load64(run + BYTES))
    put_pair(boot, _NANOSECONDS, nanoseconds(boot, load64(run + LAST) - load64(run + FIRST)))
    put_pair(boot, _WRONG, load64(run + WRONG))
    put_events(boot, r, spin)
    end_line(boot)


@routine
def announce(boot, port, length):
    """Send one broadcast frame, by which a switch learns where this port's address is."""
    r = tx_ring(port, 0)
    head = load64(r + _RING_HEAD)
    write_frame(buffer_of(r, head), BROADCAST, load64(port + _PORT_MAC), length)
    set_lengths(load64(r + _SLOTS), head, 1, length)
    advance(r, 1)


@routine
def run_tx(block, boot, port, r, run, length, batch, spin):
    """Do what ``function=tx`` asks for."""
    cmdline = load64(boot + _CMDLINE)
    destination = hex_option(cmdline, _DST, BROADCAST)
    source = load64(port + _PORT_MAC)
    numbered = 1 if find_option(cmdline, _NUMBERED) != 0 else 0
    fill_ring(r, destination, source, length)
    packets = number_option(cmdline, _COUNT, _MOST_PACKETS)
    say_ready(boot, port)
    deadline = deadline_of(boot, cmdline)
    patience = cycles_of(boot, _PATIENCE_MS)
    rate = rate_of(cmdline)
    send(block, boot, r, run, packets, deadline, patience, batch, rate, length, destination, source, numbered, spin)
    say_done(boot, r, run, spin)


@routine
def run_rx(boot, port, r, run, batch, spin):
    """Do what ``function=rx`` asks for."""
    cmdline = load64(boot + _CMDLINE)
    numbered = 1 if find_option(cmdline, _NUMBERED) != 0 else 0
    packets = number_option(cmdline, _COUNT, _MOST_PACKETS)
    announce(boot, port, SHORTEST)
    say_ready(boot, port)
    deadline = deadline_of(boot, cmdline)
    patience = cycles_of(boot, number_option(cmdline, _QUIET, _DEFAULT_QUIET))
    receive(boot, r, run, packets, deadline, patience, batch, numbered, spin)
    say_done(boot, r, run, spin)


@routine
def await_last(boot, port):
    """Let the host take the last packet before the port is closed, which would lose it."""
    await_taken(tx_ring(port, 0), boot, timestamp() + cycles_of(boot, _PATIENCE_MS))


@routine
def run_ping(block, boot, port, spin):
    """Do what ``function=ping`` asks for."""
    cmdline = load64(boot + _CMDLINE)
    figures = allocate(boot, ping_figures(), 64)
    fill_ring(tx_ring(port, 0), hex_option(cmdline, _DST, BROADCAST), load64(port + _PORT_MAC), LAST_LENGTH)
    say_ready(boot, port)
    deadline = deadline_of(boot, cmdline)
    idle = number_option(cmdline, _IDLE, 0)
    ping(block, boot, port, figures, number_option(cmdline, _COUNT, _MOST_PACKETS), deadline, idle, spin)
    await_last(boot, port)
    put_pair(boot, _DONE, load64(figures + TRIPS))
    put_pair(boot, _TRIPS, load64(figures + TRIPS))
    put_pair(boot, _MEDIAN, nanoseconds(boot, load64(figures + MEDIAN)))
    put_pair(boot, _P99, nanoseconds(boot, load64(figures + P99)))
    put_events(boot, rx_ring(port, 0), spin)
    end_line(boot)


@routine
def run_pong(boot, port, spin):
    """Do what ``function=pong`` asks for."""
    cmdline = load64(boot + _CMDLINE)
    announce(boot, port, SHORTEST)
    say_ready(boot, port)
    patience = cycles_of(boot, number_option(cmdline, _QUIET, _PATIENCE_MS))
    trips = pong(boot, port, number_option(cmdline, _COUNT, _MOST_PACKETS), deadline_of(boot, cmdline), patience, spin)
    await_last(boot, port)
    put_pair(boot, _DONE, trips)
    put_events(boot, rx_ring(port, 0), spin)
    end_line(boot)


@routine
def spin_of(block, boot, cmdline):
    """Return for how many cycles to look before halting: as ``wait`` says, else some times what a halt costs.

    A halt costs the other side too: it sleeps, and is woken, while the ring stands still.
    """
    if option_is(cmdline, _WAIT, _SPIN) == 1:
        return NEVER
    microseconds = number_option(cmdline, _WAIT, -1)
    if microseconds >= 0:
        return divide(microseconds * load64(boot + _TSC_KHZ), 1000)
    return _WORTH * halt_cost(block, boot)


@routine
def pktgen(block, boot):
    """Run on the processor of ``block``, and end the machine."""
    cmdline = load64(boot + _CMDLINE)
    port = open_port(block, boot, number_option(cmdline, _PORT, 0))
    run = allocate(boot, _RUN_SIZE, 64)
    if port == 0 or run == 0:
        fail(boot)
    ring = number_option(cmdline, _RING, 0)
    length = number_option(cmdline, _LENGTH, SHORTEST)
    batch = number_option(cmdline, _BATCH, _DEFAULT_BATCH)
    spin = spin_of(block, boot, cmdline)
    if find_option(cmdline, _REPORT) != 0:
        store64(run + NEXT_REPORT, timestamp() + cycles_of(boot, 1000))
    sends = option_is(cmdline, _FUNCTION, _TX)
    if ring >= load64(port + (TX_RINGS if sends == 1 else RX_RINGS)):
        say(boot, _NO_RING)
        fail(boot)
    r = tx_ring(port, ring) if sends == 1 else rx_ring(port, ring)
    if length < SHORTEST or length > load64(r + _BUF_SIZE):
        say(boot, _NO_LENGTH)
        fail(boot)
    batch = max(1, min(batch, load64(r + _NUM_SLOTS) - 1))
    if sends == 1:
        run_tx(block, boot, port, r, run, length, batch, spin)
    elif option_is(cmdline, _FUNCTION, _RX) == 1:
        run_rx(boot, port, r, run, batch, spin)
    elif option_is(cmdline, _FUNCTION, _PING) == 1:
        run_ping(block, boot, port, spin)
    elif option_is(cmdline, _FUNCTION, _PONG) == 1:
        run_pong(boot, port, spin)
    else:
        say(boot, _NO_FUNCTION)
        fail(boot)
    close_port(port)
    power_off(boot)
