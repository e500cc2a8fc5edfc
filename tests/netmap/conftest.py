# SPDX-License-Identifier: BSD-2-Clause
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

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
