"""Open files. One `Inode` per file that is open, shared by all its handles (`sdfs.owner.tree.handle`).

The content of an inode (`sdfs.owner.tree.content`), replaced under its lock:

    Plain     the tree's file is unwrapped; each handle reads and writes it in place through its own descriptor
    Blob      the tree's file is a blob; reads are served from its render, or from the payload of a raw one. A damaged blob can be opened,
              and emptied, but neither read nor changed
    Working   a descriptor that serves all handles until the last one closes. It is of a file in staging or, once that was committed, of
              the tree's file itself

    Blob  → Working: copy-up, at the first write or truncate
    Plain → Working: divert, at a write after which the file would begin with the blob magic, so that the tree never has user bytes
                     that look like a blob. Its commit installs a blob around the content; the content itself remains in staging
    Working, in the tree → Working, in staging: divert, as above

Commit (flush, fsync, last close): fsync, rename into the tree (`sdfs.owner.tree.install`), fsync of the folder. A crash before it leaves
what the tree had. What a commit replaces is kept in the trash if it was a blob. An fsync that has nothing to commit makes the file's name
durable, too.

Locks, in this order: Inode.lock; Install.names (a name and the inode behind it: held for a check and a change of names, never for I/O,
but that a full disk may have trash removed); leaves (the table's own, the store's, the cache's, the pending queue's). Reads take none
once the file's bytes are at hand. A decode for a copy-up runs under Inode.lock: all that waits for it needs its result.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from sdfs.blob import container
from sdfs.blob.container import MAGIC, MODE_OF_BACKING, PREAMBLE_BYTES, Preamble
from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.owner.index.contents import ContentIndex
from sdfs.owner.index.pending import Pending
from sdfs.owner.index.preambles import Preambles
from sdfs.owner.renders.raw_blobs import Payload
from sdfs.owner.renders.renders import Readable, Renders
from sdfs.owner.store.attributes import copy_attributes, forget_plain
from sdfs.owner.store.durable_names import DurableNames
from sdfs.owner.store.store import HIDDEN, Staged, Store
from sdfs.owner.store.wrapping import wrap
from sdfs.owner.tree.content import Blob, Content, Plain, Working
from sdfs.owner.tree.install import Changed, Install, Over
from sdfs.owner.tree.pages import Pages
from sdfs.system.file_id import FileId
from sdfs.system.files import opened, write_all

_log = logging.getLogger(__name__)
BEGINS_LIKE_A_BLOB = "begins like a blob"  # why user bytes are in a raw blob
OWNER_RW = 0o600  # every blob has these on the backing, whatever its logical mode


def split_mode(mode: int) -> tuple[int, int]:
    """Permission bits → those of a blob's backing file, and what its preamble says of the logical ones."""
    mode &= 0o7777
    return (mode, MODE_OF_BACKING) if mode & OWNER_RW == OWNER_RW else (mode | OWNER_RW, mode)


def logical_mode(status: os.stat_result, preamble: Preamble | None) -> int:
    """st_mode as the tree shows it."""
    if preamble is None or preamble.mode == MODE_OF_BACKING:
        return status.st_mode
    return (status.st_mode & ~0o7777) | preamble.mode


def seal(staged: Staged, head: bytes, source: int, mode: int) -> None:
    """Give a staged blob, which begins with `head`, a logical mode and the attributes of an open file, durably: then it may get a name."""
    backing_mode, preamble_mode = split_mode(mode)
    write_all(staged.fd, container.with_mode(head[:PREAMBLE_BYTES], preamble_mode))
    copy_attributes(source, staged.fd, backing_mode)
    os.fsync(staged.fd)


