# SPDX-License-Identifier: BSD-2-Clause
"""Follows each tutorial: types what it says is typed, and compares what is shown with what it says is shown."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ptnetmap.netmap.daemon.locks import holder
from ptnetmap.netmap.daemon.place import beside
from tests.nest.conftest import run_nest
from tests.tutorials.session import Typed, parse
from tests.tutorials.terminal import Terminal, UnexpectedError

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/tutorials"
PROGRAMS = Path(sys.executable).parent
PATIENCE = 300
"""Seconds for what is shown next: enough for kernels that have to be compiled, and for an emulated processor."""

needs_kvm = [
    pytest.mark.kvm,
    pytest.mark.slow,  # not in a nest: everything would be compiled there, and two machines at once are one too many
    pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="there is no /dev/kvm"),
]
# What is left are programs, which tests/test_documents.py runs.
MARKS = {
    "README": [],
    "two-vms": needs_kvm,
    "pipe-to-a-vm": needs_kvm,
    "traffic-generator": needs_kvm,
    "qemu": [pytest.mark.nest],
}


@pytest.fixture(scope="session")
def warm_up():
    """Compile now what programs compile when they first need it: then they say so."""
    done = []

    def once():
        if not done:
            subprocess.run([PROGRAMS / "ptnetmap", "warmup"], check=True, capture_output=True, timeout=600)
            done.append(True)

    return once


@pytest.fixture
def prepared(request, warm_up):
    """What a tutorial says is needed is there."""
    if request.node.get_closest_marker("kvm") or request.node.get_closest_marker("nest"):
        warm_up()
    if request.node.get_closest_marker("nest"):
        run_nest("--kernel", check=True)


@pytest.fixture
def environment(tmp_path):
    """Return the environment of somebody who has no netmapd, and the package's programs on the PATH."""
    with tempfile.TemporaryDirectory(prefix="tutorial-") as runtime:  # short: it is part of sockets' paths
        address = Path(runtime) / "netmapd"
        yield {
            **{name: os.environ[name] for name in ("HOME", "USER", "XDG_CACHE_HOME") if name in os.environ},
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "PTNETMAP": str(ROOT),
            "NETMAP_SOCKET": str(address),
            "XDG_RUNTIME_DIR": runtime,
            "XDG_STATE_HOME": str(tmp_path),
        }
        daemon = holder(beside(address, "lock")) if address.exists() else None
        if daemon:
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGTERM)


def follow(page, tmp_path, environment):
    directory = tmp_path / "somewhere"
    directory.mkdir()
    terminals = {}
    try:
        for step in parse(page.read_text()):
            name = step.terminal
            try:
                if name not in terminals:
                    terminals[name] = Terminal(directory, tmp_path / f"typed{name}", environment)
                if not isinstance(step, Typed):
                    terminals[name].expect(step.text, PATIENCE, ends=step.ends)
                elif step.inside:
                    terminals[name].type_inside(step.text)
                else:
                    terminals[name].type(step.text, PATIENCE)
            except UnexpectedError as difference:
                pytest.fail(f"{page.name}, line {step.line}, terminal {name}: {difference}", pytrace=False)
        for name, terminal in terminals.items():
            try:
                terminal.finish()
            except UnexpectedError as difference:
                pytest.fail(f"{page.name}, terminal {name}, at the end: {difference}", pytrace=False)
        assert list(directory.iterdir()) == [], "it cleans up"
    finally:
        for terminal in terminals.values():
            terminal.close()


def test_each_tutorial_in_which_something_is_typed_is_followed():
    typed = {page.stem for page in PAGES.glob("*.md") if parse(page.read_text())}
    assert typed == set(MARKS)


@pytest.mark.parametrize(
    ("document", "difference"),
    [
        ("```sh\n# terminal 1\necho one\n```\n\n```text\ntwo\n```\n", "line 6, terminal 1: .*shows\none\n"),
        (
            "```sh\n# terminal 1\nmkdir a\n```\n\n```sh\n# terminal 2\nmkdir a\n```\n",
            "line 6, terminal 2: .*File exists",
        ),
        ("```sh\n# terminal 1\n>file\n```\n", "it cleans up"),
    ],
)
def test_a_tutorial_is_followed_to_where_it_is_wrong(tmp_path, environment, document, difference):
    page = tmp_path / "wrong.md"
    page.write_text(document)
    with pytest.raises((pytest.fail.Exception, AssertionError), match=re.compile(difference, re.DOTALL)):
        follow(page, tmp_path, environment)


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks) for name, marks in MARKS.items()])
def test_a_tutorial_shows_what_is_shown(name, tmp_path, environment):
    follow(PAGES / f"{name}.md", tmp_path, environment)
