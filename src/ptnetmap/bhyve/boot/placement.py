# SPDX-License-Identifier: BSD-2-Clause
"""Which part of which file goes where in guest memory."""

from __future__ import annotations

from dataclasses import dataclass

from ptnetmap.bhyve.boot import layout
from ptnetmap.bhyve.boot.bzimage import BzImage
from ptnetmap.bhyve.boot.elf import ElfKernel
from ptnetmap.bhyve.boot.image import ImageFile

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """``size`` bytes at ``offset`` of ``image`` go to guest-physical ``gpa``, and ``span`` bytes from there are taken.

    What is taken beyond the file's bytes must be zero, as new guest memory is.
    """

    name: str
    image: ImageFile
    offset: int
    size: int
    gpa: int
    span: int

    @property
    def end(self) -> int:
        """The first address after what is taken."""
        return self.gpa + self.span

    def load(self, memory: layout.Memory) -> None:
        """Read it into guest memory; raises GuestError."""
        if self.size:
            self.image.read_into(self.offset, memory.view(self.gpa, self.size), self.name)


def place_bzimage(image: ImageFile, kernel: BzImage, low_size: int) -> Part:
    """Return where the protected-mode code of ``kernel`` goes in ``low_size`` bytes of memory.

    That is where it prefers to be, else as low as it may be; raises GuestError if there is too little memory.
    """
    preferred = kernel.pref_address
    lowest = -(-layout.HIGH_MEMORY // kernel.alignment) * kernel.alignment
    if not kernel.relocatable:
        # It moves itself to its preferred address, so there must be memory as well (boot.rst, pref_address).
        start, end = layout.HIGH_MEMORY, max(preferred + kernel.init_size, layout.HIGH_MEMORY + kernel.size)
    elif preferred % kernel.alignment == 0 and lowest <= preferred <= low_size - kernel.init_size:
        start, end = preferred, preferred + kernel.init_size
    else:
        start, end = lowest, lowest + kernel.init_size
    if end > low_size:
        image.refuse(
            f"it needs memory up to {end:#x} to start, and the guest's ends at {low_size:#x}",
            f"give the guest at least {-(-end >> 20) + 1:,} MB (-m)",
        )
    return Part("the protected-mode code", image, kernel.offset, kernel.size, start, end - start)


def place_elf(image: ImageFile, kernel: ElfKernel, low_size: int) -> tuple[Part, ...]:
    """Return where the segments of ``kernel`` go, which is where they say; raises GuestError if they cannot."""
    for segment in kernel.segments:
        if segment.paddr < layout.HIGH_MEMORY or segment.end > low_size:
            image.refuse(
                f"a segment belongs at {segment.paddr:#x}-{segment.end:#x},"
                f" and the guest has memory for it at {layout.HIGH_MEMORY:#x}-{low_size:#x}",
                "give the guest more memory (-m), up to 3 GB; or another kernel",
            )
    return tuple(
        Part(f"the segment at {segment.paddr:#x}", image, segment.offset, segment.filesz, segment.paddr, segment.memsz)
        for segment in kernel.segments
    )


def place_initrd(image: ImageFile, lowest: int, limit: int) -> Part:
    """Return where an initrd goes: as high as it fits between ``lowest`` and ``limit``, on a page.

    Raises GuestError if it is empty, or does not fit.
    """
    if not image.size:
        image.refuse("it is empty", "give another, or none")
    gpa = (limit - image.size) // _PAGE * _PAGE
    if gpa < lowest:
        image.refuse(
            f"it has {image.size:,} bytes, and {max(limit - lowest, 0):,} are free between the kernel and {limit:#x}",
            "give the guest more memory (-m), or a smaller initrd",
        )
    return Part("the initrd", image, 0, image.size, gpa, image.size)
