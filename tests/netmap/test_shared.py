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
