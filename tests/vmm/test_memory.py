# SPDX-License-Identifier: BSD-2-Clause
import errno
import fcntl
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.errors import ConfigError, GuestError, HypervisorError
from ptnetmap.vmm import memory as module
from ptnetmap.vmm.memory import GuestMemory

GB = 1 << 30
MB = 1 << 20


@pytest.fixture(scope="module")
def large():
    # Pages that nobody touches cost nothing.
    with GuestMemory(5 * GB) as memory:
        yield memory


def test_small_memory_is_one_segment_from_0(memory):
    assert [(s.gpa, s.size, s.offset) for s in memory.segments] == [(0, 2 * MB, 0)]
    assert (memory.size, memory.low_size, memory.high_size) == (2 * MB, 2 * MB, 0)


def test_what_is_above_3_gb_continues_at_4_gb(large):
    assert [(s.gpa, s.size, s.offset) for s in large.segments] == [(0, 3 * GB, 0), (4 * GB, 2 * GB, 3 * GB)]
    assert (large.low_size, large.high_size) == (3 * GB, 2 * GB)
    large.write(4 * GB, b"high")
    assert os.pread(large.fd, 4, 3 * GB) == b"high"


def test_the_guest_sees_what_the_descriptor_holds(memory):
    os.pwrite(memory.fd, b"\1\2\3\4", 0x1000)
    assert memory.read(0x1000, 4) == b"\1\2\3\4"
    memory.write(0x1001, b"\xff")
    assert os.pread(memory.fd, 4, 0x1000) == b"\1\xff\3\4"


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_integers_are_little_endian_and_modulo_their_size(memory, size):
    memory.write_int(0x203, size, 0x1122334455667788)
    assert memory.read(0x203, 8) == bytes.fromhex("8877665544332211")[:size] + bytes(8 - size)
    assert memory.read_int(0x203, size) == 0x1122334455667788 & (1 << 8 * size) - 1


def test_a_view_is_the_memory_itself(memory):
    view = memory.view(0x4000, 4)
    memory.write(0x4000, b"abcd")
    assert bytes(view) == b"abcd"
    view[0] = 0x7A
    assert memory.read(0x4000, 4) == b"zbcd"


@settings(max_examples=100, deadline=None)
@given(
    gpa=st.integers(-(2**65), 2**65) | st.integers(0, 6 * GB), length=st.integers(-(2**65), 2**65) | st.integers(0, GB)
)
def test_an_address_is_given_exactly_if_one_segment_holds_the_range(large, gpa, length):
    inside = [s for s in large.segments if s.gpa <= gpa < s.gpa + s.size and 0 <= length <= s.gpa + s.size - gpa]
    address = large.host(gpa, length)
    assert (address is not None) == bool(inside)
    if address is not None:
        assert address == inside[0].address + gpa - inside[0].gpa


@pytest.mark.parametrize(
    ("gpa", "length"), [(3 * GB - 2, 4), (3 * GB, 1), (6 * GB, 0), (2**64 - 2, 4), (0, 6 * GB), (8, -1)]
)
def test_no_access_reaches_outside(large, gpa, length):
    for access in (large.view, large.read):
        with pytest.raises(GuestError) as raised:
            access(gpa, length)
        assert raised.value.errno == errno.EFAULT


@pytest.mark.parametrize("gpa", [3 * GB - 1, 3 * GB, 4 * GB - 1, -1, 2**64 - 1])
def test_no_write_reaches_outside(large, gpa):
    for access in (lambda: large.write(gpa, b"ab"), lambda: large.write_int(gpa, 2, 0), lambda: large.read_int(gpa, 2)):
        with pytest.raises(GuestError, match=r"not in its memory \(0x0-0xc0000000, 0x100000000-0x180000000\)"):
            access()


def test_nobody_can_resize_the_memory_or_unseal_it(memory):
    for size in (0, 4 * MB):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(memory.fd, 1033, 0)


@pytest.mark.parametrize("size", [0, -4096, 4097, 1 << 60])
def test_a_size_that_cannot_be_is_refused(size):
    with pytest.raises(ConfigError, match="multiple of 4,096 bytes"):
        GuestMemory(size)


def test_wired_memory_is_allocated_at_once():
    with GuestMemory(MB, wired=True) as memory:
        assert os.fstat(memory.fd).st_blocks * 512 >= MB


def test_memory_that_cannot_be_locked_is_still_allocated_and_says_so():
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    capable = "CapEff" in Path("/proc/self/status").read_text() and os.geteuid() == 0
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, before[1]))
    try:
        with GuestMemory(MB, wired=True) as memory:
            assert os.fstat(memory.fd).st_blocks * 512 >= MB
            assert capable or "ulimit -l" in memory.notice
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def test_wiring_what_the_host_does_not_have_is_refused_and_leaves_nothing(monkeypatch, nothing_left):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "posix_fallocate", refuse)
    with pytest.raises(HypervisorError, match="leave -S out"):
        GuestMemory(MB, wired=True)


def test_without_huge_pages_the_memory_is_on_small_ones_and_says_so():
    with GuestMemory(MB, hugepages=True) as memory:  # half a huge page cannot be
        assert "vm.nr_hugepages=1" in memory.notice
        memory.write(0, b"x")
        assert memory.read(0, 1) == b"x"


def test_closed_memory_has_no_addresses_but_views_of_it_stay(nothing_left):
    memory = GuestMemory(MB)
    view = memory.view(0, 4)
    memory.close()
    memory.close()
    assert memory.host(0, 1) is None
    with pytest.raises(GuestError, match="closed"):
        memory.read(0, 1)
    view[0] = 1
    assert view[0] == 1
