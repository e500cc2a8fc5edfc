# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap vhost-user``: a port of a switch for a guest of QEMU, Cloud Hypervisor, crosvm, or for DPDK."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

MOST = 1024
"""Entries of a queue that are reckoned with; more are served all the same."""

EXAMPLES = """\
The guest's memory has to be shared: memory-backend-memfd,share=on. The front end may go and come back.

examples:
  ptnetmap vhost-user vale0:7 /run/vm.sock           wait for a front end, and print a command line of QEMU's
  ptnetmap vhost-user vale0:7 /run/vm.sock --client  connect to one that listens (server=on)
  ptnetmap vhost-user vale0:7 /run/vm.sock -q 4      four pairs of queues
"""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "vhost-user",
        help="give a guest of another hypervisor a port of a switch",
        description="Serve a vhost-user socket: what its front end's guest sends and receives goes through a port of a "
        "VALE switch, moved by netmapd. Runs until it is interrupted, or netmapd goes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("port", help="the port to make, such as vale0:7")
    parser.add_argument("path", type=Path, help="the socket")
    parser.add_argument("-c", "--client", action="store_true", help="connect to the socket, and again when it is lost")
    parser.add_argument("-q", "--queues", type=int, default=1, metavar="PAIRS", help="pairs of queues, 1 to 16")
    parser.add_argument("--mtu", type=int, default=0, help="the guest's MTU, for what has to be segmented here")
    parser.add_argument("--lossless", action="store_true", help="let senders wait while the guest takes nothing")
    parser.add_argument("--socket", metavar="PATH", help="netmapd's socket (default: $NETMAP_SOCKET, or the usual one)")
    parser.add_argument("--json", action="store_true", help="print a JSON object for whatever happens")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from ptnetmap.netmap.client.virtioport import VirtioPort
    from ptnetmap.netmap.vhost.ports import Ports
    from ptnetmap.netmap.vhost.server import Server, listen

    def tell(what: str) -> None:
        print(
            json.dumps({"port": options.port, "event": what}) if options.json else f"{options.port}: {what}", flush=True
        )

    def make(address: str | None) -> VirtioPort:
        port = VirtioPort(
            options.port, pairs=options.queues, size=MOST, mtu=options.mtu, socket=address or options.socket
        )
        if options.lossless:
            port.set_lossless(True)
        return port

    stop = _stop_descriptor()
    with Ports(make, tell) as ports:
        server = Server(ports, options.queues, stop, tell)
        if options.client:
            server.connect_to(options.path)
            return 0
        with listen(options.path) as listener:
            try:
                tell(f"waits at {options.path}, for a guest of QEMU's with\n{qemu(options.path, options.queues)}")
                server.serve_at(listener)
            finally:
                options.path.unlink(missing_ok=True)
    return 0


def qemu(path: Path, pairs: int) -> str:
    """Return the words to add to a command line of QEMU's."""
    more = f",queues={pairs}" if pairs > 1 else ""
    device = f",mq=on,vectors={2 * pairs + 2}" if pairs > 1 else ""
    return (
        "    -object memory-backend-memfd,id=ram,size=1G,share=on -m 1G -machine memory-backend=ram \\\n"
        f"    -chardev socket,id=port,path={path} -netdev vhost-user,id=net,chardev=port{more} \\\n"
        f"    -device virtio-net-pci,netdev=net{device}\n"
        "    (QEMU 7.2 with -accel tcg crashes unless the device has ,vectors=0)"
    )


def _stop_descriptor() -> int:
    """Return a descriptor that becomes readable when the process is told to end."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    return ours
