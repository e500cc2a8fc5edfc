# SPDX-License-Identifier: BSD-2-Clause
import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.cli.vale_ctl import main
from ptnetmap.errors import PortError, PtnetmapError
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.wire import extension, frame, request, rules
from ptnetmap.netmap.wire.frame import Frame
from ptnetmap.netmap.wire.listing import find_listed
from ptnetmap.netmap.wire.registration import conf_of
from ptnetmap.netmap.wire.request import Request

FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(46)


class EmbeddedSession:
    """A session whose netmapd is a runtime in this process: every request and answer goes through the wire's bytes."""

    address = "/run/netmap/socket"

    def __init__(self, nm):
        self.nm = nm
        self.pages = extension.Pages()
        self.closed = False
        self.broken = {}

    def close(self):
        self.closed = True

    def request(self, reqtype, name, body=None):
        asked = Request(reqtype, name, body)
        sent = frame.encode(Frame(abi.NIOCCTRL, asked.argument))
        answer = frame.decode(self.serve(sent))
        frame.raise_for_error(answer)
        return request.decode_answer(asked, answer.argument).fields

    def serve(self, data):
        got = frame.decode_request(data)
        asked = request.decode(got.argument)
        try:
            rules.check(asked)
            if asked.reqtype in self.broken:
                raise self.broken[asked.reqtype]
            written = self.grant(asked)
        except PtnetmapError as error:
            return frame.encode(frame.refusal(got.ioctl, error, request.answer(asked, error=error.errno or errno.EIO)))
        return frame.encode(Frame(got.ioctl, request.answer(asked, **written)))

    def adapter(self, name):
        directory = self.nm._directory
        return directory.adapters.get(name) or directory.attached(name) or directory.vale(name)

    def grant(self, asked):
        nm, name, body = self.nm, asked.name, asked.body
        match asked.reqtype:
            case abi.NETMAP_REQ_VALE_LIST:
                found = find_listed(nm.list(), name, body)
                return {"name": found.name, "body": found.body}
            case abi.NETMAP_REQ_VALE_NEWIF:
                conf = {k: v for k, v in asdict(conf_of(body)).items() if not k.startswith("host")}
                nm.create(name, mem_id=body["nr_mem_id"], **conf)
                return {"body": self.shape(name)}
            case abi.NETMAP_REQ_VALE_DELIF:
                nm.delete(name)
                return {}
            case abi.NETMAP_REQ_VALE_ATTACH:
                if body["reg"]["nr_mode"] == abi.NR_REG_NIC_SW:
                    raise PortError(errno.EINVAL, "netmap: it has no host rings\n        only network interfaces do")
                return {"body": {"port_index": nm.attach(name)}}
            case abi.NETMAP_REQ_VALE_DETACH:
                return {"body": {"port_index": nm.detach(name)}}
            case abi.NETMAP_REQ_PORT_INFO_GET:
                return {"body": {"nr_memsize": self.adapter(name).allocator.geometry.total, **self.shape(name)}}
            case extension.PORT_STATS:
                adapter = self.adapter(name)
                tx, rx = ([ring.counters() for ring in rings] for rings in (adapter.tx, adapter.rx))
                return {"body": extension.stats_body(tx, rx, is_pipe=adapter.is_pipe)}
            case extension.PORT_LIST:
                names = [{"name": port} for port in sorted(nm._directory.adapters)]
                return {"body": self.pages.page(asked.reqtype, name, body, lambda: names)}
        self.polling = body
        raise PortError(errno.EOPNOTSUPP, f"netmap: {name} cannot be polled\n        only attached NICs can")

    def shape(self, name):
        adapter = self.adapter(name)
        return {
            "nr_tx_slots": adapter.shape.tx_slots,
            "nr_rx_slots": adapter.shape.rx_slots,
            "nr_tx_rings": adapter.shape.tx_rings,
            "nr_rx_rings": adapter.shape.rx_rings,
            "nr_mem_id": adapter.allocator.id,
        }


