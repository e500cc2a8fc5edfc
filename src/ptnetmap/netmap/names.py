# SPDX-License-Identifier: BSD-2-Clause
r"""The grammar of port names: text in, :class:`PortName` out, and back.

Upstream has two grammars, and a third one lives in the kernel::

    nm_open     netmap:NAME[MODE][SUFFIX...]   or   valeSWITCH:PORT[MODE][SUFFIX...]        (netmap_user.h)
    nmport      the same, with named pipes, ``^N`` and options                              (libnetmap)
    kernel      what ends in ``nr_name``:   eth0   eth0{1   eth0}x   vale0:1   vale0:1{1

    MODE        ^ host rings   ^N one host ring (nmport)   * NIC and host rings   -N one NIC ring   {ID }ID pipe ends
    SUFFIX      /FLAGS (x exclusive, z zero-copy monitor, t r monitor tx or rx, R T only rx or tx rings)   @N memory id
    OPTIONS     @share=PORT  @conf:K=V,...  @extmem:file=F,K=V,...  @offset:initial=N,bits=N   (nmport, at the end)

:func:`parse` is what this package's own programs use: nmport's grammar, plus dots in the names of interfaces, because
``eth0.100`` is an ordinary VLAN interface and means nothing else. Against :func:`parse_nm_open` it still differs in
this: a pipe's id is an identifier and kept as written (``{07`` is not ``{7``; nm_open knows numbers only); names may
have 63 bytes instead of 15; a memory id may be repeated if it is the same; an interface's name has letters, digits,
``_`` and ``.`` only, while nm_open leaves judging it to the kernel.

All of them refuse some texts that upstream's scanners let through and the kernel, or nobody, would refuse later: an
empty interface, port or pipe name, a missing number (``eth0-/x``), a number with blanks or sign, a memory id above
65535, an option's value that is not a number (upstream reads it as 0).
"""

from __future__ import annotations

import errno as _errno
import re
from dataclasses import dataclass, field, fields, replace
from typing import Literal, NamedTuple

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import NameSyntaxError
from ptnetmap.netmap.name_options import Conf, ExtMem, format_extmem, read_options

MAX_RING = abi.NETMAP_RING_MASK - 1
"""Largest ring number, and largest pipe number of nm_open: the ring mask itself is not accepted."""

MAX_MEM_ID = 0xFFFF
"""Largest memory id: ``nr_mem_id`` has 16 bits; 0 means "not given"."""

FLAG_LETTERS = {
    "x": abi.NR_EXCLUSIVE,
    "z": abi.NR_ZCOPY_MON,
    "t": abi.NR_MONITOR_TX,
    "r": abi.NR_MONITOR_RX,
    "R": abi.NR_RX_RINGS_ONLY,
    "T": abi.NR_TX_RINGS_ONLY,
}
"""What each letter after ``/`` sets in ``nr_flags``."""


