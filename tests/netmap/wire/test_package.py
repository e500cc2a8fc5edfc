# SPDX-License-Identifier: BSD-2-Clause
import subprocess
import sys

CODE = """
import importlib, pkgutil, sys
from ptnetmap.netmap import wire
for module in pkgutil.iter_modules(wire.__path__):
    importlib.import_module(f"ptnetmap.netmap.wire.{module.name}")
print(*sorted(sys.modules))
"""


def test_messages_need_no_socket_no_compiler_and_no_runtime():
    loaded = set(
        subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split()
    )

    assert "ptnetmap.netmap.wire.legacy" in loaded
    assert not {"socket", "numba", "ptnetmap.netmap.runtime", "ptnetmap.netmap.directory"} & loaded
