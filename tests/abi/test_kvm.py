# SPDX-License-Identifier: BSD-2-Clause
import shutil
import subprocess

import numpy as np
import pytest

from ptnetmap.abi.kvm import cpu, ioctl, machine, run

MODULES = (cpu, machine, run)
STRUCTURES = {
    name: value
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, np.dtype) and name.startswith("kvm_")
}
EXITS = {
    name.removeprefix("run_"): value
    for name, value in vars(run).items()
    if isinstance(value, np.dtype) and name.startswith("run_")
}
CONSTANTS = {
    name: value
    for module in (*MODULES, ioctl)
    for name, value in vars(module).items()
    if name.startswith("KVM_") and isinstance(value, int)
}


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """Compile and run a main() that prints what C expressions are worth, and return the numbers."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    headers = "#include <stddef.h>\n#include <stdio.h>\n#include <linux/kvm.h>\n"
    if subprocess.run(["gcc", "-E", "-"], input=headers.encode(), capture_output=True).returncode:
        pytest.skip("the kernel's user-space headers are not installed")

    def evaluate(expressions):
        folder = tmp_path_factory.mktemp("kvm")
        prints = "\n".join(f'printf("%llu\\n", (unsigned long long)({expression}));' for expression in expressions)
        (folder / "print.c").write_text(f"{headers}int main(void) {{\n{prints}\nreturn 0;\n}}\n")
        subprocess.run(["gcc", "-o", folder / "print", folder / "print.c"], check=True)
        printed = subprocess.run([folder / "print"], check=True, capture_output=True, text=True).stdout
        return dict(zip(expressions, map(int, printed.split()), strict=True))

    return evaluate


@pytest.mark.gcc
def test_the_structures_are_those_of_the_kernels_headers(compiler, layout):
    expected = {}
    for name, dtype in STRUCTURES.items():
        expected[f"sizeof(struct {name})"] = dtype.itemsize
        for field, (offset, size) in layout(dtype).items():
            # The union has a name in the header.
            path = f"u.{field}" if name == "kvm_irq_routing_entry" and field in {"irqchip", "msi"} else field
            expected[f"offsetof(struct {name}, {path})"] = offset
            expected[f"sizeof(((struct {name} *)0)->{path})"] = size
    assert compiler(expected) == expected


@pytest.mark.gcc
def test_the_exits_are_those_of_the_kernels_headers(compiler, layout):
    union = run.kvm_run.fields["io"][1]
    expected = {}
    for name, dtype in EXITS.items():
        expected[f"sizeof(((struct kvm_run *)0)->{name})"] = dtype.itemsize
        for field, (offset, size) in layout(dtype).items():
            expected[f"offsetof(struct kvm_run, {name}.{field})"] = union + offset
            expected[f"sizeof(((struct kvm_run *)0)->{name}.{field})"] = size
    assert compiler(expected) == expected


@pytest.mark.gcc
def test_the_numbers_are_those_of_the_kernels_headers(compiler):
    expected = CONSTANTS | ioctl.REQUESTS | ioctl.CAPABILITIES
    assert len(expected) > 80
    assert compiler(expected) == expected


def test_an_exits_layout_is_the_same_in_the_run_page():
    assert set(EXITS) < set(run.kvm_run.names)
    for name, dtype in EXITS.items():
        assert run.kvm_run.fields[name][0] is dtype or run.kvm_run.fields[name][0] == dtype


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("KVM_CREATE_VM", 0xAE01),
        ("KVM_GET_SUPPORTED_CPUID", 0xC008AE05),
        ("KVM_SET_USER_MEMORY_REGION", 0x4020AE46),
        ("KVM_SET_GSI_ROUTING", 0x4008AE6A),
        ("KVM_IRQFD", 0x4020AE76),
        ("KVM_IOEVENTFD", 0x4040AE79),
        ("KVM_RUN", 0xAE80),
        ("KVM_SET_SREGS", 0x4138AE84),
        ("KVM_GET_LAPIC", 0x8400AE8E),
    ],
)
def test_a_request_has_the_kernels_number(name, number):
    assert ioctl.REQUESTS[name] == number
    assert ioctl.NAMES[number] == name


def test_no_two_requests_share_a_number():
    assert len(ioctl.NAMES) == len(ioctl.REQUESTS)
