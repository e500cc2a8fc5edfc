# SPDX-License-Identifier: BSD-2-Clause
"""Virtio ports: ports of a switch at netmapd whose rings are the virtqueues of a virtio-net device.

For whoever has the device: it passes the guest's memory and eventfds on, and never touches a packet. No compiled code.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from ptnetmap.errors import PortError
from ptnetmap.netmap import names
from ptnetmap.netmap.client.session import OPENING, PATIENCE, Session, connect
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.codec import Body
from ptnetmap.netmap.wire.request import Request


class MemoryRegion(NamedTuple):
    """``size`` bytes of guest memory from ``guest`` on are in the file ``fd`` from ``offset`` on."""

    guest: int
    size: int
    fd: int
    offset: int


class QueueSetup(NamedTuple):
    """A queue as its driver set it up: entries, guest addresses, and positions as in a used and an available ring."""

    size: int
    desc: int
    avail: int
    used: int
    last_avail: int = 0
    used_idx: int | None = 0
    """None: what the used ring says."""


class VirtioPort:
    """Port ``name``, of a switch or a pipe's end, for a device. A context manager.

    ``pairs`` are its pairs of queues, of up to ``size`` entries, and ``mtu`` is its MTU; ``tap``: a descriptor
    of a tap device, in place of a port, which stays the caller's. netmapd is started if need be.
    ``features`` are those that the port has for the device and its queues, and the descriptor ``trouble`` is readable
    when a driver has broken a queue, until :meth:`broken` is asked. Raises DaemonError without netmapd, and
    PortError: EBUSY if there is such a port, EINVAL for another name.
    """

    def __init__(
        self, name: str, *, pairs: int = 1, size: int = 1024, mtu: int = 0, tap: int = -1, socket: str | None = None
    ) -> None:
        self.name = name
        self._session: Session = connect(socket)
        self._session.limit(OPENING)
        self._running: set[int] = set()
        self.trouble = -1
        try:
            wanted = name if tap >= 0 else names.parse(name).name
            flags = extension.PORT_IS_TAP if tap >= 0 else 0
            asked = Request(
                extension.VIRTIO_CREATE, wanted, {"pairs": pairs, "size": size, "mtu": mtu, "flags": flags}, {}
            )
            answer, [self.trouble] = self._session.ask(asked, [tap] if tap >= 0 else [])
        except BaseException:
            self._session.close()
            raise
        self._session.limit(PATIENCE)
        self.features = int(answer.fields["features"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

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

    def set_mtu(self, mtu: int) -> None:
        """Have frames for the driver finished in pieces of at most ``mtu`` bytes behind the Ethernet header."""
        self._session.request(extension.VIRTIO_SET, "", {"mtu": mtu})

    def use_pairs(self, pairs: int) -> None:
        """Have frames delivered to the first ``pairs`` receive queues only, which is one at first."""
        self._session.request(extension.VIRTIO_SET, "", {"pairs": pairs})

    def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        """Tell where the guest's memory is; queues that are served go on. Descriptors stay the caller's.

        Raises PortError: EINVAL for memory that may vanish, and is not sealed, EFAULT if it cannot be mapped.
        """
        if len(regions) > extension.MAX_MEMORY:
            raise PortError(
                errno.EINVAL,
                f"netmap: guest memory of {len(regions)} regions\n        use {extension.MAX_MEMORY} at most",
            )
        body: dict[str, object] = {"count": len(regions)}
        for number, region in enumerate(regions):
            body[f"region{number}"] = {"guest": region.guest, "size": region.size, "offset": region.offset}
        self._session.ask(Request(extension.VIRTIO_MEMORY, "", body, {}), [region.fd for region in regions])

    def set_log(self, fd: int, size: int = 0, offset: int = 0) -> None:
        """Have pages of guest memory that are written to noted in ``size`` bytes of a file; -1: noted no more.

        Bit n stands for the page at guest address 4,096 n. The descriptor stays the caller's. Raises PortError: EINVAL for
        memory that may vanish, EFAULT if it cannot be mapped.
        """
        self._session.ask(
            Request(extension.VIRTIO_LOG, "", {"size": size, "offset": offset}, {}), [fd] if fd >= 0 else []
        )

    def start(self, index: int, setup: QueueSetup, features: int, kick: int, call: int) -> None:
        """Let a kthread serve queue ``index``: ``kick`` is an eventfd of the driver's notifications, ``call`` for ours.

        A call of -1 is none. ``features`` are what the driver has taken. Descriptors stay the caller's. Raises PortError:
        EBUSY if it is served, EINVAL and EFAULT for a queue that cannot be.
        """
        fds = [kick] if call < 0 else [kick, call]
        body = {"index": index, "features": features, **setup._asdict()}
        if setup.used_idx is None:
            body |= {"used_idx": 0, "flags": extension.QUEUE_RESUMES}
        self._session.ask(Request(extension.VIRTIO_START, "", body, {}), fds)
        self._running.add(index)

    def stop(self, index: int) -> tuple[int, int] | None:
        """Let nobody serve queue ``index``; return its positions, (last_avail, used_idx). Harmless when repeated.

        On return nobody touches it. None: netmapd has gone.
        """
        self._running.discard(index)
        with contextlib.suppress(PortError):
            answer = self._session.request(extension.VIRTIO_STOP, "", {"index": index})
            return int(answer["last_avail"]), int(answer["used_idx"])
        return None

    def broken(self) -> list[int]:
        """The served queues whose drivers have broken them, and which stand still until they are stopped and started."""
        return [index for index in sorted(self._running) if self._state(index)["broken"]]

    def counters(self, index: int) -> dict[str, int]:
        """What was counted in a queue (:data:`~ptnetmap.netmap.queuestate.virtqueue`), violations among it."""
        state = self._state(index)
        return {name: int(state[name]) for name in extension.QUEUE_COUNTERS}

    def _state(self, index: int) -> Body:
        return self._session.request(extension.VIRTIO_STATE, "", {"index": index})

    @property
    def running(self) -> frozenset[int]:
        """The queues that are served."""
        return frozenset(self._running)

    def set_lossless(self, on: bool) -> None:
        """Let senders wait while the receive queues are full, or lose packets."""
        self._session.request(extension.LOSSLESS_SET, "", {"on": int(on)})

    def close(self) -> None:
        """Give the port back; on return nobody touches the guest's memory. Harmless when repeated."""
        self._running.clear()
        self._session.close()
        if self.trouble >= 0:
            os.close(self.trouble)
            self.trouble = -1
