# SPDX-License-Identifier: BSD-2-Clause
import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptnetmap.pcap import Record, open_capture


@pytest.fixture
def read() -> Callable[..., list[Record]]:
    """Read all records of a file, or of bytes."""

    def read(source: Any, **options: Any) -> list[Record]:
        with open_capture(io.BytesIO(source) if isinstance(source, bytes) else source, **options) as capture:
            return list(capture)

    return read


@pytest.fixture
def tshark() -> Callable[..., list[list[str]]]:
    """Ask tshark for fields of every packet of a file."""
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("tshark is not installed (Debian: apt-get install tshark)")

    def ask(path: Path, *fields: str) -> list[list[str]]:
        wanted = [word for field in fields for word in ("-e", field)]
        done = subprocess.run(
            [program, "-n", "-r", str(path), "-T", "fields", *wanted], capture_output=True, text=True, check=True
        )
        return [line.split("\t") for line in done.stdout.splitlines()]

    return ask
