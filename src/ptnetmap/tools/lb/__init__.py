# SPDX-License-Identifier: BSD-2-Clause
"""lb: a port's packets spread over pipes, so that all packets of a connection come out of the same one.

:mod:`~ptnetmap.tools.lb.groups` says which pipes there are, :mod:`~ptnetmap.tools.lb.flow` which one a packet belongs to,
:mod:`~ptnetmap.tools.lb.distribute` moves packets, :class:`~ptnetmap.tools.lb.balancer.Balancer` is a whole run, and
:mod:`~ptnetmap.tools.lb.report` what it prints.
"""
