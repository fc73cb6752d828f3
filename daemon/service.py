"""The process: the watches of a configuration, signals, systemd, and a summary every hour.

SIGTERM, SIGINT   end, after the files in hand
SIGHUP            read the configuration again; watches that are the same in it go on undisturbed
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from daemon.config import WatchConfig
from daemon.folder import Counts, FolderWatch
from sdfs.errors import UserError
from sdfs.system.service_manager import notify, pinging_watchdog

SUMMARY_SECONDS = 3600.0
STUCK_SECONDS = 600.0  # what was not seen alive for so long is stuck: systemd is not told any more that all is well
_TICK_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Service:
    def __init__(self, load: Callable[[], list[WatchConfig]], *, watch: Callable[[WatchConfig], FolderWatch] = FolderWatch) -> None:
        """`load` is asked for the configuration now and at every SIGHUP."""
        self._load = load
        self._watch = watch
        self._watches: dict[WatchConfig, FolderWatch] = {}
        self._woken = threading.Event()
        self._ending = False
        self._reloading = False
        self._ready = False
        self._summed_at = time.monotonic()
        self._beat = time.monotonic()

    def run(self) -> None:
        """Until SIGTERM. Raises UserError where the configuration is wrong, or a folder is watched by another process."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._change(self._load())
            with pinging_watchdog(self._is_well):
                while not self._ending:
                    self._tick()
        finally:
            notify("STOPPING=1")
            self._end(list(self._watches))
            self._sum_up()

    def _tick(self) -> None:
        self._woken.wait(_TICK_SECONDS)
        self._woken.clear()
        self._beat = time.monotonic()
        if self._reloading:
            self._reload()
        if dead := [watch.watch.folder for watch in self._watches.values() if not watch.is_alive]:
            raise UserError(f"the watch of {dead[0]} has ended: see the log")
        if not self._ready and all(watch.ready.is_set() for watch in self._watches.values()):
            self._ready = True
            notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS=watching {len(self._watches)} folders")
        if time.monotonic() - self._summed_at > SUMMARY_SECONDS:
            self._sum_up()

    def _is_well(self) -> bool:
        """Tell, in the watchdog's thread, whether this loop and all watches were seen alive of late."""
        beats = [self._beat, *(watch.beat for watch in list(self._watches.values()))]
        return time.monotonic() - min(beats) < STUCK_SECONDS

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reloading = True
        else:
            self._ending = True
        self._woken.set()

    def _reload(self) -> None:
        self._reloading = False
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._change(self._load())
        except (UserError, OSError) as error:
            _log.error("the configuration is not changed: %s", error)
        self._ready = False  # READY=1 is told again

    def _change(self, wanted: list[WatchConfig]) -> None:
        """Watch what is wanted; all stays as it is where a new folder cannot be watched."""
        watched = {watch.folder for watch in self._watches}
        made: list[FolderWatch] = []
        try:
            for watch in wanted:
                if watch.folder not in watched:
                    made.append(self._watch(watch))
        except BaseException:
            for started in made:
                started.discard()
            raise
        self._end([watch for watch in self._watches if watch not in wanted])
        made += [self._watch(watch) for watch in wanted if watch.folder in watched and watch not in self._watches]  # with other settings
        for new in made:
            self._watches[new.watch] = new
            new.start()

    def _end(self, watches: list[WatchConfig]) -> None:
        ending = [self._watches.pop(watch) for watch in watches]
        for watch in ending:
            watch.stop()
        for watch in ending:
            watch.join()
            self._sum_up_one(watch)

    def _sum_up(self) -> None:
        self._summed_at = time.monotonic()
        for watch in self._watches.values():
            self._sum_up_one(watch)

    def _sum_up_one(self, watch: FolderWatch) -> None:
        counts = watch.take_counts()
        if counts.files:
            _log.info("%s: %s", watch.watch.folder, summary(counts))


def summary(counts: Counts) -> str:
    """`12 files taken, 34.1 MB → 3.2 MB: 30.9 MB saved`."""
    saved = counts.logical_bytes - counts.stored_bytes
    sizes = f"{counts.logical_bytes / 1e6:.1f} MB → {counts.stored_bytes / 1e6:.1f} MB"
    return f"{counts.files} {'file' if counts.files == 1 else 'files'} taken, {sizes}: {saved / 1e6:.1f} MB saved"
