# SPDX-License-Identifier: BSD-2-Clause
"""How a guest starts: kernels and initrds are checked and loaded, firmware tables written, the first CPU's state made.

:func:`plan` looks at the files and says what will go where (:class:`Plan`), touching nothing; :func:`write_tables`
describes the machine (:class:`Platform`) to the guest by ACPI and MP tables; :meth:`Plan.load` fills guest memory and
returns the :class:`CpuState` of the boot processor. Images are hostile until checked: a wrong one is a GuestError that
names the file.
"""

from ptnetmap.bhyve.boot.plan import ELF64, LINUX64, PVH, Plan, plan
from ptnetmap.bhyve.boot.platform import COM, Platform, SerialPort
from ptnetmap.bhyve.boot.start import CpuState, Segment, Table
from ptnetmap.bhyve.boot.tables import write_tables

__all__ = [
    "COM",
    "ELF64",
    "LINUX64",
    "PVH",
    "CpuState",
    "Plan",
    "Platform",
    "Segment",
    "SerialPort",
    "Table",
    "plan",
    "write_tables",
]
