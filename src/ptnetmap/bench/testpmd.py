# SPDX-License-Identifier: BSD-2-Clause
"""DPDK's testpmd in two processes joined by memif or vhost-user: the peer of ports that two processes share.

Each process has one worker that polls on a core of its own, and is told what to do at its prompt; a stopped one uses no
CPU, so one :class:`Pair` serves many samples. Figures are testpmd's own: packets that the receiving driver counted, and
the rate that it divided by its own clock.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ptnetmap.bench.frame import Result
from ptnetmap.bench.pair import Cores, two_cores
from ptnetmap.bench.prompt import Prompt
from ptnetmap.errors import PtnetmapError

PROGRAM = "dpdk-testpmd"
DEBIAN = "dpdk-dev librte-net-memif23 librte-net-vhost23 librte-net-virtio23"
"""Debian 12's packages: the program, which does not depend on the drivers, and the drivers."""

ONE_WAY, CIRCULATING = "one_way", "circulating"
CIRCULATING_PACKETS = 512
LARGEST_BURST = 512
LARGEST_FRAME = 2048

_HUGEPAGES = 280
_HUGEPAGE_KIB = 2048
_MEMORY = ("-m", "256", "--no-telemetry", "--no-pci")
_FROM_HUGEPAGES = ("--in-memory", "--single-file-segments")
_WITHOUT_HUGEPAGES = ("--no-huge", "--no-shconf")
_MBUFS = "--total-num-mbufs=16384"  # its default is ten times that, and does not fit
_WITHIN = 10.0
_LOOK_AGAIN = 0.02

_COUNTERS = re.compile(r"\b([RT][Xx]-(?:packets|missed|bytes|errors|nombuf|pps)):\s+(\d+)")


@dataclass(frozen=True)
class Link:
    """What joins two testpmd: the ``--vdev`` of either, in the order in which they start; ``{socket}`` is a path."""

    name: str
    vdevs: tuple[str, str]


MEMIF = Link(
    "memif",
    (
        "net_memif0,role=server,socket={socket},rsize=10",
        "net_memif0,role=client,socket={socket},rsize=10",
    ),
)
VHOST_USER = Link(
    "vhost_user",
    (
        "net_vhost0,iface={socket},queues=1",
        "net_virtio_user0,path={socket},queues=1,queue_size=1024,packed_vq=1,in_order=1,mrg_rxbuf=0",
    ),
)


@dataclass(frozen=True)
class PortStats:
    """Counters of a port since testpmd started, and rates in packets per second since they were last shown."""

    rx_packets: int
    rx_missed: int
    rx_bytes: int
    rx_errors: int
    rx_nombuf: int
    tx_packets: int
    tx_errors: int
    tx_bytes: int
    rx_pps: int
    tx_pps: int


def parse_stats(text: str) -> PortStats:
    """Read what ``show port stats all`` prints of one port; PtnetmapError (EPROTO) if a counter is missing."""
    found = {name.lower().replace("-", "_"): int(value) for name, value in _COUNTERS.findall(text)}
    missing = sorted(PortStats.__dataclass_fields__.keys() - found.keys())
    if missing:
        raise PtnetmapError(
            errno.EPROTO,
            f"testpmd's port statistics lack {', '.join(missing)}\n"
            f"        versions 21.11 to 23.11 should print them; this one printed {text.strip()[:200]!r}",
        )
    return PortStats(**found)


def result(before: PortStats, after: PortStats, sender_before: PortStats, sender_after: PortStats) -> Result:
    """What the receiver had between two looks at its counters, and what the sender handed over meanwhile.

    The sender is looked at a moment later each time, so ``offered`` may differ from ``received`` by some packets
    though nothing was lost; ``dropped`` is what the receiver's driver says it lost.
    """
    received = after.rx_packets - before.rx_packets
    return Result(
        received=received,
        offered=sender_after.tx_packets - sender_before.tx_packets,
        dropped=after.rx_missed + after.rx_errors - before.rx_missed - before.rx_errors,
        nanoseconds=received * 1_000_000_000 // after.rx_pps if after.rx_pps else 0,
        bytes=after.rx_bytes - before.rx_bytes,
    )


def available() -> str | None:
    """Return why testpmd cannot run here, or None if it can."""
    if shutil.which(PROGRAM) is None:
        return f"{PROGRAM} is not installed (on Debian 12: apt install {DEBIAN})"
    if two_cores() is None:
        return "two testpmd poll on a core each, and this process may use one"
    return None


