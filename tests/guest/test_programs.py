# SPDX-License-Identifier: BSD-2-Clause
import re

import pytest

from ptnetmap.guest import fault, main, selftest, spin

ENDED = r"^(poweroff|crash)$"


@pytest.fixture
def run(make_machine, monkeypatch):
    """Run the whole guest in a simulated machine: how it ended, and what it said, numbers of time left out."""
    monkeypatch.setattr(selftest, "_ADDITIONS", 50)

    def one(cmdline="", cpus=1, prepare=lambda machine: None):
        machine = make_machine(cpus=cpus, heap_size=1 << 15, cmdline=cmdline)
        prepare(machine)
        with pytest.raises(Exception, match=ENDED) as end:
            main.guest_main(machine.block(0), machine.boot)
        return str(end.value), [re.sub(r"\d{7,}", "N", line) for line in machine.lines()]

    return one


def everything(machine):
    machine.plug(0)
    machine.plug_rng()


def test_the_self_test_passes_on_a_machine_that_has_everything(run):
    assert run("program=selftest strict", 3, everything) == (
        "poweroff",
        [
            "ptnetmap guest, processors: 3",
            "ok   memory: MiB 0",
            "ok   timer: kHz of TSC and APIC N N",
            "ok   interrupt: vector 48",
            "ok   processors: 3",
            "     pci 0:0:0 1275:1275 class 060000",
            "     pci 0:3:0 1af4:1005 class 100000",
            "ok   pci: functions 2",
            "ok   virtio-rnd: bytes 64",
            "ok   msi-x: vector 49",
            "selftest: 7 ok, 0 failed, 0 skipped",
        ],
    )


def test_the_self_test_is_what_runs_if_nothing_is_asked_for(run):
    end, lines = run()
    assert (end, lines[-1]) == ("poweroff", "selftest: 4 ok, 0 failed, 2 skipped")


def test_what_is_missing_fails_a_strict_self_test(run):
    end, lines = run("strict")
    assert (end, lines[-1]) == ("crash", "selftest: 4 ok, 0 failed, 2 skipped")


def silent_timer(machine):
    machine.apic[0x320] = 0x10000
    write = machine.write_register
    machine.write_register = lambda address, size, value: write(
        address, size, value | 0x10000 if address & 0xFFF == 0x320 else value
    )
    machine.wait = lambda address, seen: machine.tick()


def same_bytes(machine):
    everything(machine)
    serve = machine.rng.serve

    def again():
        machine.rng.fill = 7
        serve()

    machine.rng.serve = again


def twice_interrupted(machine):
    everything(machine)
    message = machine.message

    def double(entry):
        message(entry)
        message(entry)

    machine.message = double


def lost_processor(machine):
    machine.info["running"] = 0


@pytest.mark.parametrize(
    ("prepare", "cpus", "line"),
    [
        (same_bytes, 1, "FAIL virtio-rnd: bytes 64"),
        (twice_interrupted, 1, "FAIL msi-x: vector 49"),
        (lost_processor, 2, "FAIL processors: 1"),
    ],
)
def test_what_does_not_work_is_named_and_ends_in_failure(run, monkeypatch, prepare, cpus, line):
    monkeypatch.setattr(selftest, "_PATIENCE", 1000)
    end, lines = run("", cpus, prepare)
    assert end == "crash"
    assert line in lines
    assert " 1 failed" in lines[-1]


def test_memory_that_does_not_keep_its_contents_fails(run, monkeypatch):
    store = selftest.store64
    hole = []

    def forget(address, value):
        hole.append(address)
        if len(hole) != 500:
            store(address, value)

    monkeypatch.setattr(selftest, "store64", forget)
    assert "FAIL memory: MiB 0" in run()[1]


def test_a_timer_whose_interrupts_do_not_come_fails(run, monkeypatch):
    monkeypatch.setattr(selftest, "_PATIENCE", 1000)
    end, lines = run("", 1, silent_timer)
    assert end == "crash"
    assert any(line.startswith("FAIL timer: ") for line in lines)


def test_spinning_says_rounds_and_result(run):
    end, lines = run("program=spin rounds=1000")
    assert end == "poweroff"
    assert lines[1].startswith("spin: 1000 rounds in ")
    assert lines[1].endswith(f"result {spin.spin(1000):08x}")


def test_an_unknown_program_fails_with_the_names_of_those_there_are(run):
    end, lines = run("program=selftests")
    assert (end, lines[-1]) == (
        "crash",
        "FAIL no such program; there are: selftest pkt-gen virtio-net spin idle doorbell hostile junk fault",
    )


def test_an_exception_is_reported_once_with_its_place(machine, monkeypatch):
    for vector in (14, 13):
        with pytest.raises(Exception, match=ENDED) as end:
            fault.report_fault(machine.boot, vector, 6, 0x104000, 0xDEAD)
        assert str(end.value) == "crash"
    assert machine.lines() == ["FAIL exception 14 error 0x00000006 rip 0x0000000000104000 address 0x000000000000dead"]


def test_a_report_in_the_middle_of_a_line_starts_its_own(machine):
    machine.info["line_used"] = 3
    with pytest.raises(Exception, match=ENDED):
        fault.report_fault(machine.boot, 6, 0, 0x104000, 0)
    assert machine.lines() == ["", "FAIL exception 6 error 0x00000000 rip 0x0000000000104000"]
