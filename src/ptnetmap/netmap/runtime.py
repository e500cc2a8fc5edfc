# SPDX-License-Identifier: BSD-2-Clause
"""The embedded runtime: ports, switches and memory of one process, without a daemon."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.warmup import warm_up
from ptnetmap.netmap import binding, names, packets, sync
from ptnetmap.netmap.adapter import DEFAULT_SLOTS, MAX_SLOTS, Adapter, Shape, bounded
from ptnetmap.netmap.allocator import Allocator, AllocatorTable
from ptnetmap.netmap.audit import Audit, audit
from ptnetmap.netmap.binding import MAX_BOUND
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.geometry import Geometry, global_geometry, private_geometry
from ptnetmap.netmap.kring import KIND_NULL
from ptnetmap.netmap.learning import DEFAULT_AGEING, learning_entry
from ptnetmap.netmap.monitorport import MonitorAdapter, check_parent
from ptnetmap.netmap.name_options import Conf
from ptnetmap.netmap.names import PortName
from ptnetmap.netmap.pipeport import MAX_PIPE_RINGS, PipeEnd, PipePair
from ptnetmap.netmap.port import Port
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.switch import Switch
from ptnetmap.netmap.valeport import ValeAdapter
from ptnetmap.netmap.view import MAX_RINGS

MAX_SWITCHES = 8
MAX_EXTRA_BUFFERS = 128 * 4096
_MONITOR = abi.NR_MONITOR_TX | abi.NR_MONITOR_RX
_HOST_MODES = (abi.NR_REG_SW, abi.NR_REG_NIC_SW, abi.NR_REG_ONE_SW)


_KERNELS = (
    sync.txsync,
    sync.rxsync,
    sync.unsent,
    packets.put_frames,
    packets.get_frames,
    binding.wait,
    binding.wait_sent,
    learning_entry,
)
"""What ports call, in an order in which the later ones find their pieces compiled."""


class NullAdapter(Adapter):
    """A port whose syncs do nothing: a handle on an allocator's memory."""

    kind = KIND_NULL


