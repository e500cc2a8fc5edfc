# SPDX-License-Identifier: BSD-2-Clause
import subprocess
import sys

from ptnetmap.bhyve import devices
from ptnetmap.bhyve.pci.device import DEVICES


def test_every_name_loads_a_model_of_that_name():
    devices.load()
    assert {name: DEVICES[name].name for name in devices.MODULES} == {name: name for name in devices.MODULES}


def test_only_what_is_asked_for_is_imported():
    program = (
        "import sys; from ptnetmap.bhyve import devices; devices.load(['hostbridge', 'no such thing'])\n"
        "from ptnetmap.bhyve.pci.device import DEVICES; print(*sorted(DEVICES))\n"
        "print('numba' in sys.modules, 'ptnetmap.jit' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["amd_hostbridge hostbridge", "False False"]


def test_no_device_needs_compiled_code():
    program = "import sys; from ptnetmap.bhyve import devices; devices.load(); print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
