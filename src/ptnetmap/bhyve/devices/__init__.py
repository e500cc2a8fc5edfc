# SPDX-License-Identifier: BSD-2-Clause
"""The devices of a machine: what sits on its PCI bus, and what every PC has.

A device model is a class of its own module, which is imported when the model is asked for: :func:`load` knows where.
Beside the models: serial ports and their console (:mod:`~ptnetmap.bhyve.devices.serial`,
:mod:`~ptnetmap.bhyve.devices.console`), and what is not on the bus (:mod:`~ptnetmap.bhyve.devices.board`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from types import MappingProxyType

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "amd_hostbridge": "hostbridge",
        "dummy": "dummy",
        "hostbridge": "hostbridge",
        "lpc": "lpc",
        "ptnet": "ptnet",
        "ptnetmap-memdev": "ptnetmap_memdev",
        "uart": "pci_uart",
        "virtio-blk": "virtio_blk",
        "virtio-console": "virtio_console",
        "virtio-net": "virtio_net",
        "virtio-rnd": "virtio_rnd",
    }
)
"""The module, below this package, of every device model, by the name that ``-s slot,NAME`` has for it."""


def load(names: Iterable[str] = MODULES) -> None:
    """Enter device models into :data:`ptnetmap.bhyve.pci.device.DEVICES`: those called ``names``, or all.

    Names of none are left to whoever looks for them there.
    """
    for name in names:
        if name in MODULES:
            import_module(f"{__name__}.{MODULES[name]}")
