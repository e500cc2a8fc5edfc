# SPDX-License-Identifier: BSD-2-Clause
"""virtio-rnd: entropy of the host for the guest (virtio 1.2 §5.4)."""

from __future__ import annotations

import errno
import os

from ptnetmap.abi import pci
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.pci.device import register
from ptnetmap.bhyve.virtio.device import VirtioDevice
from ptnetmap.bhyve.virtio.queue import Chain, Queue
from ptnetmap.errors import GuestError

MAX_BYTES = 4096
"""Bytes that one chain gets at the most, however long it is: the device may give fewer than asked (§5.4.6.2)."""


@register
class VirtioRnd(VirtioDevice):
    """A source of entropy with one queue; it has no options and no configuration of its own."""

    name = "virtio-rnd"
    virtio_id = abi.VIRTIO_ID_ENTROPY
    class_code = pci.PCIC_CRYPTO << 16
    queue_sizes = (64,)

    def handle(self, queue: Queue, chain: Chain) -> None:
        """Fill the chain's buffers; raises GuestError (EINVAL) for one with buffers to read (§5.4.6.1)."""
        if chain.readable:
            raise GuestError(
                errno.EINVAL,
                f"{self.name}: the driver sent {chain.readable_bytes:,} bytes\n"
                "        it must offer buffers that the device writes",
            )
        self.complete(queue, chain, chain.write(os.urandom(min(chain.writable_bytes, MAX_BYTES))))