@dataclass
class InodeTable:
    """All inodes that are open, or that somebody looks at under their lock."""

    store: Store
    preambles: Preambles
    renders: Renders
    pending: Pending
    durable_names: DurableNames
    content_index: ContentIndex
    pages: Pages
    install: Install
    on_read: Callable[[str], None]  # told the path of every picture that a reader opens and the engine made
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _inodes: dict[FileId, Inode] = field(default_factory=dict)

    @property
    def names(self) -> threading.Lock:
        return self.install.names

    def find(self, key: FileId) -> Inode | None:
        return self._inodes.get(key)

    @contextlib.contextmanager
    def holding(self, key: FileId) -> Iterator[Inode]:
        """The inode of a key, there for as long as the context lasts."""
        with self._lock:
            inode = self._inodes.get(key)
            if inode is None:
                inode = self._inodes[key] = Inode(self, key)
            inode.users += 1
        try:
            yield inode
        finally:
            self.let_go(inode)

    def keep(self, inode: Inode) -> None:
        """One more user of an inode that is held already."""
        with self._lock:
            inode.users += 1

    def let_go(self, inode: Inode) -> None:
        with self._lock:
            inode.users -= 1
            if not inode.users:
                for key in inode.keys:
                    self._drop(key, inode)

    @contextlib.contextmanager
    def moving(self, inode: Inode, new: FileId) -> Iterator[None]:
        """While the inode's name is given to the file `new`: it is both, and then that one, or, where that fails, what it was."""
        gone = {new}
        with self._lock:
            inode.keys.add(new)
            self._inodes[new] = inode
        try:
            yield
            gone = inode.keys - {new}
        finally:
            with self._lock:
                inode.keys -= gone
                for key in gone:
                    self._drop(key, inode)

    def is_known_by(self, key: FileId, inode: Inode) -> bool:
        """Whether a file of this key is the inode's. Not where its number was free in between, and is another file's now."""
        return key in inode.keys and self._inodes.get(key) is inode

    def _drop(self, key: FileId, inode: Inode) -> None:
        if self._inodes.get(key) is inode:
            del self._inodes[key]

    def commit_all(self) -> None:
        """At the end of the owner: the tree gets what was written by those who have not closed their files."""
        with self._lock:
            inodes = set(self._inodes.values())
        for inode in inodes:
            with inode.lock:
                inode.commit_or_rescue()

    def renamed(self, old: str, new: str) -> None:
        """`old` with all below it is now `new`, and what was `new` is gone. Under `names`."""
        with self._lock:
            for inode in set(self._inodes.values()):
                if inode.path is None:
                    continue
                if inode.path == old or inode.path.startswith(old + "/"):
                    inode.path = new + inode.path[len(old) :]
                elif inode.path == new:
                    inode.path = None

    def unlinked(self, path: str) -> None:
        """Under `names`."""
        with self._lock:
            for inode in set(self._inodes.values()):
                if inode.path == path:
                    inode.path = None


