# SPDX-License-Identifier: BSD-2-Clause
"""What netmapd tells of itself: its clients, their ports, and the kthreads that serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ptnetmap.netmap.adapter import Adapter, Part
from ptnetmap.netmap.daemon.exposure import ServedExposure
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.daemon.kloop import SyncLoop
from ptnetmap.netmap.daemon.kthreads import Service
from ptnetmap.netmap.daemon.ptnetmap import GuestLoop
from ptnetmap.netmap.daemon.virtio import VirtioPort
from ptnetmap.netmap.descriptor import Descriptor
from ptnetmap.netmap.kring import KIND_MONITOR, KIND_NIC, KIND_NULL, KIND_PIPE, KIND_VALE, KIND_VIRTQUEUE
from ptnetmap.netmap.wire import extension

_KINDS = {
    KIND_NULL: "null",
    KIND_PIPE: "pipe",
    KIND_VALE: "vale",
    KIND_MONITOR: "monitor",
    KIND_VIRTQUEUE: "virtio",
    KIND_NIC: "nic",
}


@dataclass
class Client:
    """One connection: upstream's file descriptor. ``pid`` is the process at its other end, 0 if unknown."""

    pid: int = 0
    descriptor: Descriptor | None = None
    loop: SyncLoop | GuestLoop | None = None
    virtio: VirtioPort | None = None
    pages: extension.Pages = field(default_factory=extension.Pages)

    @property
    def adapter(self) -> Adapter | None:
        """The port that goes with this connection, if there is one."""
        if self.virtio is not None:
            return self.virtio.adapter
        return self.descriptor.adapter if self.descriptor is not None else None

    @property
    def opened(self) -> str:
        """The name by which a port was opened here, empty if none is open."""
        if self.virtio is not None:
            return self.virtio.adapter.name
        return self.descriptor.name if self.descriptor is not None else ""

    def part(self, adapter: Adapter) -> Part:
        """Return what of its port, which is ``adapter``, the connection has."""
        return adapter.part(self.descriptor.rings if self.descriptor is not None else [])

    @property
    def services(self) -> Sequence[Service]:
        """What kthreads serve for it, other than through pages of our own."""
        serving = self.virtio or self.loop
        return serving.services if serving is not None else ()


class Introspection:
    """Tells of a :class:`Host`; ``clients`` returns all there are, ``generation`` tells this daemon from others."""

    def __init__(self, host: Host, clients: Callable[[], Iterable[Client]], generation: int) -> None:
        self.host = host
        self.clients = clients
        self.generation = generation

    def kthread_of(self, adapter: Adapter) -> int | None:
        """Return the number of the kthread that serves a port that somebody has, None if none does."""
        if services := self.loop_services(adapter):
            return services[0].kthread.number if services[0].kthread else None
        if adapter.kind == KIND_VIRTQUEUE:
            return None
        exposure = self.host.exposure(adapter)
        return exposure.kthread if isinstance(exposure, ServedExposure) and exposure.services else None

    def loop_services(self, adapter: Adapter) -> list[Service]:
        """What kthreads serve of a port through pages or queues of its user's."""
        return [service for one in self.clients() if one.adapter is adapter for service in one.services]

    def kthread_list(self) -> list[extension.KthreadEntry]:
        """All kthreads, and the ports that each serves."""
        return [
            {
                "kthread": thread.number,
                "tid": thread.tid,
                "cpu": thread.cpu,
                "ports": sorted({service.ring.port for service in thread.services}),
            }
            for thread in self.host.kthreads.threads
        ]

    def port_list(self) -> list[extension.PortEntry]:
        """All ports that somebody has."""
        return [self._port_entry(one, one.adapter) for one in self.clients() if one.adapter is not None]

    def _port_entry(self, client: Client, adapter: Adapter) -> extension.PortEntry:
        part = client.part(adapter)
        return {
            "name": part.name,
            "kind": _KINDS[adapter.kind],
            "tx_rings": len(part.tx),
            "rx_rings": len(part.rx),
            "tx_slots": adapter.shape.tx_slots,
            "rx_slots": adapter.shape.rx_slots,
            "mem_id": adapter.allocator.id,
            "pid": client.pid or None,
            "kthread": self.kthread_of(adapter),
        }

    def top_entry(self) -> extension.TopEntry:
        """All that ``ptnetmap top`` shows, but for the counters: these are in memory that it maps."""
        users: dict[tuple[Adapter, str], tuple[Part, list[int]]] = {}
        for one in self.clients():
            if one.adapter is not None:
                part = one.part(one.adapter)
                users.setdefault((one.adapter, part.name), (part, []))[1].append(one.pid)
        for adapter in self.host.attached_adapters():
            users.setdefault((adapter, adapter.name), (adapter.part([]), []))
        threads = self.host.kthreads.threads
        return {
            "generation": self.generation,
            "size": self.host.counters.memory.size,
            "ports": [self._top_port(adapter, part, pids) for (adapter, _), (part, pids) in users.items()],
            "kthreads": [
                {
                    "kthread": thread.number,
                    "cpu": thread.cpu,
                    "rings": len(thread.services),
                    "age_ns": thread.age_ns,
                    "asleep_ns": thread.asleep_ns,
                    "sleeps": thread.block["sleeps"],
                    "rounds": thread.block["rounds"],
                    "kicks": sum(service.block["kicks"] for service in thread.services),
                    "irqs": sum(service.block["irqs"] for service in thread.services),
                }
                for thread in threads
            ],
        }

    def _top_port(self, adapter: Adapter, part: Part, pids: list[int]) -> extension.TopPort:
        switch = getattr(adapter, "switch", None)
        return {
            "name": part.name,
            "kind": _KINDS[adapter.kind],
            "switch": switch.name if switch is not None else "",
            "tx": [self.host.counters.place_of(ring) for ring in part.tx],
            "rx": [self.host.counters.place_of(ring) for ring in part.rx],
            "slots": (adapter.shape.tx_slots, adapter.shape.rx_slots),
            "lossless": any(ring.block["lossless"] for ring in adapter.rx),
            "mode": getattr(adapter, "mode", None),
            "pids": pids,
            "kthread": self.kthread_of(adapter) if pids else None,
        }
