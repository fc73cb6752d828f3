"""The peak of memory while many large pictures go into a mount, are shrunk, and come out again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.filesystem import photos
from bench.filesystem.figures import Figures
from bench.filesystem.systems import children, memory_mb, mounted, new_store, read, sync

_SAMPLE_SECONDS = 0.2


def measure(work: Path, given: Sequence[Path], copies: int) -> Figures:
    figures = Figures(f"Peak memory, {copies} pictures of 12 MP, MB")
    store = new_store(work / "store")
    buffer = bytearray(1 << 20)
    with mounted(store, work / "mount") as sdfs:
        paths = [sdfs.path / f"{number}.jpg" for number in range(copies)]
        with _peaks(sdfs.pid, figures, "copied in and shrunk"):
            for number, path in enumerate(paths):
                path.write_bytes(photos.large(given[number % len(given)], number))
            sync(store)
        with _peaks(sdfs.pid, figures, "copied out"):
            for path in paths:
                read(path, buffer)
    return figures


@contextmanager
def _peaks(pid: int, figures: Figures, row: str) -> Iterator[None]:
    """Of the owner and its engine, which may end and be started anew."""
    _reset_peak(pid)
    engine, ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal engine
        over = False
        while not over:
            over = ended.wait(_SAMPLE_SECONDS)
            engine = max(engine, *(memory_mb(child, "VmHWM") for child in children(pid)), 0.0)

    for child in children(pid):
        _reset_peak(child)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    figures.add(row, "mount", memory_mb(pid, "VmHWM"))
    figures.add(row, "its engine", engine)


def _reset_peak(pid: int) -> None:
    """proc(5): VmHWM begins anew with what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
