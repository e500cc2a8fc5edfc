# SPDX-License-Identifier: BSD-2-Clause
import errno
import json
import subprocess
import sys

import pytest

from ptnetmap.bhyve.config import Config
from ptnetmap.cli import bhyve
from ptnetmap.errors import ConfigError, GuestError, HypervisorError

RUN = "import sys; from ptnetmap.cli.bhyve import main; sys.exit(main())"


class Model:
    def parse_options(self, text):
        return {"path": text}


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """Device models that import nothing."""
    monkeypatch.setattr(bhyve, "_models", lambda: {"hostbridge": Model(), "lpc": Model(), "virtio-blk": Model()})


@pytest.fixture
def machine():
    """A machine that runs nothing, and remembers its configurations in ``seen``."""

    class Machine:
        def __init__(self):
            self.seen = []
            self.outcome = 1

        def __call__(self, config):
            self.seen.append(config)
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

    return Machine()


def program(*arguments, before="", **options):
    return subprocess.run([sys.executable, "-c", before + RUN, *arguments], capture_output=True, **options)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["-l", "help"], ["-Z"], ["-m", "2Q", "vm"]])
def test_answers_and_refusals_import_nothing_heavy(arguments):
    listing = "import sys, atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); "
    done = program(*arguments, before=listing, text=True)

    assert not {"numba", "numpy", "llvmlite", "asyncio", "argparse", "pathlib"} & set(done.stderr.split())


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_the_exit_code_is_the_machines(status, machine):
    machine.outcome = status

    assert bhyve.main(["-m", "1G", "vm"], run=machine) == status


def test_the_machine_gets_a_whole_and_frozen_configuration(machine):
    bhyve.main(["-s", "0,hostbridge", "-s", "1,lpc", "-l", "com1,stdio", "-AHP", "-m", "2G", "netmapvm"], run=machine)

    (config,) = machine.seen
    assert isinstance(config, Config)
    assert (config["name"], config["memory.size"], config["lpc.com1.path"]) == ("netmapvm", "2G", "stdio")
    with pytest.raises(ConfigError, match="too late"):
        config.set("name", "other")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HypervisorError(errno.ENOENT, "there is no /dev/kvm\n        load the module"), 4),
        (GuestError(errno.EFAULT, "kernel.elf is truncated"), 4),
        (ConfigError("disk.img: no such file"), 4),
        (ConfigError("invalid memsize", status=64), 64),
    ],
)
def test_an_error_is_a_message_and_never_looks_like_the_guests_end(error, status, machine, capsys):
    machine.outcome = error

    assert bhyve.main(["vm"], run=machine) == status
    assert capsys.readouterr().err == f"bhyve: {error}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-s", "2:2,lpc", "-s", "2:2,lpc", "vm"], 4, "bhyve: pci slot 2:2 already occupied!\n"),
        (["-m", "2Q", "vm"], 64, "bhyve: invalid memsize '2Q'\n"),
        (["-p", "0:x", "vm"], 64, "bhyve: invalid vcpu pinning configuration '0:x'\n"),
        (["-l", "com9,stdio", "vm"], 64, "bhyve: invalid lpc device configuration 'com9,stdio'\n"),
        (["-c", "cpus=4,cores=3", "vm"], 4, "bhyve: Topology (4 sockets, 3 cores, 1 threads) does not match 4 vCPUs\n"),
        (["../vm"], 4, "bhyve: invalid name for a virtual machine: '../vm'\n"),
    ],
)
def test_a_wrong_option_starts_nothing(arguments, status, message, machine, capsys):
    assert bhyve.main(arguments, run=machine) == status
    assert machine.seen == []
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [[], ["-Z", "vm"], ["a", "b"], ["\u2010s", "0,hostbridge", "vm"]])
def test_a_command_line_that_is_none_is_shown_the_usage_and_ends_with_4(arguments, machine, capsys):
    assert bhyve.main(arguments, run=machine) == 4
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("bhyve: ")
    assert lines[-1].startswith("Usage: bhyve [options] vmname")


def test_help_and_lists_go_to_stdout_and_end_with_0(machine, capsys):
    assert bhyve.main(["--help"], run=machine) == 0
    assert "\nexamples:\n" in capsys.readouterr().out
    assert bhyve.main(["-s", "help"], run=machine) == 0
    assert capsys.readouterr().out == "hostbridge\nlpc\nvirtio-blk\n"
    assert bhyve.main(["-s", "help", "--json"], run=machine) == 0
    assert json.loads(capsys.readouterr().out) == ["hostbridge", "lpc", "virtio-blk"]
    assert machine.seen == []


def test_a_dump_starts_nothing_and_ends_a_restarting_loop(machine, capsys):
    assert bhyve.main(["-m", "2G", "-o", "config.dump=1", "vm"], run=machine) == 1
    assert machine.seen == []
    assert "memory.size=2G\n" in capsys.readouterr().out


def test_what_is_hardly_meant_is_remarked_on_and_run(machine, capsys):
    assert bhyve.main(["-l", "com1,stdio", "vm"], run=machine) == 1
    assert "bhyve: note: com1: not there without an LPC bridge; add -s 31,lpc\n" in capsys.readouterr().err
    assert len(machine.seen) == 1


def test_an_interrupt_ends_with_130_and_no_traceback(machine, capsys):
    machine.outcome = KeyboardInterrupt()

    assert bhyve.main(["vm"], run=machine) == 130
    assert capsys.readouterr().err == ""


def test_a_path_that_is_no_utf_8_is_dumped_as_it_was_given():
    done = program("-o", b"disk=/\xff\xfe", "-o", "config.dump=1", "vm")

    assert done.returncode == 1
    assert b"disk=/\xff\xfe\n" in done.stdout


def test_the_real_device_models_are_listed():
    done = program("-s", "help", text=True)

    assert done.returncode == 0, done.stderr
    assert {"virtio-blk", "virtio-rnd"} <= set(done.stdout.split())
