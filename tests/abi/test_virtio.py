# SPDX-License-Identifier: BSD-2-Clause
import shutil
import subprocess

import pytest

from ptnetmap.abi import virtio

NET_HDR = {
    "flags": (0, 1),
    "gso_type": (1, 1),
    "hdr_len": (2, 2),
    "gso_size": (4, 2),
    "csum_start": (6, 2),
    "csum_offset": (8, 2),
}


@pytest.mark.parametrize(
    ("name", "size", "fields"),
    [
        ("virtio_net_hdr", 10, NET_HDR),
        ("virtio_net_hdr_mrg_rxbuf", 12, {**NET_HDR, "num_buffers": (10, 2)}),
        ("virtq_desc", 16, {"addr": (0, 8), "len": (8, 4), "flags": (12, 2), "next": (14, 2)}),
        ("virtq_avail", 4, {"flags": (0, 2), "idx": (2, 2)}),
        ("virtq_used", 4, {"flags": (0, 2), "idx": (2, 2)}),
        ("virtq_used_elem", 8, {"id": (0, 4), "len": (4, 4)}),
    ],
)
def test_a_structure_has_the_standards_layout(layout, name, size, fields):
    dtype = getattr(virtio, name)
    assert dtype.itemsize == size
    assert layout(dtype) == fields


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VIRTIO_NET_HDR_F_NEEDS_CSUM", 1),
        ("VIRTIO_NET_HDR_F_DATA_VALID", 2),
        ("VIRTIO_NET_HDR_F_RSC_INFO", 4),
        ("VIRTIO_NET_HDR_GSO_NONE", 0),
        ("VIRTIO_NET_HDR_GSO_TCPV4", 1),
        ("VIRTIO_NET_HDR_GSO_UDP", 3),
        ("VIRTIO_NET_HDR_GSO_TCPV6", 4),
        ("VIRTIO_NET_HDR_GSO_UDP_L4", 5),
        ("VIRTIO_NET_HDR_GSO_ECN", 0x80),
        ("VIRTQ_DESC_F_NEXT", 1),
        ("VIRTQ_DESC_F_WRITE", 2),
        ("VIRTQ_DESC_F_INDIRECT", 4),
        ("VIRTQ_AVAIL_F_NO_INTERRUPT", 1),
        ("VIRTQ_USED_F_NO_NOTIFY", 1),
        ("VIRTQ_DESC_ALIGN", 16),
        ("VIRTQ_AVAIL_ALIGN", 2),
        ("VIRTQ_USED_ALIGN", 4),
        ("VIRTQ_LEGACY_ALIGN", 4096),
    ],
)
def test_a_constant_has_the_standards_value(name, value):
    assert getattr(virtio, name) == value


@pytest.mark.parametrize("num", [1, 256, 1024, 32768])
def test_the_rings_have_the_sizes_of_the_standards_table(num):
    assert virtio.virtq_avail_size(num) == 6 + 2 * num
    assert virtio.virtq_used_size(num) == 6 + 8 * num
    assert virtio.virtq_avail_elem.itemsize == 2


@pytest.mark.gcc
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_layouts_are_those_of_the_kernels_headers(tmp_path, layout):
    headers = "#include <linux/virtio_net.h>\n#include <linux/virtio_ring.h>\n"
    if subprocess.run(["gcc", "-E", "-"], input=headers.encode(), capture_output=True).returncode:
        pytest.skip("the kernel's user-space headers are not installed")
    structures = {
        "virtio_net_hdr": ("virtio_net_hdr", virtio.virtio_net_hdr),
        "virtq_desc": ("vring_desc", virtio.virtq_desc),
        "virtq_avail": ("vring_avail", virtio.virtq_avail),
        "virtq_used": ("vring_used", virtio.virtq_used),
        "virtq_used_elem": ("vring_used_elem", virtio.virtq_used_elem),
    }
    asserts = [
        f"_Static_assert(offsetof(struct {struct}, {field}) == {offset}"
        f' && sizeof(((struct {struct} *)0)->{field}) == {size}, "{struct}.{field}");'
        for struct, dtype in structures.values()
        for field, (offset, size) in layout(dtype).items()
    ]
    asserts.append(
        "_Static_assert(sizeof(struct virtio_net_hdr_mrg_rxbuf) == "
        f'{virtio.virtio_net_hdr_mrg_rxbuf.itemsize}, "virtio_net_hdr_mrg_rxbuf");'
    )
    source = tmp_path / "layouts.c"
    source.write_text("#include <stddef.h>\n" + headers + "\n".join(asserts))
    checked = subprocess.run(["gcc", "-fsyntax-only", source], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
