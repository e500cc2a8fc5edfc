# SPDX-License-Identifier: BSD-2-Clause
"""Ports that the host passes through to this guest: the same Port, with rings that the host's kthread serves."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Iterable
from typing import Any, cast

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap.adapter import Adapter, Part, Shape
from ptnetmap.netmap.foreignring import ForeignRing
from ptnetmap.netmap.kring import KIND_CSB
from ptnetmap.netmap.linuxguest.device import Machine, PtnetDevice
from ptnetmap.netmap.names import PortName
from ptnetmap.netmap.port import Port
from ptnetmap.netmap.registration import check_host_rings, check_registration, select_rings
from ptnetmap.netmap.ringstate import RingState

_MONITOR = abi.NR_MONITOR_RX | abi.NR_MONITOR_TX


class DeviceRing(ForeignRing):
    """One ring of a ptnet, numbered ``number`` among all of its rings."""

    def __init__(self, port: str, device: PtnetDevice, number: int) -> None:
        direction, index, slots, offset = device.rings[number]
        super().__init__(port, KIND_CSB, direction, index, slots, offset)
        self.enter(device.allocator)
        self.stand(*self.join_csb(*device.csb(number)))
        self.settle()
        fd, self.block["kick_at"] = device.kick(number)
        self.silent = device.interrupts is None
        if device.interrupts is None:
            self.block["need_kick_at"] = self.own_need_kick
            self.use(fd, -1)
        else:
            self.use(fd, device.interrupts.waiting(number))
        self.turn(on=True)


class DeviceAdapter:
    """A ptnet, in as far as a descriptor needs it."""

    kind = KIND_CSB
    is_pipe = False
    is_lossless = False

    def __init__(self, name: str, device: PtnetDevice) -> None:
        self.name = name
        self.device = device
        self.allocator = device.allocator
        self.shape = Shape(device.tx_rings, device.rx_rings, device.tx_slots, device.rx_slots)
        self.rings = [DeviceRing(name, device, number) for number in range(len(device.rings))]
        self.tx = [ring for ring in self.rings if ring.direction == abi.TX]
        self.rx = [ring for ring in self.rings if ring.direction == abi.RX]

        self.host_tx: list[RingState] = []
        self.host_rx: list[RingState] = []

    def part(self, rings: Iterable[RingState]) -> Part:
        """Return what a descriptor with some of the rings is a port of: all of them."""
        return Part(self.name, [*self.tx], [*self.rx])

    @property
    def header(self) -> int:
        """Bytes of virtio-net header that frames begin with."""
        return self.device.header

    def set_header(self, length: int) -> None:
        """Let frames begin with a virtio-net header of 0, 10 or 12 bytes. Raises PortError (EINVAL)."""
        self.device.set_header(length)

    def lossless(self, on: bool) -> None:
        """Raise PortError (EOPNOTSUPP): that is the host's business."""
        raise PortError(
            errno.EOPNOTSUPP,
            f"netmap: cannot change whether {self.name} is lossless from inside the guest\n"
            "        say it on the host: bhyve -s 4,ptnet,ptvale1:1,lossless",
        )

    def failure(self) -> PortError | None:
        """Nothing stops these rings for good."""
        return None

    def close(self) -> None:
        """Let nobody use the rings, and stop the device."""
        for ring in self.rings:
            ring.turn(on=False)
            ring.close()
        self.device.close()


class DevicePort(Port):
    """A port of the host's, passed through to this guest. Made by :func:`open_device`, as ``ptnetmap.open`` does.

    :meth:`txsync` does not wait for the host's kthread, as upstream's drivers do not. ``stats`` count what this process
    did to the rings; packets are counted where they are moved, on the host.
    """

    def __init__(self, name: str, parsed: PortName, adapter: DeviceAdapter, flags: int) -> None:
        known = cast(Adapter, adapter)
        check_host_rings(parsed, known)
        check_registration(parsed, known, flags)
        rings = select_rings(parsed, known, flags)
        super().__init__(name, known, rings, flags, adapter.device.nifp_offset, _end)

    @property
    def mac(self) -> str:
        """The device's address, 12 hexadecimal digits."""
        return str(cast(Any, self.adapter).device.mac)

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        gate = getattr(self, "_gate", None)
        if gate is not None and not gate.is_shut:
            _warn(f"unclosed port {self.name}", ResourceWarning, stacklevel=2, source=self)
            self.close()


def _end(port: Any) -> None:
    port._close_fds()
    port.adapter.close()


def open_device(
    name: str,
    parsed: PortName,
    number: int,
    flags: int = 0,
    *,
    lossless: bool = False,
    machine: Machine | None = None,
) -> Port:
    """Open the ``number``-th ptnet of this guest. Raises PortError with what is in the way."""
    machine = machine or Machine()
    flags |= parsed.flags
    functions = machine.ptnets()
    if number >= len(functions):
        there = ", ".join(f"ptnet{i} at {function.address}" for i, function in enumerate(functions))
        raise PortError(errno.ENXIO, f"netmap: cannot open {name}: this machine has {there}\n        open one of these")
    if flags & _MONITOR:
        raise PortError(
            errno.EOPNOTSUPP,
            f"netmap: cannot monitor {parsed.name}: one program has it, and nobody serves it here\n"
            "        monitor it on the host; or open it without /r and /t, as 'ptnetmap capture' does",
        )
    device = PtnetDevice(functions[number], machine)
    try:
        adapter = DeviceAdapter(parsed.name, device)
        try:
            if lossless:
                adapter.lossless(True)
            return DevicePort(name, parsed, adapter, flags)
        except BaseException:
            adapter.close()
            raise
    except BaseException:
        device.close()
        raise
