"""Questions about one file of a store: what it is, and what a listing says of it. Paths are of the backing filesystem."""

# System calls on `str` paths, which need not be decodable.
from __future__ import annotations

import contextlib
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from sdfs.blob.container import KIND_LATENT
from sdfs.blob.file import BlobFile
from sdfs.control.answers import FileStatus, Listed, Reason, State
from sdfs.errors import DamagedError, StoreTooNew, UserError
from sdfs.owner.jobs.compressor import Compressor
from sdfs.owner.tree.tree import Tree
from sdfs.system.file_id import FileId

_MAX_TEXT = 4096  # characters of one value of a header
_NUMBER = re.compile(r"\d[\d.,]*")
_LISTED_KINDS: dict[int, Literal["folder", "symlink"]] = {stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}
_FROM_HEADER: dict[str, type] = {  # a header's checksum does not make its values what they should be
    "original_sha256": str,
    "format": str,
    "width": int,
    "height": int,
    "asked": int,
    "quality": int,
    "scores": dict,
    "autoencoder": str,
    "reason": str,
}


def file_status(tree: Tree, compressor: Compressor, backing: str, *, with_header: bool) -> FileStatus:
    """Tell what a regular file is. Raises UserError for anything else, and OSError."""
    path = tree.virtual(backing)
    try:
        status, preamble = tree.preambles.look(backing)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no regular file")
        if preamble is None:
            size = tree.getattr(path).size
            if FileId.of(status) not in tree.pending and (reason := compressor.why_plain(backing, status)) is not None:
                return FileStatus(path, "plain", size, status.st_size, reason=reason or None)
            return FileStatus(path, "pending", size, status.st_size, reason=tree.pending.reason(FileId.of(status)))
        state: State = "latent" if preamble.kind == KIND_LATENT else "exact"
        plain = FileStatus(path, state, preamble.rendered_size, status.st_size)
        return _with_header(plain, backing) if with_header else plain
    except (DamagedError, StoreTooNew) as error:
        size = os.lstat(backing).st_size
        return FileStatus(path, "damaged", size, size, reason=str(error))


def listed(tree: Tree, compressor: Compressor, backing: str) -> Listed:
    """Tell what a listing says of anything that has a name. Raises OSError."""
    status = os.lstat(backing)
    path = tree.virtual(backing)
    if not stat.S_ISREG(status.st_mode):
        return Listed(path, _LISTED_KINDS.get(stat.S_IFMT(status.st_mode), "special"), 0, 0, status.st_mtime_ns)
    file = file_status(tree, compressor, backing, with_header=False)
    return Listed(path, file.state, file.logical_bytes, file.stored_bytes, status.st_mtime_ns)


def all_files(tree: Tree, compressor: Compressor) -> Iterator[FileStatus]:
    """Walk through the store; files that go meanwhile are passed over."""
    for path, _ in tree.store.walk():
        with contextlib.suppress(OSError):
            yield file_status(tree, compressor, path, with_header=False)


def latent_blob(backing: str) -> bytes | None:
    """Return the whole blob where a file is one of latents. Raises OSError, DamagedError, StoreTooNew."""
    with BlobFile.open(backing) as blob:
        return blob.read() if blob is not None and blob.preamble.kind == KIND_LATENT else None


def _with_header(status: FileStatus, backing: str) -> FileStatus:
    with BlobFile.open(backing) as blob:
        header = {} if blob is None else blob.header
    known = {name: header[name] for name, kind in _FROM_HEADER.items() if _is_sane(header.get(name), kind)}
    known |= {"original_bytes": header["original_size"]} if _is_sane(header.get("original_size"), int) else {}
    if "behind" in (sections := {name: length for name, length, _ in header.get("sections", [])}) and _is_sane(
        header.get("behind_size"), int
    ):
        known |= {"behind_bytes": header["behind_size"], "behind_stored_bytes": sections["behind"]}
    return replace(status, **known)


def reasons(files: Iterable[FileStatus]) -> list[Reason]:
    """Sum up files that are not latents by why that is; reasons that differ in numbers alone are one. The most stored bytes first."""
    found: dict[tuple[State, str | None], list[FileStatus]] = {}
    for file in files:
        if file.state != "latent":
            found.setdefault((file.state, _NUMBER.sub("…", file.reason) if file.reason else None), []).append(file)
    sums = [
        Reason(*key, len(these), sum(f.logical_bytes for f in these), sum(f.stored_bytes for f in these)) for key, these in found.items()
    ]
    return sorted(sums, key=lambda one: -one.stored_bytes)


def _is_sane(value: object, kind: type) -> bool:
    """Whether a program can do something with it: who made the blob may have written anything."""
    if type(value) is not kind:
        return False
    if isinstance(value, dict):
        return {"psnr", "ms_ssim"} <= value.keys() and all(type(score) in (int, float) and math.isfinite(score) for score in value.values())
    return len(value) <= _MAX_TEXT if isinstance(value, str) else not isinstance(value, int) or abs(value) < 1 << 63
