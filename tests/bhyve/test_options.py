# SPDX-License-Identifier: BSD-2-Clause
import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.bhyve import settings
from ptnetmap.bhyve.config import Config
from ptnetmap.bhyve.options import OPTIONS, Answer, UsageError, parse, usage
from ptnetmap.errors import ConfigError


class Model:
    """A device model whose settings are key=value words, the first of which may have a key of its own."""

    def __init__(self, first=None):
        self.first = first

    def parse_options(self, text):
        words = text.split(",")
        if self.first is not None:
            words[0] = f"{self.first}={words[0]}"
        pairs = (word.partition("=") for word in words)
        return {key: value if equals else "true" for key, equals, value in pairs}


MODELS = {
    "hostbridge": Model(),
    "lpc": Model(),
    "ptnetmap-memdev": Model(),
    "virtio-blk": Model("path"),
    "virtio-net": Model("backend"),
}


def options(line):
    return parse(shlex.split(line), lambda: MODELS)


def refused(line, kind=ConfigError):
    with pytest.raises(kind) as caught:
        options(line)
    return caught.value


def changed(config):
    return {key: value for key, value in config.items() if settings.DEFAULTS.get(key) != value}


def test_the_documented_example_is_understood_whole():
    config = options(
        "-s 0,hostbridge -s 1,lpc -s 2:1,virtio-net,vale0:1 -s 2:2,ptnetmap-memdev -s 2:3,virtio-net,ptvale1:2"
        " -s 3,ptnetmap-memdev -s 4,virtio-net,ptnetmap:ix0,mac=00:a0:98:01:02:03 -l com1,stdio -A -H -P -m 2G netmapvm"
    )
    settings.check(config)

    assert changed(config) == {
        "name": "netmapvm",
        "memory.size": "2G",
        "x86.vmexit_on_hlt": "true",
        "x86.vmexit_on_pause": "true",
        "lpc.com1.path": "stdio",
        "pci.0.0.0.device": "hostbridge",
        "pci.0.1.0.device": "lpc",
        "pci.0.2.1.device": "virtio-net",
        "pci.0.2.1.backend": "vale0:1",
        "pci.0.2.2.device": "ptnetmap-memdev",
        "pci.0.2.3.device": "virtio-net",
        "pci.0.2.3.backend": "ptvale1:2",
        "pci.0.3.0.device": "ptnetmap-memdev",
        "pci.0.4.0.device": "virtio-net",
        "pci.0.4.0.backend": "ptnetmap:ix0",
        "pci.0.4.0.mac": "00:a0:98:01:02:03",
    }
    assert config.boolean("acpi_tables")


def test_the_reports_example_repeats_a_slot_as_bhyve_says():
    error = refused(
        "-s 0,hostbridge -s 1,lpc -s 2:1,virtio-net,vale0:1 -s 2:2,ptnetmap-memdev -s 2:3,virtio-net,ptvale1:1"
        " -s 2:2,ptnetmap-memdev -s 2:3,virtio-net,ptvale2{1 -l com1,stdio -A -H -P -m 2G netmapvm"
    )

    assert str(error).startswith("pci slot 2:2 already occupied!\n        ptnetmap-memdev is there")
    assert error.status == 4


@pytest.mark.parametrize("dash", "\u2010\u2011\u2012\u2013\u2014\u2212")
def test_a_hyphen_from_a_document_is_named_and_its_replacement_shown(dash):
    error = refused(f"{dash}s 0,hostbridge vm", UsageError)

    assert f"'{dash}s' begins with U+{ord(dash):04X}" in str(error)
    assert "type -s yourself" in str(error)


