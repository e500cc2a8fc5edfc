# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.abi import vhost_user as abi


@pytest.mark.parametrize(
    ("name", "size", "fields"),
    [
        ("vhost_user_header", 12, {"request": (0, 4), "flags": (4, 4), "size": (8, 4)}),
        ("vhost_vring_state", 8, {"index": (0, 4), "num": (4, 4)}),
        (
            "vhost_vring_addr",
            40,
            {
                "index": (0, 4),
                "flags": (4, 4),
                "descriptor": (8, 8),
                "used": (16, 8),
                "available": (24, 8),
                "log": (32, 8),
            },
        ),
        ("vhost_user_memory", 8, {"regions": (0, 4), "padding": (4, 4)}),
        ("vhost_user_memory_region", 32, {"guest": (0, 8), "size": (8, 8), "user": (16, 8), "offset": (24, 8)}),
        (
            "vhost_user_single_memory_region",
            40,
            {"padding": (0, 8), "guest": (8, 8), "size": (16, 8), "user": (24, 8), "offset": (32, 8)},
        ),
        ("vhost_user_log", 16, {"size": (0, 8), "offset": (8, 8)}),
        (
            "vhost_user_inflight",
            24,
            {"size": (0, 8), "offset": (8, 8), "queues": (16, 2), "queue_size": (18, 2), "padding": (20, 4)},
        ),
        ("vhost_user_config", 12, {"offset": (0, 4), "size": (4, 4), "flags": (8, 4)}),
    ],
)
def test_a_structure_has_the_protocols_layout(layout, name, size, fields):
    dtype = getattr(abi, name)
    assert dtype.itemsize == size
    assert layout(dtype) == fields


@pytest.mark.parametrize(
    ("name", "bit"),
    [
        ("VHOST_F_LOG_ALL", 26),
        ("VHOST_USER_F_PROTOCOL_FEATURES", 30),
        ("VHOST_USER_PROTOCOL_F_MQ", 0),
        ("VHOST_USER_PROTOCOL_F_LOG_SHMFD", 1),
        ("VHOST_USER_PROTOCOL_F_RARP", 2),
        ("VHOST_USER_PROTOCOL_F_REPLY_ACK", 3),
        ("VHOST_USER_PROTOCOL_F_NET_MTU", 4),
        ("VHOST_USER_PROTOCOL_F_CONFIG", 9),
        ("VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD", 12),
        ("VHOST_USER_PROTOCOL_F_RESET_DEVICE", 13),
        ("VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS", 15),
        ("VHOST_USER_PROTOCOL_F_STATUS", 16),
    ],
)
def test_a_feature_has_the_protocols_bit(name, bit):
    assert getattr(abi, name) == 1 << bit


def test_requests_have_the_protocols_numbers():
    names = """GET_FEATURES SET_FEATURES SET_OWNER RESET_OWNER SET_MEM_TABLE SET_LOG_BASE SET_LOG_FD SET_VRING_NUM
        SET_VRING_ADDR SET_VRING_BASE GET_VRING_BASE SET_VRING_KICK SET_VRING_CALL SET_VRING_ERR GET_PROTOCOL_FEATURES
        SET_PROTOCOL_FEATURES GET_QUEUE_NUM SET_VRING_ENABLE SEND_RARP NET_SET_MTU"""
    numbers = {name: number for number, name in enumerate(names.split(), 1)} | {
        "GET_CONFIG": 24,
        "SET_CONFIG": 25,
        "GET_INFLIGHT_FD": 31,
        "SET_INFLIGHT_FD": 32,
        "RESET_DEVICE": 34,
        "GET_MAX_MEM_SLOTS": 36,
        "ADD_MEM_REG": 37,
        "REM_MEM_REG": 38,
        "SET_STATUS": 39,
        "GET_STATUS": 40,
    }
    assert {name: getattr(abi, f"VHOST_USER_{name}") for name in numbers} == numbers
