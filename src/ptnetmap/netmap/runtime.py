# SPDX-License-Identifier: BSD-2-Clause
"""The embedded runtime: ports, switches and memory of one process, without a daemon."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Self, TypeVar

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.warmup import warm_up
from ptnetmap.netmap import binding, names, packets, sync
from ptnetmap.netmap.adapter import DEFAULT_SLOTS, MAX_SLOTS, Adapter, Shape, bounded
from ptnetmap.netmap.audit import Audit, audit
from ptnetmap.netmap.binding import MAX_BOUND
from ptnetmap.netmap.descriptor import Descriptor
from ptnetmap.netmap.directory import Directory
from ptnetmap.netmap.kring import KIND_NULL, wait_until_left
from ptnetmap.netmap.learning import DEFAULT_AGEING, learning_entry
from ptnetmap.netmap.monitorport import MonitorAdapter
from ptnetmap.netmap.name_options import Conf
from ptnetmap.netmap.names import PortName
from ptnetmap.netmap.nic.interface import find_interface
from ptnetmap.netmap.nic.sync import fill
from ptnetmap.netmap.persistent import PersistentPorts
from ptnetmap.netmap.port import Port
from ptnetmap.netmap.registration import (
    HOST_MODES,
    check_counts,
    check_registration,
    grant_extra,
    select_rings,
    write_interface,
)
from ptnetmap.netmap.switch import Switch
from ptnetmap.netmap.uplink import Uplink
from ptnetmap.netmap.valeport import ValeAdapter

MAX_SWITCHES = 8

D = TypeVar("D", bound=Descriptor)

KERNELS = (
    sync.txsync,
    sync.rxsync,
    sync.unsent,
    packets.put_frames,
    packets.get_frames,
    binding.wait,
    binding.wait_sent,
    binding.wait_served,
    learning_entry,
    wait_until_left,
    fill,
)
"""What ports call, in an order in which the later ones find their pieces compiled."""


class NullAdapter(Adapter):
    """A port whose syncs do nothing: a handle on an allocator's memory."""

    kind = KIND_NULL


