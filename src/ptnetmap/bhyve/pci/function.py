# SPDX-License-Identifier: BSD-2-Clause
"""Where a function sits: bus, slot, function."""

from __future__ import annotations

from typing import NamedTuple

from ptnetmap.errors import ConfigError


class Function(NamedTuple):
    """The place of a function: ``bus`` 0-255, ``slot`` 0-31, ``function`` 0-7 (PCI 3.0 §3.2.2.3.2)."""

    bus: int
    slot: int
    function: int

    def __str__(self) -> str:
        """Return the place as ``-s`` writes it: ``slot:function``, after ``bus:`` if that is not 0."""
        place = f"{self.slot}:{self.function}"
        return f"{self.bus}:{place}" if self.bus else place

    @classmethod
    def parse(cls, text: str) -> Function:
        """Read ``slot``, ``slot:function`` or ``bus:slot:function`` (netmap-abi 7.1); raises ConfigError."""
        fields = text.split(":")
        if len(fields) <= 3 and all(field.isascii() and field.isdigit() and len(field) <= 3 for field in fields):
            # What is left out is 0: the bus in front, the function at the end.
            numbers = [int(field) for field in fields] + [0] * (len(fields) == 1)
            bus, slot, function = [0] * (3 - len(numbers)) + numbers
            if bus <= 255 and slot <= 31 and function <= 7:
                return cls(bus, slot, function)
        raise ConfigError(
            f"invalid PCI slot {text!r}\n        write slot, slot:function or bus:slot:function: slots 0-31, functions 0-7,"
            " buses 0-255"
        )
