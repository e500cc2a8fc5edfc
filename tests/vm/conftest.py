# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import sys
import tempfile
from pathlib import Path

import pytest

from ptnetmap.bhyve.control import client
from ptnetmap.cli.main import main
from ptnetmap.errors import PtnetmapError
from ptnetmap.vm import run, store


@pytest.fixture
def places(tmp_path, monkeypatch):
    """State and runtime directories of the test's own; machines that still run at its end are ended."""
    with tempfile.TemporaryDirectory(prefix="vm-") as runtime:  # short: it is part of a socket's path
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield tmp_path
        for name in store.names():
            with contextlib.suppress(PtnetmapError):
                run.stop(name, force=True)
        for info in client.listing():
            with contextlib.suppress(PtnetmapError):
                client.destroy(info["name"])


@pytest.fixture
def fake(places, monkeypatch):
    """bhyve is a fake one."""
    monkeypatch.setenv("PTNETMAP_BHYVE", f"{sys.executable} {Path(__file__).parent / 'fake_bhyve.py'}")


@pytest.fixture
def disk(places):
    path = places / "disk.raw"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.fixture
def vm(capfd):
    """Run ``ptnetmap vm``: returns the exit code, and what it wrote to stdout and stderr."""

    def call(*words):
        capfd.readouterr()
        code = main(["vm", *map(str, words)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call
