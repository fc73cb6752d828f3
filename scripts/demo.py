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
from pathlib import Path
from types import FrameType
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

SDFS = Path(sys.executable).with_name("sdfs")
PHOTOS = {  # packages that contain photographs, and where
    "skimage": (
        "data",
        ["astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg", "rocket.jpg"],
    ),
    "sklearn": ("datasets/images", ["china.jpg", "flower.jpg"]),
}
console = Console(stderr=True, highlight=False, soft_wrap=True)


def packaged_photos() -> Iterator[Path]:
    for package, (folder, names) in PHOTOS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        yield from (path for name in names if (path := Path(spec.origin).parent / folder / name).is_file())


def sdfs(*arguments: str | Path) -> str:
    """Run a command; its messages and progress go to the terminal. Returns its stdout."""
    completed = subprocess.run([SDFS, *arguments], stdout=subprocess.PIPE, text=True)
    if completed.returncode:
        sys.exit(f"demo: sdfs {arguments[0]} ended with exit status {completed.returncode}, see docs/CLI.md")
    return completed.stdout


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


def read_back(mountpoint: Path, file: Path, out: Path) -> float:
    """Copy a file out of the mount; returns the seconds it took."""
    target = out / file
    target.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    shutil.copyfile(mountpoint / file, target)
    return time.perf_counter() - started


def check(file: Path, stat: dict[str, Any], read: Path, original: Path) -> None:
    """What is not kept as latents has to come back bit for bit."""
    if stat["state"] != "latent" and read.read_bytes() != original.read_bytes():
        sys.exit(f"demo: {file} is kept as {stat['state']}, but came back changed: this is a bug")


def table_of(stats: list[dict[str, Any]], seconds: list[float]) -> Table:
    """A row for each file: what `sdfs stat --json` says, and the time to read it."""
    size, stored = (sum(stat[name] for stat in stats) for name in ("logical_bytes", "stored_bytes"))
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("file", f"{len(stats)} files", overflow="fold")
    table.add_column("kept as", no_wrap=True)
    for name, footer in (
        ("size, kB", kilobytes(size)),
        ("stored, kB", kilobytes(stored)),
        ("ratio", ratio(size, stored)),
        ("PSNR, dB", ""),
        ("MS-SSIM", ""),
        ("read, s", f"{sum(seconds):.2f}"),
    ):
        table.add_column(name, footer, justify="right", no_wrap=True)
    for stat, time_ in zip(stats, seconds, strict=True):
        size, stored, scores = stat["logical_bytes"], stat["stored_bytes"], stat["scores"]
        psnr, ms_ssim = (f"{scores['psnr']:.1f}", f"{scores['ms_ssim']:.3f}") if scores else ("no loss", "")
        row = (kilobytes(size), kilobytes(stored), ratio(size, stored), psnr, ms_ssim, f"{time_:.2f}")
        table.add_row(stat["path"].lstrip("/"), stat["state"], *row)
    return table


def kilobytes(size: int) -> str:
    return f"{size / 1000:,.1f}"


def ratio(size: int, stored: int) -> str:
    return f"{size / max(stored, 1):.1f}"


def main() -> None:
    work, *given = map(Path, sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
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
        console.print(f"Reading everything back into {out}; the first picture waits until the model is loaded")
        seconds = [read_back(mountpoint, file, out) for file in files]
        stats = json.loads(sdfs("stat", "--json", *(mountpoint / file for file in files)))
    for (file, original), stat in zip(files.items(), stats, strict=True):
        check(file, stat, out / file, original)
    Console().print(table_of(stats, seconds))
    console.print(f"The store is {store}")


def stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit("demo: stopped")


if __name__ == "__main__":
    main()
