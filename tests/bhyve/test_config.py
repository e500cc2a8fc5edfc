# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.config import Config, boolean_value, integer_value, memory_value
from ptnetmap.errors import ConfigError

KEYS = st.lists(st.text("abc0", min_size=1, max_size=3), min_size=1, max_size=3).map(".".join)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), min_size=1)


@pytest.fixture
def config():
    return Config({"memory.size": "256M", "x86.mptable": "true"})


def test_a_later_value_replaces_an_earlier_one_and_a_default(config):
    config.set("memory.size", "1G")
    config.set("memory.size", "2G")

    assert dict(config) == {"memory.size": "2G", "x86.mptable": "true"}
    assert len(config) == 2


def test_a_node_gives_what_lies_below_it_expanded(config):
    config.set("name", "vm")
    config.set("pci.0.2.0.device", "virtio-blk")
    config.set("pci.0.2.0.path", "/disks/%(name).img")
    config.set("pci.0.20.0.device", "lpc")

    assert config.node("pci.0.2.0") == {"device": "virtio-blk", "path": "/disks/vm.img"}
    assert config.node("pci.0.3.0") == {}


def test_references_follow_what_is_set_later_and_through_others(config):
    config.set("a", "<%(b)>")
    config.set("b", "%(c.d)%(c.d)")
    config.set("c.d", "x")

    assert config["a"] == "<xx>"
    assert config.raw("a") == "<%(b)>"


@pytest.mark.parametrize(
    ("value", "meaning"),
    [("100%%", "100%"), ("100\\%", "100%"), ("%%(a)", "%(a)"), ("50% of", "50% of"), ("%", "%"), ("%(a", "%(a")],
)
def test_percent_signs_that_are_no_reference_stay(value, meaning, config):
    config.set("v", value)

    assert config["v"] == meaning


def test_a_circle_of_references_is_named(config):
    config.set("a", "%(b)")
    config.set("b", "%(a)")

    with pytest.raises(ConfigError, match="without end: a -> b -> a"):
        config["a"]


def test_a_reference_to_nothing_says_where_it_is(config):
    config.set("path", "/disks/%(nmae)")

    with pytest.raises(ConfigError, match=r"referenced configuration variable nmae\n +path is '/disks/%\(nmae\)'"):
        config["path"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("a..b", "Invalid configuration node: a..b"),
        ("", "Invalid configuration node"),
        (".a", "Invalid configuration node"),
        ("#a", "Invalid configuration node"),
        ("memory.size.x", "is a child of existing variable memory.size"),
        ("memory", "Attempting to add value 1 to existing node memory"),
    ],
)
def test_a_key_that_cannot_be_changes_nothing(key, message, config):
    before = dict(config)

    with pytest.raises(ConfigError, match=message):
        config.set(key, 1)
    assert dict(config) == before


@pytest.mark.parametrize("value", ["", "a\nb=c", "a\0"])
def test_a_value_that_no_file_could_hold_is_refused(value, config):
    with pytest.raises(ConfigError):
        config.set("a", value)
    assert "a" not in config


def test_a_frozen_configuration_does_not_change(config):
    config.freeze()

    with pytest.raises(ConfigError, match="too late"):
        config.set("memory.size", "1G")
    assert config["memory.size"] == "256M"


@settings(max_examples=50)
@given(st.dictionaries(KEYS, VALUES))
def test_a_dump_is_a_file_that_gives_the_same_configuration(tmp_path_factory, options):
    first = Config()
    for key, value in options.items():
        try:
            first.set(key, value)
        except ConfigError:
            assert any(key != other and f"{key}.".startswith(f"{other}.") for other in options) or first.has_node(key)
    file = tmp_path_factory.getbasetemp() / "dump.conf"
    file.write_text(first.dump(), encoding="utf-8", newline="\n")
    second = Config()
    second.load(file)

    assert second.dump() == first.dump()


def test_a_file_has_comments_and_empty_lines(config, tmp_path):
    file = tmp_path / "vm.conf"
    file.write_text("# a comment\n\nname=vm\ncmdline=console=ttyS0 quiet\nunknown.key=kept")
    config.load(file)

    assert (config["name"], config["cmdline"], config["unknown.key"]) == ("vm", "console=ttyS0 quiet", "kept")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1\nb\n", "line 2: invalid config option 'b'"),
        ("a=\n", "line 1: invalid config option 'a='"),
        ("=1\n", "line 1: Invalid configuration node"),
        ("\n\na=1\na.b=2\n", "line 4: Configuration node a.b is a child of existing variable a"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_number(text, message, config, tmp_path):
    file = tmp_path / "vm.conf"
    file.write_text(text)

    with pytest.raises(ConfigError, match=message) as caught:
        config.load(file)
    assert str(caught.value).startswith(str(file))
    assert caught.value.status == 4


def test_a_file_that_cannot_be_read_is_named(config, tmp_path):
    with pytest.raises(ConfigError, match=f"Failed to open configuration file {tmp_path}/none: No such file"):
        config.load(tmp_path / "none")
    with pytest.raises(ConfigError, match="no configuration file"):
        config.load("/dev/zero")


@pytest.mark.parametrize("text", ["true", "TRUE", "on", "Yes", "1"])
def test_words_for_true(text):
    assert boolean_value("k", text) is True


@pytest.mark.parametrize("text", ["false", "Off", "no", "0"])
def test_words_for_false(text):
    assert boolean_value("k", text) is False


@pytest.mark.parametrize("text", ["", "maybe", "2", "true "])
def test_other_words_are_no_booleans(text):
    with pytest.raises(ConfigError, match=f"Invalid value {text} for boolean variable k"):
        boolean_value("k", text)


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("0x10", 16), ("010", 8), ("0", 0), ("+7", 7), (" 7", 7), ("0XaB", 171)]
)
def test_integers_are_those_of_strtol(text, value):
    assert integer_value("k", text) == value


@pytest.mark.parametrize("text", ["", "08", "1_0", "0b1", "1x", "-1", "9" * 40, "1.0", "\u0663", "0x"])
def test_what_strtol_does_not_read_is_no_integer(text):
    with pytest.raises(ConfigError, match="Invalid value for k"):
        integer_value("k", text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512", 512 << 20),
        ("2G", 2 << 30),
        ("2g", 2 << 30),
        ("2Gb", 2 << 30),
        ("256M", 256 << 20),
        ("2048K", 2 << 20),
        ("1T", 1 << 40),
        ("1048576", 1 << 20),
        ("0x200", 512 << 20),
        ("4096k", 4 << 20),
    ],
)
def test_a_memory_without_a_unit_is_in_megabytes_unless_that_is_absurd(text, value):
    assert memory_value(text) == value


@pytest.mark.parametrize("text", ["", "G", "2Q", "2 G", "-1G", "1.5G", "2GG", "2Gi"])
def test_a_malformed_memory_ends_with_64_in_bhyves_words(text):
    with pytest.raises(ConfigError, match=f"invalid memsize '{text}'") as caught:
        memory_value(text)
    assert caught.value.status == 64
