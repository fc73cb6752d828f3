"""Messages between the owner of a store and its engine process, over a socket pair.

    0   1  type            one of the constants below
    1   8  request id      0 where no request is meant
    9   4  header length   bytes of JSON that follow
    13  8  payload length  bytes that follow the JSON

Little-endian. The two processes always run the same version of SDFS, so the protocol has none.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from sdfs import errors
from sdfs.errors import EngineError, SdfsError

# owner → engine
ENCODE = 1  # header {"settings": of `EncodeSettings`, "reference_size": int | null}, payload: a picture file and its reference
DECODE = 2  # header {"model": str | null}, payload: a blob
AHEAD = 3  # the same, but no reader waits for it
CHECK = 9  # payload: a picture file; the answer is empty, or an error that says why it is none
CONVERT = 8  # header {"settings": of `EncodeSettings`}, payload: a HEIC or AVIF file
# engine → owner
READY = 4  # header {"device": str, "dtype": str | null, "device_bytes": int | null}: the model is loaded, and where
BEGUN = 5  # work on the request begins: a crash from now on is its fault and no other's
RESULT = 6  # header: as of READY, as it is now; payload: a blob, or its render
ERROR = 7  # header {"error": as `errors.pack` makes it}; with id 0: the model could not be loaded
TYPES = frozenset({ENCODE, DECODE, AHEAD, CONVERT, CHECK, READY, BEGUN, RESULT, ERROR})

DECODES_AT_ONCE = 2  # while one picture is in the network, another is read or rendered by a second processor
MAX_HEADER_BYTES = 1 << 16
MAX_PAYLOAD_BYTES = 1 << 32

_FRAME = struct.Struct("<BQIQ")


class ProtocolError(Exception):
    """The peer sent what is no message: it is broken and has to go."""


@dataclass(frozen=True)
class Message:
    type: int
    id: int = 0
    header: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""


def send(sock: socket.socket, message: Message) -> None:
    """Raises OSError where the peer is gone. Not for two threads at once on one socket."""
    header = json.dumps(message.header).encode()
    sock.sendall(_FRAME.pack(message.type, message.id, len(header), len(message.payload)) + header)
    sock.sendall(message.payload)


def receive(stream: BinaryIO) -> Message | None:
    """The next message, or None where the peer has closed. Raises ProtocolError, and OSError from the stream.

    `stream`: a buffered reader, so that `read(n)` is short only at the end.
    """
    frame = stream.read(_FRAME.size)
    if not frame:
        return None
    if len(frame) < _FRAME.size:
        raise ProtocolError("the peer closed within a frame")
    type_, id_, header_length, payload_length = _FRAME.unpack(frame)
    if type_ not in TYPES or header_length > MAX_HEADER_BYTES or payload_length > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"message of type {type_} with {header_length} + {payload_length} bytes")
    encoded, payload = stream.read(header_length), stream.read(payload_length)
    if len(encoded) + len(payload) < header_length + payload_length:
        raise ProtocolError("the peer closed within a message")
    return Message(type_, id_, _parse_header(encoded), payload)


def _parse_header(encoded: bytes) -> dict[str, Any]:
    try:
        header = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise ProtocolError("a header is no JSON object")
    return header


def pack_error(id_: int, error: Exception) -> Message:
    """Pack an error; one that SDFS does not raise on purpose as an EngineError."""
    ours = error if isinstance(error, SdfsError) else EngineError(f"{type(error).__name__}: {error}")
    return Message(ERROR, id_, {"error": errors.pack(ours)})


def parse_error(message: Message) -> SdfsError:
    try:
        return errors.parse(message.header.get("error"), unknown=EngineError)
    except ValueError:
        return EngineError("the engine process failed, and does not say how")
