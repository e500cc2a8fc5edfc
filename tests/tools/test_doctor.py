# SPDX-License-Identifier: BSD-2-Clause
import argparse
import fcntl
import importlib
import json
import math
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.cli import doctor as cli
from ptnetmap.netmap.daemon import place as places
from ptnetmap.tools import doctor
from ptnetmap.tools.doctor import facts, guest, machine, python, service
from ptnetmap.tools.doctor.finding import NOTE, OK, PROBLEM, Finding, from_message
from ptnetmap.tools.doctor.service import Daemon, SocketFile, SocketPlace

pytestmark = pytest.mark.interpreted

VERSIONS = {"numpy": "2.1.0", "numba": "0.62.1", "rich": "13.0"}
MIB = 1 << 20
MINE = SocketPlace("/tmp/netmap-7/socket", "yours", may_start=True)
SYSTEMS = SocketPlace("/run/netmap/socket", "the system's", system=True)
RUNNING = Daemon("0.1.0", 0xABC, 42, 3, 1, "/tmp/netmap-7/socket.log")


def a_socket(mode=0o600, uid=7, gid=70, kind=stat.S_IFSOCK):
    return SocketFile(kind | mode, uid, gid, "netmap")


@pytest.mark.parametrize(
    ("version", "found", "broken", "level", "text"),
    [
        ((3, 11, 2), VERSIONS, {}, OK, "3.11.2, numpy 2.1.0, numba 0.62.1, rich 13.0"),
        ((3, 10, 1), VERSIONS, {}, PROBLEM, "version 3.10.1"),
        ((3, 12, 0), VERSIONS | {"numba": "0.61.2"}, {}, PROBLEM, "numba is version 0.61.2, at least 0.62"),
        ((3, 12, 0), VERSIONS | {"numba": "0.63.0rc1"}, {}, OK, "numba 0.63.0rc1"),
        ((3, 12, 0), {"numpy": "2.0", "rich": "14"}, {"numba": "ImportError: no LLVM"}, PROBLEM, "no LLVM"),
    ],
)
def test_versions_that_will_not_do_are_a_problem(version, found, broken, level, text):
    finding = python.packages(version, found, broken)

    assert finding.level == level
    assert text in finding.text
    assert bool(finding.remedy) == (level == PROBLEM)


@pytest.mark.parametrize(
    ("directory", "sets", "functions", "interpreted", "level"),
    [
        ("/c/1", ["runtime", "daemon"], 90, False, OK),
        ("/c/1", ["runtime"], 90, False, OK),
        ("/c/1", [], 0, False, NOTE),
        (None, [], 0, False, PROBLEM),
        (None, [], 0, True, NOTE),
    ],
)
def test_a_cache_that_cannot_be_written_is_a_problem_and_an_empty_one_is_not(
    directory, sets, functions, interpreted, level
):
    assert python.kernel_cache("/c", directory, sets, functions, interpreted).level == level


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (machine.system("Linux", 64), OK),
        (machine.system("Darwin", 64), PROBLEM),
        (machine.system("Linux", 32), PROBLEM),
        (machine.cpus({0}), NOTE),
        (machine.cpus({0, 3}), OK),
        (machine.isolated("\n"), OK),
        (machine.isolated("2-3\n"), NOTE),
        (machine.clock("tsc"), OK),
        (machine.clock("kvm-clock"), OK),
        (machine.clock(""), OK),
        (machine.clock("hpet"), NOTE),
        (machine.sealing(""), OK),
        (machine.sealing("Invalid argument"), PROBLEM),
        (machine.events(""), OK),
        (machine.events("Operation not permitted"), PROBLEM),
        (machine.kvm(True, True), OK),
        (machine.kvm(True, False), NOTE),
        (machine.kvm(False, False), NOTE),
        (machine.capabilities(1 << 12 | 1 << 13 | 1 << 39), OK),
        (machine.capabilities(1 << 12 | 1 << 13), NOTE),
        (machine.capabilities(1 << 12 | 1 << 13 | 1 << 39, 1 << 20), NOTE),
        (machine.capabilities(1 << 12 | 1 << 13 | 1 << 14 | 1 << 39, 1 << 20), OK),
        (machine.capabilities(1 << 12), NOTE),
        (machine.capabilities(None), NOTE),
    ],
    ids=lambda value: value.text if isinstance(value, Finding) else value,
)
def test_each_fact_of_the_machine_has_its_level(finding, level):
    assert finding.level == level


