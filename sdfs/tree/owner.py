"""All that owns a store, in one object: the store, the engine, the tree, the worker. And `Access` to it, for who is in this process."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import posixpath
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from sdfs import container
from sdfs.cache import DEFAULT_BYTES, DiskCache, RenderCache
from sdfs.container import KIND_LATENT, PREAMBLE_BYTES, Preamble
from sdfs.engine.client import Engine as ChildEngine
from sdfs.errors import DamagedError, EngineError, NameTaken, StoreBusy, StoreFull, StoreTooNew, UserError
from sdfs.files import fsync_path
from sdfs.settings import Memory
from sdfs.store import INTERNAL, Store
from sdfs.tree import trash
from sdfs.tree.compressor import Compressor
from sdfs.tree.importing import import_file
from sdfs.tree.inode import key_of
from sdfs.tree.pending import Pending
from sdfs.tree.read_ahead import ReadAhead
from sdfs.tree.recompressing import recompress
from sdfs.tree.renders import Engine, Renders, read_header
from sdfs.tree.statistics import Census, count, engine_figures, resident_bytes
from sdfs.tree.status import FileStatus, Listed, State, Statistics, StoreStatus, Trashed, Usage, Wish
from sdfs.tree.tree import Tree

_CHUNK_BYTES = 1 << 20
_MAX_TEXT = 4096  # characters of one value of a header
_LISTED_KINDS: dict[int, Literal["folder", "symlink"]] = {stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}
_USER_ERRORS = {errno.EEXIST: NameTaken, errno.ENOSPC: StoreFull, errno.EDQUOT: StoreFull}
_FROM_HEADER: dict[str, type] = {  # a header's checksum does not make its values what they should be
    "original_sha256": str,
    "format": str,
    "width": int,
    "height": int,
    "quality": int,
    "scores": dict,
    "autoencoder": str,
    "reason": str,
}


class Owner:
    """Owns a store from here to `close`. The worker runs once it is started, or somebody calls `sync`."""

    def __init__(
        self, root: Path, *, engine: Callable[[], Engine] | None = None, cache_bytes: int = DEFAULT_BYTES, memory: Memory | None = None
    ) -> None:
        """Raises NotAStore, StoreTooNew, StoreBusy.

        `engine` makes the engine, which then belongs to the owner, in place of a child process that may take `memory`.
        """
        self.store = Store(root)
        self.mountpoint: str | None = None
        self.read_only = self.store.read_only  # or set by a mount that is
        self.unmount: Callable[[], None] | None = None
        self.on_hand_over: Callable[[], None] | None = None  # told to close the owner soon, for somebody wants to mount the store
        self._adding = threading.Lock()
        self._ending = threading.Lock()  # held while the engine is closed
        self._engine = ChildEngine(memory=memory) if engine is None else engine()
        self._cache = RenderCache(cache_bytes)
        self.renders = Renders(self._engine, self._cache)
        self.tree = Tree(self.store, self.renders, Pending())
        self.compressor = Compressor(self.tree, self._engine)
        self._census = Census(self._files)
        self._read_ahead: ReadAhead | None = None

    def read_ahead(self, pictures: int) -> None:
        """From now on, have so many pictures decoded before readers, who read a folder in order, ask for them. 0: none."""
        if pictures:
            self._read_ahead = ReadAhead(self.tree.heads, self.renders, pictures)
            self.renders.on_read = self._read_ahead.note

    def interrupt(self) -> None:
        """Let nobody wait for the queue any more: it is not worked again."""
        self.tree.pending.close()

    def give_up(self) -> None:
        """There are no readers any more: let nobody wait for the engine."""
        self.interrupt()
        with self._ending:
            self._engine.close()

    def close(self) -> None:
        self.interrupt()
        self.tree.inodes.commit_all()
        self.give_up()
        if self._read_ahead is not None:
            self._read_ahead.close()
        self.compressor.stop()
        self._census.close()
        if self.renders.disk is not None:
            self.renders.disk.close()
        self.store.close()

    # Access

    def add(self, source: Path, destination: str, sha256: str | None = None) -> str:
        self._refuse_read_only()
        path = self._path(destination)
        with _user_errors(f"{source} → {path}"):
            fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG((status := os.fstat(fd)).st_mode):
                    raise UserError(f"{source} is no regular file")
                if sha256 is None:
                    return self._import(fd, path, None)
                with self._adding:  # or two of them would both not find it
                    known = self.find(sha256, status.st_size)
                    return known.path if known is not None else self._import(fd, path, sha256)
            finally:
                os.close(fd)

    def _import(self, fd: int, path: str, sha256: str | None) -> str:
        folder = self.tree.backing(posixpath.dirname(path))
        self._refuse_inner(folder)
        self._make_folders(folder)
        import_file(self.tree, fd, path, sha256)
        return path

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
                if self.compressor.scanned.is_set() and stuck is not None:
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
        if not self.compressor.scanned.is_set():
            self._refuse_read_only()
            with self._working():
                while not self.compressor.scanned.is_set():
                    self._wait_for_worker()
        path = self.tree.known.by_original(sha256, size)
        if path is None:
            return None
        with _user_errors(path):
            fsync_path(path)  # an unwrapped file may be there without being durable
            self.tree.folders.sync(path)
        return self.stat(self.tree.virtual(path))

    def hand_over(self) -> None:
        if self.on_hand_over is None:
            where = f"mounted at {self.mountpoint}" if self.mountpoint else "in use"
            raise StoreBusy(f"{self.store.root} is {where}, by process {os.getpid()}")
        self.on_hand_over()

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """The worker runs, and does not let files settle."""
        if not self.compressor.started:
            self.compressor.start()
        self.tree.pending.hurry(1)
        try:
            yield
        finally:
            self.tree.pending.hurry(-1)

    def _wait_for_worker(self) -> None:
        if self.tree.pending.closed:
            raise StoreBusy(f"{self.store.root} is being closed: {len(self.tree.pending)} files stay pending")
        self.tree.pending.wait(0.5)

    def _refuse_read_only(self) -> None:
        if self.store.read_only:
            raise UserError(f"{self.store.root} is root's, or on a filesystem that is mounted read-only: nothing in it can be changed")
        if self.read_only:
            raise UserError(f"{self.store.root} is mounted read-only, at {self.mountpoint}: mount it without -o ro for that")

    def status(self) -> StoreStatus:
        return StoreStatus(
            store=self.store.root,
            pid=os.getpid(),
            mountpoint=self.mountpoint,
            **asdict(self.store.settings) | asdict(count(self._files())),
            cache_bytes=self._cache.size_bytes,
        )

    def statistics(self) -> Statistics:
        counts, age = self._census.counts()
        return Statistics(
            store=self.store.root,
            pid=os.getpid(),
            mountpoint=self.mountpoint,
            **asdict(counts),
            counted_seconds_ago=age,
            queued=len(self.tree.pending),
            **self.renders.meters.figures(),
            memory_hits=self._cache.hits,
            memory_misses=self._cache.misses,
            memory_bytes=self._cache.size_bytes,
            **_disk_figures(self.renders.disk),
            **engine_figures(self._engine.stats()),
            resident_bytes=resident_bytes(os.getpid()),
        )

    def stat(self, path: str) -> FileStatus:
        with _user_errors(path):
            return self._file_status(self._existing(path), with_header=True)

    def list(self, path: str) -> list[Listed]:
        with _user_errors(path):
            backing = self._existing(path)
            if not stat.S_ISDIR(os.lstat(backing).st_mode):
                return [self._listed(backing)]
            listed = []
            for name in sorted(os.listdir(backing)):
                if self.tree.virtual(f"{backing}/{name}") != f"/{INTERNAL}":
                    with contextlib.suppress(FileNotFoundError):
                        listed.append(self._listed(posixpath.join(backing, name)))
            return listed

    def read_to(self, path: str, file: BinaryIO, model: str | None = None) -> None:
        with _user_errors(path):
            backing = self._existing(path)
            if not stat.S_ISREG(os.lstat(backing).st_mode):
                raise UserError(f"{path} is no regular file")
            if model is not None and (blob := _latent_blob(backing)) is not None:
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
            is_file = stat.S_ISREG(os.lstat(backing).st_mode)
            files = []
            for file in [backing] if is_file else [file for file, _ in self.store.walk(backing)]:
                with contextlib.suppress(FileNotFoundError):
                    files.append(self._file_status(file, with_header=False))
            virtual = self.tree.virtual(backing)
            sums = (sum(file.logical_bytes for file in files), sum(file.stored_bytes for file in files))
            return Usage(virtual, len(files), *sums, trash.stored_bytes(self.tree, virtual))

    def trashed(self) -> Sequence[Trashed]:
        return trash.entries(self.tree)

    def restore(self, name: str, folder: str | None) -> str:
        trashed = trash.choose(self.tree, name)
        path = trashed.path
        if folder is not None:
            path = self._path(posixpath.join(folder, posixpath.basename(trashed.path or trashed.name.partition(".")[2])))
        elif path is None:
            raise UserError(f"where {trashed.name} was is not recorded: name a folder with --to")
        with _user_errors(path):
            target = self.tree.backing(path)
            self._refuse_inner(os.path.dirname(target))
            self._make_folders(os.path.dirname(target))
            trash.restore(self.tree, trashed, target)
        return path

    def empty_trash(self) -> None:
        with _user_errors("trash"):
            trash.empty(self.tree)

    def shutdown(self) -> None:
        if self.unmount is None:
            raise UserError(f"{self.store.root} is not mounted: process {os.getpid()} ends when its command is done")
        self.unmount()

    # one file

    def _files(self) -> Iterator[FileStatus]:
        for path, _ in self.store.walk():
            with contextlib.suppress(OSError):
                yield self._file_status(path, with_header=False)

    def _listed(self, backing: str) -> Listed:
        status = os.lstat(backing)
        path = self.tree.virtual(backing)
        if not stat.S_ISREG(status.st_mode):
            return Listed(path, _LISTED_KINDS.get(stat.S_IFMT(status.st_mode), "special"), 0, 0, status.st_mtime_ns)
        file = self._file_status(backing, with_header=False)
        return Listed(path, file.state, file.logical_bytes, file.stored_bytes, status.st_mtime_ns)

    def _file_status(self, backing: str, *, with_header: bool) -> FileStatus:
        path = self.tree.virtual(backing)
        try:
            status, preamble = self.tree.heads.look(backing)
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path} is no regular file")
            if preamble is None:
                size = self.tree.getattr(path).size
                if not self._is_pending(backing, status):
                    return FileStatus(path, "plain", size, status.st_size)
                return FileStatus(path, "pending", size, status.st_size, reason=self.tree.pending.reason(key_of(status)))
            state: State = "latent" if preamble.kind == KIND_LATENT else "exact"
            plain = FileStatus(path, state, preamble.rendered_size, status.st_size)
            return _with_header(plain, _header(backing, preamble)) if with_header else plain
        except (DamagedError, StoreTooNew) as error:
            size = os.lstat(backing).st_size
            return FileStatus(path, "damaged", size, size, reason=str(error))

    def _is_pending(self, backing: str, status: os.stat_result) -> bool:
        return key_of(status) in self.tree.pending or self.compressor.wants(backing, status)

    # paths from outside

    def _path(self, path: str) -> str:
        """A mount path from one that a user gave."""
        return posixpath.normpath("/" + path.lstrip("/"))

    def _existing(self, path: str) -> str:
        """The backing path of something that is there."""
        backing = self.tree.backing(self._path(path))
        os.lstat(backing)
        self._within(os.path.dirname(backing) if backing != self.store.root else backing)
        return backing

    def _make_folders(self, folder: str) -> None:
        try:
            with self.tree.install.names:  # a folder that gets another has other times then
                self.store.make_folders(folder, self.tree.folders.changed)
        except NotADirectoryError:
            raise UserError(f"{self.tree.virtual(folder)}, or a folder above it, is in the way: it is no folder") from None

    def _refuse_inner(self, backing: str) -> None:
        if (inner := self.store.inner_store(backing)) is not None:
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


def _latent_blob(backing: str) -> bytes | None:
    with open(backing, "rb") as file:
        head = file.read(PREAMBLE_BYTES)
        is_latent = container.is_blob(head) and Preamble.parse(head).kind == KIND_LATENT
        return head + file.read() if is_latent else None


def _header(backing: str, preamble: Preamble) -> dict[str, Any]:
    fd = os.open(backing, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return read_header(fd, preamble)[1]
    finally:
        os.close(fd)


def _with_header(status: FileStatus, header: dict[str, Any]) -> FileStatus:
    known = {name: header[name] for name, kind in _FROM_HEADER.items() if _is_sane(header.get(name), kind)}
    size = header.get("original_size")
    return replace(status, original_bytes=size if _is_sane(size, int) else None, **known)


def _is_sane(value: object, kind: type) -> bool:
    """Whether a program can do something with it: who made the blob may have written anything."""
    if type(value) is not kind:
        return False
    if isinstance(value, dict):
        return {"psnr", "ms_ssim"} <= value.keys() and all(type(score) in (int, float) and math.isfinite(score) for score in value.values())
    return len(value) <= _MAX_TEXT if isinstance(value, str) else not isinstance(value, int) or abs(value) < 1 << 63


@contextlib.contextmanager
def _user_errors(subject: str) -> Iterator[None]:
    """What the system says of a path that a user gave becomes a UserError."""
    try:
        yield
    except OSError as error:
        raise _USER_ERRORS.get(error.errno or 0, UserError)(f"{subject}: {error.strerror or error}") from error
