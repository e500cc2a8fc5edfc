# SPDX-License-Identifier: BSD-2-Clause
"""QEMU as the front-end: its firmware boots from the network, which sets both queues of a virtio-net device up."""

import contextlib
import select
import shutil
import socket
import subprocess
import time

import pytest

from ptnetmap.abi import vhost_user as abi
from ptnetmap.errors import PeerError
from ptnetmap.netmap.vhost import PROTOCOL_FEATURES, Channel

pytestmark = [
    pytest.mark.nest,
    pytest.mark.skipif(
        shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64: install it with ipxe-qemu"
    ),
]

# What QEMU's own network devices do not ask for, and warn of.
CONFIG = abi.VHOST_USER_PROTOCOL_F_CONFIG
SLOTS = abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS
MEMORY = 64 << 20
PATIENCE = 300  # seconds


class Qemu:
    """A machine that boots, and a back-end without a network for it; ``until`` serves until something has happened."""

    def __init__(self, path, script):
        self.script = script
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(PATIENCE)
            self.process = subprocess.Popen(
                [
                    *("qemu-system-x86_64", "-accel", "tcg", "-m", f"{MEMORY >> 20}", "-nodefaults", "-nographic"),
                    *("-object", f"memory-backend-memfd,id=ram,size={MEMORY},share=on"),
                    *("-machine", "pc,memory-backend=ram", "-boot", "n", "-monitor", "stdio"),
                    *("-chardev", f"socket,id=back,path={path}", "-netdev", "vhost-user,id=net,chardev=back"),
                    *("-device", "virtio-net-pci,netdev=net"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
            )
            self.channel = Channel(listener.accept()[0])

    def monitor(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def until(self, happened):
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, self.script.connection.queues
            select.select([self.channel], [], [], 1)
            while (got := self.channel.receive()) is not None:
                reply = self.script.connection.receive(*got)
                if reply is not None:
                    self.channel.send(*reply)

    def close(self):
        self.channel.close()
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


@pytest.mark.parametrize("left_out", [CONFIG, CONFIG | SLOTS], ids=["slots", "table"])
def test_qemu_hands_queues_over_has_them_logged_and_takes_them_back(make_script, tmp_path, left_out):
    script = make_script(protocol_features=PROTOCOL_FEATURES & ~left_out)
    with contextlib.closing(script), contextlib.closing(Qemu(tmp_path / "socket", script)) as qemu:
        running = script.device.running
        qemu.until(lambda: set(running) == {0, 1})
        assert [mapping[:2] for mapping in script.device.mappings] == [(0, MEMORY)]
        assert all(setup.enabled and setup.desc < MEMORY for setup in running.values())

        qemu.monitor("system_reset")
        qemu.until(lambda: not running)
        qemu.until(lambda: set(running) == {0, 1})

        qemu.monitor('migrate -d "exec:cat >/dev/null"')
        qemu.until(lambda: any(call[0] == "log_queue" and call[2] is not None for call in script.device.calls))
        assert script.device.features & abi.VHOST_F_LOG_ALL
        assert script.device.log >= 0
        qemu.until(lambda: not running)

        qemu.monitor("quit")
        with pytest.raises(PeerError, match="the other side has gone"):
            qemu.until(lambda: False)