@dataclass(frozen=True)
class PortName:
    """A parsed port name: the fields of a register request, and the options to send with it.

    ``name`` and ``share`` are kernel-level names; ``mode`` is one of ``NR_REG_*`` (a pipe's end is ``NR_REG_ALL_NIC``
    with the pipe in its name), ``ringid`` the ring for ``NR_REG_ONE_NIC`` and ``NR_REG_ONE_SW``, ``flags`` a sum of
    ``NR_*`` bits, ``mem_id`` 0 if not given, ``offset`` the pair (initial, bits). ``str()`` is the text to open it.
    """

    name: str
    mode: int = abi.NR_REG_ALL_NIC
    ringid: int = 0
    flags: int = 0
    mem_id: int = 0
    share: str | None = None
    conf: Conf = field(default_factory=Conf)
    extmem: ExtMem | None = None
    offset: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Return :func:`format_port_name` of this name."""
        return format_port_name(self)


class PipeName(NamedTuple):
    """A kernel-level name taken apart: the parent port, which end, and the pipe's id among its parent's."""

    base: str
    role: Literal["master", "slave"]
    id: str


class ValeName(NamedTuple):
    """A kernel-level name taken apart: the switch ("vale0") and the port on it ("1")."""

    switch: str
    port: str


# Kernel-level names ---------------------------------------------------------------------------------------------------


def split_pipe(name: str) -> PipeName | None:
    """Return the parts of a pipe's kernel-level name, or None if ``name`` is not a pipe.

    The last ``{`` divides; only if there is none, the last ``}``, as upstream's kernel module looks for them.
    """
    base, brace, pipe_id = name.rpartition("{")
    if brace:
        return PipeName(base, "master", pipe_id)
    base, brace, pipe_id = name.rpartition("}")
    return PipeName(base, "slave", pipe_id) if brace else None


def is_vale(name: str) -> bool:
    """Whether a kernel-level name is a switch's port (or only its prefix); a pipe on such a port is a pipe.

    Upstream compares ``val`` only, so that an interface ``val0`` cannot be opened there; here it can.
    """
    return name.startswith(abi.NM_BDG_NAME) and split_pipe(name) is None


def split_vale(name: str) -> ValeName | None:
    """Return switch and port of a kernel-level name, or None if it does not name a switch's port.

    Without a colon the switch is the default one, ``vale``, as in 2015: ``vale7`` is port 7 of it.
    """
    if not is_vale(name):
        return None
    switch, colon, port = name.partition(":")
    if not colon:
        switch, port = abi.NM_BDG_NAME, name.removeprefix(abi.NM_BDG_NAME)
    return ValeName(switch, port) if port else None


def check_name_length(name: str, size: int = abi.NETMAP_REQ_IFNAMSIZ, text: str | None = None) -> None:
    """Raise NameSyntaxError (EINVAL) unless ``name`` and a final NUL fit in ``size`` bytes.

    ``size`` is 64 for ``nr_name`` of the current requests, 16 (``IFNAMSIZ``) for the legacy request and nm_open.
    ``text`` is what the user wrote, for the message; by default the name.
    """
    length = len(name.encode(errors="surrogatepass"))
    if length >= size:
        raise _refusal(
            name if text is None else text,
            f"name {_shown(name)} too long, {length} bytes",
            f"use at most {size - 1} bytes",
        )


# The two parsers, and ours --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Dialect:
    """Where the grammars differ."""

    ends_name: str  # the characters that end a name, as a set in a regular expression
    interface: re.Pattern[str]
    size: int
    nmport: bool  # named pipes, numbered host rings, options, a memory id may be repeated
    current: bool = True  # VALE names are checked, there are memory ids

    @property
    def name(self) -> re.Pattern[str]:
        return re.compile(f"[^{self.ends_name}]*")


_IDENTIFIER = re.compile(r"[A-Za-z0-9_]+")
_SWITCH_ID = re.compile(r"[A-Za-z0-9_]*")
_PRINTABLE = re.compile(r"[!-~]+")
_DIGITS = re.compile(r"[0-9]+")
_FLAGS = re.compile(r"[^@]*")
_VALE_TEXT = re.compile(r"vale[A-Za-z0-9_]*:[A-Za-z0-9_]+([{}][A-Za-z0-9_]+)?")

_NMPORT = _Dialect("-*^/@", _IDENTIFIER, abi.NETMAP_REQ_IFNAMSIZ, nmport=True)
_OURS = replace(_NMPORT, interface=re.compile(r"[A-Za-z0-9_.]+"))
_NM_OPEN = {
    "current": _Dialect("-*^{}/@", _PRINTABLE, abi.IFNAMSIZ, nmport=False),
    "2015": _Dialect("-*^{}/", _PRINTABLE, abi.IFNAMSIZ, nmport=False, current=False),
}


def parse(text: str) -> PortName:
    """Parse a port name as this package's programs do: nmport's grammar plus dots in interfaces' names.

    Raises NameSyntaxError, errno EINVAL (EOPNOTSUPP for ``@offset``, which an application has to support).
    """
    return _parse(text, _OURS, allow_offset=False)


def parse_nmport(text: str, allow_offset: bool = False) -> PortName:
    """Parse a port name as libnetmap's nmport_prepare does; ``allow_offset`` enables the option ``@offset``.

    Raises NameSyntaxError, errno EINVAL, or EOPNOTSUPP for ``@offset`` where it is not allowed.
    """
    return _parse(text, _NMPORT, allow_offset)


def parse_nm_open(text: str, generation: Literal["current", "2015"] = "current") -> PortName:
    """Parse a port name as nm_open of netmap_user.h does, in today's form or in the report's.

    In 2015 there was no ``@``, and names of VALE ports were not checked, nor needed a colon. A pipe's number becomes
    part of the name, as the kernel module rewrites such legacy requests.
    Raises NameSyntaxError, errno EINVAL, but 0 for an unknown prefix: "not a netmap name" is no error of nm_open's.
    """
    if not text.startswith(("netmap:", abi.NM_BDG_NAME)):
        raise _unknown_prefix(text, errno=0)
    return _parse(text, _NM_OPEN[generation], allow_offset=False)


def split_request(text: str) -> tuple[PortName, str]:
    """Parse as nmport, up to the options: return what goes into the register request, and the text of the options.

    The text is empty or begins with ``@``. It is not looked at. Raises NameSyntaxError (EINVAL) for the rest.
    """
    cursor = Cursor(text)
    return _read_request(cursor, _NMPORT), cursor.rest


def format_port_name(port: PortName) -> str:
    """Return the text that parses to ``port``, in a canonical order of suffixes.

    It is meant for the parser that the port came from. Flags that have no letter, which applications set by
    themselves (``NR_ACCEPT_VNET_HDR``), are left out.
    """
    parts = [_with_prefix(port.name)]
    parts.append({abi.NR_REG_SW: "^", abi.NR_REG_NIC_SW: "*"}.get(port.mode, ""))
    if port.mode in (abi.NR_REG_ONE_NIC, abi.NR_REG_ONE_SW):
        parts.append(f"{'-' if port.mode == abi.NR_REG_ONE_NIC else '^'}{port.ringid}")
    letters = "".join(letter for letter, flag in FLAG_LETTERS.items() if port.flags & flag)
    if letters:
        parts.append(f"/{letters}")
    if port.mem_id:
        parts.append(f"@{port.mem_id}")
    if port.share is not None:
        parts.append(f"@share={_with_prefix(port.share)}")
    settings = [f"{f.name.replace('_', '-')}={value}" for f in fields(Conf) if (value := getattr(port.conf, f.name))]
    if settings:
        parts.append(f"@conf:{','.join(settings)}")
    if port.extmem is not None:
        parts.append(format_extmem(port.extmem))
    if port.offset is not None:
        parts.append("@offset:initial={},bits={}".format(*port.offset))
    return "".join(parts)


def _with_prefix(name: str) -> str:
    return name if _VALE_TEXT.fullmatch(name) else f"netmap:{name}"


# Scanning -------------------------------------------------------------------------------------------------------------


def _shown(text: str) -> str:
    short = text if len(text) <= 80 else text[:77] + "..."
    return f"'{short}'" if short.isprintable() else ascii(short)


def _refusal(text: str, found: str, advice: str, errno: int = _errno.EINVAL) -> NameSyntaxError:
    return NameSyntaxError(f"netmap: cannot open {_shown(text)}: {found}\n        {advice}", errno)


def _unknown_prefix(text: str, errno: int = _errno.EINVAL) -> NameSyntaxError:
    bare = _IDENTIFIER.match(text)
    advice = f"write netmap:{bare[0]}" if bare and ":" not in text else "write netmap:INTERFACE or valeSWITCH:PORT"
    return _refusal(text, "invalid request, prefix unknown or missing", advice, errno)


class Cursor:
    """A text and how far it has been read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    @property
    def rest(self) -> str:
        """What has not been read."""
        return self.text[self.at :]

    def skip(self, start: str) -> bool:
        """Read past ``start`` if it comes next; return whether it did."""
        found = self.text.startswith(start, self.at)
        self.at += len(start) if found else 0
        return found

    def take(self, pattern: re.Pattern[str]) -> str:
        """Read and return what matches here: "" if nothing does."""
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    @staticmethod
    def shown(text: str) -> str:
        """Return a piece of the text as messages quote it."""
        return _shown(text)

    def refusal(self, found: str, advice: str, errno: int = _errno.EINVAL) -> NameSyntaxError:
        """Return the error that says why the text is no port name."""
        return _refusal(self.text, found, advice, errno)

    def number(self, digits: str, what: str, low: int, high: int) -> int:
        """Convert digits; raises NameSyntaxError unless they are a number in ``low``...``high``."""
        if not _DIGITS.fullmatch(digits):
            found = "unexpected end of request" if not digits else f"got {_shown(digits)} while expecting a number"
            raise self.refusal(f"{found} ({what})", f"give a number in {low}..{high}")
        # The length is checked first because Python refuses to convert thousands of digits.
        value = int(digits) if len(digits.lstrip("0")) <= 20 else high + 1
        if not low <= value <= high:
            raise self.refusal(f"{what} {_shown(digits)} out of range", f"give a number in {low}..{high}")
        return value


