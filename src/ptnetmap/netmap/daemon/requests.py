# SPDX-License-Identifier: BSD-2-Clause
"""What netmapd does about each request: from a decoded request to the fields of its answer. No socket in sight."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap.adapter import HOST_SUFFIXES, Adapter
from ptnetmap.netmap.allocator import GLOBAL_ID
from ptnetmap.netmap.daemon.exposure import NO_RINGS
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.daemon.introspection import Client, Introspection
from ptnetmap.netmap.daemon.kloop import SyncLoop
from ptnetmap.netmap.daemon.ptnetmap import GuestLoop
from ptnetmap.netmap.daemon.virtio import VirtioPort
from ptnetmap.netmap.daemon.watchdog import Watchdog
from ptnetmap.netmap.descriptor import Descriptor
from ptnetmap.netmap.names import PortName
from ptnetmap.netmap.virtioport import Setup
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.codec import Body
from ptnetmap.netmap.wire.frame import MAX_FDS
from ptnetmap.netmap.wire.listing import find_listed
from ptnetmap.netmap.wire.registration import Registration, conf_of, registration
from ptnetmap.netmap.wire.request import Request, first_option_error
from ptnetmap.netmap.wire.rules import check_name

_RINGS_AT_A_TIME = MAX_FDS // 2


@dataclass
class Result:
    """What a request is answered with; ``fds`` stay ours, and are sent along."""

    body: Body | None = None
    name: str | None = None
    option_status: dict[int, int] = field(default_factory=dict)
    fds: list[int] = field(default_factory=list)
    later: bool = False
    """The answer follows when the sync loop has ended."""


class Dispatcher:
    """Grants requests, on a :class:`Host`. Raises PtnetmapError with upstream's errno for those that it does not.

    ``clients`` returns all there are, for introspection; ``generation`` tells this daemon from others before and after it.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.watchdog = Watchdog(host.kthreads.threads)
        self.generation = secrets.randbits(63) | 1
        self.clients: Callable[[], Iterable[Client]] = lambda: ()
        self._tell = Introspection(host, lambda: self.clients(), self.generation)
        self._actions: dict[int, Callable[[Client, Request, Sequence[int]], Result]] = {
            abi.NETMAP_REQ_REGISTER: self._register,
            abi.NETMAP_REQ_PORT_INFO_GET: self._port_info,
            abi.NETMAP_REQ_VALE_ATTACH: self._attach,
            abi.NETMAP_REQ_VALE_DETACH: self._detach,
            abi.NETMAP_REQ_VALE_LIST: self._list,
            abi.NETMAP_REQ_PORT_HDR_SET: self._set_header,
            abi.NETMAP_REQ_PORT_HDR_GET: self._get_header,
            abi.NETMAP_REQ_VALE_NEWIF: self._new,
            abi.NETMAP_REQ_VALE_DELIF: self._delete,
            abi.NETMAP_REQ_VALE_POLLING_ENABLE: self._polling,
            abi.NETMAP_REQ_VALE_POLLING_DISABLE: self._polling,
            abi.NETMAP_REQ_POOLS_INFO_GET: self._pools_info,
            abi.NETMAP_REQ_CSB_ENABLE: self._enable_csb,
            abi.NETMAP_REQ_SYNC_KLOOP_START: self._start_loop,
            abi.NETMAP_REQ_SYNC_KLOOP_STOP: self._stop_loop,
            extension.PTNETMAP_CREATE: self._create_ptnetmap,
            extension.PTNETMAP_DELETE: self._delete_ptnetmap,
            extension.VIRTIO_CREATE: self._create_virtio,
            extension.VIRTIO_MEMORY: self._virtio_memory,
            extension.VIRTIO_START: self._start_queue,
            extension.VIRTIO_STOP: self._stop_queue,
            extension.VIRTIO_SET: self._set_virtio,
            extension.VIRTIO_STATE: self._queue_state,
            extension.VIRTIO_LOG: self._virtio_log,
            extension.LOSSLESS_SET: self._set_lossless,
            extension.LOSSLESS_GET: self._get_lossless,
            extension.PORT_STATS: self._stats,
            extension.KTHREAD_LIST: self._text(lambda client, name: self._tell.kthread_list()),
            extension.KTHREAD_MOVE: self._move,
            extension.PORT_LIST: self._text(lambda client, name: self._tell.port_list()),
            extension.LEARNED: self._text(lambda client, name: self.host.switch(name).learned()),
            extension.AGEING_SET: self._set_ageing,
            extension.AUDIT: self._text(self._audit),
            extension.BINDING: self._binding,
            extension.TOP: self._top,
            extension.NOTIFIERS: self._notifiers,
        }

    def grant(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        """Do what is asked for. ``fds`` came with the message; they are the caller's to close."""
        return self._actions[request.reqtype](client, request, fds)

    def gone(self, client: Client) -> None:
        """Undo what a connection holds: its process has closed it, or died."""
        descriptor, client.descriptor = client.descriptor, None
        loop, client.loop = client.loop, None
        virtio, client.virtio = client.virtio, None
        try:
            if loop is not None:
                loop.stop()
            if virtio is not None:
                virtio.close()
        finally:
            if descriptor is not None:
                self.host.unregister(descriptor)

    # -- bindings -----------------------------------------------------------------------------------------------------

    def _register(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        _check_free(client, request.name)
        wanted = registration(request)
        descriptor = self.host.bind(wanted)
        client.descriptor = descriptor
        statuses: dict[int, int] = {}
        try:
            if abi.NETMAP_REQ_OPT_CSB in request.options:
                client.loop = SyncLoop(
                    self.host, self.watchdog, descriptor, request.options[abi.NETMAP_REQ_OPT_CSB], fds
                )
                statuses[abi.NETMAP_REQ_OPT_CSB] = 0
            if failed := first_option_error(request, statuses):
                raise PortError(
                    failed, f"netmap: cannot bind {request.name}: an option is not supported\n        leave it out"
                )
        except Exception:
            self.gone(client)
            raise
        return Result(_register_body(wanted, descriptor), option_status=statuses, fds=[descriptor.region_fd])

    def _bound(self, client: Client) -> Descriptor:
        if client.descriptor is None:
            raise PortError(errno.ENXIO, "netmap: nothing is bound here\n        REGISTER a port first")
        return client.descriptor

    def _binding(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        descriptor = self._bound(client)
        body = request.body or {}
        answer = client.pages.page(request.reqtype, request.name, body, lambda: self.host.describe(descriptor))
        memory = self.host.exposure(descriptor.adapter).memory if body["offset"] == 0 else []
        return Result(answer, fds=[block.fd for block in memory])

    def _notifiers(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        descriptor = self._bound(client)
        if descriptor.flags & abi.NR_PTNETMAP_HOST:
            raise PortError(
                errno.EBUSY,
                f"netmap: {descriptor.name} is bound for a guest, which brings eventfds\n        PTNETMAP_CREATE takes them",
            )
        exposure = self.host.exposure(descriptor.adapter)
        body = request.body or {}
        first, count = body["first"], min(body["count"], _RINGS_AT_A_TIME)
        rings = descriptor.rings[first : first + count] if exposure.how != NO_RINGS else []
        return Result(
            {"first": first, "count": len(rings)}, fds=[fd for ring in rings for fd in exposure.descriptors(ring)]
        )

    def _enable_csb(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        descriptor = self._bound(client)
        if client.loop is not None and client.loop.running:
            raise PortError(errno.EBUSY, f"netmap: the sync loop of {descriptor.name} runs\n        stop it first")
        client.loop = SyncLoop(self.host, self.watchdog, descriptor, request.options[abi.NETMAP_REQ_OPT_CSB], fds)
        return Result(option_status={abi.NETMAP_REQ_OPT_CSB: 0})

    def _start_loop(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        descriptor = self._bound(client)
        if not isinstance(client.loop, SyncLoop):
            raise PortError(errno.EINVAL, f"netmap: {descriptor.name} has no CSB\n        CSB_ENABLE comes first")
        client.loop.start(request, fds)
        return Result(option_status=dict.fromkeys(request.options, 0), later=True)

    def _stop_loop(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        self._bound(client)
        if isinstance(client.loop, SyncLoop):
            client.loop.stop()
        return Result()

    def _create_ptnetmap(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        descriptor = self._bound(client)
        if client.loop is not None and client.loop.running:
            raise PortError(
                errno.EBUSY, f"netmap: {descriptor.name} is served to a guest\n        PTNETMAP_DELETE ends that"
            )
        client.loop = GuestLoop(self.host, self.watchdog, descriptor, request, fds)
        return Result(option_status=dict.fromkeys(request.options, 0))

    def _delete_ptnetmap(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        self._bound(client)
        if isinstance(client.loop, GuestLoop):
            client.loop.stop()
            client.loop = None
        return Result()

    # -- ports and switches -------------------------------------------------------------------------------------------

    def _port_info(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        body = request.body or {}
        if not request.name:
            allocator = self.host.allocators.find(body["nr_mem_id"] or GLOBAL_ID)
            return Result({"nr_memsize": allocator.geometry.total, "nr_mem_id": allocator.id})
        return Result(self._look(request, _info))

    def _look(self, request: Request, tell: Callable[[Adapter], Body]) -> Body:
        """Return what ``tell`` says of the port that a request names.

        As upstream: a port that could be made is made for a moment, to tell what it would be.
        """
        body = request.body or {}
        mem_id, conf = body["nr_mem_id"], conf_of(body)
        adapter = self._adapter(request.name)
        if adapter is not None:
            if mem_id not in (0, adapter.allocator.id):
                raise PortError(
                    errno.EINVAL,
                    f"netmap: {request.name} has the memory {adapter.allocator.id}, not {mem_id}\n"
                    "        leave out nr_mem_id",
                )
            return tell(adapter)
        check_name(request.name)
        descriptor = self.host.register(Descriptor, request.name, PortName(request.name, mem_id=mem_id), conf)
        try:
            return tell(descriptor.adapter)
        finally:
            descriptor.close()

    def _adapter(self, name: str) -> Adapter | None:
        try:
            return self.host.named(name)
        except PortError as error:
            if error.errno != errno.ENXIO:
                raise
            return None

    def _attach(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        body = request.body or {}
        mode = body["reg"]["nr_mode"]
        if mode not in (abi.NR_REG_ALL_NIC, abi.NR_REG_NIC_SW):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot attach {request.name} in mode {mode}\n        use ALL_NIC, or NIC_SW with the host's side",
            )
        index = self.host.attach(request.name, host=mode == abi.NR_REG_NIC_SW)
        adapter = self.host.named(request.name)
        return Result({"reg": {**body["reg"], **_info(adapter)}, "port_index": index})

    def _detach(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        return Result({"port_index": self.host.detach(request.name)})

    def _list(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        found = find_listed(self.host.list(), request.name, request.body or {})
        return Result(found.body, name=found.name)

    def _set_header(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        self.host.set_header(request.name, (request.body or {})["nr_hdr_len"])
        return Result({})

    def _get_header(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        return Result({"nr_hdr_len": self.host.header(request.name)})

    def _new(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        body = request.body or {}
        conf = conf_of(body)
        self.host.create(
            request.name,
            mem_id=body["nr_mem_id"],
            tx_rings=conf.tx_rings,
            rx_rings=conf.rx_rings,
            tx_slots=conf.tx_slots,
            rx_slots=conf.rx_slots,
        )
        info = _info(self.host.named(request.name))
        return Result({key: info[key] for key in body})

    def _delete(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        self.host.delete(request.name)
        return Result()

    def _polling(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        adapter = self.host.named(request.name)
        raise PortError(
            errno.EOPNOTSUPP,
            f"netmap: cannot poll {adapter.name}: what serves a port looks for packets by itself before it sleeps\n"
            "        leave out polling; netmapd --spin says how long a kthread looks",
        )

    def _pools_info(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        if request.name:
            return Result(self._look(request, _pools))
        return Result(_pools(self._bound(client).adapter))

    # -- virtio-net devices -------------------------------------------------------------------------------------------

    def _create_virtio(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        _check_free(client, request.name)
        body = request.body or {}
        tap = -1
        if body["flags"] & extension.PORT_IS_TAP:
            if len(fds) != 1:
                raise PortError(
                    errno.EINVAL,
                    f"netmap: a tap device with {len(fds)} descriptors\n        send the one of /dev/net/tun",
                )
            tap = fds[0]
        client.virtio = VirtioPort(self.host, self.watchdog, request.name, body["pairs"], body["size"], tap)
        if body["mtu"]:
            client.virtio.set_mtu(body["mtu"])
        return Result({"features": client.virtio.features}, fds=[client.virtio.trouble])

    def _virtio(self, client: Client) -> VirtioPort:
        if client.virtio is None:
            raise PortError(errno.ENXIO, "netmap: no virtio-net device is here\n        VIRTIO_CREATE comes first")
        return client.virtio

    def _virtio_memory(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        body = request.body or {}
        regions = [body[f"region{i}"] for i in range(min(body["count"], extension.MAX_MEMORY))]
        self._virtio(client).set_memory(regions, fds)
        return Result({})

    def _start_queue(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        body = request.body or {}
        if not 1 <= len(fds) <= 2:
            raise PortError(
                errno.EINVAL,
                f"netmap: a queue with {len(fds)} descriptors\n        send a kick, and a call if there is one",
            )
        setup = Setup(*(body[name] for name in Setup._fields))
        if body["flags"] & extension.QUEUE_RESUMES:
            setup = setup._replace(used_idx=None)
        self._virtio(client).start(body["index"], setup, body["features"], fds[0], fds[1] if len(fds) > 1 else -1)
        return Result({})

    def _stop_queue(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        last_avail, used_idx = self._virtio(client).stop((request.body or {})["index"])
        return Result({"last_avail": last_avail, "used_idx": used_idx})

    def _set_virtio(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        port, body = self._virtio(client), request.body or {}
        if body["mtu"]:
            port.set_mtu(body["mtu"])
        if body["pairs"]:
            port.use_pairs(body["pairs"])
        return Result({})

    def _queue_state(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        broken, counters = self._virtio(client).state((request.body or {})["index"])
        return Result({"broken": int(broken), **counters})

    def _virtio_log(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        body = request.body or {}
        if len(fds) > 1:
            raise PortError(
                errno.EINVAL, f"netmap: a log with {len(fds)} descriptors\n        send one, or none for no log"
            )
        self._virtio(client).set_log(fds[0] if fds else -1, body["size"], body["offset"])
        return Result({})

    # -- requests of our own ------------------------------------------------------------------------------------------

    def _target(self, client: Client, request: Request) -> Adapter:
        """Return the port that a request names, or the one that is bound here if it names none."""
        if request.name:
            return self.host.named(request.name)
        return client.adapter or self._bound(client).adapter

    def _set_lossless(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        self._target(client, request).lossless(bool((request.body or {})["on"]))
        return Result({})

    def _get_lossless(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        return Result({"on": int(self._target(client, request).is_lossless)})

    def _stats(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        if request.name.endswith(HOST_SUFFIXES):
            adapter = self.host.named(request.name[:-1])
            part = adapter.part(adapter.host_rx if request.name.endswith("^") else adapter.rings)
        else:
            adapter = self._target(client, request)
            part = adapter.part([]) if request.name else client.part(adapter)
        tx, rx = ([adapter.counters_of(ring) for ring in some] for some in (part.tx, part.rx))
        return Result(extension.stats_body(tx, rx, is_pipe=adapter.is_pipe))

    def _move(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        number = (request.body or {})["kthread"]
        adapter = self.host.named(request.name)
        before = self._tell.kthread_of(adapter)
        services = self._tell.loop_services(adapter)
        if services:
            self.host.kthreads.move(services, number)
        elif before is None and not adapter.is_pipe:
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot move {request.name}: no kthread serves it now\n        start its sync loop",
            )
        else:
            before = self.host.move(request.name, number)
        return Result({"kthread": before})

    def _set_ageing(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        switch = self.host.switch(request.name)
        before = switch.ageing
        switch.ageing = (request.body or {})["seconds"]
        return Result({"seconds": before})

    def _text(self, produce: Callable[[Client, str], Any]) -> Callable[[Client, Request, Sequence[int]], Result]:
        def answer(client: Client, request: Request, fds: Sequence[int]) -> Result:
            body = request.body or {}
            return Result(client.pages.page(request.reqtype, request.name, body, lambda: produce(client, request.name)))

        return answer

    def _top(self, client: Client, request: Request, fds: Sequence[int]) -> Result:
        body = request.body or {}
        answer = client.pages.page(request.reqtype, request.name, body, self._tell.top_entry)
        return Result(answer, fds=[self.host.counters.memory.fd] if body["offset"] == 0 else [])

    def _audit(self, client: Client, name: str) -> list[extension.AuditEntry]:
        return [{"mem_id": one.allocator, "ok": one.ok, "report": str(one)} for one in self.host.audit()]


def _check_free(client: Client, name: str) -> None:
    """Raise PortError (EBUSY) if the connection has a port already."""
    if client.adapter is not None:
        raise PortError(
            errno.EBUSY,
            f"netmap: cannot bind {name}: this descriptor has {client.adapter.name}\n        open another one",
        )


def _register_body(wanted: Registration, descriptor: Descriptor) -> Body:
    adapter = descriptor.adapter
    return {
        "nr_offset": descriptor.nifp_offset,
        "nr_extra_bufs": descriptor.extra_bufs,
        **_info(adapter),
    }


def _pools(adapter: Adapter) -> Body:
    geometry = adapter.allocator.geometry
    body: Body = {"nr_memsize": geometry.total, "nr_mem_id": adapter.allocator.id}
    for name, offset, pool in (
        ("if", geometry.if_offset, geometry.if_pool),
        ("ring", geometry.ring_offset, geometry.ring_pool),
        ("buf", geometry.buf_offset, geometry.buf_pool),
    ):
        body[f"nr_{name}_pool_offset"] = offset
        body[f"nr_{name}_pool_objtotal"] = pool.objtotal
        body[f"nr_{name}_pool_objsize"] = pool.objsize
    return body


def _info(adapter: Adapter) -> Body:
    shape = adapter.shape
    return {
        "nr_memsize": adapter.allocator.geometry.total,
        "nr_tx_rings": shape.tx_rings,
        "nr_rx_rings": shape.rx_rings,
        "nr_tx_slots": shape.tx_slots,
        "nr_rx_slots": shape.rx_slots,
        "nr_host_tx_rings": 1,
        "nr_host_rx_rings": 1,
        "nr_mem_id": adapter.allocator.id,
    }
