# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The few C library calls that kernels make, without the GIL.

They return what the C function returns; on -1, :func:`errno` tells why. Only functions named here are declared, so
that a kernel's outside world is one page.
"""

from __future__ import annotations

import ctypes
import os
import time

from llvmlite import ir
from numba.core import cgutils

from ptnetmap.jit.lowering import I32, I64, declare, int64, native, none

POLLIN = 0x001
POLLOUT = 0x004
CLOCK_REALTIME = 0
CLOCK_MONOTONIC = 1
CLOCK_MONOTONIC_COARSE = 6
EPOLL_CTL_ADD = 1
EPOLL_CTL_DEL = 2
EPOLL_CTL_MOD = 3
EPOLLIN = 0x001
EPOLLOUT = 0x004
EPOLLET = 1 << 31
EPOLLONESHOT = 1 << 30
MSG_DONTWAIT = 0x40
MOST_CORES = 1024
"""Cores that an affinity mask of the C library's size can name."""

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name, widths, returns=I64):
    def generate(builder, *values):
        narrowed = [v if w is I64 else builder.trunc(v, w) for v, w in zip(values, widths, strict=True)]
        out = builder.call(declare(builder, name, returns, list(widths)), narrowed)
        return out if returns is I64 else builder.sext(out, I64)

    return generate


@native(int64, _call("read", (I32, I64, I64)))
def read(fd, address, count):
    """read(2) into ``address``."""
    return _libc.read(int(fd), ctypes.c_void_p(int(address)), ctypes.c_size_t(int(count)))


@native(int64, _call("write", (I32, I64, I64)))
def write(fd, address, count):
    """write(2) from ``address``."""
    return _libc.write(int(fd), ctypes.c_void_p(int(address)), ctypes.c_size_t(int(count)))


@native(int64, _call("writev", (I32, I64, I32)))
def writev(fd, pieces, count):
    """writev(2) of ``count`` struct iovec (16 bytes each: u64 address, u64 length) at ``pieces``."""
    return _libc.writev(int(fd), ctypes.c_void_p(int(pieces)), ctypes.c_int(int(count)))


@native(int64, _call("pwrite", (I32, I64, I64, I64)))
def pwrite(fd, address, count, offset):
    """pwrite(2): a bad ``address`` gives -1 and EFAULT instead of a fault."""
    return _libc.pwrite(int(fd), ctypes.c_void_p(int(address)), ctypes.c_size_t(int(count)), ctypes.c_long(int(offset)))


@native(int64, _call("poll", (I64, I64, I32), I32))
def poll(address, count, timeout_ms):
    """poll(2) on ``count`` pollfd entries (8 bytes each) at ``address``."""
    return _libc.poll(ctypes.c_void_p(int(address)), ctypes.c_ulong(int(count)), ctypes.c_int(int(timeout_ms)))


@native(int64, _call("ppoll", (I64, I64, I64, I64), I32))
def ppoll(address, count, timeout, mask):
    """poll(2) with a timeout in nanoseconds: a struct timespec at ``timeout``; ``mask`` is 0, or a signal mask."""
    return _libc.ppoll(
        ctypes.c_void_p(int(address)),
        ctypes.c_ulong(int(count)),
        ctypes.c_void_p(int(timeout)),
        ctypes.c_void_p(int(mask)),
    )


@native(int64, _call("sendto", (I32, I64, I64, I32, I64, I32)))
def sendto(fd, address, count, flags, to, to_length):
    """sendto(2) of ``count`` bytes at ``address``; ``to`` is the address of a struct sockaddr, or 0."""
    return _libc.sendto(
        ctypes.c_int(int(fd)),
        ctypes.c_void_p(int(address)),
        ctypes.c_size_t(int(count)),
        ctypes.c_int(int(flags)),
        ctypes.c_void_p(int(to)),
        ctypes.c_uint(int(to_length)),
    )


@native(int64, _call("recvfrom", (I32, I64, I64, I32, I64, I64)))
def recvfrom(fd, address, count, flags, sender, sender_length):
    """recvfrom(2) into ``address``; ``sender`` is where the sender's address goes, or 0, like that of its length."""
    return _libc.recvfrom(
        ctypes.c_int(int(fd)),
        ctypes.c_void_p(int(address)),
        ctypes.c_size_t(int(count)),
        ctypes.c_int(int(flags)),
        ctypes.c_void_p(int(sender)),
        ctypes.c_void_p(int(sender_length)),
    )


@native(int64, _call("epoll_wait", (I32, I64, I32, I32), I32))
def epoll_wait(epoll, events, most, timeout_ms):
    """epoll_wait(2) for up to ``most`` struct epoll_event (12 bytes each: u32 events, u64 data) at ``events``."""
    return _libc.epoll_wait(
        ctypes.c_int(int(epoll)), ctypes.c_void_p(int(events)), ctypes.c_int(int(most)), ctypes.c_int(int(timeout_ms))
    )


