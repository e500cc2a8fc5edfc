# SPDX-License-Identifier: BSD-2-Clause
"""A virtio-net device's packets: its queues, in the guest's memory, served by kthreads.

They are a port of a switch, or are joined to the rings of another port: a pipe, or one of another netmapd (a relay); or to
a tap device.

Whoever has the device, a hypervisor or the server of a vhost-user socket, sends the guest's memory, and says where each
queue is once its driver has put it there. From then on the driver's notifications come here, and interrupts go from
here, without it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import select
import struct
from collections.abc import Sequence
from typing import Protocol

from ptnetmap.abi import netmap as abi
from ptnetmap.abi import virtio as abi_virtio
from ptnetmap.abi import virtio_pci
from ptnetmap.errors import PortError
from ptnetmap.netmap import names
from ptnetmap.netmap.client.port import open as open_port
from ptnetmap.netmap.daemon.closing import check_eventfd
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.daemon.kthreads import QueueService
from ptnetmap.netmap.daemon.watchdog import Watchdog
from ptnetmap.netmap.queuestate import MAX_REGIONS, Region
from ptnetmap.netmap.shared import Mapping, check_sealed
from ptnetmap.netmap.virtioport import NET_FEATURES, RING_FEATURES, Setup
from ptnetmap.netmap.wire.codec import Body
from ptnetmap.netmap.wire.registration import Registration

FEATURES = NET_FEATURES | RING_FEATURES
_ETHERNET = 14
_LOG_WORD = 4
_NOT_OF_TAPS = (
    virtio_pci.VIRTIO_NET_F_GUEST_UFO
    | virtio_pci.VIRTIO_NET_F_HOST_UFO
    | virtio_pci.VIRTIO_NET_F_GUEST_USO4
    | virtio_pci.VIRTIO_NET_F_GUEST_USO6
    | virtio_pci.VIRTIO_NET_F_HOST_USO
)
_TUNGETIFF = 0x800454D2
_TUNGETVNETHDRSZ = 0x800454D7
_IFF_TAP = 0x0002
_IFF_VNET_HDR = 0x4000
_IFREQ = 40
_IFNAMSIZ = 16
_FLAGS = abi.NR_PTNETMAP_HOST | abi.NR_EXCLUSIVE


class _Running:
    """A queue that is served: how its driver set it up, and the eventfds, which are ours."""

    def __init__(self, setup: Setup, features: int, kick: int, call: int) -> None:
        self.setup = setup
        self.features = features
        self.kick = os.dup(kick)
        self.call = os.dup(call) if call >= 0 else -1
        self.service: QueueService | None = None

    def close(self) -> None:
        os.close(self.kick)
        if self.call >= 0:
            os.close(self.call)


class Joint(Protocol):
    """Rings that queues are joined to: addresses of their krings, and what wakes whoever waits for each."""

    tx: list[int]
    rx: list[int]
    header: int

    def wakes(self, index: int) -> tuple[int, ...]:
        """Return the descriptors to wait on for the ring that queue ``index`` is joined to."""

    def close(self) -> None:
        """Give the port back."""


class PipeJoint:
    """An end of a pipe of this netmapd, whose rings kthreads use in place of a process.

    Raises as :meth:`Host.bind`, and PortError (EINVAL) for a port that is no pipe.
    """

    header = 0

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        parsed = names.parse(f"netmap:{name}")
        self._descriptor = host.bind(Registration(parsed, parsed.conf, parsed.flags | _FLAGS, 0))
        self._exposure = host.exposure(self._descriptor.adapter)
        self.tx = self._descriptor.tx_krings
        self.rx = self._descriptor.rx_krings

    def wakes(self, index: int) -> tuple[int, ...]:
        """Return the eventfds of the ring: this netmapd's own, and what the process at the other end has."""
        wanted = (self.rx, self.tx)[index & 1]
        address = wanted[(index >> 1) % len(wanted)]
        [ring] = [one for one in self._descriptor.rings if one.address == address]
        return ring.make_eventfd(), *self._exposure.kicks(ring)

    def close(self) -> None:
        """Give the end back."""
        self._host.unregister(self._descriptor)


