# SPDX-License-Identifier: BSD-2-Clause
"""Runs a transcript: what a guest's driver does to its devices and its CSB, and what it sees there, line by line.

========================= ============================================================================================
line                      meaning
========================= ============================================================================================
config DEV REG = V        a word of configuration space is V
write DEV REG V           write a register, all 32 bits
read DEV REG = V          read it, and see V; ``-> NAME`` in place of ``= V`` calls what is there NAME
msix N                    give each of N vectors a message, and enable MSI-X
zero                      clear both pages of the CSB
set RING FIELD V          store into the CSB
see RING FIELD = V        load from the CSB, and see V; ``-> NAME`` as above
await RING FIELD = V      load until V is there
kick RING                 write the ring's kick register
kick? RING                the same, if kern_need_kick asks for it
fill RING SLOT FRAME      write a frame into a slot, or, with ``*``, into each of them
hold RING SLOT FRAME      a slot holds this frame
irq RING                  wait for the interrupt of a ring; all others until then are forgotten
forget                    forget all interrupts until now
quiet RING                no interrupt of this ring came since
served YESNO              whether netmapd's kthreads serve the guest's port
host sends FRAME          a program on the host does
host receives FRAME [N]   a program on the host does, N times
========================= ============================================================================================

DEV is ptnet or memdev, a register upstream's name without prefix or an offset, RING ``tx0``, ``rx1``, or ``tx*`` and
``*`` for several. A value is a number, an errno, a NAME, ``NAME.hi`` and ``NAME.lo`` for halves of 32 bits, or
``NAME+1``, modulo the ring's slots. ``#`` begins a comment.
"""

import errno
import re

import numpy as np

from ptnetmap.abi import pci, ptnet
from ptnetmap.abi.netmap.csb import nm_csb_atok, nm_csb_ktoa
from ptnetmap.bhyve.passthrough import mock
from ptnetmap.bhyve.pci.function import Function

PAGE = 4096
CONFIG = {"ID": pci.PCIR_VENDOR, "CLASS": pci.PCIR_REVID, "BAR0": pci.PCIR_BARS, "BAR1": pci.PCIR_BARS + 4}


