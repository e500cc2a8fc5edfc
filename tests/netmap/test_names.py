# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import NameSyntaxError
from ptnetmap.netmap.names import (
    Conf,
    ExtMem,
    PortName,
    check_name_length,
    format_port_name,
    is_vale,
    parse,
    parse_nm_open,
    parse_nmport,
    split_pipe,
    split_request,
    split_vale,
)

X, Z = abi.NR_EXCLUSIVE, abi.NR_ZCOPY_MON
TX_ONLY, RX_ONLY = abi.NR_TX_RINGS_ONLY, abi.NR_RX_RINGS_ONLY


def one(name, ringid, flags=0):
    return PortName(name, abi.NR_REG_ONE_NIC, ringid, flags)


# The accepted texts of upstream's own conformance table (case nmreq_parsing of its control API test): what goes into
# the register request, and what is left for the options, with the memory id where that table does not look at it.
UPSTREAM_ACCEPTS = [
    ("netmap:eth0", PortName("eth0"), ""),
    ("netmap:14", PortName("14"), ""),
    ("netmap:eth0-1", one("eth0", 1), ""),
    ("netmap:eth0*", PortName("eth0", abi.NR_REG_NIC_SW), ""),
    ("netmap:eth0^", PortName("eth0", abi.NR_REG_SW), ""),
    ("netmap:eth0/x", PortName("eth0", flags=X), ""),
    ("netmap:eth0/z", PortName("eth0", flags=Z), ""),
    ("netmap:eth0/r", PortName("eth0", flags=abi.NR_MONITOR_RX), ""),
    ("netmap:eth0/t", PortName("eth0", flags=abi.NR_MONITOR_TX), ""),
    ("netmap:eth0-2/Tx", one("eth0", 2, TX_ONLY | X), ""),
    ("netmap:eth0@2", PortName("eth0", mem_id=2), ""),
    ("netmap:eth0@2/R", PortName("eth0", flags=RX_ONLY, mem_id=2), ""),
    ("netmap:eth0@2/R@2", PortName("eth0", flags=RX_ONLY, mem_id=2), ""),
    ("netmap:eth0@netmap:lo/R", PortName("eth0"), "@netmap:lo/R"),
    ("netmap:eth0/R@xxx", PortName("eth0", flags=RX_ONLY), "@xxx"),
    ("vale0:0", PortName("vale0:0"), ""),
    ("vale:0", PortName("vale:0"), ""),
    ("valeXXX:YYY", PortName("valeXXX:YYY"), ""),
    ("valeXXX:YYY-4", one("valeXXX:YYY", 4), ""),
    ("vale0:0{0", PortName("vale0:0{0"), ""),
    ("vale0:0@opt", PortName("vale0:0"), "@opt"),
    ("vale0:0/Tx@opt", PortName("vale0:0", flags=TX_ONLY | X), "@opt"),
    ("vale0:0-3@opt", one("vale0:0", 3), "@opt"),
    ("netmap:pipe{0", PortName("pipe{0"), ""),
    ("netmap:pipe{in", PortName("pipe{in"), ""),
    ("netmap:pipe{in-7", one("pipe{in", 7), ""),
]

UPSTREAM_REFUSES = [
    "",
    "eth0",
    "netmap:",
    "netmap:^",
    "netmap:{",
    "netmap:vale0:0",
    "netmap:eth0&",
    "netmap:eth0-",
    "netmap:eth0@",
    "netmap:eth0@2/R@3",
    "netmap:pipe{1}2",
    "netmapXXX:eth0",
    "vale0:0@",
]


@pytest.mark.parametrize(("text", "port", "rest"), UPSTREAM_ACCEPTS)
def test_what_upstreams_table_accepts_gives_the_same_request_and_the_same_rest(text, port, rest):
    assert split_request(text) == (port, rest)


