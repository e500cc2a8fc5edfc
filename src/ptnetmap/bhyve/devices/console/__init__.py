# SPDX-License-Identifier: BSD-2-Clause
"""What is at the other end of a guest's serial line.

:class:`Console` moves bytes between a serial port and a backend: the terminal, a pseudo-terminal, a device, a file or a
socket. :mod:`~ptnetmap.bhyve.devices.console.backend` has those, and reads what ``-l com1,TEXT`` says;
:mod:`~ptnetmap.bhyve.devices.console.wire` reads and writes without ever waiting,
:mod:`~ptnetmap.bhyve.devices.console.terminal` is raw mode and the way out of it.
"""

from ptnetmap.bhyve.devices.console.backend import parse_backend
from ptnetmap.bhyve.devices.console.console import Console, Port

__all__ = ["Console", "Port", "parse_backend"]
