# SPDX-License-Identifier: BSD-2-Clause
import os
import subprocess
import time

import pytest

from ptnetmap.errors import GuestError
from ptnetmap.guest import image as module
from ptnetmap.guest.image import Image, built_in, cached_path

IMAGE = Image(0x100000, bytes(range(256)) * 4, 0x104000, 0x104080, 64)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PTNETMAP_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch):
    """Build nothing, but count how often one would."""
    made = []

    def build():
        made.append(1)
        return IMAGE.to_bytes()

    monkeypatch.setattr(module, "_built", build)
    return made


def test_a_file_holds_the_image():
    assert Image.from_bytes(IMAGE.to_bytes(), "it") == IMAGE
    assert IMAGE.end == 0x100400


@pytest.mark.parametrize("cut", [0, 7, 48, 80, 500, -1])
def test_a_file_that_was_cut_is_refused(cut):
    with pytest.raises(GuestError, match=r"x\.image is no image of the built-in guest"):
        Image.from_bytes(IMAGE.to_bytes()[:cut], "x.image")


@pytest.mark.parametrize("place", [0, 8, 30, 50, 90])
def test_a_file_that_was_changed_is_refused(place):
    contents = bytearray(IMAGE.to_bytes())
    contents[place] ^= 1
    with pytest.raises(GuestError):
        Image.from_bytes(bytes(contents), "x.image")


def test_an_image_is_built_once(cache, builds):
    assert built_in() == built_in() == IMAGE
    assert builds == [1]
    assert os.listdir(cache) == [cached_path().name]  # noqa: PTH208  - names, not paths


def test_a_damaged_file_is_replaced(cache, builds):
    built_in()
    cached_path().write_bytes(b"junk")
    assert built_in() == built_in() == IMAGE
    assert builds == [1, 1]


def test_where_nothing_can_be_kept_the_image_is_built_each_time(tmp_path, monkeypatch, builds):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PTNETMAP_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert built_in() == built_in() == IMAGE
    assert builds == [1, 1]


def test_old_images_go_but_a_few_and_not_before_a_week(cache, builds):
    cache.mkdir()
    now = time.time()
    for days in range(2, 12):
        old = cache / f"guest-{days:016x}.image"
        old.touch()
        os.utime(old, (now - days * 86400, now - days * 86400))
    built_in()
    kept = {path.name for path in cache.iterdir()} - {cached_path().name}
    assert kept == {f"guest-{days:016x}.image" for days in range(2, 7)}


def test_a_change_of_sources_or_versions_changes_the_name(monkeypatch):
    before = module.digest()
    module.digest.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9")
    assert module.digest() != before
    module.digest.cache_clear()


def test_a_build_that_fails_says_how_to_see_why(cache, monkeypatch):
    def fails(command, **_):
        return subprocess.CompletedProcess(command, 1, b"", b"Traceback\nError: no such instruction")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(GuestError) as refused:
        built_in()
    assert "no such instruction" in str(refused.value)
    assert "-m ptnetmap.guest.build" in str(refused.value)
    assert not cache.exists()


@pytest.mark.slow
def test_the_image_is_built_by_another_process_and_always_the_same(cache, capsys, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # which must not matter
    begun = time.perf_counter()
    first = built_in()
    with capsys.disabled():
        print(f"\nbuilding the built-in guest took {time.perf_counter() - begun:.1f} s, {len(first.data):,} bytes")
    cached_path().unlink()
    assert built_in() == first
    assert first.base == 0x100000
    assert b"ptnetmap guest" in first.data
