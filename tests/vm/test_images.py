# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
import struct

import pytest

from ptnetmap.errors import ConfigError
from ptnetmap.vm.images import check_image, lock_image

SIZE = 1 << 20


def gpt(sectors):
    head = bytearray(SIZE)
    head[510:512] = b"\x55\xaa"
    head[446:462] = struct.pack("<B3xB3xII", 0, 0xEE, 1, min(sectors - 1, 0xFFFFFFFF))
    head[512:520] = b"EFI PART"
    struct.pack_into("<Q", head, 512 + 32, sectors - 1)
    return bytes(head)


def mbr(first, count):
    head = bytearray(SIZE)
    head[510:512] = b"\x55\xaa"
    head[446:462] = struct.pack("<B3xB3xII", 0x80, 0x83, first, count)
    return bytes(head)


@pytest.mark.parametrize("data", [bytes(SIZE), gpt(SIZE // 512), mbr(1, SIZE // 512 - 1)], ids=["empty", "gpt", "mbr"])
def test_whole_raw_images_are_taken(data, tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(data)
    check_image(str(path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes"),
        (bytes(1000), "is truncated: it has 1,000 bytes"),
        (gpt(SIZE // 512 + 8), "its partitions need 1,052,672"),
        (mbr(1, SIZE // 512), "its partitions need 1,049,088"),
        (b"QFI\xfb" + bytes(SIZE - 4), "qemu-img convert -f qcow2 -O raw"),
        (b"KDMV" + bytes(SIZE - 4), "qemu-img convert -f vmdk"),
        (b"vhdxfile" + bytes(SIZE - 8), "qemu-img convert -f vhdx"),
        (bytes(0x40) + b"\x7f\x10\xda\xbe" + bytes(SIZE - 0x44), "qemu-img convert -f vdi"),
        (b"\xfd7zXZ\0" + bytes(SIZE - 6), "compressed"),
    ],
)
def test_others_are_refused_with_what_to_do(data, message, tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        check_image(str(path))
    assert path.read_bytes() == data


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file") as missing:
        check_image(str(tmp_path / "none"))
    assert missing.value.errno == errno.ENOENT
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(ConfigError, match="neither a file nor a block device"):
            check_image(str(path))


def test_an_image_is_one_machines_at_a_time(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(512))
    fd = lock_image(str(path))
    with pytest.raises(ConfigError, match="two would destroy it"):
        lock_image(str(path))
    os.close(fd)
    os.close(lock_image(str(path)))
