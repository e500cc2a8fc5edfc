# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import errno
import itertools
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.boot import layout, plan
from ptnetmap.errors import ConfigError, GuestError
from ptnetmap.vmm.memory import GuestMemory

MEBIBYTE = 1 << 20
SIZE = 48 * MEBIBYTE
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def images(bzimage, elf_kernel, pvh_note):
    segments = ((16 * MEBIBYTE, b"\xf4" * 4096, 8192), (18 * MEBIBYTE, b"\x90" * 512, 512))
    return {
        "bzimage": bzimage(),
        "pvh": elf_kernel(*segments, notes=pvh_note(16 * MEBIBYTE)),
        "elf": elf_kernel(*segments),
    }


@pytest.fixture(scope="module")
def shared_memory():
    with GuestMemory(SIZE) as memory:
        yield memory


def boots_or_is_refused(path, memory, initrd=None):
    """Load it, if it can be: nothing but the two errors may come out, and nothing outside guest memory is touched."""
    try:
        planned = plan(path, initrd=initrd, cmdline="a=b", low_size=SIZE)
    except ConfigError:
        return False
    except GuestError as error:
        message = str(error)
        if str(path) in message or str(initrd) in message:
            return False
        raise
    with planned as kernel:
        taken = sorted((part.gpa, part.end) for part in (*kernel.parts, kernel.initrd) if part)
        assert taken[0][0] >= layout.HIGH_MEMORY
        assert taken[-1][1] <= SIZE
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(taken))
        assert any(start <= kernel.entry < end for start, end in taken)
        kernel.load(memory)
    return True


@quick
@given(name=st.sampled_from(["bzimage", "pvh", "elf"]), cut=st.integers(0, 10_000))
def test_a_truncated_image_is_refused(images, write, shared_memory, name, cut):
    data = images[name]
    whole = cut >= len(data)
    assert boots_or_is_refused(write(data[:cut], "cut"), shared_memory) is whole


@quick
@given(
    name=st.sampled_from(["bzimage", "pvh", "elf"]),
    flips=st.lists(st.tuples(st.integers(0, 0x2FF), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_an_image_with_other_bytes_in_its_headers_boots_or_is_refused(images, write, shared_memory, name, flips):
    data = bytearray(images[name])
    for offset, value in flips:
        data[offset] = value
    boots_or_is_refused(write(bytes(data), "flipped"), shared_memory)


@quick
@given(
    name=st.sampled_from(["bzimage", "pvh", "elf"]),
    fields=st.lists(
        st.tuples(
            st.integers(0, 0x280),
            st.sampled_from([1, 2, 4, 8]),
            st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_an_image_with_extreme_numbers_boots_or_is_refused(images, write, shared_memory, name, fields):
    data = bytearray(images[name])
    for offset, size, value in fields:
        data[offset : offset + size] = bytes([value]) * size
    boots_or_is_refused(write(bytes(data), "extreme"), shared_memory)


@quick
@given(data=st.binary(max_size=2048), head=st.sampled_from([b"", b"\x7fELF", b"\x7fELF\x02\x01\x01"]))
def test_noise_is_refused(write, shared_memory, data, head):
    boots_or_is_refused(write(head + data, "noise"), shared_memory)


@pytest.mark.parametrize("size", [1, SIZE - 24 * MEBIBYTE, SIZE - 24 * MEBIBYTE + 1, SIZE, 1 << 40])
def test_an_initrd_of_any_size_fits_or_is_refused_without_reading_it(images, write, shared_memory, size):
    kernel, initrd = write(images["bzimage"]), write(b"", "sparse")
    os.truncate(initrd, size)
    tracemalloc.start()
    fits = boots_or_is_refused(kernel, shared_memory, initrd)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fits is (size <= SIZE - 24 * MEBIBYTE)
    assert peak < MEBIBYTE


def test_a_kernel_of_a_terabyte_costs_no_memory(images, write, shared_memory):
    for name in ("bzimage", "pvh"):
        path = write(images[name], "huge")
        os.truncate(path, 1 << 40)
        tracemalloc.start()
        assert boots_or_is_refused(path, shared_memory)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MEBIBYTE


def open_files():
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def test_files_are_closed_whatever_happens(images, write):
    good, bad = write(images["pvh"], "good"), write(b"noise" * 100, "bad")
    before = open_files()
    with plan(good, initrd=bad, low_size=SIZE):
        pass
    for kernel, initrd in ((bad, None), (good, bad.with_name("none")), (good, bad.parent)):
        with contextlib.suppress(GuestError):
            plan(kernel, initrd=initrd, low_size=SIZE)
    assert open_files() == before


@pytest.mark.parametrize(
    ("name", "number", "found"),
    [
        ("no-such-file", errno.ENOENT, "cannot be opened: No such file or directory"),
        ("", errno.ENOEXEC, "it is no regular file"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path, name, number, found):
    with pytest.raises(GuestError, match=found) as caught:
        plan(tmp_path / name, low_size=SIZE)
    assert caught.value.errno == number
    assert str(tmp_path) in str(caught.value)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(GuestError, match="it is no regular file"):
        plan(path, low_size=SIZE)


def test_a_name_with_a_zero_byte_is_refused():
    with pytest.raises(GuestError, match="cannot be opened: Invalid argument"):
        plan("a\0b", low_size=SIZE)
