# SPDX-License-Identifier: BSD-2-Clause
"""The PCI bus: finds devices for the guest's configuration cycles, and decodes the BARs where it puts them.

Configuration cycles arrive through :mod:`~ptnetmap.bhyve.pci.access`. There is no firmware in the guest, so
:meth:`PciBus.start` does its work: it gives each BAR an address, first-fit in the windows of
:mod:`~ptnetmap.bhyve.pci.bar`, and enables decoding.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from ptnetmap.abi import pci
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.iospace import IoSpace, Region
from ptnetmap.bhyve.pci.access import ECAM_BASE, ECAM_SIZE, Conf1, Ecam, Silent, aligned
from ptnetmap.bhyve.pci.bar import Bar, BarKind, Windows
from ptnetmap.bhyve.pci.device import DEVICES, PciDevice
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.pci.intx import IntxRouter, wire_of
from ptnetmap.errors import ConfigError


class PciBus:
    """The buses of a machine and what is on them; claims the ports and the ECAM of ``host``.

    ``windows`` are the addresses to give away; the defaults fit processors with 40 bits of physical address or more.
    """

    def __init__(self, host: Host, windows: Windows | None = None) -> None:
        self.host = host
        self.windows = windows or Windows()
        self.devices: dict[Function, PciDevice] = {}
        self.intx = IntxRouter(host.interrupts)
        self._regions: dict[tuple[Function, int], Region] = {}
        self._started = False
        self._conf1 = Conf1(self)
        self._claimed: list[tuple[IoSpace, Region]] = []
        for space, start, size, handler, exact in (
            (host.ports, pci.CONF1_ADDRESS_PORT, 4, self._conf1.address_register, True),
            # Ports of the address register that are not accessed as a whole; 0xcf9 between them is another device's.
            (host.ports, pci.CONF1_ADDRESS_PORT, 1, Silent(), False),
            (host.ports, pci.CONF1_ADDRESS_PORT + 2, 2, Silent(), False),
            (host.ports, pci.CONF1_DATA_PORT, 4, self._conf1, False),
            (host.mmio, ECAM_BASE, ECAM_SIZE, Ecam(self), False),
        ):
            self._claimed.append((space, space.add(start, size, handler, exact=exact)))

    # --- what is plugged in ----------------------------------------------------------------------------------------

    def create(self, function: Function, name: str, options: Mapping[str, str]) -> PciDevice:
        """Make the device model called ``name`` and plug it in.

        Raises ConfigError for a name that no device model has, for a function that is taken, and what the model
        raises.
        """
        self._check_free(function)
        model = DEVICES.get(name)
        if model is None:
            known = ", ".join(sorted(DEVICES)) or "none"
            raise ConfigError(f'pci slot {function}: unknown device "{name}"\n        there are: {known}', errno.ENODEV)
        device = model(self.host, function, options)
        self.add(device)
        return device

    def add(self, device: PciDevice) -> None:
        """Plug a device in where it says; raises ConfigError if another one is there."""
        self._check_free(device.function)
        if self._started:
            raise ValueError(f"pci slot {device.function}: devices are plugged in before the bus is started")
        self.devices[device.function] = device
        device.bus = self
        if device.pin is not None:
            device.pin.connect(self.intx, device.function.slot)

    def _check_free(self, function: Function) -> None:
        if function in self.devices:
            raise ConfigError(f"pci slot {function} already occupied!", errno.EEXIST, status=1)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The buses that have devices, in order; each is a root bus of its own."""
        return tuple(sorted({function.bus for function in self.devices}))

    # --- the firmware's work ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Give every BAR an address and enable what a device has; once, when all devices are there.

        A slot whose function 0 is missing gets a place holder there, for no guest looks at the others otherwise.
        Raises ConfigError when addresses run out, HypervisorError when memory behind a BAR cannot be shown: later, a
        guest may put it where that is so, and it is served without the hypervisor; now, something is wrong.
        """
        for bus, slot in {(function.bus, function.slot) for function in self.devices}:
            if Function(bus, slot, 0) not in self.devices:
                self.add(PlaceHolder(self.host, Function(bus, slot, 0), {}))
        self._started = True
        for function in sorted(self.devices):
            self.devices[function].all_plugged()
        self._assign()
        for device in self.devices.values():
            for memory in device.memories.values():
                if memory.refusal is not None:
                    raise memory.refusal

    def reset(self) -> None:
        """Return every device, and what :meth:`start` gave it, to the state after power-on."""
        for device in self.devices.values():
            device.reset()
        self.settle(*self.devices.values())
        self.intx.reset()
        self._conf1.address_register.value = 0
        self._assign()

    def close(self) -> None:
        """Close every device, the last one first, and give back ports and addresses. Harmless when repeated."""
        while self.devices:
            _, device = self.devices.popitem()
            self._undecode(device)
            try:
                device.close()
            finally:
                if device.pin is not None:
                    device.pin.disconnect()
        self.intx.close()
        while self._claimed:
            space, region = self._claimed.pop()
            space.remove(region)

    def _assign(self) -> None:
        self.windows.clear()
        slots = [(function.bus, function.slot) for function in self.devices]
        for function in sorted(self.devices):
            device = self.devices[function]
            config = device.config
            command = pci.PCIM_CMD_BUSMASTEREN
            for number in sorted(device.bars):
                bar = device.bars[number]
                address = self.windows.allocate(bar)
                if address is None:
                    largest = max(window.largest for window in self.windows.order(bar))
                    raise ConfigError(
                        f"pci slot {function} ({device.name}): BAR {number} needs {bar.size:,} bytes of"
                        f" {bar.kind.value}, the largest free block has {largest:,}\n"
                        "        use fewer devices, or smaller memory behind this one",
                        errno.ENOSPC,
                    )
                config.assign(bar, address)
                command |= bar.enable
            config.store(pci.PCIR_COMMAND, 2, command)
            if slots.count((function.bus, function.slot)) > 1:
                config.preset(pci.PCIR_HDRTYPE, 1, config.read(pci.PCIR_HDRTYPE, 1) | pci.PCIM_MFDEV)
            if device.pin is not None:
                legacy = self.intx.legacy_irq(wire_of(function.slot, device.pin.number))
                config.store(pci.PCIR_INTLINE, 1, 0xFF if legacy is None else legacy)
        self.settle(*self.devices.values())

    # --- configuration cycles --------------------------------------------------------------------------------------

    def read_config(self, function: Function, offset: int, size: int) -> int:
        """Return ``size`` bytes (1-8) of a function's configuration space; ones where there is nothing.

        Past 256 bytes there is nothing: these are no PCI Express functions.
        """
        device = self.devices.get(function)
        value = 0
        for start, width in aligned(offset, size):
            ones = (1 << 8 * width) - 1
            piece = ones
            if device is not None and start < pci.PCI_CONFIG_SIZE:
                piece = device.config_read(start, width) & ones
            value |= piece << 8 * (start - offset)
        return value

    def write_config(self, function: Function, offset: int, size: int, value: int) -> None:
        """Write ``size`` bytes (1-8) of a function's configuration space, and decode its BARs accordingly."""
        device = self.devices.get(function)
        if device is None:
            return
        for start, width in aligned(offset, size):
            if start < pci.PCI_CONFIG_SIZE:
                device.config_write(start, width, value >> 8 * (start - offset) & ((1 << 8 * width) - 1))
                self.settle(device)

    # --- decoding --------------------------------------------------------------------------------------------------

    def decoded(self, device: PciDevice, number: int) -> int | None:
        """Return where BAR ``number`` of a device is decoded now, None if nowhere."""
        region = self._regions.get((device.function, number))
        return None if region is None else region.start

    def settle(self, *devices: PciDevice) -> None:
        """Decode the BARs of ``devices`` where their configuration space says; tell those that moved.

        An address is decoded as it stands, 0 and the top of the address space too. A BAR that would reach past the
        end of the space is not decoded.
        """
        moved = [
            (device, bar, address)
            for device in devices
            for bar in device.bars.values()
            if (address := self._wanted(device, bar)) != self.decoded(device, bar.number)
        ]
        if not moved:
            return
        for device, bar, address in moved:
            self._move(device, bar, address)
        self._place_memories()
        for device, bar, address in moved:
            device.bar_moved(bar.number, address)

    def _wanted(self, device: PciDevice, bar: Bar) -> int | None:
        address = device.config.decoded(bar)
        if address is None or address + bar.size > self._space(bar).limit:
            return None
        return address

    def _space(self, bar: Bar) -> IoSpace:
        return self.host.ports if bar.kind is BarKind.IO else self.host.mmio

    def _move(self, device: PciDevice, bar: Bar, address: int | None) -> None:
        space = self._space(bar)
        region = self._regions.pop((device.function, bar.number), None)
        if region is not None:
            space.remove(region)
        if address is not None:
            bus, slot, function = device.function
            priority = (bus << 8 | slot << 3 | function) * 8 + bar.number
            handler = _Decoder(device, bar.number)
            self._regions[device.function, bar.number] = space.add(address, bar.size, handler, priority=priority)

    def _undecode(self, device: PciDevice) -> None:
        """Take a device off the address spaces."""
        moved = [bar for bar in device.bars.values() if self.decoded(device, bar.number) is not None]
        for bar in moved:
            self._move(device, bar, None)
        self._place_memories()
        for memory in device.memories.values():
            memory.place(None)
        for bar in moved:
            device.bar_moved(bar.number, None)

    def _place_memories(self) -> None:
        """Show each memory behind a BAR at its place, if the BAR is heard at all of its addresses and RAM at none.

        Elsewhere it would hide what has precedence; there accesses come through :class:`_Decoder`.
        """
        wanted = []
        for function, device in self.devices.items():
            for number, memory in device.memories.items():
                region = self._regions.get((function, number))
                free = region is not None and self.host.mmio.visible(region) and not memory.overlaps_ram(region.start)
                wanted.append((memory, region.start if free and region is not None else None))
        for memory, address in wanted:
            if address is None:
                memory.place(None)
        refused = [(memory, address) for memory, address in wanted if not memory.place(address)]
        # One that was refused may have wanted a place that another one left later.
        for memory, address in refused:
            memory.place(address)


class _Decoder:
    """Brings accesses in a BAR to what is behind it."""

    def __init__(self, device: PciDevice, number: int) -> None:
        self._device = device
        self._number = number

    def read(self, offset: int, size: int) -> int:
        device, number = self._device, self._number
        if device.msix is not None and device.msix.bar == number:
            return device.msix.read(offset, size)
        if number in device.memories:
            return device.memories[number].read(offset, size)
        return device.bar_read(number, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        device, number = self._device, self._number
        if device.msix is not None and device.msix.bar == number:
            device.msix.write(offset, size, value)
        elif number in device.memories:
            device.memories[number].write(offset, size, value)
        else:
            device.bar_write(number, offset, size, value)


class PlaceHolder(PciDevice):
    """Function 0 of a slot that has only others: no BARs, no interrupts, nothing a driver would want."""

    name = "place holder"

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        super().__init__(host, function, options)
        self.identify(vendor_id=0xFB5D, device_id=0xFFFF, class_code=pci.PCIC_OTHER << 16)
