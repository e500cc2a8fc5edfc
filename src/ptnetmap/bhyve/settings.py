# SPDX-License-Identifier: BSD-2-Clause
"""What the variables of a configuration mean: their types and defaults, and the machine that they describe.

:func:`check` refuses, before anything is started, what cannot be: wrong types, contradicting numbers of CPUs, memory
that does not fit, device nodes without a device, and what bhyve has elsewhere and this one has not. The other functions
read one part each; they raise ConfigError too, whose ``status`` is the exit code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ptnetmap.bhyve.config import Config, memory_value
from ptnetmap.bhyve.status import USAGE
from ptnetmap.errors import ConfigError

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "acpi_tables": "true",
        "destroy_on_poweroff": "false",
        "memory.size": "256M",
        "memory.wired": "false",
        "memory.guest_in_core": "false",
        "memory.hugepages": "false",
        "rtc.use_localtime": "true",
        "virtio_msix": "true",
        "x86.mptable": "true",
        "x86.x2apic": "false",
        "x86.strictio": "false",
        "x86.strictmsr": "true",
        "x86.vmexit_on_hlt": "false",
        "x86.vmexit_on_pause": "false",
        "gdb.port": "0",
        "gdb.wait": "false",
        "config.dump": "false",
    }
)
"""Variables that always have a value (bhyve_config(5)). ``acpi_tables`` is true, as in today's bhyve, where -A is implied;
``memory.hugepages``, and ``kernel``, ``initrd`` and ``cmdline``, which have no default, are this bhyve's own."""

MAX_CPUS = 65535
MAX_HOST_CPUS = 1024
"""CPU_SETSIZE: bits of a cpu_set_t."""

LOW_MEMORY = 3 << 30
"""Bytes of memory below the PCI hole, at most."""

MAX_MEMORY = 0xD000000000 - (4 << 30) + LOW_MEMORY
"""Bytes of memory that end before the window of 64-bit BARs (netmap-abi 5a.11)."""

PAGE = 4096
SERIAL_PORTS = ("com1", "com2", "com3", "com4")

BACKENDS: Mapping[str, str] = MappingProxyType(
    {
        "null": "null",
        "tap": "tap",
        "vmnet": "tap",
        "netmap": "netmap",
        "vale": "netmap",
        "ptnetmap": "ptnetmap",
        "ptvale": "ptnetmap",
    }
)
"""The type of network backend for each beginning of its name (netmap-abi 5a.10, bhyve_config(5))."""

_BOOLEANS = tuple(key for key, value in DEFAULTS.items() if value in ("true", "false"))
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_SLOT = re.compile(r"pci\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]?)\.(0|[1-9])\.(.+)")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Topology(NamedTuple):
    """Virtual CPUs, and how they sit: ``cpus == sockets * cores * threads``."""

    cpus: int
    sockets: int
    cores: int
    threads: int


class Slot(NamedTuple):
    """A device of the PCI bus as configured: where, which model, and everything below its node."""

    bus: int
    slot: int
    function: int
    device: str
    options: Mapping[str, str]


def new_config() -> Config:
    """Return a configuration with nothing but :data:`DEFAULTS`."""
    return Config(DEFAULTS)


def check(config: Config) -> None:
    """Raise ConfigError for the first thing in ``config`` that no machine can be."""
    check_name(config.get("name", ""))
    topology(config)
    memory_size(config)
    pinning(config)
    for key in _BOOLEANS:
        config.boolean(key)
    if "uuid" in config and not _UUID.fullmatch(config["uuid"]):
        raise ConfigError(
            f"invalid uuid '{config['uuid']}'\n        write it as 01234567-89ab-cdef-0123-456789abcdef", status=USAGE
        )
    serial_ports(config)
    for slot in slots(config):
        if "backend" in slot.options:
            backend_type(slot.options["backend"], slot.options.get("type"))
    _refuse_missing(config)


def is_name(name: str) -> bool:
    """Whether ``name`` can be a virtual machine's: it becomes part of a file's name."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Raise ConfigError if ``name`` cannot be a virtual machine's."""
    if not is_name(name):
        raise ConfigError(
            f"invalid name for a virtual machine: '{name}'\n"
            "        use letters, digits and _, and after the first of them also . + -"
        )


def topology(config: Config) -> Topology:
    """Return the virtual CPUs of ``cpus``, ``sockets``, ``cores`` and ``threads``; sockets make up what is not said."""

    def read(key: str, default: int) -> int:
        return config.integer(key, 1, MAX_CPUS) if key in config else default

    cpus = read("cpus", 1)
    cores, threads = read("cores", 1), read("threads", 1)
    sockets = read("sockets", cpus)
    total = sockets * cores * threads
    if total > MAX_CPUS:
        raise ConfigError(f"Computed number of vCPUs too high: {total}\n        the most is {MAX_CPUS}")
    if "cpus" in config and cpus != total:
        raise ConfigError(
            f"Topology ({sockets} sockets, {cores} cores, {threads} threads) does not match {cpus} vCPUs\n"
            "        leave cpus out, or let it be sockets x cores x threads"
        )
    return Topology(total, sockets, cores, threads)