@pytest.mark.parametrize("text", UPSTREAM_REFUSES)
def test_what_upstreams_table_refuses_is_refused_with_einval(text):
    for function in (split_request, parse_nmport, parse):
        with pytest.raises(NameSyntaxError) as caught:
            function(text)
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("text", [text for text, _, rest in UPSTREAM_ACCEPTS if rest])
def test_an_unknown_option_is_refused_with_the_list_of_options(text):
    with pytest.raises(NameSyntaxError, match=r"unknown option.*\n.*use one of share, conf, extmem, offset"):
        parse_nmport(text)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("netmap:eth0^3", PortName("eth0", abi.NR_REG_ONE_SW, 3)),
        ("netmap:eth0^3/R", PortName("eth0", abi.NR_REG_ONE_SW, 3, RX_ONLY)),
        ("netmap:eth0^/R", PortName("eth0", abi.NR_REG_SW, 0, RX_ONLY)),
        ("netmap:eth0-4094", one("eth0", 4094)),
        ("netmap:eth0/tr", PortName("eth0", flags=abi.NR_MONITOR_TX | abi.NR_MONITOR_RX)),
        ("netmap:eth0/@7", PortName("eth0", mem_id=7)),
        ("netmap:eth0}x", PortName("eth0}x")),
        ("vale0:1}07", PortName("vale0:1}07")),
        ("netmap:valet", PortName("valet")),
        ("netmap:eth1@share=netmap:eth0", PortName("eth1", share="eth0")),
        ("netmap:eth1@share=vale0:1", PortName("eth1", share="vale0:1")),
        ("netmap:eth1@share:port=netmap:eth0-2", PortName("eth1", share="eth0")),
        ("vale0:1@conf:rings=2", PortName("vale0:1", conf=Conf(tx_rings=2, rx_rings=2))),
        ("vale0:1@conf:rx-rings=3,rings=2", PortName("vale0:1", conf=Conf(tx_rings=2, rx_rings=3))),
        ("vale0:1@conf:tx_slots=9@conf:slots=5", PortName("vale0:1", conf=Conf(tx_slots=5, rx_slots=5))),
        ("netmap:a@conf:host-rings=2", PortName("a", conf=Conf(host_tx_rings=2, host_rx_rings=2))),
        ("netmap:a@conf:host-tx-rings=1", PortName("a", conf=Conf(host_tx_rings=1))),
        ("netmap:a@extmem=/dev/shm/a,b", PortName("a", extmem=ExtMem("/dev/shm/a,b"))),
        ("netmap:a@extmem:file=/m=1,buf-num=64", PortName("a", extmem=ExtMem("/m=1", buf_num=64))),
        ("vale0:1/x@9@conf:slots=64@share=vale0:2", None),
    ],
)
def test_nmport_names_mean_what_libnetmap_documents(text, port):
    if port is None:
        port = PortName("vale0:1", flags=X, mem_id=9, share="vale0:2", conf=Conf(tx_slots=64, rx_slots=64))
    assert parse_nmport(text) == port
    assert parse(text) == port


@pytest.mark.parametrize(
    "text",
    [
        "netmap",
        "vale0",
        "vale0:",
        "vale-0:1",
        "vale0:1:2",
        "netmap:{1",
        "netmap:eth0{",
        "netmap:eth0{-1",
        "netmap:a\0b",
        "netmap:eth0-4095",
        "netmap:eth0- 1",
        "netmap:eth0-\N{SUPERSCRIPT TWO}",
        "netmap:eth0-" + "9" * 5000,
        "netmap:eth0^*",
        "netmap:eth0*^",
        "netmap:eth0/q",
        "netmap:eth0/x/R",
        "netmap:eth0/",
        "netmap:eth0@0",
        "netmap:eth0@65536",
        "netmap:eth0@2x",
        "netmap:eth0@@2",
        "netmap:eth0@conf",
        "netmap:eth0@conf:",
        "netmap:eth0@conf=2",
        "netmap:eth0@conf:rings",
        "netmap:eth0@conf:rings=",
        "netmap:eth0@conf:rings=2,",
        "netmap:eth0@conf:rings=two",
        "netmap:eth0@conf:rings=65536",
        "netmap:eth0@conf:slots=4294967296",
        "netmap:eth0@conf:rings=1,rings=2",
        "netmap:eth0@conf:colour=1",
        "netmap:eth0@conf:rings=2/x",
        "netmap:eth0@extmem:buf-num=3",
        "netmap:eth0@extmem=a@extmem=b",
        "netmap:eth0@share=eth1",
        "netmap:eth0@share=netmap:a@share=netmap:b",
        "netmap:eth0@share:port=netmap:a,with=b",
    ],
)
def test_a_wrong_name_is_refused_and_the_message_shows_it_and_says_what_to_do(text):
    with pytest.raises(NameSyntaxError) as caught:
        parse(text)
    first, second = str(caught.value).split("\n")
    assert caught.value.errno == errno.EINVAL
    assert first.startswith("netmap: cannot open ")
    assert second.strip()


def test_a_bare_interface_name_gets_upstreams_words_and_the_name_to_write():
    with pytest.raises(NameSyntaxError) as caught:
        parse("eth0")
    assert str(caught.value) == (
        "netmap: cannot open 'eth0': invalid request, prefix unknown or missing\n        write netmap:eth0"
    )


