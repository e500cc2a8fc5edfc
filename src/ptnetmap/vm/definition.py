# SPDX-License-Identifier: BSD-2-Clause
"""What a virtual machine is made of, as a TOML file that people read and edit, and as a command line of bhyve's."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptnetmap.bhyve.settings import check_name
from ptnetmap.errors import ConfigError

FIRST_SLOT = 2
LAST_SLOT = 31


@dataclass(frozen=True)
class Definition:
    """A machine. Paths are absolute; ``memory`` is as ``bhyve -m``'s, ``net`` and ``passthrough`` are port names."""

    name: str
    image: str
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    cpus: int = 1
    memory: str = "1G"
    net: tuple[str, ...] = ()
    passthrough: tuple[str, ...] = ()
    seed: str = ""

    def check(self) -> None:
        """Raise ConfigError if it cannot be; files are not looked at."""
        check_name(self.name)
        if not self.image:
            raise ConfigError(f"the virtual machine {self.name} has no disk image\n        give --image FILE")
        for key in ("image", "seed"):
            path = getattr(self, key)
            if "," in path or "=" in path.partition("/")[0]:
                raise ConfigError(
                    f"the {key} {path} has a comma or = in its name, which bhyve's options cannot have\n"
                    "        rename it, or make a symbolic link to it"
                )
        if self.initrd and not self.kernel:
            raise ConfigError("an initrd without a kernel\n        give --kernel FILE too")
        if not 1 <= self.cpus <= 255:
            raise ConfigError(f"a machine cannot have {self.cpus} CPUs\n        give 1 to 255")
        if self.slots() > LAST_SLOT - FIRST_SLOT + 1:
            raise ConfigError("more devices than bus 0 has slots\n        give fewer of --net and --passthrough")

    def slots(self) -> int:
        """How many slots its devices take, beside the host bridge and the LPC bridge."""
        return 2 + bool(self.seed) + len(self.net) + 2 * len(self.passthrough)

    def command(self, console: str) -> list[str]:
        """Return bhyve's arguments; ``console`` is what com1 is connected to, as after ``-l com1,``."""
        words = ["-c", str(self.cpus), "-m", self.memory, "-A", "-H", "-P"]
        devices = [f"virtio-blk,{self.image}"]
        if self.seed:
            devices.append(f"virtio-blk,{self.seed},ro")
        devices.append("virtio-rnd")
        devices += [f"virtio-net,{port}" for port in self.net]
        for port in self.passthrough:
            devices += ["ptnetmap-memdev", f"ptnet,{_passed(port)}"]
        for slot, device in enumerate(["hostbridge", "lpc", *devices]):
            words += ["-s", f"{slot},{device}"]
        words += ["-l", f"com1,{console}"]
        for key in ("kernel", "initrd", "cmdline"):
            if value := getattr(self, key):
                # bhyve would take a percent sign for a reference to another variable.
                words += ["-o", f"{key}={value.replace('%', '%%')}"]
        return [*words, self.name]


def _passed(port: str) -> str:
    """Return the back end of ``ptnet`` for a port: ptvale0:1, or ptnetmap:x{1."""
    return port if port.startswith("pt") else f"pt{port}"


def dumps(definition: Definition) -> str:
    """Return the file."""
    lines = ["# A virtual machine of `ptnetmap vm`. Changes count from its next start on."]
    for field in dataclasses.fields(definition):
        if field.name != "name":
            lines.append(f"{field.name} = {_value(getattr(definition, field.name))}")
    return "\n".join(lines) + "\n"


def loads(name: str, text: str, source: Path) -> Definition:
    """Read the file of the machine ``name``; raises ConfigError, which names ``source``."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}\n        correct it with an editor") from error
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Definition):
        if field.name == "name" or field.name not in found:
            continue
        value: Any = found.pop(field.name)
        kind: Any = {"int": int, "str": str}.get(str(field.type), list)
        if type(value) is not kind or (kind is list and not all(isinstance(each, str) for each in value)):
            what = {int: "a number", str: "text"}.get(kind, "a list of texts")
            raise ConfigError(f"{source}: {field.name} is not {what}\n        correct it with an editor")
        values[field.name] = tuple(value) if kind is list else value
    if found or "image" not in values:
        what = f"unknown: {', '.join(found)}" if found else "there is no image"
        raise ConfigError(f"{source}: {what}\n        correct it with an editor")
    definition = Definition(name, **values)
    definition.check()
    return definition


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's texts are TOML's, but for DEL, which only JSON has as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
