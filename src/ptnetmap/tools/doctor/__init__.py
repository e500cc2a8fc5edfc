# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap doctor``: whether this machine, this Python and this user have what netmap needs.

A check is a function of plain facts that returns a :class:`Finding`: ``python``, ``machine``, ``guest`` and ``service``
have them, ``facts`` collects what they judge, and :func:`examine` brings the two together. Nothing here needs NumPy or
Numba to be there, and nothing is started.
"""

from ptnetmap.tools.doctor.examine import CHECKS, examine
from ptnetmap.tools.doctor.finding import NOTE, OK, PROBLEM, Finding, line

__all__ = ["CHECKS", "NOTE", "OK", "PROBLEM", "Finding", "examine", "line"]
