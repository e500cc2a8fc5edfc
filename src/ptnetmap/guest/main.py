# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Where the guest starts: each processor, once, at level 3. The first one runs the program that ``program=`` names."""

from __future__ import annotations

from ptnetmap.guest.cmdline import find_option, option_is
from ptnetmap.guest.console import end_line, put_number, put_text, say, start_console
from ptnetmap.guest.cpus import serve
from ptnetmap.guest.doorbell import doorbell
from ptnetmap.guest.etherpktgen import ether_pktgen
from ptnetmap.guest.fault import fault_program
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.hostile import hostile
from ptnetmap.guest.idle import idle
from ptnetmap.guest.interrupts import start_interrupts
from ptnetmap.guest.junk import junk
from ptnetmap.guest.layout import boot_info, cpu_block, offsets
from ptnetmap.guest.pktgen import pktgen
from ptnetmap.guest.power import fail
from ptnetmap.guest.routine import Text, routine
from ptnetmap.guest.selftest import selftest
from ptnetmap.guest.spin import spin_program
from ptnetmap.guest.timer import start_own_timer, start_timer
from ptnetmap.jit.atomic import add64
from ptnetmap.jit.memory import load64

_INDEX = offsets(cpu_block)["index"]
_CPUS = offsets(boot_info)["cpus"]
_RUNNING = offsets(boot_info)["running"]
_CMDLINE = offsets(boot_info)["cmdline"]

_BANNER = Text("ptnetmap guest, processors: ")
_PROGRAM = Text("program")
_SELFTEST = Text("selftest")
_PKTGEN = Text("pkt-gen")
_VIRTIO_NET = Text("virtio-net")
_HOSTILE = Text("hostile")
_DOORBELL = Text("doorbell")
_IDLE = Text("idle")
_JUNK = Text("junk")
_SPIN = Text("spin")
_FAULT = Text("fault")
_NO_TIMER = Text("FAIL timer: the time stamp counter or the local APIC's timer stands still")
_NO_PROGRAM = Text("FAIL no such program; there are: selftest pkt-gen virtio-net spin idle doorbell hostile junk fault")


@routine
def run_program(block, boot):
    """Run what the command line asks for, ``selftest`` if it asks for nothing; does not come back."""
    cmdline = load64(boot + _CMDLINE)
    if find_option(cmdline, _PROGRAM) == 0 or option_is(cmdline, _PROGRAM, _SELFTEST) == 1:
        selftest(block, boot)
    if option_is(cmdline, _PROGRAM, _PKTGEN) == 1:
        pktgen(block, boot)
    if option_is(cmdline, _PROGRAM, _VIRTIO_NET) == 1:
        ether_pktgen(block, boot)
    if option_is(cmdline, _PROGRAM, _HOSTILE) == 1:
        hostile(block, boot)
    if option_is(cmdline, _PROGRAM, _DOORBELL) == 1:
        doorbell(block, boot)
    if option_is(cmdline, _PROGRAM, _JUNK) == 1:
        junk(boot)
    if option_is(cmdline, _PROGRAM, _IDLE) == 1:
        idle(block, boot)
    if option_is(cmdline, _PROGRAM, _SPIN) == 1:
        spin_program(boot)
    if option_is(cmdline, _PROGRAM, _FAULT) == 1:
        fault_program(boot)
    say(boot, _NO_PROGRAM)
    fail(boot)


@routine
def guest_main(block, boot):
    """Start a processor: ``block`` is its :data:`cpu_block`, ``boot`` the :data:`boot_info`."""
    start_interrupts(block)
    if load64(block + _INDEX) != 0:
        start_own_timer()
        serve(block, boot)
    start_console()
    put_text(boot, _BANNER)
    put_number(boot, load64(boot + _CPUS))
    end_line(boot)
    if start_timer(boot, allocate(boot, 32, 64)) == 0:
        say(boot, _NO_TIMER)
        fail(boot)
    add64(boot + _RUNNING, 1)
    run_program(block, boot)
