"""The one way into the tree: how a finished file gets its name. What is not finished never has one, files that users create aside.

    add       a new name
    replace   a name that is there: what had it may be kept in the trash

    caller            verb     what must be there                       kept          only name   whom the kernel asks next
    swap              replace  the state that was read; not open        always        yes         us: `announce`
    recompress        replace  the state that was read; not open        always        yes         us: `announce`
    commit            replace  the inode's file                         if a blob     no          nobody: it has the writer's pages
    chmod of a blob   replace  the file that was copied                 no: the same  yes         us: it asked for the change
    import, restore   add      nothing                                  –             –           us: it knows of nothing

Why nothing is lost, whoever else renames, writes, or pulls the plug:

1. *No file gets a name before it is whole and durable.* The caller has fsynced it, attributes included: that is what `sealed` means.
2. *What is replaced is what was meant.* Whatever changes a name holds `names`; under it, right before the rename, the path is looked at,
   and so it is again after every wait. A caller who is told `Changed` begins anew with what is there, or gives up: nothing was done.
   What has several names is not replaced by callers who would part them: `SeveralNames`. A name in the trash that is being made here is
   none of these.
3. *What is kept is durable before the rename*: it is linked into the trash, and the trash synced, without `names`, for that is I/O.
4. *Whoever remembers the name is told under `names`*, so that a rename finds them told: open files (`moving`: before the rename they
   answer to both numbers, after it to the new one), the pages of whatever had the new file's number before, the index of contents, the
   pending queue, and the names that are not durable yet. Then, without a lock, the kernel is told, and the name made durable, from
   the root down.
5. *A failure before the rename leaves all as it was*; the second name in the trash goes, too. One after it is reported and not undone: the
   file is there, known, and queued, and the next sync of its name makes up for it.

A folder keeps its times when a file in it is replaced, for nothing came into it or left it. They are read before the rename and put back
after it: so whatever else changes a folder, or its times, holds `names` as well.

Order of locks: Inode.lock, which `replace`'s callers hold, then `names`, then leaves: the caches' and queues' own.
"""

# System calls on `str` paths, which need not be decodable.
from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from sdfs.owner.index.contents import ContentIndex
from sdfs.owner.index.pending import Pending
from sdfs.owner.store.durable_names import DurableNames
from sdfs.owner.store.store import Store
from sdfs.owner.tree.pages import Pages
from sdfs.system.file_id import FileId, FileState


class Refused(Exception):
    """Nothing was done."""


class Changed(Refused):
    """The path is another file's by now, or nobody's; or its file was changed."""


class SeveralNames(Refused):
    """The file has other names."""


@dataclass(frozen=True)
class Over:
    """What may be replaced."""

    was: FileId | FileState  # of the file that must be there: which it is, or its state as well
    keep: bool  # the trash gets it
    only_name: bool  # it must have no other


class Install:
    """Thread-safe. Paths are of the backing filesystem; `sealed` is that of a file outside the tree that was fsynced."""

    def __init__(
        self,
        store: Store,
        durable_names: DurableNames,
        content_index: ContentIndex,
        pages: Pages,
        pending: Pending,
        forget: Callable[[str], None],
    ) -> None:
        """`forget`: has the kernel forget its pages of a backing path."""
        self.names = threading.Lock()  # a name and the file behind it. Not for I/O, but that a full disk may have trash removed
        self._forget = forget
        self._store = store
        self._durable_names = durable_names
        self._content_index = content_index
        self._pages = pages
        self._pending = pending

    def add(self, sealed: str, path: str, *, is_picture: bool, room_from_trash: bool = True) -> None:
        """Make `sealed` the new file `path`, durably; `is_picture`: it is to be shrunk.

        `room_from_trash`: where the disk is full, what is in the trash may go. Raises FileExistsError; and OSError once the file is there,
        if its name cannot be made durable.
        """
        with self.names:
            key = FileId.of(os.lstat(sealed))
            self._pages.forget(key)
            self._store.add(sealed, path, room_from_trash=room_from_trash)
            self._told(path)
            if is_picture:
                self._pending.offer(key, path)
        self._durable_names.sync(path)

    def replace(
        self, sealed: str, path: str, over: Over, moving: Callable[[FileId], AbstractContextManager[None]] = lambda key: nullcontext()
    ) -> None:
        """Make `sealed` the file at `path`, under the lock of the inode that is there; its name is not durable yet.

        `moving`, given the new file's number, is the context of the rename. Raises Changed, SeveralNames; OSError, and nothing was done.
        """
        kept, was, names = None, over.was, 1
        try:
            if over.keep:
                with self.names:
                    self._check(path, was, names if over.only_name else None)
                    kept, names = self._store.keep(path), 2
                    was = _like(was, os.lstat(path))  # the second name changed the ctime
                self._store.trash.sync()
            with self.names:
                self._check(path, was, names if over.only_name else None)
                key = FileId.of(os.lstat(sealed))
                self._pages.forget(key)
                with moving(key):
                    self._store.replace(sealed, path)
                kept = None
                self._told(path)
        finally:
            if kept is not None:
                self._store.trash.forget(kept)

    def announce(self, path: str) -> None:
        """Tell the kernel of what was replaced, and make it durable. Not under a lock that a handler may wait for."""
        self._forget(path)
        self._durable_names.sync(path)

    def _check(self, path: str, was: FileId | FileState, names: int | None) -> None:
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise Changed from None
        if _like(was, status) != was:
            raise Changed
        if names is not None and status.st_nlink != names:
            raise SeveralNames

    def _told(self, path: str) -> None:
        self._durable_names.changed(path)
        self._content_index.note(path)


def _like(was: FileId | FileState, status: os.stat_result) -> FileId | FileState:
    """What `status` says of what `was` says."""
    return FileId.of(status) if isinstance(was, FileId) else FileState.of(status)
