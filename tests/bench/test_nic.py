# SPDX-License-Identifier: BSD-2-Clause
import errno
import shutil
from contextlib import closing

import pytest

from ptnetmap.bench import nic, testpmd
from ptnetmap.bench.nic import BATCH, SIZES, Bench, nic_cases, received_packets
from ptnetmap.errors import PtnetmapError
from ptnetmap.netmap.nic.interface import find_interface

TABLE = """\
Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop
    lo:       1       2    0    0
    vb:   60000    1000    0    0
"""


@pytest.fixture(scope="module")
def bench():
    if reason := nic.unavailable():
        pytest.skip(reason)
    with closing(Bench()) as made:
        yield made


def test_the_kernels_counter_is_that_of_the_interface():
    assert received_packets(TABLE, "vb") == 1000


def test_an_interface_that_has_gone_is_told():
    with pytest.raises(PtnetmapError, match="va has gone") as told:
        received_packets(TABLE, "va")
    assert told.value.errno == errno.ENODEV


def test_without_root_there_are_no_cases(monkeypatch):
    monkeypatch.setattr(nic.os, "geteuid", lambda: 1000)

    assert nic_cases() == nic.nic_probes() == []
    assert "root" in nic.unavailable()


def test_cases_are_compared_with_what_is_installed(monkeypatch):
    monkeypatch.setattr(nic, "unavailable", lambda: None)
    monkeypatch.setattr(nic, "no_guest", lambda: None)
    monkeypatch.setattr(nic.testpmd, "available", lambda: None)
    cases = {case.key: case for case in nic_cases()}
    assert {case.against for case in cases.values() if case.name.startswith("nic/guest_")} == {
        "nic/transmit",
        "nic/receive",
    }
    assert all((case.against, case.size, case.batch) in cases for case in cases.values() if case.against)

    monkeypatch.setattr(nic, "no_guest", lambda: "no /dev/kvm")
    monkeypatch.setattr(nic.testpmd, "available", lambda: "not installed")
    assert {(case.name, case.against) for case in nic_cases()} == {("nic/transmit", None), ("nic/receive", None)}


@pytest.mark.root
@pytest.mark.parametrize("size", SIZES)
def test_all_that_the_port_sends_reaches_the_kernels_end(bench, size):
    result = bench.transmit(size, 0.02, BATCH, None)

    assert result.received >= result.offered > 0


@pytest.mark.root
@pytest.mark.parametrize("size", SIZES)
def test_the_port_receives_what_the_kernels_end_sends(bench, size):
    result = bench.receive(size, 0.02, BATCH, None)

    assert 0 < result.received <= result.offered
    assert result.bytes == result.received * size


@pytest.mark.root
def test_our_share_is_a_share(bench, monkeypatch):
    monkeypatch.setattr(nic, "_SHARE_SECONDS", 0.05)
    monkeypatch.setattr(nic, "_SHARE_TURNS", 5)

    for share in (bench.share_sending, bench.share_receiving):
        assert 0 <= share(60) <= 100


@pytest.mark.root
def test_the_namespace_goes_with_the_bench(bench):
    assert find_interface(nic.THEIRS) is None
    with closing(Bench()) as another:
        assert another.veth.namespace.run(lambda: find_interface(nic.OURS)) is not None


@pytest.mark.dpdk
@pytest.mark.root
@pytest.mark.skipif(shutil.which(testpmd.PROGRAM) is None, reason="dpdk-testpmd is not installed")
@pytest.mark.parametrize("way", ["transmit", "receive"])
def test_testpmd_has_the_same_interface_and_leaves_it(bench, way):
    assert bench.dpdk(way, 60, 0.05, BATCH, None).received > 0

    assert bench.transmit(60, 0.02, BATCH, None).received > 0
