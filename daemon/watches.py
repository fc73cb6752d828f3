"""The kernel's events of a folder and all below it: its inotify watches, through watchdog. The only importer of watchdog.

This uses watchdog's reader of inotify (InotifyFD), not its Observer, which as of 7.1.0 leaves folders out without a word where the limit of
watches is reached, goes on telling of a folder that was moved away, under its old name, and takes quadratic time for renames.

- A folder is watched before it is listed. What was in it by then, the listener finds by `rescan`; what comes later is an event.
- Events of writing are not asked for: they come by the thousand, and who waits for a file to be finished looks at it anyway.
- All state belongs to the lock, under which the listener is called, too. watchdog's own lock is taken under it, never the other way round.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import posixpath
import threading
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor

from daemon.names import is_skipped_folder

_EVENTS = InotifyConstants.IN_CREATE | InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_MOVE | InotifyConstants.IN_DELETE
_MASK = Mask(_EVENTS | InotifyConstants.IN_ONLYDIR | InotifyConstants.IN_EXCL_UNLINK)
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who is told. Paths begin with the watched folder's; bytes that are no UTF-8 are surrogates in them.

    Called by the watcher's thread, and in `Watcher.check`, one call at a time: a lock is held that `check` and `stop` take, too.
    Files are told of whatever their names; folders that `is_skipped_folder` are not entered.
    """

    def touched(self, path: str) -> None:
        """Something that is no folder was created or moved in."""

    def closed(self, path: str) -> None:
        """A file was closed by somebody who had it open for writing."""

    def moved(self, old: str, new: str) -> None:
        """Within the watched folder: a file, or a folder with all below it."""

    def gone(self, path: str) -> None:
        """Deleted or moved away: a file, or a folder with all below it."""

    def rescan(self, folder: str, reason: str) -> None:
        """Things may have happened in `folder` and below that nothing else tells of."""


class _Move(NamedTuple):
    """The first half of a move. The second follows at once, if there is one: else the thing was moved away."""

    cookie: int
    path: str
    is_folder: bool


