# SPDX-License-Identifier: BSD-2-Clause
"""Byte layouts and constants: each layout once, as a NumPy structured type with its byte table.

:mod:`~ptnetmap.abi.netmap` is what netmap's programs and its kernel share, :mod:`~ptnetmap.abi.ptnet` what a guest
sees of the pass-through devices, :mod:`~ptnetmap.abi.virtio` split virtqueues and virtio-net's header,
:mod:`~ptnetmap.abi.vhost_user` how such queues are handed from one process to another, and
:mod:`~ptnetmap.abi.xdp`, :mod:`~ptnetmap.abi.bpf`, :mod:`~ptnetmap.abi.rtnetlink` and :mod:`~ptnetmap.abi.ethtool` what
Linux has for network interfaces. Nothing here does anything: no operating system, no compiler, no state. Names, also
lower-case ones of types, are the field's.
"""