def test_a_hyphen_from_a_document_within_a_device_name_is_named():
    error = refused("-s 2:1,virtio\u2010net,vale0:1 vm")

    assert str(error) == (
        'pci slot 2:1: unknown device "virtio\u2010net"\n'
        "        type virtio-net yourself: U+2010 HYPHEN looks like '-' but is not"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-a vm", {}),
        ("-A vm", {}),
        ("-I vm", {}),
        ("-o acpi_tables=no -A vm", {}),
        ("-x vm", {"x86.x2apic": "true"}),
        ("-x -a vm", {}),
        ("-C vm", {"memory.guest_in_core": "true"}),
        ("-D vm", {"destroy_on_poweroff": "true"}),
        ("-e vm", {"x86.strictio": "true"}),
        ("-S vm", {"memory.wired": "true"}),
        ("-u vm", {"rtc.use_localtime": "false"}),
        ("-w vm", {"x86.strictmsr": "false"}),
        ("-W vm", {"virtio_msix": "false"}),
        ("-Y vm", {"x86.mptable": "false"}),
        ("-AHP vm", {"x86.vmexit_on_hlt": "true", "x86.vmexit_on_pause": "true"}),
        ("-HPm2G vm", {"x86.vmexit_on_hlt": "true", "x86.vmexit_on_pause": "true", "memory.size": "2G"}),
        ("-K us vm", {"keyboard.layout": "us"}),
        ("-U 01234567-89ab-cdef-0123-456789abcdef vm", {"uuid": "01234567-89ab-cdef-0123-456789abcdef"}),
        ("-G 1234 vm", {"gdb.port": "1234"}),
        ("-G w[::1]:1234 vm", {"gdb.port": "1234", "gdb.address": "[::1]", "gdb.wait": "true"}),
        ("-n 0,1G,0-1 vm", {"domains.0.size": "1G", "domains.0.cpus": "0-1"}),
        ("-c 4 vm", {"cpus": "4"}),
        ("-c sockets=2,cores=2,4 vm", {"sockets": "2", "cores": "2", "cpus": "4"}),
        ("-c '' vm", {"sockets": "1", "cores": "1", "threads": "1", "cpus": "1"}),
        ("-p 0:1 -p 0:2 -p 1:3 vm", {"vcpu.0.cpuset": "1,2", "vcpu.1.cpuset": "3"}),
        ("-l com2,/dev/pts/1 vm", {"lpc.com2.path": "/dev/pts/1"}),
        ("-l COM1,tcp=127.0.0.1:4000 vm", {"lpc.com1.path": "tcp=127.0.0.1:4000"}),
        ("-l bootrom,/x.fd vm", {"lpc.bootrom": "/x.fd"}),
        ("-l tpm,passthru,/dev/tpm0 vm", {"tpm.type": "passthru", "tpm.path": "/dev/tpm0"}),
        ("-o cmdline='a=b c' vm", {"cmdline": "a=b c"}),
        ("-s 3:1:2,lpc vm", {"pci.3.1.2.device": "lpc"}),
        (
            "-s 2,virtio-blk,/x,ro vm",
            {"pci.0.2.0.device": "virtio-blk", "pci.0.2.0.path": "/x", "pci.0.2.0.ro": "true"},
        ),
        ("-s 2,virtio-blk vm", {"pci.0.2.0.device": "virtio-blk"}),
    ],
)
def test_each_option_sets_its_variables(line, expected):
    assert changed(options(line)) == {"name": "vm", **expected}


def test_the_last_of_options_and_files_wins(tmp_path):
    file = tmp_path / "vm.conf"
    file.write_text("memory.size=1G\nx86.x2apic=true\nname=from-file\n")

    assert options(f"-m 2G -k {file}")["memory.size"] == "1G"
    assert options(f"-k {file} -m 2G")["memory.size"] == "2G"
    assert options(f"-k {file} -a")["x86.x2apic"] == "false"
    assert options(f"-k {file}")["name"] == "from-file"
    assert options(f"-k {file} vm")["name"] == "vm"


