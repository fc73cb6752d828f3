"""What a model's folder holds: config.json and one safetensors file, as diffusers' `save_pretrained` writes them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sdfs.errors import ModelError
from sdfs.models import records

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"

_BLOCKS = {  # the classes that SDFS knows, and which key of their config has an entry for each halving, and one more
    "AutoencoderKL": "block_out_channels",
    "AutoencoderTiny": "encoder_block_out_channels",
    "AutoencoderDC": "encoder_block_out_channels",
}
_PICKLED = {".bin", ".pt", ".pth", ".ckpt"}
_CONFIG_LIMIT = 1 << 20  # bytes
_HEADER_LIMIT = 100_000_000  # bytes; safetensors' own


@dataclass(frozen=True)
class Model:
    """An autoencoder on this machine."""

    id: str  # as a blob's header names it: org/name[/subfolder]@commit, or local:<folder name>
    name: str | None  # short name
    folder: Path
    class_name: str
    factor: int  # pixels a latent position, per side
    channels: int
    parameters: int
    weights_bytes: int
    weights_sha256: str


@dataclass(frozen=True)
class Config:
    class_name: str
    factor: int
    channels: int


def read(folder: Path, id: str, name: str | None) -> Model:
    """The model in `folder`; raises ModelError that says why it is none, OSError."""
    of = str(folder) if id.startswith("local:") else id
    check_names({path.name for path in folder.iterdir()}, of)
    config, weights = read_config(folder / CONFIG, of), folder / WEIGHTS
    return Model(
        id=id,
        name=name,
        folder=folder,
        class_name=config.class_name,
        factor=config.factor,
        channels=config.channels,
        parameters=count_parameters(weights, of),
        weights_bytes=weights.stat().st_size,
        weights_sha256=records.sha256(weights),
    )


def check_names(names: Collection[str], of: str) -> None:
    """Raise ModelError where a folder with files of these names holds no model."""
    if CONFIG not in names:
        raise ModelError(f"{of} holds no autoencoder of diffusers: it has no {CONFIG}")
    if f"{WEIGHTS}.index.json" in names:  # diffusers would read the files that it lists
        raise ModelError(f"{of} has its weights in several files: want {WEIGHTS} alone")
    if WEIGHTS in names:
        return
    if variants := sorted(name for name in names if name.endswith(".safetensors")):
        raise ModelError(f"{of} has weights only as {', '.join(variants)}: want {WEIGHTS}")
    if any(PurePosixPath(name).suffix in _PICKLED for name in names):
        raise ModelError(f"{of} has only pickled weights, which can run any program when they are read: want {WEIGHTS}")
    raise ModelError(f"{of} has no weights: want {WEIGHTS}")


def read_config(path: Path, of: str) -> Config:
    """What config.json says of the latents; raises ModelError where it is not that of an autoencoder which SDFS can use."""
    config = _parse_object(_read_at_most(path, _CONFIG_LIMIT), f"{of}: {CONFIG} is no JSON object")
    if "auto_map" in config:
        raise ModelError(f"{of} comes with code of its own: SDFS never runs a model's code")
    class_name = config.get("_class_name")
    if not isinstance(class_name, str) or class_name not in _BLOCKS:
        raise ModelError(f"{of} is of class {class_name}: want {', '.join(_BLOCKS)}")
    blocks, channels = config.get(_BLOCKS[class_name]), config.get("latent_channels")
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= 8 or type(channels) is not int or not 1 <= channels <= 1024:
        raise ModelError(f"{of}: {CONFIG} tells no latent_channels up to 1024, or no {_BLOCKS[class_name]}, of up to 8 blocks")
    if config.get("in_channels") != 3:
        raise ModelError(f"{of} is for pictures of {config.get('in_channels')} channels: want 3")
    return Config(class_name, 1 << len(blocks) - 1, channels)


def count_parameters(path: Path, of: str) -> int:
    """The number of weights in a safetensors file, by its header; raises ModelError where the file is not whole."""
    damaged = f"{of}: {WEIGHTS} is no whole safetensors file"
    with path.open("rb") as file:
        size, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise ModelError(damaged)
        header = _parse_object(file.read(length), damaged)
    try:
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        end = max(int(tensor["data_offsets"][1]) for tensor in tensors)
        parameters = sum(math.prod(map(int, tensor["shape"])) for tensor in tensors)
    except (TypeError, KeyError, IndexError, ValueError):
        raise ModelError(damaged) from None
    if 8 + length + end != size:
        raise ModelError(damaged)
    return parameters


def _read_at_most(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)


def _parse_object(data: bytes, message: str) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        raise ModelError(message) from None
    if not isinstance(parsed, dict):
        raise ModelError(message)
    return parsed
