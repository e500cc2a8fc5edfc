# SPDX-License-Identifier: BSD-2-Clause
"""What a guest does with ports that are passed through: lines "name: value", for a test to read.

Its host sends 64 frames to whoever says "receiving".
"""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import ptnetmap
from ptnetmap.cli import main as ptnetmap_command
from ptnetmap.cli import pkt_gen

PORT = "netmap:ptnet0"
ADDRESS = "0000:00:03.0"
FRAMES = 64
HOLD = """
import ptnetmap, sys
port = ptnetmap.open("netmap:ptnet0")
print("open", flush=True)
sys.stdin.read()
"""


def say(name: str, value: object) -> None:
    print(f"{name}: {value}", flush=True)


def refusal(name: str) -> str:
    """What opening a port comes to."""
    try:
        ptnetmap.open(name).close()
    except ptnetmap.PtnetmapError as error:
        return f"{error.name} {str(error).splitlines()[0]}"
    return "opened"


def receive(many: int) -> None:
    """Receive what the host sends, from Python."""
    with ptnetmap.open(PORT) as port:
        say("rings", f"{len(port.tx_rings)} {len(port.rx_rings)} {port.tx_rings[0].num_slots}")
        say("receiving", "recv")
        frames: list[bytes] = []
        while len(frames) < many:
            frames += port.recv(timeout=60)
        say("received", f"{len(frames)} of {len(frames[0])} bytes, {len(set(frames))} different")


def interrupted() -> int:
    """Interrupts of the port's device so far."""
    lines = Path("/proc/interrupts").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "uio_pci_generic" in line)


def with_interrupts() -> None:
    """Bind uio_pci_generic, and sleep in select(2) until the host sends."""
    Path("/sys/bus/pci/devices", ADDRESS, "driver_override").write_text("uio_pci_generic")
    Path("/sys/bus/pci/drivers_probe").write_text(ADDRESS)
    with ptnetmap.open(PORT) as port:
        fd = port.fileno()
        say("receiving", "interrupts")
        select.select([fd], [], [], 100)
        frames: list[bytes] = []
        while len(frames) < FRAMES:
            frames += port.recv(timeout=60)
        say("received by interrupts", len(frames))
        say("interrupted", interrupted())


def main() -> None:
    for _ in range(2):  # the first one also waits for the emulation of what it runs
        say("sent by pkt-gen", pkt_gen.main(["-i", PORT, "-f", "tx", "-n", sys.argv[1], "-w", "1"]))
    receive(FRAMES)
    say("receiving", "pkt-gen")
    say("received by pkt-gen", pkt_gen.main(["-i", PORT, "-f", "rx", "-n", str(FRAMES), "-w", "1"]))
    say("receiving", "capture")
    command = ["capture", PORT, "-w", "/tmp/file.pcap", "-c", str(FRAMES)]
    say("captured", ptnetmap_command.main(command))
    say("file", Path("/tmp/file.pcap").stat().st_size)

    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        say("second", refusal(PORT))
        os.kill(holder.pid, signal.SIGKILL)
    while refusal(PORT) != "opened":  # its guardian needs a moment
        pass
    say("after a death", refusal(PORT))
    with_interrupts()
    say("third", refusal("netmap:ptnet7"))
    os.setresuid(65534, 65534, 65534)
    say("nobody", refusal(PORT))


main()
