# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""txsync and rxsync: what NIOCTXSYNC and NIOCRXSYNC do, for every kind of ring, and waiting for a ring to move."""

from __future__ import annotations

import errno as _errno

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load32_acquire
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import epoll_wait, read
from ptnetmap.jit.memory import load32, load64
from ptnetmap.jit.wait import SPINS, arm
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.counters import SYNCS
from ptnetmap.netmap.csb import csb_prologue, csb_rxsync, csb_txsync
from ptnetmap.netmap.kring import (
    DIRECTION,
    EVENTFD,
    HEAD_AT,
    HWCUR,
    HWTAIL,
    IRQFD,
    KIND,
    KIND_CSB,
    KIND_MONITOR,
    KIND_NIC,
    KIND_PIPE,
    KIND_VALE,
    MOST,
    NEED_KICK_AT,
    NUM_SLOTS,
    PEER_TAIL_AT,
    RCUR,
    RTAIL,
    WATCHED,
    begin,
    count,
    distance,
    leave,
    publish,
    rx_prologue,
    stamp,
    tx_prologue,
    wake,
)
from ptnetmap.netmap.monitor import monitor_rxsync
from ptnetmap.netmap.nic.ring import has_come
from ptnetmap.netmap.nic.sync import nic_rxsync, nic_txsync
from ptnetmap.netmap.pipe import pipe_rxsync, pipe_txsync
from ptnetmap.netmap.vale import forward_pending, vale_rxsync, vale_txsync

_TX = abi.TX
_EIO = _errno.EIO
_PENDING_COUNT = OFFSET["pending_count"]
_DISCARD = OFFSET["discard"]

OK = 0
REINIT = 1
"""The ring was found overwritten, and put in order; nothing was moved."""


@kernel
def blocked(k):
    """Whether the user has nothing left: no space to send, or nothing to read."""
    return load32(k + RCUR) == load32(k + RTAIL)


@kernel
def stirred(k, attempt):
    """Whether syncing a blocked ring again, the ``attempt``-th time, may help: one load, where a sync costs a hundred.

    What a VALE TX ring waits for is in some other ring, and what a network interface's waits for may be its driver, so
    that they are tried every now and then, and after every yield.
    """
    kind = load32(k + KIND)
    if kind in (KIND_VALE, KIND_NIC) and load32(k + DIRECTION) == _TX and (attempt & 15 == 15 or attempt > SPINS):
        return True
    if kind == KIND_NIC:
        return has_come(k)
    if kind == KIND_VALE and load32(k + DIRECTION) == _TX:
        return False
    return load32_acquire(load64(k + PEER_TAIL_AT)) != load32(k + HWTAIL)


@piece
def quiet(k, scratch):
    """Take back earlier wake-ups of a ring, so that its eventfd tells of new ones only, and ask for the next one."""
    fd = load32(k + EVENTFD)
    if fd != 0xFFFFFFFF:
        read(fd, scratch, 8)
    fd = load32(k + IRQFD)
    if fd != 0xFFFFFFFF:
        epoll_wait(fd, scratch, 1, 0)
    arm(load64(k + NEED_KICK_AT))


@piece
def tx_step(k, head, batch):
    """Serve a TX ring up to ``head``, by its kind."""
    kind = load32(k + KIND)
    if kind == KIND_PIPE:
        pipe_txsync(k, head, batch)
    elif kind == KIND_VALE:
        vale_txsync(k, head, batch)
    elif kind == KIND_CSB:
        csb_txsync(k, head)
    elif kind == KIND_NIC:
        nic_txsync(k, head, batch)


@piece
def rx_step(k, head, batch):
    """Serve an RX ring up to ``head``, by its kind."""
    kind = load32(k + KIND)
    if kind == KIND_PIPE:
        pipe_rxsync(k, head)
    elif kind == KIND_VALE:
        vale_rxsync(k, head, batch)
    elif kind == KIND_MONITOR:
        monitor_rxsync(k, head)
    elif kind == KIND_CSB:
        csb_rxsync(k, head)
    elif kind == KIND_NIC:
        nic_rxsync(k, head, batch)


@kernel
def txsync(k, batch):
    """Sync a TX ring: take what its user has released, give back what is done.

    Returns OK (also when another thread is at it), REINIT, or -EIO for a stopped ring or one that cannot send.
    """
    began = begin(k)
    if began <= 0:
        return OK if began == 0 else -_EIO
    count(k, SYNCS, 1)
    if load32(k + KIND) == KIND_CSB:
        csb_prologue(k)
    head = tx_prologue(k)
    if head < 0:
        leave(k)
        return REINIT
    n = load32(k + NUM_SLOTS)
    hwcur = load32(k + HWCUR)
    if distance(hwcur, head, n) > load32(k + MOST):
        head = hwcur + load32(k + MOST)
        head = head if head < n else head - n
    tx_step(k, head, batch)
    publish(k)
    if load32(k + WATCHED) != 0:
        if blocked(k):
            quiet(k, batch + _DISCARD)
            tx_step(k, head, batch)
            publish(k)
        if not blocked(k):
            wake(k)  # whoever made it quiet, it is readable while there is space
    if load32(batch + _PENDING_COUNT) != 0:
        forward_pending(batch)
    leave(k)
    return -_EIO if load32(k + KIND) == KIND_MONITOR else OK


@kernel
def rxsync(k, batch, stamped):
    """Sync an RX ring: give back what its user has released, show what has come. Stamps the time when asked.

    Returns OK (also when another thread is at it), REINIT, or -EIO for a stopped ring.
    """
    began = begin(k)
    if began <= 0:
        return OK if began == 0 else -_EIO
    count(k, SYNCS, 1)
    if load32(k + KIND) == KIND_CSB:
        csb_prologue(k)
    head = rx_prologue(k)
    if head < 0:
        leave(k)
        return REINIT
    rx_step(k, head, batch)
    publish(k)
    stamp(k, stamped)
    if load32(k + WATCHED) != 0:
        if blocked(k):
            quiet(k, batch + _DISCARD)
            rx_step(k, head, batch)
            publish(k)
        if not blocked(k):
            wake(k)  # whoever made it quiet, it is readable while there are packets
    if load32(batch + _PENDING_COUNT) != 0:
        forward_pending(batch)
    leave(k)
    return OK


@kernel
def unsent(k):
    """Whether a TX ring holds slots that its user has released and no sync has taken."""
    return load32_acquire(load64(k + HEAD_AT)) != load32(k + HWCUR)