@native(int64, _call("epoll_ctl", (I32, I32, I32, I64), I32))
def epoll_ctl(epoll, operation, fd, event):
    """epoll_ctl(2) with a struct epoll_event at ``event``."""
    return _libc.epoll_ctl(
        ctypes.c_int(int(epoll)), ctypes.c_int(int(operation)), ctypes.c_int(int(fd)), ctypes.c_void_p(int(event))
    )


@native(int64, _call("sched_yield", (), I32))
def sched_yield():
    """Let another thread have this core."""
    return _libc.sched_yield()


@native(int64, _call("sched_getcpu", (), I32))
def sched_getcpu():
    """Return the number of the core that runs this thread, for now."""
    return _libc.sched_getcpu()


def _leave_core(builder, core):
    """sched_getaffinity, sched_setaffinity without ``core``, and sched_setaffinity as before."""
    words = MOST_CORES // 64
    size = I64(8 * words)
    mask = ir.ArrayType(I64, words)
    before, without = cgutils.alloca_once(builder, mask), cgutils.alloca_once(builder, mask)
    known = builder.call(
        declare(builder, "sched_getaffinity", I32, [I32, I64, I64]), [I32(0), size, builder.ptrtoint(before, I64)]
    )
    builder.store(builder.load(before), without)
    word = builder.gep(without, [I32(0), builder.trunc(builder.lshr(core, I64(6)), I32)])
    bit = builder.shl(I64(1), builder.and_(core, I64(63)))
    builder.store(builder.and_(builder.load(word), builder.not_(bit)), word)
    set_affinity = declare(builder, "sched_setaffinity", I32, [I32, I64, I64])
    with builder.if_then(builder.icmp_signed("==", known, I32(0))):
        builder.call(set_affinity, [I32(0), size, builder.ptrtoint(without, I64)])
        builder.call(set_affinity, [I32(0), size, builder.ptrtoint(before, I64)])


@native(none, _leave_core)
def leave_core(core):
    """Go on on another core than number ``core`` (below MOST_CORES), if this thread may run on any other.

    Where it may run stays as it was: this moves the thread, and whether it comes back is up to the scheduler.
    """
    before = os.sched_getaffinity(0)
    if before - {int(core)}:
        os.sched_setaffinity(0, before - {int(core)})
        os.sched_setaffinity(0, before)


@native(int64, _call("clock_gettime", (I32, I64), I32))
def clock_gettime(clock, address):
    """clock_gettime(2): seconds and nanoseconds as two 64-bit words at ``address``."""
    return _libc.clock_gettime(ctypes.c_int(int(clock)), ctypes.c_void_p(int(address)))


def _clock_ns(builder, clock):
    now = cgutils.alloca_once(builder, ir.ArrayType(I64, 2))  # in the entry block: in a loop it would eat the stack
    address = builder.ptrtoint(now, I64)
    builder.call(declare(builder, "clock_gettime", I32, [I32, I64]), [builder.trunc(clock, I32), address])
    seconds = builder.load(builder.gep(now, [I32(0), I32(0)]))
    nanoseconds = builder.load(builder.gep(now, [I32(0), I32(1)]))
    return builder.add(builder.mul(seconds, I64(1_000_000_000)), nanoseconds)


@native(int64, _clock_ns)
def clock_ns(clock):
    """Nanoseconds of one of the ``CLOCK_*`` clocks; the coarse one costs a few nanoseconds and ticks every 1-4 ms."""
    now = (ctypes.c_int64 * 2)()
    _libc.clock_gettime(ctypes.c_int(int(clock)), now)
    return now[0] * 1_000_000_000 + now[1]


def _sleep_ns(builder, nanoseconds):
    span = cgutils.alloca_once(builder, ir.ArrayType(I64, 2))
    address = builder.ptrtoint(span, I64)
    for i, divided in enumerate((builder.sdiv, builder.srem)):
        builder.store(divided(nanoseconds, I64(1_000_000_000)), builder.gep(span, [I32(0), I32(i)]))
    builder.call(declare(builder, "nanosleep", I32, [I64, I64]), [address, I64(0)])


@native(none, _sleep_ns)
def sleep_ns(nanoseconds):
    """nanosleep(2): for so long, and as much longer as the thread's timer slack and a signal have it."""
    time.sleep(int(nanoseconds) / 1e9)


def _errno(builder):
    place = builder.call(declare(builder, "__errno_location", I32.as_pointer(), []), [])
    return builder.zext(builder.load(place), I64)


@native(int64, _errno)
def errno():
    """Return the calling thread's errno, valid right after a call of this module returned -1."""
    return ctypes.get_errno()
