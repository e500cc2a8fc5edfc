# SPDX-License-Identifier: BSD-2-Clause
"""What a loader reads of a 64-bit ELF file: its header, its segments and its notes.

All fields are little endian. Source: System V ABI, chapters 4 and 5, with ELF-64's sizes.
"""

from __future__ import annotations

import numpy as np

elf64_ehdr = np.dtype(
    [
        ("e_ident", "S16"),
        ("e_type", "<u2"),
        ("e_machine", "<u2"),
        ("e_version", "<u4"),
        ("e_entry", "<u8"),
        ("e_phoff", "<u8"),
        ("e_shoff", "<u8"),
        ("e_flags", "<u4"),
        ("e_ehsize", "<u2"),
        ("e_phentsize", "<u2"),
        ("e_phnum", "<u2"),
        ("e_shentsize", "<u2"),
        ("e_shnum", "<u2"),
        ("e_shstrndx", "<u2"),
    ]
)
"""The header of the file: 64 bytes.

====== ==== =========== ===============================================================================================
offset size field       meaning
====== ==== =========== ===============================================================================================
0      16   e_ident     :data:`ELF_MAGIC`, class at 4, byte order at 5, version at 6
16     2    e_type      ``ET_*``
18     2    e_machine   ``EM_X86_64``
20     4    e_version   1
24     8    e_entry     where to start; physical in a Linux kernel
32     8    e_phoff     offset of the program headers
40     8    e_shoff     offset of the section headers
48     4    e_flags     0
52     2    e_ehsize    bytes of this header
54     2    e_phentsize bytes of a program header
56     2    e_phnum     program headers
58     2    e_shentsize bytes of a section header
60     2    e_shnum     section headers
62     2    e_shstrndx  section that holds the names of sections
====== ==== =========== ===============================================================================================
"""

elf64_phdr = np.dtype(
    [
        ("p_type", "<u4"),
        ("p_flags", "<u4"),
        ("p_offset", "<u8"),
        ("p_vaddr", "<u8"),
        ("p_paddr", "<u8"),
        ("p_filesz", "<u8"),
        ("p_memsz", "<u8"),
        ("p_align", "<u8"),
    ]
)
"""A segment: 56 bytes.

====== ==== ======== ==================================================================================================
offset size field    meaning
====== ==== ======== ==================================================================================================
0      4    p_type   ``PT_*``
4      4    p_flags  readable, writable, executable
8      8    p_offset where its bytes are in the file
16     8    p_vaddr  where they go, as the program sees it
24     8    p_paddr  where they go, physically
32     8    p_filesz bytes in the file
40     8    p_memsz  bytes in memory; those after the file's are zero
48     8    p_align  alignment, a power of two
====== ==== ======== ==================================================================================================
"""

elf_nhdr = np.dtype([("n_namesz", "<u4"), ("n_descsz", "<u4"), ("n_type", "<u4")])
"""The head of a note: 12 bytes; name and contents follow, each padded.

====== ==== ======== ==================================================================================================
offset size field    meaning
====== ==== ======== ==================================================================================================
0      4    n_namesz bytes of the name, its zero included
4      4    n_descsz bytes of the contents
8      4    n_type   what it is, for that name
====== ==== ======== ==================================================================================================
"""

ELF_MAGIC = b"\x7fELF"
"""First bytes of ``e_ident``."""
EI_CLASS = 4
"""Index of the class in ``e_ident``."""
EI_DATA = 5
"""Index of the byte order in ``e_ident``."""
ELFCLASS64 = 2
"""Class of 64-bit files."""
ELFDATA2LSB = 1
"""Byte order of little-endian files."""
ET_EXEC = 2
"""Type of an executable at fixed addresses."""
ET_DYN = 3
"""Type of an executable that can be moved."""
EM_X86_64 = 62
"""Machine: AMD64."""
PT_LOAD = 1
"""A segment to load."""
PT_NOTE = 4
"""A segment of notes."""
