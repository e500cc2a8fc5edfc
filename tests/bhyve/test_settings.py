# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.bhyve import settings
from ptnetmap.errors import ConfigError


def described(**given):
    config = settings.new_config()
    config.set("name", "vm")
    for key, value in given.items():
        config.set(key.replace("__", "."), value)
    return config


def with_keys(*options):
    config = described()
    for option in options:
        assert config.set_option(option)
    return config


def test_nothing_but_a_name_is_a_machine():
    config = described()
    settings.check(config)

    assert settings.topology(config) == (1, 1, 1, 1)
    assert settings.memory_size(config) == 256 << 20
    assert settings.slots(config) == []
    assert settings.serial_ports(config) == {}
    assert settings.pinning(config) == {}
    assert settings.remarks(config) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"cpus": 4}, (4, 4, 1, 1)),
        ({"sockets": 2, "cores": 3, "threads": 2}, (12, 2, 3, 2)),
        ({"cpus": 6, "sockets": 1, "cores": 3, "threads": 2}, (6, 1, 3, 2)),
        ({"cores": "0x2"}, (2, 1, 2, 1)),
    ],
)
def test_cpus_are_sockets_times_cores_times_threads(given, expected):
    assert settings.topology(described(**given)) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cpus": 4, "cores": 2}, "Topology .4 sockets, 2 cores, 1 threads. does not match 4 vCPUs"),
        ({"cpus": 0}, "Invalid value for cpus: '0'"),
        ({"cores": "two"}, "Invalid value for cores: 'two'"),
        ({"sockets": 256, "cores": 256}, "Computed number of vCPUs too high: 65536"),
    ],
)
def test_contradicting_cpus_are_refused_in_bhyves_words(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        settings.check(described(**given))
    assert caught.value.status == 4


@pytest.mark.parametrize("size", ["0", "4095K", "1001K", "1000000T", "0M", "2Q"])
def test_memory_that_cannot_be_ends_with_64(size):
    with pytest.raises(ConfigError, match=f"invalid memsize '{size}'") as caught:
        settings.check(described(memory__size=size))
    assert caught.value.status == 64


def test_the_largest_memory_ends_where_64_bit_bars_begin():
    size = settings.MAX_MEMORY
    assert settings.memory_size(described(memory__size=f"{size >> 10}K")) == size
    with pytest.raises(ConfigError):
        settings.memory_size(described(memory__size=f"{(size >> 10) + 4}K"))


def test_pinned_cpus_are_lists_of_ranges():
    config = described(cpus=3, vcpu__0__cpuset="0,4-6", vcpu__2__cpuset="9", vcpu__7__cpuset="nonsense")

    assert settings.pinning(config) == {0: frozenset({0, 4, 5, 6}), 2: frozenset({9})}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid cpuset for vcpu 0: 'x'"),
        ("1,", "invalid cpuset"),
        ("1-", "invalid cpuset"),
        ("5-3", "Invalid hostcpu range 5-3"),
        ("0-1024", "hostcpu '1024' outside valid range from 0 to 1023"),
    ],
)
def test_a_wrong_cpuset_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        settings.check(described(vcpu__0__cpuset=text))


def test_slots_are_in_bus_order_with_their_own_settings():
    config = with_keys(
        "pci.0.10.0.device=lpc", "pci.0.2.1.device=virtio-blk", "pci.0.2.1.path=/%(name)", "pci.0.2.0.device=virtio-rnd"
    )

    assert [slot[:4] for slot in settings.slots(config)] == [
        (0, 2, 0, "virtio-rnd"),
        (0, 2, 1, "virtio-blk"),
        (0, 10, 0, "lpc"),
    ]
    assert settings.slots(config)[1].options == {"device": "virtio-blk", "path": "/vm"}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("pci.0.02.0.device=lpc", "Invalid PCI node in pci.0.02.0.device"),
        ("pci.0.32.0.device=lpc", "Invalid PCI node"),
        ("pci.0.2.8.device=lpc", "Invalid PCI node"),
        ("pci.256.2.0.device=lpc", "Invalid PCI node"),
        ("pci.device=lpc", "Invalid PCI node"),
        ("pci.0.2.0.path=x", "pci.0.2.0 does not say which device it is"),
    ],
)
def test_a_node_that_is_no_slot_or_has_no_device_is_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        settings.check(with_keys(option))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vale0:1", "netmap"),
        ("netmap:eth0", "netmap"),
        ("ptvale1:1", "ptnetmap"),
        ("ptnetmap:ix0", "ptnetmap"),
        ("ptvale2{1", "ptnetmap"),
        ("tap0", "tap"),
        ("vmnet3", "tap"),
        ("null", "null"),
    ],
)
def test_the_type_of_a_backend_is_in_its_name(name, kind):
    assert settings.backend_type(name) == kind
    assert settings.backend_type("x", kind) == kind


@pytest.mark.parametrize("name", ["eth0", "netgraph", "slirp", "pt", "valve0:1"])
def test_an_unknown_backend_fails_in_bhyves_words(name):
    with pytest.raises(ConfigError, match=f"net backend initialization failed: {name}"):
        settings.check(with_keys("pci.0.2.0.device=virtio-net", f"pci.0.2.0.backend={name}"))


@pytest.mark.parametrize("key", [key for key, value in settings.DEFAULTS.items() if value in ("true", "false")])
def test_a_wrong_boolean_is_found_before_anything_starts(key):
    with pytest.raises(ConfigError, match=f"Invalid value maybe for boolean variable {key}"):
        settings.check(with_keys(f"{key}=maybe"))


@pytest.mark.parametrize(
    "option",
    ["gdb.port=1234", "domains.0.size=1G", "tpm.path=/dev/tpm0", "lpc.bootrom=/x.fd", "lpc.pc-testdev=true"],
)
def test_what_this_bhyve_has_not_is_refused_not_ignored(option):
    with pytest.raises(ConfigError, match="this bhyve does not have it"):
        settings.check(with_keys(option))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-x", "ä", "a\x1b"])
def test_a_name_that_could_be_another_file_is_no_name(name):
    config = settings.new_config()
    if name:
        config.set("name", name)

    with pytest.raises(ConfigError, match="invalid name for a virtual machine"):
        settings.check(config)


@pytest.mark.parametrize("uuid", ["1234", "01234567-89ab-cdef-0123-456789abcdeg"])
def test_a_wrong_uuid_is_refused(uuid):
    with pytest.raises(ConfigError, match="invalid uuid"):
        settings.check(described(uuid=uuid))
    settings.check(described(uuid="01234567-89ab-cdef-0123-456789ABCDEF"))


def test_a_serial_port_without_a_bridge_is_remarked_on():
    config = with_keys("lpc.com1.path=stdio")
    assert "add -s 31,lpc" in settings.remarks(config)[0]

    config.set("pci.0.1.0.device", "lpc")
    config.set("pci.0.0.0.device", "hostbridge")
    assert settings.remarks(config) == []
    assert settings.serial_ports(config) == {"com1": "stdio"}
