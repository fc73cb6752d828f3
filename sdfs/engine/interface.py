"""What the owner asks of an engine, and what an engine reports of itself."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from sdfs.settings import EncodeSettings


@dataclass(frozen=True)
class EngineStats:
    state: str  # 'unloaded' | 'loading' | 'ready'
    pid: int | None
    starts: int  # children started so far
    failures: int  # children that died or did not load since the last answer
    in_flight: int
    device: str | None = None  # this and the next: of the bundled model, as the child said last; None: there is none that said it
    dtype: str | None = None
    device_bytes: int | None = None  # that it holds there; None: of the machine's own memory


class Engine(Protocol):
    """What the tree needs of `sdfs.engine.client.Engine`."""

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> Future[bytes]: ...
    def convert(self, data: bytes, settings: EncodeSettings) -> Future[bytes]: ...
    def check(self, data: bytes) -> Future[bytes]: ...
    def decode(self, key: str, blob: bytes, *, model: str | None = None, ahead: bool = False) -> Future[bytes]: ...
    def hurry(self, key: str) -> None: ...
    def warm(self) -> None: ...
    def stats(self) -> EngineStats: ...
    def close(self) -> None: ...
