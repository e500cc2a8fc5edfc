# SPDX-License-Identifier: BSD-2-Clause
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
PROGRAM = re.compile(r"```python\n(.*?)```\n\nprints\n\n```\n(.*?)```", re.DOTALL)
PROGRAMS = [program for page in PAGES for program in PROGRAM.findall(page.read_text())]


def test_every_program_of_the_documents_shows_what_it_prints():
    assert len(PROGRAMS) == sum(page.read_text().count("```python") for page in PAGES)


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=[f"program{i}" for i in range(len(PROGRAMS))])
def test_the_documents_programs_print_what_they_say(program, output, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(program)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == output
