"""What SDFS notes of models, in `$XDG_DATA_HOME/sdfs/models`: JSON files that are replaced whole.

`pulled.json`   what a revision was when it was pulled, {"org/name@main": "<commit>"}; a commit is itself
`folders.json`  local folders that were used, {"<SHA-256 of the weights>": "<path>"}
`hashes.json`   a cache, {"<path of weights>": [size, mtime in ns, "<SHA-256>"]}
`<SHA-256 of the weights>.json`   a calibration
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sdfs.errors import ModelError
from sdfs.system.places import data_home

PULLED = "pulled.json"
FOLDERS = "folders.json"
_HASHES = "hashes.json"


def data_folder() -> Path:
    return data_home() / "sdfs/models"


def load(record: str) -> dict[str, Any]:
    """Empty where there is none; raises ModelError where it is damaged."""
    path = data_folder() / record
    try:
        loaded = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict):
        raise ModelError(f"{path} is damaged: remove it")
    return loaded


def note(record: str, entries: Mapping[str, Any]) -> None:
    with locked("lock"):
        save(record, {**load(record), **entries})


def forget(record: str, keys: Iterable[str]) -> None:
    gone = set(keys)
    with locked("lock"):
        save(record, {key: value for key, value in load(record).items() if key not in gone})


def save(record: str, content: Mapping[str, Any]) -> None:
    """Replace a record, durably."""
    data_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=data_folder(), prefix=".", delete=False) as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(data_folder() / record)


@contextlib.contextmanager
def locked(name: str, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock among this user's processes; raises BlockingIOError where another has it and this one is not to wait."""
    data_folder().mkdir(parents=True, exist_ok=True)
    with open(data_folder() / name, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def remember_folder(folder: Path, weights_sha256: str) -> None:
    """So that the model of a blob that says local:… can be found again."""
    if load(FOLDERS).get(weights_sha256) != str(folder):
        _try_to_note(FOLDERS, {weights_sha256: str(folder)})


def sha256(path: Path) -> str:
    """64 hex digits. Read again only where size or mtime changed since the last time."""
    path = path.resolve()
    status = path.stat()
    key = [status.st_size, status.st_mtime_ns]
    noted = load(_HASHES).get(str(path))
    if isinstance(noted, list) and noted[:2] == key:
        return str(noted[2])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _try_to_note(_HASHES, {str(path): [*key, digest]})
    return digest


def _try_to_note(record: str, entries: Mapping[str, Any]) -> None:
    """Models can be used where nothing can be written."""
    with contextlib.suppress(OSError):
        note(record, entries)
