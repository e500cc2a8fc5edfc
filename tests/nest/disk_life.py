# SPDX-License-Identifier: BSD-2-Clause
"""In a nest: the life of a machine of ``ptnetmap vm`` whose root file system is on its disk, told as JSON.

disk_life.py IMAGE KERNEL INITRAMFS CMDLINE CPUS: boots four times. It lives through a reboot, and is shut down by its power
button; it writes, and its bhyve is killed; it finds what it had written, ignores the button, and is ended by force. Of
each, ``said`` is what the guest said and ``commands`` what was run here, with exit code and output.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ptnetmap.bhyve.control import client
from ptnetmap.vm import store
from ptnetmap.vm.run import console_path

NAME = "debian"
PATIENCE = 150.0
"""Seconds for a guest to boot and say something."""
PROGRAMS = Path(sys.executable).parent
FILES = 3
"""Files that are on the disk when bhyve is killed, at least."""


class Console:
    """What the guest says on com1, from its first boot to its last."""

    def __init__(self) -> None:
        self.text = ""
        self._socket: socket.socket | None = None

    def wait_for(self, pattern: str) -> None:
        """Return when it has said this, since the last :meth:`take`; raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text, re.MULTILINE):
            if time.monotonic() > deadline or "failed" in self.text or "Kernel panic" in self.text:
                raise TimeoutError(f"no {pattern} in {PATIENCE:g} s, or something else")
            self._read()

    def take(self, *, whole: bool = False) -> str:
        """Return what it has said since; ``whole`` is for a guest that has ended, all that is left to read."""
        deadline = time.monotonic() + PATIENCE
        while whole and self._socket is not None:
            if time.monotonic() > deadline:
                raise TimeoutError("the guest has not ended")
            self._read()
        text, self.text = self.text, ""
        return text

    def _read(self) -> None:
        """Read once, for a second at the most; bhyve's socket comes and goes with a reboot."""
        if self._socket is None:
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(1)
            try:
                one.connect(str(console_path(NAME)))
            except OSError:
                one.close()
                time.sleep(0.1)
                return
            self._socket = one
        try:
            data = self._socket.recv(4096)
        except TimeoutError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._socket.close()
            self._socket = None
        self.text += data.decode(errors="replace").replace("\r", "")


def run(*words: object) -> dict[str, Any]:
    """Run a command, one of ours or not, to its end."""
    command = [str(word) for word in words]
    if (PROGRAMS / command[0]).exists():
        command[0] = str(PROGRAMS / command[0])
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    return {"code": done.returncode, "output": done.stdout + done.stderr}


def machine() -> dict[str, Any]:
    """What ``ptnetmap vm list`` says of the machine; a program would take seconds to start here."""
    return {"state": "running" if store.is_running(NAME) else "stopped", "ended": store.ended(NAME)}


def give(task: str) -> None:
    """Change what the guest is to do from its next boot on."""
    file = store.place(NAME) / store.CONFIG
    file.write_text(re.sub(r"task=\w+", f"task={task}", file.read_text()))


def ended() -> dict[str, Any]:
    """Wait until the machine has ended, and return it."""
    deadline = time.monotonic() + PATIENCE
    while (found := machine())["state"] == "running":
        if time.monotonic() > deadline:
            raise TimeoutError("it still runs")
        time.sleep(0.1)
    return found


def digest_in(image: str, path: str) -> str:
    """SHA-256 of a file in a file system that is not mounted."""
    done = subprocess.run(["debugfs", "-R", f"cat {path}", image], capture_output=True, check=False, timeout=PATIENCE)
    return hashlib.sha256(done.stdout).hexdigest()


def live(console: Console, image: str) -> dict[str, Any]:
    """A reboot, and the power button."""
    started = run("ptnetmap", "vm", "start", NAME)
    console.wait_for("^written: .*\n")
    console.wait_for("^listening: yes$")
    pressed = run("bhyvectl", f"--vm={NAME}", "--power-button")
    said = console.take(whole=True)
    end = ended()
    return {
        "said": said,
        "commands": {"start": started, "press": pressed, "e2fsck": run("e2fsck", "-n", image)},
        "ended": end,
        "log": (store.place(NAME) / store.LOG).read_text(),
        "whole": run("e2fsck", "-fn", image)["code"],
    }


def write(console: Console, image: str) -> dict[str, Any]:
    """kill -9 of bhyve, while the guest writes."""
    give("write")
    run("ptnetmap", "vm", "start", NAME)
    console.wait_for(f"^synced: {FILES} .*\n")
    pressed = run("bhyvectl", f"--vm={NAME}", "--power-button")
    stopped = run("ptnetmap", "vm", "stop", NAME)
    os.kill((client.describe(NAME) or {})["pid"], signal.SIGKILL)
    end = ended()
    copy = f"{image}.copy"
    shutil.copyfile(image, copy)
    said = console.take(whole=True)
    return {
        "said": said,
        "commands": {
            "press": pressed,
            "stop": stopped,
            "journal": run("dumpe2fs", "-h", copy),
            "repair": run("e2fsck", "-fy", copy),
            "e2fsck": run("e2fsck", "-fn", copy),
        },
        "ended": end,
        "files": [digest_in(copy, f"/files/{number}") for number in range(1, FILES + 1)],
    }


def verify(console: Console, image: str) -> dict[str, Any]:
    """The same disk again, and a guest that does nothing when it is asked to shut down."""
    give("verify")
    run("ptnetmap", "vm", "start", NAME)
    console.wait_for("^listening: no$")
    asked = run("ptnetmap", "vm", "stop", NAME, "--timeout", "1")
    alive = machine()
    forced = run("ptnetmap", "vm", "stop", NAME, "--force")
    end = ended()
    return {
        "said": console.take(whole=True),
        "commands": {"stop": asked, "force": forced},
        "alive": alive,
        "ended": end,
    }


def main() -> int:
    image, kernel, initramfs, cmdline, cpus = sys.argv[1:]
    # Everything that lasts is in memory, and the image is a copy: the one outside is as it was for the next run.
    os.environ["XDG_STATE_HOME"] = os.environ["XDG_RUNTIME_DIR"] = "/run/life"
    Path("/run/life").mkdir(mode=0o700)
    copy = "/run/life/image"
    shutil.copyfile(image, copy)
    of_guest = ["--kernel", kernel, "--initrd", initramfs, "--cmdline", f"{cmdline} task=live"]
    made = run("ptnetmap", "vm", "create", NAME, "--image", copy, *of_guest, "--cpus", cpus, "--memory", "256M")
    told: dict[str, Any] = {"create": made}
    console = Console()
    try:
        for part in (live, write, verify):
            before = time.monotonic()
            told[part.__name__] = part(console, copy)
            told[part.__name__]["seconds"] = time.monotonic() - before
    except (TimeoutError, subprocess.TimeoutExpired) as late:
        told["late"] = {"what": str(late), "said": console.take()}
    finally:
        run("ptnetmap", "vm", "stop", NAME, "--force")
        print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
