# SPDX-License-Identifier: BSD-2-Clause
import re
import shutil
import subprocess

import numpy as np
import pytest

from ptnetmap.abi import bpf, ethtool, rtnetlink, xdp

HEADERS = """
#include <stddef.h>
#include <stdio.h>
#include <net/if_arp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <linux/bpf.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
"""
NEWER = {  # than Debian 12's headers: checked by what the kernel does with them, and here where they are known
    "XDP_USE_SG",
    "XDP_PKT_CONTD",
    "XDP_MAX_TX_SKB_BUDGET",
    "BPF_TCX_INGRESS",
    "BPF_TCX_EGRESS",
}
OURS = {"MAX_COPY_FRAGMENTS"}
ELSEWHERE = {
    "SYS_BPF": "SYS_bpf",
    "BPF_LDX_MEM_W": "BPF_LDX | BPF_MEM | BPF_W",
    "BPF_LD_IMM64": "BPF_LD | BPF_IMM | BPF_DW",
    "BPF_MOV64_IMM": "BPF_ALU64 | BPF_MOV | BPF_K",
    "BPF_CALL": "BPF_JMP | BPF_CALL",
    "BPF_EXIT": "BPF_JMP | BPF_EXIT",
    "NLA_TYPE_MASK": "NLA_TYPE_MASK & 0xffff",
}
CONSTANTS = {
    ELSEWHERE.get(name, name): value
    for module in (bpf, ethtool, rtnetlink, xdp)
    for name, value in vars(module).items()
    if re.fullmatch(r"[A-Z][A-Za-z_0-9]+", name) and isinstance(value, int) and name not in NEWER | OURS
}
ANONYMOUS = {  # members of union bpf_attr, which have no name of their own
    "map_create": {},
    "map_elem": {},
    "prog_load": {},
    "link_create": {"prog_fd": "link_create.prog_fd", "target_ifindex": "link_create.target_ifindex"}
    | {"attach_type": "link_create.attach_type", "flags": "link_create.flags"},
    "get_id": {"id": "link_id"},
    "obj_get_info": {name: f"info.{name}" for name in ("bpf_fd", "info_len", "info")},
}
NAMED = {
    "sockaddr_xdp": xdp.sockaddr_xdp,
    "xdp_ring_offset": xdp.xdp_ring_offset,
    "xdp_mmap_offsets": xdp.xdp_mmap_offsets,
    "xdp_statistics": xdp.xdp_statistics,
    "xdp_desc": xdp.xdp_desc,
    "xdp_md": xdp.xdp_md,
    "nlmsghdr": rtnetlink.nlmsghdr,
    "ifinfomsg": rtnetlink.ifinfomsg,
    "rtattr": rtnetlink.rtattr,
    "ethtool_value": ethtool.ethtool_value,
    "ethtool_channels": ethtool.ethtool_channels,
    "ethtool_drvinfo": ethtool.ethtool_drvinfo,
    "bpf_insn": bpf.bpf_insn,
}
PREFIXED = {"nlmsghdr": "nlmsg_", "ifinfomsg": "ifi_", "rtattr": "rta_"}


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """Compile and run a main() that prints what C expressions are worth, and return the numbers."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    if subprocess.run(["gcc", "-E", "-"], input=HEADERS.encode(), capture_output=True).returncode:
        pytest.skip("the kernel's user-space headers are not installed")

    def evaluate(expressions):
        folder = tmp_path_factory.mktemp("nic")
        prints = "\n".join(f'printf("%lld\\n", (long long)({expression}));' for expression in expressions)
        (folder / "print.c").write_text(f"{HEADERS}int main(void) {{\n{prints}\nreturn 0;\n}}\n")
        subprocess.run(["gcc", "-o", folder / "print", folder / "print.c"], check=True)
        printed = subprocess.run([folder / "print"], check=True, capture_output=True, text=True).stdout
        return dict(zip(expressions, map(int, printed.split()), strict=True))

    return evaluate


@pytest.mark.gcc
def test_the_numbers_are_those_of_the_kernels_headers(compiler):
    assert len(CONSTANTS) > 70
    assert compiler(CONSTANTS) == CONSTANTS


@pytest.mark.gcc
def test_the_structures_are_those_of_the_kernels_headers(compiler, layout):
    expected = {}
    for struct, dtype in NAMED.items():
        expected[f"sizeof(struct {struct})"] = dtype.itemsize
        for field, (offset, size) in layout(dtype).items():
            if field.startswith("_") or (struct, field) == ("bpf_insn", "regs"):  # padding; two bit fields
                continue
            path = PREFIXED.get(struct, "") + field
            expected[f"offsetof(struct {struct}, {path})"] = offset
            expected[f"sizeof(((struct {struct} *)0)->{path})"] = size
    for field, (offset, size) in layout(xdp.xdp_umem_reg).items():
        if field != "tail":  # of newer headers; padding before
            expected[f"offsetof(struct xdp_umem_reg, {field})"] = offset
            expected[f"sizeof(((struct xdp_umem_reg *)0)->{field})"] = size
    expected["sizeof(struct xdp_umem_reg)"] = xdp.xdp_umem_reg.itemsize
    assert compiler(expected) == expected


@pytest.mark.gcc
def test_the_attributes_are_those_of_the_kernels_headers(compiler, layout):
    expected = {}
    for struct, paths in ANONYMOUS.items():
        dtype: np.dtype = getattr(bpf, struct)
        for field, (offset, size) in layout(dtype).items():
            if not field.startswith("_"):
                path = paths.get(field, field)
                expected[f"offsetof(union bpf_attr, {path})"] = offset
                expected[f"sizeof(((union bpf_attr *)0)->{path})"] = size
    for field, path in {"type": "type", "id": "id", "prog_id": "prog_id", "ifindex": "xdp.ifindex"}.items():
        expected[f"offsetof(struct bpf_link_info, {path})"] = layout(bpf.link_info)[field][0]
    for field, path in {"ifr_name": "ifr_name", "ifr_data": "ifr_data"}.items():
        expected[f"offsetof(struct ifreq, {path})"] = layout(ethtool.ifreq)[field][0]
    expected["sizeof(struct ifreq)"] = ethtool.ifreq.itemsize
    assert compiler(expected) == expected


@pytest.mark.parametrize(("name", "value"), [("XDP_USE_SG", 16), ("XDP_PKT_CONTD", 1), ("XDP_MAX_TX_SKB_BUDGET", 9)])
def test_a_newer_constant_has_the_kernels_value(name, value):
    assert getattr(xdp, name) == value
