#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Boots a stock kernel, quiet, to a login prompt in bhyve and in QEMU with KVM, in one nest: how long each takes.

tests/nest/boot_time.py [RUNS] prints a line for each run: seconds from the hypervisor's start to the prompt, and the
guest kernel's own seconds until then (/proc/uptime). The rest is the hypervisor's start. The last line is the ratio of
the medians; bhyve may take five times as long as QEMU. It runs with this tree's .venv in the nest.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NESTED = ROOT / "tests/nested"
# As in test_debian_in_bhyve.py: no processor of this decade makes Linux look for AGP bridges.
CMDLINE = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off pci=noearly"
PROMPT = b"login: "
INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo "uptime $(cut -d ' ' -f 1 /proc/uptime) end"
echo -n "guest login: "
sleep 5
poweroff -f
"""


def commands(kernel: str, initrd: str) -> dict[str, list[str]]:
    """Both hypervisors' command lines, for the same guest: a processor, 512 MiB, a serial port."""
    bhyve = [str(ROOT / ".venv/bin/bhyve"), "-A", "-H", "-P", "-c", "1", "-m", "512M"]
    bhyve += ["-s", "0,hostbridge", "-s", "1,lpc", "-l", "com1,stdio"]
    bhyve += ["-o", f"kernel={kernel}", "-o", f"initrd={initrd}", "-o", f"cmdline={CMDLINE}", "timed"]
    qemu = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    qemu += ["-serial", "stdio", "-M", "q35", "-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", "512M"]
    qemu += ["-kernel", kernel, "-initrd", initrd, "-append", CMDLINE]
    return {"bhyve": bhyve, "qemu": qemu}


def boot(command: list[str]) -> tuple[float, float]:
    """Seconds until the prompt, and the guest's own."""
    start = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = b""
        while PROMPT not in seen:
            data = os.read(process.stdout.fileno(), 4096)
            if not data:
                sys.exit(f"{command[0]} ended before its guest's prompt:\n{seen.decode(errors='replace')}")
            seen += data
        seconds = time.monotonic() - start
        process.kill()
    return seconds, float(seen.partition(b"uptime ")[2].split()[0])


def measure(kernel: str, initrd: str, runs: int) -> None:
    """Boot each, in turn, ``runs`` times, and print what that took."""
    took: dict[str, list[float]] = {"bhyve": [], "qemu": []}
    for _ in range(runs):
        for name, command in commands(kernel, initrd).items():
            seconds, own = boot(command)
            took[name].append(seconds)
            print(f"{name:6} {seconds:6.1f} s to the prompt, {own:6.1f} s of the guest's kernel", flush=True)
    print(f"bhyve/qemu {statistics.median(took['bhyve']) / statistics.median(took['qemu']):.2f}")


def main() -> int:
    """Make the guest's files here, and measure in a nest."""
    if sys.argv[1:2] == ["--inside"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return 0
    runs = sys.argv[1] if len(sys.argv) > 1 else "3"
    with tempfile.TemporaryDirectory(prefix="boot-time-") as directory:
        init, initrd = Path(directory) / "init", Path(directory) / "initramfs"
        init.write_text(INIT)
        subprocess.run([NESTED, f"--initramfs={initrd}", f"--init={init}"], check=True)
        kernel = subprocess.run([NESTED, "--kernel"], check=True, capture_output=True, text=True).stdout.strip()
        python = ROOT / ".venv/bin/python"
        inside = [python, __file__, "--inside", Path(kernel).with_name("vmlinux"), initrd, runs]
        return subprocess.run([NESTED, *inside], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
