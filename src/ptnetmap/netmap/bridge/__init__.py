# SPDX-License-Identifier: BSD-2-Clause
"""Bridges: packets from one port to another and back, without copying them where both share memory.

:mod:`~ptnetmap.netmap.bridge.move` does what is done per packet, :class:`~ptnetmap.netmap.bridge.session.Bridge` the rest.
:class:`~ptnetmap.netmap.bridge.waiter.Waiter` sleeps on rings of several ports at once.
"""