def _memory_options() -> tuple[str, ...]:
    """Use huge pages if there are enough for two testpmd; setting them up would change the machine, so nobody does."""
    values = re.findall(r"^(HugePages_Free|Hugepagesize):\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    found = {name: int(value) for name, value in values}
    huge = found.get("HugePages_Free", 0) >= _HUGEPAGES and found.get("Hugepagesize") == _HUGEPAGE_KIB
    return _FROM_HUGEPAGES if huge else _WITHOUT_HUGEPAGES


class Pair:
    """Two running testpmd, end 0 and end 1 of a :class:`Link`; ``close()``, or the end of ``with``, kills both.

    ``cores`` are those of the workers of end 1, which sends unless told otherwise, and of end 0; by default the first
    two there are. Raises PtnetmapError (ENOSYS) with :func:`available`'s reason, or with what testpmd printed.
    """

    def __init__(self, link: Link = MEMIF, cores: Cores = None) -> None:
        reason = available()
        chosen = cores or two_cores()
        if reason is not None or chosen is None:
            raise PtnetmapError(errno.ENOSYS, f"cannot measure DPDK's {link.name}: {reason}\n        leave it out")
        self.link = link
        self._opened = ExitStack()
        try:
            directory = self._opened.enter_context(tempfile.TemporaryDirectory(prefix="ptnetmap-testpmd-"))
            self._commands = [command_line(link, end, chosen, directory) for end in (0, 1)]
            environment = {**os.environ, "RUNTIME_DIRECTORY": directory}
            self._ends = []
            for command in self._commands:
                self._ends.append(self._opened.enter_context(Prompt(command, environment, "testpmd> ", _WITHIN)))
            self._wait_for_link()
        except BaseException:
            self._opened.close()
            raise

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kill both processes and remove their files."""
        self._opened.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes' ids."""
        return tuple(end.pid for end in self._ends)

    def command_lines(self) -> list[str]:
        """Both command lines, as a shell would take them."""
        return [shlex.join(command) for command in self._commands]

    def run(self, mode: str, size: int, seconds: float, burst: int = 32, *, sender: int = 1) -> Result:
        """Move frames of ``size`` bytes for ``seconds``, and return what the end that is not ``sender`` received.

        ``one_way``: ``sender`` makes packets (txonly) and the other end drops them (rxonly). ``circulating``: 512
        packets go round, sent back by both ends as they come (io); as many go the other way at the same time.
        ``burst`` is the most packets a worker takes or gives at once. Nothing is on its way afterwards.
        Raises ValueError for another mode, size or burst; PtnetmapError if testpmd dies or does not answer.
        """
        commands = forwarding(mode, size, burst)
        sending, receiving = self._ends[sender], self._ends[1 - sender]
        for line in commands.receiver:
            receiving.ask(line)
        for line in commands.sender:
            sending.ask(line)
        before, sender_before = look(receiving), look(sending)
        time.sleep(seconds)
        after, sender_after = look(receiving), look(sending)
        sending.ask("stop")
        self._drain(sending, receiving)
        return result(before, after, sender_before, sender_after)

    def _drain(self, sending: Prompt, receiving: Prompt) -> None:
        """Take what is still on its way, so that the next run moves its own packets only, and stop."""
        receiving.ask("stop")
        for end in (receiving, sending):
            end.ask("set fwd rxonly")
            end.ask("start")
        deadline = time.monotonic() + _WITHIN
        last = None
        while (now := (look(receiving).rx_packets, look(sending).rx_packets)) != last:
            if time.monotonic() > deadline:
                raise PtnetmapError(
                    errno.ETIMEDOUT, "testpmd still receives though nobody sends\n        start it anew"
                )
            last = now
            time.sleep(_LOOK_AGAIN)
        for end in (sending, receiving):
            end.ask("stop")

    def _wait_for_link(self) -> None:
        deadline = time.monotonic() + _WITHIN
        while not all(re.search(r"^0 .*\sup\s", end.ask("show port summary all"), re.MULTILINE) for end in self._ends):
            if time.monotonic() > deadline:
                raise PtnetmapError(
                    errno.ETIMEDOUT,
                    f"two testpmd did not find each other over {self.link.name} within {_WITHIN:g} s\n"
                    "        try their command lines by hand: " + " and ".join(self.command_lines()),
                )
            time.sleep(_LOOK_AGAIN)


@dataclass(frozen=True)
class Forwarding:
    """What the receiving and the sending testpmd are told, in this order, for packets to move."""

    receiver: tuple[str, ...]
    sender: tuple[str, ...]


def forwarding(mode: str, size: int, burst: int) -> Forwarding:
    """Commands for one run of :meth:`Pair.run`; ValueError for what testpmd could not do."""
    if not 60 <= size <= LARGEST_FRAME:
        raise ValueError(f"frames of {size} bytes: testpmd's fit one buffer, 60 to {LARGEST_FRAME}")
    if not 1 <= burst <= LARGEST_BURST:
        raise ValueError(f"a burst of {burst} packets: testpmd's are 1 to {LARGEST_BURST}")
    both = (f"set burst {burst}", f"set txpkts {size}")
    if mode == ONE_WAY:
        return Forwarding(("set fwd rxonly", *both, "start"), ("set fwd txonly", *both, "start"))
    if mode == CIRCULATING:
        first = f"start tx_first {CIRCULATING_PACKETS // burst}"
        return Forwarding(("set fwd io", *both, "start"), ("set fwd io", *both, first))
    raise ValueError(f"{mode!r} is no mode of testpmd's: {ONE_WAY} or {CIRCULATING}")


def run_memif(mode: str, size: int, seconds: float, burst: int = 32) -> Result:
    """Start a memif pair, run once (see :meth:`Pair.run`), and end it."""
    with Pair(MEMIF) as pair:
        return pair.run(mode, size, seconds, burst)


def command_lines(link: Link = MEMIF, cores: Cores = None) -> list[str]:
    """The command lines of a :class:`Pair`, with ``DIR`` for its directory, without starting one."""
    return [shlex.join(command_line(link, end, cores or two_cores() or (0, 1), "DIR")) for end in (0, 1)]


def command_line(link: Link, end: int, cores: tuple[int, int], directory: str) -> list[str]:
    """Return the command line of an end, whose socket is in ``directory``.

    End 1's worker runs on the first core and end 0's on the second; each one's idle main thread on the other.
    """
    main = cores[end]
    return [
        PROGRAM,
        "-l",
        f"{cores[0]},{cores[1]}",
        "--main-lcore",
        str(main),
        *_MEMORY,
        *_memory_options(),
        "--file-prefix",
        f"end{end}",
        f"--vdev={link.vdevs[end].format(socket=f'{directory}/socket')}",
        "--",
        "--interactive",
        _MBUFS,
    ]


def look(end: Prompt) -> PortStats:
    """Return the counters of the one port of a testpmd."""
    return parse_stats(end.ask("show port stats all"))
