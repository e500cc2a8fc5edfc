# SPDX-License-Identifier: BSD-2-Clause
import asyncio
import contextlib
import itertools
import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.devices import uart as chip
from ptnetmap.bhyve.devices.serial import SerialPort

DEADLINE = 20


@pytest.fixture
def levels():
    return []


@pytest.fixture
def serial(host, levels):
    host.loop = asyncio.new_event_loop()
    serial = SerialPort(host, "com1", levels.append)
    yield serial
    serial.close()
    host.loop.close()


@pytest.fixture
def wait(host):
    async def until(condition):
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.001)

    return lambda condition: host.loop.run_until_complete(until(condition))


@pytest.fixture
def client(serial, wait, tmp_path):
    path = str(tmp_path / "socket")
    serial.connect(f"unix={path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.setblocking(False)
        wait(lambda: serial.console.is_connected)
        yield client


def read_all(serial):
    data = bytearray()
    while serial.read(chip.LSR, 1) & chip.LSR_READY:
        data.append(serial.read(chip.DATA, 1))
    return bytes(data)


def test_an_unconnected_port_takes_everything_and_gives_nothing(serial, levels):
    for _ in range(1000):
        assert serial.read(chip.LSR, 1) == chip.LSR_THRE | chip.LSR_TEMT
        serial.write(chip.DATA, 1, 0x41)
    assert levels == []


def test_input_interrupts_and_is_read_in_full(serial, client, wait, levels):
    sent = bytes(range(256)) * 20
    serial.write(chip.FCR, 1, 0xC1)
    serial.write(chip.IER, 1, chip.IER_RX)
    client.sendall(sent)
    wait(lambda: levels[-1:] == [True])
    got = bytearray()

    def done():
        got.extend(read_all(serial))
        return len(got) == len(sent)

    wait(done)
    assert bytes(got) == sent
    assert levels[-1] is False


def test_input_that_is_there_before_the_driver_survives_its_probing(serial, client, wait):
    client.sendall(b"typed ahead, more than fits\n")
    wait(lambda: serial.console._input)
    for value in (0, 0x0F, 0):  # whether there is a port at all
        serial.write(chip.IER, 1, value)
    for value in (1, 1, 7, 0):
        serial.write(chip.FCR, 1, value)
    for register in (chip.LSR, chip.DATA, chip.IIR, chip.MSR):
        serial.read(register, 1)
    serial.write(chip.IER, 1, chip.IER_RX | chip.IER_LINE)
    serial.write(chip.FCR, 1, chip.FCR_ENABLE)
    serial.write(chip.IER, 1, 0)  # while the kernel prints
    serial.write(chip.IER, 1, chip.IER_RX | chip.IER_LINE)

    assert read_all(serial) == b"typed ahead, more than fits\n"


def test_a_driver_that_waits_for_the_transmitter_loses_nothing_to_a_slow_reader(
    serial, client, wait, levels, monkeypatch
):
    monkeypatch.setattr("ptnetmap.bhyve.devices.console.console.BUSY", 2048)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    serial.write(chip.IER, 1, chip.IER_TX)
    sent = bytearray()
    while serial.read(chip.LSR, 1) & chip.LSR_THRE:
        sent.append(len(sent) % 251)
        serial.write(chip.DATA, 1, sent[-1])
        serial.read(chip.IIR, 1)
    assert levels[-1] is False
    got = bytearray()

    def read(count):
        def done():
            with contextlib.suppress(BlockingIOError):
                got.extend(client.recv(1 << 16))
            return len(got) >= count

        return done

    wait(read(len(sent)))
    wait(lambda: levels[-1] is True)
    serial.write(chip.DATA, 1, 0xFF)
    wait(read(len(sent) + 1))
    assert bytes(got) == bytes(sent) + b"\xff"


def test_wide_accesses_are_as_many_registers(serial):
    serial.write(chip.MCR, 4, 0x5A000000 | 0x03)
    assert serial.read(chip.SCR, 1) == 0x5A
    assert serial.read(chip.MCR, 4) == 0x5A_B0_60_03


def test_the_terminals_commands_reach_the_machine(host, serial, monkeypatch):
    raised = []
    monkeypatch.setattr("signal.raise_signal", raised.append)
    for command in ("poweroff", "reset", "button"):
        serial._command(command)

    assert host.suspended == ["poweroff", "reset"]
    assert len(raised) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 7), st.sampled_from([1, 2, 4]), st.integers(0, 1 << 32)), max_size=40
    )
)
def test_the_interrupt_line_follows_the_uart_whatever_the_guest_does(host, accesses):
    levels = [False]
    serial = SerialPort(host, "com1", levels.append)
    for is_write, offset, size, value in accesses:
        if is_write:
            serial.write(offset, size, value & ((1 << 8 * size) - 1))
        else:
            assert serial.read(offset, size) < 1 << 8 * size
        assert levels[-1] == serial.uart.interrupt
    assert all(before != after for before, after in itertools.pairwise(levels))


def test_two_processors_may_write_at_once(host, tmp_path):
    path = tmp_path / "log"
    serial = SerialPort(host, "com1", lambda level: None)
    serial.connect(str(path))

    def write(byte):
        for _ in range(500):
            with host.lock:
                serial.write(chip.DATA, 1, byte)

    threads = [threading.Thread(target=write, args=(byte,)) for byte in b"ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    serial.close()

    assert sorted(path.read_bytes()) == [ord("a")] * 500 + [ord("b")] * 500
    assert path.stat().st_size == 1000
