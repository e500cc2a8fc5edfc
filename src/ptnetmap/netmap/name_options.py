# SPDX-License-Identifier: BSD-2-Clause
"""The options at the end of a port name: ``@share``, ``@conf``, ``@extmem`` and ``@offset`` of libnetmap's nmport.

:mod:`ptnetmap.netmap.names` reads the name before them, and gives what follows to :func:`read_options`.
"""

from __future__ import annotations

import errno as _errno
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptnetmap.netmap.names import Cursor, PortName


@dataclass(frozen=True)
class Conf:
    """Shape wanted for a port (``@conf:``): numbers of rings (16 bits) and of slots per ring (32); 0 is the default."""

    tx_rings: int = 0
    rx_rings: int = 0
    tx_slots: int = 0
    rx_slots: int = 0
    host_tx_rings: int = 0
    host_rx_rings: int = 0


@dataclass(frozen=True)
class ExtMem:
    """Memory of the caller's (``@extmem:``): a file to map, and the pools' object counts and sizes; 0 is default."""

    file: str
    if_num: int = 0
    if_size: int = 0
    ring_num: int = 0
    ring_size: int = 0
    buf_num: int = 0
    buf_size: int = 0


_POOL_KEYS = tuple(f.name for f in fields(ExtMem) if f.name != "file")
_CONF_PAIRS = {
    "rings": ("tx_rings", "rx_rings"),
    "host_rings": ("host_tx_rings", "host_rx_rings"),
    "slots": ("tx_slots", "rx_slots"),
}
_OPTION_KEYS: dict[str, tuple[str, ...]] = {
    "share": ("port",),
    "conf": (*_CONF_PAIRS, *(f.name for f in fields(Conf))),
    "extmem": ("file", *_POOL_KEYS),
    "offset": ("initial", "bits"),
}
_DEFAULT_KEY = {"share": "port", "extmem": "file", "offset": "initial"}
"""The key that ``@option=value`` sets, which must be given in the other form too; ``conf`` has none."""


def read_options(cursor: Cursor, port: PortName, read_name: Callable[[str], str], allow_offset: bool) -> PortName:
    """Return ``port`` with the rest of the text applied: ``@option`` one by one.

    ``conf`` may come again and adds to the first, as upstream. ``read_name`` is how to read the port that ``share``
    names. Raises NameSyntaxError, errno EINVAL, or EOPNOTSUPP for ``offset`` where it is not allowed.
    """
    for text in cursor.rest[1:].split("@"):
        option, keys = _read_option(cursor, text)
        if option == "share":
            share = read_name(keys["port"])
            if port.share not in (None, share):
                raise cursor.refusal(f"option 'share' given twice, for {port.share} and for {share}", "keep one")
            port = replace(port, share=share)
        elif option == "conf":
            port = replace(port, conf=_read_conf(cursor, keys, port.conf))
        elif option == "extmem":
            if port.extmem is not None:
                raise cursor.refusal("extmem already in use", "give the option once")
            shape = {key: cursor.number(keys[key], key, 0, 0xFFFFFFFF) for key in _POOL_KEYS if key in keys}
            port = replace(port, extmem=ExtMem(keys["file"], **shape))
        else:
            if not allow_offset:
                raise cursor.refusal(
                    "option 'offset' is not supported",
                    "leave it out: this program ignores offsets",
                    _errno.EOPNOTSUPP,
                )
            if port.offset is not None:
                raise cursor.refusal("option 'offset' given twice", "keep one")
            initial = cursor.number(keys["initial"], "initial", 0, 0xFFFFFFFFFFFFFFFF)
            port = replace(port, offset=(initial, cursor.number(keys.get("bits", "0"), "bits", 0, 0xFFFFFFFF)))
    return port


def _read_option(cursor: Cursor, text: str) -> tuple[str, dict[str, str]]:
    """Divide ``option:key=value,...`` or ``option=value``."""
    if not text:
        raise cursor.refusal("invalid empty option", "remove one '@', or name an option after it")
    delimiter = re.search("[:=]", text)
    option, body = (text[: delimiter.start()], text[delimiter.end() :]) if delimiter else (text, "")
    if option not in _OPTION_KEYS:
        raise cursor.refusal(f"unknown option {cursor.shown(option)}", f"use one of {', '.join(_OPTION_KEYS)}")
    if not body:
        raise cursor.refusal(f"missing body after '{option}'", f"its keys are {', '.join(_OPTION_KEYS[option])}")
    default = _DEFAULT_KEY.get(option)
    if delimiter and delimiter[0] == "=":
        if default is None:
            raise cursor.refusal(f"'=' not valid after '{option}'", f"write @{option}:KEY=VALUE")
        return option, {default: body}
    keys: dict[str, str] = {}
    for setting in body.split(","):
        name, _, value = setting.partition("=")
        key = name.replace("-", "_")
        if key not in _OPTION_KEYS[option]:
            raise cursor.refusal(
                f"option '{option}': unknown key {cursor.shown(name)}", f"use {', '.join(_OPTION_KEYS[option])}"
            )
        if key in keys:
            raise cursor.refusal(f"option '{option}': duplicate key {cursor.shown(name)}", "keep one of them")
        if not value:
            raise cursor.refusal(
                f"option '{option}': missing '=value' for key {cursor.shown(name)}", f"write {name}=VALUE"
            )
        keys[key] = value
    if default is not None and default not in keys:
        raise cursor.refusal(f"option '{option}': mandatory key '{default}' not assigned", f"add {default}=VALUE")
    return option, keys


def _read_conf(cursor: Cursor, keys: dict[str, str], conf: Conf) -> Conf:
    """Apply keys for both directions first, then those for one, in whatever order they were written."""
    values: dict[str, int] = {}
    for key in _OPTION_KEYS["conf"]:
        if key in keys:
            high = 0xFFFFFFFF if key.endswith("slots") else 0xFFFF
            value = cursor.number(keys[key], key, 0, high)
            values.update(dict.fromkeys(_CONF_PAIRS.get(key, (key,)), value))
    return replace(conf, **values)


def format_extmem(extmem: ExtMem) -> str:
    """Return the option that gives this memory."""
    shape = [f"{f.name.replace('_', '-')}={getattr(extmem, f.name)}" for f in fields(ExtMem) if f.name != "file"]
    shape = [setting for setting in shape if not setting.endswith("=0")]
    # Only the form with "=" can carry a comma in the file's name.
    return f"@extmem:{','.join([f'file={extmem.file}', *shape])}" if shape else f"@extmem={extmem.file}"
