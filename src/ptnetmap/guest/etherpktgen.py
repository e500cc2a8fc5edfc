# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The program ``virtio-net``: sends or receives as ``pkt-gen`` does, but through the queues of an ordinary virtio-net.

Options of the command line, as of pkt-gen: ``function=tx|rx``, ``port=N``, ``count=N``, ``ms=N``, ``length=N``,
``batch=N``, ``rate=N``, ``dst=MAC``, ``quiet=N``, ``numbered``, ``wait=N`` or ``wait=spin``, ``report``.
"""

from __future__ import annotations

from ptnetmap.guest.cmdline import find_option, hex_option, number_option, option_is
from ptnetmap.guest.console import end_line, put_hex, put_number, put_text, say
from ptnetmap.guest.cpu import timestamp
from ptnetmap.guest.etherport import BUFFER, HEADER, MAC, RX, TX, close_ether, open_ether
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.interrupts import interrupt_count
from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.pace import most_due, nap, rate_of
from ptnetmap.guest.pktgen import BROADCAST, SHORTEST, cycles_of, deadline_of, put_pair, spin_of
from ptnetmap.guest.power import fail, power_off
from ptnetmap.guest.routine import Text, routine
from ptnetmap.guest.traffic import (
    BYTES,
    FIRST,
    LAST,
    NEXT_REPORT,
    NUMBER_AT,
    PACKETS,
    WRONG,
    nanoseconds,
    report,
    transfer,
    write_frame,
)
from ptnetmap.guest.virtqueue import VRING, await_ready, offer, place_of, ready, refresh, set_length, take_length
from ptnetmap.jit.atomic import pause
from ptnetmap.jit.memory import load64, store64

_CMDLINE = offsets(boot_info)["cmdline"]
_RUN_SIZE = transfer.itemsize
_SIZE = VRING["size"]
_OFFERED = VRING["offered"]
_DONE = VRING["done"]
_BUFFERS = VRING["buffers"]
_WRONG_AT = VRING["wrong"]
_KICKS_AT = VRING["kicks"]
_HALTS_AT = VRING["halts"]
_VECTOR = VRING["vector"]
_BLOCK = VRING["block"]

_MOST_PACKETS = 1 << 60
_DEFAULT_BATCH = 256
_DEFAULT_QUIET = 1000
_PATIENCE_MS = 10_000
_FEW = 64
_LITTLE = 32

_FUNCTION = Text("function")
_TX = Text("tx")
_RX = Text("rx")
_PORT = Text("port")
_COUNT = Text("count")
_LENGTH = Text("length")
_BATCH = Text("batch")
_DST = Text("dst")
_QUIET = Text("quiet")
_REPORT = Text("report")
_NUMBERED = Text("numbered")
_READY = Text("virtio-net: ready mac=")
_DONE_TEXT = Text("virtio-net: done packets=")
_BYTES = Text(" bytes=")
_NANOSECONDS = Text(" nanoseconds=")
_WRONG_TEXT = Text(" wrong=")
_KICKS = Text(" kicks=")
_INTERRUPTS = Text(" interrupts=")
_HALTS = Text(" halts=")
_SPIN = Text(" spin=")
_NO_FUNCTION = Text("FAIL virtio-net: no such function; there are: tx rx")
_NO_LENGTH = Text("FAIL virtio-net: a frame has 60 bytes at least, and no more than a buffer without its header")


@routine
def say_port(boot, port):
    """Say that the device is up."""
    put_text(boot, _READY)
    put_hex(boot, load64(port + MAC), 12)
    end_line(boot)


@routine
def say_figures(boot, v, run, spin):
    """Say what was done, and what it took."""
    put_pair(boot, _DONE_TEXT, load64(run + PACKETS))
    put_pair(boot, _BYTES, load64(run + BYTES))
    put_pair(boot, _NANOSECONDS, nanoseconds(boot, load64(run + LAST) - load64(run + FIRST)))
    put_pair(boot, _WRONG_TEXT, load64(v + _WRONG_AT) + load64(run + WRONG))
    put_pair(boot, _KICKS, load64(v + _KICKS_AT))
    vector = load64(v + _VECTOR)
    put_text(boot, _INTERRUPTS)
    put_number(boot, 0 if vector < 0 else interrupt_count(load64(v + _BLOCK), vector))
    put_pair(boot, _HALTS, load64(v + _HALTS_AT))
    put_pair(boot, _SPIN, spin)
    end_line(boot)


@routine
def fill_buffers(v, destination, source, length):
    """Write the frame behind the header of each buffer."""
    for i in range(load64(v + _SIZE)):
        write_frame(load64(v + _BUFFERS) + i * BUFFER + HEADER, destination, source, length)


@routine
def frame_of(v, count):
    """Return the address of the frame of the ``count``-th chain."""
    return load64(v + _BUFFERS) + place_of(v, count) * BUFFER + HEADER


@routine
def send_chains(v, count, length):
    """Offer the next ``count`` buffers with a frame of ``length`` bytes each."""
    offered = load64(v + _OFFERED)
    for i in range(count):
        set_length(v, place_of(v, offered + i), HEADER + length)
    offer(v, count)


@routine
def await_sent(v, deadline):
    """Wait until the device has returned all that was offered, or the time is past ``deadline``."""
    while load64(v + _DONE) != load64(v + _OFFERED) and timestamp() < deadline:
        pause()
        refresh(v)


@routine
def send_all(block, boot, v, run, packets, deadline, batch, rate, length, numbered, spin):
    """Send frames until there were ``packets``, or the ``deadline`` is over; look at each chain that comes back.

    With a ``rate``, no more of them per second.
    """
    sent = 0
    seen = load64(v + _DONE)
    now = timestamp()
    store64(run + FIRST, now)
    while sent < packets and now < deadline:
        wanted = most_due(boot, rate, sent, min(batch, packets - sent), now - load64(run + FIRST))
        if wanted <= 0:
            nap(block, boot)
            now = timestamp()
            report(boot, run, now)
            continue
        if ready(v) < wanted and await_ready(v, boot, max(wanted, load64(v + _SIZE) >> 2), spin, deadline) == 0:
            break
        while seen < load64(v + _DONE):
            take_length(v)
            seen += 1
        if numbered != 0:
            for i in range(wanted):
                store64(frame_of(v, sent + i) + NUMBER_AT, sent + i)
        send_chains(v, wanted, length)
        sent += wanted
        store64(run + PACKETS, sent)
        now = timestamp()
        report(boot, run, now)
    await_sent(v, timestamp() + cycles_of(boot, _PATIENCE_MS))
    store64(run + LAST, timestamp())
    store64(run + BYTES, sent * length)


@routine
def receive_all(boot, v, run, packets, deadline, patience, batch, numbered, spin):
    """Receive until there were ``packets``, or none came for ``patience`` cycles, or the ``deadline`` is over."""
    received = 0
    octets = 0
    until = deadline
    while received < packets:
        if await_ready(v, boot, 1, spin, until) == 0:
            break
        now = timestamp()
        if received == 0:
            store64(run + FIRST, now)
        if ready(v) < _FEW:
            for _ in range(_LITTLE):
                pause()
            refresh(v)
        count = min(ready(v), batch, packets - received)
        for i in range(count):
            if numbered != 0 and load64(frame_of(v, received + i) + NUMBER_AT) != received + i:
                store64(run + WRONG, load64(run + WRONG) + 1)
            octets += take_length(v) - HEADER
        offer(v, count)
        received += count
        store64(run + LAST, now)
        store64(run + PACKETS, received)
        until = min(deadline, now + patience)
        report(boot, run, now)
    store64(run + BYTES, octets)


@routine
def ether_pktgen(block, boot):
    """Run on the processor of ``block``, and end the machine."""
    cmdline = load64(boot + _CMDLINE)
    port = open_ether(block, boot, number_option(cmdline, _PORT, 0))
    run = allocate(boot, _RUN_SIZE, 64)
    if port == 0 or run == 0:
        fail(boot)
    length = number_option(cmdline, _LENGTH, SHORTEST)
    if length < SHORTEST or length > BUFFER - HEADER:
        say(boot, _NO_LENGTH)
        fail(boot)
    tx = load64(port + TX)
    batch = max(1, min(number_option(cmdline, _BATCH, _DEFAULT_BATCH), load64(tx + _SIZE) >> 1))
    packets = number_option(cmdline, _COUNT, _MOST_PACKETS)
    spin = spin_of(block, boot, cmdline)
    numbered = 1 if find_option(cmdline, _NUMBERED) != 0 else 0
    if find_option(cmdline, _REPORT) != 0:
        store64(run + NEXT_REPORT, timestamp() + cycles_of(boot, 1000))
    fill_buffers(tx, hex_option(cmdline, _DST, BROADCAST), load64(port + MAC), length)
    if option_is(cmdline, _FUNCTION, _TX) == 1:
        rate = rate_of(cmdline)
        say_port(boot, port)
        send_all(block, boot, tx, run, packets, deadline_of(boot, cmdline), batch, rate, length, numbered, spin)
        say_figures(boot, tx, run, spin)
    elif option_is(cmdline, _FUNCTION, _RX) == 1:
        send_chains(tx, 1, SHORTEST)  # a switch learns where this address is
        rx = load64(port + RX)
        say_port(boot, port)
        patience = cycles_of(boot, number_option(cmdline, _QUIET, _DEFAULT_QUIET))
        receive_all(boot, rx, run, packets, deadline_of(boot, cmdline), patience, batch, numbered, spin)
        say_figures(boot, rx, run, spin)
    else:
        say(boot, _NO_FUNCTION)
        fail(boot)
    close_ether(port)
    power_off(boot)
