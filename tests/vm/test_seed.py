# SPDX-License-Identifier: BSD-2-Clause
import json
import shutil
import struct
import subprocess

import pytest

from ptnetmap.errors import ConfigError
from ptnetmap.vm import iso9660, seed

KEY = "ssh-ed25519 AAAAC3 me@here"
BLOCK = iso9660.BLOCK


def read(image, descriptor, encoding):
    """Read a volume's label and files as ECMA-119 has them, from the bytes alone."""
    at = descriptor * BLOCK
    assert image[at + 1 : at + 7] == b"CD001\1"
    label = image[at + 40 : at + 72].decode(encoding).rstrip(" \0")
    assert struct.unpack_from("<I", image, at + 80)[0] == struct.unpack_from(">I", image, at + 84)[0]
    assert struct.unpack_from("<I", image, at + 80)[0] * BLOCK == len(image)
    assert image[at + 881] == 1
    root, size = (struct.unpack_from("<I", image, at + 156 + offset)[0] for offset in (2, 10))
    files = {}
    position = root * BLOCK
    while position < root * BLOCK + size and (length := image[position]):
        assert length % 2 == 0
        start, count = (struct.unpack_from("<I", image, position + offset)[0] for offset in (2, 10))
        name = image[position + 33 : position + 33 + image[position + 32]]
        if not image[position + 25] & 2:
            files[name.decode(encoding)] = image[start * BLOCK : start * BLOCK + count]
        position += length
    return label, files


@pytest.mark.parametrize("files", [{}, {"user-data": b"x", "meta-data": b"", "network-config": bytes(range(256)) * 40}])
def test_a_volume_has_its_label_and_files_by_long_names_and_by_short_ones(files):
    image = iso9660.build("CIDATA", files)

    assert read(image, 17, "utf-16-be") == ("CIDATA", files)
    label, short = read(image, 16, "ascii")
    assert label == "CIDATA"
    assert sorted(short.values()) == sorted(files.values())
    assert image[18 * BLOCK : 18 * BLOCK + 6] == b"\xffCD001"


@pytest.mark.skipif(not shutil.which("blkid"), reason="blkid is not installed")
def test_blkid_knows_the_volume(tmp_path):
    path = tmp_path / "seed.iso"
    path.write_bytes(seed.build("web", "i-1", user="me", keys=[KEY]))
    done = subprocess.run(["blkid", "-p", "-o", "export", path], capture_output=True, text=True, check=True)
    assert {"LABEL=CIDATA", "TYPE=iso9660"} <= set(done.stdout.split("\n"))


def test_a_seed_says_who_may_come_in_and_how_the_network_is():
    image = seed.build(
        "web_1", "i-1", user="me", keys=[KEY], address="10.0.0.2/24", gateway="10.0.0.1", dns=["1.1.1.1"]
    )

    files = read(image, 17, "utf-16-be")[1]
    head, _, rest = files["user-data"].partition(b"\n")
    assert head == b"#cloud-config"
    (user,) = json.loads(rest)["users"]
    assert (user["name"], user["ssh_authorized_keys"]) == ("me", [KEY])
    assert json.loads(files["meta-data"]) == {"instance-id": "i-1", "local-hostname": "web-1"}
    assert json.loads(files["network-config"]) == {
        "version": 2,
        "ethernets": {
            "first": {
                "match": {"name": "e*"},
                "addresses": ["10.0.0.2/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}],
                "nameservers": {"addresses": ["1.1.1.1"]},
            }
        },
    }


def test_without_an_address_dhcp_gives_one():
    assert seed.network("", "", [])["ethernets"]["first"]["dhcp4"] is True


@pytest.mark.parametrize(
    "network", [{"address": "10.0.0.2"}, {"address": "10.0.0.999/24"}, {"gateway": "x"}, {"dns": ["y"]}]
)
def test_addresses_that_are_none_are_refused(network):
    with pytest.raises(ConfigError, match="the network of the seed"):
        seed.build("web", "i", user="me", keys=[KEY], **network)


@pytest.mark.parametrize("key", ["-----BEGIN OPENSSH PRIVATE KEY-----", "hello world", "ssh-rsa"])
def test_what_is_no_public_key_is_refused_and_not_repeated(key):
    with pytest.raises(ConfigError, match="no public key") as refusal:
        seed.build("web", "i", user="me", keys=[key])
    assert key not in str(refusal.value)
