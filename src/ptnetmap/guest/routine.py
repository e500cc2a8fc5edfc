# SPDX-License-Identifier: BSD-2-Clause
"""What the guest is written in: *routines*, and constant text.

A routine is a plain Python function of integers that uses other routines, the operations of :mod:`ptnetmap.jit` and of
:mod:`~ptnetmap.guest.port`, :mod:`~ptnetmap.guest.mmio` and :mod:`~ptnetmap.guest.cpu`, by their own names (never
through a module), and integer constants. Tests call it as it is; :mod:`~ptnetmap.guest.compile` makes machine code of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_routines: set[Any] = set()


def routine(fn: F) -> F:
    """Mark ``fn`` as a routine: what calls it in a compiled image calls its compiled form. Returns ``fn``."""
    _routines.add(fn)
    return fn


def is_routine(value: object) -> bool:
    """Return whether ``value`` was marked by :func:`routine`."""
    return callable(value) and value in _routines


class Text(int):
    """Constant text for routines: the address of its bytes, which end with a zero byte.

    Interpreted, this is an address of the process; in an image the compiler puts the bytes' address there.
    """

    data: bytes
    _buffer: Any

    def __new__(cls, characters: str) -> Text:
        """Keep ``characters``, which are ASCII without a zero."""
        data = characters.encode("ascii")
        buffer = ctypes.create_string_buffer(data)
        self = super().__new__(cls, ctypes.addressof(buffer))
        self.data = data + b"\0"
        self._buffer = buffer
        return self

    def __repr__(self) -> str:
        return f"Text({self.data[:-1].decode()!r})"
