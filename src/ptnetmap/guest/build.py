# SPDX-License-Identifier: BSD-2-Clause
"""Compile, assemble and link the built-in guest. ``python -m ptnetmap.guest.build`` writes the image to its output."""

from __future__ import annotations

import sys

from ptnetmap.guest.compile import Texts, assemble, compile_routines
from ptnetmap.guest.fault import guest_fault
from ptnetmap.guest.image import Image
from ptnetmap.guest.layout import IMAGE_BASE, TEXTS_SIZE
from ptnetmap.guest.link import link
from ptnetmap.guest.main import guest_main
from ptnetmap.guest.stub import ENTRY, FAULT, HANDLER_SIZE, HANDLERS, MAIN, assembly


def build() -> Image:
    """Return the built-in guest's image; raises GuestError (ENOEXEC) if its sources cannot be made into one."""
    texts = Texts(IMAGE_BASE, TEXTS_SIZE)
    routines = compile_routines({MAIN: guest_main, FAULT: guest_fault}, texts)
    linked = link({"stub": assemble(assembly()), "routines": routines}, IMAGE_BASE + TEXTS_SIZE)
    return Image(
        base=IMAGE_BASE,
        data=texts.data() + linked.data,
        entry=linked.symbols[ENTRY],
        handlers=linked.symbols[HANDLERS],
        handler_size=HANDLER_SIZE,
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(build().to_bytes())
