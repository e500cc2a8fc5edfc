# SPDX-License-Identifier: BSD-2-Clause
import json
import os
import signal
import subprocess
import sys

import pytest

from ptnetmap.cli.pkt_gen import main

RUN = "import sys; from ptnetmap.cli.pkt_gen import main; sys.exit(main())"
LISTING = "import sys, atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); "
ENDLESS = ("-f", "tx", "-w", "0", "-R", "1000", "-T", "100")


def start(*arguments):
    environment = dict(os.environ, NUMBA_DISABLE_JIT="1")  # what is tested here is the same, and starts at once
    command = [sys.executable, "-u", "-c", RUN, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def read_until(stream, text):
    for line in stream:
        if text in line:
            return
    pytest.fail(f"it ended before it said {text!r}")


@pytest.mark.parametrize(
    "arguments",
    [[], ["-i", "vale0:a", "-f", "fly"], ["-i", "vale0:a", "-n"], ["-i", "tap0"], ["--nonsense"], ["-i", "null", "-c", "9999"]],
    ids=" ".join,
)  # fmt: skip
def test_bad_arguments_show_the_usage_and_exit_with_255(arguments, capsys):
    assert main(arguments) == 255

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "usage: pkt-gen" in shown.err
    assert "Traceback" not in shown.err


def test_help_shows_an_example_and_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LISTING + RUN, "--help"], capture_output=True, text=True)

    assert done.returncode == 0
    assert "pkt-gen -i vale0:a -f tx" in done.stdout
    assert not {"numba", "numpy", "rich", "llvmlite"} & set(done.stderr.split())


def test_a_run_without_a_port_needs_no_daemon(capsys):
    assert main(["-i", "null", "-f", "tx", "-n", "1000", "-w", "0", "--json"]) == 0

    shown = capsys.readouterr()
    assert json.loads(shown.out)["packets"] == 1000
    assert not [line for line in shown.err.splitlines() if not line.startswith("ptnetmap: compiling")]


def test_a_port_that_cannot_be_opened_is_one_line_and_exit_code_1(capsys):
    from ptnetmap.netmap.runtime import Netmap

    with Netmap() as nm:
        assert main(["-i", "vale0:a/q", "-f", "tx", "-w", "0", "--json"], opener=nm.open) == 1

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("pkt-gen: ")


def test_an_interrupt_ends_the_run_with_its_statistics():
    with start("-i", "null", *ENDLESS) as program:
        read_until(program.stderr, "main_thread")
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)

    assert program.returncode == 0
    assert "\nSent " in out
    assert "Speed: " in out
    assert "Traceback" not in err


def test_an_interrupt_while_waiting_for_the_link_ends_it_too():
    with start("-i", "null", "-f", "tx", "-w", "600") as program:
        read_until(program.stderr, "Wait 600 secs")
        program.send_signal(signal.SIGINT)
        out, _ = program.communicate(timeout=60)

    assert program.returncode == 0
    assert out.endswith("Sent nothing.\n")


def test_an_interrupted_receiver_prints_its_figures():
    with start("-i", "null", "-f", "rx", "-w", "0", "-T", "100") as program:
        read_until(program.stderr, "waiting for initial packets, poll returns 0 0")
        program.send_signal(signal.SIGINT)
        out, _ = program.communicate(timeout=60)

    assert program.returncode == 0
    assert out.endswith("Received nothing.\n")


def test_no_output_has_colour():
    done = subprocess.run(
        [sys.executable, "-c", RUN, "-i", "null", "-f", "tx", "-n", "10", "-w", "0"],
        capture_output=True,
        env=dict(os.environ, NUMBA_DISABLE_JIT="1", FORCE_COLOR="1"),
    )

    assert done.returncode == 0
    assert b"\x1b" not in done.stdout + done.stderr
