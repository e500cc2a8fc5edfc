# SPDX-License-Identifier: BSD-2-Clause
"""What lb tells while it runs, and at its end: one JSON object per line, for programs that collect logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ptnetmap.tools.lb.balancer import Figures


class Periods:
    """Turns figures into lines with rates: those since the figures before."""

    def __init__(self, interface: str, figures: Figures, now: float) -> None:
        self._interface = interface
        self._before = figures
        self._then = now

    def lines(self, figures: Figures, now: float, ts: float) -> Iterator[str]:
        """Yield a line for each pipe, and one for all; ``now`` is a monotonic time, ``ts`` seconds since 1970."""
        seconds = max(now - self._then, 1e-9)
        before, self._before, self._then = self._before, figures, now
        for pipe, earlier in zip(figures.pipes, before.pipes, strict=True):
            yield _line(
                {
                    "ts": round(ts, 6),
                    "interface": pipe.name,
                    "output_ring": pipe.number,
                    "packets_forwarded": pipe.packets,
                    "packets_dropped": pipe.dropped,
                    **_rates(pipe, earlier, seconds),
                    "overflow_queue_size": pipe.backlog,
                }
            )
        yield _line(
            {
                "ts": round(ts, 6),
                "interface": self._interface,
                "output_ring": None,
                "packets_received": figures.received,
                "packets_forwarded": figures.packets,
                "packets_dropped": figures.dropped,
                "non_ip_packets": figures.non_ip,
                **_rates(figures, before, seconds),
                "free_buffer_slots": figures.free_buffers,
            }
        )


def summary(interface: str, figures: Figures, seconds: float) -> dict[str, Any]:
    """Return all figures of a run."""
    return {
        "interface": interface,
        "seconds": seconds,
        "packets_received": figures.received,
        "bytes_received": figures.received_bytes,
        "packets_forwarded": figures.packets,
        "packets_dropped": figures.dropped,
        "non_ip_packets": figures.non_ip,
        "bad_packets": figures.bad,
        "empty_packets": figures.empty,
        "extra_buffers": figures.extra_buffers,
        "pipes": [
            {
                "interface": pipe.name,
                "group": pipe.group,
                "output_ring": pipe.number,
                "packets_forwarded": pipe.packets,
                "bytes_forwarded": pipe.bytes,
                "packets_dropped": pipe.dropped,
                "bytes_dropped": pipe.dropped_bytes,
            }
            for pipe in figures.pipes
        ],
    }


def _rates(now: Any, before: Any, seconds: float) -> dict[str, float]:
    return {
        "data_forward_rate_Mbps": round((now.bytes - before.bytes) * 8 / seconds / 1e6, 4),
        "data_drop_rate_Mbps": round((now.dropped_bytes - before.dropped_bytes) * 8 / seconds / 1e6, 4),
        "packet_forward_rate_kpps": round((now.packets - before.packets) / seconds / 1e3, 4),
        "packet_drop_rate_kpps": round((now.dropped - before.dropped) / seconds / 1e3, 4),
    }


def _line(fields: dict[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"))