@pytest.fixture
def nm():
    with Netmap() as runtime:
        yield runtime


@pytest.fixture
def session(nm):
    return EmbeddedSession(nm)


@pytest.fixture
def vale_ctl(session, capsys):
    """Run the program with a command line; returns exit code, lines of output and lines of complaints."""

    def run(*arguments):
        try:
            code = main(arguments, connect=lambda: session)
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def two_ports(nm):
    with nm.open("vale0:a", tx_slots=64, rx_slots=32) as a, nm.open("vale1:b") as b:
        yield a, b


def test_without_arguments_all_ports_are_listed_and_the_exit_code_is_1(vale_ctl, two_ports):
    listing = ["vale0:a bridge_idx 0 port_idx 0", "vale1:b bridge_idx 1 port_idx 0"]

    assert vale_ctl() == (1, listing, [])
    assert vale_ctl("--list") == (0, listing, [])


def test_an_empty_listing_is_empty_and_still_exits_with_1(vale_ctl):
    assert vale_ctl() == (1, [], [])
    assert vale_ctl("--list") == (0, [], [])


def test_ports_after_a_gap_are_listed(vale_ctl, nm):
    with nm.open("vale0:a") as a, nm.open("vale0:b"), nm.open("vale1:c"):
        a.close()

        assert vale_ctl("--list")[1] == ["vale0:b bridge_idx 0 port_idx 1", "vale1:c bridge_idx 1 port_idx 0"]


def test_json_lists_ports_for_programs(vale_ctl, two_ports):
    code, out, _ = vale_ctl("--json")

    assert code == 0
    assert json.loads(out[0]) == [
        {"name": "vale0:a", "bridge_idx": 0, "port_idx": 0},
        {"name": "vale1:b", "bridge_idx": 1, "port_idx": 0},
    ]


@pytest.mark.parametrize("option", ["-l", "--find", "--list"])
def test_one_port_is_found_with_its_numbers_on_two_lines(vale_ctl, two_ports, option):
    assert vale_ctl(option, "vale1:b") == (0, ["bridge_idx: 1", "port_idx:   0"], [])
    assert vale_ctl(option, "vale1") == (0, ["bridge_idx: 1", "port_idx:   255"], [])


def test_a_port_of_no_switch_cannot_be_looked_for(vale_ctl):
    code, out, err = vale_ctl("-l", "eth0")

    assert (code, out) == (1, [])
    assert err[0].startswith("usage: vale-ctl")
    assert "invalid vale port name: 'eth0'" in err[-1]


def test_info_has_the_labels_that_scripts_know(vale_ctl, two_ports):
    a, _ = two_ports

    assert vale_ctl("-g", "vale0:a") == (
        0,
        [
            f"memsize:    {a.memsize}",
            "tx_slots:   64",
            "rx_slots:   32",
            "tx_rings:   1",
            "rx_rings    1",
            f"mem_id:     {a.mem_id}",
        ],
        [],
    )


def test_info_as_json_has_numbers(vale_ctl, two_ports):
    described = json.loads(vale_ctl("--info", "vale0:a", "--json")[1][0])

    assert described["name"] == "vale0:a"
    assert (described["tx_slots"], described["rx_slots"]) == (64, 32)


def test_a_persistent_ports_life(vale_ctl, nm):
    assert vale_ctl("-n", "foo") == (0, [], [])
    assert vale_ctl("-a", "vale0:foo") == (0, [], [])
    assert vale_ctl()[1] == ["vale0:foo bridge_idx 0 port_idx 0"]
    assert vale_ctl("-r", "foo")[0] == 1
    assert vale_ctl("-d", "vale0:foo") == (0, [], [])
    assert vale_ctl("-r", "foo") == (0, [], [])
    assert nm.list() == []


