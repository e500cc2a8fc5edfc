# SPDX-License-Identifier: BSD-2-Clause
"""A disk image with the root file system of a small guest: Debian's busybox as its init and everything else."""

import shutil
import subprocess
import tempfile
from pathlib import Path

INITTAB = """\
::sysinit:/etc/rc
::shutdown:/bin/umount -a -r
"""
DIRECTORIES = ("bin", "sbin", "dev", "etc", "lib", "proc", "sys", "tmp")


def make(image: Path, megabytes: int, rc: Path, modules: list[Path]) -> None:
    """Write an ext4 file system of so many MiB, whose init runs ``rc``, with ``modules`` in /lib."""
    busybox = str(shutil.which("busybox"))
    with tempfile.TemporaryDirectory(prefix="root-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        for name in DIRECTORIES:
            (root / name).mkdir()
        shutil.copy(busybox, root / "bin/busybox")
        for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        (root / "sbin/init").symlink_to("/bin/busybox")
        (root / "etc/inittab").write_text(INITTAB)
        shutil.copy(rc, root / "etc/rc")
        (root / "etc/rc").chmod(0o755)
        for module in modules:
            shutil.copy(module, root / "lib")
        command = ["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", root, image, f"{megabytes}M"]
        subprocess.run(command, check=True)
