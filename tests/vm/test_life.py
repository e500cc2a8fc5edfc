# SPDX-License-Identifier: BSD-2-Clause
"""Machines' lives, with a bhyve that is none."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ptnetmap.bhyve.control import client
from ptnetmap.errors import ConfigError, HypervisorError
from ptnetmap.vm import keeper, store
from ptnetmap.vm.definition import Definition

DEADLINE = 60
PROGRAM = [sys.executable, "-m", "ptnetmap.cli.main", "vm"]


@pytest.fixture
def machine(fake, disk, vm):
    """Make and start a machine whose guest behaves so."""

    def make(manner="obeys", name="web", *, started=True):
        assert vm("create", name, "--image", disk, "--cmdline", manner)[0] == 0
        if started:
            assert vm("start", name) == (0, "", "")
        return name

    return make


def until(condition):
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def states(vm):
    code, out, _ = vm("list", "--json")
    assert code == 0
    return {entry["name"]: (entry["state"], entry["ended"]) for entry in json.loads(out)}


def test_help_imports_nothing_heavy():
    code = (
        "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from ptnetmap.cli.main import main; main(['vm', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numba", "numpy", "asyncio", "tomllib", "ptnetmap.vm"} & set(done.stderr.split())
    assert "examples:" in done.stdout


def test_create_start_stop_and_delete(machine, vm, disk):
    machine()
    assert states(vm) == {"web": ("running", "")}

    assert vm("stop", "web")[0] == 0
    assert states(vm) == {"web": ("stopped", "powered off")}
    assert vm("delete", "web")[0] == 0
    assert states(vm) == {}
    assert disk.exists()
    assert list(store.directory().iterdir()) == []


def test_what_create_and_a_dry_run_print_is_what_runs(machine, vm, disk):
    code, dry, _ = vm("create", "web", "--image", disk, "--dry-run")
    assert code == 0
    assert states(vm) == {}
    machine("ignores")
    assert vm("start", "web", "--dry-run")[1].replace("-o cmdline=ignores ", "") == dry

    pid = client.describe("web")["pid"]
    words = Path(f"/proc/{pid}/cmdline").read_text()
    assert words.split("\0")[2:-1] == shlex.split(vm("start", "web", "--dry-run")[1])[1:]


def test_a_second_machine_of_a_name_is_refused_and_the_first_stays(machine, vm, disk):
    machine(started=False)
    before = (store.place("web") / store.CONFIG).read_bytes()

    code, _, err = vm("create", "web", "--image", disk, "--cpus", "2")

    assert (code, "there is a virtual machine web already" in err) == (1, True)
    assert (store.place("web") / store.CONFIG).read_bytes() == before


def test_a_machine_runs_once_and_is_not_removed_meanwhile(machine, vm):
    machine()
    for action, message in (("start", "is running already"), ("delete", "is running\n")):
        code, _, err = vm(action, "web")
        assert code == 1
        assert message in err
    assert states(vm) == {"web": ("running", "")}


def test_two_starts_at_once_start_one(machine, disk):
    machine(started=False)
    both = [subprocess.Popen([*PROGRAM, "start", "web"], stderr=subprocess.PIPE) for _ in range(2)]
    errors = [each.communicate(timeout=DEADLINE)[1] for each in both]
    assert sorted(each.returncode for each in both) == [0, 1]
    assert any(b"is running already" in each for each in errors)


def test_two_machines_do_not_write_to_one_disk(machine, vm):
    machine()
    machine(name="other", started=False)
    code, _, err = vm("start", "other")
    assert (code, "two would destroy it" in err) == (1, True)
    vm("stop", "web")
    assert vm("start", "other")[0] == 0


def test_a_killed_machine_is_stopped_and_starts_again(machine, vm):
    machine()
    os.kill(client.describe("web")["pid"], signal.SIGKILL)
    until(lambda: not store.is_running("web"))
    assert states(vm) == {"web": ("stopped", "killed by signal 9")}
    assert vm("start", "web")[0] == 0


def test_a_machine_whose_keeper_was_killed_runs_and_can_be_stopped(machine, vm):
    machine()
    pid = client.describe("web")["pid"]
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    os.kill(int(parent), signal.SIGKILL)
    assert states(vm)["web"][0] == "running"
    assert vm("stop", "web")[0] == 0
    assert states(vm)["web"][0] == "stopped"


def test_a_machine_that_cannot_start_says_why(machine, vm):
    machine("fails", started=False)
    code, _, err = vm("start", "web")
    assert code == 1
    assert "did not start" in err
    assert "bhyve: there is no /dev/kvm" in err
    assert states(vm)["web"][0] == "stopped"


@pytest.mark.parametrize(
    ("manner", "message"),
    [("ignores", "was asked to shut down, and has not within 0.2 s"), ("deaf", "does not listen")],
)
def test_a_guest_that_ignores_the_power_button_runs_on_until_forced(manner, message, machine, vm):
    machine(manner)
    code, _, err = vm("stop", "web", "--timeout", "0.2")
    assert code == 1
    assert message in err
    assert "--force" in err
    assert states(vm)["web"][0] == "running"
    assert vm("stop", "web", "--force")[0] == 0
    assert states(vm)["web"][0] == "stopped"


@pytest.mark.parametrize("action", ["start", "stop", "console", "delete"])
def test_a_machine_that_is_none_is_not_found(action, fake, vm):
    code, _, err = vm(action, "none")
    assert code == 1
    assert err.startswith("ptnetmap: there is no virtual machine none\n")


def test_a_console_reads_and_writes_com1_and_lives_through_a_reboot(machine, vm):
    machine()
    with subprocess.Popen([*PROGRAM, "console", "web"], stdin=-1, stdout=-1, stderr=-1) as console:
        first = console.stdout.readline()
        assert first.startswith(b"login: ")
        assert "somebody is attached" in vm("console", "web")[2]
        console.stdin.write(b"r")
        console.stdin.flush()
        second = console.stdout.readline().lstrip(b"r")
        assert second.startswith(b"login: ")
        assert second != first
        console.stdin.write(b"\x1d")
        console.stdin.flush()
        assert console.wait(DEADLINE) == 0
        assert b"detached from web" in console.stderr.read()
    assert states(vm)["web"][0] == "running"


def test_a_console_ends_with_a_killed_machine(machine):
    machine()
    with subprocess.Popen([*PROGRAM, "console", "web"], stdin=-1, stdout=-1, stderr=-1) as console:
        assert console.stdout.readline()
        os.kill(client.describe("web")["pid"], signal.SIGKILL)
        assert console.wait(DEADLINE) == 0
        assert b"the end of web" in console.stderr.read()


def test_an_image_that_went_bad_is_found_at_start(machine, vm, disk):
    machine(started=False)
    disk.write_bytes(b"QFI\xfb" + bytes(508))
    assert "qemu-img convert" in vm("start", "web")[2]
    disk.unlink()
    assert "No such file" in vm("start", "web")[2]
    assert states(vm)["web"] == ("stopped", "")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_no_space_and_no_permission_leave_nothing(code, places, monkeypatch):
    def fail(path, data):
        path.write_bytes(data[:1])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(store, "_write", fail)
    with pytest.raises(HypervisorError, match="XDG_STATE_HOME") as failure:
        store.create(Definition("web", image="/d.raw"), b"seed")
    assert failure.value.errno == code
    assert list(store.directory().iterdir()) == []


def test_of_many_that_create_one_name_one_does(places):
    outcomes = []

    def create(cpus):
        try:
            store.create(Definition("web", image="/d.raw", cpus=cpus))
            outcomes.append(cpus)
        except ConfigError as error:
            outcomes.append(error.errno)

    threads = [threading.Thread(target=create, args=(cpus,)) for cpus in range(30, 38)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(errno.EEXIST) == 7
    assert store.load("web").cpus in outcomes
    assert len(list(store.directory().iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "2Q"], "invalid memsize '2Q'"),
        (["--cpus", "0"], "cannot have 0 CPUs"),
        (["--user", "me"], "add --seed"),
        (["--seed"], "would let nobody in"),
        (["--kernel", "/none"], "cannot open the kernel /none"),
    ],
)
def test_a_wrong_option_creates_nothing(words, message, fake, disk, vm):
    code, _, err = vm("create", "web", "--image", disk, *words)
    assert code == 1
    assert message in err
    assert states(vm) == {}


def test_a_seed_is_a_second_disk_of_its_machines(fake, disk, vm, places):
    key = places / "key.pub"
    key.write_text("ssh-ed25519 AAAA me\n")
    code, out, _ = vm("create", "web", "--image", disk, "--seed", "--ssh-key", key)
    assert code == 0
    seed = store.place("web") / store.SEED
    assert f"-s 3,virtio-blk,{seed},ro" in out
    assert seed.read_bytes()[16 * 2048 + 40 :].startswith(b"CIDATA ")
    vm("delete", "web")
    assert not seed.exists()


def test_the_keeper_runs_our_bhyve_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("PTNETMAP_BHYVE", raising=False)
    assert keeper.program()[1:] == ["-m", "ptnetmap.cli.bhyve"]
