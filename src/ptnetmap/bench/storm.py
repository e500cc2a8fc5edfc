# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""What a third process does beside two that exchange packets: kick netmapd for nothing, or only use its core."""

from __future__ import annotations

from ptnetmap.jit.atomic import load64_acquire, pause
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.libc import write
from ptnetmap.jit.memory import store64


@kernel
def kick_until(stop, fd, word):
    """Write to eventfd ``fd``, through the 8 bytes at ``word``, until the word at ``stop`` is not 0; return how often."""
    store64(word, 1)
    kicks = 0
    while load64_acquire(stop) == 0:
        write(fd, word, 8)
        kicks += 1
    return kicks


@kernel
def spin_until(stop):
    """Spin until the word at ``stop`` is not 0; return 0."""
    while load64_acquire(stop) == 0:
        pause()
    return 0


LOOPS = (kick_until, spin_until)
