# SPDX-License-Identifier: BSD-2-Clause
"""pkt-gen's command line: upstream's letters, a long name for each, and what they mean."""

from __future__ import annotations

import getopt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ptnetmap.tools.pktgen.addresses import IpRange, MacRange, parse_ip_range, parse_mac_range

FUNCTIONS = {"tx": 512, "rx": 512, "ping": 1, "pong": 1, "txseq": 512, "rxseq": 512}
"""What pkt-gen can do, with the default burst of each."""

PREFETCH = 1
ACCESS = 2
COPY = 4
MEMCPY = 8
TIMESTAMP = 16
INDIRECT = 32
DUMP = 64
RUBBISH = 256
RANDOM_SOURCE = 512
RANDOM_DESTINATION = 1024
STATISTICS = 2048
UPDATE_CHECKSUMS = 4096
_ALL_BITS = 0x1F7F

MIN_SIZE, MAX_SIZE = 16, 65536
MAX_FRAGMENTS = 63
MAX_BURST = 65536
MAX_RATE = 1_000_000_000
MAX_THREADS = 256

_DEFAULTS = {4: ("10.0.0.1", "10.1.0.1"), 6: ("fd00::1", "fd00::2")}
_WAIT = 2
_PAYLOAD_AT = {4: 42, 6: 62}
NUMBERED = {"ping": 12, "txseq": 8}
"""Bytes at the start of the payload that functions write for each packet."""


class OptionError(ValueError):
    """A command line that cannot be carried out; the message says why."""


@dataclass(frozen=True)
class Options:
    """A run, as it was asked for. Sizes in bytes, without CRC; 0 means without limit, or not given."""

    port: str = ""
    function: str = "rx"
    packets: int = 0
    size: int = 60
    least_size: int = 0
    burst: int = 0
    default_burst: bool = False
    version: int = 4
    source: IpRange = field(default_factory=lambda: parse_ip_range(_DEFAULTS[4][0], 4))
    destination: IpRange = field(default_factory=lambda: parse_ip_range(_DEFAULTS[4][1], 4))
    source_mac: MacRange | None = None
    destination_mac: MacRange = field(default_factory=lambda: parse_mac_range("ff:ff:ff:ff:ff:ff"))
    cpu: int = -1
    cpus: int = 1
    cpus_given: bool = False
    threads: int = 1
    report_ms: int = 1000
    wait: int = _WAIT
    rate: int = 0
    header: int = 0
    template: str = ""
    fragments: int = 1
    fragment_size: int = 0
    config: tuple[int, ...] = ()
    bits: int = 0
    normalize: bool = True
    framing: bool = False
    exit_when_idle: bool = False
    verbose: bool = False
    json: bool = False

    @property
    def sends(self) -> bool:
        """Whether its figures are those of a sender."""
        return self.function in ("tx", "txseq")

    @property
    def receives(self) -> bool:
        """Whether its figures are those of a receiver."""
        return self.function in ("rx", "rxseq")

    def has(self, bit: int) -> bool:
        """Whether one of the bits of ``-o`` is set."""
        return bool(self.bits & bit)


class Option(NamedTuple):
    """One option: letter, long name, name of its argument ("" for none), what it does, and the help line."""

    letter: str
    name: str
    argument: str
    apply: Callable[[dict[str, Any], str], None]
    help: str


def _whole(text: str, least: int = 0, most: int = (1 << 62) - 1) -> int:
    try:
        value = int(text, 0) if not text.lstrip("-").isdecimal() else int(text)
    except ValueError:
        raise OptionError(f"{text!r} is not a whole number") from None
    if not least <= value <= most:
        raise OptionError(f"{text} is not between {least} and {most}")
    return value


def _number(key: str, least: int = 0, most: int = (1 << 62) - 1) -> Callable[[dict[str, Any], str], None]:
    return lambda given, text: given.__setitem__(key, _whole(text, least, most))


def _text(key: str) -> Callable[[dict[str, Any], str], None]:
    return lambda given, text: given.__setitem__(key, text)


def _flag(key: str, value: Any = True) -> Callable[[dict[str, Any], str], None]:
    return lambda given, _: given.__setitem__(key, value)


def _bits(value: int) -> Callable[[dict[str, Any], str], None]:
    return lambda given, _: given.__setitem__("bits", given.get("bits", 0) | value)


def _function(given: dict[str, Any], text: str) -> None:
    if text not in FUNCTIONS:
        raise OptionError(f"unknown function {text!r}: use one of {', '.join(FUNCTIONS)}")
    given["function"] = text


def _size(given: dict[str, Any], text: str) -> None:
    given["least_size" if "size" in given else "size"] = _whole(text, MIN_SIZE, MAX_SIZE)