class Guest:
    """A guest's driver that does what transcripts say, on ``machine``, beside the program ``host``.

    ``names`` are what values may be called. The CSB is where the names ``gh`` and ``hg`` say; the name ``header`` says
    how long a virtio-net header is, which slots have before each frame.
    """

    def __init__(self, machine, netmapd, patiently, host, frames, **names):
        self.machine, self.netmapd, self.patiently, self.host = machine, netmapd, patiently, host
        self.frames = frames
        self.names = names
        self.devices = {
            "memdev": mock.Registers(machine.bus, Function(0, 3, 0)),
            "ptnet": mock.Registers(machine.bus, Function(0, 4, 0)),
        }
        port = machine.device("4").port.netmap
        self.rings = [f"tx{i}" for i in range(port.tx_rings)] + [f"rx{i}" for i in range(port.rx_rings)]
        self.slots = port.tx_slots
        self.heard = 0

    def run(self, *transcripts):
        """Do what they say, in order. Raises AssertionError that names the line."""
        for transcript in transcripts:
            for line in transcript.splitlines():
                words = line.partition("#")[0].split()
                if words:
                    try:
                        getattr(self, f"do_{words[0].replace('?', '_if_asked')}")(*words[1:])
                    except Exception as error:
                        error.add_note(f"in the line: {line.strip()}")
                        raise

    # --- words

    def value(self, word):
        if re.fullmatch(r"(0x)?[0-9a-fA-F]+", word) and word[0].isdigit():
            return int(word, 0)
        if word in errno.errorcode.values():
            return getattr(errno, word)
        name, plus, more = word.partition("+")
        if plus:
            return (self.names[name] + int(more)) % self.slots
        name, _, half = word.partition(".")
        number = self.names[name]
        return {"": number, "hi": number >> 32, "lo": number & 0xFFFFFFFF}[half]

    def some(self, pattern):
        return [ring for ring in self.rings if re.fullmatch(pattern.replace("*", ".*"), ring)]

    def judge(self, found, relation, word):
        if relation == "->":
            self.names[word] = found
        else:
            assert (relation, found) == ("=", self.value(word))

    # --- registers

    def register(self, device, name):
        prefix = {"memdev": "PTNET_MDEV_IO_", "ptnet": "PTNET_IO_"}[device]
        return self.value(name) if name[0].isdigit() else getattr(ptnet, prefix + name)

    def do_config(self, device, name, *judgement):
        place = self.devices[device].place
        self.judge(self.machine.bus.read_config(place, CONFIG[name], 4), *judgement)

    def do_write(self, device, name, word):
        self.devices[device].write(self.register(device, name), self.value(word))

    def do_read(self, device, name, *judgement):
        self.judge(self.devices[device].read(self.register(device, name)), *judgement)

    def do_msix(self, count):
        self.devices["ptnet"].enable_msix(self.value(count))

    # --- the CSB

    def field(self, ring, name):
        layout, page = (nm_csb_atok, "gh") if name in nm_csb_atok.names else (nm_csb_ktoa, "hg")
        at = self.names[page] + self.rings.index(ring) * layout.itemsize
        return np.frombuffer(self.machine.host.memory.view(at, layout.itemsize), layout)[name]

    def do_zero(self):
        for page in ("gh", "hg"):
            self.machine.host.memory.write(self.names[page], bytes(len(self.rings) * nm_csb_atok.itemsize))

    def do_set(self, pattern, name, word):
        for ring in self.some(pattern):
            self.field(ring, name)[0] = self.value(word)

    def do_see(self, pattern, name, *judgement):
        for ring in self.some(pattern):
            self.judge(int(self.field(ring, name)[0]), *judgement)

    def do_await(self, pattern, name, _, word):
        for ring in self.some(pattern):
            wanted, field = self.value(word), self.field(ring, name)
            self.patiently(lambda wanted=wanted, field=field: field[0] == wanted, f"{ring} {name} {wanted}")

    # --- kicks and interrupts

    def do_kick(self, pattern):
        for ring in self.some(pattern):
            self.devices["ptnet"].write(ptnet.kick_register(self.rings.index(ring)), 0)

    def do_kick_if_asked(self, ring):
        if self.field(ring, "kern_need_kick")[0]:
            self.do_kick(ring)

    def interrupts(self):
        self.machine.host.interrupts.poll()
        return [self.rings[data - mock.FIRST_DATA] for _, data in self.machine.host.interrupts.messages[self.heard :]]

    def do_irq(self, ring):
        self.patiently(lambda: ring in self.interrupts(), f"an interrupt of {ring}")
        self.do_forget()

    def do_forget(self):
        self.machine.host.interrupts.poll()
        self.heard = len(self.machine.host.interrupts.messages)

    def do_quiet(self, ring):
        assert ring not in self.interrupts()

    # --- frames

    def slot(self, ring, number):
        registers = self.devices["ptnet"]
        memory = mock.MockMemory(self.machine.bus, registers.read(ptnet.PTNET_IO_HOSTMEMID))
        nifp = registers.read(ptnet.PTNET_IO_NIFP_OFS)
        count = sum(name.startswith("tx") for name in self.rings)
        offset = mock.ring_offsets(memory, nifp, count, len(self.rings) - count)[self.rings.index(ring)]
        found = mock.MockRing(registers, memory, nifp + offset, (0, 0, 4), {}, {})
        slot = found.slots[number]
        return slot, found.buffer(slot["buf_idx"])

    def do_fill(self, ring, number, name):
        data = np.frombuffer(bytes(self.names["header"]) + self.frames[name], np.uint8)
        for i in range(self.slots) if number == "*" else [self.value(number)]:
            slot, buffer = self.slot(ring, i)
            buffer[: len(data)] = data
            slot["len"], slot["flags"] = len(data), 0

    def do_hold(self, ring, number, name):
        slot, buffer = self.slot(ring, self.value(number))
        assert bytes(buffer[self.names["header"] : slot["len"]]) == self.frames[name]

    # --- the host

    def do_served(self, yesno):
        assert ("vale1:1" in self.netmapd.served()) == (yesno == "yes")

    def do_host(self, verb, name, count="1"):
        if verb == "sends":
            assert self.host.send([self.frames[name]]) == 1
            return
        wanted, got = self.value(count), []
        while len(got) < wanted:
            more = self.host.recv(1024, timeout=30)
            assert more, f"{len(got)} of {wanted} frames"
            got += more
        assert got == [self.frames[name]] * wanted
