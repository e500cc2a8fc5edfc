# SPDX-License-Identifier: BSD-2-Clause
"""A machine: memory, processors and devices of one configuration, put together, and taken apart again."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import ExitStack
from typing import Self

from ptnetmap.bhyve import cpuid, devices, settings
from ptnetmap.bhyve.boot import COM, Platform
from ptnetmap.bhyve.config import Config
from ptnetmap.bhyve.devices.board import Board
from ptnetmap.bhyve.devices.lpc import Lpc
from ptnetmap.bhyve.iospace import IoSpace
from ptnetmap.bhyve.pci.bar import Windows, mem64_window
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.processors import Processors
from ptnetmap.bhyve.startup import start_built_in, start_kernel
from ptnetmap.errors import PtnetmapError
from ptnetmap.vmm import GuestMemory, Interrupts, Kvm, Vm

_HIGH_BASE = 4 << 30
_MSR_EXITS = "x86.strictmsr"


class Machine:
    """The machine that ``config`` describes, with everything in it and nothing running yet.

    It is what its devices know as :class:`~ptnetmap.bhyve.host.Host`. ``kvm`` is the host's, opened if left out;
    ``loop`` the event loop of the thread that makes it. ``how`` is how the guest's run ended, ``error`` what ended it
    instead: one of them is set when :attr:`ended` is. Raises ConfigError, HypervisorError and GuestError; nothing is
    left then.
    """

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, *, kvm: Kvm | None = None) -> None:
        self.name = config["name"]
        self.options = config
        self.loop = loop
        self.lock = threading.RLock()
        self.ended = asyncio.Event()
        self.how: str | None = None
        self.error: PtnetmapError | None = None
        with ExitStack() as made:
            self.kvm = kvm or made.enter_context(Kvm())
            self.memory = GuestMemory(
                settings.memory_size(config),
                wired=config.boolean("memory.wired"),
                hugepages=config.boolean("memory.hugepages"),
                in_core=config.boolean("memory.guest_in_core"),
            )
            made.callback(self.memory.close)
            if self.memory.notice:
                print(self.memory.notice, file=sys.stderr)
            self.vm = made.enter_context(Vm(self.name, self.memory, kvm=self.kvm))
            self.interrupts: Interrupts = self.vm.interrupts
            self.ports = IoSpace("port", 1 << 16, strict=config.boolean("x86.strictio"))
            self.mmio = IoSpace("address", 1 << 64)
            self._make_processors(config)
            self._make_devices(config, made)
            self._load(config)
            self.processors = Processors(
                self.vm,
                ports=self.ports,
                mmio=self.mmio,
                lock=self.lock,
                suspend=self.suspend,
                failed=self.fail,
                pinned=settings.pinning(config),
            )
            made.callback(self.processors.stop)
            self._made = made.pop_all()

    def _make_processors(self, config: Config) -> None:
        self.topology = settings.topology(config)
        supported = self.kvm.supported_cpuid()
        self._address_bits = cpuid.address_bits(supported)
        deadline = bool(self.kvm.check_extension("KVM_CAP_TSC_DEADLINE_TIMER"))
        if not config.boolean(_MSR_EXITS):
            self.vm.exit_on_unknown_msrs()
        for index in range(self.topology.cpus):
            vcpu = self.vm.create_vcpu(index)
            vcpu.set_cpuid(cpuid.processor(supported, index, self.topology, tsc_deadline=deadline))

    def _make_devices(self, config: Config, made: ExitStack) -> None:
        end = _HIGH_BASE + self.memory.high_size
        self._mem64 = mem64_window(end, self._address_bits)
        self.bus = PciBus(self, Windows(mem64=self._mem64))
        made.callback(self.bus.close)
        self.board = Board(self, acpi_always_on=True)
        made.callback(self.board.close)
        wanted = settings.slots(config)
        devices.load(slot.device for slot in wanted)
        for slot in wanted:
            self.bus.create(Function(slot.bus, slot.slot, slot.function), slot.device, slot.options)
        self.bus.start()

    def _load(self, config: Config) -> None:
        if "kernel" in config:
            start_kernel(self.vm, self.memory, self._platform(), config)
        else:
            start_built_in(self.vm, self.memory, config.get("cmdline", ""))

    def _platform(self) -> Platform:
        """Describe the machine for its firmware tables."""
        lpc = next((device for device in self.bus.devices.values() if isinstance(device, Lpc)), None)
        return Platform(
            cpus=self.topology.cpus,
            lpc=(lpc.function.slot, lpc.function.function) if lpc else None,
            serial=tuple(COM[name] for name in lpc.serial_ports) if lpc else (),
            mem64=self._mem64,
            pm_timer=0x408,
            last_bus=max(self.bus.numbers, default=0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- running ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Let the processors run."""
        self.processors.start()

    def suspend(self, how: str) -> None:
        """End the guest's run: ``how`` is "reset", "poweroff", "halt" or "triplefault". The first one counts."""
        with self.lock:
            if self.how is None and self.error is None:
                self.how = how
                self.loop.call_soon_threadsafe(self.ended.set)

    def fail(self, error: PtnetmapError) -> None:
        """End the guest's run because it cannot go on."""
        with self.lock:
            if self.how is None and self.error is None:
                self.error = error
                self.loop.call_soon_threadsafe(self.ended.set)

    def stats(self) -> dict[str, dict[str, int]]:
        """Return counters by processor: how often each has come out of the guest."""
        return {f"vcpu{index}": {"exits": count} for index, count in self.processors.exits.items()}

    def close(self) -> None:
        """Stop the processors and give everything back, on the loop's thread. Harmless when repeated."""
        self._made.close()