def _header(given: dict[str, Any], text: str) -> None:
    given["header"] = _whole(text)
    if given["header"] not in (0, 10, 12):
        raise OptionError(f"a virtio-net header has 10 or 12 bytes (0: none), not {text}")


def _more_bits(given: dict[str, Any], text: str) -> None:
    _bits(_whole(text, 0, 0xFFFF) & _ALL_BITS)(given, "")


def _config(given: dict[str, Any], text: str) -> None:
    given["config"] = tuple(_whole(part, 1, 65536) for part in text.split(","))
    if len(given["config"]) > 4:
        raise OptionError(f"{text}: at most tx_slots,rx_slots,tx_rings,rx_rings")


OPTIONS = (
    Option("i", "interface", "PORT", _text("port"), "port: netmap:NAME, valeX:Y, null; NAME alone is netmap:NAME"),
    Option("f", "function", "FUNCTION", _function, "tx rx ping pong txseq rxseq (rx)"),
    Option("n", "count", "N", _number("packets"), "packets, or round trips, to do; 0 is without end (0)"),
    Option("l", "length", "BYTES", _size, "frame size without CRC, 16..65536 (60); twice: a random size down to this"),
    Option("b", "burst", "N", _number("burst", 1, MAX_BURST), "packets per sync (512; 1 for ping and pong)"),
    Option("R", "rate", "PPS", _number("rate", 1, MAX_RATE), "packets per second of all threads (without limit)"),
    Option("d", "dst-ip", "RANGE", _text("destination"), "IP[:port[-IP:port]], destination (10.1.0.1:1234)"),
    Option("s", "src-ip", "RANGE", _text("source"), "IP[:port[-IP:port]], source (10.0.0.1:1234)"),
    Option("D", "dst-mac", "RANGE", _text("destination_mac"), "MAC[-MAC], destination (ff:ff:ff:ff:ff:ff)"),
    Option("S", "src-mac", "RANGE", _text("source_mac"), "MAC[-MAC], source (the interface's; 0 if it has none)"),
    Option("4", "ipv4", "", _flag("version", 4), "IPv4 packets (default)"),
    Option("6", "ipv6", "", _flag("version", 6), "IPv6 packets: [ADDRESS]:port in ranges (fd00::1, fd00::2)"),
    Option("z", "random-src", "", _bits(RANDOM_SOURCE), "random source address and port"),
    Option("Z", "random-dst", "", _bits(RANDOM_DESTINATION), "random destination address and port"),
    Option("P", "template", "FILE", _text("template"), "send the first packet of a pcap or pcapng file"),
    Option("H", "vnet-header", "BYTES", _header, "virtio-net header before each frame: 0, 10 or 12 (the port's)"),
    Option("F", "fragments", "N", _number("fragments", 1, MAX_FRAGMENTS), "slots per packet, 1..63 (1)"),
    Option("M", "fragment-size", "BYTES", _number("fragment_size", 1, MAX_SIZE), "bytes per slot of a packet"),
    Option("I", "indirect", "", _bits(INDIRECT), "indirect buffers (VALE)"),
    Option("r", "rubbish", "", _bits(RUBBISH), "do not write frames: send what the buffers hold"),
    Option("p", "threads", "N", _number("threads", 1, MAX_THREADS), "threads, each with a ring of its own (1)"),
    Option("c", "cpus", "N", _number("cpus"), "CPUs to spread threads over with -a; 0 is all (1)"),
    Option("a", "cpu", "CPU", _number("cpu"), "pin the first thread to this CPU, others to the next ones"),
    Option("C", "config", "N,N,N,N", _config, "tx_slots[,rx_slots[,tx_rings[,rx_rings]]] of a port that is created"),
    Option("T", "report-ms", "MS", _number("report_ms", 1), "milliseconds between reports (1000)"),
    Option("w", "wait", "SECONDS", _number("wait", 0, 86400), "before starting (2; 0 on VALE ports)"),
    Option("W", "exit-idle", "", _flag("exit_when_idle"), "stop receiving after a second without packets"),
    Option("N", "plain-numbers", "", _flag("normalize", False), "no K, M, G in reports"),
    Option("A", "average", "", _bits(STATISTICS), "moving average and deviation in reports"),
    Option("B", "framing", "", _flag("framing"), "count 24 bytes of framing and CRC per packet in bps"),
    Option("X", "dump", "", _bits(DUMP), "print the packets"),
    Option("o", "options", "BITS", _more_bits, "sum of: 1 prefetch 2 access 4 copy 8 memcpy 16 timestamp 32 -I 64 -X"),
    Option("v", "verbose", "", _flag("verbose"), "say more"),
    Option("", "json", "", _flag("json"), "print the final figures as one JSON object, and nothing else"),
)