def test_offsets_are_for_applications_that_ask_for_them():
    text = "netmap:eth0@offset:initial=64,bits=16"
    assert parse_nmport(text, allow_offset=True) == PortName("eth0", offset=(64, 16))
    assert parse_nmport("netmap:eth0@offset=64", allow_offset=True) == PortName("eth0", offset=(64, 0))
    for function in (parse, parse_nmport):
        with pytest.raises(NameSyntaxError) as caught:
            function(text)
        assert caught.value.errno == errno.EOPNOTSUPP
    for wrong in ("netmap:eth0@offset:bits=3", "netmap:eth0@offset=1@offset=1"):
        with pytest.raises(NameSyntaxError) as caught:
            parse_nmport(wrong, allow_offset=True)
        assert caught.value.errno == errno.EINVAL


def test_a_vlan_interface_opens_with_our_grammar_and_nm_open_but_not_with_nmport():
    assert parse("netmap:eth0.100-1") == one("eth0.100", 1)
    assert parse_nm_open("netmap:eth0.100-1") == one("eth0.100", 1)
    with pytest.raises(NameSyntaxError):
        parse_nmport("netmap:eth0.100-1")
    with pytest.raises(NameSyntaxError):
        parse("vale0:1.1")


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("netmap:eth0", PortName("eth0")),
        ("netmap:eth0^/x", PortName("eth0", abi.NR_REG_SW, 0, X)),
        ("netmap:eth0*", PortName("eth0", abi.NR_REG_NIC_SW)),
        ("netmap:eth0-3/zTR", one("eth0", 3, Z | TX_ONLY | RX_ONLY)),
        ("netmap:eth0{07", PortName("eth0{7")),
        ("netmap:eth0}4094/x", PortName("eth0}4094", flags=X)),
        ("vale0:1", PortName("vale0:1")),
        ("vale0:1{1", PortName("vale0:1{1")),
        ("netmap:vale0:1", PortName("vale0:1")),
    ],
)
def test_both_generations_of_nm_open_agree_on_the_common_names(text, port):
    assert parse_nm_open(text) == port
    assert parse_nm_open(text, "2015") == port


@pytest.mark.parametrize(
    ("text", "current", "old"),
    [
        ("netmap:eth0@2", PortName("eth0", mem_id=2), PortName("eth0@2")),
        ("netmap:eth0@2/x", PortName("eth0", flags=X, mem_id=2), PortName("eth0@2", flags=X)),
        ("netmap:eth0/x@2", PortName("eth0", flags=X, mem_id=2), None),
        ("vale2{1", None, PortName("vale2{1")),
        ("vale7", None, PortName("vale7")),
        ("vale!:1", None, PortName("vale!:1")),
    ],
)
def test_nm_open_of_2015_knew_no_memory_ids_and_did_not_check_vale_names(text, current, old):
    for generation, port in (("current", current), ("2015", old)):
        if port is None:
            with pytest.raises(NameSyntaxError) as caught:
                parse_nm_open(text, generation)
            assert caught.value.errno == errno.EINVAL
        else:
            assert parse_nm_open(text, generation) == port


@pytest.mark.parametrize(
    "text", ["netmap:", "netmap:a{x", "netmap:a{", "netmap:a{4095", "netmap:a{1-2", "netmap:a^1", "netmap:a@2@2",
             "netmap:a@share=netmap:b", "netmap:0123456789abcdef", "vale0:0123456789"]
)  # fmt: skip
def test_nm_open_refuses_what_only_nmport_knows_and_long_names(text):
    with pytest.raises(NameSyntaxError) as caught:
        parse_nm_open(text)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("text", ["eth0", "", "pcap:eth0", "netmap5:eth0"])
def test_an_unknown_prefix_is_no_error_to_nm_open(text):
    for generation in ("current", "2015"):
        with pytest.raises(NameSyntaxError, match="prefix unknown or missing") as caught:
            parse_nm_open(text, generation)
        assert caught.value.errno == 0


def test_a_name_fits_with_its_nul_or_is_refused():
    parse("netmap:" + 63 * "a")
    parse_nm_open("vale0:123456789")
    check_name_length(15 * "a", abi.IFNAMSIZ)
    with pytest.raises(NameSyntaxError, match=r"too long, 64 bytes\n.*at most 63"):
        parse("netmap:" + 64 * "a")
    with pytest.raises(NameSyntaxError, match=r"too long, 16 bytes\n.*at most 15"):
        check_name_length(8 * "\N{LATIN SMALL LETTER E WITH ACUTE}", abi.IFNAMSIZ)


