# SPDX-License-Identifier: BSD-2-Clause
"""The back end of vhost-user: ports of switches for the guests of every other hypervisor.

A :class:`~ptnetmap.vhost.connection.Connection` knows the protocol and no socket; :mod:`~ptnetmap.vhost.channel` moves
messages; :mod:`~ptnetmap.vhost.server` joins them to ports at netmapd, which serves the queues.
"""
