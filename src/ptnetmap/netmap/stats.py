# SPDX-License-Identifier: BSD-2-Clause
"""A port's counters, as users see them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptnetmap.netmap.counters import DROPS

if TYPE_CHECKING:
    from ptnetmap.netmap.adapter import Adapter
    from ptnetmap.netmap.ringstate import RingState


@dataclass(frozen=True)
class PortStats:
    """Totals over all rings of a port, since it was created.

    ``tx_*`` is what was taken from its TX rings, ``rx_*`` what was delivered to its RX rings. ``drops`` counts packets
    that this port sent and that went nowhere, by reason (see :mod:`ptnetmap.netmap.counters`), reasons with none left
    out; ``missed`` packets for this port that found its RX rings full; ``truncated`` slots delivered empty because the
    frame was bigger than the buffer or the reader's slot named none. ``reinits`` counts rings found overwritten, ``syncs``
    syncs that ran, ``skipped`` those that found another thread at the same ring.
    """

    tx_packets: int
    tx_bytes: int
    rx_packets: int
    rx_bytes: int
    missed: int
    truncated: int
    drops: dict[str, int]
    reinits: int
    syncs: int
    skipped: int

    @property
    def dropped(self) -> int:
        """Packets sent that went nowhere, for any reason."""
        return sum(self.drops.values())


def port_stats(adapter: Adapter, rings: Iterable[RingState]) -> PortStats:
    """Add up the counters of the port that a descriptor with some of an adapter's ``rings`` has."""
    part = adapter.part(rings)
    tx = [ring.counters() for ring in part.tx]
    rx = [ring.counters() for ring in part.rx]
    drops = {reason: sum(counters[reason] for counters in tx) for reason in DROPS}
    pipe = adapter.is_pipe
    return PortStats(
        tx_packets=sum(c["packets"] for c in tx),
        tx_bytes=sum(c["bytes"] for c in tx),
        rx_packets=sum(c["packets" if pipe else "received"] for c in rx),
        rx_bytes=sum(c["bytes" if pipe else "received_bytes"] for c in rx),
        missed=sum(c["missed"] for c in rx),
        truncated=sum(c["truncated"] for c in rx),
        drops={reason: count for reason, count in drops.items() if count},
        reinits=sum(c["reinits"] for c in tx + rx),
        syncs=sum(c["syncs"] for c in tx + rx),
        skipped=sum(c["skipped"] for c in tx + rx),
    )
