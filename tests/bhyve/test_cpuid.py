# SPDX-License-Identifier: BSD-2-Clause
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.abi.kvm.cpu import kvm_cpuid_entry2
from ptnetmap.bhyve.cpuid import address_bits, processor
from ptnetmap.bhyve.settings import Topology

INTEL = [0x0, 0x1, 0x4, 0xB, 0x1F, 0x80000008]
AMD = [*INTEL, 0x8000001E]


def supported(leaves, **fields):
    table = np.zeros(len(leaves), kvm_cpuid_entry2)
    table["function"] = leaves
    for name, value in fields.items():
        table[name] = value
    return table


def leaf(table, function, index=0):
    found = table[(table["function"] == function) & (table["index"] == index)]
    assert len(found) == 1
    return {name: int(found[name][0]) for name in ("eax", "ebx", "ecx", "edx")}


def test_each_processor_has_its_own_apic_id_wherever_one_is_told():
    for index in range(4):
        table = processor(supported(AMD, eax=40), index, Topology(4, 2, 2, 1), tsc_deadline=True)

        assert leaf(table, 1)["ebx"] >> 24 == index
        assert [leaf(table, 0xB, level)["edx"] for level in range(3)] == [index] * 3
        assert leaf(table, 0x8000001E)["eax"] == index


@pytest.mark.parametrize("deadline", [True, False])
def test_the_timer_is_announced_where_the_local_apic_has_it(deadline):
    ecx = leaf(processor(supported(INTEL), 0, Topology(1, 1, 1, 1), tsc_deadline=deadline), 1)["ecx"]

    assert bool(ecx & 1 << 24) == deadline
    assert ecx & 1 << 31  # a hypervisor


def test_what_is_not_about_topology_stays_as_kvm_offers_it():
    offered = supported([0, 7, 0xD, 0x40000000, 0x80000001], eax=1, ebx=2, ecx=3, edx=4)

    table = processor(offered, 1, Topology(2, 1, 2, 1), tsc_deadline=True)

    assert np.array_equal(table[: len(offered)], offered)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.data())
def test_apic_ids_of_one_core_differ_only_below_the_thread_shift(sockets, cores, threads, data):
    topology = Topology(sockets * cores * threads, sockets, cores, threads)
    index = data.draw(st.integers(0, topology.cpus - 1))

    table = processor(supported(INTEL), index, topology, tsc_deadline=False)

    thread, core = leaf(table, 0xB, 0), leaf(table, 0xB, 1)
    assert (thread["ecx"] >> 8 & 0xFF, core["ecx"] >> 8 & 0xFF) == (1, 2)
    assert (1 << thread["eax"]) >= threads > (1 << thread["eax"]) >> 1
    assert (1 << core["eax"]) >= cores * threads
    assert (thread["ebx"], core["ebx"]) == (threads, cores * threads)


def test_physical_addresses_have_the_bits_that_the_host_says():
    assert address_bits(supported([0x80000008], eax=0x3027)) == 39
    assert address_bits(supported([0])) == 36