def memory_size(config: Config) -> int:
    """Return the bytes of guest memory, whole pages."""
    text = config["memory.size"]
    size = memory_value(text)
    if size < 1 << 20 or size > MAX_MEMORY or size % PAGE:
        raise ConfigError(
            f"invalid memsize '{text}'\n"
            f"        use whole pages of {PAGE} bytes, from 1M to {MAX_MEMORY >> 30}G: 64-bit BARs lie above",
            status=USAGE,
        )
    return size


def pinning(config: Config) -> dict[int, frozenset[int]]:
    """Return the host CPUs of each virtual CPU that is pinned, from ``vcpu.N.cpuset`` lists such as ``0,4-7``."""
    pinned = {}
    for cpu in range(topology(config).cpus):
        key = f"vcpu.{cpu}.cpuset"
        if key in config:
            pinned[cpu] = _cpuset(cpu, config[key])
    return pinned


def _cpuset(cpu: int, text: str) -> frozenset[int]:
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdecimal() and (not dash or (last.isascii() and last.isdecimal()))):
            raise ConfigError(f"invalid cpuset for vcpu {cpu}: '{text}'\n        write it as 0,4-7")
        low, high = int(first), int(last or first)
        if high >= MAX_HOST_CPUS:
            raise ConfigError(f"hostcpu '{high}' outside valid range from 0 to {MAX_HOST_CPUS - 1}")
        if low > high:
            raise ConfigError(f"Invalid hostcpu range {low}-{high}\n        write the lower number first")
        chosen.update(range(low, high + 1))
    return frozenset(chosen)


def slots(config: Config) -> list[Slot]:
    """Return the devices of the PCI bus, by bus, slot and function."""
    nodes: dict[tuple[int, int, int], dict[str, str]] = {}
    for key in config:
        if not key.startswith("pci."):
            continue
        match = _SLOT.fullmatch(key)
        place = (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 8)
        if match is None or place[0] > 255 or place[1] > 31 or place[2] > 7:
            raise ConfigError(
                f"Invalid PCI node in {key}\n"
                "        write pci.BUS.SLOT.FUNCTION.VARIABLE, up to pci.255.31.7, in decimal without leading zeros"
            )
        nodes.setdefault(place, {})[match[4]] = config[key]
    found = []
    for place, options in sorted(nodes.items()):
        if "device" not in options:
            node = ".".join(map(str, place))
            raise ConfigError(
                f"pci.{node} does not say which device it is\n        set pci.{node}.device; bhyve -s help lists them"
            )
        found.append(Slot(*place, options["device"], MappingProxyType(options)))
    return found


def serial_ports(config: Config) -> dict[str, str]:
    """Return the serial ports that are connected, ``com1`` to ``com4``, and to what: ``stdio``, a path, tcp=ADDRESS."""
    return {port: config[f"lpc.{port}.path"] for port in SERIAL_PORTS if f"lpc.{port}.path" in config}


def backend_type(name: str, kind: str | None = None) -> str:
    """Return the type of a network backend: null, tap, netmap or ptnetmap.

    ``name`` is what a device's ``backend`` says, ``kind`` what its ``type`` says, if anything. Raises ConfigError for
    one that is not known, where bhyve of 2015 left the device without a link.
    """
    for start, found in BACKENDS.items():
        if kind in (found, start) or (kind is None and name.startswith(start)):
            return found
    asked = name if kind is None else f"{name} of type {kind}"
    reason = "has none of FreeBSD's own" if (kind or name).startswith(("netgraph", "slirp")) else "does not know it"
    raise ConfigError(
        f"net backend initialization failed: {asked}\n"
        f"        Linux {reason}; use tapN, valeX:Y, netmap:IF, ptvaleX:Y, ptnetmap:IF or null"
    )


def remarks(config: Config) -> list[str]:
    """Return what is allowed, but hardly meant: one line each."""
    devices = [slot.device for slot in slots(config)]
    found = []
    ports = ", ".join(serial_ports(config))
    if ports and "lpc" not in devices:
        found.append(f"{ports}: not there without an LPC bridge; add -s 31,lpc")
    if devices and not {"hostbridge", "amd_hostbridge"} & set(devices):
        found.append("most guests need a host bridge; add -s 0,hostbridge")
    return found


def _refuse_missing(config: Config) -> None:
    """Refuse what a machine would silently be without."""
    for key, remedy in _MISSING.items():
        if config.has_node(key) or (key in config and config[key] != DEFAULTS.get(key)):
            raise ConfigError(f"{key} is set, and this bhyve does not have it\n        {remedy}")


_MISSING = {
    "gdb.port": "leave out -G: there is no debug server",
    "domains": "leave out -n: the guest has one NUMA domain",
    "tpm": "leave out -l tpm",
    "lpc.bootrom": "leave out -l bootrom: a kernel is booted directly, -o kernel=FILE -o initrd=FILE -o cmdline=TEXT",
    "lpc.pc-testdev": "leave out -l pc-testdev",
}