class Netmap:
    """The embedded runtime. Ports of one Netmap see each other; two Netmaps share nothing.

    ::

        with Netmap() as nm, nm.open("vale0:a") as a, nm.open("vale0:b") as b:
            a.send([bytes(60)])
            print(b.recv())

    ``max_switches`` bounds the VALE switches that may exist at a time; ``ageing`` is what new switches forget a silent
    address after (seconds, 0 = never). Pool shapes (``if_size``, ``if_num``, ``ring_size``, ``ring_num``, ``buf_size``,
    ``buf_num``) replace the defaults of private allocators. Control calls may come from any thread.
    """

    def __init__(self, *, max_switches: int = MAX_SWITCHES, ageing: int = DEFAULT_AGEING, **pools: int) -> None:
        warm_up("runtime", _KERNELS)
        self._lock = threading.RLock()
        self._pools: Any = pools
        self._max_switches = max_switches
        self._ageing = ageing
        self.epoch = Epoch()
        self.allocators = AllocatorTable(global_geometry())
        self.switches: dict[str, Switch] = {}
        self._adapters: dict[str, Adapter] = {}
        self._pipes: dict[tuple[str, str], PipePair] = {}
        self._wrappers: dict[str, ValeAdapter] = {}
        self._ports: set[Port] = set()
        private_geometry(1, 1, DEFAULT_SLOTS, DEFAULT_SLOTS, **self._pools)  # refuse impossible shapes now

    def __enter__(self) -> Netmap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Netmap: {len(self._ports)} open ports, {len(self.switches)} switches>"

    def close(self) -> None:
        """Close all ports."""
        for port in list(self._ports):
            port.close()

    # -- opening ------------------------------------------------------------------------------------------------------

    def open(
        self,
        name: str,
        *,
        lossless: bool = False,
        extra_bufs: int = 0,
        flags: int = 0,
        tx_rings: int = 0,
        rx_rings: int = 0,
        tx_slots: int = 0,
        rx_slots: int = 0,
    ) -> Port:
        """Open a port by its name, as nm_open and nmport do: ``vale0:1``, ``netmap:x{1``, ``vale0:1/r``, ...

        ``extra_bufs`` asks for buffers beyond the rings'; ``port.extra_bufs`` tells how many were granted. ``lossless``
        holds senders back while this (VALE) port is full. Ring and slot counts, if given, override the name's
        ``@conf``. ``flags`` are more NR_* registration flags. Raises NameSyntaxError, PortError or MemoryPoolError with
        upstream's errno.
        """
        parsed = names.parse(name)
        given = {"tx_rings": tx_rings, "rx_rings": rx_rings, "tx_slots": tx_slots, "rx_slots": rx_slots}
        merged = {key: value or getattr(parsed.conf, key) for key, value in given.items()}
        conf = Conf(**merged, host_tx_rings=parsed.conf.host_tx_rings, host_rx_rings=parsed.conf.host_rx_rings)
        if parsed.extmem is not None or parsed.offset is not None:
            option = "@extmem" if parsed.extmem is not None else "@offset"
            raise PortError(
                errno.EOPNOTSUPP, f"netmap: cannot open {name}: {option} is not supported\n        leave it out"
            )
        if extra_bufs < 0:
            raise PortError(
                errno.EINVAL, f"netmap: cannot open {name}: extra_bufs is {extra_bufs}\n        give 0 or more"
            )
        with self._lock:
            adapter = self._find_or_create(parsed, conf, parsed.flags | flags, extra_bufs)
            adapter.retain()
            try:
                _check_registration(parsed, adapter, parsed.flags | flags)
                port = self._bind(name, parsed, adapter, parsed.flags | flags, extra_bufs)
            except Exception:
                adapter.drop()
                raise
            if lossless:
                self._set_lossless(port)
            return port

    def null(self, mem_id: int, *, tx_rings: int = 0, rx_rings: int = 0, slots: int = DEFAULT_SLOTS) -> Port:
        """Open a NULL port: no traffic, only a handle on allocator ``mem_id``'s memory.

        Raises PortError (EINVAL) without a mem_id or with one that does not exist.
        """
        if mem_id == 0:
            raise PortError(
                errno.EINVAL, "netmap: a NULL port needs a mem_id\n        use port.mem_id of the port to share with"
            )
        with self._lock:
            allocator = self.allocators.find(mem_id)
            shape = Shape(
                min(tx_rings, MAX_BOUND), min(rx_rings, MAX_BOUND), *[bounded(slots, DEFAULT_SLOTS, MAX_SLOTS)] * 2
            )
            adapter = NullAdapter("null", self.epoch, allocator, shape)
            allocator.retain()
            adapter.on_unused = lambda _: self._drop_allocator(allocator)
            adapter.retain()
            try:
                return self._bind(f"null@{mem_id}", PortName("null"), adapter, 0, 0)
            except Exception:
                adapter.drop()
                raise

    def _set_lossless(self, port: Port) -> None:
        try:
            port.lossless = True
        except PortError:
            port.close()
            raise

    def _bind(self, name: str, parsed: PortName, adapter: Adapter, flags: int, extra_bufs: int) -> Port:
        rings = _select_rings(parsed, adapter, flags)
        allocator = adapter.allocator
        if_object = allocator.ifs.allocate(1, f"a descriptor of {name}")[0]
        try:
            adapter.bind(rings, bool(flags & abi.NR_EXCLUSIVE))
        except Exception:
            allocator.ifs.release([if_object])
            raise
        if isinstance(adapter, MonitorAdapter):
            adapter.watch(rings)
        port = Port(self, name, adapter, rings, flags, if_object)
        _write_interface(port, adapter, rings)
        _grant_extra(port, allocator, min(extra_bufs, MAX_EXTRA_BUFFERS))
        self._ports.add(port)
        return port

    def forget(self, port: Port) -> None:
        """Undo what :meth:`open` did; called by :meth:`Port.close`."""
        with self._lock:
            if port not in self._ports:
                return
            self._ports.discard(port)
            adapter = port.adapter
            last = [ring for ring in port._rings if ring.users == 1]
            for monitor in list(adapter.monitors):
                if isinstance(monitor, MonitorAdapter):
                    monitor.source_gone(last)
            if isinstance(adapter, MonitorAdapter):
                adapter.unwatch()
            for ring in port._rings:
                ring.wake()
            adapter.unbind(port._rings)
            if isinstance(adapter, ValeAdapter):
                adapter.release_senders()
            port.release()
            adapter.drop()

    # -- finding and making adapters ----------------------------------------------------------------------------------

    def _find_or_create(self, parsed: PortName, conf: Conf, flags: int, extra_bufs: int) -> Adapter:
        """Return the adapter that a name stands for, in upstream's order: monitor, pipe, VALE port, interface."""
        mem_id = parsed.mem_id or self._shared_id(parsed.share)
        if flags & _MONITOR:
            return self._make_monitor(parsed, conf, flags, mem_id)
        return self._find_or_create_plain(parsed.name, conf, mem_id, extra_bufs)

    def _find_or_create_plain(self, name: str, conf: Conf, mem_id: int, extra_bufs: int = 0) -> Adapter:
        pipe = names.split_pipe(name)
        if pipe is not None:
            return self._pipe_end(pipe, conf, mem_id)
        adapter = self._adapters.get(name) or self._attached(name)
        if adapter is not None:
            _check_memory(adapter, mem_id)
            return adapter
        if names.is_vale(name):
            return self._make_ephemeral(name, conf, mem_id, extra_bufs)
        raise PortError(
            errno.ENXIO,
            f"netmap: no port is called {name}\n        create it with Netmap.create({name!r}), or use valeX:Y",
        )

    def _shared_id(self, name: str | None) -> int:
        if name is None:
            return 0
        pipe = names.split_pipe(name)
        pair = self._pipes.get((pipe.base, pipe.id)) if pipe else None
        adapter = pair.parent if pair else self._adapters.get(name) or self._attached(name)
        if adapter is None:
            raise PortError(
                errno.ENXIO, f"netmap: cannot share the memory of {name}: no port is called that\n        open it first"
            )
        return adapter.allocator.id

    def _attached(self, name: str) -> Adapter | None:
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

    def _drop_allocator(self, allocator: Allocator) -> None:
        allocator.drop()
        self.allocators.discard(allocator)

    def _new_vale(self, name: str, conf: Conf, mem_id: int, extra_bufs: int, *, persistent: bool) -> ValeAdapter:
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
        if vale.port in self._adapters:
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot open {name}: {vale.port} is a persistent port that is not attached to {vale.switch}\n"
                f"        attach it with Netmap.attach({name!r}), or use another name",
            )
        adapter = self._new_vale(name, conf, mem_id, extra_bufs, persistent=False)
        try:
            self._switch(vale.switch).add(adapter, name)
        except Exception:
            self._drop_allocator(adapter.allocator)
            raise
        self._adapters[name] = adapter
        adapter.on_unused = lambda _: self._end_ephemeral(adapter)
        return adapter

    def _end_ephemeral(self, adapter: ValeAdapter) -> None:
        del self._adapters[adapter.name]
        self._leave_switch(adapter)
        self._drop_allocator(adapter.allocator)

    def _switch(self, name: str) -> Switch:
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

    def _leave_switch(self, adapter: ValeAdapter) -> None:
        switch = adapter.switch
        if switch is not None:
            switch.remove(switch.ports[adapter.index])
            if not switch.ports:
                del self.switches[switch.name]

    def _pipe_end(self, pipe: names.PipeName, conf: Conf, mem_id: int) -> PipeEnd:
        key = (pipe.base, pipe.id)
        pair = self._pipes.get(key)
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
            pair = PipePair(parent, pipe.id, self.epoch, shape, lambda ended: self._end_pipe(key, ended))
            parent.retain()
            self._pipes[key] = pair
        _check_memory(pair.parent, mem_id)
        return pair.master if pipe.role == "master" else pair.slave

    def _pipe_parent(self, name: str, mem_id: int) -> Adapter:
        """Return the port that pipes of this base name hang on; one that does not exist is made for them."""
        try:
            return self._find_or_create_plain(name, Conf(), mem_id)
        except PortError as error:
            if error.errno != errno.ENXIO:
                raise
        adapter = self._new_vale(name, Conf(), mem_id, 0, persistent=True)
        self._adapters[name] = adapter
        adapter.on_unused = lambda _: self._end_persistent(adapter)
        return adapter

    def _end_pipe(self, key: tuple[str, str], pair: PipePair) -> None:
        del self._pipes[key]
        pair.parent.drop()

    def _make_monitor(self, parsed: PortName, conf: Conf, flags: int, mem_id: int) -> MonitorAdapter:
        if (
            names.split_pipe(parsed.name) is None
            and parsed.name not in self._adapters
            and not self._attached(parsed.name)
        ):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot monitor {parsed.name}: nobody has it open\n        open the port first, then its monitor",
            )
        pipe = names.split_pipe(parsed.name)
        if pipe is not None and (pipe.base, pipe.id) not in self._pipes:
            raise PortError(
                errno.EINVAL, f"netmap: cannot monitor {parsed.name}: no such pipe\n        open the pipe first"
            )
        parent = self._find_or_create_plain(parsed.name, Conf(), 0)
        check_parent(parent, parsed.name)
        rings = max(parent.shape.tx_rings, parent.shape.rx_rings)
        slots = bounded(conf.rx_slots, max(parent.shape.tx_slots, parent.shape.rx_slots), MAX_SLOTS)
        shape = Shape(1, rings, bounded(conf.tx_slots, parent.shape.tx_slots, MAX_SLOTS), slots)
        if flags & abi.NR_ZCOPY_MON:
            _check_memory(parent, mem_id)
            mem_id = parent.allocator.id
        allocator = self._allocator(mem_id, shape, 0)
        allocator.retain()
        parent.retain()
        monitor = MonitorAdapter(parent, self.epoch, allocator, shape, flags)
        monitor.on_unused = lambda _: self._end_monitor(monitor)
        return monitor

    def _end_monitor(self, monitor: MonitorAdapter) -> None:
        self._drop_allocator(monitor.allocator)
        monitor.parent.drop()

    # -- persistent ports and switches --------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        mem_id: int = 0,
        tx_rings: int = 0,
        rx_rings: int = 0,
        tx_slots: int = 0,
        rx_slots: int = 0,
    ) -> None:
        """Create a persistent port (VALE_NEWIF): open it as ``netmap:NAME``, attach it to a switch as ``valeX:NAME``.

        Raises PortError: EEXIST if there is one, EINVAL for a name that begins with "vale" or is not a port's name.
        """
        names.parse(f"netmap:{name}")
        if names.is_vale(name) or names.split_pipe(name) or len(name) >= abi.IFNAMSIZ:
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot create a persistent port {name}: the name must have fewer than {abi.IFNAMSIZ} characters, "
                "not begin with vale, and be no pipe\n        choose another name",
            )
        with self._lock:
            if name in self._adapters:
                raise PortError(
                    errno.EEXIST, f"netmap: cannot create {name}: it exists\n        use it, or another name"
                )
            conf = Conf(tx_rings=tx_rings, rx_rings=rx_rings, tx_slots=tx_slots, rx_slots=rx_slots)
            adapter = self._new_vale(name, conf, mem_id, 0, persistent=True)
            adapter.created = True
            adapter.retain()
            adapter.on_unused = lambda _: self._end_persistent(adapter)
            self._adapters[name] = adapter

    def _end_persistent(self, adapter: ValeAdapter) -> None:
        del self._adapters[adapter.name]
        self._drop_allocator(adapter.allocator)

    def _persistent(self, name: str) -> ValeAdapter:
        adapter = self._adapters.get(name)
        if not isinstance(adapter, ValeAdapter) or not adapter.persistent:
            raise PortError(
                errno.ENXIO,
                f"netmap: no persistent port is called {name}\n        create it with Netmap.create({name!r})",
            )
        return adapter

    def delete(self, name: str) -> None:
        """Delete a persistent port (VALE_DELIF).

        Raises PortError: ENXIO if there is none, EBUSY while it is in use, EINVAL if it exists for its pipes only.
        """
        with self._lock:
            adapter = self._persistent(name)
            if not adapter.created:
                raise PortError(
                    errno.EINVAL,
                    f"netmap: cannot delete {name}: it exists while its pipes do\n        close them instead",
                )
            if adapter.switch is not None or adapter.references > 1:
                use = f"attached to {adapter.switch.name}" if adapter.switch else "open"
                raise PortError(
                    errno.EBUSY, f"netmap: cannot delete {name}: it is {use}\n        detach and close it first"
                )
            adapter.created = False
            adapter.drop()

    def attach(self, name: str) -> int:
        """Attach a persistent port to a switch (VALE_ATTACH), by a name such as "vale0:foo"; return its port number.

        A port may sit on two switches, and joins them: then nobody else can open it. Raises PortError: EINVAL for a
        name without "vale", ENXIO without such a port, EBUSY if it is attached there, or to two, already.
        """
        with self._lock:
            switch_name, port_name = _split(name)
            adapter = self._persistent(port_name)
            if self._attached(name):
                raise PortError(errno.EBUSY, f"netmap: cannot attach {name}: it is attached\n        detach it first")
            if adapter.switch is None:
                attachment = self._switch(switch_name).add(adapter, name)
                adapter.retain()
                return attachment.index
            return self._attach_second(switch_name, name, adapter)

    def _attach_second(self, switch_name: str, name: str, adapter: ValeAdapter) -> int:
        if adapter.owned_by_kernel:
            raise PortError(
                errno.EBUSY,
                f"netmap: cannot attach {name}: {adapter.owned_by_kernel}, and two is the most\n        detach it",
            )
        first = adapter.switch.name if adapter.switch else ""
        wrapper = self._new_vale(
            name,
            Conf(
                tx_rings=adapter.shape.rx_rings,
                rx_rings=adapter.shape.tx_rings,
                tx_slots=adapter.shape.rx_slots,
                rx_slots=adapter.shape.tx_slots,
            ),
            0,
            0,
            persistent=True,
        )
        wrapper.set_header(adapter.header)
        wrapper.retain()
        wrapper.on_unused = lambda _: self._drop_allocator(wrapper.allocator)
        try:
            adapter.start_kernel_use(f"it joins {first} and {switch_name}")
            wrapper.start_kernel_use("it is the other side of a port on two switches")
            attachment = self._switch(switch_name).add(wrapper, name)
        except Exception:
            for side in (adapter, wrapper):
                side.stop_kernel_use()
            wrapper.drop()
            raise
        wrapper.patch(adapter)
        adapter.patch(wrapper)
        self._wrappers[name] = wrapper
        return attachment.index

    def detach(self, name: str) -> int:
        """Detach a persistent port from a switch (VALE_DETACH); return the number it had.

        Raises PortError: EINVAL for a name without "vale" or of an ephemeral port, ENXIO if it is not attached there,
        EBUSY for the first attachment of a port that sits on two switches.
        """
        with self._lock:
            switch_name, port_name = _split(name)
            if name in self._wrappers:
                return self._detach_second(name, self._persistent(port_name))
            switch = self.switches.get(switch_name)
            attachment = switch.find(name) if switch else None
            if switch is None or attachment is None:
                raise PortError(
                    errno.ENXIO, f"netmap: cannot detach {name}: it is not attached\n        see Netmap.list()"
                )
            adapter = attachment.adapter
            if not adapter.persistent:
                raise PortError(
                    errno.EINVAL, f"netmap: cannot detach {name}: it exists while it is open\n        close it instead"
                )
            if adapter.owned_by_kernel:
                raise PortError(
                    errno.EBUSY,
                    f"netmap: cannot detach {name}: {adapter.owned_by_kernel}\n        detach the other first",
                )
            self._leave_switch(adapter)
            adapter.drop()
            return attachment.index

    def _detach_second(self, name: str, adapter: ValeAdapter) -> int:
        wrapper = self._wrappers.pop(name)
        index = wrapper.index
        adapter.patch(None)
        wrapper.patch(None)
        self._leave_switch(wrapper)
        wrapper.stop_kernel_use()
        adapter.stop_kernel_use()
        wrapper.drop()
        return index

    def list(self) -> list[tuple[str, int, int]]:
        """All ports on all switches: (name, number of the switch, number of the port there) (VALE_LIST)."""
        with self._lock:
            return [
                (port.name, number, index)
                for number, switch in enumerate(self.switches.values())
                for index, port in sorted(switch.ports.items())
            ]

    def switch(self, name: str) -> Switch:
        """Return a switch by its name, "vale0". Raises PortError (ENXIO) if it has no port yet."""
        with self._lock:
            if name not in self.switches:
                raise PortError(errno.ENXIO, f"netmap: no switch is called {name}\n        open a port on it first")
            return self.switches[name]

    def set_header(self, name: str, length: int) -> None:
        """Set the virtio-net header length of a VALE port (PORT_HDR_SET): 0, 10 or 12.

        Both sides of a port that joins two switches get it. Raises PortError: ENXIO if it is not a VALE port, EINVAL
        for another length.
        """
        with self._lock:
            adapter = self._vale(name)
            for side in (adapter, adapter.patched_to):
                if side is not None:
                    side.set_header(length)

    def header(self, name: str) -> int:
        """Return the virtio-net header length of a VALE port (PORT_HDR_GET)."""
        return self._vale(name).header

    def _vale(self, name: str) -> ValeAdapter:
        with self._lock:
            adapter = self._adapters.get(name) or self._attached(name)
            if not isinstance(adapter, ValeAdapter):
                raise PortError(errno.ENXIO, f"netmap: no VALE port is called {name}\n        open or create it first")
            return adapter

    # -- looking after memory -----------------------------------------------------------------------------------------

    def audit(self) -> Sequence[Audit]:
        """Account for every buffer of every region in use; each result's ``ok`` says whether it has one owner."""
        with self._lock:
            return [audit(allocator) for allocator in self.allocators if allocator.active]


