# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.abi import pci
from ptnetmap.bhyve.devices.hostbridge import AmdHostBridge, HostBridge
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import ConfigError

PLACE = Function(0, 0, 0)


@pytest.mark.parametrize(("model", "ids"), [(HostBridge, 0x12751275), (AmdHostBridge, 0x74321022)])
def test_it_is_a_host_bridge_with_bhyves_ids(bus, host, model, ids):
    bus.add(model(host, PLACE, {}))
    assert bus.read_config(PLACE, pci.PCIR_VENDOR, 4) == ids
    assert bus.read_config(PLACE, pci.PCIR_REVID, 4) == 0x06000000


@pytest.mark.parametrize(
    "options", [{"vendor": "0x8086", "devid": "0x1237"}, {"pcireg.vendor": "0x8086", "pcireg.device": "4663"}]
)
def test_its_ids_can_be_set(host, options):
    assert HostBridge(host, PLACE, options).config.read(pci.PCIR_VENDOR, 4) == 0x12378086


def test_ids_that_are_none_are_refused(host):
    with pytest.raises(ConfigError, match="vendor"):
        HostBridge(host, PLACE, {"vendor": "Intel"})


def test_it_is_a_root_port_of_pci_express(host):
    config = HostBridge(host, PLACE, {}).config
    at = config.read(pci.PCIR_CAP_PTR, 1)
    assert config.read(at, 4) == 0x0042_0000 | pci.PCIY_EXPRESS
    assert config.read(at + 12, 4) & 0x3FF == 0x11
    assert config.read(at + 18, 2) == 0x11
