# SPDX-License-Identifier: BSD-2-Clause
"""What upstream's ptnet drivers do in each phase of their lives, as transcripts, run against our devices and a netmapd.

The drivers are FreeBSD's if_ptnet and Linux's; facts of both are in netmap-abi 5b. :mod:`.upstream` has
the transcripts, :mod:`.transcript` explains their lines.
"""

import tempfile
from pathlib import Path

import pytest

from .conftest import Netmapd
from .transcript import Guest
from .upstream import (
    AFTER_DOWN,
    AFTER_RESET,
    AT_FIRST,
    CLEARED_CSB,
    CSB_TAKEN_AWAY,
    DETACH,
    DOWN,
    FILL_THE_RING,
    FORGED_HOST_INDICES,
    HEADER_WHILE_UP,
    LOAD,
    SEND,
    TOO_EARLY,
    TRAFFIC,
    UP,
    UP_TWICE,
    WRONG_INDICES,
    WRONG_PLACES,
    WRONG_WORDS,
)

GH, HG = 0x10000, 0x11000


@pytest.fixture(scope="module")
def compiled_netmapd():
    with tempfile.TemporaryDirectory(prefix="passthrough-") as directory:
        daemon = Netmapd(Path(directory) / "s", interpreted=False)
        yield daemon
        daemon.end()


@pytest.fixture(params=["interpreted", pytest.param("compiled", marks=pytest.mark.slow)])
def netmapd(request, _living, monkeypatch):
    """The netmapd that devices and programs find: one that is interpreted, and one that is compiled."""
    daemon = _living() if request.param == "interpreted" else request.getfixturevalue("compiled_netmapd")
    monkeypatch.setenv("NETMAP_SOCKET", str(daemon.path))
    return daemon


@pytest.fixture
def guest_on(machine, netmapd, peer, frame, patiently):
    """Make a guest with a ptnet on vale1:1, and a program on vale1:2; options of the port, and names of values."""

    def make(options="", **names):
        one = machine({"3": "ptnetmap-memdev", "4": f"ptnet,ptvale1:1{options},mac=02:0a:0b:0c:0d:0e"})
        netmap = one.device("4").port.netmap
        interfaces, rings, buffers = netmap.pools
        known = {
            "gh": GH,
            "hg": HG,
            "features": 1,
            "header": 0,
            "rings": netmap.tx_rings,
            "vectors": netmap.tx_rings + netmap.rx_rings,
            "mem_id": netmap.mem_id,
            "memsize": netmap.memsize,
        }
        for name, pool in (("if", interfaces), ("ring", rings), ("buf", buffers)):
            known |= {f"{name}_offset": pool.offset, f"{name}_objects": pool.objects, f"{name}_size": pool.size}
        frames = {"guest": frame(1, 1), "host": frame(2, 2)}
        return Guest(one, netmapd, patiently, peer("vale1:2", lossless=True), frames, **known | names)

    return make


@pytest.fixture
def guest(guest_on):
    return guest_on()


# --- a driver's life


def test_a_driver_comes_up_on_what_it_reads(guest):
    guest.run(*LOAD, UP, AT_FIRST)


def test_a_drivers_packets_kicks_and_interrupts_are_upstreams(guest):
    guest.run(*LOAD, UP, *TRAFFIC)


@pytest.mark.parametrize("rings", [2, 16])
def test_each_ring_has_its_entry_its_kick_and_its_vector(guest_on, rings):
    guest = guest_on(f"@conf:rings={rings}")
    guest.run(*LOAD, UP, AT_FIRST, SEND, FILL_THE_RING)
    for ring in range(rings):
        guest.run(f"see tx{ring} head -> t", SEND.replace("tx0", f"tx{ring}"))


def test_down_and_up_again_goes_on_where_it_stopped(guest):
    guest.run(*LOAD)
    for _ in range(3):
        guest.run(UP, *TRAFFIC, DOWN)


def test_a_module_that_is_loaded_again_works_with_other_memory(guest):
    for page in (GH, 0x200000, (16 << 20) - 0x2000, GH):
        guest.names |= {"gh": page, "hg": page + 0x1000}
        guest.run(*LOAD, UP, *TRAFFIC, DOWN, DETACH)


def test_a_module_that_is_loaded_again_works_with_its_arrays_exchanged(guest):
    guest.run(*LOAD, UP, SEND, DOWN, DETACH)
    guest.names |= {"gh": HG, "hg": GH}
    guest.run(*LOAD, UP, *TRAFFIC)


def test_after_a_reset_the_device_is_as_it_was_at_power_on(guest):
    for _ in range(2):
        guest.run(*LOAD, UP, *TRAFFIC)
        guest.machine.bus.reset()
        guest.run(AFTER_RESET)


# --- a driver that does not behave


@pytest.mark.parametrize("deviation", [TOO_EARLY, WRONG_PLACES, WRONG_WORDS], ids=["early", "places", "words"])
def test_what_is_wrong_before_up_is_refused_and_a_right_driver_works_then(guest, deviation):
    guest.run(deviation, *LOAD, UP, AT_FIRST, *TRAFFIC)


@pytest.mark.parametrize(
    "deviation",
    [UP_TWICE, FORGED_HOST_INDICES, WRONG_INDICES, CLEARED_CSB, CSB_TAKEN_AWAY, HEADER_WHILE_UP, WRONG_WORDS],
    ids=["twice", "forged", "indices", "cleared", "taken", "header", "words"],
)
def test_what_is_wrong_while_up_harms_the_driver_alone_and_a_right_one_works_then(guest, deviation):
    guest.run(*LOAD, UP, deviation, DOWN, DETACH)
    guest.machine.bus.reset()
    guest.run(AFTER_RESET, *LOAD, UP, *TRAFFIC)


def test_after_down_the_host_looks_at_nothing(guest):
    guest.run(*LOAD, UP, SEND, "see tx0 head -> t", DOWN, AFTER_DOWN, DETACH, *LOAD, UP, *TRAFFIC)


def test_with_virtio_net_headers_the_same_happens(guest_on):
    guest_on(header=12).run(*LOAD, UP, *TRAFFIC, DOWN, UP, *TRAFFIC)


def test_a_reset_in_the_middle_of_traffic_is_a_driver_that_went_away(guest):
    guest.run(*LOAD, UP, SEND, "host sends host", "set tx0 head t+1", "kick tx0")
    guest.machine.bus.reset()
    guest.run(AFTER_RESET, *LOAD, UP, "await rx0 hwtail = r+1")
