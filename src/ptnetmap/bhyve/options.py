# SPDX-License-Identifier: BSD-2-Clause
"""bhyve's command line: every option of 2015 and of today, as settings of a configuration.

Options set variables in the order given, and the last one wins, as when they come from files (``-k``) or are named
themselves (``-o``). Letters, forms and messages are bhyve's (bhyve(8)), so that scripts and habits go on working. Where
2015 and today differ, today wins: ACPI tables are always made (``-A`` says so, and does nothing more), ``-m`` is looked
at when all options are known, ``-g`` is a debug port that no guest of today knows, and a wrong configuration ends with 4
(:mod:`~ptnetmap.bhyve.status`). A slot of bus 0 is called ``2:1`` in messages, as in 2015, and others ``1:2:1``.
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ptnetmap.bhyve.config import Config, strtol
from ptnetmap.bhyve.settings import MAX_HOST_CPUS, SERIAL_PORTS, new_config
from ptnetmap.bhyve.status import ERROR, POWER_OFF, USAGE
from ptnetmap.errors import ConfigError

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
"""What word processors, web pages and PDF viewers make of a hyphen."""

_SLOT = re.compile(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+)", re.ASCII)
_PIN = re.compile(r"\s*([+-]?[0-9]+):\s*([+-]?[0-9]+)", re.ASCII)
_INSTEAD = {"ahci": "virtio-blk", "ahci-hd": "virtio-blk", "ahci-cd": "virtio-blk", "nvme": "virtio-blk"} | {
    "virtio-scsi": "virtio-blk",
    "e1000": "virtio-net",
}
"""Devices of bhyve that this one may not have, and what does their work."""


class Model(Protocol):
    """A device model, as far as the command line knows it."""

    def parse_options(self, text: str) -> Mapping[str, str]:
        """Return the settings that the text after ``-s SLOT,NAME,`` means."""


class UsageError(ConfigError):
    """A command line that is none: the usage is worth showing."""


class Answer(NamedTuple):
    """What to print instead of running a machine, and the exit code."""

    text: str
    status: int = 0


class Option(NamedTuple):
    """One option: its letter, the name of its argument ("" for none), its line of help, and what it sets."""

    letter: str
    argument: str
    help: str
    apply: Callable[[Config, str], None]


def parse(arguments: Sequence[str], models: Callable[[], Mapping[str, Model]]) -> Config | Answer:
    """Read a command line. ``models`` gives the device models by name; it is called only if ``-s`` is there.

    Raises ConfigError, or UsageError if the form is wrong. The configuration has a ``name``, and is not checked
    otherwise (:func:`ptnetmap.bhyve.settings.check`).
    """
    _refuse_typography(arguments)
    letters = "".join(option.letter + (":" if option.argument else "") for option in OPTIONS) + "s:"
    try:
        found, rest = getopt.getopt(list(arguments), f"h{letters}", ["help", "version", "json"])
    except getopt.GetoptError as error:
        raise _not_understood(error) from error
    config = new_config()
    as_json = ("--json", "") in found
    known = {f"-{option.letter}": option for option in OPTIONS}
    for key, text in found:
        if key in ("-h", "--help"):
            return Answer(usage())
        if key == "--version":
            from ptnetmap import __version__

            return Answer(f"bhyve (ptnetmap) {__version__}\n")
        if key in ("-s", "-l") and text and "help".startswith(text):
            return _listing(sorted(models()) if key == "-s" else SERIAL_PORTS, as_json)
        if key == "-s":
            _set_slot(config, text, models())
        elif key != "--json":
            known[key].apply(config, text)
    if len(rest) > 1:
        raise UsageError(
            f"one virtual machine at a time: {' '.join(rest)}\n        options come before the name", status=ERROR
        )
    if rest:
        config.set("name", rest[0])
    if "name" not in config:
        raise UsageError("no name given for the virtual machine", status=ERROR)
    if config.boolean("config.dump"):
        # Not 0: a loop that restarts guests that reboot would never end.
        return Answer(_dump(config, as_json), POWER_OFF)
    if as_json:
        raise UsageError("--json goes with -s help, -l help and -o config.dump=true only", status=ERROR)
    return config


def usage() -> str:
    """Return the text of ``--help``."""
    lines = [
        "Usage: bhyve [-aACDehHIPSuwWxY] [-c [[cpus=]numcpus][,sockets=n][,cores=n][,threads=n]]",
        "             [-k config_file] [-l lpc] [-m mem] [-o var=value] [-p vcpu:hostcpu]",
        "             [-s pci] [-U uuid] vmname",
    ]
    lines += [f"       -{option.letter}: {option.help}" for option in OPTIONS if option.help]
    lines += [
        "       -s: <slot,driver,configinfo> PCI slot config; -s help lists drivers",
        "       --json: with -s help, -l help or -o config.dump=true, print JSON",
        "       --version: print the version",
        "       -h, --help: help",
        "",
        "Without a kernel the built-in guest runs. Exit codes: 0 the guest rebooted, 1 powered off, 2 halted,",
        "3 triple fault, 4 error, 64 a malformed value.",
        "",
        "examples:",
        "  bhyve -s 0,hostbridge -s 1,lpc -l com1,stdio -A -H -P -m 2G netmapvm",
        "  bhyve -c 2 -m 1G -s 0,hostbridge -s 1,lpc -l com1,stdio -s 2,virtio-blk,disk.img \\",
        "        -o kernel=vmlinuz -o initrd=initrd.img -o cmdline='console=ttyS0' linux",
        "  bhyve -k vm.conf -o memory.size=4G -o config.dump=true vm",
        "",
    ]
    return "\n".join(lines)


def _refuse_typography(arguments: Iterable[str]) -> None:
    for argument in arguments:
        if argument[:1] and argument[0] in _DASHES:
            meant = argument.translate(dict.fromkeys(map(ord, _DASHES), "-"))
            raise UsageError(
                f"'{argument}' begins with {_name(argument[0])}, which looks like '-' but is not\n"
                f"        type {meant} yourself: documents and web pages change hyphens",
                status=ERROR,
            )


def _not_understood(error: getopt.GetoptError) -> UsageError:
    if len(error.opt) != 1:
        return UsageError(error.msg, status=ERROR)
    if error.opt in {option.letter for option in OPTIONS} | {"s"}:
        return UsageError(f"option requires an argument -- {error.opt}", status=ERROR)
    return UsageError(f"illegal option -- {error.opt}", status=ERROR)


def _name(character: str) -> str:
    import unicodedata

    return f"U+{ord(character):04X} {unicodedata.name(character)}"


def _listing(names: Iterable[str], as_json: bool) -> Answer:
    return Answer(_json(list(names)) if as_json else "".join(f"{name}\n" for name in names))


def _dump(config: Config, as_json: bool) -> str:
    return _json({key: config.raw(key) for key in config}) if as_json else config.dump()


def _json(value: Any) -> str:
    import json

    return json.dumps(value, indent=1) + "\n"


def _set_slot(config: Config, text: str, models: Mapping[str, Model]) -> None:
    place, comma, rest = text.partition(",")
    device, _, settings = rest.partition(",")
    match = _SLOT.fullmatch(place)
    # With one number that is the slot; with two, slot and function; with three, the bus comes first.
    numbers = [int(number[:4]) for number in match.groups() if number] if match else []
    bus, slot, function = numbers if len(numbers) == 3 else [0, *numbers, 0][:3] if numbers else (0, -1, 0)
    if not comma or not 0 <= slot <= 31 or bus > 255 or function > 7:
        raise ConfigError(
            f'Invalid PCI slot info field "{text}"\n'
            "        write [BUS:]SLOT[:FUNCTION],DEVICE[,SETTINGS], up to 255:31:7, such as 2:1,virtio-blk,disk.img"
        )
    called = f"{bus}:{slot}:{function}" if bus else f"{slot}:{function}"
    if device not in models:
        raise ConfigError(f'pci slot {called}: unknown device "{device}"\n        {_suggestion(device, models)}')
    node = f"pci.{bus}.{slot}.{function}"
    if config.has_node(node):
        raise ConfigError(
            f"pci slot {called} already occupied!\n"
            f"        {config.get(f'{node}.device', 'something')} is there; use another slot or function"
        )
    config.set(f"{node}.device", device)
    for key, value in models[device].parse_options(settings).items() if settings else ():
        config.set(f"{node}.{key}", value)


def _suggestion(device: str, models: Mapping[str, Model]) -> str:
    meant = device.translate(dict.fromkeys(map(ord, _DASHES), "-"))
    if meant != device:
        odd = next(character for character in device if character in _DASHES)
        return f"type {meant} yourself: {_name(odd)} looks like '-' but is not"
    instead = _INSTEAD.get(device)
    return f"use {instead}; bhyve -s help lists all" if instead in models else "bhyve -s help lists those that are"


def _set_lpc(config: Config, text: str) -> None:
    name, _, conf = text.partition(",")
    name = name.lower()
    first, _, rest = conf.partition(",")
    if name in SERIAL_PORTS and conf:
        config.set(f"lpc.{name}.path", conf)
    elif name in ("bootrom", "fwcfg") and first:
        config.set(f"lpc.{name}", first)
    elif name == "tpm" and first and rest:
        config.set("tpm.type", first)
        config.set("tpm.path", rest)
    elif name == "pc-testdev":
        config.set("lpc.pc-testdev", True)
    else:
        hint = f"{name} needs a backend, as in {name},stdio" if name in SERIAL_PORTS else "write it as com1,stdio"
        raise ConfigError(f"invalid lpc device configuration '{text}'\n        {hint}", status=USAGE)


def _set_cpus(config: Config, text: str) -> None:
    settings = {} if text else dict.fromkeys(("sockets", "cores", "threads", "cpus"), "1")
    for part in text.split(",") if text else ():
        key, equals, value = part.partition("=")
        if not equals:
            key, value = "cpus", part
        if key not in ("sockets", "cores", "threads", "cpus"):
            raise ConfigError(
                f"invalid cpu topology '{text}'\n        write [cpus=]N[,sockets=N][,cores=N][,threads=N]", status=USAGE
            )
        settings[key] = value
    for key, value in settings.items():
        config.set(key, value)


def _set_pin(config: Config, text: str) -> None:
    match = _PIN.fullmatch(text)
    cpu, host = (int(number) for number in match.groups()) if match else (-1, -1)
    if match is None:
        reason = f"invalid format: {text}; write vcpu:hostcpu"
    elif cpu < 0:
        reason = f"invalid vcpu '{cpu}'"
    elif not 0 <= host < MAX_HOST_CPUS:
        reason = f"hostcpu '{host}' outside valid range from 0 to {MAX_HOST_CPUS - 1}"
    else:
        key = f"vcpu.{cpu}.cpuset"
        config.set(key, f"{config.raw(key)},{host}" if key in config else host)
        return
    raise ConfigError(f"invalid vcpu pinning configuration '{text}'\n        {reason}", status=USAGE)


def _set_debugger(config: Config, text: str) -> None:
    config.set("gdb.wait", text.startswith("w"))
    address, colon, port = text.removeprefix("w").rpartition(":")
    if colon:
        config.set("gdb.address", address)
    if strtol(port) is None:
        raise ConfigError(f"Invalid gdb port '{port}'\n        write [w][ADDRESS:]PORT")
    config.set("gdb.port", port)


def _set_domain(config: Config, text: str) -> None:
    number, *values = text.split(",", 3)
    if not (number.isascii() and number.isdecimal() and len(values) >= 2):
        raise ConfigError(f"invalid NUMA domain '{text}'\n        write id,size,cpus[,policy]", status=USAGE)
    for key, value in zip(("size", "cpus", "domain_policy"), values, strict=False):
        config.set(f"domains.{int(number)}.{key}", value)


def _set_option(config: Config, text: str) -> None:
    if not config.set_option(text):
        raise ConfigError(f"invalid configuration option '{text}'\n        write variable=value", status=USAGE)


def _to(key: str) -> Callable[[Config, str], None]:
    return lambda config, text: config.set(key, text)


def _flag(key: str, value: bool = True) -> Callable[[Config, str], None]:
    return lambda config, _: config.set(key, value)


def _refuse(reason: str) -> Callable[[Config, str], None]:
    def apply(config: Config, text: str) -> None:
        raise ConfigError(reason)

    return apply


def _nothing(config: Config, text: str) -> None:
    """Accept what every machine has today."""


OPTIONS = (
    Option("a", "", "local APIC is in xAPIC mode (default)", _flag("x86.x2apic", False)),
    Option("A", "", "create ACPI tables (default)", _flag("acpi_tables")),
    Option("b", "", "", _refuse("-b: there is no bvm console\n        use a serial port: -s 1,lpc -l com1,stdio")),
    Option("c", "TOPOLOGY", "number of CPUs and/or topology specification", _set_cpus),
    Option("C", "", "include guest memory in core file", _flag("memory.guest_in_core")),
    Option("D", "", "destroy on power-off", _flag("destroy_on_poweroff")),
    Option("e", "", "exit on unhandled I/O access", _flag("x86.strictio")),
    Option(
        "f",
        "NAME,string|file=DATA",
        "",
        _refuse("-f: there is no fw_cfg, as no boot ROM could read it\n        -o cmdline=TEXT reaches a Linux kernel"),
    ),
    Option("g", "PORT", "", _refuse("-g: there is no bvm debug port\n        leave it out")),
    Option("G", "[w][ADDRESS:]PORT", "", _set_debugger),
    Option("H", "", "vmexit from the guest on HLT", _flag("x86.vmexit_on_hlt")),
    Option("I", "", "no effect: there is always an I/O APIC", _nothing),
    Option("k", "FILE", "key=value flat config file", lambda config, path: config.load(path)),
    Option("K", "LAYOUT", "", _to("keyboard.layout")),
    Option("l", "DEVICE", "LPC device configuration; -l help lists devices", _set_lpc),
    Option("m", "SIZE", "memory size in MB, or with K, M, G, T", _to("memory.size")),
    Option("n", "DOMAIN", "", _set_domain),
    Option("o", "VARIABLE=VALUE", "set config 'var' to 'value'", _set_option),
    Option("p", "VCPU:HOSTCPU", "pin 'vcpu' to 'hostcpu'", _set_pin),
    Option("P", "", "vmexit from the guest on pause", _flag("x86.vmexit_on_pause")),
    Option(
        "r", "FILE", "", _refuse("-r: snapshots cannot be restored\n        leave it out, and start the guest afresh")
    ),
    Option("S", "", "guest memory cannot be swapped", _flag("memory.wired")),
    Option("u", "", "RTC keeps UTC time", _flag("rtc.use_localtime", False)),
    Option("U", "UUID", "UUID", _to("uuid")),
    Option("w", "", "ignore unimplemented MSRs", _flag("x86.strictmsr", False)),
    Option("W", "", "force virtio to use single-vector MSI", _flag("virtio_msix", False)),
    Option("x", "", "local APIC is in x2APIC mode", _flag("x86.x2apic")),
    Option("Y", "", "disable MPtable generation", _flag("x86.mptable", False)),
)
"""All options but -s, which needs the device models, and -h. Those without a line of help only say what to do instead."""
