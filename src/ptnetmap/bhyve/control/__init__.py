# SPDX-License-Identifier: BSD-2-Clause
"""How ``bhyvectl`` finds a running virtual machine, and tells it what to do.

:mod:`~ptnetmap.bhyve.control.place` is the directory with a socket and a lock per machine,
:mod:`~ptnetmap.bhyve.control.lines` the protocol, :mod:`~ptnetmap.bhyve.control.server` the machine's side of it, in
its event loop, and :mod:`~ptnetmap.bhyve.control.client` the other. Nothing is imported here: each side needs its own.
"""
