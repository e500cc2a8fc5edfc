# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.tools.pktgen.addresses import parse_ip_range, parse_mac_range
from ptnetmap.tools.pktgen.options import OPTIONS, OptionError, parse, usage

PORT = ["-i", "vale0:a"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            [],
            {"function": "rx", "packets": 0, "size": 60, "burst": 512, "default_burst": True, "wait": 0, "threads": 1},
        ),
        (["-f", "tx"], {"function": "tx", "burst": 512}),
        (["-fping"], {"function": "ping", "burst": 1}),
        (["-f", "pong"], {"burst": 1}),
        (["-f", "txseq"], {"burst": 512}),
        (["-n", "1000"], {"packets": 1000}),
        (["-n", "0x10"], {"packets": 16}),
        (["-l", "1500"], {"size": 1500, "least_size": 1500}),
        (["-l", "1500", "-l", "64"], {"size": 1500, "least_size": 64}),
        (["-l", "64", "-l", "1500"], {"size": 1500, "least_size": 64}),
        (["-b", "7"], {"burst": 7, "default_burst": False}),
        (["-R", "30000"], {"rate": 30000, "burst": 100}),
        (["-R", "1000000"], {"burst": 512}),
        (["-R", "10"], {"burst": 1}),
        (["-b", "4", "-R", "1000000"], {"burst": 4}),
        (["-a", "1", "-c", "2", "-p", "3"], {"cpu": 1, "cpus": 2, "threads": 3}),
        (["-T", "500", "-w", "3"], {"report_ms": 500, "wait": 3}),
        (["-H", "12"], {"header": 12}),
        (["-C", "1024,512"], {"config": (1024, 512)}),
        (["-F", "4", "-M", "15"], {"fragments": 4, "fragment_size": 15}),
        (["-NABWv"], {"normalize": False, "framing": True, "exit_when_idle": True, "verbose": True, "bits": 2048}),
        (["-IXrzZ"], {"bits": 32 | 64 | 256 | 512 | 1024}),
        (["-o", "4", "-I"], {"bits": 4 | 32}),
        (["-P", "x.pcap"], {"template": "x.pcap"}),
        (["--json"], {"json": True}),
        (["-4"], {"version": 4}),
    ],
)
def test_every_option_means_what_it_always_meant(arguments, expected):
    options = parse([*PORT, *arguments])

    assert {key: getattr(options, key) for key in expected} == expected


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.letter], ids=lambda o: o.name)
def test_a_long_option_is_its_letter(option):
    value = {
        "PORT": "x", "FUNCTION": "tx", "RANGE": "00:00:00:00:00:01" if "mac" in option.name else "1.2.3.4",
        "N,N,N,N": "8", "FILE": "f", "BYTES": "62" if option.name != "vnet-header" else "10", "BITS": "4",
    }.get(option.argument, "2")  # fmt: skip
    short = [f"-{option.letter}", value] if option.argument else [f"-{option.letter}"]
    long = [f"--{option.name}={value}"] if option.argument else [f"--{option.name}"]

    assert parse([*PORT, *short]) == parse([*PORT, *long])
    assert f"--{option.name}" in usage()


@pytest.mark.parametrize(
    "arguments",
    [
        ["-f", "tx"],
        [*PORT, "-f", "fly"],
        [*PORT, "-n", "many"],
        [*PORT, "-n", "-1"],
        [*PORT, "-l", "15"],
        [*PORT, "-l", "65537"],
        [*PORT, "-b", "0"],
        [*PORT, "-F", "64"],
        [*PORT, "-F", "0"],
        [*PORT, "-F", "63", "-l", "60"],
        [*PORT, "-H", "11"],
        [*PORT, "-R", "0"],
        [*PORT, "-p", "0"],
        [*PORT, "-d", "10.0.0.300"],
        [*PORT, "-d", "10.0.0.1:70000"],
        [*PORT, "-s", "10.0.0.2-10.0.0.1"],
        [*PORT, "-s", "fd00::1"],
        [*PORT, "-6", "-s", "fd00::1-fd01::1"],
        [*PORT, "-D", "00:11:22"],
        [*PORT, "-S", "00:00:00:00:00:02-00:00:00:00:00:01"],
        [*PORT, "-C", "1,2,3,4,5"],
        [*PORT, "-f", "ping", "-l", "53"],
        [*PORT, "-f", "txseq", "-r"],
        [*PORT, "-f", "ping", "-P", "x"],
        [*PORT, "-Q"],
        [*PORT, "--nonsense"],
        [*PORT, "-n"],
        [*PORT, "left", "over"],
        ["-i", "tap:x"],
        ["-i", "tap0"],
        ["-i", "pcap:eth0"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_refused_with_a_reason(arguments):
    with pytest.raises(OptionError) as refused:
        parse(arguments)

    assert str(refused.value)


@pytest.mark.parametrize(
    ("name", "full", "wait"),
    [
        ("vale0:a", "vale0:a", 0),
        ("vale:a", "vale:a", 0),
        ("netmap:x{1", "netmap:x{1", 2),
        ("eth0", "netmap:eth0", 2),
        ("tapestry", "netmap:tapestry", 2),
        ("null", "null", 2),
    ],
)
def test_a_name_without_prefix_is_a_netmap_port_and_only_switches_need_no_wait(name, full, wait):
    options = parse(["-i", name])

    assert (options.port, options.wait) == (full, wait)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_needs_nothing_else(flag):
    assert parse([flag]) is None


def test_ranges_are_read_with_and_without_ports():
    assert parse_ip_range("10.0.0.1:5-10.0.0.9:7", 4).describe() == "10.0.0.1:5 to 10.0.0.9:7"
    assert parse_ip_range("10.0.0.1", 4).describe() == "10.0.0.1:1234 to 10.0.0.1:1234"
    assert parse_ip_range("10.0.0.1:5-10.0.0.9", 4).describe() == "10.0.0.1:5 to 10.0.0.9:5"
    assert parse_ip_range("[fd00::1]:5-fd00::9", 6).describe() == "[fd00::1]:5 to [fd00::9]:5"
    assert parse_ip_range("10.0.0.1-10.0.0.1", 4).iterates is False
    both = parse_mac_range("0:1:2:3:4:5-0:1:2:3:4:ff")
    assert (both.first, both.last) == (0x000102030405, 0x0001020304FF)
