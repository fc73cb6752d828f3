"""Checking a store that nobody uses. It changes nothing, unless it is asked to repair, and then only what is worthless.

What can be found, and whether it is damage, that is, something that a reader does not get as it was written:

    damaged      yes  a blob fails its checksums, its rules, or its length; or user bytes that begin like a blob
    undecodable  yes  a whole blob that does not give the file it records (with `decode` only)
    unreadable   yes  the system refuses to read a file or folder
    too-new      yes  a blob of a newer SDFS
    no-model     no   a whole blob whose model is not on this machine, so that it was not decoded (with `decode` only)
    links        no   a blob with several names: writing to one of them will part them
    mode         no   a blob that its owner may not read and write
    layout       no   something in `.sdfs` that is not the store's, is missing, or is not what SDFS makes; or others may enter it
    staging      no   left by an owner that was killed, and worthless; `repair` removes it, as the next owner would
    trash-name   no   something in the trash that SDFS did not put there, and leaves there
    hidden       no   removed while it was open, by an owner that was killed; the next owner moves it to the trash

A damaged blob is never touched. Where the trash has what it was made of, or a file of its name, the finding says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sdfs.blob.container import KIND_LATENT, KIND_RAW, MAGIC
from sdfs.blob.file import BlobFile
from sdfs.errors import DamagedError, ModelError, StoreTooNew, UserError
from sdfs.owner.store.private_folder import PrivateFolder
from sdfs.owner.store.store import HIDDEN, lock, open_internal, read_config, staged_in, walk
from sdfs.owner.store.trash import TRASHED, trash_name
from sdfs.system.files import opened

Kind = Literal["damaged", "undecodable", "unreadable", "too-new", "no-model", "links", "mode", "layout", "staging", "trash-name", "hidden"]
DAMAGE: frozenset[Kind] = frozenset({"damaged", "undecodable", "unreadable", "too-new"})
Decode = Callable[[str, bytes], bytes]  # a key that names the blob, and the blob → what a reader gets
_OWNER_RW = 0o600
_KNOWN = re.compile(r"config\.toml|config\.toml\.new|lock|secret|staging|trash|log|log\.old")
_FOLDERS = ("staging", "trash")


@dataclass(frozen=True)
class Finding:
    path: str  # within the store, from its root
    kind: Kind
    message: str
    repaired: bool = False

    @property
    def is_damage(self) -> bool:
        return self.kind in DAMAGE


def check(
    root: Path, *, repair: bool = False, decode: Decode | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Finding]:
    """All that is wrong with a store, which nobody can own meanwhile. Changes nothing unless `repair`.

    `decode`: every whole blob is decoded too, but raw ones, in which is nothing to decode; its DamagedError and ModelError are
    findings, its EngineError is not and passes. `progress(done, total)` counts files. Raises NotAStore, StoreTooNew, StoreBusy.
    """
    real = os.path.realpath(root)
    read_config(root)
    with open_internal(real) as internal, _owned(internal, read_only=not repair), _Check(real, internal, repair, decode) as check_:
        return [*check_.internals(), *check_.files(progress)]


@contextlib.contextmanager
def _owned(internal: PrivateFolder, *, read_only: bool) -> Iterator[None]:
    try:
        fd = lock(internal, read_only=read_only)
    except FileNotFoundError:  # nobody has owned it yet, and to become the first would be a change
        yield
        return
    try:
        yield
    finally:
        os.close(fd)


class _Check:
    def __init__(self, root: str, internal: PrivateFolder, repair: bool, decode: Decode | None) -> None:
        self.root = root
        self._internal = internal
        self._repair = repair
        self._decode = decode
        self._errors: list[OSError] = []
        self._opened = contextlib.ExitStack()
        self._folders: dict[str, PrivateFolder] = {}  # staging and trash, where they are what they should be
        self._odd: dict[str, str] = {}  # names in `.sdfs` that are not, and why

    def __enter__(self) -> _Check:
        for name in filter(_KNOWN.fullmatch, os.listdir(self._internal.address)):
            try:
                if name in _FOLDERS:
                    self._folders[name] = self._opened.enter_context(self._internal.folder(name))
                else:
                    os.close(self._internal.file(name, os.O_PATH))
            except UserError as error:
                self._odd[name] = str(error).removeprefix(f"{self._internal.path}/{name} ")
            except OSError as error:
                self._odd[name] = f"cannot be opened: {error.strerror}"
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    # .sdfs

    def internals(self) -> Iterator[Finding]:
        if os.fstat(self._internal.fd).st_mode & 0o077:
            yield self._finding(self._internal.path, "layout", "others may enter it: want mode 0700")
        names = set(os.listdir(self._internal.address))
        for name in sorted(names):
            if not _KNOWN.fullmatch(name):
                yield self._finding(f"{self._internal.path}/{name}", "layout", "is not the store's")
            elif name in self._odd:
                yield self._finding(f"{self._internal.path}/{name}", "layout", self._odd[name])
        for name in _FOLDERS:
            if name not in names:
                yield self._finding(f"{self._internal.path}/{name}", "layout", "is missing: the next owner makes it")
        staging = self._folders.get("staging")
        for name, is_left in staged_in(staging):
            yield self._orphan(staging, name, is_left)  # type: ignore[arg-type]
        for name, is_trash in self._in_trash():
            if not is_trash:
                yield self._finding(f"{self._internal.path}/trash/{name}", "trash-name", "was not put there by SDFS: move it away")

    def _orphan(self, staging: PrivateFolder, name: str, is_left: bool) -> Finding:
        path, what = f"{staging.path}/{name}", "was being made by an owner that was killed"
        if not is_left:
            return self._finding(path, "layout", "is not the store's: move it away")
        if not self._repair:
            return self._finding(path, "staging", f"{what}: --repair removes it, and so does the next owner")
        os.unlink(staging.name(name))
        return replace(self._finding(path, "staging", what), repaired=True)

    def _in_trash(self) -> list[tuple[str, bool]]:
        """Names in the trash; whether each is a plain file that SDFS put there."""
        if (trash := self._folders.get("trash")) is None:
            return []
        found = []
        for name in sorted(os.listdir(trash.address)):
            with contextlib.suppress(FileNotFoundError):
                found.append((name, TRASHED.fullmatch(name) is not None and stat.S_ISREG(trash.look(name).st_mode)))
        return found

    def _trashed(self) -> Iterator[tuple[str, str]]:
        """Paths of files in the trash: for messages, and for this process."""
        for name, is_trash in self._in_trash():
            if is_trash:
                yield f"{self._internal.path}/trash/{name}", self._folders["trash"].name(name)

    # the tree, and the trash

    def files(self, progress: Callable[[int, int], None]) -> Iterator[Finding]:
        tree = ((path, path) for path in sorted(path for path, _ in walk(self.root, self._errors.append)))
        files = [*tree, *self._trashed()]
        for done, (path, at) in enumerate(files):
            progress(done, len(files))
            try:
                yield from self._file(path, at)
            except OSError as error:
                self._errors.append(error)
        progress(len(files), len(files))
        for refused in self._errors:
            yield self._finding(os.fsdecode(refused.filename or self.root), "unreadable", refused.strerror or str(refused))

    def _file(self, path: str, at: str) -> Iterator[Finding]:
        if HIDDEN.fullmatch(os.path.basename(path)):
            yield self._finding(path, "hidden", "was removed while it was open: the next mount moves it to the trash")
        try:
            with opened(at) as fd:
                if os.pread(fd, len(MAGIC), 0) == MAGIC:
                    yield from self._blob(path, fd)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None

    def _blob(self, path: str, fd: int) -> Iterator[Finding]:
        status, in_trash = os.fstat(fd), path.startswith(self._internal.path + "/")
        if status.st_nlink > 1 and not in_trash:
            yield self._finding(path, "links", f"is a blob with {status.st_nlink} names")
        if status.st_mode & _OWNER_RW != _OWNER_RW:
            yield self._finding(path, "mode", f"is a blob with mode {stat.S_IMODE(status.st_mode):04o}: its owner has to read and write it")
        kind: Kind = "damaged"
        try:
            blob = _whole(fd)
            kind = "undecodable"
            if self._decode is not None:
                _check_content(blob, self._decode)
        except StoreTooNew as error:
            yield self._finding(path, "too-new", str(error))
        except ModelError as error:
            yield self._finding(path, "no-model", f"is whole, but was not decoded: {error}")
        except DamagedError as error:
            yield self._finding(path, kind, str(error) + ("" if in_trash else self._rescue(path, fd)))

    # what the trash has of a damaged file

    def _rescue(self, path: str, fd: int) -> str:
        """A clause for the finding; '' where the trash has nothing."""
        header = _header(fd)
        size, digest = header.get("original_size"), header.get("original_sha256")
        namesakes = []
        for kept, at in self._trashed():
            if os.lstat(at).st_size == size and _sha256(at) == digest:
                return f"; its original is {kept}"
            match = TRASHED.match(os.path.basename(kept))
            if match and match["name"] == trash_name(path):
                namesakes.append(kept)
        return f"; a file of its name is {namesakes[-1]}" if namesakes else ""

    def _finding(self, path: str, kind: Kind, message: str) -> Finding:
        return Finding(path[len(self.root) :] or "/", kind, message)


def _whole(fd: int) -> BlobFile:
    """Check all of a file that begins like a blob. Raises DamagedError, StoreTooNew."""
    blob = BlobFile.of(fd)
    assert blob is not None
    blob.check()
    return blob


def _check_content(blob: BlobFile, decode: Decode) -> None:
    """Whether a whole blob gives what it records. A raw one may be of any size, and has its content as it is: no engine sees it."""
    preamble = blob.preamble
    if preamble.kind == KIND_RAW:
        have = _sha256(blob.fd, blob.raw_payload()[0])
    else:
        content = blob.read()
        render = decode(hashlib.sha256(content).hexdigest()[:32], content)
        if len(render) != preamble.rendered_size:
            raise DamagedError(f"render: want {preamble.rendered_size} bytes, have {len(render)}")
        have = hashlib.sha256(render).hexdigest()
    if preamble.kind != KIND_LATENT and have != (want := blob.header.get("original_sha256")):
        raise DamagedError(f"content hash: want {want}, have {have}")


def _header(fd: int) -> dict[str, Any]:
    """What a damaged blob still says, if its preamble and header are whole."""
    with contextlib.suppress(DamagedError, StoreTooNew):
        if (blob := BlobFile.of(fd)) is not None:
            return blob.header
    return {}


def _sha256(source: str | int, offset: int = 0) -> str:
    """Of a path, or an open file, which stays open, from an offset on."""
    with open(source, "rb", closefd=isinstance(source, str)) as file:
        file.seek(offset)
        return hashlib.file_digest(file, "sha256").hexdigest()
