# SPDX-License-Identifier: BSD-2-Clause
"""Virtual machines on /dev/kvm, as bhyve's libvmmapi has them on vmm.ko.

:class:`GuestMemory` is a guest's RAM, which needs no KVM. :class:`Vm` puts it into a machine with interrupts
(:class:`Interrupts`), processors (:class:`Vcpu`, which exit for reasons listed in :data:`Exit`), buffers that the
guest sees (:class:`UserBuf`) and registers that signal somebody (:class:`EventfdHandler`, :class:`CallbackHandler`).
"""

from ptnetmap.vmm.exits import (
    Exit,
    FailEntry,
    Hlt,
    InternalError,
    Interrupted,
    IoExit,
    MmioExit,
    MsrExit,
    Shutdown,
    SystemEvent,
    UnknownExit,
)
from ptnetmap.vmm.interrupts import Interrupts, Line, MsiRoute
from ptnetmap.vmm.ioeventfd import HandlerGroup
from ptnetmap.vmm.iohandler import CallbackHandler, EventfdHandler, Handler
from ptnetmap.vmm.kvm import Kvm
from ptnetmap.vmm.memory import GuestMemory, Segment
from ptnetmap.vmm.slots import UserBuf
from ptnetmap.vmm.vcpu import Vcpu
from ptnetmap.vmm.vm import Vm

__all__ = [
    "CallbackHandler",
    "EventfdHandler",
    "Exit",
    "FailEntry",
    "GuestMemory",
    "Handler",
    "HandlerGroup",
    "Hlt",
    "InternalError",
    "Interrupted",
    "Interrupts",
    "IoExit",
    "Kvm",
    "Line",
    "MmioExit",
    "MsiRoute",
    "MsrExit",
    "Segment",
    "Shutdown",
    "SystemEvent",
    "UnknownExit",
    "UserBuf",
    "Vcpu",
    "Vm",
]
