# SPDX-License-Identifier: BSD-2-Clause
import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, suppress

import pytest

from ptnetmap.bhyve.control import client, place, server
from ptnetmap.bhyve.control.client import Connection
from ptnetmap.bhyve.control.error import ControlError
from ptnetmap.bhyve.control.server import ControlServer
from ptnetmap.errors import HypervisorError

DEADLINE = 30

MACHINE = """
import asyncio, sys
from pathlib import Path
from ptnetmap.bhyve.control.server import ControlServer

async def main(name, place, how):
    end = asyncio.Event()
    actions = {} if how == "unwilling" else {"destroy": end.set}
    server = ControlServer(name, actions, place=Path(place))
    await server.start()
    print("up", flush=True)
    await end.wait()
    await server.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "bhyve"


@pytest.fixture
def machine(directory):
    """Start a process with a machine's control socket, and wait until it listens."""
    started = []

    def start(name="vm", how="willing"):
        process = subprocess.Popen([sys.executable, "-c", MACHINE, name, directory, how], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@asynccontextmanager
async def serving(directory, actions, name="vm"):
    control = ControlServer(name, actions, place=directory)
    await control.start()
    try:
        yield control
    finally:
        await control.close()


def run(body):
    asyncio.run(asyncio.wait_for(body, DEADLINE))


async def ask(directory, command, name="vm", **arguments):
    def work():
        with Connection(name, directory=directory) as connection:
            return connection.request(command, **arguments)

    return await asyncio.to_thread(work)


def raw(directory):
    """A connection without manners."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(DEADLINE)
    connection.connect(str(directory / "vm.sock"))
    return connection


async def read_line(connection):
    line = b""
    while not line.endswith(b"\n"):
        line += await asyncio.to_thread(connection.recv, 1)
    return line


async def read_rest(connection):
    """Read until the server hangs up; return what came."""
    data = b""
    with suppress(ConnectionResetError):
        while more := await asyncio.to_thread(connection.recv, 1 << 20):
            data += more
    return data


def test_functions_and_coroutine_functions_answer(directory):
    async def double(number):
        await asyncio.sleep(0)
        return 2 * number

    async def body():
        async with serving(directory, {"get-stats": lambda: {"vcpu0": {"exits": 1}}, "double": double}):
            assert await ask(directory, "get-stats") == {"vcpu0": {"exits": 1}}
            assert await ask(directory, "double", number=21) == 42

    run(body())


def test_info_says_who_it_is_and_what_it_can(directory):
    async def body():
        actions = {"force-reset": lambda: None, "info": lambda: {"cpus": 2}}
        async with serving(directory, actions):
            info = await ask(directory, "info")
            assert (info["name"], info["pid"], info["cpus"]) == ("vm", os.getpid(), 2)
            assert info["commands"] == ["force-reset", "info"]

    run(body())


def test_several_requests_on_one_connection_are_answered_in_turn(directory):
    async def body():
        async with serving(directory, {"one": lambda: 1, "two": lambda: 2}):
            with raw(directory) as connection:
                connection.sendall(b'{"command": "one"}\n{"command": "two"}\n{"comm')
                assert await read_line(connection) == b'{"result": 1}\n'
                assert await read_line(connection) == b'{"result": 2}\n'
                connection.sendall(b'and": "one"}\n')
                assert await read_line(connection) == b'{"result": 1}\n'

    run(body())


@pytest.mark.parametrize(
    ("command", "arguments", "code", "message"),
    [
        ("dance", {}, errno.EOPNOTSUPP, "cannot 'dance'\n        it can broken, fails, info, odd"),
        ("info", {"cpu": 1}, errno.EINVAL, "wrong arguments of info"),
        ("fails", {}, errno.ENODEV, "there is no /dev/kvm"),
        ("broken", {}, errno.EIO, "the command failed: ZeroDivisionError"),
        ("odd", {}, errno.EPROTO, "cannot be written as JSON"),
    ],
)
def test_an_error_is_the_answer_and_the_machine_goes_on(command, arguments, code, message, directory):
    def fails():
        raise HypervisorError(errno.ENODEV, "there is no /dev/kvm")

    async def body():
        reported = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        async with serving(directory, {"fails": fails, "broken": lambda: 1 // 0, "odd": object}):
            with pytest.raises(ControlError, match=message) as caught:
                await ask(directory, command, **arguments)
            assert caught.value.errno == code
            assert (await ask(directory, "info"))["name"] == "vm"
        assert [type(error) for error in reported] == ([ZeroDivisionError] if command == "broken" else [])

    run(body())


def test_garbage_is_refused_and_the_next_line_is_read(directory):
    async def body():
        async with serving(directory, {"one": lambda: 1}):
            with raw(directory) as connection:
                connection.sendall(b'\xff\x00garbage\n\n[]\n{"command": "one"}\n')
                for _ in range(3):
                    assert json.loads(await read_line(connection))["error"]["errno"] == errno.EINVAL
                assert await read_line(connection) == b'{"result": 1}\n'

    run(body())


def test_a_huge_line_ends_the_connection_and_nothing_else(directory):
    async def body():
        async with serving(directory, {"one": lambda: 1}):
            with raw(directory) as connection:
                connection.sendall(b"x" * 8192)
                answer = await read_rest(connection)
                assert json.loads(answer)["error"]["errno"] == errno.EMSGSIZE
            assert await ask(directory, "one") == 1

    run(body())


def test_clients_that_say_nothing_make_room_for_those_that_do(directory):
    async def body():
        async with serving(directory, {"one": lambda: 1}):
            silent = []
            for _ in range(server.MAX_CLIENTS):
                silent.append(raw(directory))
                silent[-1].sendall(b"no line feed")
                await asyncio.sleep(0)
            assert await ask(directory, "one") == 1
            assert await read_rest(silent[0]) == b""
            for connection in silent:
                connection.close()

    run(body())


def test_a_client_that_does_not_read_its_answers_is_dropped(directory, monkeypatch):
    monkeypatch.setattr(server, "READING_SECONDS", 0.05)

    async def body():
        async with serving(directory, {"much": lambda: "x" * 900_000, "one": lambda: 1}) as control:
            with raw(directory) as connection:
                connection.sendall(b'{"command": "much"}\n' * 20)
                assert await ask(directory, "one") == 1
                while control._clients:
                    await asyncio.sleep(0)
                assert len(await read_rest(connection)) < 900_000

    run(body())


def test_a_client_that_leaves_at_once_costs_nothing(directory):
    async def body():
        reported = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        async with serving(directory, {"one": lambda: 1}):
            for sent in (b"", b"half", b'{"command": "one"}\n' * 50):
                with raw(directory) as connection:
                    connection.sendall(sent)
            assert await ask(directory, "one") == 1
        assert reported == []

    run(body())


def test_an_action_may_end_the_machine_and_is_still_answered(directory):
    async def body():
        async with serving(directory, {}) as control:
            control._actions["destroy"] = control.close
            assert await ask(directory, "destroy") is None
            assert list(directory.iterdir()) == []

    run(body())


def test_answers_on_their_way_go_out_before_the_end(directory):
    async def body():
        asked, go = asyncio.Event(), asyncio.Event()

        async def slow():
            asked.set()
            await go.wait()
            return "done"

        async with serving(directory, {"slow": slow}) as control:
            answer = asyncio.create_task(ask(directory, "slow"))
            await asked.wait()
            closing = asyncio.create_task(control.close())
            go.set()
            assert await answer == "done"
            await closing

    run(body())


def test_an_action_that_never_ends_does_not_keep_the_machine(directory, monkeypatch):
    monkeypatch.setattr(server, "PARTING_SECONDS", 0.05)

    async def body():
        asked = asyncio.Event()

        async def forever():
            asked.set()
            await asyncio.Event().wait()

        async with serving(directory, {"forever": forever}):
            answer = asyncio.create_task(ask(directory, "forever"))
            await asked.wait()
        with pytest.raises(ControlError, match="ended before it answered"):
            await answer

    run(body())


def test_a_second_machine_of_the_name_is_refused_and_the_first_goes_on(directory):
    async def body():
        async with serving(directory, {"one": lambda: 1}):
            second = ControlServer("vm", {}, place=directory)
            with pytest.raises(ControlError, match="vm is running already"):
                await second.start()
            await second.close()
            assert await ask(directory, "one") == 1

    run(body())


def test_nothing_is_left_when_the_socket_cannot_be_made(directory, monkeypatch):
    def refuse(self, backlog):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "listen", refuse)

    async def body():
        control = ControlServer("vm", {}, place=directory)
        with pytest.raises(ControlError, match="cannot listen"):
            await control.start()
        await control.close()
        assert list(directory.iterdir()) == []

    run(body())


def test_no_machine_is_said_so(directory):
    with pytest.raises(ControlError, match="no virtual machine vm is running") as caught:
        Connection("vm", directory=directory)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(ControlError, match="no virtual machine vm is running"):
        client.destroy("vm", directory=directory)


def test_a_machine_that_does_not_listen_yet_is_told_from_none(directory):
    with place.Claim("vm", directory):
        with pytest.raises(ControlError, match="does not listen") as caught:
            Connection("vm", directory=directory)
        assert caught.value.errno == errno.ECONNREFUSED


def test_the_list_has_the_living_and_removes_the_dead(machine, directory):
    killed = machine("killed")
    alive = machine("alive")
    killed.kill()
    killed.wait()

    found = client.listing(patience=DEADLINE, directory=directory)

    assert [(info["name"], info["pid"], info["answers"]) for info in found] == [("alive", alive.pid, True)]
    assert place.names(directory) == ["alive"]


def test_a_machine_that_hangs_is_listed_with_its_process(machine, directory):
    process = machine()
    process.send_signal(signal.SIGSTOP)

    assert client.listing(patience=0.1, directory=directory) == [{"name": "vm", "pid": process.pid, "answers": False}]


def test_destroy_lets_a_willing_machine_end_itself(machine, directory):
    process = machine()
    client.destroy("vm", directory=directory)

    assert process.wait(DEADLINE) == 0
    assert list(directory.iterdir()) == []


def test_destroy_kills_a_machine_that_cannot_end_itself(machine, directory):
    process = machine(how="unwilling")
    client.destroy("vm", directory=directory)

    assert process.wait(DEADLINE) == -signal.SIGKILL
    assert list(directory.iterdir()) == []


def test_destroy_kills_a_machine_that_hangs(machine, directory):
    process = machine()
    process.send_signal(signal.SIGSTOP)
    client.destroy("vm", patience=0.2, directory=directory)

    assert process.wait(DEADLINE) == -signal.SIGKILL
    assert list(directory.iterdir()) == []


def test_destroy_finds_a_machine_whose_socket_was_removed(machine, directory):
    process = machine()
    (directory / "vm.sock").unlink()
    client.destroy("vm", directory=directory)

    assert process.wait(DEADLINE) == -signal.SIGKILL


def test_destroy_removes_what_a_dead_machine_left(machine, directory):
    process = machine()
    process.kill()
    process.wait()
    client.destroy("vm", directory=directory)

    assert list(directory.iterdir()) == []


def test_destroy_spares_a_later_process_of_the_same_number(directory):
    """The lock file names this process, and nobody holds the lock: it must not be killed."""
    directory.mkdir()
    (directory / "vm.lock").write_text(f"{os.getpid()}\n")
    client.destroy("vm", directory=directory)

    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"garbage\n", "this is no answer"),
        (b"", "ended before it answered"),
        (b"no line feed", "ended before it answered"),
        (b"x" * 2_000_000, "longer than"),
        (None, "does not answer"),
    ],
    ids=["garbage", "nothing", "half", "huge", "silence"],
)
def test_a_machine_that_answers_wrongly_is_an_error_for_the_client(answer, message, directory):
    def serve(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            if answer is None:
                connection.recv(1)  # until the client hangs up
            else:
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(answer)

    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "vm.sock"))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        patience = 0.2 if answer is None else DEADLINE
        with (
            Connection("vm", patience=patience, directory=directory) as machine,
            pytest.raises(ControlError, match=message),
        ):
            machine.request("info")
        thread.join(DEADLINE)
