# SPDX-License-Identifier: BSD-2-Clause
import errno
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import ptnetmap
from ptnetmap.netmap.client.dial import dial
from ptnetmap.netmap.daemon import patience
from ptnetmap.netmap.daemon.errors import DaemonError
from ptnetmap.netmap.daemon.locks import holder, life_lock, start_lock
from ptnetmap.netmap.daemon.startup import Options, start_in_background

DAEMON = """\
import contextlib, json, os, resource, selectors, signal, sys, time
from ptnetmap.cli.netmapd import main
from ptnetmap.errors import PortError

def serve(listening, options):
    life = options.life
    {before}
    life.ready()
    selector = selectors.DefaultSelector()
    selector.register(life.stop, selectors.EVENT_READ)
    selector.register(listening, selectors.EVENT_READ)
    clients = set()

    def welcome(client):
        clients.add(client)
        selector.register(client, selectors.EVENT_READ)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        about = dict(pid=os.getpid(), session=os.getsid(0), cwd=os.getcwd(), all_files=soft == hard,
                     environment=[name for name in os.environ if name.startswith(("LISTEN_", "NOTIFY_"))])
        with contextlib.suppress(BrokenPipeError):
            client.send(json.dumps(about).encode())

    while not life.stop.requested:
        wait = life.idle.look(time.monotonic(), len(clients), False)
        if wait == 0:
            selector.unregister(listening)
            late = life.leave()
            if late is None:
                break
            life.idle.restart()
            selector.register(listening, selectors.EVENT_READ)
            for client in late:
                welcome(client)
        for key, _ in selector.select(wait):
            if key.fileobj is listening:
                welcome(listening.accept()[0])
            elif key.fileobj in clients:
                word = b""
                with contextlib.suppress(ConnectionResetError):  # it went without reading what it was told
                    word = key.fileobj.recv(100)
                if word == b"stop":
                    life.stop.request()
                if not word:
                    selector.unregister(key.fileobj)
                    clients.remove(key.fileobj)
                    key.fileobj.close()
    return 0

sys.exit(main(serve=serve))
"""
"""A netmapd without netmap: it tells each client about its process."""

CLIENT = """\
import json, os, sys
from ptnetmap.netmap.client.dial import dial
sys.stdin.read()
for _ in range(int(sys.argv[1])):
    with dial(program=sys.argv[2:]) as connection:
        print(json.loads(connection.recv(1000))["pid"], flush=True)
"""


@pytest.fixture
def directory():
    # Not tmp_path: a socket's path has to be short.
    made = Path(tempfile.mkdtemp(prefix="netmapd-", dir="/tmp"))
    yield made
    for lock in made.glob("*.lock"):
        if not life_lock(lock.with_suffix("")).try_acquire():
            os.kill(holder(lock), signal.SIGKILL)
    shutil.rmtree(made)


@pytest.fixture
def path(directory, monkeypatch):
    monkeypatch.setenv("NETMAP_SOCKET", str(directory / "socket"))
    return directory / "socket"


@pytest.fixture
def program(directory):
    """Make the command of a daemon that does ``before`` when it starts, and gets more options."""

    def make(*options, before="pass"):
        script = directory / "daemon.py"
        script.write_text(DAEMON.format(before=before))
        return [sys.executable, str(script), *options]

    return make


def about(connection):
    return json.loads(connection.recv(1000))


def stop(connection):
    """Stop the daemon and wait until it is gone."""
    with connection:
        connection.send(b"stop")
        while connection.recv(1000):
            pass


def kill(pid):
    """End a daemon by force, and wait until it has."""
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([process], [], [])
    os.close(process)


def starts(path):
    return path.with_name("socket.log").read_text().count("started by process")


# -- one daemon -------------------------------------------------------------------------------------------------------


def test_ten_processes_that_dial_at_once_start_one_daemon_and_all_reach_it(path, program):
    command = [sys.executable, "-c", CLIENT, "1", *program()]
    clients = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(10)]
    for client in clients:
        client.stdin.close()
    pids = [client.stdout.read() for client in clients]
    for client in clients:
        client.stdout.close()

    assert [client.wait() for client in clients] == [0] * 10
    assert len(set(pids)) == 1
    assert starts(path) == 1


