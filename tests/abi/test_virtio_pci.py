# SPDX-License-Identifier: BSD-2-Clause
import shutil
import subprocess

import pytest

from ptnetmap.abi import virtio_pci as abi

# Where a field, or half of it, is called otherwise in Linux's headers; None where it is missing there.
C_NAMES = {
    "virtio_pci_cap": {},
    "virtio_pci_notify_cap": {name: f"cap.{name}" for name in abi.virtio_pci_cap.names},
    "virtio_pci_common_cfg": {
        "driver_feature_select": "guest_feature_select",
        "driver_feature": "guest_feature",
        "config_msix_vector": "msix_config",
        "queue_desc": "queue_desc_lo",
        "queue_driver": "queue_avail_lo",
        "queue_device": "queue_used_lo",
        "queue_notify_data": None,
        "queue_reset": None,
    },
    "virtio_net_config": {},
    "virtio_net_ctrl_hdr": {},
    "virtio_blk_config": {
        **{name: f"geometry.{name}" for name in ("cylinders", "heads", "sectors")},
        "writeback": "wce",
        "unused0": "unused",
    },
    "virtio_blk_req": {"reserved": "ioprio"},
    "virtio_blk_discard_write_zeroes": {},
}
C_STRUCTURES = {"virtio_blk_req": "virtio_blk_outhdr"}
C_VALUES = [
    "VIRTIO_ID_NET",
    "VIRTIO_ID_BLOCK",
    "VIRTIO_ID_CONSOLE",
    ("VIRTIO_ID_ENTROPY", "VIRTIO_ID_RNG"),
    ("VIRTIO_STATUS_ACKNOWLEDGE", "VIRTIO_CONFIG_S_ACKNOWLEDGE"),
    ("VIRTIO_STATUS_DRIVER", "VIRTIO_CONFIG_S_DRIVER"),
    ("VIRTIO_STATUS_DRIVER_OK", "VIRTIO_CONFIG_S_DRIVER_OK"),
    ("VIRTIO_STATUS_FEATURES_OK", "VIRTIO_CONFIG_S_FEATURES_OK"),
    ("VIRTIO_STATUS_NEEDS_RESET", "VIRTIO_CONFIG_S_NEEDS_RESET"),
    ("VIRTIO_STATUS_FAILED", "VIRTIO_CONFIG_S_FAILED"),
    ("VIRTIO_F_NOTIFY_ON_EMPTY", "1ull << VIRTIO_F_NOTIFY_ON_EMPTY"),
    ("VIRTIO_F_ANY_LAYOUT", "1ull << VIRTIO_F_ANY_LAYOUT"),
    ("VIRTIO_F_INDIRECT_DESC", "1ull << VIRTIO_RING_F_INDIRECT_DESC"),
    ("VIRTIO_F_EVENT_IDX", "1ull << VIRTIO_RING_F_EVENT_IDX"),
    ("VIRTIO_F_VERSION_1", "1ull << VIRTIO_F_VERSION_1"),
    "VIRTIO_PCI_HOST_FEATURES",
    "VIRTIO_PCI_GUEST_FEATURES",
    "VIRTIO_PCI_QUEUE_PFN",
    "VIRTIO_PCI_QUEUE_NUM",
    "VIRTIO_PCI_QUEUE_SEL",
    "VIRTIO_PCI_QUEUE_NOTIFY",
    "VIRTIO_PCI_STATUS",
    "VIRTIO_PCI_ISR",
    "VIRTIO_MSI_CONFIG_VECTOR",
    "VIRTIO_MSI_QUEUE_VECTOR",
    "VIRTIO_MSI_NO_VECTOR",
    "VIRTIO_PCI_QUEUE_ADDR_SHIFT",
    ("VIRTIO_ISR_CONFIG", "VIRTIO_PCI_ISR_CONFIG"),
    "VIRTIO_PCI_CAP_COMMON_CFG",
    "VIRTIO_PCI_CAP_NOTIFY_CFG",
    "VIRTIO_PCI_CAP_ISR_CFG",
    "VIRTIO_PCI_CAP_DEVICE_CFG",
    "VIRTIO_PCI_CAP_PCI_CFG",
    *(
        (f"VIRTIO_NET_F_{name}", f"1ull << VIRTIO_NET_F_{name}")
        for name in ("MAC", "MRG_RXBUF", "STATUS", "CTRL_VQ", "CTRL_RX", "CTRL_MAC_ADDR", "MQ")
    ),
    "VIRTIO_NET_S_LINK_UP",
    *(f"VIRTIO_NET_{name}" for name in ("OK", "ERR")),
    *(
        f"VIRTIO_NET_CTRL_{name}"
        for name in ("RX", "RX_PROMISC", "RX_ALLMULTI", "MAC", "MAC_TABLE_SET", "MAC_ADDR_SET")
    ),
    *(f"VIRTIO_NET_CTRL_MQ{name}" for name in ("", "_VQ_PAIRS_SET", "_VQ_PAIRS_MIN", "_VQ_PAIRS_MAX")),
    *(
        (f"VIRTIO_BLK_F_{name}", f"1ull << VIRTIO_BLK_F_{name}")
        for name in ("SEG_MAX", "RO", "BLK_SIZE", "FLUSH", "TOPOLOGY", "DISCARD", "WRITE_ZEROES")
    ),
    *(f"VIRTIO_BLK_T_{name}" for name in ("IN", "OUT", "FLUSH", "GET_ID", "DISCARD", "WRITE_ZEROES")),
    *(f"VIRTIO_BLK_S_{name}" for name in ("OK", "IOERR", "UNSUPP")),
    "VIRTIO_BLK_ID_BYTES",
    "VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP",
]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("virtio_pci_cap", 16),
        ("virtio_pci_notify_cap", 20),
        ("virtio_pci_cfg_cap", 20),
        ("virtio_pci_common_cfg", 60),
        ("virtio_net_config", 10),
        ("virtio_net_ctrl_hdr", 2),
        ("virtio_blk_config", 60),
        ("virtio_blk_req", 16),
        ("virtio_blk_discard_write_zeroes", 16),
    ],
)
def test_a_structure_has_the_standards_size(name, size):
    assert getattr(abi, name).itemsize == size


