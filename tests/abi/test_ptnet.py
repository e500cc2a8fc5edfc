# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.abi import netmap, ptnet

TODAY = {
    "PTNETMAP_MEMDEV_NAME": "ptnetmap-memdev",
    "PTNETMAP_PCI_VENDOR_ID": 0x1B36,
    "PTNETMAP_PCI_DEVICE_ID": 0x000C,
    "PTNETMAP_PCI_NETIF_ID": 0x000D,
    "PTNETMAP_IO_PCI_BAR": 0,
    "PTNETMAP_MEM_PCI_BAR": 1,
    "PTNETMAP_MSIX_PCI_BAR": 2,
    "PTNET_MDEV_IO_MEMSIZE_LO": 0,
    "PTNET_MDEV_IO_MEMSIZE_HI": 4,
    "PTNET_MDEV_IO_MEMID": 8,
    "PTNET_MDEV_IO_IF_POOL_OFS": 64,
    "PTNET_MDEV_IO_IF_POOL_OBJNUM": 68,
    "PTNET_MDEV_IO_IF_POOL_OBJSZ": 72,
    "PTNET_MDEV_IO_RING_POOL_OFS": 76,
    "PTNET_MDEV_IO_RING_POOL_OBJNUM": 80,
    "PTNET_MDEV_IO_RING_POOL_OBJSZ": 84,
    "PTNET_MDEV_IO_BUF_POOL_OFS": 88,
    "PTNET_MDEV_IO_BUF_POOL_OBJNUM": 92,
    "PTNET_MDEV_IO_BUF_POOL_OBJSZ": 96,
    "PTNET_MDEV_IO_END": 100,
    "PTNET_MDEV_IO_SIZE": 128,
    "PTNET_IO_PTFEAT": 0,
    "PTNET_IO_PTCTL": 4,
    "PTNET_IO_MAC_LO": 8,
    "PTNET_IO_MAC_HI": 12,
    "PTNET_IO_CSBBAH": 16,
    "PTNET_IO_CSBBAL": 20,
    "PTNET_IO_NIFP_OFS": 24,
    "PTNET_IO_NUM_TX_RINGS": 28,
    "PTNET_IO_NUM_RX_RINGS": 32,
    "PTNET_IO_NUM_TX_SLOTS": 36,
    "PTNET_IO_NUM_RX_SLOTS": 40,
    "PTNET_IO_VNET_HDR_LEN": 44,
    "PTNET_IO_HOSTMEMID": 48,
    "PTNET_IO_CSB_GH_BAH": 52,
    "PTNET_IO_CSB_GH_BAL": 56,
    "PTNET_IO_CSB_HG_BAH": 60,
    "PTNET_IO_CSB_HG_BAL": 64,
    "PTNET_IO_END": 68,
    "PTNET_IO_KICK_BASE": 128,
    "PTNET_IO_MASK": 0xFF,
    "PTNETMAP_F_VNET_HDR": 1,
    "PTNETMAP_PTCTL_CREATE": 1,
    "PTNETMAP_PTCTL_DELETE": 2,
}
IN_2015 = {
    "PTNETMAP_PCI_VENDOR_ID_2015": 0x3333,
    "PTNETMAP_PCI_DEVICE_ID_2015": 0x0001,
    "PTNETMAP_IO_PCI_FEATURES": 0,
    "PTNETMAP_IO_PCI_MEMSIZE": 4,
    "PTNETMAP_IO_PCI_HOSTID": 8,
    "PTNETMAP_IO_SIZE": 10,
    "NMS_NAME": "nms_info",
    "NMS_VERSION": 1,
    "NMS_FEAT_BUF_POOL": 1,
    "NMS_FEAT_MEMSIZE": 2,
    "PTNETMAP_VIRTIO_IO_PTFEAT": 0,
    "PTNETMAP_VIRTIO_IO_PTCTL": 4,
    "PTNETMAP_VIRTIO_IO_PTSTS": 8,
    "PTNETMAP_VIRTIO_IO_CSBBAH": 12,
    "PTNETMAP_VIRTIO_IO_CSBBAL": 16,
    "PTNETMAP_VIRTIO_IO_SIZE": 20,
    "PTNETMAP_VIRTIO_IO_BASE": 30,
    "PTNETMAP_VIRTIO_IO_BASE_MSIX": 34,
    "PTNETMAP_F_BASE": 1,
    "PTNETMAP_F_FULL": 2,
    "PTNETMAP_PTCTL_CONFIG": 1,
    "PTNETMAP_PTCTL_FINALIZE": 2,
    "PTNETMAP_PTCTL_IFNEW": 3,
    "PTNETMAP_PTCTL_IFDELETE": 4,
    "PTNETMAP_PTCTL_RINGSCREATE": 5,
    "PTNETMAP_PTCTL_RINGSDELETE": 6,
    "PTNETMAP_PTCTL_DEREF": 7,
    "PTNETMAP_PTCTL_TXSYNC": 8,
    "PTNETMAP_PTCTL_RXSYNC": 9,
    "PTNETMAP_PTCTL_REGIF": 10,
    "PTNETMAP_PTCTL_UNREGIF": 11,
    "PTNETMAP_PTCTL_HOSTMEMID": 12,
}


@pytest.mark.parametrize(("name", "value"), [*TODAY.items(), *IN_2015.items()])
def test_a_register_or_id_has_upstreams_value(name, value):
    assert getattr(ptnet, name) == value


def test_the_feature_bit_of_2015_is_the_mask_that_drivers_check():
    assert 1 << ptnet.VIRTIO_NET_F_PTNETMAP == 0x2000000


def test_the_shared_info_of_2015_starts_as_a_netmap_if(layout):
    assert ptnet.netmap_mem_shared_info.itemsize == 80
    assert ptnet.netmap_mem_shared_info["up"] == netmap.netmap_if
    assert layout(ptnet.netmap_mem_shared_info) == {
        "up": (0, 56),
        "features": (56, 8),
        "buf_pool_offset": (64, 4),
        "buf_pool_objtotal": (68, 4),
        "buf_pool_objsize": (72, 4),
        "totalsize": (76, 4),
    }


def test_each_ring_has_its_own_kick_register():
    assert [ptnet.kick_register(i) for i in range(3)] == [128, 132, 136]


def test_a_mac_address_is_split_after_its_second_byte():
    assert ptnet.mac_registers(bytes.fromhex("00a098c1d2e3")) == (0x00A0, 0x98C1D2E3)
