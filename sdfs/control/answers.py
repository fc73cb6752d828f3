"""What SDFS says of a store and its files: the dataclasses behind `sdfs stat`, `stats` and `ls`, and the xattr `user.sdfs.status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sdfs.system.no_follow import is_name, is_path

State = Literal["latent", "exact", "pending", "plain", "damaged"]


@dataclass(frozen=True)
class FileStatus:
    """One regular file. What a blob's header does not say, and all but sizes of a file that is no blob, is None."""

    path: Annotated[str, is_path]
    state: State
    logical_bytes: int  # what a reader gets
    stored_bytes: int  # what the store keeps
    original_bytes: int | None = None
    original_sha256: str | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    asked: int | None = None  # the score that a reader was promised
    quality: int | None = None  # what its coder was told for it
    scores: dict[str, float] | None = None
    autoencoder: str | None = None
    behind_bytes: int | None = None  # of these, what the file has behind the picture; and what the store keeps of it
    behind_stored_bytes: int | None = None
    reason: str | None = None  # why it is exact, or how it is damaged, or why it stays pending or plain


@dataclass(frozen=True)
class Listed:
    """One entry of a listing. Folders and special files have sizes of 0."""

    path: Annotated[str, is_path]
    state: State | Literal["folder", "symlink", "special"]
    logical_bytes: int
    stored_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Owned:
    """A store and its owner."""

    store: str
    pid: int
    mountpoint: str | None


@dataclass(frozen=True)
class Counts:
    """How many files a store has of each kind, and what all of them take."""

    latent: int
    exact: int
    pending: int
    plain: int
    damaged: int
    logical_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class StoreStatus(Counts, Owned):
    """What a store is set to, and what it holds."""

    quality: int  # this and the next four: its `EncodeSettings`
    model: str
    effort: str
    min_psnr: float
    min_ms_ssim: float


@dataclass(frozen=True)
class Statistics(Counts, Owned):
    """What a store holds, and what its owner did since it began. A read is the first of one who opened a shrunk picture."""

    counted_seconds_ago: float
    queued: int  # pending now
    decoded: int  # pictures, for readers
    decoded_ahead: int  # of these, begun before a reader asked for them
    decoded_megapixels: float
    decode_seconds: float  # in which there was one to decode: waiting and starting the engine included
    decode_megapixels_per_second: float | None
    decoded_reads: int  # that had to wait for the engine
    decoded_p50_seconds: float | None
    decoded_p99_seconds: float | None
    cached_reads: int
    cached_p50_seconds: float | None
    cached_p99_seconds: float | None
    memory_hits: int  # of the cache of renders
    memory_misses: int
    memory_bytes: int
    disk_hits: int | None  # the second tier of it; None: there is none
    disk_misses: int | None
    disk_bytes: int | None
    engine_state: str  # 'unloaded' | 'starting' | 'running' | 'idle' | 'backing off'
    engine_starts: int
    engine_device: str | None  # this and the next two: of the bundled model, as the engine said last; None: it does not run
    engine_dtype: str | None
    engine_device_bytes: int | None  # that it holds there; None where that is the machine's own memory
    engine_resident_bytes: int | None
    resident_bytes: int | None  # of the owner


@dataclass(frozen=True)
class Usage:
    """What a file, or all in a folder, takes."""

    path: str
    files: int
    logical_bytes: int  # what readers get
    stored_bytes: int  # what the store keeps
    trash_bytes: int  # what it keeps besides of what was replaced there


@dataclass(frozen=True)
class Reason:
    """Files that are not latents, and why they are not."""

    state: State
    reason: str | None  # its numbers left out; None: they are no pictures
    files: int
    logical_bytes: int  # what readers get
    stored_bytes: int  # what the store keeps


@dataclass(frozen=True)
class Trashed:
    """What was replaced."""

    name: Annotated[str, is_name]  # in the trash
    path: str | None  # where it was; None: that is not recorded
    logical_bytes: int  # what a reader got
    stored_bytes: int  # what the trash keeps
    trashed_ns: int  # nanoseconds since the epoch


@dataclass(frozen=True)
class Wish:
    """What a blob is to become."""

    changes: Mapping[str, Any]  # of the store's `EncodeSettings`, by name
    accept_loss: bool  # from what readers get, where the original is gone
