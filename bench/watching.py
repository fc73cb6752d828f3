"""What a watched folder costs: processor time while nothing happens, memory while files land.

    python -m bench.watching [--files 10000] [--json FILE]

The daemon of `sdfs watch --all-files` watches a folder of that many files that it has dealt with, for a minute; then as many others
land, and its memory is looked at as they are taken. They are no pictures, so that the store and not the codec is at work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from sdfs.owner.store.store import init

IDLE_SECONDS = 60.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid: int) -> float:
    """proc(5): utime and stime are the 14th and 15th field."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def rss_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def make_files(folder: Path, count: int, prefix: str) -> None:
    for number in range(count):
        path = folder / f"{number // 100}" / f"{prefix}{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{prefix} {number}")


def count(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*.txt"))


def measure(work: Path, files: int) -> dict[str, float]:
    folder, store = work / "incoming", work / "store"
    folder.mkdir()
    init(store)
    make_files(folder, files, "kept")
    environment = {**os.environ, "STATE_DIRECTORY": str(work / "state"), "XDG_RUNTIME_DIR": str(work)}
    command = [sys.executable, "-m", "daemon", str(folder), str(store), "--all-files", "--originals", "keep", "--settle", "1"]
    daemon = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        begun = time.perf_counter()
        while count(store) < files:
            time.sleep(1)
        took = time.perf_counter() - begun
        time.sleep(45)  # until it lets go of the store
        rss = [rss_mib(daemon.pid)]
        before = processor_seconds(daemon.pid)
        time.sleep(IDLE_SECONDS)
        idle = processor_seconds(daemon.pid) - before
        make_files(folder, files, "new")
        while (have := count(store)) < 2 * files:
            if have >= files + len(rss) * files / 5:
                rss.append(rss_mib(daemon.pid))
            time.sleep(0.2)
        rss.append(rss_mib(daemon.pid))
    finally:
        daemon.terminate()
        daemon.wait()
    return {
        "files": files,
        "taken, files/s": files / took,
        "idle, % of a core": 100 * idle / IDLE_SECONDS,
        "RSS before, MiB": rss[0],
        "RSS after a fifth more, MiB": rss[1],
        "RSS after twice as many, MiB": rss[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        result = measure(Path(work), arguments.files)
    for name, value in result.items():
        Console().print(f"{name:32}{value:10.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