def test_a_second_dial_reaches_the_same_daemon(path, program):
    with dial(program=program()) as first, dial(program=["/nonexistent"]) as second:
        assert about(first)["pid"] == about(second)["pid"]


def test_the_daemon_is_nobodys_child_and_holds_on_to_nothing_of_its_starter(path, program, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent")
    monkeypatch.setenv("LISTEN_FDS", "1")
    with dial(program=program()) as connection:
        found = about(connection)

        assert found["session"] not in (os.getsid(0), found["pid"])
        assert (found["cwd"], found["all_files"], found["environment"]) == ("/", True, [])
        with pytest.raises(ChildProcessError):
            os.waitpid(found["pid"], os.WNOHANG)


def test_a_package_that_is_found_by_a_relative_path_is_found_by_the_daemon_too(path, program, monkeypatch):
    package = Path(ptnetmap.__file__).parent.parent
    monkeypatch.chdir(package.parent)
    monkeypatch.setenv("PYTHONPATH", package.name)
    isolated = [sys.executable, "-S", *program()[1:]]  # without site-packages, and what is installed there

    with dial(program=isolated) as connection:
        assert about(connection)["cwd"] == "/"


def test_dial_gives_a_blocking_seqpacket_socket_that_is_closed_on_exec(path, program):
    with dial(program=program()) as connection:
        assert connection.type == socket.SOCK_SEQPACKET
        assert connection.gettimeout() is None
        assert not connection.get_inheritable()


def test_what_a_dead_daemon_left_behind_is_replaced(path, program):
    with dial(program=program()) as connection:
        first = about(connection)["pid"]
        kill(first)
    assert path.is_socket()

    with dial(program=program()) as connection:
        assert about(connection)["pid"] != first


def test_a_daemon_that_was_told_to_stop_removes_its_socket_and_is_started_again(path, program):
    connection = dial(program=program())
    first = about(connection)["pid"]
    stop(connection)

    with dial(program=program()) as connection:
        assert about(connection)["pid"] != first
    assert starts(path) == 2


def test_every_dial_is_answered_although_the_daemon_leaves_as_soon_as_it_can(path, program):
    command = [sys.executable, "-c", CLIENT, "6", *program("--idle", "0.0001")]
    clients = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(2)]
    answers = [client.communicate()[0].split() for client in clients]

    assert [client.returncode for client in clients] == [0, 0]
    assert [len(answer) for answer in answers] == [6, 6]


def test_dial_without_start_waits_for_a_daemon_that_is_being_started(path, program):
    lock = start_lock(path)
    assert lock.try_acquire()
    code = "import sys; from ptnetmap.netmap.client.dial import dial; print(1, flush=True); dial(start=False).recv(1)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as client:
        client.stdout.readline()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(str(path))
            listening.listen()
            lock.release()
            listening.accept()[0].close()
        assert client.wait() == 0


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_dial_without_start_says_that_nobody_listens_and_makes_nothing(path):
    with pytest.raises(DaemonError, match=rf"no netmapd listens at {path} \(from NETMAP_SOCKET\)\n") as caught:
        dial(start=False)

    assert caught.value.errno == errno.ENOENT
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("before", "code", "message"),
    [
        ("raise PortError(12, 'netmap: no memory\\n        use less')", errno.ENOMEM, "netmap: no memory\n        use"),
        ("raise RuntimeError('on purpose')", errno.EIO, "RuntimeError: on purpose"),
        ("print('last words', file=sys.stderr, flush=True); os._exit(3)", errno.EIO, "and died: last words"),
        ("return 7", errno.EIO, "ended with 7 before it was ready"),
        ("os.kill(os.getpid(), signal.SIGTERM)", errno.EINTR, "was stopped while it started"),
    ],
    ids=["its own error", "any exception", "death", "no ready", "stopped"],
)
def test_a_daemon_that_fails_at_its_start_gives_the_client_its_message_and_log(before, code, message, path, program):
    with pytest.raises(DaemonError) as caught:
        dial(program=program(before=before))

    assert caught.value.errno == code
    assert message in str(caught.value)
    assert str(path) + ".log" in str(caught.value)
    with dial(program=program()) as connection:
        assert about(connection)