@pytest.mark.parametrize(
    ("limits", "level", "text"),
    [
        ([], OK, "none"),
        (["max 100000\n"], OK, "none"),
        (["400000 100000"], OK, "4 cores"),
        (["400000 100000", "150000 100000", "max 100000"], NOTE, "1.5 cores"),
        (["nonsense", "1 0", ""], OK, "none"),
    ],
)
def test_the_smallest_quota_counts_and_less_than_two_cores_are_noted(limits, level, text):
    finding = machine.quota(limits)

    assert finding.level == level
    assert text in finding.text


@pytest.mark.parametrize(
    ("hard", "level"), [(64, PROBLEM), (256, PROBLEM), (1024, NOTE), (4096, OK), (1048576, OK), (math.inf, OK)]
)
def test_files_are_judged_by_the_ports_they_are_enough_for(hard, level):
    assert machine.files(min(hard, 1024), hard).level == level


@given(st.integers(0, 2**30))
def test_more_files_are_never_judged_worse(hard):
    order = [PROBLEM, NOTE, OK]

    assert order.index(machine.files(1024, hard).level) <= order.index(machine.files(1024, hard + 1000).level)


@pytest.mark.parametrize(
    ("meminfo", "overcommit", "limit", "level"),
    [
        ({"MemAvailable": 4096 * MIB}, 0, math.inf, OK),
        ({"MemAvailable": 200 * MIB}, 0, math.inf, NOTE),
        ({"MemAvailable": 20 * MIB}, 0, math.inf, PROBLEM),
        ({"MemAvailable": 4096 * MIB}, 0, 20 * MIB, PROBLEM),
        ({"MemAvailable": 4096 * MIB, "CommitLimit": MIB, "Committed_AS": 9 * MIB}, 2, math.inf, NOTE),
        ({"MemAvailable": 4096 * MIB, "CommitLimit": MIB, "Committed_AS": 9 * MIB}, 0, math.inf, OK),
        ({}, 2, math.inf, NOTE),
    ],
)
def test_memory_is_judged_by_what_is_available(meminfo, overcommit, limit, level):
    assert machine.memory(meminfo, overcommit, limit).level == level


# netmapd --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "answered", "level", "text"),
    [
        (MINE, None, OK, "none runs; the first program"),
        (SYSTEMS, None, PROBLEM, "may not start one"),
        (
            MINE,
            RUNNING,
            OK,
            "version 0.1.0, 3 ports, 1 kthread, generation abc, process 42, log /tmp/netmap-7/socket.log",
        ),
        (MINE, Daemon("0.2.0", 1, None, 0, 2), NOTE, "this is 0.1.0"),
        (MINE, "netmap: cannot reach netmapd: permission denied\n        join the group", PROBLEM, "permission denied"),
        (SocketPlace(error="netmap: too long\n   shorten it"), None, NOTE, "no socket"),
    ],
)
def test_netmapd_may_be_absent_where_a_client_starts_it(where, answered, level, text):
    finding = service.daemon(where, answered, "0.1.0")

    assert finding.level == level
    assert text in finding.text


@pytest.mark.parametrize(
    ("file", "euid", "groups", "level"),
    [
        (None, 7, {7}, OK),
        (a_socket(), 7, {7}, OK),
        (a_socket(), 8, {8}, PROBLEM),
        (a_socket(), 0, {0}, OK),
        (a_socket(0o660), 8, {8, 70}, OK),
        (a_socket(0o660), 8, {8}, PROBLEM),
        (a_socket(0o060), 7, {7, 70}, PROBLEM),
        (a_socket(0o666), 8, {8}, NOTE),
    ],
)
def test_permissions_are_those_of_the_owner_the_group_or_all(file, euid, groups, level):
    assert service.permissions(file, euid, groups).level == level


def test_who_is_not_in_the_group_is_told_how_to_join():
    assert "usermod -aG netmap" in service.permissions(a_socket(0o660), 8, {8}).remedy
    assert "usermod" not in service.permissions(a_socket(0o600), 8, {8}).remedy


@pytest.mark.parametrize(
    ("where", "file", "listens", "held", "level"),
    [
        (MINE, None, False, False, OK),
        (MINE, a_socket(), True, True, OK),
        (MINE, a_socket(), False, True, NOTE),
        (MINE, a_socket(), False, False, NOTE),
        (SYSTEMS, a_socket(), False, False, PROBLEM),
        (MINE, a_socket(kind=stat.S_IFREG), False, False, PROBLEM),
    ],
)
def test_a_stale_socket_is_a_problem_where_no_client_replaces_it(where, file, listens, held, level):
    assert service.leftovers(where, file, listens, held, 42).level == level


