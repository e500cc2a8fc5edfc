# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The other processors: they sleep until the first one gives them a job."""

from __future__ import annotations

from ptnetmap.guest.cpu import timestamp
from ptnetmap.guest.interrupts import await_interrupt, call_processor, interrupt_count
from ptnetmap.guest.layout import CALL_VECTOR, boot_info, cpu_block, offsets
from ptnetmap.guest.routine import routine
from ptnetmap.guest.timer import deadline_after
from ptnetmap.jit.atomic import add64, load64_acquire, pause, store64_release
from ptnetmap.jit.memory import load64, store64

JOB_ADD = 1
"""Add 1 to the word at ``argument``, ``count`` times, each in one step."""

_CPUS = offsets(boot_info)["cpus"]
_RUNNING = offsets(boot_info)["running"]
_BLOCKS = offsets(boot_info)["blocks"]
_ASKED = offsets(cpu_block)["asked"]
_DONE = offsets(cpu_block)["done"]
_JOB = offsets(cpu_block)["job"]
_ARGUMENT = offsets(cpu_block)["argument"]
_COUNT = offsets(cpu_block)["count"]
_BLOCK_SIZE = cpu_block.itemsize


@routine
def block_of(boot, index):
    """Return the block of processor ``index``."""
    return load64(boot + _BLOCKS) + index * _BLOCK_SIZE


@routine
def await_processors(boot, microseconds):
    """Wait until all processors run; return how many do after so many microseconds at the most."""
    deadline = deadline_after(boot, microseconds)
    while load64_acquire(boot + _RUNNING) < load64(boot + _CPUS) and timestamp() < deadline:
        pause()
    return load64_acquire(boot + _RUNNING)


@routine
def give_job(target, job, argument, count):
    """Let the processor of the block ``target``, which has no other job, do one."""
    store64(target + _JOB, job)
    store64(target + _ARGUMENT, argument)
    store64(target + _COUNT, count)
    store64_release(target + _ASKED, load64(target + _ASKED) + 1)
    call_processor(target)


@routine
def await_job(boot, target, microseconds):
    """Wait until the job given to ``target`` is done; return 1, or 0 after so many microseconds."""
    deadline = deadline_after(boot, microseconds)
    while load64_acquire(target + _DONE) != load64(target + _ASKED):
        if timestamp() > deadline:
            return 0
        pause()
    return 1


@routine
def add_up(address, count):
    """Do the job JOB_ADD."""
    while count > 0:
        add64(address, 1)
        count -= 1


@routine
def do_job(block):
    """Do the job that this processor was given."""
    if load64(block + _JOB) == JOB_ADD:
        add_up(load64(block + _ARGUMENT), load64(block + _COUNT))
    store64_release(block + _DONE, load64(block + _DONE) + 1)


@routine
def serve(block, boot):
    """Say that this processor runs, and do jobs for ever."""
    add64(boot + _RUNNING, 1)
    while True:
        called = interrupt_count(block, CALL_VECTOR)
        if load64_acquire(block + _ASKED) != load64(block + _DONE):
            do_job(block)
        else:
            await_interrupt(block, CALL_VECTOR, called)
