# SPDX-License-Identifier: BSD-2-Clause
"""Check of ports that a hypervisor passes through to this machine (docs/linux-guests.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ptnetmap.tools.doctor.finding import NOTE, OK, PROBLEM, Finding, from_message

_SUBJECT = "passed-through"


@dataclass(frozen=True)
class Device:
    """A ptnet: its PCI ``address``, the ``driver`` that is bound ("" for none), and what is in its way, as a message."""

    address: str
    driver: str = ""
    trouble: str = ""


def ports(ptnets: Sequence[Device], memdevs: Sequence[Device], euid: int) -> Finding:
    """Judge this machine's ptnets and memdevs: most machines have none."""
    if not ptnets:
        return Finding(_SUBJECT, OK, "no ptnet: this is no guest of a hypervisor that passes ports through")
    for device in (*ptnets, *memdevs):
        if device.trouble:
            return from_message(_SUBJECT, device.trouble)
    if not memdevs:
        return Finding(
            _SUBJECT, PROBLEM, "there is a ptnet, and no ptnetmap-memdev", "on the host: bhyve -s 2,ptnetmap-memdev"
        )
    there = ", ".join(f"netmap:ptnet{i} ({device.driver or 'polls'})" for i, device in enumerate(ptnets))
    if euid:
        return Finding(_SUBJECT, NOTE, f"{there}; for root alone", "be root")
    if not all(device.driver for device in ptnets):
        return Finding(_SUBJECT, NOTE, there, "for interrupts, bind uio_pci_generic: see docs/linux-guests.md")
    return Finding(_SUBJECT, OK, there)