@pytest.mark.parametrize(
    ("installed", "level"),
    [
        ([], OK),
        (["/etc/systemd/system/netmapd.socket", "/etc/systemd/system/netmapd.service"], OK),
        (["/etc/systemd/system/netmapd.service"], NOTE),
        (["/etc/systemd/system/netmapd.socket"], PROBLEM),
    ],
)
def test_half_of_the_systemd_units_is_worse_than_none(installed, level):
    assert service.units(installed).level == level


def test_an_errors_lines_become_what_was_found_and_what_to_do():
    finding = from_message("socket", "netmap: /x has mode 0755\n        chmod 700 /x\n        or move it")

    assert finding == Finding("socket", PROBLEM, "/x has mode 0755", "chmod 700 /x or move it")


# Facts ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setenv("NETMAP_SOCKET", f"{name}/s")
        yield Path(name)


def test_why_a_socket_is_used_is_told(directory, monkeypatch):
    assert facts.socket_place(None).chosen == "from NETMAP_SOCKET"
    assert facts.socket_place("/x/y").chosen == "from --socket"
    monkeypatch.setattr(places, "SYSTEM", directory)
    monkeypatch.delenv("NETMAP_SOCKET")
    assert facts.socket_place(None).system
    monkeypatch.setattr(places, "SYSTEM", directory / "none")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    assert facts.socket_place(None) == SocketPlace(f"{directory}/netmap/socket", "yours, in XDG_RUNTIME_DIR", True)


def test_a_place_that_nobody_can_use_is_a_problem_and_no_traceback(monkeypatch):
    monkeypatch.setenv("NETMAP_SOCKET", "not/absolute")
    found = {finding.subject: finding for finding in doctor.examine()}

    assert found["socket"].level == PROBLEM
    assert "not an absolute path" in found["socket"].text
    assert not any(finding.text.startswith("cannot be checked") for finding in found.values())


def test_a_daemon_that_holds_its_lock_lives(directory):
    lock = directory / "s.lock"
    assert facts.life_lock(facts.socket_place(None)) == (False, None)
    lock.write_text("77\n")
    assert facts.life_lock(facts.socket_place(None)) == (False, None)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert facts.life_lock(facts.socket_place(None)) == (True, 77)


def test_a_socket_without_listener_is_stale(directory):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
        gone.bind(str(directory / "s"))
    found = {finding.subject: finding for finding in doctor.examine()}

    assert "is stale" in found["leftovers"].text
    assert found["netmapd"].text.startswith("none runs")


