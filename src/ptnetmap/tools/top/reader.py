# SPDX-License-Identifier: BSD-2-Clause
"""Taking snapshots of a netmapd: one request, and a look into the memory of its counters."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from typing import Any

from ptnetmap.errors import PortError
from ptnetmap.netmap.client.session import Session
from ptnetmap.netmap.counters import counters
from ptnetmap.netmap.shared import Mapping, check_sealed
from ptnetmap.netmap.stats import PortStats
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.codec import Values
from ptnetmap.netmap.wire.error import malformed
from ptnetmap.netmap.wire.request import Request
from ptnetmap.tools.top.snapshot import Occupied, PortSample, Snapshot

_ELSEWHERE = -1


class Reader:
    """Reads one netmapd, through a session that stays the caller's. The counters are mapped once, read-only."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._counters: Any = None

    def read(self) -> Snapshot:
        """Take a snapshot. Raises PortError as :meth:`Session.request`, DaemonGoneError if netmapd has gone."""
        entry = self._ask()
        samples = (self._sample(port) for port in entry["ports"])
        ports = tuple(sample for sample in samples if sample is not None)
        return Snapshot(
            self._session.address,
            self._session.daemon.version,
            entry["generation"],
            time.monotonic_ns(),
            ports,
            tuple(entry["kthreads"]),
        )

    def _ask(self) -> extension.TopEntry:
        fds: list[int] = []

        def ask(reqtype: int, name: str, body: Values) -> Values:
            answer, more = self._session.ask(Request(reqtype, name, dict(body)))
            fds.extend(more)
            return answer.fields

        try:
            entry: extension.TopEntry = extension.introspect(ask, extension.TOP)
            if self._counters is None:
                if not fds:
                    raise malformed("netmapd has sent no descriptor of its counters")
                self._map(fds[0], entry["size"])
            return entry
        finally:
            for fd in fds:
                os.close(fd)

    def _map(self, fd: int, size: int) -> None:
        check_sealed(fd, size, "the memory of netmapd's counters")
        self._counters = Mapping(fd, size, writable=False).view(0, counters, size // counters.itemsize)

    def _sample(self, port: extension.TopPort) -> PortSample | None:
        """Return a port's counters; None if it has gone since it was listed."""
        places = [*port["tx"], *port["rx"]]
        if not all(_ELSEWHERE <= place < len(self._counters) for place in places):
            raise malformed(f"netmapd's counters of {port['name']} are at {places} of {len(self._counters)}")
        tx = Occupied(None, len(port["tx"]) * port["slots"][0])
        rx = Occupied(None, len(port["rx"]) * port["slots"][1])
        if _ELSEWHERE in places:
            body = self._stats(port["name"])
            if body is None:
                return None
        else:
            tx_rings, rx_rings = self._rings(port["tx"]), self._rings(port["rx"])
            body = extension.stats_body(tx_rings, rx_rings, is_pipe=port["kind"] == "pipe")
            if port["kthread"] is not None and port["kthread"] >= 0:
                tx = Occupied(sum(ring["occupied"] for ring in tx_rings), tx.slots)
                rx = Occupied(sum(ring["occupied"] for ring in rx_rings), rx.slots)
        return PortSample(port, PortStats(**extension.stats_fields(body)), tx, rx, time.monotonic_ns())

    def _rings(self, places: Sequence[int]) -> list[dict[str, int]]:
        copies = self._counters[list(places)]
        return [dict(zip(counters.names or (), ring.item(), strict=True)) for ring in copies]

    def _stats(self, name: str) -> Values | None:
        """Ask for counters that are elsewhere, as a pipe's; None if nothing has this name any more."""
        try:
            return self._session.request(extension.PORT_STATS, name, {})
        except PortError as error:
            if error.errno != errno.ENXIO:
                raise
            return None