class Netmap:
    """The embedded runtime. Ports of one Netmap see each other; two Netmaps share nothing.

    ::

        with Netmap() as nm, nm.open("vale0:a") as a, nm.open("vale0:b") as b:
            a.send([bytes.fromhex("ffffffffffff 020000000001") + bytes(48)])
            print(b.recv(timeout=1))

    ``max_switches`` bounds the VALE switches that may exist at a time; ``ageing`` is what new switches forget a silent
    address after (seconds, 0 = never). Pool shapes (``if_size``, ``if_num``, ``ring_size``, ``ring_num``, ``buf_size``,
    ``buf_num``) replace the defaults of private allocators. With ``force_xdp``, a port of a network interface takes the
    place of somebody else's XDP program there; ``nic_mode`` is "xdp" or "af_packet" to open interfaces in that way only,
    or "auto". ``busy_poll`` lets system calls poll an interface's driver for up to so many frames, in place of its
    interrupts (0: not). Control calls may come from any thread.
    """

    def __init__(
        self,
        *,
        max_switches: int = MAX_SWITCHES,
        ageing: int = DEFAULT_AGEING,
        force_xdp: bool = False,
        nic_mode: str = "auto",
        busy_poll: int = 0,
        **pools: int,
    ) -> None:
        warm_up("runtime", KERNELS)
        self._lock = threading.RLock()
        self._directory = self._make_directory(
            max_switches, ageing, pools, force_xdp=force_xdp, nic_mode=nic_mode, busy_poll=busy_poll
        )
        self._persistent = PersistentPorts(self._directory)
        self._ports: set[Descriptor] = set()
        self._uplinks: dict[str, Uplink] = {}
        self.epoch = self._directory.epoch
        self.allocators = self._directory.allocators
        self.switches = self._directory.switches

    def _make_directory(self, max_switches: int, ageing: int, pools: dict[str, int], **nic: Any) -> Directory:
        return Directory(max_switches, ageing, pools, **nic)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Netmap: {len(self._ports)} open ports, {len(self.switches)} switches>"

    def close(self) -> None:
        """Close all ports."""
        while self._uplinks:
            self.detach(next(iter(self._uplinks)))
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

        ``extra_bufs`` asks for buffers beyond the rings'; ``port.extra_bufs`` tells how many were granted. Counts above
        what a port can have (16 rings, 256 of a pipe, 4096 slots) are clamped, as upstream, and of no effect on a port
        that exists: see ``port.tx_rings``. ``lossless``
        holds senders back while this (VALE) port is full. Ring and slot counts, if given, override the name's
        ``@conf``. ``flags`` are more NR_* registration flags. Raises NameSyntaxError, PortError or MemoryPoolError with
        upstream's errno.
        """
        if not isinstance(name, str):
            raise PortError(errno.EINVAL, f"netmap: {name!r} is no port name\n        give a str such as 'vale0:1'")
        parsed = names.parse(name)
        given = {"tx_rings": tx_rings, "rx_rings": rx_rings, "tx_slots": tx_slots, "rx_slots": rx_slots}
        check_counts(name, {**given, "extra_bufs": extra_bufs})
        merged = {key: value or getattr(parsed.conf, key) for key, value in given.items()}
        conf = Conf(**merged, host_tx_rings=parsed.conf.host_tx_rings, host_rx_rings=parsed.conf.host_rx_rings)
        port = self.register(Port, name, parsed, conf, flags, extra_bufs)
        if lossless:
            self._set_lossless(port)
        return port

    def register(
        self, kind: type[D], name: str, parsed: PortName, conf: Conf, flags: int = 0, extra_bufs: int = 0
    ) -> D:
        """Bind a port whose name has been parsed, with a descriptor of some ``kind``; ``name`` is for messages.

        ``conf`` replaces the name's own, ``flags`` are added to it. Raises as :meth:`open`.
        """
        if parsed.extmem is not None or parsed.offset is not None:
            option = "@extmem" if parsed.extmem is not None else "@offset"
            raise PortError(
                errno.EOPNOTSUPP, f"netmap: cannot open {name}: {option} is not supported\n        leave it out"
            )
        with self._lock:
            adapter = self._directory.find_or_create(parsed, conf, parsed.flags | flags, extra_bufs)
            adapter.retain()
            if isinstance(adapter, MonitorAdapter) and parsed.mode in HOST_MODES:
                parsed = replace(parsed, mode=abi.NR_REG_ALL_NIC)  # its rings are all of those that it watches
            try:
                check_registration(parsed, adapter, parsed.flags | flags)
                return self._bind(kind, name, parsed, adapter, parsed.flags | flags, extra_bufs)
            except Exception:
                adapter.drop()
                raise

    def null(self, mem_id: int, *, tx_rings: int = 0, rx_rings: int = 0, slots: int = DEFAULT_SLOTS) -> Port:
        """Open a NULL port: no traffic, only a handle on allocator ``mem_id``'s memory.

        Raises PortError (EINVAL) without a mem_id or with one that does not exist.
        """
        return self.register_null(Port, mem_id, tx_rings, rx_rings, slots)

    def register_null(self, kind: type[D], mem_id: int, tx_rings: int = 0, rx_rings: int = 0, slots: int = 0) -> D:
        """As :meth:`null`, with a descriptor of some ``kind``.

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
            adapter.on_unused = lambda _: self._directory.drop_allocator(allocator)
            adapter.retain()
            try:
                return self._bind(kind, f"null@{mem_id}", PortName("null"), adapter, 0, 0)
            except Exception:
                adapter.drop()
                raise

    def _set_lossless(self, port: Port) -> None:
        try:
            port.lossless = True
        except PortError:
            port.close()
            raise

    def _bind(self, kind: type[D], name: str, parsed: PortName, adapter: Adapter, flags: int, extra_bufs: int) -> D:
        rings = select_rings(parsed, adapter, flags)
        allocator = adapter.allocator
        if_object = allocator.ifs.allocate(1, f"a descriptor of {name}")[0]
        try:
            adapter.bind(rings, bool(flags & abi.NR_EXCLUSIVE))
        except Exception:
            allocator.ifs.release([if_object])
            raise
        if isinstance(adapter, MonitorAdapter):
            adapter.watch(rings)
        port = kind(name, adapter, rings, flags, if_object, self._forget)
        write_interface(port, adapter, rings)
        grant_extra(port, allocator, extra_bufs)
        self._ports.add(port)
        return port

    def _forget(self, port: Descriptor) -> None:
        """Undo what :meth:`open` did, once no thread is inside the port."""
        with self._lock:
            if port not in self._ports:
                return
            self._ports.discard(port)
            adapter = port.adapter
            last = [ring for ring in port.rings if ring.users == 1]
            for monitor in list(adapter.monitors):
                if isinstance(monitor, MonitorAdapter):
                    monitor.source_gone(last)
            if isinstance(adapter, MonitorAdapter):
                adapter.unwatch()
            for ring in port.rings:
                ring.wake()
            adapter.unbind(port.rings)
            if isinstance(adapter, ValeAdapter):
                adapter.release_senders()
            port.release()
            adapter.drop()

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
        conf = Conf(tx_rings=tx_rings, rx_rings=rx_rings, tx_slots=tx_slots, rx_slots=rx_slots)
        check_counts(name, asdict(conf))
        with self._lock:
            self._persistent.create(name, conf, mem_id)

    def delete(self, name: str) -> None:
        """Delete a persistent port (VALE_DELIF).

        Raises PortError: ENXIO if there is none, EBUSY while it is in use, EINVAL if it exists for its pipes only.
        """
        with self._lock:
            self._persistent.delete(name)

    def attach(self, name: str, *, host: bool = False) -> int:
        """Attach a persistent port to a switch (VALE_ATTACH), by a name such as "vale0:foo"; return its port number.

        If there is none, the network interface of that name is attached, and nobody else can open that: see
        :class:`~ptnetmap.netmap.uplink.Uplink`. With ``host`` the host's side of it is another port of the switch, whose
        name ends in "^": the host goes on using the interface, through the switch.

        A persistent port may sit on two switches, and joins them: then nobody else can open it. Raises PortError: EINVAL for a
        name without "vale", ENXIO without such a port, EBUSY if it is attached there, or to two, already.
        """
        with self._lock:
            vale = names.split_vale(name)
            known = vale is not None and isinstance(self._directory.adapters.get(vale.port), ValeAdapter)
            interface = None if vale is None or known else find_interface(vale.port)
            if interface is None and host:
                raise PortError(
                    errno.EINVAL,
                    f"netmap: cannot attach {name} with host rings: it has none\n        only network interfaces do",
                )
            if interface is None:
                return self._persistent.attach(name)
            if self._directory.attached(name) or name in self._directory.adapters:
                raise PortError(
                    errno.EBUSY, f"netmap: cannot attach {name}: there is such a port\n        detach or close it first"
                )
            uplink = self._uplinks[name] = Uplink(self, name, interface)
            if host:
                try:
                    self._uplinks[f"{name}^"] = Uplink(self, f"{name}^", interface, host=True)
                except BaseException:
                    self.detach(name)
                    raise
            return uplink.adapter.index

    def detach(self, name: str) -> int:
        """Detach a persistent port, or an interface, from a switch (VALE_DETACH); return the number it had.

        Raises PortError: EINVAL for a name without "vale" or of an ephemeral port, ENXIO if it is not attached there,
        EBUSY for the first attachment of a port that sits on two switches.
        """
        with self._lock:
            if beside := self._uplinks.pop(f"{name}^", None):
                beside.close()
            uplink = self._uplinks.pop(name, None)
            return self._persistent.detach(name) if uplink is None else uplink.close()

    def list(self) -> list[tuple[str, int, int]]:
        """All ports on all switches: (name, number of the switch, number of the port there) (VALE_LIST)."""
        with self._lock:
            return [
                (port.name, number, index)
                for number, switch in enumerate(self.switches.values())
                for index, port in sorted(switch.ports.items())
            ]

    def named(self, name: str) -> Adapter:
        """Return the adapter behind a name that is in use. Raises PortError (ENXIO)."""
        with self._lock:
            return self._directory.named(name)

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
            adapter = self._directory.vale(name)
            for side in (adapter, adapter.patched_to):
                if side is not None:
                    side.set_header(length)

    def header(self, name: str) -> int:
        """Return the virtio-net header length of a VALE port (PORT_HDR_GET)."""
        with self._lock:
            return self._directory.vale(name).header

    # -- looking after memory -----------------------------------------------------------------------------------------

    def audit(self) -> Sequence[Audit]:
        """Account for every buffer of every region in use; each result's ``ok`` says whether it has one owner."""
        with self._lock:
            return [audit(allocator) for allocator in self.allocators if allocator.active]
