"""What the engine is asked for, and in which order it gets it. Not thread-safe: the client's lock guards it.

    readers' decodes → decodes ahead of readers → encodes

- As many decodes are with the child as it works on at once, one of them ahead of readers, and one encode. The child works on it beside
  the decodes, which do not wait for it. No encode is sent while a decode waits here.
- Who asks for what is being decoded joins it. A reader who joins what is decoded ahead makes it a reader's, but for the child's priority
  where it is there already.
- When a child dies, those it had begun are to blame, and are sent once more. Decodes who are to blame are not sent together with others
  again, so that the innocent one is blamed once; an encode is, when new readers come, for they must not wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sdfs.engine.messages import AHEAD, DECODE, DECODES_AT_ONCE, Message
from sdfs.errors import SdfsError

MAX_ENCODES_IN_FLIGHT = 1
MAX_ATTEMPTS = 2


@dataclass(eq=False)
class Request:
    type: int
    payload: bytes
    header: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None  # of a decode: whoever asks for the same meanwhile joins `futures`
    ahead: bool = False  # no reader waits for it yet
    futures: list[Future[bytes]] = field(default_factory=list)
    attempts: int = 0  # that ended with the child's death

    def message(self, id_: int) -> Message:
        return Message(AHEAD if self.ahead else self.type, id_, self.header, self.payload)

    def wanted(self) -> bool:
        return not all(future.cancelled() for future in self.futures)

    def drop(self) -> None:
        """Tell whoever waits for several futures at once that these, all cancelled, are over."""
        for future in self.futures:
            future.set_running_or_notify_cancel()

    def complete(self, result: bytes | SdfsError) -> None:
        for future in self.futures:
            if not future.set_running_or_notify_cancel():
                continue
            if isinstance(result, bytes):
                future.set_result(result)
            else:
                future.set_exception(type(result)(*result.args))  # each its own: tracebacks are appended where it is raised


class Waiting:
    """The requests that are not with the child."""

    def __init__(self) -> None:
        self._decodes: deque[Request] = deque()
        self._ahead: deque[Request] = deque()
        self._encodes: deque[Request] = deque()
        self._by_key: dict[str, Request] = {}  # those with the child, too

    def __bool__(self) -> bool:
        return bool(self._decodes or self._ahead or self._encodes)

    def add(self, request: Request) -> Future[bytes]:
        future: Future[bytes] = Future()
        if request.key is not None:
            running = self._by_key.setdefault(request.key, request)
            if running is not request:
                running.futures.append(future)
                if not request.ahead:
                    self.hurry(request.key)
                return future
        request.futures.append(future)
        self._queue(request).append(request)
        return future

    def hurry(self, key: str) -> None:
        """A reader waits for what is decoded ahead."""
        request = self._by_key.get(key)
        if request is not None and request.ahead:
            request.ahead = False
            if request in self._ahead:
                self._ahead.remove(request)
                self._decodes.append(request)

    def next(self, in_flight: Collection[Request]) -> Request | None:
        """The request to be sent beside those that are with the child; None: not yet."""
        decoding = [request for request in in_flight if request.type == DECODE]
        for queue in (self._decodes, self._ahead):
            self._drop_unwanted(queue)
            if queue:
                full = len(decoding) >= DECODES_AT_ONCE or (queue is self._ahead and any(request.ahead for request in decoding))
                return None if full or _suspect(queue[0], decoding) else queue.popleft()
        self._drop_unwanted(self._encodes)
        full = len(in_flight) - len(decoding) >= MAX_ENCODES_IN_FLIGHT
        return None if full or not self._encodes or _suspect(self._encodes[0], decoding) else self._encodes.popleft()

    def put_back(self, request: Request) -> bool:
        """At the front, after the child has died; False: it has used up its attempts, and is over."""
        if request.attempts < MAX_ATTEMPTS:
            self._queue(request).appendleft(request)
            return True
        self.forget(request)
        return False

    def forget(self, request: Request) -> None:
        """It was answered."""
        if request.key is not None:
            self._by_key.pop(request.key, None)

    def take_all(self) -> list[Request]:
        taken = [*self._decodes, *self._ahead, *self._encodes]
        for queue in (self._decodes, self._ahead, self._encodes):
            queue.clear()
        self._by_key.clear()
        return taken

    def _queue(self, request: Request) -> deque[Request]:
        if request.type == DECODE:
            return self._ahead if request.ahead else self._decodes
        return self._encodes

    def _drop_unwanted(self, queue: deque[Request]) -> None:
        """From the front, so that its first is one that somebody waits for."""
        while queue and not queue[0].wanted():
            request = queue.popleft()
            self.forget(request)
            request.drop()


def _suspect(request: Request, decoding: Collection[Request]) -> bool:
    """Whether one of them was at work when a child died, so that they must not be together."""
    return bool(decoding) and any(one.attempts for one in (request, *decoding))
