"""`ls -l` of large folders of blobs. All three list the same files: the blobs of a store, as SDFS shows them and as they are."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from bench.filesystem.figures import Figures
from bench.filesystem.systems import mounted, new_store, passthrough, sync
from sdfs.blob import container
from sdfs.blob.container import KIND_RAW

COUNTS = (1_000, 10_000, 100_000)


def measure(work: Path, rounds: int) -> Figures:
    """Each round has new mounts; the owner has looked at all blobs before anybody lists them, for that would disturb it."""
    figures = Figures("ls -l, µs an entry", ratio=("SDFS", "passthrough"))
    store = new_store(work / "store")
    for count in COUNTS:
        fill(store / f"{count}", count)
    for _ in range(rounds):
        with passthrough(store, work / "passthrough") as plain, mounted(store, work / "mount") as sdfs:
            sync(store)
            for count in COUNTS:
                for system, folder in (("native", store), ("passthrough", plain.path), ("SDFS", sdfs.path)):
                    for time in ("first", "again"):
                        with figures.timing(f"{count:,} entries, {time}", system, unit=count * 1e-6):
                            subprocess.run(["ls", "-l", folder / f"{count}"], check=True, stdout=subprocess.DEVNULL, env={"LC_ALL": "C"})
    return figures


def fill(folder: Path, count: int) -> None:
    """So many small raw blobs, no two of the same content."""
    folder.mkdir()
    for number in range(count):
        content = f"{folder.name} {number}".encode()
        sha256 = hashlib.sha256(content).hexdigest()
        header = {"original_size": len(content), "original_sha256": sha256}
        (folder / f"{number}.jpg").write_bytes(container.pack(KIND_RAW, len(content), header, {"file": content}))
