# SPDX-License-Identifier: BSD-2-Clause
"""A bhyve without a machine: it claims its name, answers on its control socket, and echoes on com1.

The kernel's command line says how its guest behaves: ``obeys``, ``ignores`` or is ``deaf`` to the power button, or
``fails`` to start; ``reboots`` whenever com1 gets an "r".
"""

import asyncio
import os
import sys
from pathlib import Path

from ptnetmap.bhyve.control.server import ControlServer


async def main() -> int:
    words = sys.argv[1:]
    console = next(word.partition("unix=")[2] for word in words if word.startswith("com1,"))
    manner = next((word.partition("cmdline=")[2] for word in words if word.startswith("cmdline=")), "obeys")
    if manner == "fails":
        print("bhyve: there is no /dev/kvm", file=sys.stderr)
        return 4
    over: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(code: int) -> None:
        if not over.done():
            over.set_result(code)

    def press() -> bool:
        if manner == "obeys":
            end(1)
        return manner != "deaf"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"login: %d\n" % os.getpid())
        while data := await reader.read(100):
            writer.write(data)
            if data.startswith(b"r"):
                end(0)
        writer.close()

    server = ControlServer(words[-1], {"power-button": press, "destroy": lambda: end(1)})
    server.claim()
    Path(console).unlink(missing_ok=True)
    await asyncio.start_unix_server(serve, console)
    await server.start()
    code = await over
    await server.close()
    Path(console).unlink()
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
