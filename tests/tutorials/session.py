# SPDX-License-Identifier: BSD-2-Clause
"""What a tutorial says is typed and shown, as data; and whether something shown is what the tutorial says.

A block ``sh`` is typed into the terminal that its first line names, ``# terminal 2``, at the shell's prompt, or for what
runs there, ``# terminal 2, in the guest``; ``^C`` alone is that key. A block ``text`` is all that the terminal of the block
before has shown since it was last looked at, or another terminal, if its first line names one. In it ``...`` stands for
anything in a line, as a line of its own for any number of lines, and blanks for any number of blanks; after such a line at
its end, the next one of the terminal need not begin where this one ended. ``$`` as the last line is the shell's prompt. A
block ``sh`` that none follows shows nothing and comes to its end. Blocks ``python`` are programs, which
tests/test_documents.py runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ANYTHING = "..."
INTERRUPT = "^C"
PROMPT = "$\n"
_BLOCK = re.compile(r"^```(.*)\n((?:.*\n)*?)```\s*$", re.MULTILINE)
_NAME = re.compile(r"# terminal (\d+)(, in .*)?\n")
_TAKES_LONG = re.compile(r"^(ptnetmap: (starting|compiling) |bhyve: building ).*\n?", re.MULTILINE)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>78]")


@dataclass(frozen=True)
class Typed:
    """Lines typed into a terminal, ``inside`` if for what runs there; ``line`` of the document, from 1."""

    line: int
    terminal: int
    text: str
    inside: bool = False


@dataclass(frozen=True)
class Shown:
    """What a terminal shows; ``ends`` if the shell's prompt comes after it."""

    line: int
    terminal: int
    text: str
    ends: bool = False


Step = Typed | Shown


def parse(document: str) -> list[Step]:
    """Return a document's steps in order. Raises ValueError for a block that is none of these."""
    steps: list[Step] = []
    output: str | None = None  # of the program before
    for block in _BLOCK.finditer(document):
        kind, text = block[1], block[2]
        line = document.count("\n", 0, block.start()) + 1
        named = _NAME.match(text)
        if kind not in ("sh", "text", "python") and not (kind == "" and output is not None):
            raise ValueError(f"line {line}: a block is sh, text, python or what a program prints, not {kind!r}")
        output = text if kind == "python" else None
        if kind not in ("sh", "text"):
            continue
        if kind == "sh" and not named:
            raise ValueError(f"line {line}: the first line has to name the terminal: # terminal 1")
        if kind == "text" and not named and not steps:
            raise ValueError(f"line {line}: nothing was typed that could show this")
        if kind == "sh":
            _end(steps)
        terminal = int(named[1]) if named else steps[-1].terminal
        body = text[named.end() :] if named else text
        if kind == "sh" and named:
            steps.append(Typed(line, terminal, body, inside=bool(named[2]) or body.strip() == INTERRUPT))
        else:
            shown = body.removesuffix(PROMPT)
            if not body.strip():
                raise ValueError(f"line {line}: nothing is shown: leave the block out")
            steps.append(Shown(line, terminal, shown, ends=shown != body))
    _end(steps)
    return steps


def _end(steps: list[Step]) -> None:
    """Let what was typed last show nothing, unless it has shown something."""
    if steps and isinstance(steps[-1], Typed):
        steps.append(Shown(steps[-1].line, steps[-1].terminal, "", ends=True))


def plain(raw: str) -> str:
    """Return what a terminal shows of what was written to it, without colours; a line that was overwritten, as it is last.

    Left out are lines that say what takes long, which depends on the machine, and on what it did before.
    """
    lines = _CONTROL.sub("", raw).replace("\r\n", "\n").split("\n")
    return _TAKES_LONG.sub("", "\n".join(line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines))


def matches(expected: str, shown: str) -> bool:
    """Say whether what is shown is what was expected, but for blank lines at either end."""
    pattern = ""
    for line in _lines(expected):
        words = [re.escape(words) for words in line.split(ANYTHING)]
        pattern += r"(?:.*\n)*?" if line == ANYTHING else ".*".join(words) + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(shown))) is not None


def is_open(expected: str) -> bool:
    """Say whether anything may follow what was expected."""
    return _lines(expected)[-1] == ANYTHING


def is_whole(expected: str) -> bool:
    """Say whether what matches does so to its end, though its last line may go on."""
    return is_open(expected) or ANYTHING not in _lines(expected)[-1]


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.strip().split("\n")]