def _split(name: str) -> tuple[str, str]:
    vale = names.split_vale(name)
    if vale is None:
        raise PortError(errno.EINVAL, f"netmap: {name} names no port of a switch\n        write valeX:NAME")
    return vale.switch, vale.port


def _check_memory(adapter: Adapter, mem_id: int) -> None:
    if mem_id and mem_id != adapter.allocator.id:
        raise PortError(
            errno.EINVAL,
            f"netmap: cannot open {adapter.name} with mem_id {mem_id}: it uses {adapter.allocator.id} already\n"
            "        leave out @, or close the port everywhere first",
        )


def _check_registration(parsed: PortName, adapter: Adapter, flags: int) -> None:
    """Raise PortError for a mode that the port does not have (EINVAL), or a header that is not expected (EIO)."""
    if parsed.mode in _HOST_MODES:
        raise PortError(
            errno.EINVAL,
            f"netmap: cannot open the host rings of {parsed.name}: it has none\n        only network interfaces do",
        )
    if adapter.header and not flags & abi.NR_ACCEPT_VNET_HDR:
        raise PortError(
            errno.EIO,
            f"netmap: cannot open {parsed.name}: its frames begin with a virtio-net header of {adapter.header} bytes\n"
            "        pass flags=NR_ACCEPT_VNET_HDR if the program expects that",
        )


