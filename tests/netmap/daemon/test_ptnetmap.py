# SPDX-License-Identifier: BSD-2-Clause
"""Ports bound for guests, as a hostile hypervisor would ask for them; what guests do is tested with bhyve's devices."""

import fcntl
import mmap
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.netmap.csb import nm_csb_atok
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.option import FilePlace

CSB = abi.NETMAP_REQ_OPT_CSB
EVENTFDS = abi.NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS
GUEST = abi.NR_PTNETMAP_HOST | abi.NR_EXCLUSIVE
PAIRS = [{"ioeventfd": 1, "irqfd": 2}, {"ioeventfd": 3, "irqfd": 4}]


@pytest.fixture
def fds():
    """A guest's memory, and two kicks and interrupts."""
    memory = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, 16384)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    opened = [memory, *(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4))]
    yield opened
    for fd in opened:
        os.close(fd)


def create(client, fds, *, layout=extension.CSB_ENTRIES, atok=0, ktoa=4096, pairs=PAIRS, without=()):
    places = {"csb_atok": int(FilePlace(0, atok)), "csb_ktoa": int(FilePlace(0, ktoa))}
    options = {CSB: places, EVENTFDS: {"eventfds": pairs}}
    for option in without:
        del options[option]
    return client.request(extension.PTNETMAP_CREATE, "", options, fds, layout=layout)


@pytest.fixture
def client(netmapd):
    client = netmapd.client()
    assert client.register("vale0:g", nr_flags=GUEST).errno == 0
    return client


@pytest.mark.parametrize("layout", [extension.CSB_ENTRIES, extension.CSB_PAGE_2015])
@pytest.mark.parametrize("name", ["vale0:g", "netmap:p{1"])
def test_a_port_bound_for_a_guest_is_served_until_that_ends(netmapd, fds, layout, name):
    client = netmapd.client()
    assert client.register(name.removeprefix("netmap:"), nr_flags=GUEST).errno == 0
    for _ in range(3):
        made = create(client, fds, layout=layout)
        assert (made.errno, made.statuses) == (0, [(CSB, 0), (EVENTFDS, 0)])
        assert create(client, fds, layout=layout).name == "EBUSY"
        assert client.request(extension.PTNETMAP_DELETE).errno == 0
        assert client.request(extension.PTNETMAP_DELETE).errno == 0


def test_a_port_for_a_guest_is_nobody_elses(netmapd, client):
    assert netmapd.client().register("vale0:g").name == "EBUSY"
    other = netmapd.client()
    assert other.register("vale0:h").errno == 0
    assert netmapd.client().register("vale0:h", nr_flags=GUEST).name == "EBUSY"
    assert netmapd.client().register("vale0:i", nr_flags=abi.NR_PTNETMAP_HOST).name == "EINVAL"
    assert client.request(extension.NOTIFIERS, count=2).name == "EBUSY"


def test_what_is_not_bound_for_a_guest_cannot_be_passed_through(netmapd, fds):
    client = netmapd.client()
    assert create(client, fds).name == "ENXIO"
    assert client.register("vale0:g", nr_flags=abi.NR_EXCLUSIVE).errno == 0
    assert create(client, fds).name == "EINVAL"


