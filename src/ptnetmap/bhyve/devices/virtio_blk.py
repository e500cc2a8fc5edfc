# SPDX-License-Identifier: BSD-2-Clause
"""virtio-blk: a disk for the guest, in a file or a block device of the host (virtio 1.2 §5.2).

Requests are carried out by threads, several at once and in any order, straight between the file and the guest's memory.
A driver that wants an order waits for one request before it sends the next; a flush covers what was returned before.
"""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ptnetmap.abi import pci
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.config import boolean_value
from ptnetmap.bhyve.devices.block_image import BlockImage
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.pci.device import register
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.device import VirtioDevice
from ptnetmap.bhyve.virtio.queue import Chain, Queue
from ptnetmap.errors import ConfigError, GuestError

QUEUE_SIZE = 128
"""Entries of the queue."""
THREADS = 8
"""Requests that are carried out at once; threads are started as they are needed."""
MAX_RANGES = 32
"""Ranges of a request to discard or to zero."""
MAX_RANGE_SECTORS = (1 << 30) // abi.VIRTIO_BLK_SECTOR
"""Sectors of such a range."""

_HEADER = struct.Struct("<IIQ")
_RANGE = struct.Struct("<QII")


class _RequestError(Exception):
    """A request ends with this status."""

    def __init__(self, status: int) -> None:
        self.status = status


