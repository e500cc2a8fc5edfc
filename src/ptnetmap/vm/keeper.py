# SPDX-License-Identifier: BSD-2-Clause
"""The process behind a running machine: runs bhyve, again when the guest rebooted, and notes how it ended.

It inherits the locks of the machine and of its image, and so does bhyve: the machine counts as running while either
lives. When this process is killed, bhyve goes on without it, and a reboot ends the machine.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ptnetmap.bhyve.status import REBOOT
from ptnetmap.vm import store

SAID = {1: "powered off", 2: "halted", 3: "triple fault", 4: "error, see its log"}


def program() -> list[str]:
    """The words that run bhyve: ``$PTNETMAP_BHYVE``, or ours."""
    return shlex.split(os.environ.get("PTNETMAP_BHYVE", "")) or [sys.executable, "-m", "ptnetmap.cli.bhyve"]


def keep(place: Path, arguments: Sequence[str], locks: Sequence[int]) -> int:
    """Run bhyve until its guest does not reboot any more; return its exit code."""
    while (code := subprocess.run([*program(), *arguments], pass_fds=locks, check=False).returncode) == REBOOT:
        print("ptnetmap: the guest rebooted", flush=True)
    text = SAID.get(code, f"killed by signal {-code}" if code < 0 else f"exit code {code}")
    note = place / f".{store.ENDED}"
    with contextlib.suppress(OSError):  # a full disk is no reason to fail: the exit code is still right
        note.write_text(f"{text}\n")
        note.replace(place / store.ENDED)
    return code


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1]), sys.argv[3:], [int(fd) for fd in sys.argv[2].split(",")]))
