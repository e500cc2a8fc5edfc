# SPDX-License-Identifier: BSD-2-Clause
import asyncio
import errno
import json
import os
import subprocess
import sys
import threading

import pytest

from ptnetmap.bhyve.control import client
from ptnetmap.bhyve.control.server import ControlServer
from ptnetmap.cli.bhyvectl import main
from ptnetmap.errors import HypervisorError

DEADLINE = 30
STATS = {"vcpu0": {"vm exits": 12, "of these I/O ports": 3}, "vcpu1": {"vm exits": 7}}


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "ptnetmap" / "bhyve"


@pytest.fixture
def machine(runtime):
    """Machines that answer in a thread of this process; each has the orders that it was given in ``orders``."""
    ending = []

    def start(name="vm", **actions):
        orders = []
        known = {
            "get-stats": lambda: STATS,
            "inject-nmi": lambda: orders.append("nmi"),
            "force-reset": lambda: orders.append("reset"),
            "force-poweroff": lambda: orders.append("poweroff"),
            **{key.replace("_", "-"): action for key, action in actions.items()},
        }
        up, loop, end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

        async def serve():
            control = ControlServer(name, known)
            await control.start()
            up.set()
            await end.wait()
            await control.close()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        assert up.wait(DEADLINE)
        ending.append((thread, loop, end))
        return orders

    yield start
    for thread, loop, end in ending:
        loop.call_soon_threadsafe(end.set)
        thread.join(DEADLINE)
        loop.close()


def test_the_list_names_machines_and_processes(machine, capsys):
    machine("long-name")
    machine("vm", info=lambda: {"state": "paused"})

    assert main(["--list"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["NAME", "PID", "STATE"],
        ["long-name", str(os.getpid()), "running"],
        ["vm", str(os.getpid()), "paused"],
    ]
    assert main(["--list", "--json"]) == 0
    assert [info["name"] for info in json.loads(capsys.readouterr().out)] == ["long-name", "vm"]


def test_an_empty_list_is_no_error(runtime, capsys):
    assert main(["--list"]) == 0
    assert main(["--list", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_counters_are_printed_for_each_part_or_one_cpu(machine, capsys):
    machine()

    assert main(["--vm=vm", "--get-stats"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "vcpu0 stats:",
        f"{'vm exits':40}\t12",
        f"{'of these I/O ports':40}\t3",
        "vcpu1 stats:",
        f"{'vm exits':40}\t7",
    ]
    assert main(["--vm", "vm", "--get-stats", "--cpu=1"]) == 0
    assert "vcpu0" not in capsys.readouterr().out
    assert main(["--vm=vm", "--get-stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"vm": "vm", "stats": STATS}


def test_orders_are_given_in_bhyvectls_order(machine, capsys):
    orders = machine()

    assert main(["--vm=vm", "--force-poweroff", "--force-reset", "--inject-nmi", "--json"]) == 0
    assert orders == ["nmi", "reset", "poweroff"]
    assert json.loads(capsys.readouterr().out) == {
        "vm": "vm",
        "inject_nmi": True,
        "force_reset": True,
        "force_poweroff": True,
    }


def test_a_power_button_that_nobody_listens_to_is_an_error(machine, capsys):
    machine("hears", power_button=lambda: True)
    machine("deaf", power_button=lambda: False)

    assert main(["--vm=hears", "--power-button"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["--vm=deaf", "--power-button"]) == 1
    assert capsys.readouterr().err.startswith("bhyvectl: the guest of deaf does not listen to the power button\n")


def test_destroy_ends_the_process_of_the_machine(runtime, monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(client, "destroy", ended.append)

    assert main(["--vm=vm", "--destroy"]) == 0
    assert ended == ["vm"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--get-stats", "--cpu=9"], "there is no virtual CPU 9\n        there are vcpu0, vcpu1"),
        (["--force-reset"], "KVM says no"),
        (["--inject-nmi"], "the command failed: ZeroDivisionError"),
    ],
)
def test_what_the_machine_refuses_is_a_message_and_exit_code_1(arguments, message, machine, capsys):
    def refuse():
        raise HypervisorError(errno.EIO, "KVM says no")

    machine(force_reset=refuse, inject_nmi=lambda: 1 // 0)

    assert main(["--vm=vm", *arguments]) == 1
    assert f"bhyvectl: {message}" in capsys.readouterr().err


def test_counters_that_are_none_are_refused(machine, capsys):
    machine(get_stats=lambda: ["nonsense"])

    assert main(["--vm=vm", "--get-stats"]) == 1
    assert "something else than counters" in capsys.readouterr().err


@pytest.mark.parametrize("order", ["--get-stats", "--destroy", "--force-reset"])
def test_a_machine_that_does_not_run_is_a_message_and_exit_code_1(order, runtime, capsys):
    assert main(["--vm=vm", order]) == 1
    assert capsys.readouterr().err == (
        "bhyvectl: no virtual machine vm is running\n        bhyvectl --list shows those that are\n"
    )


def test_a_name_cannot_lead_elsewhere(runtime, capsys):
    assert main(["--vm=../x", "--destroy"]) == 1
    assert "invalid name for a virtual machine: '../x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["--vm=vm"], ["--destroy"], ["--vm=vm", "--create"], ["--list", "--vm=vm"], ["--cpu=x"], ["--cpu=-1"], ["x"]],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_with_1_as_bhyvectl_always_has(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 1
    assert "usage: bhyvectl" in capsys.readouterr().err


def test_help_shows_examples_and_imports_nothing_heavy():
    code = (
        "import sys, atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); "
        "from ptnetmap.cli.bhyvectl import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0
    assert "bhyvectl --vm=netmapvm --destroy" in done.stdout.partition("examples")[2]
    assert not {"numba", "numpy", "asyncio"} & set(done.stderr.split())