def test_verbose_says_more_and_where_netmapd_is(vale_ctl, session):
    where = ["vale-ctl: netmapd is at /run/netmap/socket"]

    code, out, err = vale_ctl("-v", "-n", "foo", "-C", "512,256,2,3")
    assert (code, out[:4], err) == (0, ["tx_slots:   512", "rx_slots:   256", "tx_rings:   2", "rx_ring:    3"], where)
    assert vale_ctl("-va", "vale0:foo") == (0, ["port_index: 0"], where)
    assert vale_ctl("-vd", "vale0:foo") == (0, ["port_index: 0"], where)
    assert session.closed


@pytest.mark.parametrize(
    ("config", "shape"), [("512", (512, 512, 1, 1)), ("512,256", (512, 256, 1, 1)), (",8,8,2,", (8, 8, 2, 2))]
)
def test_a_number_for_both_directions_is_corrected_by_the_next(vale_ctl, session, config, shape):
    assert vale_ctl("-n", "foo", "-C", config)[0] == 0
    assert tuple(session.shape("foo").values())[:4] == shape


def test_numbers_too_many_are_ignored_and_mentioned(vale_ctl, session):
    code, _, err = vale_ctl("-n", "foo", "-C", "8,8,1,1,77,78")

    assert (code, err) == (0, ["ignored config: 77", "ignored config: 78"])
    assert session.shape("foo")["nr_tx_slots"] == 8


@pytest.mark.parametrize("config", ["x", "8,-1", "8,8,65536", "99999999999", "1e3"])
def test_settings_that_are_no_counts_create_nothing(vale_ctl, nm, config):
    code, out, err = vale_ctl("-n", "foo", "-C", config)

    assert (code, out) == (1, [])
    assert err[0].startswith("vale-ctl: invalid config")
    assert not nm._directory.adapters


def test_memory_is_chosen_by_number_or_by_the_port_that_has_it(vale_ctl, session, two_ports):
    a, b = two_ports
    assert vale_ctl("-n", "foo", "-m", str(a.mem_id), "-C", "64,32")[0] == 0
    assert vale_ctl("-n", "bar", "-m", "vale1:b")[0] == 0

    assert session.shape("foo")["nr_mem_id"] == a.mem_id
    assert session.shape("bar")["nr_mem_id"] == b.mem_id


@pytest.mark.parametrize(("mem_id", "complaint"), [("eth0", "missing 'netmap:'?"), ("65536", "65535 at most")])
def test_memory_that_is_neither_is_refused(vale_ctl, mem_id, complaint):
    code, _, err = vale_ctl("-n", "foo", "-m", mem_id)

    assert code == 1
    assert complaint in "".join(err)


@pytest.mark.parametrize(
    ("arguments", "action", "reason"),
    [
        (("-a", "vale0:foo"), "attach vale0:foo", errno.ENXIO),
        (("-a", "foo"), "attach foo", errno.EINVAL),
        (("-h", "vale0:foo"), "attach vale0:foo", errno.EINVAL),
        (("-d", "vale0:foo"), "detach vale0:foo", errno.ENXIO),
        (("-n", "vale1"), "create vale1", errno.EINVAL),
        (("-r", "foo"), "remove foo", errno.ENXIO),
        (("-g", "foo"), "obtain info for foo", errno.ENXIO),
        (("-g", "netmap:foo"), "obtain info for foo", errno.ENXIO),
        (("-l", "vale0:foo"), "list vale0:foo", errno.ENOENT),
        (("-p", "vale0:foo", "-C", "1,0,2"), "enable polling on vale0:foo", errno.EOPNOTSUPP),
        (("-P", "vale0:foo"), "disable polling on vale0:foo", errno.EOPNOTSUPP),
        (("--statistics", "foo"), "count packets of foo", errno.ENXIO),
    ],
)
def test_failures_are_told_in_the_words_that_scripts_know_and_then_explained(vale_ctl, arguments, action, reason):
    code, out, err = vale_ctl(*arguments)

    assert (code, out) == (1, [])
    assert err[0] == f"failed to {action}: {os.strerror(reason)}"
    assert err[1].startswith("netmap: ")


