# SPDX-License-Identifier: BSD-2-Clause
"""The messages between clients and netmapd: bytes in, bytes out, and no socket, runtime or compiled code anywhere.

A message is a frame (:mod:`.frame`); the first one each way is a hello (:mod:`.hello`). Frames carry NIOCCTRL requests
(:mod:`.request`, with :mod:`.option`) or legacy ones that mean the same (:mod:`.legacy`), and some of our own
(:mod:`.extension`). :mod:`.rules` refuses what no netmap could grant; :mod:`.registration` turns port names into
REGISTER requests and back; :mod:`.listing` answers VALE_LIST. netmapd's way through them, for each message::

    got = frame.decode_request(data)                   WireError here and below: frame.refusal(...)
    asked = request.decode(got.argument)               or legacy.decode(got.ioctl, got.argument)
    rules.check(asked)
    ...                                                grant it
    request.answer(asked, body=...)                    the argument of the answer; legacy.answer(...) turns it back
"""

from ptnetmap.netmap.wire.error import ProtocolMismatchError, WireError
from ptnetmap.netmap.wire.frame import MAX_FDS, MAX_FRAME, PROTOCOL, Frame
from ptnetmap.netmap.wire.hello import Hello
from ptnetmap.netmap.wire.request import Answer, Request

__all__ = [
    "MAX_FDS",
    "MAX_FRAME",
    "PROTOCOL",
    "Answer",
    "Frame",
    "Hello",
    "ProtocolMismatchError",
    "Request",
    "WireError",
]
