# SPDX-License-Identifier: BSD-2-Clause
import errno
import json
import os
import signal
import subprocess
import sys

import pytest

import ptnetmap
from ptnetmap.bench import cases, guestend
from ptnetmap.bench.frame import Case, Result
from ptnetmap.cli import demo
from ptnetmap.cli.main import main
from ptnetmap.errors import PortError

RUN = "import sys; from ptnetmap.cli.main import main; sys.exit(main())"


def program(*arguments, **options):
    return subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, **options)


@pytest.fixture
def failing(monkeypatch):
    """Make every case raise what the test says."""

    def set_up(error):
        def run(seconds, batch, cores):
            raise error

        monkeypatch.setattr(cases, "all_cases", lambda: [Case("pipe", 60, 16, run)])
        monkeypatch.setattr(cases, "all_probes", list)

    return set_up


@pytest.fixture
def two_cases(monkeypatch):
    """A pipe at half of its roofline's rate, with a figure of the report, that take no time to measure."""

    def result(mpps):
        return lambda seconds, batch, cores: Result(1001, 1001, 0, int(1e6 / mpps), 60_060)

    known = [Case("pipe", 60, 256, result(40), "roofline/R_zc", 50.0), Case("roofline/R_zc", 60, 256, result(80))]
    monkeypatch.setattr(cases, "all_cases", lambda: known)
    monkeypatch.setattr(cases, "all_probes", list)


