# SPDX-License-Identifier: BSD-2-Clause
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from ptnetmap.abi import elf
from ptnetmap.bhyve.config import Config
from ptnetmap.cli.bhyveload import main

MEBIBYTE = 1 << 20


@pytest.fixture
def kernel(tmp_path):
    """Make an ELF kernel of a page at 16 MiB, with a 64-bit entry point; return its path."""
    head = np.zeros((), elf.elf64_ehdr)
    head["e_ident"] = b"\x7fELF\x02\x01\x01"
    for name, value in {"e_type": 2, "e_machine": 62, "e_phoff": 64, "e_phentsize": 56, "e_phnum": 1}.items():
        head[name] = value
    head["e_entry"] = 16 * MEBIBYTE
    segment = np.array((elf.PT_LOAD, 5, 120, 0, 16 * MEBIBYTE, 4096, 8192, 4096), elf.elf64_phdr)
    path = tmp_path / "kernel"
    path.write_bytes(head.tobytes() + segment.tobytes() + bytes(4096))
    return path


def settings(text):
    """Read settings as bhyve -k does."""
    config = Config()
    for line in text.splitlines():
        assert config.set_option(line)
    return dict(config)


def test_it_says_how_a_kernel_will_be_loaded(kernel, tmp_path, capsys):
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(5000))
    assert main(["-m", "64", "-l", str(kernel), "-e", f"initrd={initrd}", "-e", "console=ttyS0", "vm0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "vm0: ELF, 64-bit entry, starts at 0x1000000",
        f"  0x001000000 - 0x001002000  the segment at 0x1000000: 4,096 bytes of {kernel}",
        f"  0x003ffe000 - 0x003fff388  the initrd: 5,000 bytes of {initrd}",
        "  command line: console=ttyS0",
    ]


def test_programs_get_json(kernel, capsys):
    assert main(["--json", "-l", str(kernel), "-e", "cmdline=ro", "vm0"]) == 0
    described = json.loads(capsys.readouterr().out)
    part = {
        "what": "the segment at 0x1000000",
        "file": str(kernel),
        "offset": 120,
        "size": 4096,
        "address": 16 * MEBIBYTE,
        "end": 16 * MEBIBYTE + 8192,
    }
    assert described == {
        "name": "vm0",
        "protocol": "ELF, 64-bit entry",
        "entry": 16 * MEBIBYTE,
        "cmdline": "ro",
        "parts": [part],
    }


def test_settings_are_what_bhyve_reads(kernel, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written = tmp_path / "vm0.conf"
    arguments = ["-S", "-m", "1G", "-e", "kernel=kernel", "-e", "cmdline=ro 50%", "-e", "a=b c", "-e", "d=e"]
    assert main([*arguments, "--settings", str(written), "vm0"]) == 0
    assert settings(written.read_text()) == {
        "name": "vm0",
        "memory.size": "1G",
        "memory.wired": "true",
        "kernel": str(kernel),
        "cmdline": 'ro 50% a="b c" d=e',
    }
    capsys.readouterr()
    assert main([*arguments, "--settings", "-", "vm0"]) == 0
    assert capsys.readouterr().out == written.read_text()


@pytest.mark.parametrize("place", ["boot/vmlinuz", "vmlinuz"])
def test_a_root_directory_has_its_kernel_and_initrd_where_distributions_put_them(kernel, tmp_path, place, capsys):
    root = tmp_path / "root"
    (root / "boot").mkdir(parents=True)
    (root / place).symlink_to(kernel)
    (root / place).with_name("initrd.img").write_bytes(b"initrd")
    assert main(["-h", str(root), "--settings", "-", "vm0"]) == 0
    found = settings(capsys.readouterr().out)
    assert (found["kernel"], found["initrd"]) == (
        str(root / place),
        str((root / place).with_name("initrd.img")),
    )


def test_names_of_variables_are_inside_the_root_directory(kernel, tmp_path, capsys):
    assert main(["-h", str(tmp_path), "-e", "kernel=/kernel", "--settings", "-", "vm0"]) == 0
    assert settings(capsys.readouterr().out)["kernel"] == str(kernel)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vm0"], "no kernel\n        name one with -l"),
        (["-h", "/dev", "vm0"], r"no kernel below /dev \(boot/vmlinuz, vmlinuz\)"),
        (["-d", "/no/such/disk", "vm0"], "disk /no/such/disk cannot be read"),
        (["-l", "/no/such/kernel", "vm0"], "kernel /no/such/kernel: cannot be opened: No such file"),
        (["-l", "/dev/null", "vm0"], "it is no regular file"),
        (["-m", "lots", "-l", "/dev/null", "vm0"], "invalid memsize 'lots'"),
        (["-e", "quiet", "vm0"], "-e quiet: no value"),
        (["-l", "/dev/null", "../vm"], "invalid name for a virtual machine"),
    ],
)
def test_what_is_wrong_is_said_and_ends_with_1(arguments, said, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("bhyveload: ")
    assert re.search(said, error)


def test_too_little_memory_for_the_kernel_is_refused(kernel, capsys):
    assert main(["-m", "16M", "-l", str(kernel), "vm0"]) == 1
    assert "a segment belongs at 0x1000000-0x1002000" in capsys.readouterr().err


def test_settings_that_cannot_be_written_are_an_error(kernel, tmp_path, capsys):
    assert main(["-l", str(kernel), "--settings", str(tmp_path), "vm0"]) == 1
    assert "cannot be written: Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["-x", "vm0"], ["vm0", "vm1"]])
def test_a_wrong_command_line_ends_with_1(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    assert "usage: bhyveload" in capsys.readouterr().err


def test_a_disk_and_a_console_are_accepted_as_they_are_in_scripts(kernel, capsys):
    assert main(["-c", "stdio", "-d", str(kernel), "-l", str(kernel), "vm0"]) == 0


def test_help_imports_nothing_heavy():
    listing = (
        "import sys, atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr));"
        "from ptnetmap.cli.bhyveload import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True)
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert not {"numba", "numpy", "llvmlite"} & set(done.stderr.split())
