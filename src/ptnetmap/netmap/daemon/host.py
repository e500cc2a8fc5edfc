# SPDX-License-Identifier: BSD-2-Clause
"""The runtime of a daemon: an embedded one whose ports are exposed to other processes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.ma  # np.unique would import it when a port first goes, and no descriptor may be left then

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.warmup import warm_up
from ptnetmap.netmap import names
from ptnetmap.netmap.adapter import Adapter
from ptnetmap.netmap.allocator import GLOBAL_ID
from ptnetmap.netmap.daemon.counting import CounterArena
from ptnetmap.netmap.daemon.exposure import Exposure, ServedExposure, expose
from ptnetmap.netmap.daemon.kthreads import KThreads
from ptnetmap.netmap.daemon.tapport import TapPort
from ptnetmap.netmap.descriptor import Descriptor
from ptnetmap.netmap.directory import Directory
from ptnetmap.netmap.kthread import run_kthread
from ptnetmap.netmap.lane import LaneMemory, lane
from ptnetmap.netmap.pipeport import PipeEnd
from ptnetmap.netmap.queuering import queue_suppress_kicks
from ptnetmap.netmap.runtime import KERNELS, Netmap
from ptnetmap.netmap.shared import SharedBlock
from ptnetmap.netmap.tapadapter import TapAdapter
from ptnetmap.netmap.tapdevice import is_tap, open_tap
from ptnetmap.netmap.virtioport import VirtioAdapter
from ptnetmap.netmap.wire.registration import Registration

_MONITOR = abi.NR_MONITOR_TX | abi.NR_MONITOR_RX


def _shared_lanes(count: int) -> LaneMemory:
    block = SharedBlock("netmap-lanes", lane, count)
    block.items[:] = np.zeros((), lane)
    return block


class Host(Netmap):
    """The ports, switches and kthreads of a daemon. Used by its control thread only.

    ``relay``: the socket of another netmapd, whose ports the virtio-net devices of this one get.
    """

    def __init__(
        self, kthreads: Callable[[], KThreads] = KThreads, *, relay: str | None = None, **options: Any
    ) -> None:
        self.relay = relay
        warm_up("daemon", (*KERNELS, queue_suppress_kicks, run_kthread))
        self.counters = CounterArena()
        super().__init__(**options)
        self.kthreads = kthreads()  # not before kernels are compiled
        self._exposures: dict[object, Exposure] = {}
        self._taps: dict[str, TapPort] = {}

    def _make_directory(self, max_switches: int, ageing: int, pools: dict[str, int], **nic: Any) -> Directory:
        return Directory(max_switches, ageing, pools, _shared_lanes, self.counters.take, **nic)

    def close(self) -> None:
        """Close all ports and end the kthreads."""
        while self._uplinks:
            self.detach(next(iter(self._uplinks)))
        for descriptor in list(self._ports):
            self.unregister(descriptor)
        for name in list(self._taps):
            self.detach(name)
        super().close()
        self.kthreads.stop()

    # -- bindings of other processes ----------------------------------------------------------------------------------

    def bind(self, wanted: Registration) -> Descriptor:
        """Bind a port for another process, and expose it. Raises as :meth:`Netmap.open`."""
        port = wanted.port
        if wanted.flags & _MONITOR and names.split_pipe(port.name):
            raise PortError(
                errno.EOPNOTSUPP,
                f"netmap: cannot monitor {port.name}: its two processes exchange packets without netmapd\n"
                "        monitor a port of a switch, or use the pipe in an embedded Netmap()",
            )
        if port.mode == abi.NR_REG_NULL:
            shape = (wanted.conf.tx_rings, wanted.conf.rx_rings, wanted.conf.tx_slots)
            descriptor = self.register_null(Descriptor, port.mem_id, *shape)
        else:
            descriptor = self.register(
                Descriptor, str(port), port, wanted.conf, wanted.flags & ~abi.NR_REG_MASK, wanted.extra_bufs
            )
        try:
            exposure = self._expose(descriptor.adapter)
            exposure.users += 1
            if wanted.flags & abi.NR_PTNETMAP_HOST:
                exposure.pass_through(descriptor.rings)
            else:
                exposure.start(descriptor.rings)
        except Exception:
            self.unregister(descriptor)
            raise
        return descriptor

    def _expose(self, adapter: Adapter) -> Exposure:
        key = _key(adapter)
        if key not in self._exposures:
            self._exposures[key] = expose(adapter, self.kthreads)
        return self._exposures[key]

    def exposure(self, adapter: Adapter) -> Exposure:
        """Return an adapter's exposure. Raises PortError (ENXIO) if no process has it bound."""
        exposure = self._exposures.get(_key(adapter))
        if exposure is None:
            raise PortError(errno.ENXIO, f"netmap: no process has {adapter.name} open\n        open it first")
        return exposure

    def unregister(self, descriptor: Descriptor) -> None:
        """End another process's binding: nobody serves its rings any more, then all that it had is given back."""
        exposure = self._exposures.get(_key(descriptor.adapter))
        if exposure is not None:
            exposure.stop([ring for ring in descriptor.rings if ring.users == 1])
            exposure.users -= 1
            if exposure.users <= 0:
                del self._exposures[_key(descriptor.adapter)]
        adapter = descriptor.adapter
        descriptor.close()
        if isinstance(adapter, PipeEnd) and adapter.other.bound and not adapter.bound:
            adapter.pair.mend(adapter)

    def move(self, name: str, kthread: int) -> int:
        """Let another kthread serve a port; return the one that did. Raises PortError."""
        adapter = self._directory.named(name)
        exposure = self._exposures.get(_key(adapter))
        if not isinstance(exposure, ServedExposure):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot move {name}: no kthread serves it\n        pipes are served by their users",
            )
        return exposure.move(kthread)

    def create_virtio(self, name: str, pairs: int, most: int) -> VirtioAdapter:
        """Make a port of a switch for a virtio-net device. Raises PortError, see :meth:`Directory.new_virtio`."""
        with self._lock:
            adapter = self._directory.new_virtio(name, pairs, most)
            adapter.retain()
            return adapter

    def create_joined(self, name: str, pairs: int, most: int) -> VirtioAdapter:
        """Make what a virtio-net device has in place of a port of a switch: queues that are joined to other rings."""
        adapter = VirtioAdapter(name, self.epoch, self.allocators.find(GLOBAL_ID), pairs, most)
        adapter.retain()
        return adapter

    def create_tap(self, name: str, fd: int) -> TapAdapter:
        """Make a port of a switch for a tap device. Raises PortError, see :meth:`Directory.new_tap`."""
        with self._lock:
            adapter = self._directory.new_tap(name, fd)
            adapter.retain()
            return adapter

    def attach(self, name: str, *, host: bool = False) -> int:
        """Attach a persistent port, a tap device or an interface to a switch. Raises as :meth:`Netmap.attach`."""
        vale = names.split_vale(name)
        if host or vale is None or vale.port in self._directory.adapters or not is_tap(vale.port):
            return super().attach(name, host=host)
        port = TapPort(self, name, open_tap(vale.port))
        self._taps[name] = port
        return port.adapter.index

    def detach(self, name: str) -> int:
        """Undo :meth:`attach`. Raises as :meth:`Netmap.detach`."""
        port = self._taps.pop(name, None)
        return super().detach(name) if port is None else port.close()

    # -- what there is ------------------------------------------------------------------------------------------------

    @property
    def keeps_state(self) -> bool:
        """Whether something would be lost that no client holds: persistent ports, and devices on switches."""
        return bool(self._taps or self._uplinks) or any(
            getattr(adapter, "created", False) for adapter in self._directory.adapters.values()
        )

    def attached_adapters(self) -> list[Adapter]:
        """All ports on switches."""
        return [port.adapter for switch in self.switches.values() for port in switch.ports.values()]

    def describe(self, descriptor: Descriptor) -> dict[str, Any]:
        """All that the process at the other end needs to know of its binding, beside the REGISTER answer."""
        adapter = descriptor.adapter
        exposure = self.exposure(adapter)
        return {
            "how": exposure.how,
            "memory": [block.size for block in exposure.memory],
            "name": adapter.name,
            "flags": descriptor.flags,
            "header": adapter.header,
            "shape": asdict(adapter.shape),
            "geometry": asdict(adapter.allocator.geometry),
            "rings": [
                {
                    "direction": ring.direction,
                    "index": ring.index,
                    "slots": ring.num_slots,
                    "offset": ring.offset,
                    **exposure.describe(ring),
                }
                for ring in descriptor.rings
            ],
        }


def _key(adapter: Adapter) -> object:
    """Return what an exposure belongs to: both ends of a pipe share one."""
    return adapter.pair if isinstance(adapter, PipeEnd) else adapter