@pytest.mark.parametrize(
    ("line", "message", "status"),
    [
        ("-c cpu=4 vm", "invalid cpu topology 'cpu=4'", 64),
        ("-l com1 vm", "invalid lpc device configuration 'com1'", 64),
        ("-l com5,stdio vm", "invalid lpc device configuration 'com5,stdio'", 64),
        ("-l '' vm", "invalid lpc device configuration ''", 64),
        ("-o x vm", "invalid configuration option 'x'", 64),
        ("-o x= vm", "invalid configuration option 'x='", 64),
        ("-p 0 vm", "invalid vcpu pinning configuration '0'\n        invalid format: 0", 64),
        ("-p=-1:0 vm", "invalid vcpu pinning configuration '=-1:0'", 64),
        ("-p -1:0 vm", "invalid vcpu pinning configuration '-1:0'\n        invalid vcpu '-1'", 64),
        (
            "-p 0:9999 vm",
            "invalid vcpu pinning configuration '0:9999'\n        hostcpu '9999' outside valid range from 0 to 1023",
            64,
        ),
        ("-n 0,1G vm", "invalid NUMA domain '0,1G'", 64),
        ("-s 2 vm", 'Invalid PCI slot info field "2"', 4),
        ("-s 32,lpc vm", 'Invalid PCI slot info field "32,lpc"', 4),
        ("-s 2:8,lpc vm", 'Invalid PCI slot info field "2:8,lpc"', 4),
        ("-s 256:2:0,lpc vm", 'Invalid PCI slot info field "256:2:0,lpc"', 4),
        ("-s 1:2:3:4,lpc vm", 'Invalid PCI slot info field "1:2:3:4,lpc"', 4),
        ("-s x,lpc vm", 'Invalid PCI slot info field "x,lpc"', 4),
        ("-s 99999999999,lpc vm", 'Invalid PCI slot info field "99999999999,lpc"', 4),
        ("-s 2,nonsense vm", 'pci slot 2:0: unknown device "nonsense"\n        bhyve -s help lists', 4),
        ("-s 2,ahci-hd,/x vm", 'pci slot 2:0: unknown device "ahci-hd"\n        use virtio-blk;', 4),
        ("-s 1:2:0,lpc -s 1:2:0,lpc vm", "pci slot 1:2:0 already occupied!", 4),
        ("-s 2,virtio-net,vale0:1,mac= vm", "pci.0.2.0.mac is given no value", 4),
        ("-G 12x vm", "Invalid gdb port '12x'", 4),
        ("-b vm", "-b: there is no bvm console", 4),
        ("-g 1 vm", "-g: there is no bvm debug port", 4),
        ("-f a,string=b vm", "-f: there is no fw_cfg", 4),
        ("-r file vm", "-r: snapshots cannot be restored", 4),
        ("-k /nonexistent vm", "Failed to open configuration file /nonexistent: No such file or directory", 4),
        ("-o config.dump=maybe vm", "Invalid value maybe for boolean variable config.dump", 4),
    ],
)
def test_wrong_values_are_refused_in_bhyves_words_with_its_codes(line, message, status):
    error = refused(line)

    assert str(error).startswith(message)
    assert error.status == status
    assert not isinstance(error, UsageError)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no name given"),
        ("-A", "no name given"),
        ("-Z vm", "illegal option -- Z"),
        ("-AZ vm", "illegal option -- Z"),
        ("vm -m", "one virtual machine at a time: vm -m"),
        ("-A -m", "option requires an argument -- m"),
        ("-s", "option requires an argument -- s"),
        ("--nonsense vm", "option --nonsense not recognized"),
        ("vm1 vm2", "one virtual machine at a time: vm1 vm2\n        options come before the name"),
        ("--json vm", "--json goes with"),
    ],
)
def test_a_command_line_that_is_none_calls_for_the_usage(line, message):
    error = refused(line, UsageError)

    assert str(error).startswith(message)
    assert error.status == 4


@pytest.mark.parametrize("line", ["-h", "--help", "-Ah vm", "-m 2Q --help"])
def test_help_names_every_option_that_does_something(line):
    answer = options(line)

    assert answer == Answer(usage(), 0)
    for option in OPTIONS:
        assert (f"\n       -{option.letter}: " in answer.text) == bool(option.help)
    assert "bhyve -s 0,hostbridge -s 1,lpc -l com1,stdio -A -H -P -m 2G netmapvm" in answer.text


def test_lists_of_devices_are_text_or_json():
    assert options("-s help").text.split() == sorted(MODELS)
    assert options("-l help").text.split() == ["com1", "com2", "com3", "com4"]
    assert json.loads(options("-s help --json").text) == sorted(MODELS)
    assert json.loads(options("--json -l help").text) == ["com1", "com2", "com3", "com4"]


def test_without_s_no_device_model_is_asked_for():
    def models():
        raise AssertionError("device models were imported")

    assert parse(["-l", "com1,stdio", "-m", "1G", "vm"], models)["name"] == "vm"


def test_a_dump_shows_all_as_it_was_set_and_does_not_look_like_a_reboot(tmp_path):
    answer = options("-o disk=/%(name) -s 2,virtio-blk,%(disk) -o config.dump=1 vm")
    file = tmp_path / "vm.conf"
    file.write_text(answer.text.replace("config.dump=1", "config.dump=0"))

    assert answer.status == 1
    assert "pci.0.2.0.path=%(disk)\n" in answer.text
    assert options(f"-k {file}").node("pci.0.2.0") == {"device": "virtio-blk", "path": "/vm"}
    assert json.loads(options("-o config.dump=1 --json vm").text)["memory.size"] == "256M"


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_command_line_raises_anything_but_a_configuration_error(arguments):
    try:
        found = parse([a for a in arguments if not a.startswith("-k")], lambda: MODELS)
    except ConfigError:
        return
    assert isinstance(found, (Config, Answer))


@given(st.sampled_from("clmnopsGU"), st.text(alphabet="01:,-=.wcomstdiGMx%( )\u0663", max_size=16))
def test_no_value_of_an_option_raises_anything_but_a_configuration_error(letter, value):
    try:
        found = parse([f"-{letter}", value, "vm"], lambda: MODELS)
        if isinstance(found, Config):
            settings.check(found)
    except ConfigError:
        pass
