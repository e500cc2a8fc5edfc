# SPDX-License-Identifier: BSD-2-Clause
"""Structures in messages, as dictionaries of numbers: what bodies and options are read into and written from.

A *codec* knows one structure. Values in its dictionaries are Python's: ints that fit the field, dictionaries for
structures inside. :meth:`Codec.complete` is where values from a caller are checked, so that packing cannot fail.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from ptnetmap.netmap.wire.error import refused

Bytes = bytes | bytearray

Body = dict[str, Any]
"""The fields of a structure by name."""

Values = Mapping[str, Any]
"""Some of the fields of a structure by name."""


class Codec(Protocol):
    """One structure: how long it is, and how it is read, checked and written.

    ``minimum`` is the bytes that must be there before :meth:`extent` can tell how many there are in all.
    """

    @property
    def minimum(self) -> int:
        """Bytes that every such structure has."""

    def extent(self, data: Bytes, at: int) -> int:
        """Bytes of the structure at ``at``, as it says itself: possibly more than ``data`` has."""

    def size(self, values: Values) -> int:
        """Bytes that complete values take."""

    def complete(self, values: Values) -> Body:
        """Return all fields, those missing as 0. Raises WireError (EINVAL) for unknown names and impossible values."""

    def unpack(self, data: Bytes, at: int) -> Body:
        """Read the structure at ``at``; all its bytes are there."""

    def pack_into(self, buffer: bytearray, at: int, values: Values) -> None:
        """Write complete values at ``at``; other bytes, such as paddings, stay as they are."""


class _Field(NamedTuple):
    name: str
    at: int
    size: int
    signed: bool
    inner: Fixed | None


class Fixed:
    """A structure of unsigned and signed integers, after a NumPy ``layout``; ``without`` are fields to leave alone."""

    def __init__(self, layout: np.dtype[Any], without: Iterable[str] = ()) -> None:
        self.layout = layout
        self.minimum = layout.itemsize
        self._fields: list[_Field] = []
        for name, (kind, at, *_) in (layout.fields or {}).items():
            if name not in without:
                inner = Fixed(kind) if kind.fields else None
                self._fields.append(_Field(name, at, kind.itemsize, kind.kind == "i", inner))

    def extent(self, data: Bytes, at: int) -> int:
        """Bytes of the structure."""
        return self.minimum

    def size(self, values: Values) -> int:
        """Bytes of the structure."""
        return self.minimum

    def complete(self, values: Values) -> Body:
        """Return all fields; see :meth:`Codec.complete`."""
        known = {field.name for field in self._fields}
        if unknown := sorted(set(values) - known):
            raise refused(f"there is no field {unknown[0]}", f"the fields are {', '.join(sorted(known))}")
        return {f.name: _checked(f, values.get(f.name, {} if f.inner else 0)) for f in self._fields}

    def unpack(self, data: Bytes, at: int) -> Body:
        """Read the fields."""
        return {
            f.name: f.inner.unpack(data, at + f.at)
            if f.inner
            else int.from_bytes(data[at + f.at : at + f.at + f.size], "little", signed=f.signed)
            for f in self._fields
        }

    def pack_into(self, buffer: bytearray, at: int, values: Values) -> None:
        """Write the fields."""
        for f in self._fields:
            if f.inner:
                f.inner.pack_into(buffer, at + f.at, values[f.name])
            else:
                start = at + f.at
                buffer[start : start + f.size] = values[f.name].to_bytes(f.size, "little", signed=f.signed)


def _checked(field: _Field, value: Any) -> Any:
    if field.inner:
        return field.inner.complete(value)
    bits = 8 * field.size - field.signed
    low, high = (-(1 << bits) if field.signed else 0), (1 << bits) - 1
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        raise refused(f"{field.name} cannot be {value!r}", f"give a whole number in {low}..{high}")
    return number
