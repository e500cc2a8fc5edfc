# SPDX-License-Identifier: BSD-2-Clause
import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings
from numba import config, types

# No test asserts a time, and no property does either: machines that run tests are busy.
settings.register_profile("ptnetmap", deadline=None)
settings.load_profile("ptnetmap")

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_libc = ctypes.CDLL(None, use_errno=True)
_outside = -1


@pytest.fixture(scope="session", autouse=True)
def own_interfaces() -> Iterator[None]:
    """Let root's tests see no interface but lo, and those that they make: none can disturb one of this machine's."""
    global _outside
    if os.geteuid():
        yield
        return
    _outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _libc.unshare(_CLONE_NEWNET):
        pytest.exit(f"no network namespace for the tests: {os.strerror(ctypes.get_errno())}", 3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name, flags = struct.unpack("16sH22x", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16s24x", b"lo")))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | _IFF_UP))
    yield
    assert _libc.setns(_outside, _CLONE_NEWNET) == 0
    os.close(_outside)
    _outside = -1


@pytest.fixture(autouse=True)
def kernels_as_warmed_up() -> Iterator[None]:
    """Fail a test that calls a kernel with what it was not compiled for: users would wait while it is, once more."""
    yield
    jit = sys.modules.get("ptnetmap.jit.kernel")
    if jit is None or config.DISABLE_JIT:
        return
    for kernel in jit.kernels:
        if kernel.py_func.__module__.startswith("ptnetmap."):
            others = [kept for kept in kernel.overloads if any(one != types.int64 for one in kept)]
            for one in others:
                del kernel.overloads[one]
            assert not others, f"{kernel.py_func.__qualname__} was called with {others}: pass it integers"


def leave_namespace() -> None:
    """Be where the machine's interfaces are: for a process that installs what a test needs."""
    if _outside >= 0:
        _libc.setns(_outside, _CLONE_NEWNET)
