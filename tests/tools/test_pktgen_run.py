# SPDX-License-Identifier: BSD-2-Clause
import errno
import json
import re
import struct
import threading

import pytest

from ptnetmap.errors import PortError, PtnetmapError
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.tools.pktgen.options import OptionError, parse
from ptnetmap.tools.pktgen.run import Run

pytestmark = pytest.mark.interpreted

PAIRS = {"pipe": ("netmap:p{1", "netmap:p}1"), "switch": ("vale0:a", "vale0:b")}
PLAIN = b"\xff" * 6 + bytes(54)
PATIENCE = 20.0


@pytest.fixture
def nm():
    with Netmap() as runtime:
        yield runtime
        assert [str(a) for a in runtime.audit() if not a.ok] == []


@pytest.fixture(params=PAIRS)
def names(request):
    return PAIRS[request.param]


@pytest.fixture
def generate(nm):
    """Run pkt-gen to its end; return what it printed on standard output."""

    def run(*arguments):
        lines = []
        assert Run(parse(["-w", "0", *arguments]), nm.open, lines.append).run() == 0
        return lines

    return run


@pytest.fixture
def meanwhile(generate):
    """Run pkt-gen in another thread; what is returned stops it, if asked to, and waits for its output."""
    threads = []

    def start(*arguments):
        outcome = []

        def body():
            try:
                outcome.append(generate(*arguments))
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=body)
        threads.append(thread)
        thread.start()

        def result():
            thread.join(PATIENCE)
            assert outcome, "it does not end"
            if isinstance(outcome[0], BaseException):
                raise outcome[0]
            return outcome[0]

        return result

    yield start
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def received(port):
    return port.recv(1000, timeout=0)


def test_what_is_sent_is_received(names, nm, generate, meanwhile, capfd):
    with nm.open(names[1]):  # there from the beginning, so that nothing is sent in vain
        receiver = meanwhile("-i", names[1], "-f", "rx", "-n", "700")
        sent = generate("-i", names[0], "-f", "tx", "-n", "700", "-b", "64")
        got = receiver()

    assert sent[0] == f"Sending on {names[0]}: 1 queues, 1 threads and 1 cpus."
    assert sent[1] == "10.0.0.1 -> 10.1.0.1 (00:00:00:00:00:00 -> ff:ff:ff:ff:ff:ff)"
    assert re.fullmatch(r"Sent 700 packets 42000 bytes 1[1-9] events 60 bytes each in \d+\.\d\d seconds\.", sent[2])
    assert sent[3].startswith("Speed: ")
    assert got[0] == f"Receiving from {names[1]}: 1 queues, 1 threads and 1 cpus."
    assert re.fullmatch(r"Received 700 packets 42000 bytes \d+ events 60 bytes each in \d+\.\d\d seconds\.", got[1])
    log = capfd.readouterr().err
    assert re.search(rf"main \[\d+\] interface is {re.escape(names[0])}\n", log)
    assert re.search(r"\[\d+\] Sending 64 packets every  0\.000000000 s\n", log)


def test_the_log_comes_in_upstreams_order(generate, capfd):
    generate("-i", "null", "-f", "tx", "-n", "100", "-R", "100000")

    log = [re.sub(r"^\S+ (\S+) \[\d+\] ", r"\1: ", line) for line in capfd.readouterr().err.splitlines()]
    assert log[0] == "main: interface is null"
    assert log[1] == "main: using default burst size: 512"
    assert re.fullmatch(r"main: running on 1 cpus \(have \d+\)", log[2])
    assert log[3:9] == [
        "extract_ip_range: range is 10.0.0.1:1234 to 10.0.0.1:1234",
        "extract_ip_range: range is 10.1.0.1:1234 to 10.1.0.1:1234",
        "main: Sending 333 packets every  0.003330000 s",
        "main: Wait 0 secs for phy reset",
        "main: Ready...",
        "sender_body: start, fd -1 main_fd -1",
    ]


def test_a_port_called_null_takes_everything(generate):
    lines = generate("-i", "null", "-f", "tx", "-n", "5000", "-s", "10.0.0.1-10.0.0.9")

    assert lines[2].startswith("Sent 5000 packets 300000 bytes 10 events ")


def test_json_is_one_object_and_nothing_else(generate, capfd):
    (line,) = generate("-i", "null", "-f", "tx", "-n", "5000", "--json")

    figures = json.loads(line)
    assert (figures["function"], figures["port"], figures["packets"]) == ("tx", "null", 5000)
    assert (figures["bytes"], figures["events"]) == (300_000, 10)
    assert capfd.readouterr().err == ""


def test_an_idle_receiver_leaves_if_it_is_told_to(nm, meanwhile, capfd):
    with nm.open("vale0:s") as sender, nm.open("vale0:r"):
        receiver = meanwhile("-i", "vale0:r", "-f", "rx", "-W")
        sender.send([PLAIN] * 5)

        assert receiver()[1].startswith("Received 5 packets 300 bytes")