def test_a_program_that_does_not_exist_is_named(path):
    with pytest.raises(DaemonError, match="cannot run /nonexistent") as caught:
        dial(program=["/nonexistent"])

    assert caught.value.errno == errno.ENOENT


def test_a_daemon_that_hangs_at_its_start_is_given_up(path, program):
    with pytest.raises(DaemonError, match="has not answered since") as caught:
        dial(timeout=0.2, program=program(before="signal.pause()"))

    assert caught.value.errno == errno.ETIMEDOUT
    with pytest.raises(DaemonError, match=f"another process .{holder(path.with_name('socket.start'))}. has been start"):
        dial(timeout=0.2, program=program())


def test_a_start_that_takes_long_is_told_on_one_line(path, program, monkeypatch, capsys):
    monkeypatch.setattr(patience, "TELL_AFTER", 0.01)
    with dial(program=program()):
        said = capsys.readouterr().err

    assert said.startswith("ptnetmap: starting netmapd, compiling")
    assert said.endswith(" s\n")
    assert said.count("\n") == 1


def refused(path):
    """Dial as somebody who may not connect; return what that gives."""
    code = (
        "import os\n"
        "from ptnetmap.netmap.client.dial import dial\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: dial(program=['/nonexistent'])\n"
        "except OSError as error: print(error.errno); print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    code, _, message = done.stdout.partition("\n")
    return int(code), message


def test_without_permission_the_error_names_the_group_to_join(path):
    # Root may connect to any socket, and so becomes somebody else; others lose their own permission.
    path.parent.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o060)
        code, message = refused(path)

    assert code == errno.EACCES
    assert f"{path} (from NETMAP_SOCKET): permission denied; it is for group {path.group()}" in message
    assert f"usermod -aG {path.group()}" in message


def test_a_socket_for_its_owner_alone_leaves_only_another_path(path):
    path.parent.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o000)
        code, message = refused(path)

    assert code == errno.EACCES
    assert f"it is for uid {path.stat().st_uid} alone" in message


def make_nothing(path):
    pass


def make_directory(path):
    path.mkdir()


def make_file(path):
    path.write_text("precious")


def make_stream(path):
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()
    return listening


@pytest.mark.parametrize(
    ("value", "make", "code", "message"),
    [
        ("nonsense", make_nothing, errno.EINVAL, "NETMAP_SOCKET is 'nonsense', which is not an absolute path"),
        ("{}/" + "x" * 108, make_nothing, errno.ENAMETOOLONG, "is too long for a socket"),
        ("/", make_nothing, errno.EINVAL, "cannot be a socket's path"),
        ("{}/missing/socket", make_nothing, errno.ENOENT, "there is no directory"),
        ("{}/it", make_directory, errno.ENOTSOCK, "is a directory, not netmapd's socket"),
        ("{}/it", make_file, errno.ENOTSOCK, "is a file, not netmapd's socket"),
        ("{}/it/socket", make_file, errno.ENOENT, "there is no directory"),
        ("{}/it", make_stream, errno.EPROTOTYPE, "something listens there that is not netmapd"),
        ("/dev/null", make_nothing, errno.ENOTSOCK, "is a device or pipe"),
    ],
)
def test_a_nonsensical_netmap_socket_is_explained_and_nothing_is_touched(
    value, make, code, message, directory, monkeypatch
):
    monkeypatch.setenv("NETMAP_SOCKET", value.format(directory))
    made = make(directory / "it")
    before = sorted(directory.iterdir())
    with pytest.raises(DaemonError) as caught:
        dial(program=["/nonexistent"])
    if made:
        made.close()

    assert caught.value.errno == code
    assert message in str(caught.value)
    assert sorted(directory.iterdir()) == before


