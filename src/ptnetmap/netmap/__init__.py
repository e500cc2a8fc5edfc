# SPDX-License-Identifier: BSD-2-Clause
"""The netmap runtime in user space: memory, rings, pipes, VALE switches and monitors.

:class:`~ptnetmap.netmap.runtime.Netmap` is where to begin. Modules come in two sorts: *kernels* (kring, collect, lease,
deliver, forward, pipe, vale, monitor, sync, binding, packets), compiled, which work on addresses; and *control*
(runtime, directory, persistent, registration, descriptor, port, switch, the adapters, allocator, audit), plain Python,
which never touches a packet.
"""
