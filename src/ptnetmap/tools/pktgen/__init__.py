# SPDX-License-Identifier: BSD-2-Clause
"""pkt-gen, the traffic generator: senders, receivers, round-trip times and sequence checks on netmap ports.

:mod:`~ptnetmap.tools.pktgen.options` is the command line, :mod:`~ptnetmap.tools.pktgen.run` a whole run. Kernels do
what is done per packet and share a :data:`~ptnetmap.tools.pktgen.task.task` with the Python around them.
"""
