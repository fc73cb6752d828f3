"""What the mount costs for files that are no pictures: native folder, plain passthrough and SDFS, side by side.

    python -m bench.filesystem [--where FOLDER] [--json FILE]

Rounds alternate between the three, and medians are reported, so that a noisy machine is noisy for all. Ratios are to the passthrough.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

SDFS = Path(sys.executable).with_name("sdfs")
BIG_MIB, SMALL_FILES, ROUNDS = 256, 500, 5
MEASURES = ("write, MB/s", "create, files/s", "stat, files/s", "unlink, files/s")


def measure(folder: Path) -> dict[str, float]:
    """One round in an empty folder, which is empty again afterwards."""
    block = os.urandom(1 << 20)
    big = folder / "big"
    started = time.perf_counter()
    with big.open("wb", buffering=0) as file:
        for _ in range(BIG_MIB):
            file.write(block)
    written = time.perf_counter()
    big.unlink()
    small = [folder / f"{i}.txt" for i in range(SMALL_FILES)]
    begun = time.perf_counter()
    for path in small:
        path.write_bytes(b"x" * 100)
    created = time.perf_counter()
    for path in small:
        path.stat()
    looked = time.perf_counter()
    for path in small:
        path.unlink()
    removed = time.perf_counter()
    values = (BIG_MIB * 1.048576 / (written - started), *(SMALL_FILES / s for s in (created - begun, looked - created, removed - looked)))
    return dict(zip(MEASURES, values, strict=True))


@contextmanager
def passthrough(work: Path) -> Iterator[Path]:
    source, mountpoint = work / "passthrough", work / "passthrough-mount"
    source.mkdir()
    mountpoint.mkdir()
    process = subprocess.Popen([sys.executable, "-m", "bench.passthrough", source, mountpoint], stderr=subprocess.DEVNULL)
    try:
        while not mountpoint.is_mount():
            time.sleep(0.02)
        yield mountpoint
    finally:
        subprocess.run(["fusermount3", "-u", mountpoint], check=True)
        process.wait()


@contextmanager
def mounted(work: Path) -> Iterator[Path]:
    store, mountpoint = work / "store", work / "mount"
    subprocess.run([SDFS, "init", store], check=True, stderr=subprocess.DEVNULL)
    subprocess.run([SDFS, "mount", store, mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run([SDFS, "umount", mountpoint], check=True)


def run(where: Path) -> dict[str, dict[str, float]]:
    """Medians by system and measure."""
    work = Path(tempfile.mkdtemp(prefix="sdfs-bench-", dir=where))
    try:
        native = work / "native"
        native.mkdir()
        with passthrough(work) as plain, mounted(work) as sdfs:
            systems = {"native": native, "passthrough": plain, "sdfs": sdfs}
            rounds: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
            for _ in range(ROUNDS):
                for name, folder in systems.items():
                    rounds[name].append(measure(folder))
        return {name: {key: statistics.median(one[key] for one in many) for key in MEASURES} for name, many in rounds.items()}
    finally:
        shutil.rmtree(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--where", type=Path, default=Path(tempfile.gettempdir()), help="where the files go; a tmpfs leaves the disk out of it"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    results = run(options.where)
    table = Table("", *results, "sdfs / passthrough")
    for key in MEASURES:
        ratio = results["sdfs"][key] / results["passthrough"][key]
        table.add_row(key, *(f"{one[key]:,.0f}" for one in results.values()), f"{ratio:.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
