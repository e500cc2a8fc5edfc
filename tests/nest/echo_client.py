# SPDX-License-Identifier: BSD-2-Clause
"""Sends random bytes to a port of a guest's console that echoes them, and says what it sent and what came back.

echo_client.py SOCKET BYTES: waits for the socket, and gives up after a while. It runs in the nest, too, so it needs no
package.
"""

import hashlib
import os
import socket
import sys
import threading
import time

PATIENCE = 240.0


def connected(path: str) -> socket.socket:
    """Connect, once somebody listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        try:
            client.connect(path)
        except OSError:
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return client


def main() -> None:
    path, count = sys.argv[1], int(sys.argv[2])
    data = os.urandom(count)
    print(f"sent to the port: {hashlib.md5(data, usedforsecurity=False).hexdigest()}", flush=True)
    with connected(path) as client:
        # The guest answers while we send, as far as that concerns us.
        sender = threading.Thread(target=client.sendall, args=(data,), daemon=True)
        sender.start()
        returned = bytearray()
        while len(returned) < count and (piece := client.recv(65536)):
            returned += piece
    print(f"from the port: {hashlib.md5(returned, usedforsecurity=False).hexdigest()}", flush=True)


if __name__ == "__main__":
    main()
