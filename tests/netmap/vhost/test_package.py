# SPDX-License-Identifier: BSD-2-Clause
import subprocess
import sys

CODE = "import sys, ptnetmap.netmap.vhost; print(*sorted(sys.modules))"


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_it_needs_no_compiler_and_no_runtime():
    loaded = set(run(CODE))
    assert "ptnetmap.netmap.vhost.frontend" in loaded
    assert not {"numba", "llvmlite", "asyncio", "ptnetmap.netmap.runtime", "ptnetmap.jit"} & loaded
