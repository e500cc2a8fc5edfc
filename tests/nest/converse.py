# SPDX-License-Identifier: BSD-2-Clause
"""Talks with a program: each time that its output shows a prompt, the next line goes to its input.

converse.py PROMPT LINE ... -- COMMAND ...: copies what the command prints, and returns its exit status. It runs in the
nest, too, so it needs no package. After the last line the command's input stays open until it ends.
"""

import os
import subprocess
import sys


def converse(prompt: bytes, lines: list[bytes], command: list[str]) -> int:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        unread = b""
        while data := os.read(process.stdout.fileno(), 4096):
            os.write(sys.stdout.fileno(), data)
            unread += data
            while lines and prompt in unread:
                _, _, unread = unread.partition(prompt)
                os.write(process.stdin.fileno(), lines.pop(0) + b"\n")
        return process.wait()


if __name__ == "__main__":
    dashes = sys.argv.index("--")
    words = [word.encode() for word in sys.argv[1:dashes]]
    sys.exit(converse(words[0], words[1:], sys.argv[dashes + 1 :]))