def _select_rings(parsed: PortName, adapter: Adapter, flags: int) -> list[RingState]:
    """Return the rings that a registration's mode and flags ask for."""
    tx, rx = adapter.tx, adapter.rx
    if parsed.mode == abi.NR_REG_ONE_NIC:
        ringid = parsed.ringid
        if ringid >= max(len(tx), len(rx)):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot open ring {ringid} of {parsed.name}: it has {len(tx)} TX and {len(rx)} RX rings\n"
                "        rings are counted from 0",
            )
        # A direction that has fewer rings binds its first one, as upstream.
        tx = [tx[ringid if ringid < len(tx) else 0]]
        rx = [rx[ringid if ringid < len(rx) else 0]]
    if flags & abi.NR_TX_RINGS_ONLY:
        rx = []
    if flags & abi.NR_RX_RINGS_ONLY:
        tx = []
    return [*tx, *rx]


def _write_interface(port: Port, adapter: Adapter, rings: list[RingState]) -> None:
    """Fill this descriptor's netmap_if: offsets of the rings it has bound, 0 for the others and the fake host rings."""
    region = adapter.allocator.region
    interface = port.interface
    interface[0] = np.zeros((), abi.netmap_if)
    interface["ni_name"] = adapter.name.encode()[: abi.IFNAMSIZ - 1]
    interface["ni_version"] = abi.NETMAP_API
    interface["ni_flags"] = abi.NI_PRIV_MEM if adapter.allocator.id != 1 else 0
    interface["ni_tx_rings"] = len(adapter.tx)
    interface["ni_rx_rings"] = len(adapter.rx)
    interface["ni_host_tx_rings"] = 1
    interface["ni_host_rx_rings"] = 1
    count = len(adapter.tx) + len(adapter.rx) + 2
    ring_ofs = region.view(port.nifp_offset + abi.netmap_if.itemsize, np.int64, count)
    ring_ofs[:] = 0
    for ring in rings:
        place = abi.ring_offset_index(ring.direction, ring.index, len(adapter.tx), 1, abi.NETMAP_API)
        ring_ofs[place] = ring.offset - port.nifp_offset


def _grant_extra(port: Port, allocator: Allocator, wanted: int) -> None:
    """Allocate extra buffers, as many as there are, and link them: each one's first word is the next's number."""
    granted = min(wanted, allocator.bufs.available)
    if not granted:
        return
    buffers = allocator.bufs.allocate(granted, "extra buffers")
    geometry = allocator.geometry
    region = allocator.region
    for here, following in zip(buffers, [*buffers[1:], 0], strict=True):
        region.view(geometry.buf_offset + here * geometry.buf_pool.objsize, np.uint32, 1)[0] = following
    port.interface["ni_bufs_head"] = buffers[0]
    port.extra_bufs = granted
    allocator.owners.add(port)
