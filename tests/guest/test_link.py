# SPDX-License-Identifier: BSD-2-Clause
import struct

import pytest

from ptnetmap.errors import GuestError
from ptnetmap.guest.compile import assemble
from ptnetmap.guest.link import link

BASE = 0x104000


def linked(**sources):
    return link({name: assemble(text) for name, text in sources.items()}, BASE)


def signed(data, at, size=4):
    return int.from_bytes(data[at : at + size], "little", signed=True)


def test_code_constants_data_and_zeroes_follow_each_other():
    image = linked(
        a=".data\n.globl d\nd: .quad 1\n.section .bss\n.globl z\nz: .zero 16\n.section .rodata\n.globl r\nr: .byte 7",
        b=".text\n.globl t\nt: nop",
    )
    places = [image.symbols[name] for name in "trdz"]
    assert places == sorted(places)
    assert places[0] == BASE
    assert image.data[places[1] - BASE] == 7
    assert image.data[places[3] - BASE :] == bytes(16)


def test_sections_are_aligned_as_they_ask():
    image = linked(a=".text\nnop", b=".text\n.balign 64\n.globl t\nt: nop", c=".data\n.balign 32\n.globl d\nd: .byte 1")
    assert image.symbols["t"] % 64 == 0
    assert image.symbols["d"] % 32 == 0


def test_calls_between_objects_reach_their_targets():
    image = linked(a=".text\n.globl one\none: call two\nret", b=".text\n.balign 16\n.globl two\ntwo: call one\nret")
    for caller, callee in (("one", "two"), ("two", "one")):
        at = image.symbols[caller] - BASE
        assert image.data[at] == 0xE8
        assert image.symbols[caller] + 5 + signed(image.data, at + 1) == image.symbols[callee]


def test_addresses_are_those_of_the_image_in_every_width():
    image = linked(
        a=".data\n.globl d\nd: .quad there + 3\n.long there - 1\n.quad there - .", b=".text\n.globl there\nthere: nop"
    )
    there, at = image.symbols["there"], image.symbols["d"] - BASE
    assert struct.unpack_from("<QIq", image.data, at) == (there + 3, there - 1, there - (BASE + at + 12))


def test_local_symbols_of_one_name_are_kept_apart():
    source = ".text\n.globl {0}\nnop\n1: nop\n{0}: leaq here(%rip), %rax\n.data\nhere: .quad {1}"
    image = linked(a=source.format("a", 1), b=source.format("b", 2))
    values = []
    for name in "ab":
        at = image.symbols[name] - BASE
        values.append(signed(image.data, at + 7 + signed(image.data, at + 3), 8))
    assert values == [1, 2]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ({"a": ".text\ncall missing\ncall absent"}, "a needs absent, missing, which nothing defines"),
        ({"a": ".globl x\nx: nop", "b": ".globl x\nx: nop"}, "x is defined twice, in a and b"),
        ({"a": ".comm x, 8, 8\n.text\ncall x"}, "a leaves x to the linker"),
        ({"a": ".text\nmovq x@GOTPCREL(%rip), %rax", "b": ".globl x\nx: nop"}, "for x, which is not for static code"),
        ({"a": ".text\n.globl x\nx: movl $x + 0x7fffffff00000, %eax"}, "for x, that does not reach"),
        ({"a": ".text\ncall far", "b": ".globl far\n.set far, 0x800000000000"}, "does not reach 0x7ffffffffffc"),
    ],
)
def test_what_cannot_be_linked_is_named(sources, words):
    with pytest.raises(GuestError) as refused:
        linked(**sources)
    assert words in str(refused.value)
    assert refused.value.name == "ENOEXEC"


@pytest.mark.parametrize("contents", [b"", b"\x7fELF", b"no object at all", bytes(200)])
def test_what_is_no_object_is_refused(contents):
    with pytest.raises(GuestError, match="junk is no ELF object"):
        link({"junk": contents}, BASE)


def test_objects_for_other_machines_are_refused():
    contents = bytearray(assemble(".text\nnop"))
    contents[18:20] = (183).to_bytes(2, "little")
    with pytest.raises(GuestError, match="for EM_AARCH64, not an object for x86-64"):
        link({"arm": bytes(contents)}, BASE)
