# SPDX-License-Identifier: BSD-2-Clause
r"""The protocol between bhyvectl and bhyve: a line of JSON asks, a line of JSON answers, in turn.

::

    {"command": "get-stats", "arguments": {"cpu": 0}}
    {"result": {"vcpu0": {"exits": 12}}}
    {"command": "dance"}
    {"error": {"errno": 95, "message": "this virtual machine cannot dance; it can get-stats, info"}}

``arguments`` may be left out; its values are text, numbers, booleans or null. Members that a reader does not know are
ignored. Nothing here reads or writes a socket: bytes in, bytes out.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptnetmap.bhyve.control.error import ControlError
from ptnetmap.errors import PtnetmapError

MAX_REQUEST = 4096
"""Bytes of a request's line without its end, at most (EMSGSIZE)."""

MAX_ANSWER = 1 << 20
"""Bytes of an answer's line without its end, at most (EMSGSIZE)."""

_MAX_ERRNO = 4095


@dataclass(frozen=True)
class Request:
    """What a client asks for."""

    command: str
    arguments: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


class Lines:
    """Splits a stream of bytes into lines of at most ``limit`` bytes each; keeps no more than one of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without their ends.

        Raises ControlError (EMSGSIZE) for a line that is too long, after which the stream is of no more use.
        """
        self._rest += data
        *whole, rest = self._rest.split(b"\n")
        if any(len(line) > self._limit for line in (*whole, rest)):
            self._rest.clear()
            raise ControlError(
                errno.EMSGSIZE, f"a line is longer than {self._limit} bytes\n        end each message with a line feed"
            )
        self._rest = rest
        return [bytes(line) for line in whole]


def encode_request(request: Request) -> bytes:
    """Return a request as a line."""
    return _line({"command": request.command, "arguments": dict(request.arguments)})


def decode_request(line: bytes) -> Request:
    """Return what a line asks for; raises ControlError (EINVAL) if it is no request."""
    message = _object(line, "request")
    command, arguments = message.get("command"), message.get("arguments", {})
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise _malformed("request", 'it needs "command", text, and may have "arguments", an object')
    if any(isinstance(value, (list, dict)) for value in arguments.values()):
        raise _malformed("request", "an argument is a list or an object")
    return Request(command, arguments)


def encode_result(result: Any) -> bytes:
    """Return an answer as a line; NumPy's numbers are numbers. Raises ControlError for what JSON cannot say."""
    try:
        line = _line({"result": result})
    except (TypeError, ValueError, RecursionError) as error:
        raise ControlError(errno.EPROTO, f"the answer cannot be written as JSON: {error}") from error
    if len(line) > MAX_ANSWER:
        raise ControlError(errno.EMSGSIZE, f"the answer has {len(line)} bytes, at most {MAX_ANSWER} can be sent")
    return line


def encode_error(error: PtnetmapError) -> bytes:
    """Return a refusal as a line."""
    return _line({"error": {"errno": error.errno or errno.EIO, "message": str(error)[: MAX_REQUEST // 4]}})


def decode_answer(line: bytes) -> Any:
    """Return the result in an answer; raises ControlError: what it refuses with, or EPROTO if it is no answer."""
    message = _object(line, "answer")
    if "result" in message:
        return message["result"]
    error = message.get("error")
    if isinstance(error, dict):
        code, text = error.get("errno"), error.get("message")
        if isinstance(code, int) and 0 < code <= _MAX_ERRNO and isinstance(text, str):
            raise ControlError(code, text)
    raise _malformed("answer", 'it has neither "result" nor a whole "error"', errno.EPROTO)


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, default=_number, allow_nan=False).encode("ascii") + b"\n"


def _number(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a type of JSON")


def _object(line: bytes, what: str) -> dict[str, Any]:
    code = errno.EINVAL if what == "request" else errno.EPROTO
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _malformed(what, "it is not JSON", code) from error
    if not isinstance(message, dict):
        raise _malformed(what, "it is not a JSON object", code)
    return message


def _malformed(what: str, reason: str, code: int = errno.EINVAL) -> ControlError:
    return ControlError(code, f"this is no {what}: {reason}")