def test_a_netmapd_that_does_not_answer_is_a_problem_and_not_waited_for_long(directory, monkeypatch):
    monkeypatch.setattr(facts, "_PATIENCE", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute:
        mute.bind(str(directory / "s"))
        mute.listen(5)
        answer = facts.daemon(facts.socket_place(None))

    assert "has not answered" in answer


def test_a_package_that_cannot_be_imported_is_a_finding(monkeypatch):
    def import_module(name):
        if name == "numba":
            raise RuntimeError("built for\nanother Python")
        return

    monkeypatch.setattr(importlib, "import_module", import_module)
    found, broken = facts.versions()

    assert set(found) == {"numpy", "rich"}
    assert broken == {"numba": "RuntimeError: built for another Python"}


def test_limits_of_all_control_groups_around_count(monkeypatch):
    files = {
        "/proc/self/cgroup": "1:cpu,cpuacct:/old\n0::/a/b\n",
        "/sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
        "/sys/fs/cgroup/a/cpu.max": "150000 100000\n",
        "/sys/fs/cgroup/cpu,cpuacct/old/cpu.cfs_quota_us": "300000\n",
        "/sys/fs/cgroup/cpu,cpuacct/old/cpu.cfs_period_us": "100000\n",
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "/sys/fs/cgroup/a/memory.max": "5000\n",
        "/sys/fs/cgroup/a/memory.current": "2000\n",
    }
    monkeypatch.setattr(facts, "read", lambda path: files.get(str(path), ""))

    assert [limit.strip() for limit in facts.cpu_limits()] == ["300000 100000", "max 100000", "150000 100000"]
    assert facts.memory_left() == 3000


def test_a_machine_that_tells_nothing_is_judged_without_a_traceback(directory, monkeypatch):
    monkeypatch.setattr(facts, "read", lambda path: "")
    findings = list(doctor.examine())

    assert not any(finding.text.startswith("cannot be checked") for finding in findings)


# The program ----------------------------------------------------------------------------------------------------------


def main(*arguments):
    parser = argparse.ArgumentParser(prog="ptnetmap")
    cli.add_to(parser.add_subparsers(required=True))
    options = parser.parse_args(["doctor", *arguments])
    return options.run(options)


@pytest.fixture
def findings(monkeypatch):
    """Let the checks find what the test says."""

    def find(*found):
        monkeypatch.setattr(doctor, "examine", lambda asked: iter(found))

    return find


def test_a_check_that_fails_is_a_problem_by_itself_and_the_others_go_on():
    def broken(asked):
        raise ValueError("no such\nthing")

    found = list(doctor.examine(None, {"a": broken, "b": lambda asked: Finding("b", OK, "fine")}))

    assert [(one.subject, one.level) for one in found] == [("a", PROBLEM), ("b", OK)]
    assert found[0].text == "cannot be checked: ValueError: no such thing"


def test_each_finding_is_a_line_with_what_to_do(findings, capsys):
    findings(Finding("clock", OK, "tsc"), Finding("CPUs", NOTE, "1 usable", "use two"))

    assert main() == 0
    assert capsys.readouterr().out == "OK      clock           tsc\nnote    CPUs            1 usable -> use two\n"


def test_a_problem_makes_the_exit_code_1(findings, capsys):
    findings(Finding("clock", OK, "tsc"), Finding("system", PROBLEM, "Plan 9", "use another"))

    assert main("--quiet") == 1
    assert capsys.readouterr().out == "problem system          Plan 9 -> use another\n"


def test_json_has_all_findings(findings, capsys):
    findings(Finding("clock", OK, "tsc"), Finding("system", PROBLEM, "Plan 9", "use another"))

    assert main("--json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "findings": [
            {"subject": "clock", "level": "OK", "text": "tsc", "remedy": ""},
            {"subject": "system", "level": "problem", "text": "Plan 9", "remedy": "use another"},
        ],
    }


def test_this_machine_is_checked_and_nothing_is_started(directory, capsys):
    assert main() in (0, 1)

    lines = capsys.readouterr().out.splitlines()
    assert [line[8:24].rstrip() for line in lines] == list(doctor.CHECKS)
    assert not any("cannot be checked" in line for line in lines)
    assert list(directory.iterdir()) == []


def test_it_works_without_the_packages_it_looks_for():
    code = (
        "import argparse, sys\n"
        "for name in ('numpy', 'numba', 'rich', 'llvmlite'): sys.modules[name] = None\n"
        "from ptnetmap.cli import doctor\n"
        "parser = argparse.ArgumentParser(); doctor.add_to(parser.add_subparsers())\n"
        "options = parser.parse_args(['doctor']); sys.exit(options.run(options))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)

    assert (done.returncode, done.stderr) == (1, "")
    assert "problem Python          numpy cannot be imported" in done.stdout
    assert len(done.stdout.splitlines()) == len(doctor.CHECKS)


@pytest.mark.parametrize(
    ("ptnets", "memdevs", "euid", "level", "text"),
    [
        ([], [], 0, OK, "no ptnet"),
        ([guest.Device("0000:00:03.0")], [], 0, PROBLEM, "no ptnetmap-memdev"),
        ([guest.Device("0000:00:03.0", "x", "netmap: x has it\n        unbind it")], [], 0, PROBLEM, "x has it"),
        ([guest.Device("0000:00:03.0")], [guest.Device("0000:00:02.0")], 0, NOTE, "netmap:ptnet0 (polls)"),
        ([guest.Device("0000:00:03.0", "uio_pci_generic")], [guest.Device("0000:00:02.0")], 0, OK, "uio_pci_generic"),
        ([guest.Device("0000:00:03.0", "uio_pci_generic")], [guest.Device("0000:00:02.0")], 7, NOTE, "for root alone"),
    ],
)
def test_ports_that_a_host_passes_through_are_told(ptnets, memdevs, euid, level, text):
    finding = guest.ports(ptnets, memdevs, euid)

    assert finding.level == level
    assert text in finding.text
    assert bool(finding.remedy) == (level != OK)
