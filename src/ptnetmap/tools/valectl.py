# SPDX-License-Identifier: BSD-2-Clause
"""Control of VALE switches: what vale-ctl asks netmapd for, and how it has always printed the answers."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import NameSyntaxError, PortError
from ptnetmap.netmap import names
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.codec import Body, Values

_RING_SETTINGS = (
    ("nr_tx_slots", "nr_rx_slots"),
    ("nr_rx_slots",),
    ("nr_tx_rings", "nr_rx_rings"),
    ("nr_rx_rings",),
)
"""What each number of a ring setting sets: those for both directions first, which the next one then corrects."""


class Session(Protocol):
    """A connection to netmapd. ``address`` says where that is."""

    @property
    def address(self) -> str:
        """The socket's path."""

    def request(self, reqtype: int, name: str, body: Values | None = None) -> Body:
        """Make a request and return the fields of its answer's body, and ``nr_name`` of its header.

        Raises PortError, or another PtnetmapError, with the errno of a request that failed.
        """

    def close(self) -> None:
        """End the connection."""


# Settings -------------------------------------------------------------------------------------------------------------


def ring_setting(text: str | None) -> tuple[Body, list[str]]:
    """Read ``slots[,rx_slots[,rings[,rx_rings]]]`` into fields; also return what comes after these, and is ignored.

    Raises PortError (EINVAL) for what is no number of slots or rings.
    """
    numbers = _numbers(text or "")
    fields: Body = {}
    for keys, number in zip(_RING_SETTINGS, numbers, strict=False):
        limit = 0xFFFF if keys[0].endswith("rings") else 0xFFFFFFFF
        if number > limit:
            raise _bad_setting(str(number), f"use {limit} at most")
        fields.update(dict.fromkeys(keys, number))
    return fields, [str(number) for number in numbers[len(_RING_SETTINGS) :]]


def polling_setting(text: str | None) -> Body:
    """Read ``mode,cpu[,count]`` into fields: mode 0 is one CPU for all rings, 1 is one for each of ``count`` rings.

    Raises PortError (EINVAL) for other settings.
    """
    numbers = _numbers(text or "")
    if not numbers:
        raise PortError(errno.EINVAL, "invalid null/empty config\n        give -C mode,cpu,count")
    per_ring = numbers[0] != 0
    if len(numbers) > 2 + per_ring:
        raise _bad_setting(text, "too many numbers: count goes with mode 1, nothing goes after it")
    if max(numbers) > 0xFFFFFFFF:
        raise _bad_setting(text, "use 32 bits at most")
    cpu, count = (*numbers[1:], 0, 0)[:2]
    return {
        "nr_mode": abi.NETMAP_POLLING_MODE_MULTI_CPU if per_ring else abi.NETMAP_POLLING_MODE_SINGLE_CPU,
        "nr_first_cpu_id": cpu,
        "nr_num_polling_cpus": count if per_ring else 1,
    }


def memory_id(session: Session, text: str | None) -> int:
    """Return the memory id that a setting names: a number, or the port whose memory is meant; 0 for None.

    Raises PortError: EINVAL for what is neither, else what asking for the port's says.
    """
    if text is None:
        return 0
    if text.isascii() and text.isdigit():
        if len(text) > 5 or int(text) > names.MAX_MEM_ID:
            raise PortError(errno.EINVAL, f"memory id {text} out of range\n        use {names.MAX_MEM_ID} at most")
        return int(text)
    try:
        port = names.parse(text)
    except NameSyntaxError:
        raise PortError(
            errno.EINVAL, f"invalid format in '-m {text}' (missing 'netmap:'?)\n        give a number or a port's name"
        ) from None
    return port.mem_id or int(session.request(abi.NETMAP_REQ_PORT_INFO_GET, port.name, {})["nr_mem_id"])


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) <= 20):
            raise _bad_setting(text, f"{part[:40]!r} is not a number")
    return [int(part) for part in parts]


def _bad_setting(text: str | None, advice: str) -> PortError:
    return PortError(errno.EINVAL, f"invalid config '{text}'\n        {advice}")


# Requests -------------------------------------------------------------------------------------------------------------


def list_ports(session: Session) -> Iterator[Body]:
    """Yield {name, bridge_idx, port_idx} of every port on every switch, asking for one after the other."""
    place = (0, 0)
    while True:
        asked = {"nr_bridge_idx": place[0], "nr_port_idx": place[1]}
        try:
            found = session.request(abi.NETMAP_REQ_VALE_LIST, "", asked)
        except PortError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        here = (found["nr_bridge_idx"], found["nr_port_idx"])
        if here < place:
            raise PortError(errno.EPROTO, f"port {here} came after {place}\n        restart netmapd or upgrade")
        yield {"name": found["nr_name"], "bridge_idx": here[0], "port_idx": here[1]}
        place = (here[0], here[1] + 1)


def ask(session: Session, reqtype: int, name: str, body: Values | None = None) -> Body:
    """Make one request, and return the numbers in its answer without their prefix ``nr_``."""
    answer = session.request(reqtype, name, body)
    numbers = {key: value for key, value in answer.items() if isinstance(value, int)}
    return {"name": name, **{key.removeprefix("nr_"): value for key, value in numbers.items()}}


def statistics(session: Session, ports: Sequence[str]) -> Iterator[Body]:
    """Yield the counters of ports, or of all there are: {name, tx_packets, ..., drops, dropped}.

    See :class:`ptnetmap.netmap.stats.PortStats` for what they mean.
    """
    known: Iterable[str] = ports
    if not ports:
        opened = (entry["name"] for entry in extension.introspect(session.request, extension.PORT_LIST))
        known = dict.fromkeys([*opened, *(entry["name"] for entry in list_ports(session))])
    for name in known:
        fields = extension.stats_fields(session.request(extension.PORT_STATS, name, {}))
        yield {"name": name, **fields, "dropped": sum(fields["drops"].values())}


# Text -----------------------------------------------------------------------------------------------------------------

# Labels with their blanks, as vale-ctl has always printed them: one lacks its colon, another its plural.
_SHAPE = (("tx_slots", "tx_slots:   "), ("rx_slots", "rx_slots:   "), ("tx_rings", "tx_rings:   "))
_MEMORY = (("mem_id", "mem_id:     "),)
INFO = (("memsize", "memsize:    "), *_SHAPE, ("rx_rings", "rx_rings    "), *_MEMORY)
CREATED = (*_SHAPE, ("rx_rings", "rx_ring:    "), *_MEMORY)
PLACE = (("bridge_idx", "bridge_idx: "), ("port_idx", "port_idx:   "))
INDEX = (("port_index", "port_index: "),)


def lines(labels: Sequence[tuple[str, str]], answer: Values) -> list[str]:
    """Return one line for each of some fields of an answer."""
    return [f"{label}{answer[key]}" for key, label in labels]


def listed_line(port: Values) -> str:
    """Return the line of one port of a listing."""
    return f"{port['name']} bridge_idx {port['bridge_idx']} port_idx {port['port_idx']}"


def statistics_line(port: Values) -> str:
    """Return the line of one port's counters: names and numbers in turn, drops by reason at the end."""
    keys = ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes", "missed", "truncated", "dropped")
    pairs: list[tuple[str, Any]] = [*((key, port[key]) for key in keys), *port["drops"].items()]
    return " ".join([port["name"], *(f"{key} {value}" for key, value in pairs)])
