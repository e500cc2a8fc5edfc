# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ptnetmap.errors import PortError, PtnetmapError
from ptnetmap.jit.block import view
from ptnetmap.netmap.port import Port
from ptnetmap.netmap.runtime import Netmap


@pytest.fixture
def nm() -> Iterator[Netmap]:
    """Start a runtime; at the end of the test, and after closing it, every buffer must have one owner."""
    with Netmap() as runtime:
        yield runtime
        assert [str(a) for a in runtime.audit() if not a.ok] == []
        runtime.close()
        assert [str(a) for a in runtime.audit() if not a.ok or a.lost] == []


@pytest.fixture
def lax() -> Iterator[Netmap]:
    """Start a runtime for a test that overwrites rings on purpose."""
    with Netmap() as runtime:
        yield runtime


def make_frame(destination: int = 0, source: int = 1, size: int = 60, fill: int = 0) -> bytes:
    macs = b"".join(b"\xff" * 6 if n == 255 else bytes([2, 0, 0, 0, 0, n]) for n in (destination, source))
    return (macs + b"\x88\xb5" + bytes([fill]) * size)[:size]


@pytest.fixture
def frame() -> Callable[..., bytes]:
    """Make an Ethernet frame: numbers of its destination (255: broadcast) and source address, bytes, filling."""
    return make_frame


@pytest.fixture
def small(nm: Netmap) -> Iterator[tuple[Port, Port]]:
    """A pipe of 8 slots: both ends."""
    with nm.open("netmap:p{1", tx_slots=8, rx_slots=8) as tx, nm.open("netmap:p}1") as rx:
        yield tx, rx


@pytest.fixture
def switch(nm: Netmap) -> Iterator[tuple[Port, Port]]:
    """Two ports of 8 slots on a switch."""
    with nm.open("vale0:a", tx_slots=8, rx_slots=8) as a, nm.open("vale0:b", tx_slots=8, rx_slots=8) as b:
        yield a, b


@pytest.fixture
def three(nm: Netmap) -> Iterator[tuple[Port, Port, Port]]:
    """Ports 0, 1 and 2 of a switch."""
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("vale0:c") as c:
        yield a, b, c


@pytest.fixture
def patient(nm: Netmap) -> Iterator[tuple[Port, Port]]:
    """A sender and a lossless reader of 8 slots each."""
    with nm.open("vale0:a", tx_slots=8, rx_slots=8) as a, nm.open("vale0:b", rx_slots=8, lossless=True) as b:
        yield a, b


@pytest.fixture(params=["pipe", "switch"])
def pair(request: pytest.FixtureRequest, nm: Netmap) -> Iterator[tuple[Port, Port]]:
    """Two ports of 128 slots that reach each other."""
    a, b = {"pipe": ("netmap:p{1", "netmap:p}1"), "switch": ("vale0:a", "vale0:b")}[request.param]
    with nm.open(a, tx_slots=128, rx_slots=128) as tx, nm.open(b, tx_slots=128, rx_slots=128) as rx:
        yield tx, rx


@pytest.fixture
def refusal() -> Callable[..., None]:
    """Check that a call is refused with an errno, and a message that says what to do."""

    def check(
        number: str,
        action: Callable[..., Any],
        *arguments: Any,
        kind: type[PtnetmapError] = PortError,
        match: str | None = None,
        **keywords: Any,
    ) -> None:
        with pytest.raises(kind, match=match) as refused:
            action(*arguments, **keywords)
        assert refused.value.errno == getattr(errno, number)
        assert "\n        " in str(refused.value)

    return check


@pytest.fixture
def arrivals() -> Callable[[tuple[Port, ...]], list[list[bytes]]]:
    """Take what has come to each of some ports."""
    return lambda ports: [port.recv(timeout=0) for port in ports]


@pytest.fixture
def wait_until_asleep() -> Callable[[Port], None]:
    """Return once a thread that waits on a port to send, or to receive, is about to sleep."""

    def wait(port: Port) -> None:
        words = [view(ring.block["need_kick_at"], "u4", 1, ring) for ring in port.adapter.rings]
        while not any(word[0] for word in words):
            os.sched_yield()

    return wait


@pytest.fixture
def meanwhile() -> Iterator[Callable[..., Callable[[], Any]]]:
    """Run a function in another thread; what is returned waits for its result, or raises what it raised."""
    threads: list[threading.Thread] = []

    def start(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Callable[[], Any]:
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append((function(*arguments, **keywords), None))
            except BaseException as error:
                outcome.append((None, error))

        thread = threading.Thread(target=run, daemon=True)
        threads.append(thread)
        thread.start()

        def result() -> Any:
            thread.join(60)
            assert outcome, "the other thread does not come back"
            value, error = outcome[0]
            if error is not None:
                raise error
            return value

        return result

    yield start
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "the other thread does not come back"
