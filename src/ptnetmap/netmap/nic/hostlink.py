# SPDX-License-Identifier: BSD-2-Clause
"""The host's side of an interface: a pair of virtual interfaces, and two programs of traffic control that join them.

::

    host's stack ── IF ─ egress program ──▶ nmhostN ═══ veth ═══ IF ── AF_XDP socket: the host RX and TX rings
                     ◀── as received ── ingress program ─┘          └ in a network namespace of our own

What the stack sends on the interface is turned aside to the pair before a driver has seen it; what is sent into the other
end is handed to the stack as if the interface had received it. The interface keeps its addresses, routes and name, the
stack notices nothing. Programs and namespace go with the process, and the pair with the namespace: nothing stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from ptnetmap.abi import bpf as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap.nic import bpf, message
from ptnetmap.netmap.nic.interface import Asker, Watch, let_frames_be_complete
from ptnetmap.netmap.nic.message import Interface
from ptnetmap.netmap.nic.netns import Namespace, namespace_here
from ptnetmap.netmap.nic.program import forward_program

R = TypeVar("R")

_LEAVING = 2.0
"""Seconds that the kernel may take to remove a namespace, and with it the pair of a process that has ended."""
_AGAIN = 0.01
_MOST_MTU = 65535
_NOT_ALLOWED = (errno.EPERM, errno.EACCES)


def outside_name(interface: Interface) -> str:
    """Return the name of the pair's end beside an interface: ``nmhostN``, where N is the interface's number."""
    return f"nmhost{interface.index}"


class HostLink:
    """Joins the stack's side of an interface to an end of a pair, :attr:`inside`, that an AF_XDP socket can have.

    The stack's frames go by the interface, as ever, until :meth:`divert`. Raises PortError: EPERM without the
    privileges, EOPNOTSUPP with a kernel that is too old, EBUSY if another process has this interface's host side.
    """

    def __init__(self, interface: Interface, mtu: int) -> None:
        self._interface = interface
        self._egress = -1
        self._removed = False
        with contextlib.ExitStack() as undo:
            self._undo = undo
            try:
                self._namespace = Namespace()
                undo.callback(self._namespace.close)
                self._asker = Asker()
                undo.callback(self._asker.close)
                self._asker_inside = self.run(Asker)
                undo.callback(self._asker_inside.close)
                self.inside = self._make_pair(mtu)
                self._to_stack = self._forward(self._outside.index, interface.index, ingress=True)
                undo.callback(os.close, self._to_stack)
            except OSError as error:
                raise self._refusal(error) from None
            self._watch = Watch(self._outside.index, self._outside_has_changed)
            undo.callback(self._watch.close)
            self._undo = undo.pop_all()

    def _make_pair(self, mtu: int) -> Interface:
        name, outside = self._interface.name, outside_name(self._interface)
        here = namespace_here()
        try:
            self._request_pair(message.new_veth(name, min(mtu, _MOST_MTU), outside, here))
        finally:
            os.close(here)
        self._outside = _found(self._asker, outside)
        self._undo.callback(self._remove_pair)
        self._asker.request(message.single_frames(self._outside.index, f"the host's side of {name}"))
        let_frames_be_complete(outside)
        inside = _found(self._asker_inside, name)
        for asker, end in ((self._asker_inside, inside), (self._asker, self._outside)):
            with contextlib.suppress(OSError):  # without IPv6
                asker.request(message.no_address(end.index))
            asker.request(message.turn_on(end.index))
        return inside

    def _request_pair(self, request: bytes) -> None:
        """Make the pair, inside; wait for one of that name that is just going."""
        deadline = time.monotonic() + _LEAVING
        while True:
            try:
                self._asker_inside.request(request)
            except FileExistsError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN)
            else:
                return

    def _remove_pair(self) -> None:
        with contextlib.suppress(OSError):  # somebody else has
            self._asker.request(message.remove_link(self._outside.index))

    def run(self, action: Callable[[], R]) -> R:
        """Do something in the namespace that :attr:`inside` is in."""
        return self._namespace.run(action)

    def divert(self) -> None:
        """Turn aside what the stack sends on the interface. Raises PortError."""
        try:
            if self._removed:
                raise OSError(errno.ENODEV, f"{self._outside.name} has been removed")
            self._egress = self._forward(self._interface.index, self._outside.index, ingress=False)
        except OSError as error:
            raise self._refusal(error) from None

    def restore(self) -> None:
        """Let what the stack sends leave by the interface again."""
        fd, self._egress = self._egress, -1
        if fd >= 0:
            os.close(fd)

    def follow(self, mtu: int) -> None:
        """Take over a new MTU of the interface."""
        for asker, end in ((self._asker_inside, self.inside), (self._asker, self._outside)):
            with contextlib.suppress(OSError):  # not all kernels let the pair have any: longer frames are lost then
                asker.request(message.set_mtu(end.index, min(mtu, _MOST_MTU)))

    def close(self) -> None:
        """Leave everything as it was."""
        self.restore()
        self._undo.close()

    def _outside_has_changed(self, now: Interface | None) -> None:
        """Somebody has removed the pair: the stack shall not send into nowhere."""
        if now is None:
            self._removed = True
            self.restore()

    @staticmethod
    def _forward(source: int, target: int, *, ingress: bool) -> int:
        """Let frames of one interface go to another; return the link. ``ingress``: received ones, as if received there."""
        program = bpf.load_program(
            forward_program(target, abi.BPF_F_INGRESS if ingress else 0), kind=abi.BPF_PROG_TYPE_SCHED_CLS
        )
        try:
            return bpf.create_link(program, source, where=abi.BPF_TCX_INGRESS if ingress else abi.BPF_TCX_EGRESS)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise OSError(errno.EOPNOTSUPP, "no program of traffic control can be attached by a link") from None
        finally:
            os.close(program)

    def _refusal(self, error: OSError) -> PortError:
        name = self._interface.name
        number = error.errno or errno.EIO
        found, advice = error.strerror, "see what the kernel says (dmesg)"
        if number in _NOT_ALLOWED:
            advice = "run as root, or with CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF"
        elif number == errno.EEXIST:
            number = errno.EBUSY
            found = f"there is an interface {outside_name(self._interface)} already"
            advice = (
                f"close the host rings of {name} in the other process, or ip link del {outside_name(self._interface)}"
            )
        elif number == errno.EOPNOTSUPP:
            advice = "use Linux 6.6 or newer, built with CONFIG_NET_XGRESS"
        return PortError(number, f"netmap: cannot open the host rings of {name}: {found}\n        {advice}")


def _found(asker: Asker, name: str) -> Interface:
    interface = asker.find(name)
    if interface is None:
        raise OSError(errno.ENODEV, f"{name} has gone")
    return interface
