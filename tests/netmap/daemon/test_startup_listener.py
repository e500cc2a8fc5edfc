# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from ptnetmap.netmap.daemon import listener as module
from ptnetmap.netmap.daemon.errors import DaemonError
from ptnetmap.netmap.daemon.listener import Listener, adopt, bind, notify
from ptnetmap.netmap.daemon.locks import Lock, life_lock, start_lock
from ptnetmap.netmap.daemon.patience import Patience


@pytest.fixture
def path():
    # Not tmp_path: a socket's path has to be short.
    directory = Path(tempfile.mkdtemp(prefix="netmapd-", dir="/tmp"))
    yield directory / "socket"
    shutil.rmtree(directory)


@pytest.fixture
def listener(path):
    made = bind(path)
    made.listen()
    yield made
    made.close()


def connect(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


# -- binding ----------------------------------------------------------------------------------------------------------


def test_nobody_gets_in_before_it_listens(path):
    made = bind(path)
    with pytest.raises(ConnectionRefusedError):
        connect(path)
    made.listen()
    connect(path).close()
    made.close()

    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "mode"),
    [({}, 0o600), ({"mode": 0o666}, 0o666), ({"group": str(os.getgid())}, 0o660)],
    ids=["default", "mode", "group"],
)
def test_mode_and_group_are_as_asked_whatever_the_umask(options, mode, path):
    before = os.umask(0o077)
    try:
        made = bind(path, **options)
    finally:
        os.umask(before)

    assert (path.stat().st_mode & 0o777, path.stat().st_gid) == (mode, os.getgid())
    made.close()


def test_an_unknown_group_is_an_error_and_nothing_is_bound(path):
    with pytest.raises(DaemonError, match="no group nonesuch") as caught:
        bind(path, group="nonesuch")

    assert caught.value.errno == errno.EINVAL
    assert not path.exists()


def test_a_stale_socket_is_replaced(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(path))
    made = bind(path)
    made.listen()
    connect(path).close()
    made.close()


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_a_socket_on_which_another_program_listens_stays(kind, path):
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(path))
        other.listen()
        before = path.stat().st_ino
        with pytest.raises(DaemonError, match="something listens") as caught:
            bind(path)

        assert caught.value.errno == errno.EADDRINUSE
        assert path.stat().st_ino == before


def test_a_file_in_the_way_stays(path):
    path.write_text("precious")
    with pytest.raises(DaemonError, match="is a file") as caught:
        bind(path)

    assert caught.value.errno == errno.ENOTSOCK
    assert path.read_text() == "precious"


# -- leaving ----------------------------------------------------------------------------------------------------------


def test_leaving_with_nobody_about_ends_all_reach(listener, path):
    assert listener.leave() is None
    assert not path.exists()
    assert start_lock(path).try_acquire()


def test_leaving_stays_for_whoever_is_in_the_backlog_and_listens_again(listener, path):
    number = listener.socket.fileno()
    with connect(path) as early:
        late = listener.leave()
        late[0].send(b"served")

        assert early.recv(10) == b"served"
        assert len(late) == 1
        late[0].close()
    assert listener.socket.fileno() == number
    assert listener.is_reachable()
    with connect(path), listener.socket.accept()[0]:
        pass
    assert listener.leave() is None


def test_no_client_is_lost_whenever_it_connects_while_the_daemon_leaves(listener, path, monkeypatch):
    """A client tries before, between and after the steps of leaving: it is served, or refused, never dropped."""
    steps = []
    clients = []

    def trying(step):
        def tried(*arguments):
            for moment in ("before", "after"):
                try:
                    clients.append(connect(path))
                    steps.append((step.__name__, moment, "connected"))
                except (FileNotFoundError, ConnectionRefusedError):
                    steps.append((step.__name__, moment, "refused"))
                if moment == "before":
                    result = step(*arguments)
            return result

        return tried

    # Through an open directory the path can be resolved before it is unlinked: keep a second name.
    for name in ("_unlink", "_backlog"):
        monkeypatch.setattr(Listener, name, trying(getattr(Listener, name)))
    late = listener.leave()
    monkeypatch.undo()
    late += listener._backlog()

    assert [outcome for *_, outcome in steps] == ["connected", "refused", "refused", "refused"]
    assert len(late) == len(clients) == 1
    for end in late + clients:
        end.close()


