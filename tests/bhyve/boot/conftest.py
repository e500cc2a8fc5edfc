# SPDX-License-Identifier: BSD-2-Clause
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ptnetmap.abi import boot, elf
from ptnetmap.vmm.memory import GuestMemory

MEBIBYTE = 1 << 20


def make_bzimage(code: bytes = bytes(range(256)) * 8, *, setup_sects: int = 3, **fields: int) -> bytes:
    """Make a bzImage of protocol 2.15 whose protected-mode code is ``code``; ``fields`` replace the header's."""
    header = np.zeros((), boot.setup_header)
    usual = {
        "setup_sects": setup_sects,
        "syssize": -(-len(code) // 16),
        "boot_flag": boot.BOOT_FLAG,
        "jump": 0xEB | (0x26C - 0x202) << 8,
        "header": boot.HDRS,
        "version": 0x020F,
        "loadflags": boot.LOADED_HIGH,
        "xloadflags": boot.XLF_KERNEL_64,
        "initrd_addr_max": 0x7FFFFFFF,
        "kernel_alignment": 2 * MEBIBYTE,
        "relocatable_kernel": 1,
        "cmdline_size": 2047,
        "pref_address": 16 * MEBIBYTE,
        "init_size": 8 * MEBIBYTE,
    }
    for name, value in (usual | fields).items():
        header[name] = value
    setup = bytearray(((setup_sects or 4) + 1) * 512)
    setup[0x1EF] = 0xFF  # the sentinel, which no loader may copy
    setup[0x1F1 : 0x1F1 + header.itemsize] = header.tobytes()
    return bytes(setup) + code


def make_note(kind: int, contents: bytes, name: bytes = b"Xen\0") -> bytes:
    """Make an ELF note, padded to 4 bytes."""
    head = np.array((len(name), len(contents), kind), elf.elf_nhdr).tobytes()
    return head + name.ljust(-(-len(name) // 4) * 4, b"\0") + contents.ljust(-(-len(contents) // 4) * 4, b"\0")


def make_elf(
    *segments: tuple[int, bytes, int],
    entry: int = 0x1000000,
    notes: bytes = b"",
    header: dict[str, int] | None = None,
) -> bytes:
    """Make an ELF kernel of (physical address, contents, size in memory) segments; ``header`` replaces fields."""
    count = len(segments) + bool(notes)
    at = 64 + 56 * count
    table, data = b"", b""
    for paddr, contents, size in segments:
        values = (
            elf.PT_LOAD,
            5,
            at + len(data),
            paddr + 0xFFFFFFFF80000000 & 0xFFFFFFFFFFFFFFFF,
            paddr,
            len(contents),
            size,
            4096,
        )
        table += np.array(values, elf.elf64_phdr).tobytes()
        data += contents
    if notes:
        values = (elf.PT_NOTE, 4, at + len(data), 0, 0, len(notes), len(notes), 4)
        table += np.array(values, elf.elf64_phdr).tobytes()
        data += notes
    head = np.zeros((), elf.elf64_ehdr)
    usual = {"e_type": 2, "e_machine": 62, "e_version": 1, "e_entry": entry, "e_phoff": 64, "e_ehsize": 64}
    for name, value in (usual | {"e_phentsize": 56, "e_phnum": count} | (header or {})).items():
        head[name] = value
    head["e_ident"] = b"\x7fELF\x02\x01\x01"
    return head.tobytes() + table + data


def make_pvh_note(entry: int, size: int = 8) -> bytes:
    return make_note(boot.XEN_ELFNOTE_PHYS32_ENTRY, entry.to_bytes(size, "little"))


@pytest.fixture(scope="session")
def bzimage():
    return make_bzimage


@pytest.fixture(scope="session")
def note():
    return make_note


@pytest.fixture(scope="session")
def elf_kernel():
    return make_elf


@pytest.fixture(scope="session")
def pvh_note():
    return make_pvh_note


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(64 * MEBIBYTE) as memory:
        yield memory


@pytest.fixture(scope="session")
def write(tmp_path_factory):
    """Put bytes into a file, and return its path."""
    directory = tmp_path_factory.mktemp("images")

    def write_file(data: bytes, name: str = "kernel") -> Path:
        path = directory / name
        path.write_bytes(data)
        return path

    return write_file


@pytest.fixture(scope="session")
def stock_kernel() -> Path:
    """Debian's kernel, as the nest has it; its vmlinux lies beside it."""
    nest = Path(__file__).parents[2] / "nested"
    done = subprocess.run([nest, "--kernel"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
