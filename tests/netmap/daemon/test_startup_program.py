# SPDX-License-Identifier: BSD-2-Clause
import os
import subprocess
import sys

import pytest

import ptnetmap
from ptnetmap.cli.netmapd import main, parser
from ptnetmap.netmap.daemon import startup


def exits(arguments, code):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code


def test_help_imports_nothing_heavy_and_has_an_example():
    code = (
        "import sys, atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))\n"
        "from ptnetmap.cli.netmapd import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0
    assert not {"numba", "numpy", "rich", "socket", "ptnetmap.netmap"} & set(done.stderr.split())
    assert "  netmapd --" in done.stdout.partition("examples:")[2]
    assert "--detached" not in done.stdout


def test_finding_and_starting_a_daemon_imports_nothing_heavy():
    code = "import sys, ptnetmap.netmap.client.dial; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"numba", "numpy", "rich"} & set(done.stdout.split())


def test_version_prints_the_version(capsys):
    exits(["--version"], 0)
    assert capsys.readouterr().out == f"netmapd {ptnetmap.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--kthreads", "0"],
        ["--cpus", "x"],
        ["--cpus", "1-"],
        ["--cpus", "3-1"],
        ["--cpus", "999999999"],
        ["--cpus", "0-99999999999"],
        ["--mode", "rw"],
        ["--mode", "1777"],
        ["--idle", "-1"],
        ["--idle", "nan"],
        ["--buf-num", "-5"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_with_2(arguments, capsys):
    exits(arguments, 2)
    assert "usage: netmapd" in capsys.readouterr().err


def test_cpus_are_numbers_and_ranges(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 3, 4, 5, 7})

    assert parser().parse_args(["--cpus", "1,3-5,4"]).cpus == (1, 3, 4, 5)
    assert parser().parse_args(["--cpus", "1-7"]).cpus == (1, 3, 4, 5, 7)


def test_the_server_gets_every_option(monkeypatch):
    got = []
    monkeypatch.setattr(startup, "run", lambda options, serve: got.append(options) or 5)
    arguments = (
        "--foreground --socket /s --mode 0660 --group g --idle 2.5 --kthreads 3 --cpus 0 --spin 7 --max-switches 9 "
        "--ageing 0 --buf-size 4096 --if-num 5 --verbose"
    )

    assert main(arguments.split()) == 5
    assert got == [
        startup.Options(
            socket="/s",
            mode=0o660,
            group="g",
            idle=2.5,
            foreground=True,
            kthreads=3,
            cpus=(0,),
            spin=7,
            max_switches=9,
            ageing=0,
            pools={"buf_size": 4096, "if_num": 5},
            verbose=True,
        )
    ]


def test_what_is_not_given_is_left_to_the_runtime(monkeypatch):
    got = []
    monkeypatch.setattr(startup, "run", lambda options, serve: got.append(options) or 0)
    main(["--foreground"])

    assert got == [startup.Options(foreground=True)]
