"""All that owns a store, made and wired in one place: the store, the engine, the tree, the worker.

    Owner         its life: what there is, from here to `close`
    Services      what clients may ask (`sdfs.owner.services`)
    file_status   what is said of one file (`sdfs.owner.file_status`)

Each knows only those below it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sdfs.engine.client import Engine as ChildEngine
from sdfs.engine.interface import Engine
from sdfs.owner.census import Census
from sdfs.owner.file_status import all_files
from sdfs.owner.index.pending import Pending
from sdfs.owner.jobs.compressor import Compressor
from sdfs.owner.renders.cache import DEFAULT_BYTES, RenderCache
from sdfs.owner.renders.disk_cache import DiskCache
from sdfs.owner.renders.renders import Renders
from sdfs.owner.services import Mount, Services
from sdfs.owner.store.store import Store
from sdfs.owner.tree.tree import Tree
from sdfs.settings import Memory


class Owner:
    """Owns a store from here to `close`. The worker runs once it is started, or somebody asks for `sync`."""

    def __init__(
        self,
        root: Path,
        *,
        engine: Callable[[], Engine] | None = None,
        cache_bytes: int = DEFAULT_BYTES,
        memory: Memory | None = None,
        disk_cache: Callable[[], DiskCache | None] = lambda: None,
        read_ahead: int = 0,
        mount: Mount | None = None,
        on_hand_over: Callable[[], None] | None = None,
    ) -> None:
        """Raises NotAStore, StoreTooNew, StoreBusy, and what `disk_cache` raises.

        `engine` makes the engine, which then belongs to the owner, in place of a child process that may take `memory`; `disk_cache` makes
        the second tier of the cache. `read_ahead`: so many pictures are decoded before readers, who read a folder in order, ask for them.
        `mount`: the one that it serves. `on_hand_over`: told to close the owner soon, because somebody wants to mount the store.
        """
        self.store = Store(root)
        try:
            disk = disk_cache()
        except BaseException:
            self.store.close()
            raise
        self.read_only = self.store.read_only or (mount is not None and mount.read_only)
        self._ending = threading.Lock()  # held while the engine is closed
        self._engine = ChildEngine(memory=memory) if engine is None else engine()
        self.renders = Renders(self._engine, RenderCache(cache_bytes), disk)
        forget = (lambda path: None) if mount is None else mount.forget
        self.tree = Tree(self.store, self.renders, Pending(), read_ahead=read_ahead, forget=forget)
        self.compressor = Compressor(self.tree, self._engine)
        self._census = Census(partial(all_files, self.tree, self.compressor))
        self.services = Services(self.tree, self.renders, self._engine, self.compressor, self._census, mount, on_hand_over)

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
        if self.tree.read_ahead is not None:
            self.tree.read_ahead.close()
        self.compressor.stop()
        self._census.close()
        if self.renders.disk is not None:
            self.renders.disk.close()
        self.store.close()
