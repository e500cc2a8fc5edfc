# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
from pathlib import Path

import pytest

from ptnetmap.bhyve.devices import block_image
from ptnetmap.bhyve.devices.block_image import BlockImage
from ptnetmap.errors import ConfigError

SIZE = 3 << 20


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(SIZE))
    return str(path)


def contents(path):
    return Path(path).read_bytes()


def cut(data, *ends):
    view, out, start = memoryview(data), [], 0
    for end in (*ends, len(data)):
        out.append(view[start:end])
        start = end
    return out


@pytest.mark.parametrize("nocache", [False, True])
def test_memory_of_any_alignment_is_filled_and_written(path, nocache):
    image = BlockImage(path, nocache=nocache)
    length = (2 << 20) + 4096
    buffer = bytearray(length)
    image.read(cut(buffer, 1, 1000, (1 << 20) + 7), 4096)
    assert contents(path)[4096 : 4096 + length] == buffer
    data = os.urandom(length)
    image.write(cut(data, 513, 5000, (1 << 20) + 1), 0)
    image.flush()
    image.close()
    assert contents(path)[:length] == data


def test_short_transfers_go_on(path, monkeypatch):
    image = BlockImage(path)
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:300]], offset))
    buffer = bytearray(2048)
    image.read(cut(buffer, 700), 512)
    image.close()
    assert contents(path)[512:2560] == buffer


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize("possible", [True, False])
def test_zeroes_are_written_where_the_file_system_cannot_make_them(path, monkeypatch, discard, possible):
    image = BlockImage(path)

    def refuse(mode, offset, length):
        raise OSError(errno.EOPNOTSUPP, "no")

    if not possible:
        monkeypatch.setattr(image, "_fallocate", refuse)
        with pytest.raises(OSError, match="no"):
            image.discard(0, 512)
    before = contents(path)
    image.zero(512, (1 << 20) + 1024, discard=discard)
    image.close()
    after = contents(path)
    assert after == before[:512] + bytes((1 << 20) + 1024) + before[(1 << 20) + 1536 :]


def test_what_direct_io_needs_becomes_the_sector_size(path, monkeypatch):
    preadv = os.preadv

    def like_a_disk_of_4096(fd, views, offset):
        if offset % 4096 or any(len(view) % 4096 for view in views):
            raise OSError(errno.EINVAL, "unaligned")
        return preadv(fd, views, offset)

    monkeypatch.setattr(os, "preadv", like_a_disk_of_4096)
    image = BlockImage(path, nocache=True, sector_size="512")
    assert (image.logical_sector, image.physical_sector, image.size) == (4096, 4096, SIZE)
    image.close()


def test_an_image_that_cannot_be_written_is_opened_for_reading(path, monkeypatch):
    os_open = os.open

    def refuse(path, flags, *more):
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "no")
        return os_open(path, flags, *more)

    monkeypatch.setattr(block_image.os, "open", refuse)
    image = BlockImage(path)
    assert image.read_only
    image.close()
    image.close()


def test_a_missing_image_is_named_with_its_errno(tmp_path):
    with pytest.raises(ConfigError, match="nowhere") as caught:
        BlockImage(str(tmp_path / "nowhere"))
    assert caught.value.errno == errno.ENOENT