def test_round_trips_are_counted(names, nm, meanwhile, generate, capfd):
    with nm.open(names[1]):
        other = meanwhile("-i", names[1], "-f", "pong", "-n", "20")
        lines = generate("-i", names[0], "-f", "ping", "-n", "20")
        other()

    assert lines[0] == f"Working on {names[0]}: 1 queues, 1 threads and 1 cpus."
    # An answer that takes a second counts as lost, which a slow machine may bring about.
    assert re.fullmatch(r"RTT over (1?\d|20) packets: min \d+ av \d+ ns", lines[-1])


def test_numbered_packets_arrive_without_gaps(names, nm, meanwhile, generate, capfd):
    with nm.open(names[1]):
        receiver = meanwhile("-i", names[1], "-f", "rxseq", "-n", "500", "--json")
        generate("-i", names[0], "-f", "txseq", "-n", "500", "-b", "50")
        figures = json.loads(receiver()[0])

    assert figures["packets"] == 500
    assert (figures["gaps"], figures["missing"], figures["disorders"]) == (0, 0, 0)


def test_each_thread_has_a_ring_and_its_share(nm, generate):
    sent = generate("-i", "vale0:a", "-f", "tx", "-n", "101", "-p", "2", "-b", "10")

    assert sent[0] == "Sending on vale0:a: 2 queues, 2 threads and 1 cpus."
    assert sent[2].startswith("Sent 101 packets 6060 bytes 11 events")


def test_one_thread_serves_all_rings(nm, generate):
    with nm.open("vale0:a", tx_rings=3, rx_rings=3) as port:
        sent = generate("-i", "vale0:a", "-f", "tx", "-n", "60", "-b", "10")
        packets = [ring.counters()["packets"] for ring in port.adapter.tx]

    assert sent[0].startswith("Sending on vale0:a: 3 queues, 1 threads")
    assert packets[:3] == [20, 20, 20]


def test_more_threads_than_rings_are_refused(nm, generate):
    with nm.open("vale0:a"), pytest.raises(PortError, match="it has 1 rings") as refused:
        generate("-i", "vale0:a", "-f", "tx", "-n", "1", "-p", "2")

    assert refused.value.errno == errno.EINVAL


def test_threads_on_a_pipe_are_refused(generate):
    with pytest.raises(PortError, match="use -p 1"):
        generate("-i", "netmap:p{1", "-f", "tx", "-n", "1", "-p", "2")


def test_cpus_that_are_not_there_are_refused(generate):
    for arguments in (["-c", "9999"], ["-a", "9999"]):
        with pytest.raises(OptionError):
            generate("-i", "null", "-f", "tx", "-n", "1", *arguments)


def test_a_port_without_rings_of_that_direction_is_refused(generate):
    with pytest.raises(PortError, match="no TX ring"):
        generate("-i", "vale0:a/R", "-f", "tx", "-n", "1")
    with pytest.raises(PortError, match="no RX ring"):
        generate("-i", "vale0:a/T", "-f", "rx", "-n", "1")


def test_fragments_too_large_for_a_buffer_are_refused(generate):
    for arguments in (
        ["-l", "6000", "-F", "2"],
        ["-l", "6000", "-F", "2", "-M", "2000"],
        ["-l", "65536", "-M", "1000"],
    ):
        with pytest.raises(PortError) as refused:
            generate("-i", "null", "-f", "tx", "-n", "1", *arguments)
        assert refused.value.errno == errno.EMSGSIZE


def test_packets_are_shown_when_asked(nm, generate):
    with nm.open("vale0:b") as other:
        lines = generate("-i", "vale0:a", "-f", "tx", "-n", "3", "-b", "2", "-X")
        frames = received(other)

    shown = "\n".join(lines[2:4])
    assert shown.count("len    60]") == 3
    assert "44 49 52" in shown  # DIR
    assert len(frames) == 3


def test_a_template_comes_from_a_file(nm, generate, tmp_path):
    pytest.importorskip("ptnetmap.pcap")
    packet = bytes(range(100))
    path = tmp_path / "one.pcap"
    path.write_bytes(
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + struct.pack("<IIII", 0, 0, 100, 100) + packet
    )

    with nm.open("vale0:b") as other:
        generate("-i", "vale0:a", "-f", "tx", "-n", "3", "-P", str(path))
        assert received(other) == [packet] * 3


def test_a_template_that_is_not_there_is_an_error(generate):
    pytest.importorskip("ptnetmap.pcap")
    with pytest.raises(PtnetmapError, match=r"/nowhere/x\.pcap") as refused:
        generate("-i", "vale0:a", "-f", "tx", "-n", "1", "-P", "/nowhere/x.pcap")
    assert refused.value.errno == errno.ENOENT


def test_a_header_is_given_to_the_port(nm, generate):
    with nm.open("vale0:b") as other:
        generate("-i", "vale0:a", "-f", "tx", "-n", "2", "-H", "12")
        frames = received(other)

    assert [len(frame) for frame in frames] == [60, 60]
    assert frames[0][42:48] == b"netmap"


def test_a_port_that_cannot_have_a_header_is_refused(generate):
    with pytest.raises(PortError, match="leave out -H"):
        generate("-i", "netmap:p{1", "-f", "tx", "-n", "1", "-H", "10")
