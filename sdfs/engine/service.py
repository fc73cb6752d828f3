"""The engine process: holds the model, encodes and decodes one request at a time, decodes first.

Run by the client as `python -m sdfs.engine.service FD`, FD being its end of a socket pair. The main thread only reads, a second
one works: so a decode that arrives during an encode is taken next, and the end of the stream (the owner unloads the engine, or
died) ends the process at once, whatever it is busy with.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading
from typing import Protocol

from sdfs.engine import protocol
from sdfs.engine.protocol import Message
from sdfs.errors import SdfsError
from sdfs.settings import EncodeSettings

OOM_SCORE_ADJ = 500  # the kernel takes the engine, which costs one retry, before the mount, which costs open files
_log = logging.getLogger("sdfs.engine")


class Coder(Protocol):
    """What is served: `sdfs.codec.Codec`, or a stand-in."""

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> bytes: ...

    def decode(self, blob: bytes, *, model: str | None = None) -> bytes: ...


def serve(sock: socket.socket, codec: Coder) -> None:
    """Answer requests until the peer closes. Work may still be under way on return: the caller ends the process."""
    requests: queue.PriorityQueue[tuple[int, int, Message]] = queue.PriorityQueue()
    threading.Thread(target=_work, args=(sock, codec, requests), name="engine-work", daemon=True).start()
    with sock.makefile("rb") as stream:
        while (message := protocol.receive(stream)) is not None:
            requests.put((0 if message.type == protocol.DECODE else 1, message.id, message))


def _work(sock: socket.socket, codec: Coder, requests: queue.PriorityQueue[tuple[int, int, Message]]) -> None:
    try:
        protocol.send(sock, Message(protocol.READY))
        while True:
            request = requests.get()[2]
            protocol.send(sock, Message(protocol.BEGUN, request.id))
            protocol.send(sock, _answer(codec, request))
    except OSError:
        pass  # the owner is gone; the reading thread ends the process


def _answer(codec: Coder, request: Message) -> Message:
    try:
        if request.type == protocol.ENCODE:
            data, reference = _parts(request)
            settings = EncodeSettings.parse(request.header["settings"])
            return Message(protocol.RESULT, request.id, payload=codec.encode(data, settings, reference=reference))
        return Message(protocol.RESULT, request.id, payload=codec.decode(request.payload, model=request.header["model"]))
    except SdfsError as error:
        return protocol.pack_error(request.id, error)
    except Exception as error:
        _log.exception("request %d failed", request.id)
        return protocol.pack_error(request.id, error)


def _parts(request: Message) -> tuple[bytes, bytes | None]:
    """The picture file and the reference blob that an encode brings."""
    size = request.header["reference_size"]
    if size is None:
        return request.payload, None
    end = len(request.payload) - size
    return request.payload[:end], request.payload[end:]


def prefer_for_oom() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(OOM_SCORE_ADJ))
    except OSError as error:
        _log.debug("oom_score_adj stays as it is: %s", error)


def main() -> None:
    logging.basicConfig(stream=sys.stderr, format="sdfs engine: %(message)s")
    sock = socket.socket(fileno=int(sys.argv[1]))
    prefer_for_oom()
    try:
        from sdfs.codec import Codec

        codec = Codec()
    except Exception as error:
        _log.exception("the model could not be loaded")
        protocol.send(sock, protocol.pack_error(0, error))
        sys.exit(1)
    serve(sock, codec)
    os._exit(0)  # not sys.exit: the working thread may be deep inside torch


if __name__ == "__main__":
    main()
