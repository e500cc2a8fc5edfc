# SPDX-License-Identifier: BSD-2-Clause
"""Pass-through: what bhyve does so that a guest works on a host port's rings, and its part in it is over then.

:mod:`~ptnetmap.bhyve.passthrough.port` is the port at netmapd, which serves it. Which memdev shows whose memory is decided
by :mod:`~ptnetmap.bhyve.passthrough.pairing`; what virtio-net had more in 2015 is
:mod:`~ptnetmap.bhyve.passthrough.registers2015`; :mod:`~ptnetmap.bhyve.passthrough.mock` drives both kinds of device
without a guest. The devices themselves are with the others: ``ptnetmap_memdev``, ``ptnet`` and ``virtio_net`` in
:mod:`ptnetmap.bhyve.devices`.
"""
