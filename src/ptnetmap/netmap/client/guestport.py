# SPDX-License-Identifier: BSD-2-Clause
"""Guest ports: ports of netmapd that a hypervisor opens for its guest, and never touches itself.

A guest maps the port's region and runs the user's side of the rings; kthreads of netmapd run the other side, through a
CSB in the guest's memory. This process passes descriptors between the two, so it needs no compiled code.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap import names
from ptnetmap.netmap.client.session import OPENING, PATIENCE, Session, connect
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.option import FilePlace
from ptnetmap.netmap.wire.registration import register_request
from ptnetmap.netmap.wire.request import Request

CSB_ENTRIES = extension.CSB_ENTRIES
CSB_PAGE_2015 = extension.CSB_PAGE_2015
_FLAGS = abi.NR_PTNETMAP_HOST | abi.NR_EXCLUSIVE | abi.NR_NO_TX_POLL | abi.NR_ACCEPT_VNET_HDR


class Pool(NamedTuple):
    """A pool of a region: offset of its first object, objects, and bytes of each."""

    offset: int
    objects: int
    size: int


class GuestPort:
    """A port of netmapd in pass-through mode. A context manager; netmapd is started if need be.

    ``mem_id`` and ``memsize`` are of the region that the port's rings are in, ``region_fd`` is its memfd, and
    ``nifp_offset`` where in it the port's netmap_if is. ``tx_rings``, ``rx_rings``, ``tx_slots`` and ``rx_slots`` are
    its shape, and ``pools`` the region's (if, ring, buf). ``has_headers`` says whether it can have virtio-net headers.

    Raises DaemonError without netmapd, NameSyntaxError, and PortError with upstream's errno: EBUSY if somebody has it.
    """

    def __init__(self, name: str, *, socket: str | None = None, start: bool = True) -> None:
        self.name = name
        self.served = False
        parsed = names.parse(name)
        self._header_name = parsed.name
        self._session: Session = connect(socket, start=start)
        self._session.limit(OPENING)
        self.region_fd = -1
        try:
            shared = 0
            if parsed.share is not None:
                shared = self._session.request(abi.NETMAP_REQ_PORT_INFO_GET, parsed.share, {})["nr_mem_id"]
            answer, fds = self._session.ask(register_request(parsed, flags=_FLAGS, shared_mem_id=shared))
            [self.region_fd] = fds
            body = answer.body or {}
            self.mem_id: int = body["nr_mem_id"]
            self.memsize: int = body["nr_memsize"]
            self.nifp_offset: int = body["nr_offset"]
            self.tx_rings, self.rx_rings = int(body["nr_tx_rings"]), int(body["nr_rx_rings"])
            self.tx_slots, self.rx_slots = int(body["nr_tx_slots"]), int(body["nr_rx_slots"])
            self.pools = self._ask_pools()
            self.has_headers = self._may_have_headers()
            self._session.limit(PATIENCE)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask_pools(self) -> tuple[Pool, Pool, Pool]:
        fields = self._session.request(abi.NETMAP_REQ_POOLS_INFO_GET, "", {})
        first, second, third = (
            Pool(*(fields[f"nr_{pool}_pool_{part}"] for part in ("offset", "objtotal", "objsize")))
            for pool in ("if", "ring", "buf")
        )
        return first, second, third

    def _may_have_headers(self) -> bool:
        try:
            self._session.request(abi.NETMAP_REQ_PORT_HDR_GET, self._header_name, {})
        except PortError as error:
            if error.errno != errno.ENXIO:
                raise
            return False
        return True

    @property
    def address(self) -> str:
        """The socket of the netmapd that the port is of."""
        return self._session.address

    @property
    def loss(self) -> str:
        """What netmapd did when the port is lost, in words that follow its name."""
        return self._session.loss

    def fileno(self) -> int:
        """The connection's socket, -1 once closed; readable when netmapd has gone, among other times."""
        return self._session.fileno()

    @property
    def gone(self) -> bool:
        """Whether netmapd has ended, and the port with it."""
        return self._session.gone

    def start(
        self, layout: int, memory_fd: int, places: Sequence[int], kicks: Sequence[int], interrupts: Sequence[int]
    ) -> None:
        """Let kthreads serve the rings, TX rings first (netmap-abi 5a.3, 5b.3).

        ``layout`` is CSB_ENTRIES, with the offsets of the atok and the ktoa array in ``memory_fd`` as ``places``, or
        CSB_PAGE_2015, with the page's and for ring 0 of each direction alone. ``kicks`` and ``interrupts`` are eventfds,
        one per ring; an interrupt of -1 is none. All descriptors stay the caller's. Raises PortError: EBUSY if they are
        served already, EINVAL and EFAULT for a place where no CSB can be.
        """
        fds = [memory_fd]
        pairs = []
        for kick, interrupt in zip(kicks, interrupts, strict=True):
            indices = []
            for fd in (kick, interrupt):
                indices.append(len(fds) if fd >= 0 else -1)
                fds += [fd] if fd >= 0 else []
            pairs.append({"ioeventfd": indices[0], "irqfd": indices[1]})
        atok, ktoa = (int(FilePlace(0, place)) for place in (places[0], places[-1]))
        options: dict[int, dict[str, Any]] = {
            abi.NETMAP_REQ_OPT_CSB: {"csb_atok": atok, "csb_ktoa": ktoa},
            abi.NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS: {"eventfds": pairs},
        }
        self._session.ask(Request(extension.PTNETMAP_CREATE, "", {"layout": layout}, options), fds)
        self.served = True

    def stop(self) -> None:
        """Let nobody serve the rings; on return the guest's memory is not touched any more. Harmless when repeated."""
        if self.served:
            self.served = False
            with contextlib.suppress(PortError):  # netmapd has gone, and the kthreads with it
                self._session.request(extension.PTNETMAP_DELETE, "")

    def set_header(self, length: int) -> None:
        """Let each frame begin with a virtio-net header of 0, 10 or 12 bytes. Raises PortError (EINVAL, ENXIO)."""
        self._session.request(abi.NETMAP_REQ_PORT_HDR_SET, self._header_name, {"nr_hdr_len": length})

    def set_lossless(self, on: bool) -> None:
        """Let senders wait while the port is full, or lose packets. Raises PortError (EOPNOTSUPP) for a pipe."""
        self._session.request(extension.LOSSLESS_SET, "", {"on": int(on)})

    def close(self) -> None:
        """Give the port back; on return it can be opened again. Harmless when repeated."""
        self.served = False
        self._session.close()
        if self.region_fd >= 0:
            os.close(self.region_fd)
            self.region_fd = -1
