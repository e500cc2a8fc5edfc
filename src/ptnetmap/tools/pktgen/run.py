# SPDX-License-Identifier: BSD-2-Clause
"""A whole run of pkt-gen: say what is going to happen, start the threads, report, and sum up."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ptnetmap.jit.warmup import compile_now, warm_up
from ptnetmap.tools.pktgen import options as bits
from ptnetmap.tools.pktgen.fields import stage
from ptnetmap.tools.pktgen.frame import Frame, make_frame
from ptnetmap.tools.pktgen.options import FUNCTIONS, OptionError, Options
from ptnetmap.tools.pktgen.ports import HeaderSetter, Opener, agree_on_header, open_ports, port_mac
from ptnetmap.tools.pktgen.report import FRAMING_BITS, SHORTEST_US, Counts, Figures, Log, Periods, RoundTrips, total
from ptnetmap.tools.pktgen.work import KERNELS, NOTES, Work

_VERBS = {"tx": "Sending on", "txseq": "Sending on", "rx": "Receiving from", "rxseq": "Receiving from"}
_NAP = 0.05


class Run:
    """One run. ``opener`` opens its ports; ``out`` prints a line of standard output.

    ``set_header`` gives a port a virtio-net header; without it the port itself is asked to (embedded runtime).
    """

    def __init__(
        self,
        options: Options,
        opener: Opener,
        out: Callable[[str], None] = print,
        set_header: HeaderSetter | None = None,
    ) -> None:
        self.options = options
        self._opener = opener
        self._set_header = set_header
        self._out: Callable[[str], None] = (lambda _: None) if options.json else out
        self._print = out
        self._log = Log(quiet=options.json)
        self._framing = FRAMING_BITS if options.framing else 0
        self._works: list[Work] = []
        self._interrupted = False
        self._finished = threading.Event()
        self._failures: list[BaseException] = []

    def run(self) -> int:
        """Do it all; return the exit code, which is 0 also after an interrupt.

        Raises OptionError for CPUs that this machine has not got, PtnetmapError for ports that cannot be opened or used.
        """
        cpus = self._cpus()
        log, o = self._log, self.options
        log("main", f"interface is {o.port}")
        if o.default_burst:
            log("main", f"using default burst size: {FUNCTIONS[o.function]}")
        log("main", f"running on {self._cpu_count()} cpus (have {os.cpu_count()})")
        for part in (o.source, o.destination):
            log("extract_ip_range", f"range is {part.describe()}")
        with ExitStack() as stack, self._interrupts():
            ports = open_ports(o, self._opener, stack)
            self._prepare(ports)
            self._announce(ports[0])
            self._wait()
            self._work(cpus)
        if self._failures:
            raise self._failures[0]
        self._sum_up()
        return 0

    # -- before -------------------------------------------------------------------------------------------------------

    def _cpu_count(self) -> int:
        return self.options.cpus or os.cpu_count() or 1

    def _cpus(self) -> list[int]:
        """CPU of each thread, -1 for any. Raises OptionError for one that does not exist."""
        o = self.options
        have = os.cpu_count() or 1
        if o.cpus > have:
            raise OptionError(f"{o.cpus} cpus is too high, have only {have} cpus")
        if o.cpu < 0:
            return [-1] * o.threads
        if o.cpu not in os.sched_getaffinity(0):
            raise OptionError(f"option -a: CPU {o.cpu} is not one that this process may use")
        spread = self._cpu_count() if o.cpus_given else have
        return [(o.cpu + i % spread) % have for i in range(o.threads)]

    def _prepare(self, ports: list[Any]) -> None:
        """Build the frame and each thread's work, and have its kernel compiled."""
        o = self.options
        header = agree_on_header(ports[0], o, self._set_header)
        frame = make_frame(o, port_mac(ports[0], o.port))
        kernel = KERNELS[o.function]
        warm_up(f"pkt-gen {o.function}", (stage, kernel))
        if hasattr(kernel, "compile"):
            compile_now(kernel)
        for i, port in enumerate(ports):
            self._works.append(self._one(frame, port, i, header))

    def _one(self, frame: Frame, port: Any, number: int, header: int) -> Work:
        o = self.options
        share = o.packets // o.threads + (number < o.packets % o.threads)
        if o.packets and not share:
            share = -1
        work = Work(o, frame, port, number, header=header, share=share, log=self._log)
        work.show = self._out
        return work

    def _announce(self, port: Any) -> None:
        o, log = self.options, self._log
        if o.verbose and port.memsize:
            address = port.interface.ctypes.data - port.nifp_offset
            log("main", f"mapped {port.memsize >> 10}KB at 0x{address:x}")
        queues = sum(len(w.port.tx_rings if o.sends else w.port.rx_rings) for w in self._works)
        verb = _VERBS.get(o.function, "Working on")
        self._out(f"{verb} {o.port}: {queues} queues, {o.threads} threads and {self._cpu_count()} cpus.")
        if o.sends:
            macs = " -> ".join(
                part.text if part else _mac_text(port_mac(port, o.port)) for part in (o.source_mac, o.destination_mac)
            )
            self._out(f"{o.source.text} -> {o.destination.text} ({macs})")
            gap = o.burst * 1_000_000_000 // o.rate if o.rate else 0
            log("main", f"Sending {o.burst} packets every {gap // 1_000_000_000:2d}.{gap % 1_000_000_000:09d} s")

    def _wait(self) -> None:
        self._log("main", f"Wait {self.options.wait} secs for phy reset")
        until = time.monotonic() + self.options.wait
        while (left := until - time.monotonic()) > 0 and not self._interrupted:
            time.sleep(min(left, _NAP))
        self._log("main", "Ready...")

    # -- meanwhile ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Let the first interrupt end the run in good order, and another one end the process."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: object) -> None:
            # Only memory is written here: the main thread may be inside a lock that anything else would want.
            self._interrupted = True
            for work in self._works:
                work.stop()
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _work(self, cpus: list[int]) -> None:
        """Run the threads, and report until all of them have ended."""
        left = len(self._works)
        lock = threading.Lock()

        def body(work: Work, cpu: int) -> None:
            nonlocal left
            try:
                work.run(cpu)
            except BaseException as failure:
                self._failures.append(failure)
                for other in self._works:
                    other.stop()
            finally:
                with lock:
                    left -= 1
                    if left == 0:
                        self._finished.set()

        threads = [
            threading.Thread(target=body, args=(work, cpu), name=f"pkt-gen-{work.number}")
            for work, cpu in zip(self._works, cpus, strict=True)
        ]
        if self._interrupted:
            return
        for thread in threads:
            thread.start()
        self._report()
        for thread in threads:
            thread.join()

    def _report(self) -> None:
        """Print a line per period."""
        o = self.options
        periods = Periods(normalize=o.normalize, framing=self._framing, average=o.has(bits.STATISTICS))
        before, trips = Counts(), self._round_trips()
        start = time.monotonic_ns()
        done = False
        while not done:
            done = self._finished.wait(o.report_ms / 1000)
            now = time.monotonic_ns()
            usec = (now - start) // 1000
            if usec < SHORTEST_US:
                continue
            counts = total([work.counts for work in self._works])
            space = min(work.take_space() for work in self._works)
            self._log("main_thread", periods.line(counts - before, usec, space))
            if o.function == "ping":
                latest = self._round_trips()
                self._report_trips(latest - trips)
                trips = latest
            for work in self._works:
                work.task["notes_left"] = NOTES
            before, start = counts, now

    def _round_trips(self) -> RoundTrips:
        parts = [work.round_trips for work in self._works]
        return RoundTrips(
            sum(p.count for p in parts),
            min((p.least for p in parts if p.count), default=0),
            sum(p.total for p in parts),
            tuple(sum(column) for column in zip(*(p.buckets for p in parts), strict=True)),
        )

    def _report_trips(self, trips: RoundTrips) -> None:
        if trips.count:
            self._log("ping_body", trips.line())
            self._log("ping_body", trips.histogram())

    # -- after --------------------------------------------------------------------------------------------------------

    def _sum_up(self) -> None:
        o = self.options
        began = [w.began for w in self._works if w.began]
        seconds = (max(w.ended for w in self._works) - min(began)) / 1e9 if began else 0.0
        figures = Figures(total([work.counts for work in self._works]), seconds, self._framing)
        extra = self._extra()
        if o.json:
            head = {"function": o.function, "port": o.port, "threads": o.threads}
            self._print(json.dumps(head | figures.as_json() | extra))
            return
        if o.sends or o.receives:
            for line in figures.lines("Sent" if o.sends else "Received", o.normalize):
                self._out(line)
        if o.function == "ping":
            self._out(self._round_trips().final())
        if o.function == "rxseq":
            self._log(
                "main", f"Sequence: {extra['gaps']} gaps, {extra['missing']} missing, {extra['disorders']} out of order"
            )

    def _extra(self) -> dict[str, Any]:
        """Figures that only some functions have."""
        tasks = [work.task for work in self._works]
        if self.options.function == "rxseq":
            return {name: sum(t[name] for t in tasks) for name in ("gaps", "missing", "disorders")}
        if self.options.function == "ping":
            trips = self._round_trips()
            return {
                "replies": trips.count,
                "rtt_min_ns": trips.least,
                "rtt_average_ns": trips.average,
                "rtt_histogram": {1 << k: amount for k, amount in enumerate(trips.buckets) if amount},
            }
        return {}


def _mac_text(address: int) -> str:
    return address.to_bytes(6, "big").hex(":")
