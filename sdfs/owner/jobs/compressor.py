"""The owner's worker: pending files → blobs, one at a time; and the trash's expiry.

    take an entry → read the file → engine.encode (no lock held) → swap

Where the file is a render that came back, whole or with other metadata, `engine.encode` gets the blob it came from, whose latents it
keeps if the pixels are the same.

A swap happens under the inode's lock, and only if the file is closed, has one name, and is what was read: nobody opened it for
writing since (the entry's generation) and its size, mtime and ctime are the same (nobody changed the backing behind our back). The
blob was fsynced before, and `sdfs.owner.tree.install` gives it the name. Openers wait for the lock, find that the name has another inode,
and open that.

The kernel's pages of the name are stale then. They are invalidated after the lock is given back, since a handler may wait for it;
an opener who is faster is told not to keep them (`sdfs.owner.tree.opening`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from sdfs.blob import container
from sdfs.blob.file import BlobFile
from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.engine.interface import Engine
from sdfs.errors import KnownRender, NotAPicture, SdfsError
from sdfs.owner.index.pending import Taken
from sdfs.owner.store.attributes import note_verdict, stays_plain, verdict
from sdfs.owner.store.store import HIDDEN, Staged
from sdfs.owner.tree.inode import seal
from sdfs.owner.tree.install import Over, Refused
from sdfs.owner.tree.tree import Tree
from sdfs.system.file_id import FileId, FileState
from sdfs.system.files import opened, read_all

MAX_PICTURE_BYTES = 256 << 20  # larger files are never pending
EXPIRY_SECONDS = 600.0
HIDDEN_SECONDS = 1.0
SEARCH_SECONDS = 0.5  # before a search: files are rarely removed one by one
SEARCH_PAUSE = 10.0  # times as long as the last search took
_REFUSED = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Original:
    """A pending file as it was read."""

    state: FileState
    data: bytes


class Compressor:
    """Starts with `start`, ends with `stop`; in between it works the tree's pending queue."""

    def __init__(self, tree: Tree, engine: Engine) -> None:
        self.scanned = threading.Event()
        self._tree = tree
        self._engine = engine
        # What the engine found to be no picture, and why: where the filesystem has no attributes to note it in.
        self._refused: OrderedDict[FileId, tuple[FileState, str]] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="sdfs-compressor")
        self._scanner = threading.Thread(target=self._scan, name="sdfs-scan")
        self._stopping = threading.Event()

    @property
    def started(self) -> bool:
        return self._thread.ident is not None

    def start(self) -> None:
        self._scanner.start()
        self._thread.start()

    def stop(self) -> None:
        """Ends after the request that is with the engine, if any: close the engine first to fail that one."""
        self._stopping.set()
        self._tree.pending.close()
        if self.started:
            self._scanner.join()
            self._thread.join()

    def wants(self, path: str, status: os.stat_result) -> bool:
        """Whether a file of the backing directory is, or should be, pending."""
        return self.why_plain(path, status) is None

    def why_plain(self, path: str, status: os.stat_result) -> str | None:
        """Tell why an unwrapped file is to stay so: "" where it does not even begin like a picture. None: it is, or should be, pending."""
        if HIDDEN.fullmatch(os.path.basename(path)):
            return ""
        try:
            with opened(path) as fd:
                return self._why_plain(fd, status)
        except OSError:
            return ""

    def _why_plain(self, fd: int, status: os.stat_result) -> str | None:
        if picture_format(os.pread(fd, HEAD_BYTES, 0)) is None:
            return ""
        if status.st_nlink > 1:
            return "it has several names"
        if status.st_size > MAX_PICTURE_BYTES:
            return f"it has more than {MAX_PICTURE_BYTES >> 20} MiB"
        if stays_plain(fd):
            return "it was restored, and not written to since"
        state, reason = self._refused.get(FileId.of(status), (None, ""))
        return reason if state == FileState.of(status) else verdict(fd)

    def _scan(self) -> None:
        """Find what was pending when the last owner ended, and what its open, unlinked files left behind; then what lost a name."""
        store, pending = self._tree.store, self._tree.pending
        for path, status in store.walk():
            if self._stopping.is_set():
                return
            if HIDDEN.fullmatch(os.path.basename(path)):
                self._tree.hidden.add(path)
            elif FileId.of(status) not in pending and self.wants(path, status):
                pending.offer(FileId.of(status), path)
            self._tree.content_index.note(path)
        self.scanned.set()
        pending.poke()
        self._search()

    def _search(self) -> None:
        """Find the last names of files that had several. A folder of such that is removed must not have the store walked all the time."""
        store, pending = self._tree.store, self._tree.pending
        while pending.sought() and not self._stopping.wait(SEARCH_SECONDS):
            sought, began_at = pending.sought(), time.monotonic()
            for path, status in store.walk():
                if FileId.of(status) in sought and self.wants(path, status):
                    pending.offer(FileId.of(status), path)
                if self._stopping.is_set():
                    return
            pending.searched(sought)
            self._stopping.wait(SEARCH_PAUSE * (time.monotonic() - began_at))

    def _run(self) -> None:
        expired_at = -EXPIRY_SECONDS
        while not (self._stopping.is_set() or self._tree.pending.closed):
            taken = self._tree.pending.take(HIDDEN_SECONDS if self._tree.hidden else EXPIRY_SECONDS)
            for hidden in list(self._tree.hidden):
                with contextlib.suppress(OSError):
                    self._tree.sweep_hidden(hidden)
            if time.monotonic() - expired_at >= EXPIRY_SECONDS:
                expired_at = time.monotonic()
                self._expire()
            if taken is not None:
                self._handle(taken)

    def _expire(self) -> None:
        try:
            self._tree.store.expire_trash(time.time())
        except OSError as error:
            _log.warning("the trash could not be emptied: %s", error)

    def _handle(self, taken: Taken) -> None:
        pending = self._tree.pending
        try:
            if self._compress(taken):
                pending.finish(taken)
            else:
                pending.retry(taken)
        except (SdfsError, OSError) as error:
            if not self._stopping.is_set():
                _log.warning("%s stays as it is for now: %s", taken.path, error)
            pending.retry(taken, error)
        except Exception as error:
            _log.exception("%s stays as it is for now", taken.path)
            pending.retry(taken, error)

    def _compress(self, taken: Taken) -> bool:
        """Whether the entry is dealt with; False: the file is open, or changes."""
        inode = self._tree.inodes.find(taken.key)
        if inode is not None and inode.handles:
            return False
        original = self._read(taken.key)
        if original is None:
            return True
        try:
            blob = self._encode(original.data, self._tree.pending.path_of(taken.key))
        except NotAPicture as error:
            _log.info("%s stays unwrapped: %s", taken.path, error)
            self._refuse(taken.key, original.state, str(error))
            return True
        container.parse(blob)  # what the disk is to keep instead of the original is whole
        return self._swap(taken, original, blob)

    def _encode(self, data: bytes, path: str | None) -> bytes:
        """The blob; with the latents of the blob that `data` is a render of, if the store still has that.

        Where no marker tells which one, as in formats that have no room for it, it may be the one that was at `path` before.
        """
        contents = self._tree.content_index
        encode = partial(self._engine.encode, data, self._tree.store.settings)
        try:
            reference = contents.by_render(hashlib.sha256(data).hexdigest()) or self._predecessor(path)
            return encode(reference=reference).result()
        except KnownRender as error:
            return encode(reference=contents.by_id(str(error)) or b"").result()

    def _predecessor(self, path: str | None) -> bytes | None:
        """The blob that was replaced by the file at `path`."""
        trashed = path and self._tree.store.trash.newest(path)
        if not trashed:
            return None
        with contextlib.suppress(OSError, SdfsError), BlobFile.open(trashed) as blob:
            if blob is not None and os.fstat(blob.fd).st_size <= MAX_PICTURE_BYTES:
                return blob.read()
        return None

    def _refuse(self, key: FileId, state: FileState, reason: str) -> None:
        with contextlib.ExitStack() as opening:
            fd = self._open(key, opening)
            if fd is not None and FileState.of(os.fstat(fd)) == state and note_verdict(fd, reason):
                return
        self._refused[key] = (state, reason)
        if len(self._refused) > _REFUSED:
            self._refused.popitem(last=False)

    def _open(self, key: FileId, opening: contextlib.ExitStack) -> int | None:
        """Open the file within `opening`; None where it is gone."""
        with self._tree.inodes.names:  # or it could be gone from the path that the queue knows, and amid its rename
            path = self._tree.pending.path_of(key)
            if path is None or HIDDEN.fullmatch(os.path.basename(path)):
                return None
            try:
                return opening.enter_context(opened(path))
            except FileNotFoundError:
                return None

    def _read(self, key: FileId) -> _Original | None:
        """The file's content; None where it is not, or no longer, one that may become a blob."""
        with contextlib.ExitStack() as opening:
            if (fd := self._open(key, opening)) is None:
                return None
            status = os.fstat(fd)
            if FileId.of(status) != key or self._why_plain(fd, status) is not None:
                return None
            os.fsync(fd)  # the trash is to have it whole, and not to wait for it
            return _Original(FileState.of(status), read_all(fd))

    def _swap(self, taken: Taken, original: _Original, blob: bytes) -> bool:
        tree = self._tree
        staged = tree.store.stage(blob)
        try:
            os.fsync(staged.fd)  # most of the writing, before anybody has to wait for it
            with tree.inodes.holding(taken.key) as inode, inode.lock:
                path = None if inode.handles else self._install(taken, original, staged, blob)
        except BaseException:
            staged.discard()
            raise
        if path is None:
            staged.discard()
            return False
        os.close(staged.fd)
        tree.install.announce(path)
        return True

    def _install(self, taken: Taken, original: _Original, staged: Staged, blob: bytes) -> str | None:
        """Under the inode's lock: returns the name that is a blob now, or None where the file is not what was read."""
        tree = self._tree
        path = tree.pending.path_of(taken.key)
        if path is None or not tree.pending.is_current(taken):
            return None
        with contextlib.ExitStack() as opening:
            try:
                source = opening.enter_context(opened(path))
            except FileNotFoundError:
                return None
            status = os.fstat(source)
            if FileState.of(status) != original.state:
                return None
            seal(staged, blob, source, status.st_mode)
        try:
            tree.install.replace(staged.path, path, Over(original.state, keep=True, only_name=True))
        except Refused:
            return None
        return path
