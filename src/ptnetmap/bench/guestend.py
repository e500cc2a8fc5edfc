# SPDX-License-Identifier: BSD-2-Clause
"""A guest as one end of a run: bhyve with the built-in guest, whose pkt-gen works on a port that is passed through."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from ptnetmap.errors import PtnetmapError

PTNET = "ptnet"
VIRTIO_NET = "virtio-net"

_PR_SET_PDEATHSIG = 1
_BOOT_SECONDS = 60.0
_END_SECONDS = 10.0
PKT_GEN = "pkt-gen"
"""The guest's program of that name."""
_LAST_WORDS = 2000

Figures = dict[str, int]
"""What the guest counted: packets, bytes, nanoseconds, kicks, interrupts, ..."""


class GuestEnd:
    """A machine with a memdev and one passed-through port, ``backend`` (``ptvale0:1``) behind the device ``front``.

    Without ``front`` it has neither. ``settings`` are those of the guest's ``program``: ``function="tx"``, ``ms=1000``,
    ... Once this returns, the program is ready, and a receiver listens. ``address`` is netmapd's socket, ``core`` what
    the processor keeps to. Raises PtnetmapError if the machine does not get so far. It ends with :meth:`close`, the end
    of ``with``, or this process.
    """

    def __init__(
        self,
        address: str,
        backend: str,
        front: str = PTNET,
        *,
        program: str = PKT_GEN,
        memdev: bool = True,
        core: int | None = None,
        memory: str = "64M",
        **settings: str | int,
    ) -> None:
        self._console = b""
        self._program = program
        self._names = tempfile.TemporaryDirectory(prefix="ptnetmap-guest-")
        words = " ".join(f"{name}={value}" for name, value in {"program": program, **settings}.items())
        command = [
            *("-s", "0,hostbridge", "-s", "1,lpc", "-l", "com1,stdio"),
            *(("-s", f"3,{front},{backend}") if front else ()),
            *(("-s", "2,ptnetmap-memdev") if front and memdev else ()),
            *(() if core is None else ("-p", f"0:{core}")),
            *("-A", "-H", "-P", "-m", memory, "-o", f"cmdline={words}", f"bench-{os.getpid()}"),
        ]
        code = f"from ptnetmap.bench.guestend import serve; serve({os.getpid()}, {command!r})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "NETMAP_SOCKET": address,
                "XDG_RUNTIME_DIR": self._names.name,  # where machines of this name are known
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._line(f"{program}: ready", _BOOT_SECONDS)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> GuestEnd:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Bhyve's process id."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether the machine is off."""
        return self._process.poll() is not None

    def wait(self, timeout: float) -> tuple[int, str]:
        """Wait until the machine is off; return bhyve's exit code, and all that was said since the program was ready."""
        said, _ = self._process.communicate(timeout=timeout)
        return self._process.returncode, said.decode(errors="replace")

    def kill(self) -> None:
        """End bhyve as a crash would."""
        self._process.kill()
        self._process.wait()

    def end(self, timeout: float) -> Figures:
        """Wait until the guest's program is through, and return its figures."""
        words = self._line(f"{self._program}: done", timeout).split()
        pairs = (word.partition("=") for word in words)
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    def _line(self, beginning: str, timeout: float) -> str:
        """Return the console's line that begins so, once it is there as a whole."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self._console.decode(errors="replace").splitlines(keepends=True):
                if line.startswith(beginning) and line.endswith("\n"):
                    return line.strip()
            self._read(deadline, beginning)

    def _read(self, deadline: float, awaited: str) -> None:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        more = os.read(self._process.stdout.fileno(), 1 << 16) if readable else b""
        self._console += more
        if not more:
            how = "is silent" if not readable else f"ended with {self._process.wait()}"
            said = self._console.decode(errors="replace")[-_LAST_WORDS:].rstrip()
            raise PtnetmapError(
                errno.ETIMEDOUT if not readable else errno.ECHILD,
                f"the guest of the benchmark {how} before it said {awaited!r}\n"
                f"        what it and bhyve have said so far:\n{said or '(nothing)'}",
            )

    def close(self) -> None:
        """End the machine if it is still there. Harmless when repeated."""
        if self._process.poll() is None:
            self._process.terminate()  # the power button; the guest does not listen to it, so bhyve ends the machine
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._names.cleanup()


def serve(parent: int, arguments: list[str]) -> None:
    """Be bhyve, for as long as the process that started this one is there."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the kernel was told
        return
    from ptnetmap.cli.bhyve import main

    sys.exit(main(arguments))


def unavailable() -> str | None:
    """Return why no guest can run here, None if one can."""
    path = Path("/dev/kvm")
    if not path.exists():
        return "there is no /dev/kvm here"
    if not os.access(path, os.R_OK | os.W_OK):
        return "/dev/kvm may not be used: join its group, or be root"
    return None