class Watches:
    """The inotify watches of a folder and those below it, and the thread that reads their events. Ends with `close`."""

    def __init__(self, root: str, listener: Listener) -> None:
        """Raises OSError where there is no inotify to be had."""
        self.unwatched: dict[str, int] = {}  # folders that cannot be watched for now, and why (errno); those below are not listed
        self._root = root
        self._listener = listener
        self._lock = threading.RLock()
        self._closed = False
        self._paths: dict[WatchDescriptor, str] = {}
        self._descriptors: dict[str, WatchDescriptor] = {}
        self._callbacks: dict[WatchDescriptor, CallbackId] = {}
        self._count = itertools.count()
        self._move: _Move | None = None
        self._inotify = InotifyFD()
        self._inotify.name = "sdfs-watch"
        self._watch(root)
        self._inotify.start()

    def close(self) -> None:
        with self._lock:  # no event is being handled then, and none will be: the descriptor may be closed
            self._closed = True
        self._inotify.stop()
        self._inotify.join()

    @property
    def working(self) -> bool:
        with self._lock:
            return self._inotify.is_alive() and (self._root in self._descriptors or self._root in self.unwatched)

    def settle_moves(self) -> None:
        """Tells of what was moved away, if nothing has happened since."""
        with self._lock:
            self._moved_away()

    def poll(self) -> None:
        """Tries again to watch what could not be watched, and has it scanned."""
        with self._lock:
            unwatched, self.unwatched = self.unwatched, {}
            unseen = [folder for folder, error in unwatched.items() if self._watch(folder) or error != errno.EACCES]
            if unseen:
                self._listener.rescan(os.path.commonpath(unseen), "it was not watched")

    # Called by watchdog's thread.

    def on_event(self, event: InotifyEvent) -> None:
        with self._lock:
            if self._closed:
                return
            source = self._source(event)
            folder = self._paths.get(event.wd)
            if folder is None:
                return
            path = posixpath.join(folder, os.fsdecode(event.name))
            if event.is_moved_from:
                self._move = _Move(event.cookie, path, event.is_directory)
            elif event.is_directory:
                self._on_folder_event(event, path, source)
            else:
                self._on_file_event(event, path, source)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        with self._lock:
            self._forget(wd)

    def on_queue_overflow(self) -> None:
        with self._lock:
            if self._closed:
                return
            _log.info("%s is scanned: more happened at once than fs.inotify.max_queued_events lets the kernel keep", self._root)
            self._move = None
            self._drop(list(self._descriptors))
            self.unwatched.clear()
            self._watch(self._root)
            self._listener.rescan(self._root, "events were lost")

    # With the lock.

    def _source(self, event: InotifyEvent) -> _Move | None:
        """The first half of the move that `event` ends. If it ends none, what was being moved has left."""
        if self._move is not None and event.is_moved_to and event.cookie == self._move.cookie:
            source, self._move = self._move, None
            return source
        self._moved_away()
        return None

    def _moved_away(self) -> None:
        if self._move is not None:
            move, self._move = self._move, None
            self._leave(move)

    def _on_file_event(self, event: InotifyEvent, path: str, source: _Move | None) -> None:
        if source is not None:
            self._listener.moved(source.path, path)
        elif event.is_create or event.is_moved_to:
            self._listener.touched(path)
        elif event.is_close_write:
            self._listener.closed(path)
        elif event.is_delete:
            self._listener.gone(path)

    def _on_folder_event(self, event: InotifyEvent, path: str, source: _Move | None) -> None:
        is_skipped = is_skipped_folder(os.fsdecode(event.name))
        if event.is_delete:
            self._drop([path] if path in self._descriptors else [])
            self.unwatched.pop(path, None)
            self._listener.gone(path)
        elif is_skipped:
            if source is not None:
                self._leave(source)
        elif source is not None:
            self._on_folder_moved(source.path, path)
        elif (event.is_create or event.is_moved_to) and (self._watch(path) or path in self.unwatched):
            self._listener.rescan(path, "it is new")

    def _on_folder_moved(self, old: str, new: str) -> None:
        """It is gone through again: what was found in it, by us or the listener, had perhaps left its old path before it was looked at."""
        self._rename(old, new)
        self._listener.moved(old, new)
        if not self._watch(new):
            self._watch_below(new)
        self._listener.rescan(new, "it was renamed")

    def _leave(self, move: _Move) -> None:
        if move.is_folder:
            self._drop(_below(move.path, self._descriptors))
            for folder in _below(move.path, self.unwatched):
                del self.unwatched[folder]
        self._listener.gone(move.path)

    def _rename(self, old: str, new: str) -> None:
        self._drop(_below(new, self._descriptors))  # an empty folder that was replaced
        for path in _below(old, self._descriptors):
            renamed = new + path[len(old) :]
            wd = self._descriptors[renamed] = self._descriptors.pop(path)
            self._paths[wd] = renamed
        for path in _below(old, self.unwatched):
            self.unwatched[new + path[len(old) :]] = self.unwatched.pop(path)

    def _watch(self, folder: str) -> bool:
        """Watch a folder and all below it. Whether it was not watched before, and is now."""
        is_new = self._add(folder)
        if is_new:
            self._watch_below(folder)
        return is_new

    def _watch_below(self, folder: str) -> None:
        """Of a folder that is watched: so nothing comes into it unnoticed after it was listed."""
        folders = [folder]
        while folders:
            for subfolder in _subfolders(folders.pop()):
                self._add(subfolder)
                if subfolder in self._descriptors:
                    folders.append(subfolder)

    def _add(self, folder: str) -> bool:
        """Whether the folder was not watched before, and is now. One that cannot be goes to `unwatched`."""
        callback = CallbackId(next(self._count))  # watchdog warns of one that is used again
        links = 0 if folder == self._root else InotifyConstants.IN_DONT_FOLLOW
        try:
            wd = self._inotify.add_callback(os.fsencode(folder), Mask(_MASK | links), self, callback)
        except OSError as error:
            if error.errno not in _VANISHED:
                self.unwatched[folder] = error.errno or errno.EIO
            return False
        if wd == -1:  # watchdog's word for EACCES
            self._inotify.remove_callbacks([(wd, callback)])
            self.unwatched[folder] = errno.EACCES
            return False
        is_new = self._paths.get(wd) != folder
        if wd in self._paths:
            self._inotify.remove_callbacks([(wd, self._callbacks[wd])])
            self._forget(wd)
        elif folder in self._descriptors:
            self._drop([folder])
        self._paths[wd], self._descriptors[folder], self._callbacks[wd] = folder, wd, callback
        return is_new

    def _drop(self, folders: list[str]) -> None:
        for wd in [self._descriptors[folder] for folder in folders]:
            self._inotify.remove_callbacks([(wd, self._callbacks[wd])])
            self._forget(wd)

    def _forget(self, wd: WatchDescriptor) -> None:
        path = self._paths.pop(wd, None)
        self._callbacks.pop(wd, None)
        if path is not None and self._descriptors.get(path) == wd:
            del self._descriptors[path]


def _below(folder: str, paths: Iterable[str]) -> list[str]:
    """Those of `paths` that are the folder, or in it."""
    return [path for path in paths if path == folder or path.startswith(folder + "/")]


def _subfolders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False) and not is_skipped_folder(entry.name)]
    except OSError:  # it vanished, or may not be read
        return []