class RemoteJoint:
    """A port of the netmapd at ``socket``, for a relay. Raises as :func:`ptnetmap.open`."""

    def __init__(self, name: str, socket: str) -> None:
        self._port = open_port(f"netmap:{name}" if names.split_pipe(name) else name, socket=socket)
        self.header = self._port.adapter.header
        self.tx = self._port.tx_krings
        self.rx = self._port.rx_krings

    def wakes(self, index: int) -> tuple[int, ...]:
        """Return what the other netmapd wakes the ring's user by."""
        wanted = (self.rx, self.tx)[index & 1]
        address = wanted[(index >> 1) % len(wanted)]
        [ring] = [one for one in self._port.rings if one.address == address]
        return (ring.block["irqfd"],)

    def close(self) -> None:
        """Give the port back."""
        self._port.close()


class TapJoint:
    """A tap device, by a descriptor of it, which is duplicated. Raises PortError (EINVAL) for one that is none."""

    tx: list[int]
    rx: list[int]
    header = abi_virtio.virtio_net_hdr_mrg_rxbuf.itemsize

    def __init__(self, fd: int) -> None:
        self.tx = self.rx = []
        check_tap(fd, self.header)
        self.fd = os.dup(fd)
        os.set_blocking(self.fd, False)

    def wakes(self, index: int) -> tuple[int, ...]:
        """Return what is readable when a packet has come, for a queue that receives."""
        return () if index & 1 else (self.fd,)

    def close(self) -> None:
        """Let go of the device."""
        os.close(self.fd)


def check_tap(fd: int, header: int) -> None:
    """Raise PortError (EINVAL) unless a descriptor is of a tap device whose packets have a header of so many bytes."""
    try:
        request = bytearray(_IFREQ)
        fcntl.ioctl(fd, _TUNGETIFF, request)
        size = struct.unpack("i", fcntl.ioctl(fd, _TUNGETVNETHDRSZ, bytes(4)))[0]
    except OSError:
        request, size = bytearray(_IFREQ), 0
    [flags] = struct.unpack_from("H", request, _IFNAMSIZ)
    if flags & _IFF_TAP == 0 or flags & _IFF_VNET_HDR == 0 or size != header:
        raise PortError(
            errno.EINVAL,
            "netmap: this descriptor is of no tap device with headers\n"
            f"        open /dev/net/tun with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR, and headers of {header} bytes",
        )