@pytest.mark.parametrize("arguments", [["--help"], ["bench", "--help"], ["demo", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    listing = "import sys, atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); "
    done = subprocess.run([sys.executable, "-c", listing + RUN, *arguments], capture_output=True, text=True)

    assert done.returncode == 0
    assert not {"numba", "numpy", "rich", "llvmlite"} & set(done.stderr.split())


@pytest.mark.parametrize("command", ["top", "capture", "replay", "doctor", "bench", "demo", "warmup", "version"])
def test_each_subcommand_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    assert f"ptnetmap {command}" in help_text.partition("example")[2]


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["bench", "--runs", "0"], ["bench", "--seconds", "-1"], ["bench", "--seconds", "nan"]],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage: ptnetmap" in capsys.readouterr().err


def test_version_prints_the_version(capsys):
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"{ptnetmap.__version__}\n"


def test_an_error_of_this_package_is_one_line_and_exit_code_1(failing, capsys):
    failing(PortError(errno.EBUSY, "cannot open pipe{1: it is in use; close it"))

    assert main(["bench"]) == 1
    assert capsys.readouterr().err == "ptnetmap: cannot open pipe{1: it is in use; close it\n"


def test_an_interrupt_exits_with_130_and_no_traceback(failing, capsys):
    failing(KeyboardInterrupt())

    assert main(["bench"]) == 130
    assert capsys.readouterr().err == ""


def test_an_interrupted_benchmark_ends_although_its_threads_are_busy():
    arguments = ["bench", "--only", "roofline/R_zc", "--seconds", "600", "--runs", "1"]
    # The child interrupts itself once its threads run.
    body = (
        "import os, signal, threading\n"
        "from ptnetmap.bench import lane\n"
        "inner = lane.run_pair\n"
        "timers = [threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))]\n"
        "def run_pair(sender, receiver, **options):\n"
        "    while timers: timers.pop().start()\n"
        "    return inner(sender, receiver, **options)\n"
        "lane.run_pair = run_pair\n"
    )
    done = subprocess.run([sys.executable, "-c", body + RUN, *arguments], capture_output=True, text=True, timeout=120)

    assert (done.returncode, done.stderr) == (130, "")


def test_a_reader_that_goes_away_is_not_a_traceback():
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, "bench", "--list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.close()
    err = child.stderr.read()
    child.stderr.close()

    assert (child.wait(), err) == (128 + signal.SIGPIPE, "")


def test_bench_prints_a_table_with_the_ratio_and_the_machine(two_cases, capsys):
    assert main(["bench"]) == 0

    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == [
        "case",
        "size",
        "batch",
        "Mpps",
        "Gbit/s",
        "dropped",
        "ratio",
        "spread",
        "runs",
        "against",
    ]
    assert out[1].split() == ["pipe", "60", "256", "40.00", "19.2", "0.50", "0%", "5", "roofline/R_zc"]
    assert out[2].split() == ["roofline/R_zc", "60", "256", "80.00", "38.4", "0%", "5"]
    assert "Python" in out[3]


def test_bench_json_is_one_object_and_read_prints_its_table_again(two_cases, capsys, tmp_path):
    assert main(["bench"]) == 0
    table = capsys.readouterr().out
    assert main(["bench", "--json"]) == 0
    text = capsys.readouterr().out
    saved = tmp_path / "here.json"
    saved.write_text(text)

    assert [row["ratio"] for row in json.loads(text)["rows"]] == [0.5, None]
    assert main(["bench", "--read", str(saved)]) == 0
    assert capsys.readouterr().out == table


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"machine": {}, "rows": [{"case": 1}]}'])
def test_reading_something_else_says_what_was_expected(content, capsys, tmp_path):
    other = tmp_path / "other"
    other.write_text(content)

    assert main(["bench", "--read", str(other)]) == 1
    assert "is not the output of ptnetmap bench --json" in capsys.readouterr().err


def test_reading_a_missing_file_says_so(capsys, tmp_path):
    assert main(["bench", "--read", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_an_unknown_case_points_to_the_list_and_exits_with_2(two_cases, capsys):
    assert main(["bench", "--only", "pip"]) == 2
    assert main(["bench", "pip"]) == 2
    assert "--list" in capsys.readouterr().err


def test_list_measures_nothing(failing, capsys):
    failing(AssertionError("was measured"))

    assert main(["bench", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"case": "pipe", "size": 60, "batch": 16}]


@pytest.fixture
def guest_and_host(monkeypatch):
    """A guest that is half as fast as a process, both in the report's table, measured in no time; and a kvm or none."""

    def result(mpps):
        return lambda seconds, batch, cores: Result(1001, 1001, 0, int(1e6 / mpps), 60_060)

    def set_up(missing=None):
        known = [
            Case("passthrough/pipe_out", 60, 256, result(40), "processes/pipe", 50.0),
            Case("passthrough/pipe_out", 1514, 256, result(10), "processes/pipe"),
            Case("processes/pipe", 60, 256, result(80), None, 50.0),
        ]
        monkeypatch.setattr(cases, "all_cases", lambda: known[2:] if missing else known)
        monkeypatch.setattr(guestend, "unavailable", lambda: missing)

    return set_up


def test_demo_shows_guest_and_host_beside_the_report(guest_and_host, capsys):
    guest_and_host()
    assert main(["demo"]) == 0

    out = capsys.readouterr().out.splitlines()
    assert out[1].removeprefix("pipe, guest to host").split() == ["80.0", "40.0", "0.50", "50"]
    assert len(out) == 3


def test_demo_json_has_the_table(guest_and_host, capsys):
    guest_and_host()
    assert main(["demo", "--json"]) == 0

    data = json.loads(capsys.readouterr().out)
    assert data["headlines"] == [
        {"label": "pipe, guest to host", "host_mpps": 80.0, "guest_mpps": 40.0, "ratio": 0.5, "report_mpps": 50.0}
    ]
    assert [(row["case"], row["mpps"]) for row in data["rows"]] == [
        ("passthrough/pipe_out", 40.0),
        ("processes/pipe", 80.0),
    ]


def test_demo_without_kvm_says_so_and_shows_what_processes_do(guest_and_host, capsys):
    guest_and_host(missing="there is no /dev/kvm here")
    assert main(["demo"]) == 0

    out, err = capsys.readouterr()
    assert "there is no /dev/kvm here" in err
    assert out.splitlines()[1].removeprefix("pipe, process to process").split() == ["80.0", "50"]


def test_demo_refuses_to_draw_a_file_of_no_known_kind(guest_and_host, capsys):
    guest_and_host()
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--plot", "table.txt"])
    assert ended.value.code == 2
    assert ".svg" in capsys.readouterr().err


def test_demo_says_what_drawing_needs_before_it_measures(guest_and_host, capsys, monkeypatch, tmp_path):
    guest_and_host()
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert main(["demo", "--plot", str(tmp_path / "table.svg")]) == 1

    out, err = capsys.readouterr()
    assert "ptnetmap[plot]" in err
    assert out == ""


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {}])
def test_output_to_a_file_has_no_colours(setting, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | setting
    done = program(
        "bench", "--only", "roofline/R_zc", "--seconds", "0.01", "--runs", "1", env=environment, cwd=tmp_path
    )

    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_warmup_refuses_to_compile_what_is_interpreted():
    done = program("warmup", env={**os.environ, "NUMBA_DISABLE_JIT": "1"})

    assert done.returncode == 1
    assert "NUMBA_DISABLE_JIT" in done.stderr


@pytest.mark.slow
def test_warmup_compiles_once_and_then_loads(tmp_path):
    environment = {**os.environ, "PTNETMAP_CACHE_DIR": str(tmp_path)}

    first, second = (program("warmup", env=environment) for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    total = first.stdout.split()[0]
    assert f" {total} loaded, 0 compiled" in second.stdout
