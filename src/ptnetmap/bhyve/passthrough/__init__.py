# SPDX-License-Identifier: BSD-2-Clause
"""Pass-through: what bhyve does so that a guest works on a host port's rings, and its part in it is over then.

:mod:`~ptnetmap.bhyve.passthrough.port` is the port at netmapd, which serves it; :mod:`~ptnetmap.bhyve.passthrough.pairing`
decides which memdev shows whose memory. The devices themselves are with the others: ``ptnetmap_memdev``, ``ptnet`` and
``virtio_net`` in :mod:`ptnetmap.bhyve.devices`.
"""