@register
class VirtioBlk(VirtioDevice):
    """A disk. Options: ``path``, and bhyve's flags and settings.

    ========== =====================================================================================================
    option     meaning
    ========== =====================================================================================================
    path       the file or block device
    nocache    go around the host's page cache
    sync       every write reaches the medium before it is done; ``direct`` is another name for it
    ro         the guest cannot write
    sectorsize LOGICAL or LOGICAL/PHYSICAL, in bytes
    nodelete   the guest cannot discard
    ser        the name that the guest reads, up to 20 characters; else one made from the path
    ========== =====================================================================================================
    """

    name = "virtio-blk"
    virtio_id = abi.VIRTIO_ID_BLOCK
    class_code = pci.PCIC_STORAGE << 16
    queue_sizes = (QUEUE_SIZE,)

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        def flag(*keys: str) -> bool:
            return any(boolean_value(key, options.get(key, "false")) for key in keys)

        path = options.get("path", "")
        if not path:
            raise ConfigError("virtio-blk: no disk image\n        write -s SLOT,virtio-blk,PATH")
        self.ident = _ident(path, options.get("ser", ""))
        can_discard = not flag("nodelete")
        self.image = BlockImage(
            path,
            read_only=flag("ro"),
            nocache=flag("nocache"),
            sync=flag("sync", "direct"),
            sector_size=options.get("sectorsize", ""),
        )
        features = (
            abi.VIRTIO_BLK_F_SEG_MAX | abi.VIRTIO_BLK_F_BLK_SIZE | abi.VIRTIO_BLK_F_FLUSH | abi.VIRTIO_BLK_F_TOPOLOGY
        )
        if self.image.read_only:
            features |= abi.VIRTIO_BLK_F_RO
        else:
            features |= abi.VIRTIO_BLK_F_WRITE_ZEROES | (abi.VIRTIO_BLK_F_DISCARD if can_discard else 0)
        self._can_discard = can_discard
        self._idle = threading.Condition()
        self._busy = 0
        self._epoch = 0
        self._jobs: set[concurrent.futures.Future[None]] = set()
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, f"{self.name} {function}")
        try:
            super().__init__(host, function, options, features=features, device_config=self._describe())
        except BaseException:
            self.image.close()
            raise

    @classmethod
    def parse_options(cls, text: str) -> dict[str, str]:
        """As for any device, after the path, which has no key."""
        path, _, rest = text.partition(",")
        if "=" in path.partition("/")[0]:
            return super().parse_options(text)
        return {"path": path, **super().parse_options(rest)}

    def _describe(self) -> bytes:
        image = self.image
        config: Any = np.zeros((), abi.virtio_blk_config)
        config["capacity"] = image.size // abi.VIRTIO_BLK_SECTOR
        config["seg_max"] = QUEUE_SIZE - 2
        config["blk_size"] = image.logical_sector
        config["physical_block_exp"] = (image.physical_sector // image.logical_sector).bit_length() - 1
        config["max_discard_sectors"] = config["max_write_zeroes_sectors"] = MAX_RANGE_SECTORS
        config["max_discard_seg"] = config["max_write_zeroes_seg"] = MAX_RANGES
        config["discard_sector_alignment"] = image.physical_sector // abi.VIRTIO_BLK_SECTOR
        config["write_zeroes_may_unmap"] = self._can_discard
        return bytes(config.tobytes())

    # --- requests --------------------------------------------------------------------------------------------------

    def handle(self, queue: Queue, chain: Chain) -> None:
        """Start a request; raises GuestError (EINVAL) for a chain without room for header and status."""
        if chain.readable_bytes < _HEADER.size or not chain.writable_bytes:
            raise GuestError(
                errno.EINVAL,
                f"{self.name}: a request of {chain.readable_bytes:,} bytes with room for {chain.writable_bytes:,}\n"
                f"        the driver must send {_HEADER.size} bytes and leave one for the status",
            )
        job = self._threads.submit(self._carry_out, queue, chain, self._epoch)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def drain(self) -> None:
        """Return when no request is under way; not to be called with the machine's lock held."""
        concurrent.futures.wait(tuple(self._jobs))

    def stopped(self) -> None:
        """Forget the requests that have not begun, and wait for the others to leave the guest's memory."""
        with self._idle:
            self._epoch += 1
            self._idle.wait_for(lambda: not self._busy)

    def queue_changed(self, index: int) -> None:
        """A queue that is taken out of use takes its requests with it."""
        if not self.queues[index].enabled:
            self.stopped()

    def close(self) -> None:
        """Finish, and close the image."""
        super().close()
        self._threads.shutdown()
        self.image.close()

    def _carry_out(self, queue: Queue, chain: Chain, epoch: int) -> None:
        """Do a request, on a thread of its own."""
        with self._idle:
            if epoch != self._epoch:
                return
            self._busy += 1
        written = 0
        status = abi.VIRTIO_BLK_S_IOERR
        try:
            written = self._request(chain)
            status = abi.VIRTIO_BLK_S_OK
        except _RequestError as error:
            status = error.status
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                status = abi.VIRTIO_BLK_S_UNSUPP
        finally:
            chain.write(bytes([status]), chain.writable_bytes - 1)
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()
        # What is valid is counted from the start; the status is its end if nothing lies between (§2.7.8.2).
        if written == chain.writable_bytes - 1:
            written += 1
        with self.host.lock:
            if epoch == self._epoch:
                self.complete(queue, chain, written)
                self.flush(queue)

    def _request(self, chain: Chain) -> int:
        """Carry out a request, and return how many bytes of data it gave the driver; raises _RequestError, OSError."""
        kind, _, sector = _HEADER.unpack(chain.read(_HEADER.size))
        image = self.image
        room = chain.writable_bytes - 1
        sent = chain.readable_bytes - _HEADER.size
        match kind:
            case abi.VIRTIO_BLK_T_IN:
                offset = self._range(sector, room)
                image.read(list(chain.views(chain.writable, 0, room)), offset)
                return room
            case abi.VIRTIO_BLK_T_OUT:
                self._may_write()
                offset = self._range(sector, sent)
                image.write(list(chain.views(chain.readable, _HEADER.size, sent)), offset)
                self._written()
            case abi.VIRTIO_BLK_T_FLUSH:
                image.flush()
            case abi.VIRTIO_BLK_T_GET_ID:
                return chain.write(self.ident[:room])
            case abi.VIRTIO_BLK_T_DISCARD if self._can_discard:
                self._ranges(chain, sent, 0, lambda offset, length, _: image.discard(offset, length))
            case abi.VIRTIO_BLK_T_WRITE_ZEROES:
                unmap = abi.VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
                self._ranges(
                    chain,
                    sent,
                    unmap,
                    lambda offset, length, flags: image.zero(
                        offset, length, discard=self._can_discard and bool(flags & unmap)
                    ),
                )
            case _:
                raise _RequestError(abi.VIRTIO_BLK_S_UNSUPP)
        return 0

    def _ranges(self, chain: Chain, sent: int, allowed: int, act: Callable[[int, int, int], None]) -> None:
        """Check all ranges of a request to discard or to zero, then act on each (§5.2.6.2)."""
        self._may_write()
        if sent == 0 or sent % _RANGE.size or sent > MAX_RANGES * _RANGE.size:
            raise _RequestError(abi.VIRTIO_BLK_S_IOERR)
        work = []
        for sector, count, flags in _RANGE.iter_unpack(chain.read(sent, _HEADER.size)):
            if flags & ~allowed:
                raise _RequestError(abi.VIRTIO_BLK_S_UNSUPP)
            if count > MAX_RANGE_SECTORS:
                raise _RequestError(abi.VIRTIO_BLK_S_IOERR)
            length = count * abi.VIRTIO_BLK_SECTOR
            work.append((self._range(sector, length), length, flags))
        for offset, length, flags in work:
            if length:
                act(offset, length, flags)
        self._written()

    def _range(self, sector: int, length: int) -> int:
        """Return where ``length`` bytes from ``sector`` on start; raises _RequestError if they are not on the disk."""
        offset = sector * abi.VIRTIO_BLK_SECTOR
        if length % abi.VIRTIO_BLK_SECTOR or offset + length > self.image.size:
            raise _RequestError(abi.VIRTIO_BLK_S_IOERR)
        return offset

    def _may_write(self) -> None:
        if self.image.read_only:
            raise _RequestError(abi.VIRTIO_BLK_S_IOERR)

    def _written(self) -> None:
        """Without the flush command there is no cache that a driver could know of (§5.2.6.2)."""
        if not self.negotiation.accepted & abi.VIRTIO_BLK_F_FLUSH:
            self.image.flush()


def _ident(path: str, serial: str) -> bytes:
    """Return 20 bytes that name a disk: its serial number, or bhyve's name for a path."""
    if not serial:
        digest = hashlib.md5(path.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest().upper()
        serial = f"BHYVE-{digest[:4]}-{digest[4:8]}-{digest[8:12]}"
    ident = serial.encode(errors="surrogateescape")
    if len(ident) > abi.VIRTIO_BLK_ID_BYTES:
        raise ConfigError(f"virtio-blk: the serial number {serial!r} is longer than {abi.VIRTIO_BLK_ID_BYTES} bytes")
    return ident.ljust(abi.VIRTIO_BLK_ID_BYTES, b"\0")
