# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.netmap import counters, stats
from ptnetmap.netmap.wire import extension, request
from ptnetmap.netmap.wire.error import WireError
from ptnetmap.netmap.wire.frame import PROTOCOL
from ptnetmap.netmap.wire.request import Request

PORTS = [{"name": f"vale0:{i}", "kind": "vale", "pid": None} for i in range(2000)]


def server(produce):
    """Make the function that asks, of a netmapd that answers with what ``produce`` makes."""
    pages = extension.Pages()

    def ask(reqtype, name, body):
        asked = request.decode(Request(reqtype, name, body).argument)
        page = pages.page(asked.reqtype, asked.name, asked.body, produce)
        return request.decode_answer(asked, request.answer(asked, body=page)).fields

    return ask


def refused(number, action, *arguments):
    with pytest.raises(WireError) as caught:
        action(*arguments)
    assert caught.value.errno == number


def test_layouts_stay_what_they_are_within_a_version_of_the_protocol():
    sizes = {0x8001: 8, 0x8002: 344, 0x8004: 8, 0x8007: 8, 0x800A: 8, 0x800B: 8}
    texts = dict.fromkeys((0x8003, 0x8005, 0x8006, 0x8008, 0x8009), 16)

    assert PROTOCOL == 1
    assert {number: request.BODIES[number].minimum for number in sizes | texts} == sizes | texts
    assert set(texts) <= extension.TEXT_REQUESTS


def test_the_counters_on_the_wire_are_those_that_the_runtime_keeps():
    assert extension.COUNTERS == counters.NAMES
    assert extension.DROPS == counters.DROPS


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counters_summed_on_the_wire_are_the_ports_statistics(data):
    is_pipe = data.draw(st.booleans())
    ring = st.fixed_dictionaries(dict.fromkeys(counters.NAMES, st.integers(0, 1 << 60)))
    tx, rx = (data.draw(st.lists(ring, max_size=3)) for _ in range(2))

    class Ring:
        def __init__(self, values):
            self.values = values

        def counters(self):
            return self.values

    class Adapter:
        def part(self, rings):
            return self

    adapter = Adapter()
    adapter.tx, adapter.rx, adapter.is_pipe = [Ring(r) for r in tx], [Ring(r) for r in rx], is_pipe
    asked = Request(extension.PORT_STATS, "vale0:1")
    body = extension.stats_body(tx, rx, is_pipe=is_pipe)
    received = request.decode_answer(asked, request.answer(asked, body=body)).body

    assert stats.PortStats(**extension.stats_fields(received)) == stats.port_stats(adapter, ())


def test_a_text_longer_than_a_frame_comes_whole_page_by_page():
    made = []

    def produce():
        made.append(1)
        return PORTS

    assert extension.introspect(server(produce), extension.PORT_LIST) == PORTS
    assert made == [1]


@pytest.mark.parametrize("value", [[], {}, None, {"02:00:00:00:00:01": 3}, "ü"])
def test_any_json_value_survives(value):
    assert extension.introspect(server(lambda: value), extension.LEARNED, "vale0") == value


def test_pages_of_another_text_or_beyond_the_end_are_stale():
    pages = extension.Pages()
    pages.page(extension.AUDIT, "", {"offset": 0, "room": 4}, lambda: "0123456789")

    refused(errno.ESTALE, pages.page, extension.LEARNED, "", {"offset": 4, "room": 4}, list)
    refused(errno.ESTALE, pages.page, extension.AUDIT, "x", {"offset": 4, "room": 4}, list)
    refused(errno.ESTALE, pages.page, extension.AUDIT, "", {"offset": 13, "room": 4}, list)
    assert pages.page(extension.AUDIT, "", {"offset": 4, "room": 100}, list) == {"total": 12, "text": b'3456789"'}
    refused(errno.ESTALE, pages.page, extension.AUDIT, "", {"offset": 4, "room": 4}, list)


def test_a_text_needs_room():
    refused(errno.EINVAL, extension.Pages().page, extension.AUDIT, "", {"offset": 0, "room": 0}, list)


def test_an_answer_that_stops_early_or_is_not_json_is_refused():
    refused(errno.EPROTO, extension.introspect, lambda *_: {"total": 5, "text": b""}, extension.AUDIT)
    refused(errno.EPROTO, extension.introspect, lambda *_: {"total": 1, "text": b"{"}, extension.AUDIT)
    refused(errno.EPROTO, extension.introspect, lambda *_: {"total": 1, "text": b"\xff"}, extension.AUDIT)


def test_text_beyond_its_room_is_refused_both_ways():
    argument = bytearray(Request(extension.AUDIT, "", {"room": 8}).argument)
    argument[88 + 8] = 9

    refused(errno.EINVAL, request.decode, bytes(argument))
    refused(errno.EINVAL, lambda: Request(extension.AUDIT, "", {"room": 2, "text": b"123"}))


def test_room_for_more_than_a_frame_is_too_long():
    argument = bytearray(Request(extension.AUDIT, "", {"room": 8}).argument)
    argument[88 + 12 : 88 + 16] = b"\xff" * 4

    refused(errno.EMSGSIZE, request.decode, bytes(argument))
