# SPDX-License-Identifier: BSD-2-Clause
"""How a program ends: its exit code, and at most one line about why.

0 done, 1 could not be done, 2 asked wrongly, 130 interrupted, 141 the reader of its output went away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ptnetmap.errors import PtnetmapError

FAILED = 1
ASKED_WRONGLY = 2
INTERRUPTED = 130
READER_GONE = 141


def conclude(program: str, work: Callable[[], int]) -> int:
    """Run ``work`` and return the exit code: its own, or the one for what it raised."""
    try:
        code = work()
        sys.stdout.flush()  # a reader that is gone is found out here rather than at interpreter exit
    except PtnetmapError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more when it exits; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    return code
