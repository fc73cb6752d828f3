"""The owner's side of the engine process: one child, started when it is needed, replaced when it dies.

Why this is right, in short:

- `_conduct` (one thread) alone starts children and sends; each child has one thread (`_listen`) that alone receives from it.
  All other state is under `_changed`. Futures are completed outside it, since their callbacks may ask for more.
- A request is in exactly one place: `_waiting`, or `_in_flight`. It leaves `_in_flight` by its answer or by the child's end.
- The child says BEGUN before it works on a request: when it dies, those it has not answered are to blame, and the others just wait
  again. In which order they wait is said in `sdfs.engine.requests`.
- The owner decides about idle unloading, under the lock and with nothing in flight: no request can be lost to it.
- Nobody forks: the child is spawned, and ends by itself when its socket closes, which also the owner's death does.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial

from sdfs.engine import messages
from sdfs.engine.child import Child
from sdfs.engine.interface import EngineStats
from sdfs.engine.messages import Message
from sdfs.engine.requests import Request, Waiting
from sdfs.errors import EngineError
from sdfs.settings import EncodeSettings, Memory
from sdfs.system.backoff import Backoff

BACKOFF = Backoff(0.1, 30.0)  # before a new process is started
_log = logging.getLogger(__name__)


def _service(memory: Memory) -> tuple[str, ...]:
    vram = () if memory.vram is None else ("--vram", str(memory.vram))
    return (sys.executable, "-P", "-m", "sdfs.engine.service", "--ram", str(memory.ram), *vram)


class Engine:
    """Encodes and decodes in a child process. Thread-safe.

    Futures fail with the errors of `sdfs.codec.codec`, or with EngineError: the child died twice on this request, the model cannot be
    loaded (then every request fails at once until the next try is due), or the engine was closed.
    """

    def __init__(self, *, idle_seconds: float = 300.0, command: Sequence[str] | None = None, memory: Memory | None = None) -> None:
        """`command`: what to run in place of the service; gets the number of its socket as the last argument."""
        self._idle_seconds = idle_seconds
        self._command = _service(memory or Memory()) if command is None else tuple(command)
        self._changed = threading.Condition()
        self._ids = itertools.count(1)
        self._waiting = Waiting()
        self._in_flight: dict[int, Request] = {}
        self._child: Child | None = None
        self._threads: list[threading.Thread] = []
        self._warm_wanted = False
        self._load_error: EngineError | None = None
        self._failures = 0
        self._retry_at = 0.0  # monotonic
        self._active_at = 0.0  # monotonic: the last answer, or when it was loaded
        self._starts = 0
        self._closed = False

    def warm(self) -> None:
        """Have the model loaded, without waiting for it."""
        with self._changed:
            if not self._closed and self._child is None:
                self._warm_wanted = True
                self._wake()

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> Future[bytes]:
        """The blob of a picture file, once no decode waits. All as in `sdfs.codec.codec.Codec.encode`."""
        header = {"settings": asdict(settings), "reference_size": None if reference is None else len(reference)}
        return self._submit(Request(messages.ENCODE, data + (reference or b""), header))

    def convert(self, data: bytes, settings: EncodeSettings) -> Future[bytes]:
        """The blob of a HEIC or AVIF file, once no decode waits. All as in `sdfs.codec.codec.Codec.convert`."""
        return self._submit(Request(messages.CONVERT, data, {"settings": asdict(settings)}))

    def check(self, data: bytes) -> Future[bytes]:
        """Nothing, where a file is a whole picture, once no decode waits; fails with NotAPicture where it is none."""
        return self._submit(Request(messages.CHECK, data, {}))

    def decode(self, key: str, blob: bytes, *, model: str | None = None, ahead: bool = False) -> Future[bytes]:
        """The render of a blob, before all encodes. `key` names the blob: calls with the same key meanwhile share one decode.

        `model`: one to use instead of the blob's; the key has to tell it. `ahead`: no reader waits for it, until `hurry` is called.
        """
        return self._submit(Request(messages.DECODE, blob, {"model": model}, key, ahead))

    def hurry(self, key: str) -> None:
        """A reader waits for what is decoded ahead under this key, if it is."""
        with self._changed:
            self._waiting.hurry(key)
            self._changed.notify_all()

    def stats(self) -> EngineStats:
        with self._changed:
            child = self._child
            return EngineStats(
                state="unloaded" if child is None else "ready" if child.ready else "loading",
                pid=child.process.pid if child else None,
                starts=self._starts,
                failures=self._failures,
                in_flight=len(self._in_flight),
                **(child.figures if child else {}),
            )

    def close(self) -> None:
        """End the child; whatever is not answered fails with EngineError. Not to be called from a future's callback."""
        with self._changed:
            self._closed = True
            if self._child is not None:
                self._child.retire()
                self._child = None
            left = self._take_all()
            self._changed.notify_all()
        for request in left:
            request.complete(EngineError("the engine was closed"))
        while self._threads:  # the conducting thread may add one until it ends
            self._threads.pop().join()

    def _submit(self, request: Request) -> Future[bytes]:
        future: Future[bytes] = Future()
        if len(request.payload) > messages.MAX_PAYLOAD_BYTES:
            future.set_exception(EngineError(f"{len(request.payload)} bytes are more than the engine takes at once"))
            return future
        with self._changed:
            refusal = self._refusal()
            if refusal is None:
                self._wake()
                return self._waiting.add(request)
        future.set_exception(refusal)
        return future

    def _refusal(self) -> EngineError | None:
        if self._closed:
            return EngineError("the engine was closed")
        if self._load_error is not None and time.monotonic() < self._retry_at:
            return EngineError(*self._load_error.args)
        return None

    def _wake(self) -> None:
        if not self._threads:
            self._start_thread("engine-conduct", self._conduct)
        self._changed.notify_all()

    def _start_thread(self, name: str, target: Callable[[], None]) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    # the conducting thread

    def _conduct(self) -> None:
        while (step := self._next_step()) is not None:
            step()

    def _next_step(self) -> Callable[[], None] | None:
        """Wait until there is something to do outside the lock; None once closed."""
        with self._changed:
            while not self._closed:
                wait_seconds: float | None = None
                if self._child is None:
                    wait_seconds = self._seconds_to_start()
                    if wait_seconds is not None and wait_seconds <= 0:
                        return self._start
                elif self._child.ready:
                    if (request := self._waiting.next(self._in_flight.values())) is not None:
                        id_ = next(self._ids)
                        self._in_flight[id_] = request
                        return partial(self._send, self._child, request.message(id_))
                    if not self._in_flight:
                        wait_seconds = self._active_at + self._idle_seconds - time.monotonic()
                        if wait_seconds <= 0:
                            self._child.retire()
                            self._child = None
                            continue
                self._changed.wait(wait_seconds)
            return None

    def _seconds_to_start(self) -> float | None:
        """How long until a child is to be started; None where nobody wants one."""
        if not (self._warm_wanted or self._waiting):
            return None
        return self._retry_at - time.monotonic()

    def _start(self) -> None:
        try:
            child = Child(self._command)
        except OSError as error:
            self._lost(None, f"could not be started: {error}")
            return
        with self._changed:
            self._starts += 1
            self._warm_wanted = False
            if self._closed:
                child.retire()
            else:
                self._child = child
            self._start_thread("engine-listen", partial(self._listen, child))

    def _send(self, child: Child, message: Message) -> None:
        try:
            messages.send(child.socket, message)
        except OSError as error:
            _log.debug("the engine is gone: %s", error)  # its listening thread learns it too, and acts

    # a child's listening thread

    def _listen(self, child: Child) -> None:
        load_error = ""
        try:
            with child.socket.makefile("rb") as stream:
                while (message := messages.receive(stream)) is not None:
                    if message.type == messages.ERROR and message.id == 0:
                        load_error = str(messages.parse_error(message))
                    else:
                        self._receive(child, message)
        except (OSError, messages.ProtocolError) as error:
            _log.debug("the engine's socket: %s", error)
        how = child.reap()
        self._lost(child, load_error or how)

    def _receive(self, child: Child, message: Message) -> None:
        with self._changed:
            if message.type in (messages.READY, messages.RESULT):
                child.figures = message.header
            if message.type == messages.READY:
                child.ready = True
                self._load_error = None
            elif message.type == messages.BEGUN:
                child.begun.add(message.id)
            request = self._in_flight.pop(message.id, None) if message.type in (messages.RESULT, messages.ERROR) else None
            if request is not None:
                child.begun.discard(message.id)
                self._waiting.forget(request)
                self._failures = 0
            self._active_at = time.monotonic()
            self._changed.notify_all()
        if request is not None:
            request.complete(message.payload if message.type == messages.RESULT else messages.parse_error(message))

    def _lost(self, child: Child | None, how: str) -> None:
        """`child` (None: it never came to be) has ended. Decide who waits again and who fails."""
        with self._changed:
            if child is not None and child.retired:
                return
            self._child = None
            self._warm_wanted = False
            self._failures += 1
            self._retry_at = time.monotonic() + BACKOFF.seconds(self._failures)
            if child is not None and child.ready:
                error = EngineError(f"the engine process died on this picture ({how})")
                failed = self._wait_again(child.begun)
                _log.warning("the engine process died (%s); a new one is started when it is needed", how)
            else:
                error = self._load_error = EngineError(f"the engine process does not start: {how}")
                failed = self._take_all()
                _log.error("%s", error)
            self._changed.notify_all()
        for request in failed:
            request.complete(error)

    def _wait_again(self, begun: set[int]) -> list[Request]:
        """Put what is in flight back to the front of the queues, in its order; returns what has used up its attempts."""
        for id_ in begun & self._in_flight.keys() or self._in_flight:  # died between two requests: then any may be to blame
            self._in_flight[id_].attempts += 1
        failed = []
        for id_ in sorted(self._in_flight, reverse=True):
            request = self._in_flight.pop(id_)
            if not self._waiting.put_back(request):
                failed.append(request)
        return failed

    def _take_all(self) -> list[Request]:
        left = [*self._in_flight.values(), *self._waiting.take_all()]
        self._in_flight.clear()
        return left