def test_a_client_that_found_the_path_before_it_went_is_refused_rather_than_forgotten(listener, path, monkeypatch):
    second_name = path.with_name("second")
    second_name.hardlink_to(path)
    backlog = Listener._backlog

    def after_the_shutdown(self):
        with pytest.raises(ConnectionRefusedError):
            connect(second_name)
        return backlog(self)

    monkeypatch.setattr(Listener, "_backlog", after_the_shutdown)
    assert listener.leave() is None


def test_leaving_waits_for_a_client_that_holds_the_start_lock(listener, path):
    with start_lock(path) as lock:
        assert lock.try_acquire()
        assert listener.leave() == []
        connect(path).close()


def test_a_daemon_whose_directory_is_gone_may_leave(path):
    directory = path.parent / "inner"
    directory.mkdir()
    made = bind(directory / "socket")
    made.listen()
    shutil.rmtree(directory)

    assert made.leave() is None
    made.close()


# -- systemd ----------------------------------------------------------------------------------------------------------


def test_sockets_for_another_process_are_not_adopted_and_the_environment_is_forgotten(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")

    assert adopt() is None
    assert "LISTEN_FDS" not in os.environ


def test_systemds_socket_goes_on_listening_when_the_daemon_leaves(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as systemds:
        systemds.bind(str(path))
        systemds.listen()
        ours = Listener(systemds.dup(), path, activated=True)

        assert ours.leave() is None
        ours.close()
        with connect(path), systemds.accept()[0]:
            pass
        assert path.exists()


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_at_its_socket(abstract, path, monkeypatch):
    address = f"\0{path}" if abstract else str(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        notify("READY=1")

        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "nonsense", "/nonexistent"])
def test_without_systemd_nobody_is_told(address, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


# -- locks ------------------------------------------------------------------------------------------------------------


def test_a_lock_has_one_holder_and_its_file_stays(path):
    first, second = life_lock(path), life_lock(path)
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()
    assert second.file.exists()


def test_a_shared_lock_is_free_once_both_have_closed_it_or_one_released_it(path):
    for end in ("close", "release"):
        first = start_lock(path)
        assert first.try_acquire()
        second = Lock.inherited(first.file, os.dup(first.fileno()))
        first.close()
        assert not start_lock(path).try_acquire()
        getattr(second, end)()
        with start_lock(path) as free:
            assert free.try_acquire()


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_not_believed(path, monkeypatch):
    lock = start_lock(path)
    opened = Lock._open

    def removed_once(self):
        monkeypatch.setattr(Lock, "_open", opened)
        fd = opened(self)
        self.file.unlink()
        return fd

    monkeypatch.setattr(Lock, "_open", removed_once)

    assert lock.try_acquire()
    assert os.path.samestat(os.fstat(lock.fileno()), lock.file.stat())
    lock.release()


def test_waiting_for_a_lock_ends_with_the_name_of_its_holder(path):
    with start_lock(path) as held, Patience(0.1) as patience:
        assert held.try_acquire()
        held.sign()
        with pytest.raises(DaemonError, match=f"another process .{os.getpid()}.") as caught:
            start_lock(path).acquire(patience)

    assert caught.value.errno == errno.ETIMEDOUT


def test_a_link_in_the_place_of_a_lock_is_not_followed(path):
    target = path.with_name("target")
    start_lock(path).file.symlink_to(target)
    with pytest.raises(DaemonError, match="cannot open"):
        start_lock(path).try_acquire()
    assert not target.exists()


def test_listening_is_seen_without_a_word(listener, path):
    assert module.listens(path)
    listener.socket.accept()[0].close()
    assert not module.listens(path.with_name("other"))
