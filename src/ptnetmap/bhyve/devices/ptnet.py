# SPDX-License-Identifier: BSD-2-Clause
"""ptnet: a network device whose rings are a netmap port's own, as today's netmap drivers know it (netmap-abi 5b.2).

The guest finds the rings in the memory that a ptnetmap-memdev shows, and hands over two arrays of indices in its own
memory. From PTCTL_CREATE on netmapd's kthreads work on these: a kick goes from the guest to a kthread, and an interrupt
back, through KVM alone.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

from ptnetmap.abi import pci, ptnet
from ptnetmap.abi.netmap.csb import nm_csb_atok
from ptnetmap.bhyve.config import boolean_value
from ptnetmap.bhyve.devices.mac import mac_address
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.passthrough.pairing import warn_unless_shown
from ptnetmap.bhyve.passthrough.port import PassedPort
from ptnetmap.bhyve.pci.bar import BarKind
from ptnetmap.bhyve.pci.config import BarsChanged, CapabilityWritten, CommandChanged
from ptnetmap.bhyve.pci.device import PciDevice, register
from ptnetmap.bhyve.pci.eventpin import EventPin
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.settings import backend_type
from ptnetmap.bhyve.virtio.doorbell import Doorbell, NotifyRegisters, Place
from ptnetmap.errors import ConfigError, PortError
from ptnetmap.netmap.client.guestport import CSB_ENTRIES

MAX_RINGS = 16
"""Rings of each direction: as many as there are kick registers."""
HEADER_LENGTHS = (0, 10, 12)
"""Bytes of virtio-net header that a frame can begin with."""

_ENTRY = nm_csb_atok.itemsize
_WORD = 4


@register
class Ptnet(PciDevice):
    """The device. Options: ``backend``, which comes first and without a key, ``mac``, ``lossless``.

    ``port`` is its port. ``features`` are the accepted ones, ``result`` what the last command came to, ``header`` the
    length of virtio-net headers.
    """

    name = "ptnet"

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        backend = options.get("backend", "")
        if not backend or backend_type(backend, options.get("type")) != "ptnetmap":
            raise ConfigError(
                f"ptnet: {backend or 'no backend'}\n        write -s SLOT,ptnet,ptvaleX:Y or -s SLOT,ptnet,ptnetmap:NAME"
            )
        self._mac = mac_address(function, host.name, options.get("mac"))
        super().__init__(host, function, options)
        lossless = boolean_value("lossless", options.get("lossless", "false"))
        self.port = PassedPort(host, backend, f"{self.name} at {function}", lossless=lossless)
        try:
            self._describe()
        except BaseException:
            self.port.close()
            raise
        self._clear()

    @classmethod
    def parse_options(cls, text: str) -> dict[str, str]:
        """As for any device, after the backend, which has no key."""
        backend, _, rest = text.partition(",")
        return {"backend": backend, **super().parse_options(rest)}

    def _describe(self) -> None:
        netmap = self.port.netmap
        rings = netmap.tx_rings + netmap.rx_rings
        if max(netmap.tx_rings, netmap.rx_rings) > MAX_RINGS:
            raise ConfigError(
                f"ptnet: {netmap.name} has {netmap.tx_rings} TX and {netmap.rx_rings} RX rings\n"
                f"        a guest can have {MAX_RINGS} of each at most: open it with fewer"
            )
        self.identify(
            vendor_id=ptnet.PTNETMAP_PCI_VENDOR_ID,
            device_id=ptnet.PTNETMAP_PCI_NETIF_ID,
            class_code=pci.PCIC_NETWORK << 16,
        )
        self.add_bar(ptnet.PTNETMAP_IO_PCI_BAR, BarKind.IO, ptnet.PTNET_IO_MASK + 1)
        self.add_msix(rings, ptnet.PTNETMAP_MSIX_PCI_BAR)
        self._pin = EventPin(self)
        self._kicks = [Doorbell(self.host, None) for _ in range(rings)]
        places = [Place("port", ptnet.kick_register(i), _WORD, None) for i in range(rings)]
        self._notify = NotifyRegisters(self.host, self._kicks, places)

    def all_plugged(self) -> None:
        """See whether the guest will find the rings."""
        assert self.bus is not None
        warn_unless_shown(self.bus, self.port)

    def _clear(self) -> None:
        self.features = 0
        self.result = 0
        self.header = 0
        self._halves = dict.fromkeys(_HALVES, 0)

    # --- registers -------------------------------------------------------------------------------------------------

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """Read registers."""
        netmap = self.port.netmap
        high, low = ptnet.mac_registers(self._mac)
        halves = self._halves
        image = _IMAGE.pack(
            self.features,
            self.result,
            low,
            high,
            halves[ptnet.PTNET_IO_CSBBAH],
            halves[ptnet.PTNET_IO_CSBBAL],
            netmap.nifp_offset,
            netmap.tx_rings,
            netmap.rx_rings,
            netmap.tx_slots,
            netmap.rx_slots,
            self.header,
            netmap.mem_id,
            halves[ptnet.PTNET_IO_CSB_GH_BAH],
            halves[ptnet.PTNET_IO_CSB_GH_BAL],
            halves[ptnet.PTNET_IO_CSB_HG_BAH],
            halves[ptnet.PTNET_IO_CSB_HG_BAL],
        )
        return int.from_bytes(image[offset : offset + size], "little")

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Write a register, as a whole; kicks may have any width."""
        if offset >= ptnet.PTNET_IO_KICK_BASE:
            ring = (offset - ptnet.PTNET_IO_KICK_BASE) // _WORD
            if ring < len(self._kicks):
                self._kicks[ring].ring()
            return
        if size != _WORD:
            return
        if offset in self._halves:
            self._halves[offset] = value
            if offset in (ptnet.PTNET_IO_CSB_GH_BAL, ptnet.PTNET_IO_CSB_HG_BAL):
                self._stop()
        elif offset == ptnet.PTNET_IO_PTFEAT:
            self.features = value & (ptnet.PTNETMAP_F_VNET_HDR if self.port.netmap.has_headers else 0)
        elif offset == ptnet.PTNET_IO_VNET_HDR_LEN:
            if self.features & ptnet.PTNETMAP_F_VNET_HDR and value in HEADER_LENGTHS:
                self._set_header(value)
        elif offset == ptnet.PTNET_IO_PTCTL:
            self.result = self._command(value)

    def _set_header(self, length: int) -> None:
        try:
            self.port.netmap.set_header(length)
        except PortError:  # the guest reads that it is as it was
            return
        self.header = length

    def _command(self, command: int) -> int:
        """Carry out a command; return 0 or an errno."""
        if command == ptnet.PTNETMAP_PTCTL_DELETE:
            self._stop()
            return 0
        if command != ptnet.PTNETMAP_PTCTL_CREATE or self.msix is None:
            return errno.EINVAL
        size = len(self._kicks) * _ENTRY
        csb = [
            (self._halves[high] << 32 | self._halves[low], size)
            for high, low in (
                (ptnet.PTNET_IO_CSB_GH_BAH, ptnet.PTNET_IO_CSB_GH_BAL),
                (ptnet.PTNET_IO_CSB_HG_BAH, ptnet.PTNET_IO_CSB_HG_BAL),
            )
        ]
        if not all(address for address, _ in csb):
            return errno.EINVAL
        kicks = [bell.eventfd for bell in self._kicks]
        result = self.port.start(CSB_ENTRIES, csb, kicks, [vector.eventfd for vector in self.msix.vectors])
        self._pin.settle(in_use=self.port.served)
        return result

    def _stop(self) -> None:
        self.port.stop()
        self._pin.settle(in_use=False)

    def config_changed(self, effect: BarsChanged | CommandChanged | CapabilityWritten) -> None:
        """Interrupt as the guest wants it now."""
        super().config_changed(effect)
        self._pin.settle(in_use=self.port.served)

    # --- life cycle ------------------------------------------------------------------------------------------------

    def bar_moved(self, bar: int, address: int | None) -> None:
        """Listen for kicks where they are written now."""
        if bar == ptnet.PTNETMAP_IO_PCI_BAR:
            self._notify.move(address)

    def reset(self) -> None:
        """Return to the state after power-on."""
        self._stop()
        if self.header:
            self._set_header(0)
        self._clear()
        super().reset()

    def close(self) -> None:
        """Give the port back, and what leads to it."""
        self._pin.close()
        self.port.close()
        self._notify.close()
        for bell in self._kicks:
            bell.close()
        super().close()


_IMAGE = struct.Struct("<17I")
_HALVES = (
    ptnet.PTNET_IO_CSBBAH,
    ptnet.PTNET_IO_CSBBAL,
    ptnet.PTNET_IO_CSB_GH_BAH,
    ptnet.PTNET_IO_CSB_GH_BAL,
    ptnet.PTNET_IO_CSB_HG_BAH,
    ptnet.PTNET_IO_CSB_HG_BAL,
)
