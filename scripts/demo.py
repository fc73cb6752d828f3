"""The demo itself: `scripts/demo` sets it up and calls `demo.py WORK [PICTURES...]`. Uses only the command line and a mount."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

SDFS = (str(Path(sys.executable).with_name("sdfs")),)
PHOTOS = {  # packages that contain photographs, and where
    "skimage": (
        "data",
        ["astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg", "rocket.jpg"],
    ),
    "sklearn": ("datasets/images", ["china.jpg", "flower.jpg"]),
}
console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Reading:
    """One file on its way back."""

    stat: dict[str, Any]  # what `sdfs stat --json` says
    seconds: float
    same: bool  # bit for bit what was copied in


def packaged_photos() -> Iterator[Path]:
    for package, (folder, names) in PHOTOS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        yield from (path for name in names if (path := Path(spec.origin).parent / folder / name).is_file())


def sdfs(*arguments: str | Path) -> str:
    """Run a command; its messages and progress go to the terminal. Returns its stdout."""
    return subprocess.run([*SDFS, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def mounted(store: Path, mountpoint: Path) -> Iterator[None]:
    sdfs("mount", store, mountpoint)
    try:
        yield
    finally:
        sdfs("umount", mountpoint)


def files_of(source: Path) -> dict[Path, Path]:
    """The files that `cp -r source` makes, relative to where it copies to, and what each is a copy of."""
    if source.is_file():
        return {Path(source.name): source}
    return {path.relative_to(source.parent): path for path in sorted(source.rglob("*")) if path.is_file()}


def read_back(mountpoint: Path, file: Path, out: Path, original: Path) -> Reading:
    target = out / file
    target.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    shutil.copyfile(mountpoint / file, target)
    seconds = time.perf_counter() - started
    [stat] = json.loads(sdfs("stat", "--json", mountpoint / file))
    return Reading(stat, seconds, target.read_bytes() == original.read_bytes())


def kilobytes(size: int) -> str:
    return f"{size / 1000:,.1f}"


def score(reading: Reading) -> str:
    if reading.same:
        return "bit for bit"
    scores = reading.stat["scores"]
    return f"{scores['psnr']:.1f} dB  {scores['ms_ssim']:.3f}"


def table_of(readings: list[Reading]) -> Table:
    table = Table(title="Sizes in kB; score: PSNR and MS-SSIM of what is read against the original", show_footer=True)
    size, stored = (sum(reading.stat[name] for reading in readings) for name in ("size_bytes", "stored_bytes"))
    seconds = sum(reading.seconds for reading in readings)
    table.add_column("file", f"{len(readings)} files", overflow="fold")
    table.add_column("kept as")
    table.add_column("original", kilobytes(size), justify="right")
    table.add_column("stored", kilobytes(stored), justify="right")
    table.add_column("ratio", f"{size / max(stored, 1):.1f}", justify="right")
    table.add_column("score", justify="right")
    table.add_column("read, s", f"{seconds:.2f}", justify="right")
    for reading in readings:
        stat = reading.stat
        ratio = stat["size_bytes"] / max(stat["stored_bytes"], 1)
        table.add_row(
            stat["path"],
            stat["state"],
            kilobytes(stat["size_bytes"]),
            kilobytes(stat["stored_bytes"]),
            f"{ratio:.1f}",
            score(reading),
            f"{reading.seconds:.2f}",
        )
    return table


def main() -> None:
    work, *given = map(Path, sys.argv[1:])
    signal.signal(signal.SIGTERM, stop)
    store, mountpoint, out = (work / name for name in ("store", "mount", "read-back"))
    sources = [path.resolve() for path in given or packaged_photos()]
    if not sources:
        sys.exit("demo: neither scikit-image nor scikit-learn has its photos here; name pictures of your own")
    files = {file: original for source in sources for file, original in files_of(source).items()}
    mountpoint.mkdir()
    sdfs("init", store)
    with mounted(store, mountpoint):
        console.print(f"Copying pictures into {mountpoint}, a mount of {store}")
        started = time.perf_counter()
        subprocess.run(["cp", "-r", "--preserve=timestamps", *sources, mountpoint], check=True)
        console.print(f"Copied {len(files)} files in {time.perf_counter() - started:.1f} s; waiting until they are shrunk")
        started = time.perf_counter()
        sdfs("sync", mountpoint)
        console.print(f"Shrunk in {time.perf_counter() - started:.1f} s")
    with mounted(store, mountpoint):  # anew, so that nothing is cached
        console.print(f"Reading everything back into {out}")
        readings = [read_back(mountpoint, file, out, original) for file, original in files.items()]
    Console().print(table_of(readings))
    console.print(f"What was read back is in {out}; the store is {store}")


def stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit("demo: stopped")


if __name__ == "__main__":
    main()
