"""Reading pictures that are latents: cold and warm, by several readers, a whole folder; beside decoding without a filesystem.

Cold: no render is in any cache, since the mount is new, and the model is loaded, since another picture was read.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.filesystem import photos
from bench.filesystem.decoding import decoder
from bench.filesystem.figures import Figures
from bench.filesystem.systems import mounted, new_store, read, run_sdfs

READERS = 8
_COLD, _DECODE, _MS = "read", "decode", 1e-3
_NO_READ_AHEAD = "read_ahead=0"


@dataclass(frozen=True)
class Setting:
    work: Path
    store: Path
    names: list[str]  # of the pictures that are latents, in the store's folder "pictures"
    others: dict[str, dict[str, Path]]  # the same in other formats, by name


def measure(work: Path, rounds: int, given: Sequence[Path], large_ones: int) -> list[Figures]:
    setting = _prepare(work, given, large_ones)
    cold = Figures("A cold read, and decoding without a filesystem, ms", ratio=(_COLD, _DECODE))
    warm = Figures("A warm read, MB/s", ratio=("SDFS", "native"))
    readers = Figures(f"{READERS} readers, cold, ms")
    copies = Figures("cp -r of the pictures' folder, cold, s", ratio=("no read-ahead", "read-ahead"))
    for _ in range(rounds):
        with _cold_mount(setting, _NO_READ_AHEAD) as folder:
            _one_by_one(setting, folder, cold, warm)
        with _cold_mount(setting, _NO_READ_AHEAD) as folder:
            _together(setting, folder, readers)
        for column, options in (("no read-ahead", (_NO_READ_AHEAD,)), ("read-ahead", ())):
            with _cold_mount(setting, *options) as folder, copies.timing("cp -r", column):
                subprocess.run(["cp", "-r", folder, work / "copy"], check=True)
            shutil.rmtree(work / "copy")
    _compare_readers(setting, cold, readers)
    return [_sizes(setting), cold, warm, readers, copies]


def _prepare(work: Path, given: Sequence[Path], large_ones: int) -> Setting:
    store, originals = new_store(work / "store"), work / "originals"
    made = photos.gather(originals, given, large_ones)
    (work / "warm.jpg").write_bytes(photos.small(given[0]))
    run_sdfs("add", "-q", store, work / "warm.jpg")
    run_sdfs("add", "-q", store, *made, "--to", "pictures")
    listed = json.loads(run_sdfs("ls", "--json", store / "pictures"))
    latent = {Path(one["path"]).name for one in listed if one["state"] == "latent"}
    names = [path.name for path in made if path.name in latent]
    (work / "others").mkdir()
    (work / "native").mkdir()
    return Setting(work, store, names, {name: photos.in_other_formats(originals / name, work / "others") for name in names})


@contextmanager
def _cold_mount(setting: Setting, *options: str) -> Iterator[Path]:
    """The pictures' folder in a new mount."""
    with mounted(setting.store, setting.work / "mount", *options) as mount:
        (mount.path / "warm.jpg").read_bytes()
        yield mount.path / "pictures"


def _one_by_one(setting: Setting, folder: Path, cold: Figures, warm: Figures) -> None:
    buffer = bytearray(1 << 20)
    with decoder() as process:
        process.blob(setting.store / "warm.jpg")
        for name in setting.names:
            with cold.timing(name, _COLD, _MS):
                size = read(folder / name, buffer)
            cold.add(name, _DECODE, process.blob(setting.store / "pictures" / name) / _MS)
            for other, path in setting.others[name].items():
                cold.add(name, other, process.picture(path) / _MS)
            equal = setting.work / "native" / name
            shutil.copyfile(folder / name, equal)
            for system, path in (("native", equal), ("SDFS", folder / name)):
                _read_warm(path, size, system, warm)


def _read_warm(path: Path, size: int, system: str, warm: Figures) -> None:
    """From open to close, and the content alone."""
    buffer, unit = bytearray(size), size / 1e6
    whole, content = Figures(""), Figures("")
    for _ in range(5):
        with whole.timing("", ""):
            read(path, buffer)
        with path.open("rb", buffering=0) as file, content.timing("", ""):
            file.readinto(buffer)
    warm.add(f"{path.name}, open to close", system, unit / whole.medians()[""][""])
    warm.add(f"{path.name}, content", system, unit / content.medians()[""][""])


def _together(setting: Setting, folder: Path, readers: Figures) -> None:
    """The first pictures at once; then as many readers of the last, which nobody has read."""
    with ThreadPoolExecutor(READERS) as threads:
        for row, names in (("different pictures", setting.names[:-1][:READERS]), ("one picture", [setting.names[-1]] * READERS)):
            with readers.timing(row, "together", _MS):
                list(threads.map(lambda name: read(folder / name, bytearray(1 << 20)), names))


def _compare_readers(setting: Setting, cold: Figures, readers: Figures) -> None:
    medians = cold.medians()
    readers.add("different pictures", "one after the other", sum(medians[name][_COLD] for name in setting.names[:-1][:READERS]))
    readers.add("one picture", "one reader", medians[setting.names[-1]][_COLD])


def _sizes(setting: Setting) -> Figures:
    sizes = Figures("Files, kB")
    for name in setting.names:
        sizes.add(name, "SDFS", (setting.store / "pictures" / name).stat().st_size / 1e3)
        for other, path in setting.others[name].items():
            sizes.add(name, other, path.stat().st_size / 1e3)
    return sizes