# -- by hand, and by systemd ------------------------------------------------------------------------------------------


@pytest.fixture
def foreground():
    """Start a daemon as a child; return it once it listens."""
    children = []

    def make(command, **options):
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
        children.append(child)
        line = child.stderr.readline()
        assert "listens at" in line, line + child.stderr.read()
        return child

    yield make
    for child in children:
        child.kill()
        ended(child)


def ended(child):
    child.stderr.close()
    return child.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_it_ends_on_a_signal_and_removes_its_socket(number, path, program, foreground):
    child = foreground([*program("--foreground", "--mode", "0640")])
    with dial(start=False) as connection:
        child.send_signal(signal.SIGHUP)

        assert about(connection)["pid"] == child.pid
        assert path.stat().st_mode & 0o777 == 0o640
        child.send_signal(number)
        assert ended(child) == 0
    assert not path.exists()


def test_in_the_background_it_says_where_it_is_and_takes_the_options_along(path, program, capsys):
    assert start_in_background(Options(), ["--mode", "0640"], program()) == 0

    with dial(start=False) as connection:
        told = f"netmapd: process {about(connection)['pid']} listens at {path}; its log is {path}.log\n"
    assert capsys.readouterr().out == told
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(DaemonError, match="already") as caught:
        start_in_background(Options(), [], program())
    assert caught.value.errno == errno.EADDRINUSE


def test_a_second_daemon_leaves_the_first_alone(path, program, foreground):
    child = foreground(program("--foreground"))
    second = subprocess.run(program("--foreground"), capture_output=True, text=True)

    assert second.returncode == 1
    assert f"netmapd (process {child.pid}) listens at {path} (from NETMAP_SOCKET) already" in second.stderr
    stop(dial(start=False))
    assert ended(child) == 0


def test_a_daemon_that_lost_its_socket_file_does_not_remove_its_successors(path, program, foreground):
    child = foreground(program("--foreground"))
    path.rename(path.with_name("lost"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(str(path))
        child.send_signal(signal.SIGTERM)
        assert ended(child) == 0
    assert path.is_socket()


ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= dict(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES="x")
os.execv(sys.argv[3], sys.argv[3:])
"""


def activate(listening, command, count=1):
    """The command that runs ``command`` as systemd runs a service with a socket."""
    wrapped = [sys.executable, "-c", ACTIVATE, str(listening.fileno()), str(count), *command]
    return wrapped, {"pass_fds": (listening.fileno(),)}


def test_it_serves_the_socket_that_systemd_passes_and_tells_when_it_does(
    path, program, directory, foreground, monkeypatch
):
    monkeypatch.setenv("NOTIFY_SOCKET", str(directory / "notify"))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        systemd.bind(str(directory / "notify"))
        listening.bind(str(path))
        listening.listen()
        with dial(start=False) as connection:
            command, options = activate(listening, program())
            child = foreground(command, **options)

            found = about(connection)
            assert found["pid"] == child.pid
            assert found["environment"] == ["NOTIFY_SOCKET"]
            assert systemd.recv(100) == b"READY=1"
            connection.send(b"stop")
            assert ended(child) == 0
            assert systemd.recv(100) == b"STOPPING=1"

        assert path.is_socket()
        listening.setblocking(False)
        with dial(start=False), listening.accept()[0]:
            pass  # it still listens: the next one starts the next daemon


@pytest.mark.parametrize(
    ("kind", "count"), [(socket.SOCK_STREAM, 1), (socket.SOCK_DGRAM, 1), (socket.SOCK_SEQPACKET, 2)]
)
def test_another_socket_of_systemds_is_refused(kind, count, path, program):
    with socket.socket(socket.AF_UNIX, kind) as listening:
        listening.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            listening.listen()
        command, options = activate(listening, program(), count)
        done = subprocess.run(command, capture_output=True, text=True, **options)

    assert done.returncode == 1
    assert "write ListenSequentialPacket=" in done.stderr
