# SPDX-License-Identifier: BSD-2-Clause
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.errors import ConfigError
from ptnetmap.vm.definition import Definition, dumps, loads

WHERE = Path("vm.toml")


def test_a_machine_is_a_command_line_of_bhyves():
    machine = Definition(
        "web",
        image="/d.raw",
        kernel="/k",
        initrd="/i",
        cmdline="root=/dev/vda1 50%",
        cpus=2,
        memory="2G",
        net=("tap0", "vale0:1"),
        passthrough=("vale0:2", "netmap:x{1"),
        seed="/s.iso",
    )

    words = machine.command("unix=/c")

    assert [word for before, word in itertools.pairwise(words) if before == "-s"] == [
        "0,hostbridge",
        "1,lpc",
        "2,virtio-blk,/d.raw",
        "3,virtio-blk,/s.iso,ro",
        "4,virtio-rnd",
        "5,virtio-net,tap0",
        "6,virtio-net,vale0:1",
        "7,ptnetmap-memdev",
        "8,ptnet,ptvale0:2",
        "9,ptnetmap-memdev",
        "10,ptnet,ptnetmap:x{1",
    ]
    assert words[-9:] == ["-l", "com1,unix=/c", "-o", "kernel=/k", "-o", "initrd=/i", "-o", words[-2], "web"]
    assert words[-2] == "cmdline=root=/dev/vda1 50%%"
    assert words[:4] == ["-c", "2", "-m", "2G"]


@given(text=st.text(st.characters(codec="utf-8")), ports=st.lists(st.text(st.characters(codec="utf-8"))))
def test_what_is_written_is_read_again(text, ports):
    machine = Definition("vm", image="/d.raw", cmdline=text, net=tuple(ports[:9]), cpus=3)

    assert loads("vm", dumps(machine), WHERE) == machine


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image = ", "vm.toml is not TOML"),
        ("cpus = 1", "there is no image"),
        ('image = "/d"\ncpus = "1"', "cpus is not a number"),
        ('image = "/d"\ncpus = true', "cpus is not a number"),
        ('image = "/d"\nnet = "tap0"', "net is not a list of texts"),
        ('image = "/d"\ncpu = 1', "unknown: cpu"),
        ('image = "/a,b"', "has a comma"),
        ('image = "/d"\ninitrd = "/i"', "an initrd without a kernel"),
        ('image = "/d"\ncpus = 0', "cannot have 0 CPUs"),
    ],
)
def test_a_file_that_an_editor_broke_is_refused_with_its_name_or_its_fault(text, message):
    with pytest.raises(ConfigError, match=message):
        loads("vm", text, WHERE)
