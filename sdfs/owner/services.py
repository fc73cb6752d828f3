"""What clients may ask of a store's owner: the table of `sdfs.control.requests`, for whoever is in this process. Thread-safe."""

# System calls on `str` paths, which need not be decodable, and on descriptors.
from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.control.answers import FileStatus, Listed, Reason, Statistics, StoreStatus, Trashed, Usage, Wish
from sdfs.engine.interface import Engine
from sdfs.errors import EngineError, NameTaken, NotAPicture, StoreBusy, StoreFull, UserError
from sdfs.owner.census import Census, count, engine_figures, resident_bytes
from sdfs.owner.file_status import all_files, file_status, latent_blob, listed, reasons
from sdfs.owner.jobs import restoring
from sdfs.owner.jobs.compressor import MAX_PICTURE_BYTES, Compressor
from sdfs.owner.jobs.importing import import_as_jpeg, import_file
from sdfs.owner.jobs.recompressing import recompress
from sdfs.owner.renders.disk_cache import DiskCache
from sdfs.owner.renders.renders import Renders
from sdfs.owner.store.store import INTERNAL
from sdfs.owner.tree.tree import Tree
from sdfs.settings import Heic
from sdfs.system.files import fsync_path, opened, read_all

_CHUNK_BYTES = 1 << 20
_USER_ERRORS = {errno.EEXIST: NameTaken, errno.ENOSPC: StoreFull, errno.EDQUOT: StoreFull}


@dataclass(frozen=True)
class Mount:
    """What the owner of a store has to know of its mount."""

    mountpoint: str
    read_only: bool
    unmount: Callable[[], None]
    forget: Callable[[str], None]  # has the kernel forget its pages of a path of the tree