def usage() -> str:
    """Return the text of ``--help``."""
    lines = ["usage: pkt-gen -i PORT [-f FUNCTION] [options]", "", "options:"]
    for option in OPTIONS:
        letter = f"-{option.letter}, " if option.letter else "    "
        lines.append(f"  {letter + '--' + option.name + ' ' + option.argument:32}{option.help}")
    lines += [
        f"  {'-h, --help':32}show this",
        "      -o also: 256 -r, 512 -z, 1024 -Z, 2048 -A, 4096 checksums (always right here)",
        "",
        "examples:",
        "  pkt-gen -i vale0:a -f tx          as fast as it goes, to everybody on switch vale0",
        "  pkt-gen -i vale0:b -f rx          count what comes",
        "  pkt-gen -i netmap:x{1 -f tx -n 100000000 -l 1500 -R 1000000",
        "  pkt-gen -i vale0:a -f ping -n 1000",
    ]
    return "\n".join(lines)


def parse(arguments: Sequence[str]) -> Options | None:
    """Read a command line; None if it asks for help. Raises OptionError."""
    letters = "h" + "".join(o.letter + (":" if o.argument else "") for o in OPTIONS if o.letter)
    names = ["help", *(o.name + ("=" if o.argument else "") for o in OPTIONS)]
    try:
        found, rest = getopt.getopt(list(arguments), letters, names)
    except getopt.GetoptError as error:
        raise OptionError(str(error)) from None
    known = {f"-{o.letter}": o for o in OPTIONS if o.letter} | {f"--{o.name}": o for o in OPTIONS}
    given: dict[str, Any] = {}
    for key, text in found:
        if key in ("-h", "--help"):
            return None
        try:
            known[key].apply(given, text)
        except OptionError as error:
            raise OptionError(f"option {key}: {error}") from None
    if rest:
        raise OptionError(f"unexpected argument {rest[0]!r}")
    return check(_complete(given))


def _complete(given: dict[str, Any]) -> Options:
    """Make Options of what was given: addresses are read once the version is known."""
    version = given.get("version", 4)
    read: dict[str, Callable[[str], Any]] = {
        "source": lambda text: parse_ip_range(text, version),
        "destination": lambda text: parse_ip_range(text, version),
        "source_mac": parse_mac_range,
        "destination_mac": parse_mac_range,
    }
    if version == 6:
        given = {"source": _DEFAULTS[6][0], "destination": _DEFAULTS[6][1]} | given
    for key, reader in read.items():
        if key in given:
            try:
                given[key] = reader(given[key])
            except ValueError as error:
                raise OptionError(str(error)) from None
    given.setdefault("port", "")
    if "wait" not in given and given["port"].startswith("vale"):
        given["wait"] = 0
    return Options(**given, cpus_given="cpus" in given)


def check(options: Options) -> Options:
    """Return the options with the port's name completed and the rate's burst. Raises OptionError if they contradict."""
    if not options.port:
        raise OptionError("no port: give one with -i")
    least = options.least_size or options.size
    if least > options.size:
        options = replace(options, size=least, least_size=options.size)
        least = options.least_size
    needed = _PAYLOAD_AT[options.version] + NUMBERED.get(options.function, 0)
    if options.function in NUMBERED and least < needed:
        raise OptionError(f"{options.function} needs frames of {needed} bytes: use -l {needed} or more")
    if options.function in NUMBERED and (options.template or options.has(RUBBISH)):
        raise OptionError(f"{options.function} writes its own packets: leave out -P and -r")
    if options.template and options.least_size:
        raise OptionError("a template has one size: leave out the second -l")
    if options.fragments > least and not options.template:
        raise OptionError(f"{options.fragments} fragments of {least} bytes: use fewer, or a larger -l")
    burst = options.burst or FUNCTIONS[options.function]
    if options.rate:
        burst = max(1, min(burst, options.rate // 300))
    return replace(
        options, port=complete_name(options.port), burst=burst, default_burst=not options.burst, least_size=least
    )


def complete_name(name: str) -> str:
    """Return a port's full name: what has no prefix is a ``netmap:`` port. Raises OptionError for what is not there."""
    if name.startswith(("netmap:", "vale")) or name == "null":
        return name
    if name.startswith("tap:") or (name.startswith("tap") and name[3:].isdecimal()):
        raise OptionError(f"{name}: tap devices are not supported yet; use a valeX:Y or netmap: port")
    if name.startswith("pcap:"):
        raise OptionError(
            f"{name}: pcap devices are not supported yet; use a valeX:Y or netmap: port, or -P for a file"
        )
    return f"netmap:{name}"
