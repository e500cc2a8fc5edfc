# SPDX-License-Identifier: BSD-2-Clause
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import leave_namespace

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/nested"
SECONDS = 600

Completed = subprocess.CompletedProcess[str]
Nest = Callable[..., Completed]


def run_nest(*arguments: str | Path, check: bool = False) -> Completed:
    command = [str(argument) for argument in (PROGRAM, *arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 60, check=check, preexec_fn=leave_namespace
    )


@pytest.fixture(scope="session")
def nest() -> Nest:
    """Run a command in the nest: its words; options of tests/nested may precede them."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("no qemu-system-x86_64: tests/nested --kernel installs what the nest needs")
    return lambda *arguments: run_nest(f"--seconds={SECONDS}", *arguments)


@pytest.fixture(scope="session")
def kernel(nest: Nest) -> Path:
    """Debian's kernel, a bzImage; the vmlinux that is in it is beside it."""
    return Path(run_nest("--kernel", check=True).stdout.strip())


@pytest.fixture(scope="session")
def initramfs(kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Initial file system of a guest, with drivers of its devices, that says what it finds and gives a prompt."""
    path = tmp_path_factory.mktemp("guest") / "initramfs"
    modules = [f"--module={name}" for name in ("virtio_pci", "virtio_blk", "virtio_rng", "virtio_console")]
    run_nest(f"--initramfs={path}", f"--init={Path(__file__).with_name('guest_init.sh')}", *modules, check=True)
    return path
