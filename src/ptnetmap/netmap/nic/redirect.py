# SPDX-License-Identifier: BSD-2-Clause
"""The XDP program on an interface that gives frames to AF_XDP sockets; it goes with the process that attached it."""

from __future__ import annotations

import contextlib
import errno
import os

from ptnetmap.abi import rtnetlink
from ptnetmap.abi.bpf import BPF_F_XDP_HAS_FRAGS
from ptnetmap.abi.xdp import XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE
from ptnetmap.errors import PortError
from ptnetmap.netmap.nic import bpf
from ptnetmap.netmap.nic.interface import Asker
from ptnetmap.netmap.nic.message import Interface, detach_program
from ptnetmap.netmap.nic.program import redirect_program

_FLAGS = {rtnetlink.XDP_ATTACHED_DRV: XDP_FLAGS_DRV_MODE, rtnetlink.XDP_ATTACHED_SKB: XDP_FLAGS_SKB_MODE}
_NOT_ALLOWED = (errno.EPERM, errno.EACCES)
_TAKEN = (errno.EBUSY, errno.EEXIST)


class Redirect:
    """The program, its map of ``queues`` queues, and the link that attaches it to an interface.

    ``native`` says whether it runs in the driver, or later, in the stack. With ``force`` the program of somebody else is
    detached first. Raises PortError: EBUSY for such a program otherwise, EPERM without the privileges, and what the
    driver says where it takes no program at all.
    """

    def __init__(self, interface: Interface, queues: int, *, force: bool = False) -> None:
        if interface.programs:
            if not force:
                raise _foreign(interface)
            _detach(interface)
        self.native = True
        with contextlib.ExitStack() as undo:
            try:
                self._map = bpf.create_xskmap(queues)
                undo.callback(os.close, self._map)
                self._program = _load(self._map)
                undo.callback(os.close, self._program)
                self._link = self._attach(interface)
            except PortError:
                raise
            except OSError as error:
                raise _refused(interface, error) from None
            undo.pop_all()

    def _attach(self, interface: Interface) -> int:
        try:
            return bpf.create_link(self._program, interface.index, XDP_FLAGS_DRV_MODE)
        except OSError as error:
            if error.errno in _TAKEN:
                raise _foreign(interface) from None
            if error.errno in _NOT_ALLOWED:
                raise
        self.native = False
        try:
            return bpf.create_link(self._program, interface.index, XDP_FLAGS_SKB_MODE)
        except OSError as error:
            if error.errno in _TAKEN:
                raise _foreign(interface) from None
            raise

    def give(self, queue: int, socket: int) -> None:
        """Let the frames of a queue go to a bound socket. Raises OSError."""
        bpf.set_entry(self._map, queue, socket)

    def take(self, queue: int) -> None:
        """Let the frames of a queue go to the host's stack."""
        with contextlib.suppress(FileNotFoundError):  # the kernel drops sockets that it has lost
            bpf.delete_entry(self._map, queue)

    def close(self) -> None:
        """Detach the program, and let go of everything."""
        for fd in (self._link, self._program, self._map):
            os.close(fd)


def _load(map_fd: int) -> int:
    program = redirect_program(map_fd)
    try:
        return bpf.load_program(program, BPF_F_XDP_HAS_FRAGS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return bpf.load_program(program)  # kernels before 5.18 know no such flag


def _detach(interface: Interface) -> None:
    """Detach whatever program is on an interface, by the way it was attached."""
    with contextlib.closing(Asker()) as asker:
        for mode in interface.programs:
            try:
                asker.request(detach_program(interface.index, _FLAGS.get(mode, 0)))
            except OSError as error:
                if error.errno not in (*_TAKEN, errno.EINVAL):
                    raise _refused(interface, error) from None
                try:
                    bpf.detach_links(interface.index)
                except OSError as second:
                    raise _refused(interface, second) from None


def _foreign(interface: Interface) -> PortError:
    numbers = ", ".join(str(number) for number in interface.programs.values())
    which = f"program {numbers} of somebody else" if numbers else "a program of somebody else"
    return PortError(
        errno.EBUSY,
        f"netmap: cannot open {interface.name}: XDP {which} is attached to it\n"
        f"        end what attached it (ip link set dev {interface.name} xdp off), or open the port with force_xdp",
    )


def _refused(interface: Interface, error: OSError) -> PortError:
    advice = "see what the kernel says (dmesg), or use another interface"
    if error.errno in _NOT_ALLOWED:
        advice = "run as root, or with CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF"
    return PortError(
        error.errno or errno.EIO,
        f"netmap: cannot open {interface.name}: no XDP program can be attached to it: {error.strerror}\n        {advice}",
    )
