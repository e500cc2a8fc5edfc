# SPDX-License-Identifier: BSD-2-Clause
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
PROGRAM = re.compile(r"```python\n(.*?)```\n\nprints\n\n```\n(.*?)```", re.DOTALL)
PROGRAMS = PROGRAM.findall(README.read_text())


def test_every_program_of_the_readme_shows_what_it_prints():
    assert len(PROGRAMS) == README.read_text().count("```python")


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=[f"program{i}" for i in range(len(PROGRAMS))])
def test_the_readmes_programs_print_what_it_says(program, output, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(program)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == output
