# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire.error import WireError
from ptnetmap.netmap.wire.option import FilePlace, csb_places, eventfd_indices, file_place, kloop_mode

DIRECT_TX, DIRECT_RX = abi.NM_OPT_SYNC_KLOOP_DIRECT_TX, abi.NM_OPT_SYNC_KLOOP_DIRECT_RX


def refused(number, action, *arguments):
    with pytest.raises(WireError) as caught:
        action(*arguments)
    assert caught.value.errno == number


def eventfds(*pairs):
    entries = [{"ioeventfd": a, "irqfd": b} for a, b in pairs]
    return {"nro_size": abi.eventfds_option_size(len(pairs)), "eventfds": entries}


@pytest.mark.parametrize("place", [FilePlace(0, 0), FilePlace(2, 4096), FilePlace(0xFFFF, (1 << 48) - 1)])
def test_a_pointer_is_a_file_and_an_offset(place):
    assert file_place(int(place), place.fd + 1) == place


@pytest.mark.parametrize("place", [FilePlace(-1, 0), FilePlace(0x10000, 0), FilePlace(0, 1 << 48), FilePlace(0, -1)])
def test_a_place_beyond_the_pointers_bits_is_refused(place):
    refused(errno.EINVAL, int, place)


def test_a_file_that_was_not_sent_is_a_bad_address():
    refused(errno.EFAULT, file_place, int(FilePlace(1, 0)), 1)
    refused(errno.EFAULT, file_place, 0, 0)


def test_the_csb_of_an_exclusive_port_is_found_in_the_files_sent():
    option = {"csb_atok": int(FilePlace(0, 64)), "csb_ktoa": int(FilePlace(1, 4096))}

    assert csb_places(option, abi.NR_EXCLUSIVE, 2) == (FilePlace(0, 64), FilePlace(1, 4096))
    refused(errno.EINVAL, csb_places, option, 0, 2)
    refused(errno.EFAULT, csb_places, option, abi.NR_EXCLUSIVE, 1)


@pytest.mark.parametrize("field", ["csb_atok", "csb_ktoa"])
def test_a_csb_that_is_not_aligned_to_64_bytes_is_refused(field):
    option = {"csb_atok": 64, "csb_ktoa": 128, field: 32}

    refused(errno.EINVAL, csb_places, option, abi.NR_EXCLUSIVE, 1)


def test_eventfds_are_indices_of_what_was_sent_and_none_is_minus_one():
    assert eventfd_indices(eventfds((0, 1), (2, -5)), 2, 3) == [(0, 1), (2, -1)]
    assert eventfd_indices(eventfds(), 0, 0) == []
    refused(errno.EBADF, eventfd_indices, eventfds((0, 3)), 1, 3)


@pytest.mark.parametrize("rings", [0, 1, 3])
def test_eventfds_for_another_number_of_rings_are_refused(rings):
    refused(errno.EINVAL, eventfd_indices, eventfds((0, 0), (0, 0)), rings, 1)


def test_an_eventfds_size_of_no_whole_number_of_entries_is_refused_by_its_consumer():
    refused(errno.EINVAL, eventfd_indices, {**eventfds((0, 0)), "nro_size": 33}, 1, 1)


@pytest.mark.parametrize("mode", [0, DIRECT_TX, DIRECT_RX, DIRECT_TX | DIRECT_RX])
def test_direct_modes_need_an_ioeventfd_per_ring(mode):
    assert kloop_mode({"mode": mode}, [(0, -1), (1, -1)]) == mode
    if mode:
        refused(errno.EINVAL, kloop_mode, {"mode": mode}, [(0, 0), (-1, 0)])
        refused(errno.EINVAL, kloop_mode, {"mode": mode}, [])


def test_unknown_bits_of_the_loops_mode_are_refused():
    refused(errno.EINVAL, kloop_mode, {"mode": 4}, [(0, 0)])
