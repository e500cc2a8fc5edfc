# SPDX-License-Identifier: BSD-2-Clause
"""bridge: packets from one port to another and back, without copying them where both share memory.

:mod:`~ptnetmap.tools.bridge.move` does what is done per packet, :class:`~ptnetmap.tools.bridge.session.Bridge` the rest.
:class:`~ptnetmap.tools.bridge.waiter.Waiter` sleeps on rings of several ports at once.
"""
