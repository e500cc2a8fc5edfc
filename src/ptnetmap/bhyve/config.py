# SPDX-License-Identifier: BSD-2-Clause
"""The configuration tree of bhyve_config(5): text under dotted keys, with references between values.

``pci.0.2.0.device=virtio-blk`` is the variable ``device`` below the node ``pci.0.2.0``; a key is a node or a variable,
never both. ``%(key)`` in a value stands for another variable's value, and ``%%`` for a percent sign; references are
followed when a value is read, so that what they name may be set later. Unknown keys are kept, and may be referenced.

Values are text. The functions at the end read it as bhyve does.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ptnetmap.bhyve.status import USAGE
from ptnetmap.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_REFERENCE = re.compile(r"%%|\\%|%\(([^)]*)\)")
_INTEGER = re.compile(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)")
_SIZE = re.compile(r"\s*\+?(0[xX][0-9a-fA-F]+|[0-9]+)([kKmMgGtT]?)[bB]?")
_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_MEGABYTE = 1 << 20
_MAX_FILE = 1 << 20


class Config(Mapping[str, str]):
    """Dotted keys and their values. As a mapping it gives the values expanded, in the order they were first set.

    ``defaults`` are read where nothing was set, and are part of the mapping.
    """

    def __init__(self, defaults: Mapping[str, str] | None = None) -> None:
        self._values: dict[str, str] = {}
        self._defaults: dict[str, str] = dict(defaults or {})
        self._frozen = False

    def __getitem__(self, key: str) -> str:
        return self._expand(self.raw(key), (key,))

    def __iter__(self) -> Iterator[str]:
        yield from self._values
        yield from (key for key in self._defaults if key not in self._values)

    def __len__(self) -> int:
        return len(self._values.keys() | self._defaults.keys())

    def __contains__(self, key: object) -> bool:
        return key in self._values or key in self._defaults

    def set(self, key: str, value: str | int) -> None:
        """Set ``key``; a later value replaces an earlier one, and booleans become ``true`` and ``false``.

        Raises ConfigError for a key that is none, that is a node already, or that lies below a variable; for an empty
        value; and always after :meth:`freeze`.
        """
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if self._frozen:
            raise ConfigError(f"{key}={text} comes too late: the configuration is fixed once the machine starts")
        parts = key.split(".")
        if not all(parts) or key.startswith("#") or any(mark in key for mark in "=\n\0"):
            raise ConfigError(f"Invalid configuration node: {key}\n        write names with dots between them")
        if not text:
            raise ConfigError(f"{key} is given no value\n        give it one, or leave it out")
        if any(mark in text for mark in "\n\0"):
            raise ConfigError(f"the value of {key} has a line break or a NUL byte, which a configuration cannot hold")
        for length in range(1, len(parts)):
            parent = ".".join(parts[:length])
            if parent in self:
                raise ConfigError(f"Configuration node {key} is a child of existing variable {parent}")
        if self.has_node(key):
            raise ConfigError(f"Attempting to add value {text} to existing node {key}")
        self._values[key] = text

    def set_option(self, option: str) -> bool:
        """Set what ``key=value`` says; False, and nothing changed, if it does not have that form or no value."""
        key, _, value = option.partition("=")
        if not value:
            return False
        self.set(key, value)
        return True

    def load(self, path: str | Path) -> None:
        """Set every ``key=value`` line of a file; empty lines, and those that start with ``#``, are comments.

        Raises ConfigError naming the file and, for a wrong line, its number.
        """
        from pathlib import Path  # slow to import, and few command lines name a file

        try:
            with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                text = file.read(_MAX_FILE + 1)
        except OSError as error:
            raise ConfigError(
                f"Failed to open configuration file {path}: {error.strerror}", error.errno or errno.EIO
            ) from error
        if len(text) > _MAX_FILE:
            raise ConfigError(f"{path} is longer than {_MAX_FILE} characters: this is no configuration file")
        for number, line in enumerate(text.split("\n"), 1):
            if line and not line.startswith("#"):
                self._load_line(path, number, line)

    def _load_line(self, path: str | Path, number: int, line: str) -> None:
        try:
            valid = self.set_option(line)
        except ConfigError as error:
            raise ConfigError(f"{path} line {number}: {error}") from error
        if not valid:
            raise ConfigError(
                f"{path} line {number}: invalid config option '{line}'\n        write variable=value, without spaces"
            )

    def freeze(self) -> None:
        """Allow no more changes."""
        self._frozen = True

    def raw(self, key: str) -> str:
        """Return a value as it was set, references and all; raises KeyError."""
        return self._values[key] if key in self._values else self._defaults[key]

    def dump(self) -> str:
        """Return all of it as lines that :meth:`load` reads back, values as they were set."""
        return "".join(f"{key}={self.raw(key)}\n" for key in self)

    def has_node(self, key: str) -> bool:
        """Whether anything lies below ``key``."""
        return any(other.startswith(f"{key}.") for other in self)

    def node(self, key: str) -> dict[str, str]:
        """Return what lies below the node ``key``, expanded: ``node("pci.0.2.0")["device"]``."""
        start = f"{key}."
        return {other.removeprefix(start): self[other] for other in self if other.startswith(start)}

    def boolean(self, key: str) -> bool:
        """Return a value as a boolean; raises ConfigError if there is none, or it is something else."""
        return boolean_value(key, self._present(key))

    def integer(self, key: str, least: int = 0, most: int = (1 << 63) - 1) -> int:
        """Return a value as an integer of ``[least, most]``; raises ConfigError."""
        return integer_value(key, self._present(key), least, most)

    def _present(self, key: str) -> str:
        if key not in self:
            raise ConfigError(f"Failed to fetch variable {key}\n        set it with -o {key}=VALUE")
        return self[key]

    def _expand(self, value: str, above: tuple[str, ...]) -> str:
        def replace(match: re.Match[str]) -> str:
            key = match[1]
            if key is None:
                return "%"
            if key in above:
                chain = " -> ".join((*above, key))
                raise ConfigError(f"configuration variables refer to each other without end: {chain}")
            if key not in self:
                raise ConfigError(
                    f"Failed to fetch referenced configuration variable {key or '%()'}\n"
                    f"        {above[-1]} is '{value}'; set {key or 'a variable'}, or write %% for a percent sign"
                )
            return self._expand(self.raw(key), (*above, key))

        return _REFERENCE.sub(replace, value)


def boolean_value(key: str, text: str) -> bool:
    """Read ``text`` as bhyve does: true, on, yes, 1, or false, off, no, 0, in upper or lower case."""
    if text.lower() in ("true", "on", "yes", "1"):
        return True
    if text.lower() in ("false", "off", "no", "0"):
        return False
    raise ConfigError(f"Invalid value {text} for boolean variable {key}\n        use true or false")


def integer_value(key: str, text: str, least: int = 0, most: int = (1 << 63) - 1) -> int:
    """Read ``text`` by the rules of strtol(3) with base 0: decimal, 0x for hexadecimal, a leading 0 for octal."""
    value = strtol(text)
    if value is None or not least <= value <= most:
        raise ConfigError(f"Invalid value for {key}: '{text}'\n        use an integer from {least} to {most}")
    return value


def memory_value(text: str) -> int:
    """Read the size of a memory, in bytes: K, M, G and T multiply; without them a small number means megabytes.

    Raises ConfigError with the exit code for wrong options.
    """
    match = _SIZE.fullmatch(text)
    number = strtol(match[1]) if match else None
    if match is None or number is None:
        raise ConfigError(
            f"invalid memsize '{text}'\n        use a number of megabytes, or one with K, M, G or T", status=USAGE
        )
    if not match[2] and number < _MEGABYTE:
        return number * _MEGABYTE
    return number << _SHIFTS[match[2].lower()]


def strtol(text: str) -> int | None:
    """Return the integer that all of ``text`` is by the rules of strtol(3) with base 0, or None."""
    match = _INTEGER.fullmatch(text)
    if match is None or len(match[2]) > 32:
        return None
    sign, digits = match.groups()
    base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") else 10
    try:
        return int(f"{sign}{digits}", base)
    except ValueError:  # 08
        return None
