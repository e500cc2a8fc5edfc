# SPDX-License-Identifier: BSD-2-Clause
"""The directory: which ports, pipes and switches there are, and how a name that nobody has yet gets its adapter."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap import names
from ptnetmap.netmap.adapter import DEFAULT_SLOTS, MAX_SLOTS, Adapter, Shape, bounded
from ptnetmap.netmap.allocator import GLOBAL_ID, Allocator, AllocatorTable
from ptnetmap.netmap.epoch import Epoch, private_counters
from ptnetmap.netmap.geometry import Geometry, global_geometry, nic_geometry, private_geometry
from ptnetmap.netmap.lane import LaneMemory, private_lanes
from ptnetmap.netmap.monitorport import MonitorAdapter, check_watched
from ptnetmap.netmap.name_options import Conf
from ptnetmap.netmap.names import PortName
from ptnetmap.netmap.nic.adapter import MOST_QUEUES, NicAdapter, check_kind, check_layout
from ptnetmap.netmap.nic.interface import find_interface, queues_of
from ptnetmap.netmap.nic.locking import lockable
from ptnetmap.netmap.nic.message import Interface
from ptnetmap.netmap.nic.queues import NIC_MODES
from ptnetmap.netmap.nic.xsk import MOST_BUSY_POLL
from ptnetmap.netmap.pipeport import MAX_PIPE_RINGS, PipeEnd, PipePair
from ptnetmap.netmap.registration import HOST_MODES, MAX_EXTRA_BUFFERS, check_host_rings, select_rings
from ptnetmap.netmap.switch import Switch
from ptnetmap.netmap.tapadapter import TapAdapter
from ptnetmap.netmap.valeport import ValeAdapter
from ptnetmap.netmap.view import MAX_RINGS
from ptnetmap.netmap.virtioport import VirtioAdapter

_MONITOR = abi.NR_MONITOR_TX | abi.NR_MONITOR_RX

_Device = TypeVar("_Device", bound=ValeAdapter)

_SMALLER = ((2, 1), (0, 1), (0, 2), (0, 4), (0, 8), (0, 16))
"""Memory of an interface's port, the best first: room for so many pipes, and the usual slots divided by so much.

