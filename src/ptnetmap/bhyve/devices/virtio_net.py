# SPDX-License-Identifier: BSD-2-Clause
"""virtio-net: a network device (virtio 1.2 §5.1), and what ptnetmap added to it in 2015 (netmap-abi 5a).

With a pass-through back end it offers one feature more, PTNETMAP, and five registers after its configuration. A driver
that takes the feature uses these instead of its queues: the rings of the port are in the memory that a ptnetmap-memdev
shows, their indices in a page of the guest's, and the queues' notify registers and interrupts wake kthreads and driver.
To any other driver it is a virtio-net whose link is down.

With an ordinary back end, a port of a switch, netmapd serves the queues in the guest's memory; the control queue is
served here (:mod:`~ptnetmap.bhyve.devices.net_control`).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from ptnetmap.abi import pci, ptnet
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.abi.netmap.csb import NETMAP_VIRT_CSB_SIZE, csb_2015
from ptnetmap.bhyve.devices import net_control
from ptnetmap.bhyve.devices.net_options import NetOptions
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.passthrough.pairing import warn_unless_shown
from ptnetmap.bhyve.passthrough.port import PassedPort, file_offset
from ptnetmap.bhyve.passthrough.registers2015 import Registers2015
from ptnetmap.bhyve.pci.device import register
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.backend import open_plain
from ptnetmap.bhyve.virtio.device import RING_FEATURES, VirtioDevice
from ptnetmap.bhyve.virtio.queue import Chain, Queue
from ptnetmap.bhyve.virtio.served import ServedQueues
from ptnetmap.errors import ConfigError, GuestError
from ptnetmap.netmap.client.guestport import CSB_PAGE_2015
from ptnetmap.netmap.client.virtioport import VirtioPort

QUEUE_SIZE = 1024
"""Entries of each queue that carries packets."""
PTNETMAP = 1 << ptnet.VIRTIO_NET_F_PTNETMAP
"""The feature of 2015, as a mask."""

_RX, _TX = abi.VIRTIO_NET_QUEUE_RX, abi.VIRTIO_NET_QUEUE_TX
_FEATURES = abi.VIRTIO_NET_F_MAC | abi.VIRTIO_NET_F_STATUS
# Who passes through leaves the queues alone, so that interrupting when they are empty is easily promised.
_FEATURES_2015 = PTNETMAP | abi.VIRTIO_F_NOTIFY_ON_EMPTY
_RING_BITS = ((1 << 42) - 1) & ~((1 << 24) - 1)
_CONTROL = 2
_CONFIG = abi.virtio_net_config
_STATUS = _CONFIG.fields["status"][1] if _CONFIG.fields else 0
_MAC = slice(0, _STATUS)
_AT = {name: (field[1], field[0].itemsize) for name, field in (csb_2015.fields or {}).items()}

_log = logging.getLogger(__name__)


@register
class VirtioNet(VirtioDevice):
    """A network device; its options are :class:`NetOptions`', of which ``backend`` comes first and without a key.

    ``port`` is the port that it passes through, and ``served`` what netmapd serves of its queues; None where there is
    none.
    """

    name = "virtio-net"
    virtio_id = abi.VIRTIO_ID_NET
    class_code = pci.PCIC_NETWORK << 16
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE, net_control.QUEUE_SIZE)

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        self._options = NetOptions.parse(options, function, host.name)
        self._label = f"{self.name} at {function}"
        self.port: PassedPort | None = None
        self.served: ServedQueues | None = None
        plain = self._open(host)
        mtu, pairs = self._options.mtu, self._options.pairs
        config: Any = np.zeros((), _CONFIG)
        config["mac"] = list(self._options.mac)
        config["max_virtqueue_pairs"] = pairs
        self._ptnetmap = Registers2015(self._command, self._place_csb)
        self._csb = 0
        features, ring_features, tail = _FEATURES | abi.VIRTIO_NET_F_MRG_RXBUF, RING_FEATURES, b""
        sizes = self.queue_sizes[:_CONTROL] * pairs
        if self.port:
            # What a driver of 2015 expects of a queue that only wakes: no more than the standard's first version.
            features, ring_features = features | _FEATURES_2015, 0
            tail = bytes(ptnet.PTNETMAP_VIRTIO_IO_SIZE)
        elif plain:
            features = _FEATURES | plain.features & ~_RING_BITS | (abi.VIRTIO_NET_F_MTU if mtu else 0)
            ring_features = plain.features & RING_FEATURES
            tail = mtu.to_bytes(2, "little")
        if not self.port:
            features |= net_control.FEATURES | (abi.VIRTIO_NET_F_MQ if pairs > 1 else 0)
            sizes += self.queue_sizes[_CONTROL:]
        try:
            super().__init__(
                host,
                function,
                options,
                features=features,
                ring_features=ring_features,
                device_config=config.tobytes() + tail,
                queue_sizes=sizes,
                external=range(_CONTROL * pairs),
            )
            if plain:
                self.served = ServedQueues(
                    host,
                    plain,
                    self._label,
                    hand_over=self.hand_over,
                    lost=self.device_config_changed,
                    fail=self.negotiation.fail,
                )
        except BaseException:
            for port in (self.port, plain):
                if port:
                    port.close()
            raise
        if self.port:
            self.negotiation.modern_offer &= ~_FEATURES_2015  # in virtio 1 these bits mean nothing

    @classmethod
    def parse_options(cls, text: str) -> dict[str, str]:
        """As for any device, after the back end, which has no key."""
        backend, _, rest = text.partition(",")
        if not backend or "=" in backend.partition(":")[0]:
            return super().parse_options(text)
        return {"backend": backend, **super().parse_options(rest)}

    def _open(self, host: Host) -> VirtioPort | None:
        """Open the back end: ``port``, or what is returned. Without one that can be had there is no link, as in 2015."""
        wanted = self._options
        if wanted.kind == "null":
            return None
        try:
            if wanted.kind == "ptnetmap":
                self.port = PassedPort(host, wanted.backend, self._label, lossless=wanted.lossless)
                return None
            return open_plain(
                wanted.backend,
                wanted.kind,
                pairs=wanted.pairs,
                size=QUEUE_SIZE,
                mtu=wanted.mtu,
                lossless=wanted.lossless,
            )
        except ConfigError as error:
            _log.warning("%s\n        %s has no link", error, self._label)
            return None

    def all_plugged(self) -> None:
        """See whether the guest will find the rings."""
        if self.port:
            assert self.bus is not None
            warn_unless_shown(self.bus, self.port)

    # --- configuration and registers -------------------------------------------------------------------------------

    @property
    def passes_through(self) -> bool:
        """Whether the driver has taken the feature of 2015."""
        return self.port is not None and bool(self.negotiation.accepted & PTNETMAP)

    def device_config_read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes of the configuration, after which the registers of 2015 come."""
        up = self.passes_through or (self.served is not None and not self.served.lost)
        status = abi.VIRTIO_NET_S_LINK_UP if up else 0
        self.device_config[_STATUS : _STATUS + 2] = status.to_bytes(2, "little")
        if self.passes_through:
            self.device_config[_CONFIG.itemsize :] = self._ptnetmap.image()
        return super().device_config_read(offset, size)

    def device_config_write(self, offset: int, size: int, value: int) -> None:
        """Take a write to a register of 2015, or to the MAC address, by which old drivers set it (virtio 1.2 §5.1.4.2)."""
        if self.passes_through and offset >= _CONFIG.itemsize:
            self._ptnetmap.write(offset - _CONFIG.itemsize, size, value)
        old = not self.negotiation.is_modern and not self.negotiation.accepted & abi.VIRTIO_NET_F_CTRL_MAC_ADDR
        if old and offset + size <= _MAC.stop:
            self.device_config[offset : offset + size] = value.to_bytes(size, "little")

    def _place_csb(self, address: int) -> None:
        """Use the CSB at a guest-physical address from now on, or none (0)."""
        self._stop()
        self._csb = address

    def _command(self, command: int) -> int:
        """Carry out a command; return 0, an errno, or what was asked for."""
        assert self.port is not None
        match command:
            case ptnet.PTNETMAP_PTCTL_CONFIG:
                return self._configure()
            case ptnet.PTNETMAP_PTCTL_REGIF:
                return self._start()
            case ptnet.PTNETMAP_PTCTL_UNREGIF:
                self._stop()
                return 0
            case ptnet.PTNETMAP_PTCTL_HOSTMEMID:
                return self.port.netmap.mem_id
            case (
                ptnet.PTNETMAP_PTCTL_FINALIZE
                | ptnet.PTNETMAP_PTCTL_IFNEW
                | ptnet.PTNETMAP_PTCTL_IFDELETE
                | ptnet.PTNETMAP_PTCTL_DEREF
            ):
                return 0
            case _:
                return errno.EINVAL

    def _configure(self) -> int:
        """Fill in what the guest wants to know of the port (CONFIG)."""
        assert self.port is not None
        netmap = self.port.netmap
        try:
            self._check_csb()
        except GuestError as error:
            return self.port.refuse(error)
        for name, value in (
            ("nifp_offset", netmap.nifp_offset),
            ("num_tx_rings", netmap.tx_rings),
            ("num_rx_rings", netmap.rx_rings),
            ("num_tx_slots", netmap.tx_slots),
            ("num_rx_slots", netmap.rx_slots),
        ):
            self._store(name, value)
        return 0

    def _check_csb(self) -> None:
        if not self._csb:
            raise GuestError(errno.EINVAL, "the guest gave no CSB\n        it has to write CSBBAH and CSBBAL first")
        file_offset(self.host.memory, self._csb, NETMAP_VIRT_CSB_SIZE)

    def _store(self, name: str, value: int) -> None:
        offset, size = _AT[name]
        self.host.memory.write_int(self._csb + offset, size, value)

    # --- control queue ---------------------------------------------------------------------------------------------

    def features_acceptable(self, features: int) -> bool:
        """Refuse what needs a control queue to a driver that takes none (virtio 1.2 §5.1.3.1)."""
        return bool(features & abi.VIRTIO_NET_F_CTRL_VQ) or not features & (net_control.FEATURES | abi.VIRTIO_NET_F_MQ)

    @property
    def _pairs(self) -> int:
        """Pairs of queues that the driver may use."""
        return self._options.pairs if self.negotiation.accepted & abi.VIRTIO_NET_F_MQ else 1

    @property
    def _control(self) -> int:
        """The queue of commands, which comes after those of packets that the driver knows of (virtio 1.2 §5.1.2)."""
        return _CONTROL * self._pairs

    def handle(self, queue: Queue, chain: Chain) -> None:
        """Carry out a command of the driver's."""
        features = self.negotiation.accepted
        if queue.index != self._control or not features & abi.VIRTIO_NET_F_CTRL_VQ:
            super().handle(queue, chain)
        self.complete(queue, chain, net_control.answer(self, features, chain))

    def set_mac(self, mac: bytes) -> bool:
        """Have another MAC address until the driver resets the device; not a group's, and not none."""
        if mac[0] & 1 or not any(mac):
            return False
        self.device_config[_MAC] = mac
        self.negotiation.changed()
        return True

    def use_pairs(self, pairs: int) -> bool:
        """Use other pairs of queues than the first one, too; the driver must have set them up."""
        if not 1 <= pairs <= self._pairs or not all(queue.enabled for queue in self.queues[: _CONTROL * pairs]):
            return False
        if self.served:
            self.served.use_pairs(self.negotiation, pairs)
        return not self.negotiation.broken

    # --- passing through -------------------------------------------------------------------------------------------

    def _start(self) -> int:
        """Let kthreads serve ring 0 of each direction (REGIF, netmap-abi 5a.4); return 0 or an errno."""
        assert self.port is not None
        if self.port.served:
            return errno.EBUSY
        try:
            self._check_csb()
            for index in (_RX, _TX):
                self._use_notifications_alone(index)
        except GuestError as error:
            return self.port.refuse(error)
        handed = [self.hand_over(index) for index in (_TX, _RX)]
        interrupts = [-1 if one.interrupt is None else one.interrupt for one in handed]
        result = self.port.start(
            CSB_PAGE_2015, [(self._csb, NETMAP_VIRT_CSB_SIZE)], [one.kick for one in handed], interrupts
        )
        if result == 0:
            self._store("guest_need_txkick", 0)
        return result

    def _use_notifications_alone(self, index: int) -> None:
        """Leave a queue in a state in which its driver notifies and takes interrupts.

        The driver has put a chain into it for that; it comes back, empty, and the queue is not touched again.
        """
        queue = self.queues[index]
        chain = queue.take()
        if chain is not None:
            self.complete(queue, chain, 0)
        if queue.enabled:
            queue.ask_for_kicks()

    def _stop(self) -> None:
        if self.port:
            self.port.stop()

    # --- queues that netmapd serves --------------------------------------------------------------------------------

    def started(self) -> None:
        """Let netmapd serve the queues that the driver has enabled and uses."""
        if self.served:
            self.served.begin(self.negotiation)

    def queue_changed(self, index: int) -> None:
        """Hand a queue over anew, or take it back if it is not enabled any more."""
        if index == _CONTROL:
            self.attend(index, index == self._control)
        if self.served and index != self._control:
            self.served.restart(self.negotiation, index)

    def stopped(self) -> None:
        """Take the queues back and end pass-through: the driver resets the device, or has made it unusable."""
        if self.served:
            self.served.end(self.negotiation)
        self._stop()
        self._csb = 0
        self._ptnetmap.clear()
        self.device_config[_MAC] = self._options.mac

    def close(self) -> None:
        """Give the port back."""
        super().close()
        for port in (self.port, self.served):
            if port:
                port.close()
