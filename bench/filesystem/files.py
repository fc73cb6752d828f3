"""Files that are no pictures: one large, many small."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.filesystem.figures import Figures
from bench.filesystem.systems import drop_pages, mounted, new_store, passthrough, read

BIG_MIB, SMALL_FILES = 256, 500
_MB = BIG_MIB * 1.048576


def measure(work: Path, rounds: int) -> Figures:
    figures = Figures("Files that are no pictures", ratio=("SDFS", "passthrough"))
    native, behind, store = work / "native", work / "behind", new_store(work / "store")
    native.mkdir()
    behind.mkdir()
    with passthrough(behind, work / "passthrough") as plain, mounted(store, work / "mount") as sdfs:
        for _ in range(rounds):
            for system, folder, backing in (("native", native, native), ("passthrough", plain.path, behind), ("SDFS", sdfs.path, store)):
                for name, value in [*_large(folder, backing), *_small(folder)]:
                    figures.add(name, system, value)
    return figures


def _large(folder: Path, backing: Path) -> Iterator[tuple[str, float]]:
    """MB/s. Cold: the kernel has forgotten the pages of the file itself, and of the one behind it."""
    path, block, buffer = folder / "large", os.urandom(1 << 20), bytearray(1 << 20)
    yield "write, MB/s", _MB / _seconds(_write, path, block)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    drop_pages(path)
    drop_pages(backing / "large")
    for temperature in ("cold", "warm"):
        yield f"read, {temperature}, MB/s", _MB / _seconds(read, path, buffer)
    path.unlink()


def _write(path: Path, block: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(BIG_MIB):
            file.write(block)


def _small(folder: Path) -> Iterator[tuple[str, float]]:
    """Files/s."""
    paths = [folder / f"{number}.txt" for number in range(SMALL_FILES)]
    buffer = bytearray(1 << 12)
    steps: dict[str, Callable[[Path], object]] = {
        "create": lambda path: path.write_bytes(b"x" * 100),
        "stat": Path.stat,
        "open-read-close": lambda path: read(path, buffer),
        "unlink": Path.unlink,
    }
    for name, step in steps.items():
        yield f"{name}, files/s", SMALL_FILES / _seconds(_each, step, paths)


def _each(step: Callable[[Path], object], paths: list[Path]) -> None:
    for path in paths:
        step(path)


def _seconds(step: Callable[..., object], *arguments: object) -> float:
    begun = time.perf_counter()
    step(*arguments)
    return time.perf_counter() - begun
