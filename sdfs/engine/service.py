"""The engine process: holds the model, decodes a few requests at a time and encodes one at a time.

Run by the client as `python -m sdfs.engine.service [--ram BYTES] [--vram BYTES] FD`, FD being its end of a socket pair. The main thread
only reads, so that the end of the stream (the owner unloads the engine, or died) ends the process at once, whatever it is busy with.

A reader does not wait for an encode: decodes have threads of their own, and that of the encodes, with the threads that libraries start
from it, has a lower priority, so that the kernel takes the processors from it wherever it is. An encode that gave way between pieces of
its own choosing, in place of the kernel's, would need such places in every library, and does not have them: a deflate of a large PNG, a
JPEG XL, a tile of a large model take seconds. What is decoded ahead of readers stands between the two. Memory stays bounded, for the owner
sends DECODES_AT_ONCE decodes, whoever they are for, and one encode at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import queue
import socket
import sys
import threading
from typing import Any, Protocol

from sdfs.engine import messages
from sdfs.engine.messages import Message
from sdfs.errors import SdfsError
from sdfs.settings import EncodeSettings, Memory

AHEAD_NICENESS = 5  # to that of readers' decodes: a third of their share of a processor
ENCODE_NICENESS = 10  # a tenth of it
OOM_SCORE_ADJ = 500  # the kernel takes the engine, which costs one retry, before the mount, which costs open files
_THREADS = (
    (messages.DECODE, 0, messages.DECODES_AT_ONCE),
    (messages.AHEAD, AHEAD_NICENESS, messages.DECODES_AT_ONCE),
    (messages.ENCODE, ENCODE_NICENESS, 1),
)
_log = logging.getLogger(__name__)


class Coder(Protocol):
    """What is served: `sdfs.codec.codec.Codec`, or a stand-in. Several calls may be under way at once, in threads."""

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> bytes: ...

    def convert(self, data: bytes, settings: EncodeSettings) -> bytes: ...

    def check(self, data: bytes) -> None: ...

    def decode(self, blob: bytes, *, model: str | None = None) -> bytes: ...

    def figures(self) -> dict[str, Any]: ...


class _Answers:
    """What the threads send, one message at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """Raises OSError where the owner is gone."""
        with self._sending:
            messages.send(self._sock, message)


def serve(sock: socket.socket, codec: Coder) -> None:
    """Answer requests until the peer closes. Work may still be under way on return: the caller ends the process."""
    answers = _Answers(sock)
    queues: dict[int, queue.SimpleQueue[Message]] = {}
    for type_, niceness, threads in _THREADS:
        queues[type_] = queue.SimpleQueue()
        for _ in range(threads):
            threading.Thread(target=_work, args=(answers, codec, queues[type_], niceness), daemon=True).start()
    queues[messages.CONVERT] = queues[messages.CHECK] = queues[messages.ENCODE]
    with contextlib.suppress(OSError), sock.makefile("rb") as stream:
        answers.send(Message(messages.READY, header=codec.figures()))
        while (message := messages.receive(stream)) is not None:
            queues[message.type].put(message)


def _work(answers: _Answers, codec: Coder, requests: queue.SimpleQueue[Message], niceness: int) -> None:
    os.nice(niceness)  # on Linux, of this thread and those it will start
    with contextlib.suppress(OSError):  # the owner is gone; the reading thread ends the process
        while True:
            request = requests.get()
            answers.send(Message(messages.BEGUN, request.id))
            answers.send(_answer(codec, request))


def _answer(codec: Coder, request: Message) -> Message:
    try:
        if request.type == messages.ENCODE:
            data, reference = _parts(request)
            settings = EncodeSettings.parse(request.header["settings"])
            result = codec.encode(data, settings, reference=reference)
        elif request.type == messages.CONVERT:
            result = codec.convert(request.payload, EncodeSettings.parse(request.header["settings"]))
        elif request.type == messages.CHECK:
            codec.check(request.payload)
            result = b""
        else:
            result = codec.decode(request.payload, model=request.header["model"])
        return Message(messages.RESULT, request.id, codec.figures(), result)
    except SdfsError as error:
        return messages.pack_error(request.id, error)
    except Exception as error:
        _log.exception("request %d failed", request.id)
        return messages.pack_error(request.id, error)


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
    parser = argparse.ArgumentParser()
    parser.add_argument("--ram", type=int, default=Memory.ram)
    parser.add_argument("--vram", type=int)
    parser.add_argument("socket", type=int)
    options = parser.parse_args()
    sock = socket.socket(fileno=options.socket)
    prefer_for_oom()
    # read when torch is imported: threads that spin while they wait for each other are slow, at times tenfold, where other programs run
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from sdfs.codec.codec import Codec

        codec = Codec(memory=Memory(options.ram, options.vram))
    except Exception as error:
        _log.exception("the model could not be loaded")
        messages.send(sock, messages.pack_error(0, error))
        sys.exit(1)
    serve(sock, codec)
    os._exit(0)  # not sys.exit: the working thread may be deep inside torch


if __name__ == "__main__":
    main()
