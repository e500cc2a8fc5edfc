# SPDX-License-Identifier: BSD-2-Clause
"""Virtio's console device: configuration, features and control messages. Source: virtio 1.2 §5.3.

Port 0 has queues 0 (to the driver) and 1 (to the device), port N has 2N+2 and 2N+3; 2 and 3 carry control messages.
All fields are little endian.
"""

from __future__ import annotations

import numpy as np

VIRTIO_CONSOLE_F_MULTIPORT = 1 << 1
"""There may be several ports, and there are control queues (virtio 1.2 §5.3.3)."""

VIRTIO_CONSOLE_RX = 0
"""Queue 0 of port 0, by which the driver receives (virtio 1.2 §5.3.2)."""
VIRTIO_CONSOLE_TX = 1
"""Queue 1 of port 0, by which the driver sends (virtio 1.2 §5.3.2)."""
VIRTIO_CONSOLE_CONTROL_RX = 2
"""The queue by which the driver receives control messages (virtio 1.2 §5.3.2)."""
VIRTIO_CONSOLE_CONTROL_TX = 3
"""The queue by which it sends them (virtio 1.2 §5.3.2)."""

virtio_console_config = np.dtype(
    [("cols", "<u2"), ("rows", "<u2"), ("max_nr_ports", "<u4"), ("emerg_wr", "<u4")],
)
"""The configuration of a console device: 12 bytes (virtio 1.2 §5.3.4).

====== ==== ============ =========================================================================================
offset size field        meaning
====== ==== ============ =========================================================================================
0      2    cols         columns, with VIRTIO_CONSOLE_F_SIZE, as the next one
2      2    rows         lines
4      4    max_nr_ports ports at the most, with VIRTIO_CONSOLE_F_MULTIPORT
8      4    emerg_wr     a character written here is printed, with VIRTIO_CONSOLE_F_EMERG_WRITE
====== ==== ============ =========================================================================================
"""

virtio_console_control = np.dtype([("id", "<u4"), ("event", "<u2"), ("value", "<u2")])
"""A control message: 8 bytes, which the name follows in VIRTIO_CONSOLE_PORT_NAME (virtio 1.2 §5.3.6.2).

====== ==== ===== ================================================================================================
offset size field meaning
====== ==== ===== ================================================================================================
0      4    id    the port
4      2    event what happened: VIRTIO_CONSOLE_*
6      2    value mostly 1 for yes and 0 for no
====== ==== ===== ================================================================================================
"""

VIRTIO_CONSOLE_DEVICE_READY = 0
"""From the driver: it is ready for ports, or could not get ready (virtio 1.2 §5.3.6.2)."""
VIRTIO_CONSOLE_PORT_ADD = 1
"""To the driver: there is a port; the standard's VIRTIO_CONSOLE_DEVICE_ADD (virtio 1.2 §5.3.6.2)."""
VIRTIO_CONSOLE_PORT_READY = 3
"""From the driver: it is ready for this port, or could not get ready (virtio 1.2 §5.3.6.2)."""
VIRTIO_CONSOLE_PORT_OPEN = 6
"""Either way: somebody has opened this port, or closed it (virtio 1.2 §5.3.6.2)."""
VIRTIO_CONSOLE_PORT_NAME = 7
"""To the driver: the port's name, without a NUL (virtio 1.2 §5.3.6.2)."""