def test_the_devices_configuration_follows_the_vectors_if_there_are_any():
    assert abi.legacy_config(False) == 20
    assert abi.legacy_config(True) == 24


def test_transitional_ids_are_those_of_the_standards_table():
    assert abi.VIRTIO_PCI_TRANSITIONAL == {1: 0x1000, 2: 0x1001, 3: 0x1003, 4: 0x1005}


@pytest.mark.gcc
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_layouts_are_those_of_the_kernels_headers(tmp_path, layout):
    headers = "".join(f"#include <linux/virtio_{name}.h>\n" for name in ("pci", "net", "blk", "config", "ids", "ring"))
    if subprocess.run(["gcc", "-E", "-"], input=headers.encode(), capture_output=True).returncode:
        pytest.skip("the kernel's user-space headers are not installed")
    asserts = [
        f'_Static_assert(offsetof(struct {C_STRUCTURES.get(name, name)}, {there}) == {offset}, "{name}.{field}");'
        for name, renamed in C_NAMES.items()
        for field, (offset, _) in layout(getattr(abi, name)).items()
        if (there := renamed.get(field, field))
    ]
    for entry in C_VALUES:
        ours, theirs = (entry, entry) if isinstance(entry, str) else entry
        asserts.append(f'_Static_assert(({theirs}) == {getattr(abi, ours)}ull, "{ours}");')
    source = tmp_path / "layouts.c"
    source.write_text("#include <stddef.h>\n" + headers + "\n".join(asserts))
    checked = subprocess.run(["gcc", "-fsyntax-only", source], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
