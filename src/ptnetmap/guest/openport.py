# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Which passed-through port a program uses: the ``port``-th on the bus, whichever device it is."""

from __future__ import annotations

from ptnetmap.abi.pci import PCIR_VENDOR
from ptnetmap.abi.ptnet import PTNETMAP_PCI_NETIF_ID, PTNETMAP_PCI_VENDOR_ID
from ptnetmap.abi.virtio_pci import VIRTIO_ID_NET, VIRTIO_PCI_TRANSITIONAL, VIRTIO_PCI_VENDOR
from ptnetmap.guest.console import end_line, put_number, put_text
from ptnetmap.guest.netmapport import IS_2015, PORT
from ptnetmap.guest.pci import config_read32, next_function
from ptnetmap.guest.ptnet import close_ptnet, open_ptnet
from ptnetmap.guest.routine import Text, routine
from ptnetmap.guest.virtio_net import close_virtio_net, open_virtio_net, passes_through
from ptnetmap.jit.memory import load64

_PTNET = (PTNETMAP_PCI_NETIF_ID << 16) | PTNETMAP_PCI_VENDOR_ID
_VIRTIO_NET = (VIRTIO_PCI_TRANSITIONAL[VIRTIO_ID_NET] << 16) | VIRTIO_PCI_VENDOR
_PORTS = PORT["ports"]

_MISSING = Text("FAIL port: there is no passed-through port ")
_FOUND = Text("; found: ")


@routine
def open_port(block, boot, number):
    """Start the passed-through port with this number, from 0; return its netmap_port, 0 if it cannot be, which is said."""
    found = 0
    function = next_function(-1)
    while function >= 0:
        identity = config_read32(function, PCIR_VENDOR)
        is_2015 = 1 if identity == _VIRTIO_NET and passes_through(function) == 1 else 0
        if identity == _PTNET or is_2015 == 1:
            if found == number:
                if is_2015 == 1:
                    return open_virtio_net(block, boot, function)
                return open_ptnet(block, boot, function)
            found += 1
        function = next_function(function)
    put_text(boot, _MISSING)
    put_number(boot, number)
    put_text(boot, _FOUND)
    put_number(boot, found)
    end_line(boot)
    return 0


@routine
def close_port(port):
    """Let the host serve the port no longer."""
    if load64(port + IS_2015) != 0:
        close_virtio_net(port, load64(port + _PORTS))
    else:
        close_ptnet(port)
