# SPDX-License-Identifier: BSD-2-Clause
import shutil
import subprocess

import pytest

from ptnetmap.abi import netmap as abi

NUMBERS = {
    "NIOCGINFO": 0xC03C6991,
    "NIOCREGIF": 0xC03C6992,
    "NIOCTXSYNC": 0x6994,
    "NIOCRXSYNC": 0x6995,
    "NIOCCONFIG": 0xC1106996,
    "NIOCCTRL": 0xC0586997,
}


@pytest.mark.parametrize(("name", "value"), NUMBERS.items())
def test_an_ioctl_has_upstreams_number(name, value):
    assert getattr(abi, name) == value


def test_the_argument_of_niocconfig_has_272_bytes(layout):
    assert abi.nm_ifreq.itemsize == 272
    assert layout(abi.nm_ifreq) == {"nifr_name": (0, 16), "data": (16, 256)}
    assert abi.NM_IFRDATA_LEN == 256


@pytest.mark.gcc
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_numbers_are_those_of_the_systems_headers(tmp_path):
    program = r"""
        #include <stdio.h>
        #include <sys/ioctl.h>
        #define BYTES(n) struct { char bytes[n]; }
        int main(void) {
            printf("%lx %lx %lx %lx %lx %lx",
                (long)_IOWR('i', 145, BYTES(60)), (long)_IOWR('i', 146, BYTES(60)), (long)_IO('i', 148),
                (long)_IO('i', 149), (long)_IOWR('i', 150, BYTES(272)), (long)_IOWR('i', 151, BYTES(88)));
        }
    """
    source, binary = tmp_path / "numbers.c", tmp_path / "numbers"
    source.write_text(program)
    subprocess.run(["gcc", "-o", binary, source], check=True)
    printed = subprocess.run([binary], check=True, capture_output=True, text=True).stdout
    assert [int(word, 16) for word in printed.split()] == [getattr(abi, name) for name in NUMBERS]
