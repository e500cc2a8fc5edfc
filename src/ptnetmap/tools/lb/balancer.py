# SPDX-License-Identifier: BSD-2-Clause
"""A load balancer: its port, its pipes and extra buffers, from opening them to giving everything back."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.jit.warmup import warm_up
from ptnetmap.netmap.bridge.session import raise_failure, same_memory
from ptnetmap.netmap.bridge.waiter import Waiter
from ptnetmap.netmap.port import Port
from ptnetmap.netmap.scratch import scratch
from ptnetmap.tools.lb import distribute, task
from ptnetmap.tools.lb.groups import MOST_PIPES, Ends, Group, name_pipes

BATCH = 2048
_STAY = 50_000_000
_LOOK_UP = 1_000_000_000

Opener = Callable[..., Port]


@dataclass(frozen=True)
class PipeFigures:
    """What became of the packets of one pipe.

    ``group`` and ``number`` count from 0, the number through all groups. ``packets`` have been handed to the pipe,
    ``dropped`` were lost for lack of room, and ``backlog`` are fragments that wait in extra buffers now.
    """

    name: str
    group: int
    number: int
    packets: int
    bytes: int
    dropped: int
    dropped_bytes: int
    backlog: int


@dataclass(frozen=True)
class Figures:
    """What became of all packets.

    ``received`` ones were read, ``non_ip`` among them; each is counted once more by a pipe of the first group.
    ``bad`` packets were dropped because their slots could not be used, ``empty`` ones had no data. ``free_buffers`` of
    ``extra_buffers`` are in no backlog.
    """

    received: int
    received_bytes: int
    non_ip: int
    bad: int
    empty: int
    extra_buffers: int
    free_buffers: int
    pipes: tuple[PipeFigures, ...]

    @property
    def packets(self) -> int:
        """Packets handed to pipes, of all groups."""
        return sum(pipe.packets for pipe in self.pipes)

    @property
    def bytes(self) -> int:
        """Bytes of these."""
        return sum(pipe.bytes for pipe in self.pipes)

    @property
    def dropped(self) -> int:
        """Packets lost on the way to pipes, of all groups."""
        return sum(pipe.dropped for pipe in self.pipes)

    @property
    def dropped_bytes(self) -> int:
        """Bytes of these."""
        return sum(pipe.dropped_bytes for pipe in self.pipes)


class Balancer:
    """Spreads the packets of the port ``name`` over pipes. A context manager; ``opener`` opens ports.

    Each of ``groups`` gets all packets: the first one when they come; the next one when a program has read them from a
    pipe of the group before, and given their slots back unchanged. What a group loses, those behind it do not get. All
    packets of a connection go to the same pipe of a group, in order.

    ``extra_bufs`` asks for buffers that hold what does not fit into a pipe; when they are used up, the oldest packets of
    the longest backlog are lost. ``batch`` bounds the packets that are read in one go. ``log`` is told what is being
    done.

    Raises PortError, NameSyntaxError or MemoryPoolError if a port or pipe cannot be opened.
    """

    def __init__(
        self,
        name: str,
        groups: Sequence[Group] = (Group(),),
        *,
        opener: Opener,
        extra_bufs: int = 0,
        batch: int = BATCH,
        log: Callable[[str], object] = lambda _: None,
    ) -> None:
        warm_up("lb", (distribute.balance,))
        count = sum(group.pipes for group in groups)
        if not 1 <= count <= MOST_PIPES:
            raise PortError(
                errno.EINVAL, f"netmap: cannot spread packets over {count} pipes\n        use 1 to {MOST_PIPES}"
            )
        self.name = name
        self._log = log
        self._stack = ExitStack()
        try:
            self.port = self._stack.enter_context(opener(name, extra_bufs=extra_bufs))
            log(f"successfully opened {name} (rx rings: {len(self.port.rx_rings)})")
            if not self.port.rx_rings:
                raise PortError(
                    errno.EINVAL,
                    f"netmap: {name} has no RX ring bound: nothing can be received\n        open it without /T",
                )
            plan = name_pipes(name, groups, self.port.mem_id)
            self._ends = [(group, ends) for group, row in enumerate(plan) for ends in row]
            self.pipes = [self._open_pipe(opener, ends, i) for i, (_, ends) in enumerate(self._ends)]
            self._set_up(plan, batch)
        except BaseException:
            self._stack.close()
            raise

    def _open_pipe(self, opener: Opener, ends: Ends, number: int) -> Port:
        self._log(f"opening pipe named {ends.mine}")
        slots = self.port.rx_rings[0].num_slots  # as upstream where the pipe hangs on the port; elsewhere it is as good
        pipe = self._stack.enter_context(opener(ends.mine, tx_slots=slots, rx_slots=slots))
        self._log(f"successfully opened pipe #{number + 1} {ends.mine} (tx slots: {pipe.tx_rings[0].num_slots})")
        if not same_memory(self.port, pipe):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot use {ends.mine} as a pipe of {self.name}: it has memory of its own\n"
                "        give the pipes a name that no port has: -p NAME:N",
            )
        self._log("zerocopy enabled")
        return pipe

    def _set_up(self, plan: list[list[Ends]], batch: int) -> None:
        """Write down for the kernels what there is, and take the extra buffers into our own hands."""
        self._sources = Block(task.source, len(self.port.rx_krings))
        self._sources.items["kring"] = self.port.rx_krings
        self._pipes = Block(task.pipe, len(self.pipes))
        self._groups = Block(task.group, len(plan))
        self._marks: list[Block] = []
        first = 0
        for number, row in enumerate(plan):
            self._groups.items[number] = (self._pipes.address + first * task.PIPE_SIZE, len(row))
            for i in range(first, first + len(row)):
                self._enter_pipe(i, marked=number + 1 < len(plan))
            first += len(row)
        num_bufs = self.port.rings[0].block["num_bufs"]
        self._parked = Block(task.parked, num_bufs)
        self._waiter = Waiter([self.port, *self.pipes])
        self._stack.callback(self._waiter.close)
        self._task = Block(task.task)
        for field, value in {
            "sources": self._sources.address,
            "source_count": len(self.port.rx_krings),
            "groups": self._groups.address,
            "group_count": len(plan),
            "pipes": self._pipes.address,
            "pipe_count": len(self.pipes),
            "batch": batch,
            "waiter": self._waiter.address,
            "parked": self._parked.address,
            "num_bufs": num_bufs,
        }.items():
            self._task[field] = value
        self._take_extra_buffers()

    def _enter_pipe(self, i: int, *, marked: bool) -> None:
        entry: Any = self._pipes.items[i]
        ring = self.pipes[i].tx_rings[0]
        entry["tx"] = self.pipes[i].tx_krings[0]
        # A pipe whose reader is still there may hold packets of a sender that was here before.
        entry["head"], entry["tail"] = ring.head, ring.tail
        entry["limit"] = entry["reaped"] = entry["tail"]
        if marked:
            self._marks.append(Block(np.int64, ring.num_slots))
            entry["marks"] = self._marks[-1].address

    def _take_extra_buffers(self) -> None:
        listed = self.port.claims() if self.port.extra_bufs else np.zeros(0, np.int64)
        self._parked.items["next"][listed[:-1]] = listed[1:]
        self._task["free_first"] = int(listed[0]) if len(listed) else 0
        self._task["free"] = self._task["extra"] = len(listed)
        if len(listed):
            self.port.interface["ni_bufs_head"] = 0  # they are ours: whoever lists them must be right

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- working ------------------------------------------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` has been called."""
        return self._waiter.stopped

    def stop(self) -> None:
        """End :meth:`run` soon; may be called from a signal handler."""
        self._task["stop"] = 1
        self._waiter.stop()

    def pause(self, seconds: float) -> None:
        """Let time pass, unless stopped."""
        self._waiter.pause(seconds)

    def turn(self) -> None:
        """Move all that can be moved now, without waiting. Raises as :meth:`run`."""
        while self._work(linger=False) == distribute.BUSY:
            pass

    def run(self, until: float | None = None, *, busy: bool = False) -> None:
        """Move packets until stopped, or until ``until`` (time.monotonic()). With ``busy``, never sleeps.

        Raises PortError when a port is closed or lost, PeerError when one has been overwritten.
        """
        deadline = None if until is None else int(until * 1e9)
        while not self.stopped:
            now = time.monotonic_ns()
            if deadline is not None and now >= deadline:
                return
            with ExitStack() as inside:
                for port in (self.port, *self.pipes):
                    inside.enter_context(port.in_use)
                if self._work(linger=True, deadline=deadline) == distribute.IDLE and not busy:
                    self._waiter.wait(now + _LOOK_UP if deadline is None else deadline)

    def _work(self, *, linger: bool, deadline: int | None = None) -> int:
        """Run the loop for a while; return why it ended."""
        until = time.monotonic_ns() + _STAY
        with ExitStack() as inside:
            for port in (self.port, *self.pipes):
                inside.enter_context(port.in_use)
            why = int(
                distribute.balance(
                    self._task.address, scratch(), until if deadline is None else min(until, deadline), int(linger)
                )
            )
        if why == distribute.FAILED:
            failed = self._task["failed"]
            if failed < task.PIPE:
                raise_failure([self.port], f"{self.name} RX ring {self.port.rx_rings[failed].ringid}")
            pipe = self.pipes[failed - task.PIPE]
            raise_failure([self.port, pipe], f"{pipe.name} TX ring 0")
        return why

    @property
    def figures(self) -> Figures:
        """The figures so far."""
        return Figures(
            received=self._task["received"],
            received_bytes=self._task["received_bytes"],
            non_ip=self._task["non_ip"],
            bad=self._task["bad"],
            empty=self._task["empty"],
            extra_buffers=self._task["extra"],
            free_buffers=self._task["free"],
            pipes=tuple(
                PipeFigures(
                    name=ends.theirs,
                    group=group,
                    number=number,
                    packets=int(entry["packets"]),
                    bytes=int(entry["bytes"]),
                    dropped=int(entry["dropped"]),
                    dropped_bytes=int(entry["dropped_bytes"]),
                    backlog=int(entry["queued"]),
                )
                for number, ((group, ends), entry) in enumerate(zip(self._ends, self._pipes.items, strict=True))
            ),
        )

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the extra buffers back, and close the pipes and the port. Closing again does nothing.

        What is in pipes stays there for who reads it; what is in backlogs is lost, and counted.
        """
        if self.port.closed:
            self._stack.close()
            return
        self._lose_backlogs()
        self._return_extra_buffers()
        self._stack.close()

    def _lose_backlogs(self) -> None:
        parked = self._parked.items
        for entry in self._pipes.items:
            index = int(entry["queue_first"])
            for _ in range(int(entry["queued"])):
                entry["dropped"] += not parked["flags"][index]
                entry["dropped_bytes"] += int(parked["len"][index])
                following = int(parked["next"][index])
                parked["next"][index] = self._task["free_first"]
                self._task["free_first"] = index
                self._task["free"] += 1
                index = following
            entry["queued"] = 0

    def _return_extra_buffers(self) -> None:
        """Link the buffers as they were when we got them: each one's first word is the next one's number."""
        if not self.port.extra_bufs:
            return
        index = self._task["free_first"]
        self.port.interface["ni_bufs_head"] = index
        ring = self.port.rx_rings[0]
        left = self._task["free"]
        while left > 0:
            left -= 1
            following = int(self._parked.items["next"][index]) if left else 0
            ring.buffer_at(index)[:4].view(np.uint32)[0] = following
            index = following
        self._task["free"] = 0