class VirtioPort:
    """Port ``name`` of a switch, or a pipe's end; or what ``tap`` is a descriptor of, unless it is -1.

    It has ``pairs`` pairs of queues of up to ``most`` entries. ``features`` are those that it has.

    Raises PortError: EINVAL for another name, EBUSY if somebody has it, ENOMEM.
    """

    def __init__(self, host: Host, watchdog: Watchdog, name: str, pairs: int, most: int, tap: int = -1) -> None:
        self._host = host
        self._watchdog = watchdog
        self._mappings: list[Mapping] = []
        self._regions: list[Region] = []
        self._log: Mapping | None = None
        self._running: dict[int, _Running] = {}
        self._joint: Joint | None = None
        self._trouble = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._shown: select.epoll | None = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._shown.register(self._trouble, select.EPOLLIN)
        self.features = FEATURES if tap < 0 else FEATURES & ~_NOT_OF_TAPS
        try:
            self._open(host, name, pairs, most, tap)
        except BaseException:
            self._let_go()
            raise
        self.count = 2 * pairs

    def _open(self, host: Host, name: str, pairs: int, most: int, tap: int) -> None:
        if tap >= 0:
            self._joint = TapJoint(tap)
        elif host.relay is not None:
            self._joint = RemoteJoint(name, host.relay)
        elif names.split_pipe(name):
            self._joint = PipeJoint(host, name)
        if self._joint is None:
            self.adapter = host.create_virtio(name, pairs, most)
        else:
            self.adapter = host.create_joined(name, pairs, most)
            if isinstance(self._joint, TapJoint):
                self.adapter.join_tap(self._joint.fd)
            else:
                self.adapter.join(self._joint.tx, self._joint.rx, self._joint.header)

    @property
    def trouble(self) -> int:
        """Readable when a queue has broken, until :meth:`state` is asked; for a client, who can wait with it and no more."""
        assert self._shown is not None
        return self._shown.fileno()

    def state(self, index: int) -> tuple[bool, dict[str, int]]:
        """Return whether a queue is broken, and its counters."""
        self._check(index)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._trouble)
        return self.adapter.is_broken(index), self.adapter.queue_counters(index)

    @property
    def services(self) -> list[QueueService]:
        """What kthreads serve of it."""
        return [running.service for running in self._running.values() if running.service]

    def set_mtu(self, mtu: int) -> None:
        """Send the driver frames of at most ``mtu`` bytes behind the Ethernet header, where they have to be made here."""
        self.adapter.set_mfs(mtu + _ETHERNET)

    def use_pairs(self, pairs: int) -> None:
        """Deliver to the first ``pairs`` receive queues only. Raises PortError (EINVAL) for more than there are."""
        if not 1 <= pairs <= self.count // 2:
            raise PortError(
                errno.EINVAL,
                f"netmap: {self.adapter.name} cannot use {pairs} pairs of queues\n        it has {self.count // 2}",
            )
        self.adapter.use_pairs(pairs)

    def set_memory(self, regions: Sequence[Body], fds: Sequence[int]) -> None:
        """Know the guest's memory by these regions from now on: guest address, size and offset in the file.

        ``fds`` are their files, one for each. Queues that are served go on, in the new memory. Raises PortError, and
        leaves all as it was: EINVAL for memory that may vanish, EFAULT for memory that cannot be mapped.
        """
        if not 1 <= len(regions) <= MAX_REGIONS or len(regions) != len(fds):
            raise PortError(
                errno.EINVAL,
                f"netmap: guest memory of {len(regions)} regions with {len(fds)} descriptors\n"
                f"        send 1 to {MAX_REGIONS}, each with its memfd",
            )
        mappings: list[Mapping] = []
        table: list[Region] = []
        for region, fd in zip(regions, fds, strict=True):
            guest, size, offset = region["guest"], region["size"], region["offset"]
            if not size or guest + size > 1 << 63 or offset + size > 1 << 63:
                raise PortError(
                    errno.EINVAL,
                    f"netmap: impossible guest memory: {size:,} bytes at {guest:#x}\n        end below 2**63",
                )
            if self._host.relay is None:
                check_sealed(fd, offset + size, "the guest's memory")
            first = offset & -max(mmap.ALLOCATIONGRANULARITY, os.fstat(fd).st_blksize)
            try:
                mappings.append(Mapping(fd, offset + size - first, offset=first))
            except OSError as error:
                raise PortError(errno.EFAULT, f"netmap: cannot map the guest's memory: {error.strerror}") from None
            table.append(Region(guest, size, mappings[-1].address + offset - first))
        before = self._regions, self._mappings
        try:
            self._use(table, mappings)
        except PortError:
            self._use(*before)
            raise

    def set_log(self, fd: int, size: int, offset: int) -> None:
        """Note from now on which pages of guest memory are written to: in ``size`` bytes of a file, or nowhere (fd -1).

        The file is mapped, and the descriptor stays the caller's. Raises PortError, and leaves all as it was: EINVAL for a
        log that may vanish or is not aligned to words of 4 bytes, EFAULT for one that cannot be mapped.
        """
        log = None
        place = (0, 0)
        if fd >= 0:
            if size < 1 or offset % _LOG_WORD or offset + size > 1 << 63:
                raise PortError(
                    errno.EINVAL,
                    f"netmap: a log of {size:,} bytes at {offset:#x}\n        align it to {_LOG_WORD}, and end below 2**63",
                )
            if self._host.relay is None:
                check_sealed(fd, offset + size, "the log")
            first = offset & -max(mmap.ALLOCATIONGRANULARITY, os.fstat(fd).st_blksize)
            try:
                log = Mapping(fd, offset + size - first, offset=first)
            except OSError as error:
                raise PortError(errno.EFAULT, f"netmap: cannot map the log: {error.strerror}") from None
            place = (log.address + offset - first, 8 * size)
        served = {index: self._pause(index) for index in list(self._running)}
        self.adapter.log, self._log = place, log
        try:
            for index, running in served.items():
                self._resume(index, running)
        finally:
            self._running = served

    def _use(self, table: list[Region], mappings: list[Mapping]) -> None:
        """Let the queues that are served go on in other memory; the first that cannot raises PortError."""
        served = {index: self._pause(index) for index in list(self._running)}
        self._regions, self._mappings = table, mappings
        try:
            for index, running in served.items():
                self._resume(index, running)
        finally:
            self._running = served

    def start(self, index: int, setup: Setup, features: int, kick: int, call: int) -> None:
        """Serve queue ``index``, whose driver has taken ``features``: ``kick`` is written to by it, ``call`` by us.

        Both are eventfds, duplicated here; a call of -1 is none. Raises PortError, and does not serve it: EBUSY if it
        is served, EINVAL and EFAULT for a queue that cannot be.
        """
        self._check(index)
        if index in self._running:
            raise PortError(
                errno.EBUSY, f"netmap: queue {index} of {self.adapter.name} is served\n        stop it first"
            )
        for fd in (kick, call):
            if fd >= 0:
                check_eventfd(fd)
        running = _Running(setup, features, kick, call)
        try:
            self._resume(index, running)
        except BaseException:
            running.close()
            raise

    def stop(self, index: int) -> tuple[int, int]:
        """Serve a queue no longer; return its positions (last_avail, used_idx). On return nobody touches it.

        A queue that is not served stays so: then the positions are those that it had, or 0.
        """
        self._check(index)
        if index in self._running:
            running = self._pause(index)
            running.close()
            return running.setup.last_avail, running.setup.used_idx or 0
        return self.adapter.stop_queue(index)

    def close(self) -> None:
        """Serve nothing any more, and take the port off its switch. Harmless when repeated."""
        for index in list(self._running):
            self.stop(index)
        self._regions, self._mappings = [], []
        self._log = None
        if self.adapter.references:
            for ring in self.adapter.rings:
                ring.close()
            self.adapter.drop()
        self._let_go()

    def _let_go(self) -> None:
        if self._joint is not None:
            self._joint.close()
            self._joint = None
        if self._shown is not None:
            self._shown.close()
            os.close(self._trouble)
            self._shown = None

    def _resume(self, index: int, running: _Running) -> None:
        self.adapter.start_queue(index, running.setup, self._regions, running.features, self._trouble)
        wakes = self._joint.wakes(index) if self._joint else ()
        service = QueueService(
            self.adapter.queue(index), running.kick, running.call, kicks=wakes, spin=self._host.kthreads.spin
        )
        try:
            self._watchdog.watch([service])
            self._host.kthreads.add([service])
        except OSError:
            self._watchdog.forget([service])
            self.adapter.stop_queue(index)
            raise
        running.service = service
        self._running[index] = running

    def _pause(self, index: int) -> _Running:
        running = self._running.pop(index)
        if running.service is None:  # it could not go on in other memory
            return running
        self._host.kthreads.remove([running.service])
        self._watchdog.forget([running.service])
        running.service = None
        last_avail, used_idx = self.adapter.stop_queue(index)
        running.setup = running.setup._replace(last_avail=last_avail, used_idx=used_idx)
        return running

    def _check(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise PortError(
                errno.EINVAL,
                f"netmap: {self.adapter.name} has no queue {index}\n        it has {self.count}, counted from 0",
            )