The kernel locks it, and there is a limit of locked memory.
"""


class Directory:
    """The adapters, pipes, switches and memory of one runtime. Not locked: the runtime's lock serialises its users.

    ``pools`` are pool shapes of private allocators, and ``force_xdp``, ``nic_mode`` and ``busy_poll``, as :class:`Netmap`
    takes them. An adapter leaves the directory by itself, when its last user drops it.
    """

    def __init__(
        self,
        max_switches: int,
        ageing: int,
        pools: dict[str, int],
        new_lanes: Callable[[int], LaneMemory] = private_lanes,
        new_counters: Callable[[], Any] = private_counters,
        *,
        force_xdp: bool = False,
        nic_mode: str = "auto",
        busy_poll: int = 0,
    ) -> None:
        if nic_mode not in NIC_MODES:
            raise PortError(
                errno.EINVAL, f"netmap: {nic_mode!r} is no mode of interfaces\n        use {', '.join(NIC_MODES)}"
            )
        if not 0 <= busy_poll <= MOST_BUSY_POLL:
            raise PortError(
                errno.EINVAL,
                f"netmap: drivers cannot be polled for {busy_poll} frames at a time\n"
                f"        use 1 to {MOST_BUSY_POLL}, or 0 to leave them their interrupts",
            )
        self._nic_mode = nic_mode
        self._busy_poll = busy_poll
        self._force_xdp = force_xdp
        self._pools: Any = pools
        private_geometry(1, 1, DEFAULT_SLOTS, DEFAULT_SLOTS, **self._pools)  # refuse impossible shapes now
        self._max_switches = max_switches
        self._ageing = ageing
        self._new_lanes = new_lanes
        self.epoch = Epoch(new_counters)
        self.allocators = AllocatorTable(global_geometry())
        self.switches: dict[str, Switch] = {}
        self.adapters: dict[str, Adapter] = {}
        self.pipes: dict[tuple[str, str], PipePair] = {}

    def find_or_create(self, parsed: PortName, conf: Conf, flags: int, extra_bufs: int) -> Adapter:
        """Return the adapter that a name stands for, in upstream's order: monitor, pipe, VALE port, interface."""
        mem_id = parsed.mem_id or self._shared_id(parsed.share)
        if flags & _MONITOR:
            return self._make_monitor(parsed, conf, flags, mem_id)
        return self._find_or_create_plain(parsed.name, conf, mem_id, extra_bufs)

    def _find_or_create_plain(self, name: str, conf: Conf, mem_id: int, extra_bufs: int = 0) -> Adapter:
        pipe = names.split_pipe(name)
        if pipe is not None:
            return self._pipe_end(pipe, conf, mem_id)
        adapter = self.adapters.get(name) or self.attached(name)
        if isinstance(adapter, NicAdapter) and adapter.is_gone:
            adapter = None
        if adapter is not None:
            _check_memory(adapter, mem_id)
            return adapter
        if names.is_vale(name):
            return self._make_ephemeral(name, conf, mem_id, extra_bufs)
        interface = find_interface(name)
        if interface is not None:
            return self._make_nic(interface, conf, mem_id, extra_bufs)
        raise PortError(
            errno.ENXIO,
            f"netmap: no port or network interface is called {name}\n"
            f"        create it (vale-ctl -n {name}, Netmap.create), or use valeX:Y",
        )

    def _shared_id(self, name: str | None) -> int:
        if name is None:
            return 0
        pipe = names.split_pipe(name)
        pair = self.pipes.get((pipe.base, pipe.id)) if pipe else None
        adapter = pair.parent if pair else self.adapters.get(name) or self.attached(name)
        if adapter is None:
            raise PortError(
                errno.ENXIO, f"netmap: cannot share the memory of {name}: no port is called that\n        open it first"
            )
        return adapter.allocator.id

    def named(self, name: str) -> Adapter:
        """Return the port or pipe end of this name. Raises PortError (ENXIO)."""
        pipe = names.split_pipe(name)
        pair = self.pipes.get((pipe.base, pipe.id)) if pipe else None
        if pipe is not None and pair is not None:
            return pair.master if pipe.role == "master" else pair.slave
        adapter = self.adapters.get(name) or self.attached(name)
        if adapter is None:
            raise PortError(errno.ENXIO, f"netmap: no port is called {name}\n        open it first")
        return adapter

    def attached(self, name: str) -> Adapter | None:
        """Return the persistent port that is attached to a switch under this name, such as "vale0:foo"."""
        vale = names.split_vale(name)
        switch = self.switches.get(vale.switch) if vale else None
        attachment = switch.find(name) if switch else None
        return attachment.adapter if attachment else None

    def _allocator(self, mem_id: int, shape: Shape, extra_bufs: int) -> Allocator:
        if mem_id:
            return self.allocators.find(mem_id)
        geometry: Geometry = private_geometry(
            shape.tx_rings, shape.rx_rings, shape.tx_slots, shape.rx_slots, extra_bufs=extra_bufs, **self._pools
        )
        return self.allocators.create(geometry)

    def drop_allocator(self, allocator: Allocator) -> None:
        """Stop using an allocator; a private one goes with its last user."""
        allocator.drop()
        self.allocators.discard(allocator)

    def new_vale(self, name: str, conf: Conf, mem_id: int, extra_bufs: int, *, persistent: bool) -> ValeAdapter:
        """Make a VALE port, and its memory unless ``mem_id`` says whose; the caller enters it where it belongs."""
        shape = Shape(
            bounded(conf.tx_rings, 1, MAX_RINGS),
            bounded(conf.rx_rings, 1, MAX_RINGS),
            bounded(conf.tx_slots, DEFAULT_SLOTS, MAX_SLOTS),
            bounded(conf.rx_slots, DEFAULT_SLOTS, MAX_SLOTS),
        )
        allocator = self._allocator(mem_id, shape, min(extra_bufs, MAX_EXTRA_BUFFERS))
        for slots in (shape.tx_slots, shape.rx_slots):
            allocator.geometry.require_ring(slots)
        allocator.retain()
        return ValeAdapter(name, self.epoch, allocator, shape, persistent=persistent)

    def _make_ephemeral(self, name: str, conf: Conf, mem_id: int, extra_bufs: int) -> ValeAdapter:
        vale = names.split_vale(name)
        if vale is None:
            raise PortError(errno.EINVAL, f"netmap: {name} is not the name of a switch's port\n        write valeX:Y")
        if isinstance(self.adapters.get(vale.port), ValeAdapter):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot open {name}: {vale.port} is a persistent port that is not attached to {vale.switch}\n"
                f"        attach it (vale-ctl -a {name}, Netmap.attach), or use another name",
            )
        adapter = self.new_vale(name, conf, mem_id, extra_bufs, persistent=False)
        try:
            self.switch(vale.switch).add(adapter, name)
        except Exception:
            self.drop_allocator(adapter.allocator)
            raise
        self.adapters[name] = adapter
        adapter.on_unused = lambda _: self._end_ephemeral(adapter)
        return adapter

    def _end_ephemeral(self, adapter: ValeAdapter) -> None:
        del self.adapters[adapter.name]
        self.leave_switch(adapter)
        self.drop_allocator(adapter.allocator)

    def new_virtio(self, name: str, pairs: int, most: int) -> VirtioAdapter:
        """Make a port of a switch whose rings are a device's virtqueues, ``pairs`` of up to ``most`` entries.

        Raises PortError: EINVAL for a name that is no port of a switch, EBUSY if there is such a port, ENOMEM.
        """
        return self._put_on_switch(VirtioAdapter(name, self.epoch, self.allocators.find(GLOBAL_ID), pairs, most))

    def new_tap(self, name: str, fd: int) -> TapAdapter:
        """Make a port of a switch for the tap device ``fd``. Raises as :meth:`new_virtio`."""
        return self._put_on_switch(TapAdapter(name, self.epoch, self.allocators.find(GLOBAL_ID), fd))

    def _put_on_switch(self, adapter: _Device) -> _Device:
        name = adapter.name
        vale = names.split_vale(name)
        if vale is None:
            raise PortError(errno.EINVAL, f"netmap: {name} is not the name of a switch's port\n        write valeX:Y")
        if name in self.adapters or self.attached(name) is not None:
            raise PortError(
                errno.EBUSY,
                f"netmap: cannot create {name}: there is such a port\n        use another name, or close it",
            )
        self.switch(vale.switch).add(adapter, name)
        self.adapters[name] = adapter
        adapter.on_unused = lambda _: self._end_device(adapter)
        return adapter

    def _make_nic(self, interface: Interface, conf: Conf, mem_id: int, extra_bufs: int) -> NicAdapter:
        """Make a port of a network interface, with as many rings as it has queues, and memory laid out for AF_XDP."""
        check_kind(interface)
        tx, rx = (min(queues, MOST_QUEUES) for queues in queues_of(interface.name))
        tx_slots = bounded(conf.tx_slots, DEFAULT_SLOTS, MAX_SLOTS)
        rx_slots = bounded(conf.rx_slots, DEFAULT_SLOTS, MAX_SLOTS)
        if mem_id:
            allocator = self.allocators.find(mem_id)
            check_layout(interface.name, allocator)
            return self._put_nic(interface, allocator, Shape(tx, rx, tx_slots, rx_slots))
        extra = min(extra_bufs, MAX_EXTRA_BUFFERS)
        limit = sys.maxsize if self._nic_mode == "af_packet" else lockable()
        for pipes, divisor in _SMALLER:
            shape = Shape(
                tx,
                rx,
                tx_slots if conf.tx_slots else tx_slots // divisor,
                rx_slots if conf.rx_slots else rx_slots // divisor,
            )
            pools = self._pools if pipes else {"buf_num": 2, **self._pools}  # no more buffers than are needed
            geometry = nic_geometry(tx, rx, shape.tx_slots, shape.rx_slots, pipes, extra_bufs=extra, **pools)
            if geometry.buf_pool.size <= limit:
                break
        return self._put_nic(interface, self.allocators.create(geometry), shape)

    def _put_nic(self, interface: Interface, allocator: Allocator, shape: Shape) -> NicAdapter:
        for slots_of_one in (shape.tx_slots, shape.rx_slots):
            allocator.geometry.require_ring(slots_of_one)
        allocator.retain()
        try:
            adapter = NicAdapter(
                interface,
                self.epoch,
                allocator,
                shape,
                force=self._force_xdp,
                mode=self._nic_mode,
                busy_poll=self._busy_poll,
            )
        except BaseException:
            self.drop_allocator(allocator)
            raise
        self.adapters[interface.name] = adapter
        adapter.on_unused = lambda _: self._end_nic(adapter)
        return adapter

    def _end_nic(self, adapter: NicAdapter) -> None:
        adapter.close()
        if self.adapters.get(adapter.name) is adapter:  # another interface of that name may have come
            del self.adapters[adapter.name]
        self.drop_allocator(adapter.allocator)

    def _end_device(self, adapter: ValeAdapter) -> None:
        del self.adapters[adapter.name]
        self.leave_switch(adapter)

    def switch(self, name: str) -> Switch:
        """Return the switch of this name, made if need be."""
        if name not in self.switches:
            if len(self.switches) >= self._max_switches:
                raise PortError(
                    errno.ENOMEM,
                    f"netmap: cannot create switch {name}: there are {len(self.switches)} switches, and "
                    f"{self._max_switches} are allowed\n        use one of them, or Netmap(max_switches=...)",
                )
            self.switches[name] = Switch(name, self.epoch, self._ageing)
        return self.switches[name]

    def leave_switch(self, adapter: ValeAdapter) -> None:
        """Take a port off its switch, if it is on one; the switch goes with its last port."""
        switch = adapter.switch
        if switch is not None:
            switch.remove(switch.ports[adapter.index])
            if not switch.ports:
                del self.switches[switch.name]

    def _pipe_end(self, pipe: names.PipeName, conf: Conf, mem_id: int) -> PipeEnd:
        key = (pipe.base, pipe.id)
        pair = self.pipes.get(key)
        if pair is None:
            parent = self._pipe_parent(pipe.base, mem_id)
            shape = Shape(
                bounded(conf.tx_rings, 1, MAX_PIPE_RINGS),
                bounded(conf.rx_rings, 1, MAX_PIPE_RINGS),
                bounded(conf.tx_slots, parent.shape.tx_slots, MAX_SLOTS),
                bounded(conf.rx_slots, parent.shape.rx_slots, MAX_SLOTS),
            )
            if pipe.role == "slave":
                shape = Shape(shape.rx_rings, shape.tx_rings, shape.rx_slots, shape.tx_slots)
            pair = PipePair(
                parent, pipe.id, self.epoch, shape, lambda ended: self._end_pipe(key, ended), self._new_lanes
            )
            parent.retain()
            self.pipes[key] = pair
        _check_memory(pair.parent, mem_id)
        return pair.master if pipe.role == "master" else pair.slave

    def _pipe_parent(self, name: str, mem_id: int) -> Adapter:
        """Return the port that pipes of this base name hang on; one that does not exist is made for them."""
        try:
            return self._find_or_create_plain(name, Conf(), mem_id)
        except PortError as error:
            if error.errno != errno.ENXIO:
                raise
        adapter = self.new_vale(name, Conf(), mem_id, 0, persistent=True)
        self.enter_persistent(adapter)
        return adapter

    def enter_persistent(self, adapter: ValeAdapter) -> None:
        """List a port by its name, until its last user drops it."""
        self.adapters[adapter.name] = adapter
        adapter.on_unused = lambda _: self._end_persistent(adapter)

    def _end_persistent(self, adapter: ValeAdapter) -> None:
        del self.adapters[adapter.name]
        self.drop_allocator(adapter.allocator)

    def _end_pipe(self, key: tuple[str, str], pair: PipePair) -> None:
        del self.pipes[key]
        pair.parent.drop()

    def _make_monitor(self, parsed: PortName, conf: Conf, flags: int, mem_id: int) -> MonitorAdapter:
        # Looked for first: a monitor, unlike other descriptors, does not bring the port into being.
        pipe = names.split_pipe(parsed.name)
        if pipe is None and parsed.name not in self.adapters and not self.attached(parsed.name):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot monitor {parsed.name}: nobody has it open\n        open the port first, then its monitor",
            )
        if pipe is not None and (pipe.base, pipe.id) not in self.pipes:
            raise PortError(
                errno.EINVAL, f"netmap: cannot monitor {parsed.name}: no such pipe\n        open the pipe first"
            )
        parent = self._find_or_create_plain(parsed.name, Conf(), 0)
        part = parent.part([])
        if parsed.mode in HOST_MODES:
            check_host_rings(parsed, parent)
            part = parent.part(select_rings(parsed, parent, 0))
        check_watched(part)
        rings = max(len(part.tx), len(part.rx))
        slots = bounded(conf.rx_slots, max(parent.shape.tx_slots, parent.shape.rx_slots), MAX_SLOTS)
        shape = Shape(1, rings, bounded(conf.tx_slots, parent.shape.tx_slots, MAX_SLOTS), slots)
        if flags & abi.NR_ZCOPY_MON:
            _check_memory(parent, mem_id)
            mem_id = parent.allocator.id
        allocator = self._allocator(mem_id, shape, 0)
        allocator.retain()
        parent.retain()
        monitor = MonitorAdapter(parent, part, self.epoch, allocator, shape, flags)
        monitor.on_unused = lambda _: self._end_monitor(monitor)
        return monitor

    def _end_monitor(self, monitor: MonitorAdapter) -> None:
        self.drop_allocator(monitor.allocator)
        monitor.parent.drop()

    def persistent(self, name: str) -> ValeAdapter:
        """Return the persistent port of this name. Raises PortError (ENXIO)."""
        adapter = self.adapters.get(name)
        if not isinstance(adapter, ValeAdapter) or not adapter.persistent:
            raise PortError(
                errno.ENXIO,
                f"netmap: no persistent port is called {name}\n        create it (vale-ctl -n {name}, Netmap.create)",
            )
        return adapter

    def vale(self, name: str) -> ValeAdapter:
        """Return the VALE port of this name, or under this name on a switch. Raises PortError (ENXIO)."""
        adapter = self.adapters.get(name) or self.attached(name)
        if not isinstance(adapter, ValeAdapter):
            raise PortError(errno.ENXIO, f"netmap: no VALE port is called {name}\n        open or create it first")
        return adapter


def _check_memory(adapter: Adapter, mem_id: int) -> None:
    if mem_id and mem_id != adapter.allocator.id:
        raise PortError(
            errno.EINVAL,
            f"netmap: cannot open {adapter.name} with mem_id {mem_id}: it uses {adapter.allocator.id} already\n"
            "        leave out @, or close the port everywhere first",
        )
