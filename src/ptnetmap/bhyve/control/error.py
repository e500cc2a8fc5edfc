# SPDX-License-Identifier: BSD-2-Clause
"""The error of everything about control sockets."""

from __future__ import annotations

from ptnetmap.errors import PtnetmapError


class ControlError(PtnetmapError):
    """A virtual machine cannot be found, reached, or told what was asked; ``errno`` says which."""
