# SPDX-License-Identifier: BSD-2-Clause
"""A virtual machine in this process, with the built-in guest and nothing around it: for what bhyve would add to.

Its doorbell, a port of the guest's, leads through an eventfd to a compiled loop that answers by another eventfd, an
interrupt of the guest's. Both eventfds are given to KVM by :mod:`ptnetmap.vmm`, or else by bare ioctls.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import time
from types import TracebackType

from ptnetmap.abi.kvm.ioctl import REQUESTS
from ptnetmap.abi.kvm.machine import KVM_IOEVENTFD_FLAG_PIO, KVM_IRQ_ROUTING_MSI
from ptnetmap.abi.pci import MSI_INTEL_ADDR_BASE
from ptnetmap.bench import trips
from ptnetmap.errors import PtnetmapError
from ptnetmap.guest.doorbell import DOORBELL
from ptnetmap.guest.image import built_in
from ptnetmap.guest.layout import FIRST_VECTOR
from ptnetmap.guest.load import load
from ptnetmap.guest.power import PM1A_CONTROL
from ptnetmap.jit.block import Block
from ptnetmap.jit.warmup import compile_now
from ptnetmap.vmm import EventfdHandler, GuestMemory, Interrupted, IoExit, Vm

_MEMORY = 64 << 20
_COM1, _LINE_STATUS, _SENT = 0x3F8, 0x3FD, 0x60
_WIDTH = 4
_GSI = 40
_PATIENCE = 60.0


class Machine:
    """A machine that runs ``cmdline`` until it powers off.

    ``created`` is the time (perf_counter) before it was made, ``first`` that of its first instruction for a device.
    """

    def __init__(self, cmdline: str) -> None:
        image = built_in()
        self._console = bytearray()
        self._answering: threading.Thread | None = None
        self.first = 0.0
        self.created = time.perf_counter()
        with contextlib.ExitStack() as opened:
            memory = opened.enter_context(GuestMemory(_MEMORY))
            self._vm = opened.enter_context(Vm("bench", memory))
            (state,) = load(memory, cmdline, 1, image=image)
            self._vcpu = self._vm.create_vcpu(0)
            self._vcpu.set_cpuid(self._vm.kvm.supported_cpuid())
            self._vcpu.set_sregs(state.sregs())
            self._vcpu.set_regs(state.regs())
            self._vcpu.set_lapic(state.lapic)
            self._opened = opened.pop_all()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._answering is not None:
            os.eventfd_write(self._kick, trips.END)
            self._answering.join(_PATIENCE)
        self._opened.close()

    def connect(self, *, bare: bool) -> None:
        """Answer the guest's doorbell by an interrupt; ``bare`` without our layer over KVM."""
        compile_now(trips.follow_eventfds)
        self._kick, irq = (os.eventfd(0) for _ in range(2))
        for fd in (self._kick, irq):
            self._opened.callback(os.close, fd)
        if bare:
            _connect_bare(self._vm._handle.fd, self._kick, irq)
        else:
            rung = {"in_": False, "size": _WIDTH, "mask": 0, "data": 0, "kind": "port"}
            self._vm.io_reg_handler(DOORBELL, **rung, handler=EventfdHandler(self._kick))  # type: ignore[arg-type]
            route = self._vm.interrupts.allocate_msi()
            route.set(MSI_INTEL_ADDR_BASE, FIRST_VECTOR)
            route.attach(irq)
            self._opened.callback(route.close)
        word = Block("i8")
        arguments = (self._kick, irq, word.address)
        self._answering = threading.Thread(target=trips.follow_eventfds, args=arguments, daemon=True)
        self._answering.start()

    def run(self) -> list[str]:
        """Run until the machine powers off; return the lines of its console."""
        while True:
            left = self._vcpu.run()
            if not self.first:
                self.first = time.perf_counter()
            if isinstance(left, IoExit):
                if left.write and left.port == PM1A_CONTROL:
                    return self._console.decode(errors="replace").splitlines()
                self._serve(left)
            elif not isinstance(left, Interrupted):
                raise PtnetmapError(errno.EIO, f"the benchmark's machine ended: {left}\n        run it again")

    def _serve(self, access: IoExit) -> None:
        if not access.write:
            access.reply(_SENT if access.port == _LINE_STATUS else 0xFFFFFFFF)
        elif access.port == _COM1:
            self._console += bytes(access.data)


def _connect_bare(vm: int, kick: int, irq: int) -> None:
    """Do what a program without any layer does: three ioctls."""
    fcntl.ioctl(
        vm, REQUESTS["KVM_IOEVENTFD"], struct.pack("<QQIiI36x", 0, DOORBELL, _WIDTH, kick, KVM_IOEVENTFD_FLAG_PIO)
    )
    message = struct.pack("<IIII", MSI_INTEL_ADDR_BASE, 0, FIRST_VECTOR, 0)
    entry = struct.pack("<IIII", _GSI, KVM_IRQ_ROUTING_MSI, 0, 0) + message.ljust(32, b"\0")
    fcntl.ioctl(vm, REQUESTS["KVM_SET_GSI_ROUTING"], struct.pack("<II", 1, 0) + entry)
    fcntl.ioctl(vm, REQUESTS["KVM_IRQFD"], struct.pack("<IIII16x", irq, _GSI, 0, 0))
