# SPDX-License-Identifier: BSD-2-Clause
"""``pkt-gen``: netmap's traffic generator, with upstream's options, output and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from ptnetmap.cli.outcome import conclude
from ptnetmap.tools.pktgen.options import OptionError, Options, parse, usage

BAD_ARGUMENTS = 255


def main(arguments: Sequence[str] | None = None, *, opener: Callable[..., Any] | None = None) -> int:
    """Run the program and return its exit code: 0 after a run, 1 if it failed, 255 for a wrong command line.

    ``opener`` opens ports; the default is ``ptnetmap.open``.
    """
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        if options is None:
            return conclude("pkt-gen", _help)
        return conclude("pkt-gen", lambda: _run(options, opener))
    except OptionError as error:
        print(usage(), f"\npkt-gen: {error}", sep="\n", file=sys.stderr)
        return BAD_ARGUMENTS


def _help() -> int:
    print(usage())
    return 0


def _run(options: Options, opener: Callable[..., Any] | None) -> int:
    from ptnetmap.tools.pktgen.run import Run

    if opener is not None:
        return Run(options, opener).run()
    import ptnetmap

    return Run(options, ptnetmap.open, set_header=_set_header).run()


def _set_header(name: str, length: int) -> None:
    """Give a port of netmapd a virtio-net header."""
    from ptnetmap.abi.netmap import NETMAP_REQ_PORT_HDR_SET
    from ptnetmap.netmap.client.session import connect

    with connect() as session:
        session.request(NETMAP_REQ_PORT_HDR_SET, name, {"nr_hdr_len": length})


if __name__ == "__main__":
    sys.exit(main())