def test_a_port_without_rings_cannot_be_bound_for_a_guest(netmapd, client):
    asked = {"nr_mode": abi.NR_REG_NULL, "nr_mem_id": 1, "nr_flags": GUEST}
    assert netmapd.client().register("null", **asked).name == "EOPNOTSUPP"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"layout": 2}, "EINVAL"),
        ({"layout": 2**32 - 1}, "EINVAL"),
        ({"without": (CSB,)}, "EINVAL"),
        ({"without": (EVENTFDS,)}, "EINVAL"),
        ({"atok": 32}, "EINVAL"),
        ({"ktoa": 4}, "EINVAL"),
        ({"atok": 16384}, "EINVAL"),
        ({"ktoa": 16384 - 64}, "EINVAL"),
        ({"atok": 2**47}, "EINVAL"),
        ({"layout": extension.CSB_PAGE_2015, "atok": 16384 - 128}, "EINVAL"),
        ({"pairs": PAIRS[:1]}, "EINVAL"),
        ({"pairs": [*PAIRS, PAIRS[0]]}, "EINVAL"),
        ({"pairs": [{"ioeventfd": -1, "irqfd": 2}, PAIRS[1]]}, "EINVAL"),
        ({"pairs": [{"ioeventfd": 1, "irqfd": 5}, PAIRS[1]]}, "EBADF"),
        ({"pairs": [{"ioeventfd": 0, "irqfd": 2}, PAIRS[1]]}, "EINVAL"),
        ({"pairs": [{"ioeventfd": 1, "irqfd": 0}, PAIRS[1]]}, "EINVAL"),
    ],
)
def test_a_guest_that_cannot_be_served_is_refused_and_a_right_one_served_then(client, fds, change, expected):
    assert create(client, fds, **change).name == expected
    assert create(client, fds).errno == 0


def test_a_guest_needs_no_interrupts(client, fds):
    assert create(client, fds, pairs=[{"ioeventfd": pair["ioeventfd"], "irqfd": -1} for pair in PAIRS]).errno == 0


FILLERS = """
import os, sys
for _ in range(int(sys.argv[2]) - 1):
    if os.fork() == 0:
        break
print(end=".", flush=True)
while True:
    os.write(int(sys.argv[1]), b"\\xfe" + b"\\xff" * 7)
"""


@pytest.mark.parametrize("writers", [1, 50])
def test_an_interrupt_that_many_keep_full_holds_up_nobody(netmapd, client, fds, writers):
    irq = os.eventfd(0)  # whose writers block
    interrupted = [fds[0], fds[1], irq, fds[3], irq]
    shared = np.frombuffer(mmap.mmap(fds[0], 16384), nm_csb_atok, 2)
    command = [sys.executable, "-c", FILLERS, str(irq), str(writers)]
    with subprocess.Popen(command, pass_fds=[irq], stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout.read(writers) == b"." * writers
            for _ in range(100):
                assert create(client, interrupted).errno == 0
                shared["appl_need_kick"] = 1
                shared["head"] = 2**32 - 1  # no ring has that: it is put in order, and its user told so
                os.eventfd_write(fds[1], 1)
                os.eventfd_write(fds[3], 1)
                netmapd.serves()
                assert client.request(extension.PTNETMAP_DELETE).errno == 0
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            os.close(irq)


def test_memory_that_may_vanish_is_refused(client, fds, tmp_path):
    with (tmp_path / "memory").open("wb+") as file:
        file.truncate(16384)
        assert create(client, [file.fileno(), *fds[1:]]).name == "EINVAL"
    assert create(client, fds[1:2] + fds[1:]).name == "EINVAL"


@pytest.fixture
def of_another_user(netmapd):
    """Make clients of a user that is neither netmapd's nor root."""
    modes = {path: path.stat().st_mode for path in (netmapd.path, netmapd.path.parent)}
    for path in modes:
        path.chmod(0o777)

    def client():
        os.seteuid(65534)
        try:
            return netmapd.client()
        finally:
            os.seteuid(0)

    yield client
    for path, mode in modes.items():
        path.chmod(mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_users_memory_on_huge_pages_is_refused_as_it_may_vanish(client, fds, of_another_user):
    huge = os.memfd_create("guest", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    os.ftruncate(huge, 2 << 20)
    stranger = of_another_user()
    assert stranger.register("vale0:s", nr_flags=GUEST).errno == 0
    refused = create(stranger, [huge, *fds[1:]])
    assert (refused.name, "huge pages" in refused.text) == ("EINVAL", True)
    assert create(stranger, fds).errno == 0
    assert "huge pages" not in create(client, [huge, *fds[1:]]).text  # netmapd's own user may have reasons
    os.close(huge)
