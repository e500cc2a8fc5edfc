# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
import socket

import pytest

from ptnetmap.bhyve.control import place
from ptnetmap.bhyve.control.error import ControlError
from ptnetmap.errors import ConfigError


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "bhyve"


def dead(name, directory):
    """Leave behind what a machine leaves when it is killed."""
    place.Claim(name, directory).close()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / f"{name}.sock"))
    (directory / f"{name}.lock").write_text("4194305\n")


def test_the_users_directory_is_in_the_runtime_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    assert place.socket_path("vm") == tmp_path / "ptnetmap" / "bhyve" / "vm.sock"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["", "relative", "/nonexistent/directory", "/dev/null"])
def test_an_unusable_runtime_directory_is_passed_over(value, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert str(place.directory()) == "/tmp/ptnetmap-1234/bhyve"

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(place.directory()) == "/run/ptnetmap/bhyve"


def test_somebody_elses_runtime_directory_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)

    assert place.directory().parent.name == f"ptnetmap-{os.geteuid()}"


def test_a_name_is_claimed_once(directory):
    with place.Claim("vm", directory), place.Claim("other", directory):
        with pytest.raises(ControlError, match=f"vm is running already, process {os.getpid()}\n") as caught:
            place.Claim("vm", directory)
        assert caught.value.errno == errno.EEXIST
        assert place.names(directory) == ["other", "vm"]
        assert place.is_held("vm", directory)


def test_nothing_is_left_of_a_claim_that_ended(directory):
    claim = place.Claim("vm", directory)
    claim.close()
    claim.close()

    assert list(directory.iterdir()) == []
    assert not place.is_held("vm", directory)
    place.Claim("vm", directory).close()


def test_the_directory_is_for_the_user_alone(directory):
    with place.Claim("vm", directory):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_what_a_dead_machine_left_is_not_in_the_way(directory):
    dead("vm", directory)

    with place.Claim("vm", directory):
        assert place.holder("vm", directory) == os.getpid()
        assert not (directory / "vm.sock").exists()


def test_what_a_dead_machine_left_is_swept_up_and_the_living_stay(directory):
    dead("dead", directory)
    with place.Claim("alive", directory):
        assert place.sweep("dead", directory)
        assert not place.sweep("dead", directory)
        assert not place.sweep("alive", directory)
        assert place.names(directory) == ["alive"]


def test_whoever_looks_at_a_free_name_does_not_take_it(directory):
    dead("vm", directory)

    assert not place.is_held("vm", directory)
    with place.Claim("vm", directory):
        pass


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\0"])
def test_a_name_cannot_lead_elsewhere(name, directory):
    for attempt in (place.Claim, place.socket_path, place.sweep, place.is_held):
        with pytest.raises(ConfigError, match="invalid name"):
            attempt(name, directory)


def test_a_name_that_is_too_long_says_by_how_much(directory):
    with pytest.raises(ConfigError, match=r"a name that is (\d+) characters shorter") as caught:
        place.Claim("x" * 200, directory)
    excess = int(str(caught.value).split("that is ")[1].split()[0])

    assert len(str(place.socket_path("x" * (200 - excess), directory))) == place.LONGEST


def link(directory):
    (directory.parent / "elsewhere").mkdir()
    directory.symlink_to("elsewhere")


def writable(directory):
    directory.mkdir()
    directory.chmod(0o777)


@pytest.mark.parametrize(
    ("make", "message"),
    [(link, "is a symbolic link"), (writable, "has mode 0777"), (lambda directory: directory.touch(), "cannot make")],
    ids=["link", "writable", "file"],
)
def test_a_directory_that_others_may_have_made_is_not_used(make, message, directory):
    make(directory)

    with pytest.raises(ControlError, match=message) as caught:
        place.Claim("vm", directory)
    assert str(directory) in str(caught.value)


def test_a_missing_directory_has_no_machines(directory):
    assert place.names(directory) == []
    assert not place.sweep("vm", directory)
    assert place.holder("vm", directory) is None