def _parse(text: str, dialect: _Dialect, allow_offset: bool) -> PortName:
    cursor = Cursor(text)
    port = _read_request(cursor, dialect)
    if not cursor.rest:
        return port
    # What @share names may have a mode and flags, which do not matter, as upstream.
    return read_options(cursor, port, lambda share: _read_request(Cursor(share), dialect).name, allow_offset)


def _read_request(cursor: Cursor, dialect: _Dialect) -> PortName:
    name = _read_name(cursor, dialect)
    piped = not dialect.nmport and split_pipe(name) is not None
    mode, ringid = (abi.NR_REG_ALL_NIC, 0) if piped else _read_mode(cursor, dialect)
    flags, mem_id = _read_suffixes(cursor, dialect)
    return PortName(name, mode, ringid, flags, mem_id)


def _read_name(cursor: Cursor, dialect: _Dialect) -> str:
    if "\0" in cursor.text:
        raise cursor.refusal("it contains a NUL character", "remove it: names are C strings")
    switch = _read_prefix(cursor, dialect)
    name = cursor.take(dialect.name)
    base, brace, pipe_id = _cut_at_brace(name)
    if not base:
        raise cursor.refusal("invalid empty port name", "name an interface or a port between ':' and the suffixes")
    pattern = _IDENTIFIER if switch else dialect.interface
    if not pattern.fullmatch(base):
        if base.startswith(abi.NM_BDG_NAME) and ":" in base:
            raise cursor.refusal(f"invalid port name {_shown(base)}", f"ports of a switch need no prefix: write {base}")
        raise cursor.refusal(f"invalid port name {_shown(base)}", "use letters, digits and '_' only")
    if brace and not pipe_id:
        raise cursor.refusal("invalid empty pipe name", f"write an id after '{brace}', for instance {base}{brace}1")
    if brace and not _IDENTIFIER.fullmatch(pipe_id):
        raise cursor.refusal(f"invalid pipe name {_shown(pipe_id)}", "use letters, digits and '_' only")
    check_name_length(switch + name, dialect.size, cursor.text)
    if not dialect.nmport and (cursor.skip(brace := "{") or cursor.skip(brace := "}")):
        name += f"{brace}{cursor.number(cursor.take(_DIGITS), 'pipe number', 0, MAX_RING)}"
    return switch + name


