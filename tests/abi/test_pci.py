# SPDX-License-Identifier: BSD-2-Clause
import re
from pathlib import Path

import pytest

from ptnetmap.abi import pci

HEADER = Path("/usr/include/linux/pci_regs.h")
SAME_AS_LINUX = {
    "PCIR_VENDOR": "PCI_VENDOR_ID",
    "PCIR_DEVICE": "PCI_DEVICE_ID",
    "PCIR_COMMAND": "PCI_COMMAND",
    "PCIR_STATUS": "PCI_STATUS",
    "PCIR_REVID": "PCI_REVISION_ID",
    "PCIR_CACHELNSZ": "PCI_CACHE_LINE_SIZE",
    "PCIR_LATTIMER": "PCI_LATENCY_TIMER",
    "PCIR_HDRTYPE": "PCI_HEADER_TYPE",
    "PCIR_BARS": "PCI_BASE_ADDRESS_0",
    "PCIR_SUBVEND_0": "PCI_SUBSYSTEM_VENDOR_ID",
    "PCIR_SUBDEV_0": "PCI_SUBSYSTEM_ID",
    "PCIR_CAP_PTR": "PCI_CAPABILITY_LIST",
    "PCIR_INTLINE": "PCI_INTERRUPT_LINE",
    "PCIR_INTPIN": "PCI_INTERRUPT_PIN",
    "PCIM_CMD_PORTEN": "PCI_COMMAND_IO",
    "PCIM_CMD_MEMEN": "PCI_COMMAND_MEMORY",
    "PCIM_CMD_BUSMASTEREN": "PCI_COMMAND_MASTER",
    "PCIM_CMD_PERRESPEN": "PCI_COMMAND_PARITY",
    "PCIM_CMD_SERRESPEN": "PCI_COMMAND_SERR",
    "PCIM_CMD_INTxDIS": "PCI_COMMAND_INTX_DISABLE",
    "PCIM_STATUS_INTxSTATE": "PCI_STATUS_INTERRUPT",
    "PCIM_STATUS_CAPPRESENT": "PCI_STATUS_CAP_LIST",
    "PCIM_BAR_IO_SPACE": "PCI_BASE_ADDRESS_SPACE_IO",
    "PCIM_BAR_MEM_64": "PCI_BASE_ADDRESS_MEM_TYPE_64",
    "PCIM_BAR_MEM_PREFETCH": "PCI_BASE_ADDRESS_MEM_PREFETCH",
    "PCIY_PMG": "PCI_CAP_ID_PM",
    "PCIY_MSI": "PCI_CAP_ID_MSI",
    "PCIY_VENDOR": "PCI_CAP_ID_VNDR",
    "PCIY_EXPRESS": "PCI_CAP_ID_EXP",
    "PCIY_MSIX": "PCI_CAP_ID_MSIX",
    "PCIM_MSICTRL_MSI_ENABLE": "PCI_MSI_FLAGS_ENABLE",
    "PCIM_MSICTRL_MMC_MASK": "PCI_MSI_FLAGS_QMASK",
    "PCIM_MSICTRL_MME_MASK": "PCI_MSI_FLAGS_QSIZE",
    "PCIM_MSICTRL_64BIT": "PCI_MSI_FLAGS_64BIT",
    "PCIM_MSIXCTRL_TABLE_SIZE": "PCI_MSIX_FLAGS_QSIZE",
    "PCIM_MSIXCTRL_FUNCTION_MASK": "PCI_MSIX_FLAGS_MASKALL",
    "PCIM_MSIXCTRL_MSIX_ENABLE": "PCI_MSIX_FLAGS_ENABLE",
    "PCIM_MSIX_BIR_MASK": "PCI_MSIX_TABLE_BIR",
    "PCIM_MSIX_VCTRL_MASK": "PCI_MSIX_ENTRY_CTRL_MASKBIT",
}


def test_headers_put_the_registers_where_their_offsets_say(layout):
    fields = layout(pci.pci_header)

    assert pci.pci_header.itemsize == pci.pci_bridge_header.itemsize == pci.PCI_HEADER_SIZE
    assert {name: fields[name][0] for name in ("vendor", "command", "revid", "hdrtype", "bar", "subvendor")} == {
        "vendor": pci.PCIR_VENDOR,
        "command": pci.PCIR_COMMAND,
        "revid": pci.PCIR_REVID,
        "hdrtype": pci.PCIR_HDRTYPE,
        "bar": pci.PCIR_BARS,
        "subvendor": pci.PCIR_SUBVEND_0,
    }
    for header in (pci.pci_header, pci.pci_bridge_header):
        assert layout(header)["cap_ptr"][0] == pci.PCIR_CAP_PTR
        assert layout(header)["intline"][0] == pci.PCIR_INTLINE
        assert layout(header)["intpin"][0] == pci.PCIR_INTPIN


def test_capabilities_have_the_sizes_of_the_specification():
    sizes = [t.itemsize for t in (pci.msi_capability, pci.msix_capability, pci.msix_entry)]
    assert sizes == [14, 12, 16]


@pytest.mark.gcc
def test_constants_are_those_of_linux():
    if not HEADER.exists():
        pytest.skip(f"needs {HEADER} (Debian: linux-libc-dev)")
    theirs = {
        match[1]: int(match[2].rstrip("UL"), 16 if match[2].startswith("0x") else 10)
        for match in re.finditer(r"^#define\s+(\w+)\s+(0x[0-9a-fA-F]+|\d+)[UL]*\b", HEADER.read_text(), re.MULTILINE)
    }

    assert {ours: getattr(pci, ours) for ours in SAME_AS_LINUX} == {
        ours: theirs[linux] for ours, linux in SAME_AS_LINUX.items()
    }
