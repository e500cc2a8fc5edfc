# SPDX-License-Identifier: BSD-2-Clause
import shutil
import subprocess

import pytest

from ptnetmap.abi import virtio_console as abi

STRUCTURES = {"virtio_console_config": 12, "virtio_console_control": 8}
C_NAMES = {"VIRTIO_CONSOLE_F_MULTIPORT": "1 << VIRTIO_CONSOLE_F_MULTIPORT"}
VALUES = [
    *("VIRTIO_CONSOLE_F_MULTIPORT", "VIRTIO_CONSOLE_DEVICE_READY", "VIRTIO_CONSOLE_PORT_ADD"),
    *("VIRTIO_CONSOLE_PORT_READY", "VIRTIO_CONSOLE_PORT_OPEN", "VIRTIO_CONSOLE_PORT_NAME"),
]


@pytest.mark.parametrize(("name", "size"), STRUCTURES.items())
def test_a_structure_has_the_standards_size(name, size):
    assert getattr(abi, name).itemsize == size


@pytest.mark.gcc
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_layouts_are_those_of_the_kernels_headers(tmp_path, layout):
    headers = "#include <stddef.h>\n#include <linux/virtio_console.h>\n"
    if subprocess.run(["gcc", "-E", "-"], input=headers.encode(), capture_output=True).returncode:
        pytest.skip("the kernel's user-space headers are not installed")
    asserts = [
        f'_Static_assert(offsetof(struct {name}, {field}) == {offset}, "{name}.{field}");'
        for name in STRUCTURES
        for field, (offset, _) in layout(getattr(abi, name)).items()
    ]
    asserts += [f'_Static_assert(({C_NAMES.get(name, name)}) == {getattr(abi, name)}, "{name}");' for name in VALUES]
    source = tmp_path / "layouts.c"
    source.write_text(headers + "\n".join(asserts) + "\n")
    done = subprocess.run(["gcc", "-fsyntax-only", str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
