# SPDX-License-Identifier: BSD-2-Clause
"""A linker of what a freestanding image needs: objects for x86-64, at a fixed address, into flat bytes.

Sections that are loaded are placed one after the other, code first; what is only for unwinders and debuggers is left
out. Relocations are those of static code (System V ABI, AMD64 supplement, §4.4.1). Whatever is undefined, defined
twice or unknown ends the build: there is no runtime underneath that could have it.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from ptnetmap.errors import GuestError

_R_X86_64_64 = 1
_R_X86_64_PC32 = 2
_R_X86_64_PLT32 = 4
_R_X86_64_32 = 10
_R_X86_64_32S = 11
_R_X86_64_PC64 = 24
_LEFT_OUT = (".eh_frame",)


@dataclass(frozen=True, slots=True)
class Linked:
    """Bytes to be loaded at ``base``, zeroed parts included, and the addresses of the global symbols."""

    base: int
    data: bytes
    symbols: Mapping[str, int]


class _Object:
    """One object file, and where its sections go: ``places`` by section number."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        try:
            self.elf: Any = ELFFile(io.BytesIO(data))
        except ELFError as error:
            raise _refusal(f"{name} is no ELF object: {error}") from error
        if self.elf["e_machine"] != "EM_X86_64" or self.elf["e_type"] != "ET_REL":
            raise _refusal(f"{name} is {self.elf['e_type']} for {self.elf['e_machine']}, not an object for x86-64")
        self.loaded = {
            number: section
            for number, section in enumerate(self.elf.iter_sections())
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_size"] and section.name not in _LEFT_OUT
        }
        self.places: dict[int, int] = {}

    def symbols(self) -> list[Any]:
        return [s for t in self.elf.iter_sections() if isinstance(t, SymbolTableSection) for s in t.iter_symbols()]

    def defined(self, symbol: Any) -> int | None:
        """Return the address of a symbol of this object; None if it is another's, or in a part left out."""
        index = symbol["st_shndx"]
        if index == "SHN_ABS":
            return int(symbol["st_value"])
        if not isinstance(index, int) or index not in self.places:
            return None
        return self.places[index] + int(symbol["st_value"])


def link(objects: Mapping[str, bytes], base: int) -> Linked:
    """Link ``objects``, contents by name, to be loaded at ``base``.

    Raises GuestError (ENOEXEC) for what is no object for x86-64, for symbols that are undefined, common or defined
    twice, and for relocations that are unknown or do not reach.
    """
    parsed = [_Object(name, data) for name, data in objects.items()]
    end = _place(parsed, base)
    image = bytearray(end - base)
    for part in parsed:
        for number, section in part.loaded.items():
            if section["sh_type"] != "SHT_NOBITS":
                start = part.places[number] - base
                image[start : start + section["sh_size"]] = section.data()
    symbols = _globals(parsed)
    for part in parsed:
        _relocate(part, symbols, image, base)
    return Linked(base, bytes(image), symbols)


def _place(parsed: list[_Object], base: int) -> int:
    # Code, then constants, then data, then what starts as zero.
    everything = [(part, number, section) for part in parsed for number, section in part.loaded.items()]

    def rank(entry: tuple[_Object, int, Any]) -> int:
        flags = entry[2]["sh_flags"]
        if flags & SH_FLAGS.SHF_EXECINSTR:
            return 0
        if entry[2]["sh_type"] == "SHT_NOBITS":
            return 3
        return 2 if flags & SH_FLAGS.SHF_WRITE else 1

    at = base
    for part, number, section in sorted(everything, key=rank):
        alignment = max(section["sh_addralign"], 1)
        at = -(-at // alignment) * alignment
        part.places[number] = at
        at += section["sh_size"]
    return at


def _globals(parsed: list[_Object]) -> dict[str, int]:
    symbols: dict[str, int] = {}
    makers: dict[str, str] = {}
    for part in parsed:
        for symbol in part.symbols():
            if symbol["st_info"]["bind"] == "STB_LOCAL" or not symbol.name:
                continue
            if symbol["st_shndx"] == "SHN_COMMON":
                raise _refusal(f"{part.name} leaves {symbol.name} to the linker (a common symbol)")
            address = part.defined(symbol)
            if address is None:
                continue
            if symbol.name in symbols:
                raise _refusal(f"{symbol.name} is defined twice, in {makers[symbol.name]} and {part.name}")
            symbols[symbol.name], makers[symbol.name] = address, part.name
    return symbols


def _relocate(part: _Object, symbols: Mapping[str, int], image: bytearray, base: int) -> None:
    undefined: set[str] = set()
    for section in part.elf.iter_sections():
        if not isinstance(section, RelocationSection) or section["sh_info"] not in part.places:
            continue
        table = part.elf.get_section(section["sh_link"])
        target = part.loaded[section["sh_info"]]
        for entry in section.iter_relocations():
            symbol = table.get_symbol(entry["r_info_sym"])
            address = part.defined(symbol)
            if address is None:
                address = symbols.get(symbol.name)
            if address is None:
                undefined.add(symbol.name or f"section {symbol['st_shndx']}")
                continue
            place = part.places[section["sh_info"]] + entry["r_offset"]
            size, value = _value(part, entry, address, place, symbol.name)
            if entry["r_offset"] + size > target["sh_size"]:
                raise _refusal(f"{part.name} has a relocation outside of {target.name}")
            image[place - base : place - base + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    if undefined:
        raise _refusal(
            f"{part.name} needs {', '.join(sorted(undefined))}, which nothing defines",
            "routines have no runtime: no exceptions, floor division, lists, or calls of anything but routines",
        )


def _value(part: _Object, entry: Any, address: int, place: int, name: str) -> tuple[int, int]:
    """Return how many bytes a relocation changes, and to what."""
    kind = entry["r_info_type"]
    target = address + (entry["r_addend"] if entry.is_RELA() else 0)
    if kind == _R_X86_64_64:
        return 8, target
    if kind == _R_X86_64_PC64:
        return 8, target - place
    if kind in (_R_X86_64_PC32, _R_X86_64_PLT32):
        size, value, fits = 4, target - place, -(1 << 31) <= target - place < 1 << 31
    elif kind == _R_X86_64_32:
        size, value, fits = 4, target, 0 <= target < 1 << 32
    elif kind == _R_X86_64_32S:
        size, value, fits = 4, target, -(1 << 31) <= target < 1 << 31
    else:
        raise _refusal(f"{part.name} has a relocation of type {kind}, for {name}, which is not for static code")
    if not fits:
        raise _refusal(f"{part.name} has a relocation, for {name}, that does not reach {target:#x} from {place:#x}")
    return size, value


def _refusal(what: str, advice: str = "the built-in guest's sources and its compiler do not go together") -> GuestError:
    return GuestError(errno.ENOEXEC, f"guest: cannot link the built-in guest: {what}\n        {advice}")