class Services:
    """`sdfs.control.requests.Access`, whose docstrings say what each does."""

    def __init__(
        self,
        tree: Tree,
        renders: Renders,
        engine: Engine,
        compressor: Compressor,
        census: Census,
        mount: Mount | None,
        on_hand_over: Callable[[], None] | None,
    ) -> None:
        self.tree = tree
        self._store = tree.store
        self._renders = renders
        self._engine = engine
        self._compressor = compressor
        self._census = census
        self._mount = mount
        self._on_hand_over = on_hand_over
        self._adding = threading.Lock()

    def add(self, source: Path, destination: str, sha256: str | None = None, heic: Heic = "keep") -> str:
        self._refuse_read_only()
        path = self._path(destination)
        with _user_errors(f"{source} → {path}"):
            fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG((status := os.fstat(fd)).st_mode):
                    raise UserError(f"{source} is no regular file")
                if sha256 is None:
                    return self._import(fd, path, None, heic)
                with self._adding:  # or two of them would both not find it
                    known = self.find(sha256, status.st_size)
                    return known.path if known is not None else self._import(fd, path, sha256, heic)
            finally:
                os.close(fd)

    def _import(self, fd: int, path: str, sha256: str | None, heic: Heic) -> str:
        folder = self.tree.backing(posixpath.dirname(path))
        self._refuse_inner(folder)
        self._make_folders(folder)
        if heic == "jpeg":
            return import_as_jpeg(self.tree, self._engine, fd, path, sha256)
        import_file(self.tree, fd, path, sha256)
        return path

    def check(self, source: Path) -> str | None:
        with _user_errors(str(source)), opened(str(source)) as fd:
            if picture_format(os.pread(fd, HEAD_BYTES, 0)) is None or os.fstat(fd).st_size > MAX_PICTURE_BYTES:
                return None
            try:
                self._engine.check(read_all(fd)).result()
            except NotAPicture as reason:
                return str(reason)
            return None

    def sync(self, progress: Callable[[int, int], None]) -> None:
        self._refuse_read_only()
        pending = self.tree.pending
        first, told = pending.done, (-1, -1)
        pending.retry_all()
        with self._working():
            while True:
                left, done = len(pending), pending.done - first
                if told != (done, done + left):
                    told = (done, done + left)
                    progress(*told)
                stuck = pending.stuck()
                if self._compressor.scanned.is_set() and stuck is not None:
                    break
                self._wait_for_worker()
        errors = [entry.error for entry in stuck if entry.error is not None]
        if errors:
            raise EngineError(f"{len(errors)} of {told[1]} files stay pending: {errors[-1]}")

    def settle(self, path: str, seconds: float) -> FileStatus:
        self._refuse_read_only()
        end = time.monotonic() + seconds
        with self._working():
            while (status := self.stat(path)).state == "pending" and status.reason is None and time.monotonic() < end:
                self._wait_for_worker()
            return status

    def find(self, sha256: str, size: int) -> FileStatus | None:
        if not self._compressor.scanned.is_set():
            self._refuse_read_only()
            with self._working():
                while not self._compressor.scanned.is_set():
                    self._wait_for_worker()
        path = self.tree.content_index.by_content(sha256, size)
        if path is None:
            return None
        with _user_errors(path):
            fsync_path(path)  # an unwrapped file may be there without being durable
            self.tree.durable_names.sync(path)
        return self.stat(self.tree.virtual(path))

    def hand_over(self) -> None:
        if self._on_hand_over is None:
            where = f"mounted at {self._mount.mountpoint}" if self._mount else "in use"
            raise StoreBusy(f"{self._store.root} is {where}, by process {os.getpid()}")
        self._on_hand_over()

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """The worker runs, and does not let files settle."""
        if not self._compressor.started:
            self._compressor.start()
        self.tree.pending.hurry(1)
        try:
            yield
        finally:
            self.tree.pending.hurry(-1)

    def _wait_for_worker(self) -> None:
        if self.tree.pending.closed:
            raise StoreBusy(f"{self._store.root} is being closed: {len(self.tree.pending)} files stay pending")
        self.tree.pending.wait(0.5)

    def _refuse_read_only(self) -> None:
        if self._store.read_only:
            raise UserError(f"{self._store.root} is root's, or on a filesystem that is mounted read-only: nothing in it can be changed")
        if self._mount is not None and self._mount.read_only:
            raise UserError(f"{self._store.root} is mounted read-only, at {self._mount.mountpoint}: mount it without -o ro to change it")

    def status(self) -> StoreStatus:
        return StoreStatus(
            store=self._store.root,
            pid=os.getpid(),
            mountpoint=self._mount.mountpoint if self._mount else None,
            **asdict(self._store.settings) | asdict(count(all_files(self.tree, self._compressor))),
        )

    def statistics(self) -> Statistics:
        counts, age = self._census.counts()
        return Statistics(
            store=self._store.root,
            pid=os.getpid(),
            mountpoint=self._mount.mountpoint if self._mount else None,
            **asdict(counts),
            counted_seconds_ago=age,
            queued=len(self.tree.pending),
            **self._renders.meters.figures(),
            memory_hits=self._renders.cache.hits,
            memory_misses=self._renders.cache.misses,
            memory_bytes=self._renders.cache.size_bytes,
            **_disk_figures(self._renders.disk),
            **engine_figures(self._engine.stats()),
            resident_bytes=resident_bytes(os.getpid()),
        )

    def stat(self, path: str) -> FileStatus:
        with _user_errors(path):
            return file_status(self.tree, self._compressor, self._existing(path), with_header=True)

    def list(self, path: str) -> list[Listed]:
        with _user_errors(path):
            backing = self._existing(path)
            if not stat.S_ISDIR(os.lstat(backing).st_mode):
                return [listed(self.tree, self._compressor, backing)]
            found = []
            for name in sorted(os.listdir(backing)):
                if self.tree.virtual(f"{backing}/{name}") != f"/{INTERNAL}":
                    with contextlib.suppress(FileNotFoundError):
                        found.append(listed(self.tree, self._compressor, posixpath.join(backing, name)))
            return found

    def read_to(self, path: str, file: BinaryIO, model: str | None = None) -> None:
        with _user_errors(path):
            backing = self._existing(path)
            if not stat.S_ISREG(os.lstat(backing).st_mode):
                raise UserError(f"{path} is no regular file")
            if model is not None and (blob := latent_blob(backing)) is not None:
                file.write(self._engine.decode(f"{hashlib.sha256(blob).hexdigest()} {model}", blob, model=model).result())
                return
            handle = self.tree.open(self.tree.virtual(backing), os.O_RDONLY)
        try:
            offset = 0
            while chunk := handle.read(_CHUNK_BYTES, offset):
                file.write(chunk)
                offset += len(chunk)
        finally:
            self.tree.release(handle)

    def recompress(self, path: str, wish: Wish) -> FileStatus:
        self._refuse_read_only()
        with _user_errors(path):
            backing = self._existing(path)
            self._refuse_inner(backing)
            virtual = self.tree.virtual(backing)
            recompress(self.tree, self._engine, virtual, wish)
            return self.stat(virtual)

    def usage(self, path: str) -> Usage:
        with _user_errors(path):
            backing = self._existing(path)
            files = list(self._files(backing, with_header=False))
            virtual = self.tree.virtual(backing)
            sums = (sum(file.logical_bytes for file in files), sum(file.stored_bytes for file in files))
            return Usage(virtual, len(files), *sums, restoring.stored_bytes(self.tree, virtual))

    def reasons(self, path: str) -> Sequence[Reason]:
        with _user_errors(path):
            return reasons(self._files(self._existing(path), with_header=True))

    def _files(self, backing: str, *, with_header: bool) -> Iterator[FileStatus]:
        """One file, or all below a folder; those that go meanwhile are passed over."""
        is_file = stat.S_ISREG(os.lstat(backing).st_mode)
        for file in [backing] if is_file else (file for file, _ in self._store.walk(backing)):
            with contextlib.suppress(FileNotFoundError):
                yield file_status(self.tree, self._compressor, file, with_header=with_header)

    def trashed(self) -> Sequence[Trashed]:
        return restoring.entries(self.tree)

    def restore(self, name: str, folder: str | None) -> str:
        trashed = restoring.choose(self.tree, name)
        path = trashed.path
        if folder is not None:
            path = self._path(posixpath.join(folder, posixpath.basename(trashed.path or trashed.name.partition(".")[2])))
        elif path is None:
            raise UserError(f"the trash does not record where {trashed.name} was: name a folder with --to")
        with _user_errors(path):
            target = self.tree.backing(path)
            self._refuse_inner(os.path.dirname(target))
            self._make_folders(os.path.dirname(target))
            restoring.restore(self.tree, trashed, target)
        return path

    def empty_trash(self) -> None:
        with _user_errors("trash"):
            restoring.empty(self.tree)

    def shutdown(self) -> None:
        if self._mount is None:
            raise UserError(f"{self._store.root} is not mounted: process {os.getpid()} ends when its command is done")
        self._mount.unmount()

    # paths from outside

    def _path(self, path: str) -> str:
        """A mount path from one that a user gave."""
        return posixpath.normpath("/" + path.lstrip("/"))

    def _existing(self, path: str) -> str:
        """The backing path of something that is there."""
        backing = self.tree.backing(self._path(path))
        os.lstat(backing)
        self._within(os.path.dirname(backing) if backing != self._store.root else backing)
        return backing

    def _make_folders(self, folder: str) -> None:
        try:
            with self.tree.install.names:  # a folder that gets another has other times then
                self._store.make_folders(folder, self.tree.durable_names.changed)
        except NotADirectoryError:
            raise UserError(f"{self.tree.virtual(folder)} cannot be made: a file is in the way") from None

    def _refuse_inner(self, backing: str) -> None:
        if (inner := self._store.inner_store(backing)) is not None:
            raise UserError(f"{inner} is a store by itself: name that one")

    def _within(self, folder: str) -> None:
        """Refuse a folder that is reached through a symbolic link: it may be outside the store."""
        if os.path.realpath(folder) != folder.rstrip("/"):
            raise OSError(errno.ELOOP, "there is a symbolic link on the way", self.tree.virtual(folder))


def _disk_figures(disk: DiskCache | None) -> dict[str, Any]:
    """Fields of `Statistics`."""
    if disk is None:
        return {"disk_hits": None, "disk_misses": None, "disk_bytes": None}
    return {"disk_hits": disk.hits, "disk_misses": disk.misses, "disk_bytes": disk.size_bytes}


@contextlib.contextmanager
def _user_errors(subject: str) -> Iterator[None]:
    """What the system says of a path that a user gave becomes a UserError."""
    try:
        yield
    except OSError as error:
        raise _USER_ERRORS.get(error.errno or 0, UserError)(f"{subject}: {error.strerror or error}") from error
