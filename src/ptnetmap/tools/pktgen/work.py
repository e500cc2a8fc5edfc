# SPDX-License-Identifier: BSD-2-Clause
"""One thread's work: a task, filled in from the options, and the Python around its kernel's loop."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from math import gcd
from typing import Any

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PeerError, PortError
from ptnetmap.jit.block import Block
from ptnetmap.netmap.port import POLLERR, POLLIN, POLLOUT
from ptnetmap.netmap.scratch import scratch
from ptnetmap.tools.pktgen import options as bits
from ptnetmap.tools.pktgen import sequence, task
from ptnetmap.tools.pktgen.dump import dump_slots
from ptnetmap.tools.pktgen.fields import stage
from ptnetmap.tools.pktgen.frame import Frame
from ptnetmap.tools.pktgen.latency import ping, pong
from ptnetmap.tools.pktgen.options import Options
from ptnetmap.tools.pktgen.receive import receive
from ptnetmap.tools.pktgen.report import UNTOUCHED, Counts, Log, RoundTrips
from ptnetmap.tools.pktgen.transmit import transmit

KERNELS: dict[str, Any] = {
    "tx": transmit,
    "rx": receive,
    "ping": ping,
    "pong": pong,
    "txseq": transmit,
    "rxseq": receive,
}
"""The loop of each function: called with a task's address and the thread's scratch."""

LOOK = 0.1
"""Seconds after which a sleeping thread looks whether it should stop."""

IDLE = 1.0
"""Seconds without packets after which a receiver may leave, a ping is given up, and waiting is reported."""

NOTES = 10
_FOREVER = (1 << 62) - 1
_LINE = 64
_BODIES = {"tx": "sender_body", "rx": "receiver_body", "ping": "ping_body", "pong": "pong_body"}


class Work:
    """What one thread does on one port, and how far it is. ``share`` are the packets it has to do, 0 without end.

    ``began`` and ``ended`` are in nanoseconds of the monotonic clock, 0 until then.
    """

    def __init__(
        self, options: Options, frame: Frame, port: Any, number: int, *, header: int, share: int, log: Log
    ) -> None:
        self.options = options
        self.port = port
        self.number = number
        self.began = 0
        self.ended = 0
        self.show: Callable[[str], None] = print
        self._log = log
        self._body = _BODIES[options.function.removesuffix("seq")] if options.function != "ping" else "ping_body"
        self._kernel = KERNELS[options.function]
        self._krings = {kind: np.array(getattr(port, f"{kind}_krings"), np.int64).reshape(-1) for kind in ("tx", "rx")}
        self.task = Block(task.task)
        self._limit = share or _FOREVER
        self._ask(header)
        self._give_frame(frame, header)

    # -- setting up ---------------------------------------------------------------------------------------------------

    def _ask(self, header: int) -> None:
        o, t = self.options, self.task
        self._check_rings()
        for kind, addresses in self._krings.items():
            t[kind] = addresses.ctypes.data
            t[f"{kind}_count"] = len(addresses)
        t["burst"] = o.burst
        t["limit"] = self._limit
        t["header"] = header
        t["random"] = int.from_bytes(os.urandom(4), "little") | 1
        t["flow"] = int.from_bytes(os.urandom(4), "little")
        t["notes_left"] = NOTES
        if o.rate:
            nanoseconds = 1_000_000_000 * o.threads
            common = gcd(nanoseconds, o.rate)
            t["period"], t["per"] = nanoseconds // common, o.rate // common
        if o.function == "rxseq":
            self._flows = Block(sequence.flow, sequence.FLOWS)
            t["flows"] = self._flows.address
        if o.has(bits.TIMESTAMP):
            for ring in (*self.port.tx_rings, *self.port.rx_rings):
                ring.flags |= abi.NR_TIMESTAMP

    def _check_rings(self) -> None:
        name, function = self.port.name, self.options.function
        if not self.port.tx_rings and not self.options.receives:
            raise PortError(errno.EIO, f"pkt-gen: cannot {function} on {name}: it has no TX ring\n        leave out /R")
        if not self.port.rx_rings and not self.options.sends:
            raise PortError(errno.EIO, f"pkt-gen: cannot {function} on {name}: it has no RX ring\n        leave out /T")

    def _give_frame(self, frame: Frame, header: int) -> None:
        o, t = self.options, self.task
        size = len(frame.data) if o.template else o.size
        least = size if o.template else o.least_size
        length = header + size
        self._staging = Block(np.uint8, max(length, header + len(frame.data)) + _LINE)
        self._staging.items[header : header + len(frame.data)] = np.frombuffer(frame.data, np.uint8)
        t["staging"] = self._staging.address
        t["size"], t["least"] = size, least
        t["payload_at"], t["udp_at"] = frame.payload_at, frame.udp_at
        t["ip_checksum_at"], t["ip_sum"] = frame.ip_checksum_at, frame.ip_sum
        self._sums = frame.udp_sums  # the kernel has its address
        t["udp_sums"] = self._sums.ctypes.data
        for i, f in enumerate(frame.fields):
            t.items["fields"][0][i] = (f.first, f.first, f.last, f.at, f.random)
        t["macs"] = any(f.changes for f in frame.fields[:2])
        t["ips"] = any(f.changes for f in frame.fields[2:])
        t["port_sum"] = sum(f.first for f in frame.fields[2::2])
        t["address_sum"] = sum((f.first >> 16) + (f.first & 0xFFFF) for f in frame.fields[3::2])
        self._cut(length)
        t["mode"] = self._mode(varies=frame.changes or least != size)
        if o.receives:
            return
        if o.has(bits.INDIRECT):
            self._give_indirect(length)
        if not t["mode"] & (task.REFILL | task.RUBBISH):
            self._fill()

    def _cut(self, length: int) -> None:
        """Say how a packet of ``length`` bytes is cut into slots."""
        o, t = self.options, self.task
        t["fragments"] = max(o.fragments, 1)
        if o.receives or not self.port.tx_rings:
            return
        ring = self.port.tx_rings[0]
        piece = o.fragment_size or (ring.nr_buf_size if o.fragments == 1 and length > ring.nr_buf_size else 0)
        fragments = -(-length // piece) if piece else o.fragments
        if o.fragments > 1 and o.fragment_size and fragments > o.fragments:
            raise PortError(
                errno.EMSGSIZE,
                f"pkt-gen: cannot send {length:,} bytes as {o.fragments} fragments of {piece:,}\n"
                f"        use -F {fragments}, or -M {-(-length // o.fragments)}",
            )
        most = min(abi.NETMAP_MAX_FRAGS, min(r.num_slots for r in self.port.tx_rings) - 1)
        largest = piece or -(-length // fragments)
        if fragments > most or largest > ring.nr_buf_size:
            raise PortError(
                errno.EMSGSIZE,
                f"pkt-gen: cannot send {length:,} bytes as {fragments} fragments of {largest:,}: "
                f"{most} of {ring.nr_buf_size:,} are the most\n        use a smaller -l, or other -F and -M",
            )
        t["fragments"], t["fragment_size"] = fragments, piece

    def _mode(self, *, varies: bool) -> int:
        o, t = self.options, self.task
        numbered = o.function in ("txseq", "rxseq")
        stamped = o.function == "ping"
        # What the rings hold of earlier packets, which others may be reading, cannot be written over now.
        pending = any(ring.space() < ring.num_slots - 1 for ring in self.port.tx_rings)
        copies = o.has(bits.COPY | bits.MEMCPY) or pending
        refill = varies or numbered or stamped or copies or t["fragments"] > 1 or o.has(bits.INDIRECT)
        mode = task.REFILL if refill and not o.receives else 0
        for bit, wanted in (
            (task.RUBBISH, o.has(bits.RUBBISH)),
            (task.INDIRECT, o.has(bits.INDIRECT)),
            (task.HOLD, o.has(bits.DUMP) and o.function in ("tx", "rx", "txseq", "rxseq")),
            (task.DRY, o.port == "null"),
            (task.NUMBERED, numbered),
            (task.STAMPED, stamped),
            (task.PREFETCH, o.has(bits.PREFETCH)),
            (task.ACCESS, o.has(bits.ACCESS)),
        ):
            mode |= bit if wanted else 0
        return mode

    def _give_indirect(self, length: int) -> None:
        """Make room outside the buffers for a packet per slot."""
        stride = -(-(length + _LINE) // _LINE) * _LINE
        self._indirect = Block(np.uint8, stride * max(ring.num_slots for ring in self.port.tx_rings))
        self.task["indirect"], self.task["stride"] = self._indirect.address, stride

    def _fill(self) -> None:
        """Write the frame into every buffer of the TX rings, once and for all."""
        stage(self.task.address, self.task["size"])
        frame = self._staging.items[: self.task["header"] + self.task["size"]]
        for ring in self.port.tx_rings:
            for i in range(ring.num_slots):
                ring.buffer(i)[: len(frame)] = frame

    # -- figures ------------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> Counts:
        """How far it is."""
        return Counts(self.task["packets"], self.task["bytes"], self.task["events"])

    @property
    def round_trips(self) -> RoundTrips:
        """What ping has measured."""
        t = self.task
        return RoundTrips(t["replies"], t["least_ns"], t["total_ns"], tuple(t.items["buckets"][0].tolist()))

    def take_space(self) -> int:
        """Return the least number of slots found waiting since the last call."""
        space = self.task["space"]
        self.task["space"] = UNTOUCHED
        return space

    def stop(self) -> None:
        """End soon. Safe to call from a signal handler."""
        self.task["stop"] = 1

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, cpu: int = -1) -> None:
        """Work until it is done or stopped; in a thread of its own. Raises PortError or PeerError for a broken ring."""
        if cpu >= 0:
            os.sched_setaffinity(threading.get_native_id(), {cpu})
        fd = self.port.region_fd
        if self.options.receives:
            self._log(self._body, f"reading from {self.port.name} fd {fd} main_fd {fd}")
            self._wait_for_first()
        else:
            self._log(self._body, f"start, fd {fd} main_fd {fd}")
        self.began = time.monotonic_ns()
        try:
            self._loop()
        finally:
            if not self.ended:
                self.ended = time.monotonic_ns()

    def _stopped(self) -> bool:
        return bool(self.task["stop"])

    def _wait_for_first(self) -> None:
        """Wait for the first packet, as long as it takes."""
        looks = 0
        while not self._stopped() and not self._poll(POLLIN):
            looks += 1
            if looks * LOOK >= IDLE:
                looks = 0
                self._log(self._body, "waiting for initial packets, poll returns 0 0")

    def _poll(self, events: int) -> int:
        ready = int(self.port.poll(events, LOOK))
        if ready & POLLERR:
            self._complain()
        return ready

    def _loop(self) -> None:
        waited = 0
        idle_since = 0
        before = -1
        while True:
            with self.port.in_use:
                outcome = int(self._kernel(self.task.address, scratch()))
            if self.task["packets"] + self.task["replies"] != before:
                before = self.task["packets"] + self.task["replies"]
                idle_since = 0
            match outcome:
                case task.DONE | task.STOPPED:
                    return
                case task.FULL:
                    self._wait_for_room()
                case task.EMPTY:
                    now = time.monotonic_ns()
                    idle_since = idle_since or now
                    if (now - idle_since) / 1e9 >= IDLE and self._gave_up(idle_since):
                        return
                    self._poll(POLLIN)
                case task.EARLY:
                    self._sleep_until(self.task["due"])
                case task.HELD:
                    self._show_held()
                case task.UNSENT:
                    waited += 1
                    time.sleep(min(0.0005 * waited, LOOK))
                case task.NOTED:
                    self._note()
                case _:
                    self._complain()

    def _gave_up(self, idle_since: int) -> bool:
        """Act on a second without packets; return whether the run is over."""
        if self.options.function == "ping":
            self.task["awaited"] = 0
        elif self.options.receives and self.options.exit_when_idle:
            self.ended = idle_since
            return True
        return False

    def _wait_for_room(self) -> None:
        """Wait for more room than there is: cur says from where on."""
        with self.port.in_use:
            if self.options.port != "null":
                for ring in self.port.tx_rings:
                    ring.cur = ring.tail
            try:
                self._poll(POLLOUT)
            finally:
                if self.options.port != "null":
                    for ring in self.port.tx_rings:
                        ring.cur = ring.head

    def _sleep_until(self, due: int) -> None:
        left = (due - time.monotonic_ns()) / 1e9
        if left > 0:
            time.sleep(min(left, LOOK))

    def _show_held(self) -> None:
        rings = self.port.rx_rings if self.options.receives else self.port.tx_rings
        ring = rings[self.task["turn"]]
        self.show(dump_slots(ring, ring.head, self.task["held"]))

    def _note(self) -> None:
        t = self.task
        what = {task.GAP: "GAP", task.DISORDER: "OUT OF ORDER"}[t["note"]]
        self._log(
            "rxseq_body",
            f"Sequence {what}: flow {t['note_flow']:08x} expected {t['note_expected']} got {t['note_got']}",
        )

    def _complain(self) -> None:
        """Raise what is wrong with the port's rings."""
        self.port.txsync()
        self.port.rxsync()
        raise PeerError(
            errno.EIO,
            f"pkt-gen: the rings of {self.port.name} have been overwritten\n"
            "        something else writes head, cur or buf_idx: close the port and open it again",
        )