def _cut_at_brace(name: str) -> tuple[str, str, str]:
    """Divide at the first brace, unlike the kernel: all that follows has to be one identifier."""
    brace = re.search(r"[{}]", name)
    return (name[: brace.start()], brace[0], name[brace.end() :]) if brace else (name, "", "")


def _read_prefix(cursor: Cursor, dialect: _Dialect) -> str:
    """Read ``netmap:`` or ``valeX:`` and return what of it belongs to the kernel-level name."""
    if cursor.skip("netmap:"):
        return ""
    if cursor.text.startswith("netmap"):
        found, advice = "missing ':'", "write netmap:INTERFACE"
        if ":" in cursor.text:
            found, advice = (
                "no identifier allowed between 'netmap' and ':'",
                f"write netmap:{cursor.text.split(':')[1]}",
            )
        raise cursor.refusal(found, advice)
    if not cursor.text.startswith(abi.NM_BDG_NAME):
        raise _unknown_prefix(cursor.text)
    if not dialect.current:
        return ""
    switch, colon, _ = cursor.text.partition(":")
    if not colon:
        raise cursor.refusal("missing ':'", f"write {switch}:PORT, or netmap:{switch} if it is an interface")
    if not _SWITCH_ID.fullmatch(switch):
        raise cursor.refusal(f"invalid identifier {_shown(switch[4:])}", "use letters, digits and '_' only")
    cursor.at = len(switch) + 1
    return f"{switch}:"


def _read_mode(cursor: Cursor, dialect: _Dialect) -> tuple[int, int]:
    if cursor.skip("*"):
        return abi.NR_REG_NIC_SW, 0
    if cursor.skip("-"):
        return abi.NR_REG_ONE_NIC, cursor.number(cursor.take(_DIGITS), "ring", 0, MAX_RING)
    if cursor.skip("^"):
        digits = cursor.take(_DIGITS) if dialect.nmport else ""
        return (abi.NR_REG_ONE_SW, cursor.number(digits, "host ring", 0, MAX_RING)) if digits else (abi.NR_REG_SW, 0)
    return abi.NR_REG_ALL_NIC, 0


def _read_suffixes(cursor: Cursor, dialect: _Dialect) -> tuple[int, int]:
    """Read flags and memory ids, in any order and number; stop at the end or before the first option."""
    flags = mem_id = 0
    while cursor.rest:
        if cursor.skip("/"):
            flags |= _read_flags(cursor)
        elif dialect.current and cursor.skip("@"):
            if dialect.nmport and cursor.rest and cursor.rest[0] not in "0123456789":
                cursor.at -= 1
                break
            new = cursor.number(cursor.take(_DIGITS), "memory id", 1, MAX_MEM_ID)
            if mem_id and not (dialect.nmport and mem_id == new):
                raise cursor.refusal(f"memory id set twice, to {mem_id} and to {new}", "keep one of them")
            mem_id = new
        else:
            allowed = "'/' and '@'" if dialect.current else "'/'"
            raise cursor.refusal(f"unexpected character {_shown(cursor.rest[0])}", f"only {allowed} may follow here")
    return flags, mem_id


def _read_flags(cursor: Cursor) -> int:
    letters = cursor.take(_FLAGS)
    if not letters and not cursor.rest:
        raise cursor.refusal("unexpected end of request (flags)", f"write some of {' '.join(FLAG_LETTERS)} after '/'")
    flags = 0
    for letter in letters:
        if letter not in FLAG_LETTERS:
            raise cursor.refusal(f"unrecognized flag {_shown(letter)}", f"use some of {' '.join(FLAG_LETTERS)}")
        flags |= FLAG_LETTERS[letter]
    return flags