def test_a_listing_that_fails_says_so(vale_ctl, session):
    session.broken[abi.NETMAP_REQ_VALE_LIST] = PortError(errno.EIO, os.strerror(errno.EIO))

    assert vale_ctl() == (1, [], ["failed to list all: Input/output error"])


def test_a_listing_that_goes_backwards_ends(vale_ctl, session):
    answers = iter([{"nr_bridge_idx": 1, "nr_port_idx": 0}] * 2)
    session.request = lambda *_: {**next(answers), "nr_name": "vale1:x"}

    code, out, err = vale_ctl()

    assert (code, out) == (1, ["vale1:x bridge_idx 1 port_idx 0"])
    assert "failed to list all" in err[0]


@pytest.mark.parametrize(
    ("config", "expected"),
    [("0,3", (1, 3, 1)), ("0", (1, 0, 1)), ("1,2,4", (2, 2, 4)), ("5,1,1", (2, 1, 1))],
)
def test_polling_settings_are_mode_cpu_and_count(vale_ctl, session, config, expected):
    vale_ctl("-p", "vale0:eth0", "-C", config)

    assert tuple(session.polling.values()) == expected


@pytest.mark.parametrize("config", [None, "", "0,1,1", "1,1,1,1", "1,x"])
def test_polling_settings_that_make_no_sense_are_refused(vale_ctl, config):
    code, _, err = vale_ctl("-p", "vale0:eth0", *(("-C", config) if config is not None else ()))

    assert code == 1
    assert err[0].startswith("vale-ctl: invalid")


def test_statistics_count_packets_bytes_and_drops_by_reason(vale_ctl, two_ports, nm):
    a, _ = two_ports
    with nm.open("vale0:c") as c:
        a.send([FRAME] * 3)
        c.recv(timeout=0)
        a.send([FRAME[:10]])

        code, out, err = vale_ctl("--statistics", "vale0:a", "vale0:c")
        everything = json.loads(vale_ctl("--statistics", "--json")[1][0])

    tail = "rx_packets 0 rx_bytes 0 missed 0 truncated 0 dropped 1 too_short 1"
    assert (code, err) == (0, [])
    assert out[0] == f"vale0:a tx_packets 4 tx_bytes 190 {tail}"
    assert out[1].startswith("vale0:c tx_packets 0 tx_bytes 0 rx_packets 3 rx_bytes 180 ")
    assert [port["name"] for port in everything] == ["vale0:a", "vale0:c", "vale1:b"]
    assert everything[0]["drops"] == {"too_short": 1}


@pytest.mark.parametrize(
    "arguments", [("-x",), ("-a",), ("vale0:a",), ("-v",), ("-C", "8"), ("--nonsense",), ("--inf", "x")]
)
def test_a_wrong_command_line_exits_with_1_as_it_always_has(vale_ctl, session, arguments):
    code, out, err = vale_ctl(*arguments)

    assert (code, out) == (1, [])
    assert err[0].startswith("usage: vale-ctl")
    assert not session.closed


def test_the_last_command_counts(vale_ctl, two_ports):
    assert vale_ctl("-d", "vale0:x", "-l", "vale0:a") == (0, ["bridge_idx: 0", "port_idx:   0"], [])


def test_no_netmapd_is_one_line_and_exit_code_1(capsys):
    def refuse():
        raise PortError(errno.ECONNREFUSED, "no netmapd at /run/netmap/socket")

    assert main(["--list"], connect=refuse) == 1
    assert capsys.readouterr().err == "vale-ctl: no netmapd at /run/netmap/socket\n"


def test_help_has_an_example_and_imports_nothing_heavy():
    code = (
        "import sys, atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr));"
        "from ptnetmap.cli.vale_ctl import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0
    assert "vale-ctl -a vale0:foo" in done.stdout
    assert not {"numba", "numpy", "rich", "ptnetmap.netmap"} & set(done.stderr.split())
