"""How long a mount takes to be there, and the memory that it takes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter

from bench.filesystem.figures import Figures
from bench.filesystem.listing import fill
from bench.filesystem.systems import Mount, children, memory_mb, mounted, new_store, passthrough, run_sdfs, sync

BLOBS = 10_000


def measure(work: Path, rounds: int, photo: Path) -> list[Figures]:
    seconds = Figures("A mount, from the start of its command", ratio=("SDFS", "passthrough"))
    memory = Figures("Resident memory, MB")
    stores = {"no blobs": new_store(work / "empty"), f"{BLOBS:,} blobs": new_store(work / "full")}
    for store in stores.values():
        (store / "file").write_text("to be looked at")
    fill(work / "full" / "blobs", BLOBS)
    picture = new_store(work / "picture")
    run_sdfs("add", "-q", picture, photo)
    for _ in range(rounds):
        for name, store in stores.items():
            memory.add(f"idle, {name}", "passthrough", _mount(seconds, name, "passthrough", passthrough(store, work / "passthrough")))
            memory.add(f"idle, {name}", "SDFS", _mount(seconds, name, "SDFS", mounted(store, work / "mount"), store))
        with mounted(picture, work / "mount") as sdfs:
            (sdfs.path / photo.name).read_bytes()
            memory.add("engine running", "SDFS", memory_mb(sdfs.pid, "VmRSS"))
            memory.add("engine running", "its engine", sum(memory_mb(child, "VmRSS") for child in children(sdfs.pid)))
    return [seconds, memory]


def _mount(figures: Figures, name: str, system: str, mount: AbstractContextManager[Mount], store: Path | None = None) -> float:
    """MB that its process has, once the owner of a store has looked at its blobs."""
    begun = perf_counter()
    with mount as served:
        figures.add(f"{name}: ready, s", system, perf_counter() - begun)
        (served.path / "file").stat()
        figures.add(f"{name}: a file's stat, s", system, perf_counter() - begun)
        if store is not None:
            sync(store)
        return memory_mb(served.pid, "VmRSS")
