# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap doctor``: what on this machine keeps netmap from working, or from being fast."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from ptnetmap.cli.outcome import FAILED

EXAMPLES = """\
examples:
  ptnetmap doctor                       a line for each check
  ptnetmap doctor --quiet               only what is wrong
  ptnetmap doctor --json                for programs, and for bug reports
"""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="check this machine",
        description="Check what netmap needs: Python and its packages, the kernel, limits, netmapd and its socket. Each "
        "line says OK, note (it works, but know this) or problem, and what to do. No netmapd is started. "
        "Exits with 0 when nothing is a problem, else with 1.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--socket", metavar="PATH", help="netmapd's socket (default: $NETMAP_SOCKET, or the usual one)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print problems only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check everything; 1 if there is a problem."""
    from ptnetmap.tools import doctor

    findings = []
    for finding in doctor.examine(options.socket):
        findings.append(finding)
        if not options.json and not (options.quiet and finding.level != doctor.PROBLEM):
            print(doctor.line(finding), flush=True)
    healthy = all(finding.level != doctor.PROBLEM for finding in findings)
    if options.json:
        shown = [one for one in findings if not options.quiet or one.level == doctor.PROBLEM]
        print(json.dumps({"ok": healthy, "findings": [asdict(one) for one in shown]}, indent=1))
    return 0 if healthy else FAILED