@pytest.mark.parametrize(
    ("name", "pipe", "vale"),
    [
        ("eth0", None, None),
        ("eth0{1", ("eth0", "master", "1"), None),
        ("eth0}x", ("eth0", "slave", "x"), None),
        ("vale0:1{1", ("vale0:1", "master", "1"), None),
        ("a}b{c", ("a}b", "master", "c"), None),
        ("a{b}c", ("a", "master", "b}c"), None),
        ("a}b}c", ("a}b", "slave", "c"), None),
        ("vale0:1", None, ("vale0", "1")),
        ("vale:a:b", None, ("vale", "a:b")),
        ("vale7", None, ("vale", "7")),
        ("vale", None, None),
        ("vale0:", None, None),
        ("val0:1", None, None),
    ],
)
def test_kernel_level_names_come_apart_as_the_kernel_module_takes_them(name, pipe, vale):
    assert split_pipe(name) == pipe
    assert split_vale(name) == vale
    assert is_vale(name) == (name.startswith("vale") and pipe is None)


PARSERS = {
    "parse": parse,
    "nmport": lambda text: parse_nmport(text, allow_offset=True),
    "nm_open": parse_nm_open,
    "nm_open 2015": lambda text: parse_nm_open(text, "2015"),
}
OPTION_WORDS = ["share=", "conf:", "extmem=", "extmem:", "offset=", "offset:initial=", "bits=", "file=", "tx-slots="]
MODE_WORDS = ["-", "*", "^", "{", "}", "/", "@", "0", "7", "x", "TR", "zrt"]
WORDS = st.sampled_from(
    ["netmap:", "vale", ":", "eth0", ".", ",", " ", "\n", "\N{MICRO SIGN}", *MODE_WORDS, *OPTION_WORDS]
)
TEXTS = st.text() | st.lists(WORDS).map("".join) | st.lists(WORDS).map(lambda words: "netmap:eth0" + "".join(words))


@pytest.mark.parametrize("parser", PARSERS)
@given(text=TEXTS)
@example(text="netmap:\ud800")
def test_any_text_is_a_name_that_formats_to_itself_or_a_syntax_error(parser, text):
    try:
        port = PARSERS[parser](text)
    except NameSyntaxError:
        return
    assert PARSERS[parser](str(port)) == port


IDENTIFIERS = st.from_regex(r"[A-Za-z0-9_]{1,8}", fullmatch=True)
BASES = IDENTIFIERS | st.builds("vale{}:{}".format, IDENTIFIERS, IDENTIFIERS)
NAMES = BASES | st.builds("{}{}{}".format, BASES, st.sampled_from("{}"), IDENTIFIERS)
U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
FILES = st.text(st.characters(exclude_characters="@\0,", exclude_categories=["Cs"]), min_size=1)
RINGS = st.sampled_from([abi.NR_REG_ONE_NIC, abi.NR_REG_ONE_SW])
MODES = st.tuples(st.sampled_from([abi.NR_REG_ALL_NIC, abi.NR_REG_SW, abi.NR_REG_NIC_SW]), st.just(0))
PORTS = st.builds(
    lambda mode, **values: PortName(mode=mode[0], ringid=mode[1], **values),
    MODES | st.tuples(RINGS, st.integers(0, 4094)),
    name=NAMES,
    flags=st.sets(st.sampled_from([X, Z, TX_ONLY, RX_ONLY, abi.NR_MONITOR_TX, abi.NR_MONITOR_RX])).map(sum),
    mem_id=U16,
    share=st.none() | NAMES,
    conf=st.builds(Conf, U16, U16, U32, U32, U16, U16),
    extmem=st.none() | st.builds(ExtMem, FILES, U32, U32, U32, U32, U32, U32),
    offset=st.none() | st.tuples(st.integers(0, 2**64 - 1), U32),
)


@given(PORTS)
def test_a_formatted_port_name_parses_to_the_same_port_name(port):
    assert parse_nmport(format_port_name(port), allow_offset=True) == port


@given(PORTS, st.sampled_from([abi.NR_ACCEPT_VNET_HDR, abi.NR_NO_TX_POLL]))
def test_flags_without_a_letter_do_not_show_in_the_name(port, flag):
    assume(not port.flags & flag)
    assert str(port) == str(PortName(**{**vars(port), "flags": port.flags | flag}))
