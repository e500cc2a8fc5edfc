# SPDX-License-Identifier: BSD-2-Clause
import errno
import os

import numpy as np
import pytest

from ptnetmap.abi.kvm import cpu, ioctl
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm import kvm as module
from ptnetmap.vmm.kvm import Kvm
from ptnetmap.vmm.memory import GuestMemory
from ptnetmap.vmm.vm import Vm


@pytest.mark.usefixtures("nothing_left")
class TestOpening:
    def test_a_host_without_kvm_is_told_what_to_load(self, tmp_path):
        with pytest.raises(HypervisorError, match="modprobe") as raised:
            Kvm(str(tmp_path / "kvm"))
        assert raised.value.errno == errno.ENOENT

    @pytest.mark.parametrize(
        ("number", "advice"),
        [(errno.EACCES, "usermod -aG kvm"), (errno.EPERM, "container"), (errno.ENODEV, "modprobe")],
    )
    def test_a_user_who_may_not_open_it_is_told_why(self, monkeypatch, number, advice):
        def refuse(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(module.os, "open", refuse)
        with pytest.raises(HypervisorError, match=advice) as raised:
            Kvm()
        assert raised.value.errno == number

    def test_a_device_that_is_not_kvm_is_refused(self):
        with pytest.raises(HypervisorError, match="KVM_GET_API_VERSION failed for /dev/null") as raised:
            Kvm("/dev/null")
        assert raised.value.errno == errno.ENOTTY

    def test_another_version_is_refused(self, fake_kvm):
        fake_kvm.version = 11
        with pytest.raises(HypervisorError, match="version 11 of the interface, 12 is needed"):
            Kvm("/dev/null", ioctl=fake_kvm)

    @pytest.mark.parametrize("name", module.REQUIRED)
    def test_what_a_machine_cannot_do_without_is_named(self, fake_kvm, name):
        fake_kvm.capabilities[ioctl.CAPABILITIES[name]] = 0
        with pytest.raises(HypervisorError, match=f"/dev/null lacks {name}\n"):
            Kvm("/dev/null", ioctl=fake_kvm)


def test_supported_cpuid_is_the_callers_to_change(fake_kvm):
    with Kvm("/dev/null", ioctl=fake_kvm) as kvm:
        leaves = kvm.supported_cpuid()
        leaves["eax"] = 0
        again = kvm.supported_cpuid()
    assert leaves.dtype == cpu.kvm_cpuid_entry2
    assert again["function"].tolist() == [0, 0x80000008]
    assert again["eax"].tolist() == [0xD, 40]


def test_a_refused_request_names_itself_its_object_and_a_remedy(fake_kvm, memory):
    fake_kvm.refuse["KVM_CREATE_VM"] = errno.EMFILE
    with Kvm("/dev/null", ioctl=fake_kvm) as kvm, pytest.raises(HypervisorError) as raised:
        Vm("one", memory, kvm=kvm)
    assert str(raised.value) == (
        "kvm: KVM_CREATE_VM failed for /dev/null: Too many open files (EMFILE)\n"
        "        raise the limit of open files (ulimit -n)"
    )


def test_creating_a_machine_goes_on_after_a_signal(fake_kvm, memory, monkeypatch):
    create, interrupted = fake_kvm.create_vm, [1, 2]

    def once(fd, argument):
        if interrupted:
            interrupted.pop()
            raise InterruptedError(errno.EINTR, "signal")
        return create(fd, argument)

    monkeypatch.setattr(fake_kvm, "create_vm", once)
    with Kvm("/dev/null", ioctl=fake_kvm) as kvm, Vm("one", memory, kvm=kvm):
        assert not interrupted


def test_a_closed_descriptor_is_never_used_again(fake_kvm):
    kvm = Kvm("/dev/null", ioctl=fake_kvm)
    kvm.close()
    kvm.close()
    with pytest.raises(HypervisorError) as raised:
        kvm.check_extension("KVM_CAP_IRQCHIP")
    assert raised.value.errno == errno.EBADF


def test_structures_with_a_tail_are_contiguous_and_writable():
    tail = np.array([(1, 0, 2), (3, 0, 4)], cpu.kvm_msr_entry)
    table = module.with_tail(cpu.kvm_msrs, tail, nmsrs=2)
    assert table.tobytes() == (2).to_bytes(8, "little") + tail.tobytes()
    assert table.flags.writeable


def test_a_machine_is_built_in_the_order_that_kvm_needs(fake_kvm):
    with GuestMemory(1 << 20) as memory, Kvm("/dev/null", ioctl=fake_kvm) as kvm, Vm("one", memory, kvm=kvm) as vm:
        vm.create_vcpu(0)
    names = [name for name, _ in fake_kvm.calls]
    order = ["KVM_CREATE_VM", "KVM_CREATE_IRQCHIP", "KVM_CREATE_PIT2", "KVM_SET_GSI_ROUTING", "KVM_CREATE_VCPU"]
    assert [name for name in names if name in order] == order


@pytest.mark.parametrize("name", ["KVM_SET_TSS_ADDR", "KVM_SET_IDENTITY_MAP_ADDR"])
def test_back_ends_without_intels_private_pages_are_no_problem(fake_kvm, memory, name):
    fake_kvm.refuse[name] = errno.ENOTTY
    with Kvm("/dev/null", ioctl=fake_kvm) as kvm, Vm("one", memory, kvm=kvm):
        assert fake_kvm.slots


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "name", ["KVM_CREATE_IRQCHIP", "KVM_CREATE_PIT2", "KVM_SET_USER_MEMORY_REGION", "KVM_SET_GSI_ROUTING"]
)
def test_a_machine_that_cannot_be_built_leaves_nothing(fake_kvm, name):
    fake_kvm.refuse[name] = errno.ENOMEM
    with (
        GuestMemory(1 << 20) as memory,
        Kvm("/dev/null", ioctl=fake_kvm) as kvm,
        pytest.raises(HypervisorError, match=f"{name} failed for virtual machine 'one'"),
    ):
        Vm("one", memory, kvm=kvm)
