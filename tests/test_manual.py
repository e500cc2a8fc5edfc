# SPDX-License-Identifier: BSD-2-Clause
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parent.parent / "docs/man").glob("*.rst"))
PROGRAMS = {
    "bhyve": "ptnetmap.cli.bhyve",
    "netmapd": "ptnetmap.cli.netmapd",
    "pkt-gen": "ptnetmap.cli.pkt_gen",
    "ptnetmap": "ptnetmap.cli.main",
    "vale-ctl": "ptnetmap.cli.vale_ctl",
}
SETTINGS = {"halt_level": 2, "report_level": 2}
OPTION = re.compile(r"(?<![\w-])(--?[\w][\w-]*)")

docutils = pytest.importorskip("docutils.core", reason="docutils, of the test group, is missing")
manpage = pytest.importorskip("docutils.writers.manpage")


def program_of(source):
    return source.stem.rpartition(".")[0]


def options_of_the_page(source):
    """Option strings of the page's option lists: lines that begin with an option."""
    found = set()
    for line in source.read_text().splitlines():
        if line.startswith("-") and not set(line) <= {"-"}:
            found |= set(OPTION.findall(re.split(r"  ", line)[0]))
    return found


def options_of_the_program(source):
    """Option strings of its help, where help is laid out as argparse does it."""
    module = PROGRAMS[program_of(source)]
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
    found = set()
    for line in done.stdout.splitlines():
        if re.match(r"\s+--?\w", line) and ":" not in line[:4]:
            found |= set(OPTION.findall(re.split(r"  +|: ", line.strip())[0]))
    return found


def test_each_program_with_a_page_is_there():
    assert {program_of(source) for source in SOURCES} == set(PROGRAMS)
    for module in PROGRAMS.values():
        assert callable(importlib.import_module(module).main)


@pytest.mark.parametrize("source", SOURCES, ids=program_of)
def test_a_page_becomes_a_manual_page_without_a_remark(source):
    page = docutils.publish_string(source.read_text(), writer=manpage.Writer(), settings_overrides=SETTINGS).decode()
    name, _, section = source.stem.rpartition(".")
    assert re.search(
        rf'^\.TH "?{re.escape(name)}"? "?{section}"?', page.replace("\\-", "-"), re.MULTILINE | re.IGNORECASE
    )


@pytest.mark.parametrize("source", SOURCES, ids=program_of)
def test_a_page_has_the_options_of_its_program_and_no_others(source):
    options = options_of_the_program(source)
    assert "--help" in options
    assert options_of_the_page(source) == options
