# SPDX-License-Identifier: BSD-2-Clause
import errno
import os

import pytest

from ptnetmap.netmap.daemon import place
from ptnetmap.netmap.daemon.errors import DaemonError


@pytest.fixture(autouse=True)
def usual(tmp_path, monkeypatch):
    """No NETMAP_SOCKET, no system's daemon, no runtime directory; /tmp is the test's."""
    for name in ("NETMAP_SOCKET", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(place, "SYSTEM", tmp_path / "system")
    monkeypatch.setattr(place, "TEMPORARY", tmp_path)
    # The directories' names are as long as the test's; only one test is about that.
    monkeypatch.setattr(place, "LONGEST", 1000)


@pytest.fixture
def mine(tmp_path):
    return tmp_path / f"netmap-{os.geteuid()}"


def test_netmap_socket_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("NETMAP_SOCKET", str(tmp_path / "named"))
    (tmp_path / "system").touch()

    assert place.find() == (tmp_path / "named", True)


def test_what_a_program_was_told_comes_before_netmap_socket(tmp_path, monkeypatch):
    monkeypatch.setenv("NETMAP_SOCKET", str(tmp_path / "named"))
    monkeypatch.chdir(tmp_path)

    assert place.find("other") == (tmp_path / "other", True)


def test_an_empty_netmap_socket_counts_as_none(mine, monkeypatch):
    monkeypatch.setenv("NETMAP_SOCKET", "")

    assert place.find() == (mine / "socket", True)


def test_the_systems_socket_comes_before_the_users_and_is_not_a_clients_to_start(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "system").touch()

    assert place.find() == (tmp_path / "system", False)


def test_the_users_socket_is_in_the_runtime_directory_and_finding_it_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    assert place.find() == (tmp_path / "netmap" / "socket", True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["relative", "/nonexistent/directory", "/dev/null"])
def test_an_unusable_runtime_directory_is_passed_over(value, mine, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)

    assert place.find() == (mine / "socket", True)


def test_somebody_elses_runtime_directory_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)

    assert place.find().path.parent == tmp_path / f"netmap-{os.geteuid()}"


def test_a_missing_directory_of_netmap_socket_cannot_be_started_in(tmp_path, monkeypatch):
    monkeypatch.setenv("NETMAP_SOCKET", str(tmp_path / "missing" / "socket"))

    assert not place.find().may_start
    with pytest.raises(DaemonError, match="there is no directory"):
        place.prepare(place.find().path)


def test_the_users_directory_is_made_for_the_user_alone(mine):
    place.prepare(mine / "socket")
    place.prepare(mine / "socket")

    assert mine.stat().st_mode & 0o777 == 0o700
    assert place.find() == (mine / "socket", True)


def link(mine):
    mine.with_name("elsewhere").mkdir(mode=0o700)
    mine.symlink_to(mine.with_name("elsewhere"))


def dangling(mine):
    mine.symlink_to("nowhere")


def open_to_all(mine):
    mine.mkdir()
    mine.chmod(0o777)


def open_to_readers(mine):
    mine.mkdir()
    mine.chmod(0o750)


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (link, errno.ELOOP, "is a symbolic link"),
        (dangling, errno.ELOOP, "is a symbolic link"),
        (lambda mine: mine.touch(), errno.ENOTDIR, "is not a directory"),
        (open_to_all, errno.EACCES, "has mode 0777, so that others get in\n        chmod 700 "),
        (open_to_readers, errno.EACCES, "has mode 0750"),
    ],
    ids=["link", "dangling link", "file", "writable", "readable"],
)
def test_a_directory_that_others_may_have_made_or_may_enter_is_not_used(make, code, message, mine):
    make(mine)
    for attempt in (place.find, lambda: place.prepare(mine / "socket"), lambda: place.find(mine / "socket")):
        with pytest.raises(DaemonError, match=message) as caught:
            attempt()

        assert caught.value.errno == code
        assert str(mine) in str(caught.value)


def test_somebody_elses_directory_is_not_used(tmp_path, monkeypatch):
    somebody = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: somebody + 1)
    (tmp_path / f"netmap-{somebody + 1}").mkdir(mode=0o700)

    with pytest.raises(DaemonError, match=f"belongs to uid {somebody}, not to you .uid {somebody + 1}.") as caught:
        place.find()
    assert caught.value.errno == errno.EACCES


def test_the_longest_path_that_fits_is_accepted_and_the_next_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(place, "LONGEST", len(os.fsencode(tmp_path)) + 10)

    assert place.find(tmp_path / "123456789").path.name == "123456789"
    with pytest.raises(DaemonError, match="too long for a socket") as caught:
        place.find(tmp_path / "12345678ä")
    assert caught.value.errno == errno.ENAMETOOLONG


def test_a_nul_in_a_path_is_refused():
    with pytest.raises(DaemonError, match="cannot be a socket's path"):
        place.find("/tmp/a\0b")


def test_messages_say_where_a_socket_comes_from(tmp_path, mine, monkeypatch):
    assert place.describe(tmp_path / "system").endswith("system (the system's)")
    assert place.describe(mine / "socket").endswith("socket (yours)")
    monkeypatch.setenv("NETMAP_SOCKET", str(tmp_path / "x"))
    assert place.describe(tmp_path / "x").endswith("x (from NETMAP_SOCKET)")
    assert place.describe(tmp_path / "y").endswith("/y")
