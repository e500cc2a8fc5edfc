# SPDX-License-Identifier: BSD-2-Clause
import fcntl
import os

import pytest

from ptnetmap.netmap import shared


@pytest.fixture
def memfd():
    fd = os.memfd_create("theirs", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 8192)
    yield fd
    os.close(fd)


def test_memory_that_can_shrink_is_sealed(memfd):
    shared.check_sealed(memfd, 8192, "memory")
    with pytest.raises(PermissionError):
        os.ftruncate(memfd, 4096)


def test_memory_that_shrinks_just_before_it_is_sealed_is_refused(memfd, monkeypatch, refusal):
    actual = fcntl.fcntl

    def late(fd, command, argument=0):
        if command == fcntl.F_ADD_SEALS:
            os.ftruncate(fd, 4096)  # as another process that has it
        return actual(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", late)
    refusal("EINVAL", shared.check_sealed, memfd, 8192, "memory", match="4,096 bytes")


def test_what_has_no_seals_is_asked_nothing_that_its_file_system_would_answer(monkeypatch, refusal):
    fd = os.open(os.devnull, os.O_RDWR)
    asked = []
    with monkeypatch.context() as patch:  # no longer: the test's own programs ask, too
        patch.setattr(os, "fstat", asked.append)
        patch.setattr(shared, "_libc", None)
        refusal("EINVAL", shared.check_sealed, fd, 1, "memory", match="no memfd")
        shared.check_lasting([fd])
    assert asked == []
    os.close(fd)


@pytest.fixture
def huge():
    try:
        fd = os.memfd_create("theirs", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)  # it needs no pages before it is mapped
    except OSError as error:
        pytest.skip(f"this kernel has no huge pages: {error}")
    yield fd
    os.close(fd)


def test_memory_on_huge_pages_does_not_last(memfd, huge, refusal):
    shared.check_lasting([memfd])
    refusal("EINVAL", shared.check_lasting, [memfd, huge], match="huge pages")
