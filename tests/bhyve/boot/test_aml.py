# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.bhyve.boot import aml, resources


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "01"),
        (62, "3f"),
        (63, "41 04"),
        (0xFFF - 2, "4f ff"),
        (0xFFF - 1, "81 00 01"),
        (0xFFFFF - 3, "8f ff ff"),
        (0xFFFFF - 2, "c1 00 00 01"),
    ],
)
def test_a_package_length_counts_itself_and_is_as_short_as_it_can_be(size, head):
    encoded = aml.enclosed(bytes(size))
    expected = bytes.fromhex(head)
    assert encoded == expected + bytes(size)


def test_a_body_of_256_megabytes_does_not_fit():
    class Huge(bytes):
        def __len__(self):
            return 1 << 28

    with pytest.raises(ValueError, match="268,435,456 bytes do not fit"):
        aml.enclosed(Huge())


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("PCI0", b"PCI0"),
        ("\\_SB", b"\\_SB_"),
        ("_SB.PCI0", b"\x2e_SB_PCI0"),
        ("\\_SB.PCI0.ISA", b"\\\x2f\x03_SB_PCI0ISA_"),
    ],
)
def test_names_are_padded_and_prefixed(text, encoded):
    assert aml.path(text) == encoded


@pytest.mark.parametrize("text", ["", "0ABC", "ABCDE", "abcd", "A.", "A-B"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError, match="is no name of ACPI"):
        aml.path(text)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a 02"),
        (255, "0a ff"),
        (256, "0b 00 01"),
        (65536, "0c 00 00 01 00"),
        (1 << 32, "0e 00 00 00 00 01 00 00 00"),
    ],
)
def test_integers_take_the_shortest_form(value, encoded):
    assert aml.integer(value) == bytes.fromhex(encoded)


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_integers_beyond_64_bits_are_refused(value):
    with pytest.raises(ValueError, match="does not fit in 64 bits"):
        aml.integer(value)


def test_an_eisa_id_is_the_one_in_the_specification():
    assert aml.eisa_id("PNP0C09") == bytes.fromhex("0c 41 d0 0c 09")


def test_strings_end_with_a_zero():
    assert aml.string("VM") == b"\x0dVM\0"


def test_a_package_has_at_most_255_elements():
    assert aml.package(*[aml.integer(0)] * 255)[:5] == bytes.fromhex("12 42 10 ff 00")
    with pytest.raises(ValueError, match="256 elements"):
        aml.package(*[aml.integer(0)] * 256)


@pytest.mark.parametrize(
    ("descriptor", "encoded"),
    [
        (resources.irq(4), "22 10 00"),
        (resources.ports(0x3F8, 8), "47 01 f8 03 f8 03 01 08"),
        (resources.memory32(0xE0000000, 0x10000000), "86 09 00 01 00 00 00 e0 00 00 00 10"),
        (resources.bus_window(0, 255), "88 0d 00 02 0c 00 00 00 00 00 ff 00 00 00 00 01"),
        (resources.port_window(0xD00, 0xFFFF), "88 0d 00 01 0c 03 00 00 00 0d ff ff 00 00 00 f3"),
        (
            resources.memory_window32(0xC0000000, 0xDFFFFFFF),
            "87 17 00 00 0c 01 00000000 000000c0 ffffffdf 00000000 00000020",
        ),
        (
            resources.memory_window64(0xD000000000, 0xFCFFFFFFFF),
            "8a 2b 00 00 0c 07 0000000000000000 00000000d0000000 fffffffffc000000 0000000000000000 000000002d000000",
        ),
        (resources.template(resources.irq(0)), "11 08 0a 05 22 01 00 79 00"),
    ],
)
def test_a_resource_descriptor_has_the_specifications_bytes(descriptor, encoded):
    assert descriptor == bytes.fromhex(encoded)
