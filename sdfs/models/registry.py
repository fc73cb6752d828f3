"""Names to what is on this machine, without the network."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from sdfs.errors import ModelError, ModelMissing
from sdfs.models import folder, names, records
from sdfs.models.folder import Model
from sdfs.models.names import Source

_LOCAL = "local:"


def resolve(name: str) -> Model:
    """The model that a short name, org/name[/subfolder][@revision], or a folder's path or id means on this machine.

    Without a commit it is the one that was pulled, else the one that the hub's cache has.
    Raises ModelMissing where it is not here, ModelError where it is and cannot be used, OSError.
    """
    if names.is_folder(name):
        return _local(Path(name).expanduser())
    if name.startswith(_LOCAL):
        return _remembered(name)
    source = names.parse(name)
    commit = _commit(source)
    at = commit and _snapshot(source, commit)
    if not at or not (at / folder.CONFIG).exists() or not (at / folder.WEIGHTS).exists():
        raise ModelMissing(f'{name} is not on this machine: get it with "sdfs model pull {name}"')
    return folder.read(at, f"{source.path}@{commit}", names.short_name(source))


def of_blob(id: str, weights: str) -> Model:
    """The model that made a blob: `id` and `weights`, the first digits of their SHA-256, are what its header records.

    Raises ModelMissing, or ModelError where the id is here with other weights.
    """
    if id.startswith(_LOCAL):
        return _remembered(id, weights)
    if not names.parse(id).is_pinned:
        raise ModelError(f"{id} names no commit of a model")
    model = resolve(id)
    if not model.weights_sha256.startswith(weights):
        raise ModelError(f"{id} has other weights here ({model.weights_sha256[:16]}) than the blob was made with ({weights})")
    return model


def installed() -> list[Model]:
    """What was pulled, what the hub's cache has of the known names, and the local folders that were used."""
    candidates = [known.name for known in names.KNOWN]
    candidates += [source for source in records.load(records.PULLED) if names.parse(source).is_pinned]
    candidates += records.load(records.FOLDERS).values()
    models: dict[tuple[str, str], Model] = {}
    for name in candidates:
        with contextlib.suppress(ModelError, OSError):  # removed since, or spoilt: `resolve` tells
            model = resolve(name)
            models[model.id, model.weights_sha256] = model
    return list(models.values())


def remove(model: Model) -> int:
    """Delete what was pulled, as far as nothing else in the hub's cache shares it; a local folder is only forgotten.

    Returns the bytes freed. The calibration stays.
    """
    if model.id.startswith(_LOCAL):
        records.forget(records.FOLDERS, [model.weights_sha256])
        return 0
    source = names.parse(model.id)
    pulled = records.load(records.PULLED)
    records.forget(records.PULLED, [key for key in pulled if names.parse(key).path == source.path and pulled[key] == source.revision])
    return _delete(model)


def calibration(model: Model) -> dict[str, Any] | None:
    """What `save_calibration` was given; None where it never was."""
    return records.load(f"{model.weights_sha256}.json") or None


def save_calibration(model: Model, calibration: dict[str, Any]) -> None:
    """Keep it with the weights, not the name: it fits every copy of them, and nothing else."""
    records.save(f"{model.weights_sha256}.json", calibration)


def _local(path: Path) -> Model:
    path = path.resolve()
    model = folder.read(path, _LOCAL + path.name, None)
    records.remember_folder(path, model.weights_sha256)
    return model


def _remembered(id: str, weights: str = "") -> Model:
    """A local folder by the id that a blob has."""
    paths = [
        path
        for sha256, path in records.load(records.FOLDERS).items()
        if sha256.startswith(weights) and (weights or Path(path).name == id.removeprefix(_LOCAL))
    ]
    if len(paths) > 1:
        raise ModelError(f"{id} may be {' or '.join(sorted(paths))}: name the folder")
    for path in paths:
        with contextlib.suppress(ModelError, OSError):  # it is no longer what it was
            model = _local(Path(path))
            if model.weights_sha256.startswith(weights):
                return model
    of_weights = f" of weights {weights}" if weights else ""
    raise ModelMissing(f'{id}{of_weights} is not on this machine: name its folder with "sdfs model pull FOLDER"')


def _commit(source: Source) -> str | None:
    if source.is_pinned:
        return source.revision
    if noted := records.load(records.PULLED).get(str(source)):
        return str(noted)
    with contextlib.suppress(OSError):
        return (repository_folder(source) / "refs" / source.revision).read_text()
    return None


def _snapshot(source: Source, commit: str) -> Path:
    return repository_folder(source) / "snapshots" / commit / source.subfolder


def repository_folder(source: Source) -> Path:
    """Where huggingface_hub's cache has a repository. Its layout is documented, and the client itself takes 20 MB of memory."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{source.repository.replace('/', '--')}")


def _delete(model: Model) -> int:
    from huggingface_hub import scan_cache_dir

    cache = scan_cache_dir()
    ours = {model.folder / folder.CONFIG, model.folder / folder.WEIGHTS}
    files = [file for repo in cache.repos for revision in repo.revisions for file in revision.files if file.file_path in ours]
    strategy = cache.delete_files(*files)
    strategy.execute()
    return strategy.expected_freed_size
