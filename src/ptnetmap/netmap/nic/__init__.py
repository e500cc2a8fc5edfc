# SPDX-License-Identifier: BSD-2-Clause
"""Network interfaces as ports, by AF_XDP: a port's region is the sockets' UMEM, so frames are never copied here.

An XDP program on the interface (:mod:`~ptnetmap.netmap.nic.redirect`) gives the frames of a queue to that queue's socket
(:mod:`~ptnetmap.netmap.nic.xsk`); the kernels of :mod:`~ptnetmap.netmap.nic.sync` move buffers between the socket's
rings and netmap's; :class:`~ptnetmap.netmap.nic.adapter.NicAdapter` holds all that together.
"""