class Inode:
    def __init__(self, table: InodeTable, key: FileId) -> None:
        self.table = table
        self.keys = {key}  # two of them only within a commit; changed by the table
        self.users = 0  # changed by the table
        self.lock = threading.RLock()
        self.path: str | None = None  # backing path; None: unlinked. Under `names`
        self.handles = 0
        self.sharing = 0  # of them, those that pinned the render of which all pages are that the kernel has
        self.content: Content = Plain()
        self.written = False  # since the last time it was offered to the pending queue
        self._installed = -1  # the tree's file, where that is not the one the handles opened, nor the working copy
        self._retired: list[int] = []  # former working copies, which a reader may still be in

    @property
    def working(self) -> Working | None:
        """The content, where that is a working copy."""
        content = self.content
        return content if isinstance(content, Working) else None

    @property
    def is_staged(self) -> bool:
        """Whether the content is in staging, be it in the tree as well."""
        working = self.working
        return working is not None and working.staged is not None

    def tree_descriptor(self, opened: int) -> int:
        """Return one of the tree's file; `opened`: a handle's own."""
        return self._installed if self._installed >= 0 else opened

    # state changes: all under `lock`

    def copy_up(self, blob: Blob, source: int, content: Readable | None) -> None:
        """Blob → Working, with `content` (None: nothing), and the attributes of the blob open as `source`."""
        status = os.fstat(source)
        self._stage(source, logical_mode(status, blob.preamble), content, keep=True)

    def divert(self, source: int) -> None:
        """The file open as `source`, which the tree has, → Working, in staging."""
        status = os.fstat(source)
        if status.st_nlink > 1:
            raise OSError(errno.ENOTSUP, "a file with several names cannot begin with the blob magic", self.path)
        self._stage(source, status.st_mode, Payload(source), keep=False)

    def _stage(self, source: int, mode: int, content: Readable | None, *, keep: bool) -> None:
        staged = self.table.store.stage()
        try:
            if content is not None:
                content.copy_to(self.table.store, staged.fd)
            copy_attributes(source, staged.fd, mode & 0o7777)
            os.utime(staged.fd, ns=(os.fstat(source).st_atime_ns, time.time_ns()))
        except BaseException:
            staged.discard()
            raise
        if (working := self.working) is not None:
            self._retired.append(working.fd)
        self.content = Working(staged.fd, staged, ahead=True, keep=keep)

    def changed(self) -> None:
        """Note that the working copy, if there is one, is another than the tree's file."""
        if (working := self.working) is not None:
            self.content = working.changed()

    def commit(self) -> None:
        """Give the tree the working copy, durably."""
        working = self.working
        if working is None or working.staged is None or not working.ahead:
            return
        if os.pread(working.fd, len(MAGIC), 0) == MAGIC:
            self._commit_wrapped(working.staged, keep=working.keep)
            self.content = Working(working.fd, working.staged, ahead=False, keep=False)
        else:
            os.fsync(working.fd)
            self._install(working.staged, keep=working.keep)
            self.content = Working(working.fd, None, ahead=False, keep=False)
        self.sync_name()

    def _commit_wrapped(self, staged: Staged, *, keep: bool) -> None:
        status = os.fstat(staged.fd)
        backing_mode, preamble_mode = split_mode(status.st_mode)
        blob = wrap(self.table.store, staged.fd, BEGINS_LIKE_A_BLOB, preamble_mode)
        try:
            copy_attributes(staged.fd, blob.fd, backing_mode)
            os.fsync(blob.fd)
            self._install(blob, keep=keep)
        except BaseException:
            blob.discard()
            raise
        self._hold(blob.fd)

    def _install(self, staged: Staged, *, keep: bool) -> None:
        """Rename a staged file, which is durable, over the tree's; nothing where that was unlinked. Its name is not durable yet."""
        [key] = self.keys
        over = Over(key, keep=keep, only_name=False)
        while (path := self.path) is not None:
            try:
                self.table.install.replace(staged.path, path, over, partial(self.table.moving, self))
                return
            except Changed:  # it was renamed or unlinked since
                self._check_path(key)
        os.unlink(staged.path)

    def _check_path(self, key: FileId) -> None:
        """Refuse to replace what somebody put into the store under the file's name, whoever was to be kept from it by the lock."""
        with self.table.names:
            if self.path is not None and FileId.of(os.lstat(self.path)) != key:
                raise OSError(errno.ESTALE, "the file was replaced behind the owner's back", self.path)

    def sync_name(self) -> None:
        """Make the name durable, with the folders above it; nothing where the file is unlinked."""
        while (path := self.path) is not None:
            try:
                self.table.durable_names.sync(path)
                return
            except FileNotFoundError:  # a folder was renamed meanwhile, which gave the file another path
                if self.path == path:
                    raise

    def _hold(self, installed: int) -> None:
        """Keep the tree's file open, which no handle has: its inode number, a key of ours, must not be given to another file."""
        if self._installed >= 0:
            os.close(self._installed)
        self._installed = -1
        if self.handles:
            self._installed = installed
        else:
            os.close(installed)

    def replace_mode(self, path: str, mode: int) -> bool:
        """chmod of a blob whose preamble has to say another mode: install the same blob with it. False: `path` is another file's by now.

        Raises SeveralNames.
        """
        with contextlib.ExitStack() as opening:
            try:
                source = opening.enter_context(opened(path))
            except FileNotFoundError:
                return False
            try:
                return self._install_with_mode(source, path, mode)
            except Changed:
                return False

    def _install_with_mode(self, source: int, path: str, mode: int) -> bool:
        key = FileId.of(os.fstat(source))
        if not self.table.is_known_by(key, self):
            return False
        staged = self.table.store.stage()
        try:
            self.table.store.copy(source, staged.fd)
            seal(staged, os.pread(source, PREAMBLE_BYTES, 0), source, mode)
            over = Over(key, keep=False, only_name=True)
            self.table.install.replace(staged.path, path, over, partial(self.table.moving, self))
        except BaseException:
            staged.discard()
            raise
        preamble = self.table.preambles.of(staged.fd, os.fstat(staged.fd))
        assert preamble is not None
        self.content = Blob(preamble)
        self._hold(staged.fd)
        return True

    def offer(self, fd: int) -> None:
        """Put the file, open as `fd`, into the pending queue if it was written and begins like a picture."""
        if not self.written or self.is_staged or picture_format(os.pread(fd, HEAD_BYTES, 0)) is None:
            return
        forget_plain(fd)
        with self.table.names:  # or a rename could come before the queue knows of the file
            if self.path is None or HIDDEN.fullmatch(os.path.basename(self.path)):
                return
            if os.stat(os.path.dirname(self.path)).st_dev == self.table.store.device:  # a file's own may differ: overlayfs
                self.table.pending.offer(FileId.of(os.fstat(fd)), self.path)

    def commit_or_rescue(self) -> None:
        """Commit when there is no writer any more to tell of an error: then what was written goes to the trash."""
        try:
            self.commit()
        except OSError as error:
            working = self.working
            if working is None or working.staged is None or not working.ahead:  # the tree has it
                _log.error("%s may not outlast a power loss: %s", self.path, error)
                return
            rescued = self.table.store.trash.rescue(working.staged.path, self.path)
            _log.error("%s could not be stored (%s); what was written is in %s", self.path, error, rescued)
            self.content = Working(working.fd, None, ahead=False, keep=False)

    def close(self, fd: int) -> None:
        """The last handle, with descriptor `fd`, goes: back to what the tree has, which the next opener looks at."""
        try:
            self.commit_or_rescue()
            self.offer(fd if (working := self.working) is None else working.fd)
            if self.written and (path := self.path) is not None:
                self.table.content_index.note(path)
            for key in self.keys:
                self.table.pending.nudge(key)
        finally:
            if (working := self.working) is not None:
                self._retired.append(working.fd)
                if working.staged is not None:
                    os.unlink(working.staged.path)
            for fd in (*self._retired, self._installed):
                if fd >= 0:
                    os.close(fd)
            self._retired.clear()
            self.content, self._installed, self.written = Plain(), -1, False
