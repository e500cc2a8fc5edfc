# SPDX-License-Identifier: BSD-2-Clause
"""A PCI function: configuration space, BARs and interrupts, for device models to build on.

A device model subclasses :class:`PciDevice`, gives itself a :attr:`~PciDevice.name`, describes itself in ``__init__``
(:meth:`~PciDevice.identify`, :meth:`~PciDevice.add_bar`, :meth:`~PciDevice.add_msix`, :meth:`~PciDevice.use_intx`)
and answers :meth:`~PciDevice.bar_read` and :meth:`~PciDevice.bar_write`::

    @register
    class Counter(PciDevice):
        name = "counter"

        def __init__(self, host, function, options):
            super().__init__(host, function, options)
            self.identify(vendor_id=0x3333, device_id=2, class_code=0xFF0000)
            self.add_bar(0, BarKind.IO, 4)
            self.value = 0

        def bar_read(self, bar, offset, size):
            self.value += 1
            return self.value

All of it runs with ``host.lock`` held: accesses by the guest arrive so, and a callback of the event loop takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeVar

from ptnetmap.abi import pci
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.pci.bar import Bar, BarKind
from ptnetmap.bhyve.pci.config import BarsChanged, CapabilityWritten, CommandChanged, ConfigSpace
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.pci.intx import Pin
from ptnetmap.bhyve.pci.memory import BarMemory
from ptnetmap.bhyve.pci.msi import Msi
from ptnetmap.bhyve.pci.msix import Msix

if TYPE_CHECKING:
    from ptnetmap.bhyve.pci.bus import PciBus


class PciDevice:
    """A function of the PCI bus: ``host`` is the machine, ``function`` where it sits, ``options`` its own settings.

    ``options`` are the keys below its node of the configuration, without the node's name: ``{"device": "virtio-blk",
    "path": "disk.img"}``. A subclass raises ConfigError for options that it cannot serve, from ``__init__``, after
    which nothing of it may be left. Capabilities and the pin are fixed when ``__init__`` returns, BARs after
    :meth:`all_plugged`.
    """

    name: ClassVar[str] = ""
    """What ``-s slot,NAME`` calls it."""

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        self.host = host
        self.function = function
        self.options = options
        self.bus: PciBus | None = None
        self.config = ConfigSpace()
        self.bars: dict[int, Bar] = {}
        self.memories: dict[int, BarMemory] = {}
        self.msix: Msix | None = None
        self.msi: Msi | None = None
        self.pin: Pin | None = None

    @classmethod
    def parse_options(cls, text: str) -> dict[str, str]:
        """Return the settings that the rest of ``-s slot,name,TEXT`` means: ``key=value`` or ``flag``, with commas.

        A subclass whose first word has no key, as a disk's path, overrides this.
        """
        pairs = (word.partition("=") for word in text.split(",") if word)
        return {key: value if equals else "true" for key, equals, value in pairs}

    # --- description, for __init__ ---------------------------------------------------------------------------------

    def identify(
        self,
        *,
        vendor_id: int,
        device_id: int,
        class_code: int,
        revision: int = 0,
        subsystem_vendor_id: int = 0,
        subsystem_id: int = 0,
    ) -> None:
        """Say what this is; ``class_code`` has 24 bits: class, subclass, interface (PCI 3.0 §6.2.1)."""
        self.config.preset(pci.PCIR_VENDOR, 2, vendor_id)
        self.config.preset(pci.PCIR_DEVICE, 2, device_id)
        self.config.preset(pci.PCIR_REVID, 4, class_code << 8 | revision)
        self.config.preset(pci.PCIR_SUBVEND_0, 2, subsystem_vendor_id)
        self.config.preset(pci.PCIR_SUBDEV_0, 2, subsystem_id)

    def add_bar(self, number: int, kind: BarKind, size: int) -> Bar:
        """Ask for ``size`` bytes of address space, rounded up to a power of two; the bus finds a place.

        ``number`` is the register, 0-5; MEM64 takes the next one as well. Raises ValueError for one already taken.
        """
        bar = Bar(number, kind, size)
        self.config.add_bar(bar)
        self.bars[number] = bar
        return bar

    def add_memory(
        self,
        number: int,
        kind: BarKind,
        address: int,
        size: int,
        *,
        fd: int | None = None,
        read_only: bool = False,
    ) -> Bar:
        """As :meth:`add_bar`, for ``size`` bytes of our own memory at ``address``, which the guest shall see there.

        The guest reaches it without us, wherever it moves the BAR (netmap-abi 5a.9). Bytes of the BAR after ``size``
        read as ones. ``fd`` is the file behind the memory, if the hypervisor should know it.
        """
        bar = self.add_bar(number, kind, size)
        self.memories[number] = BarMemory(self.host, address, size, fd=fd, read_only=read_only)
        return bar

    def add_msix(self, vectors: int, bar: int) -> Msix:
        """Give it ``vectors`` MSI-X vectors, whose table and pending bits have BAR ``bar`` (MEM32) for themselves."""
        self.msix = Msix(self.host.interrupts, self.config, vectors, bar)
        self.add_bar(bar, BarKind.MEM32, self.msix.size)
        return self.msix

    def add_msi(self, vectors: int) -> Msi:
        """Give it ``vectors`` MSI messages: 1, 2, 4, 8, 16 or 32."""
        self.msi = Msi(self.host.interrupts, self.config, vectors)
        return self.msi

    def use_intx(self) -> Pin:
        """Give it an interrupt pin: INTA for functions 0 and 4, INTB for 1 and 5, and so on."""
        self.pin = Pin(self.function.function % 4 + 1)
        self.config.preset(pci.PCIR_INTPIN, 1, self.pin.number)
        return self.pin

    def all_plugged(self) -> None:
        """Hear that all devices are on the bus; the last moment to add a BAR. Raises as ``__init__``."""

    # --- what the guest does, for subclasses to answer -------------------------------------------------------------

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """Return ``size`` bytes (1-8, perhaps unaligned, all below the BAR's size) at ``offset`` of BAR ``bar``."""
        return (1 << 8 * size) - 1

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Take a write, as :meth:`bar_read`; ``value`` has no more than ``size`` bytes."""

    def bar_moved(self, bar: int, address: int | None) -> None:
        """Hear that BAR ``bar`` is decoded at ``address`` from now on, or not at all (None)."""

    def config_read(self, offset: int, size: int) -> int:
        """Return 1, 2 or 4 aligned bytes of configuration space."""
        return self.config.read(offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Take a write of 1, 2 or 4 aligned bytes to configuration space; the bus looks at the BARs afterwards."""
        for effect in self.config.write(offset, size, value):
            self.config_changed(effect)

    def config_changed(self, effect: BarsChanged | CommandChanged | CapabilityWritten) -> None:
        """Hear what a write to configuration space changed; a subclass calls this one too."""
        if isinstance(effect, CapabilityWritten):
            for messages in (self.msix, self.msi):
                if messages is not None and messages.capability == effect.capability:
                    messages.update()
        self._drive_pin()

    # --- interrupts ------------------------------------------------------------------------------------------------

    @property
    def uses_messages(self) -> bool:
        """Whether the guest has enabled MSI-X or MSI, so that the pin is not used."""
        return any(messages is not None and messages.enabled for messages in (self.msix, self.msi))

    def interrupt(self, vector: int = 0) -> None:
        """Interrupt the guest: by message ``vector`` if it has enabled messages, else by the pin until deasserted.

        A vector that the function does not have is ignored: its number may come from the guest.
        """
        if self.msix is not None and self.msix.enabled:
            self.msix.signal(vector)
        elif self.msi is not None and self.msi.enabled:
            self.msi.signal(vector)
        elif self.pin is not None:
            self.pin.asserted = True
            self._drive_pin()

    def deassert(self) -> None:
        """Let go of the interrupt pin, as when the guest has read the reason; messages need no such thing."""
        if self.pin is not None:
            self.pin.asserted = False
            self._drive_pin()

    def _drive_pin(self) -> None:
        """Bring the pin in line with its state, the INTx disable bit, and messages (PCI 3.0 §6.2.2, §6.8.1.3)."""
        if self.pin is None:
            return
        self.config.set_status(pci.PCIM_STATUS_INTxSTATE, self.pin.asserted)
        disabled = self.config.command & pci.PCIM_CMD_INTxDIS or self.uses_messages
        self.pin.drive(self.pin.asserted and not disabled)

    # --- life cycle ------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Return to the state after power-on; a subclass calls this one too."""
        self.config.reset()
        for messages in (self.msix, self.msi):
            if messages is not None:
                messages.reset()
        self.deassert()

    def close(self) -> None:
        """Give back what the device holds; a subclass calls this one too. Harmless when repeated."""
        self.deassert()
        for messages in (self.msix, self.msi):
            if messages is not None:
                messages.close()
        for memory in self.memories.values():
            memory.place(None)


DEVICES: dict[str, type[PciDevice]] = {}
"""Every device model that has been imported, by name."""

_Device = TypeVar("_Device", bound=PciDevice)


def register(model: type[_Device]) -> type[_Device]:
    """Enter a device model into :data:`DEVICES`, as a class decorator; raises ValueError for a name taken twice."""
    if not model.name or DEVICES.get(model.name, model) is not model:
        raise ValueError(f"{model.__qualname__}: {model.name!r} is no name, or that of another device model")
    DEVICES[model.name] = model
    return model
