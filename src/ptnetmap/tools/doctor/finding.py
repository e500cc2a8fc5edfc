# SPDX-License-Identifier: BSD-2-Clause
"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass

OK = "OK"
NOTE = "note"
PROBLEM = "problem"

_LEVEL = 8
_SUBJECT = 16


@dataclass(frozen=True)
class Finding:
    """``level`` is OK, NOTE (it works, but know this) or PROBLEM; ``remedy`` what to do, "" if nothing has to be."""

    subject: str
    level: str
    text: str
    remedy: str = ""


def line(finding: Finding) -> str:
    """Return a finding as a line for people."""
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    return f"{finding.level:{_LEVEL}}{finding.subject:{_SUBJECT}}{finding.text}{remedy}"


def from_message(subject: str, message: str, level: str = PROBLEM) -> Finding:
    """Return a finding of an error of ours: a line of what was found, and lines of what to do."""
    text, _, remedy = message.removeprefix("netmap: ").partition("\n")
    return Finding(subject, level, text, " ".join(remedy.split()))
