"""Pixels to coefficients, fast: what `lapped.to_components`, `choose` and `forward` say, of one part of a picture, without gradients.

As in `synthesis`, one product of matrices filters the samples around a corner; another transforms those of a position.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdfs.codec.autoencoders.corners import Border, kinds_of, windows_of
from sdfs.codec.autoencoders.interface import Pixels
from sdfs.codec.autoencoders.lapped import COMPONENTS, FACTOR, Window, block_of, lapping_around, prefers_short, to_components

_CELL = FACTOR // 2
_BORDER: Border = ((1, 1), (1, 1))


@functools.cache
@torch.inference_mode(False)
def _filter(kind: int, dtype: torch.dtype) -> Tensor:
    return lapping_around(windows_of(kind)).T.to(dtype).contiguous()


@functools.cache
@torch.inference_mode(False)
def _transform(window: Window, dtype: torch.dtype) -> Tensor:
    return block_of(window).T.to(dtype).contiguous()


@torch.inference_mode()
def analyse(pixels: Pixels, step: Tensor, bands: tuple[int, ...], dtype: torch.dtype) -> tuple[list[Tensor], NDArray[np.bool_]]:
    """The lowest `bands` coefficients of each component (R, C, bands), and short windows (R, C), of pixels (16 R, 16 C, 3).

    As if the picture ended where these pixels do. step (1,): of quantisation; `dtype`: of what windows are chosen by.
    """
    blocks = _blocks(pixels)
    short = _chosen(blocks[0].to(dtype), np.zeros([side // FACTOR for side in pixels.shape[:2]], np.bool_), step)
    kinds, places = kinds_of(short, _BORDER), torch.from_numpy(short)
    found = []
    for component, count in zip(blocks, bands, strict=True):
        samples = _of_positions(_filtered(component, kinds), short)
        coefficients = samples @ _transform(Window.LONG, torch.float32)[:, :count]
        coefficients[places] = samples[places] @ _transform(Window.SHORT, torch.float32)[:, :count]
        found.append(coefficients)
    return found, short


def _chosen(luma: Tensor, nowhere: NDArray[np.bool_], step: Tensor) -> NDArray[np.bool_]:
    """Where windows are short; `nowhere` is False for each position."""
    tried = []
    for window, short in ((Window.LONG, nowhere), (Window.SHORT, ~nowhere)):
        samples = _of_positions(_filtered(luma, kinds_of(short, _BORDER)), short)
        tried.append(samples @ _transform(window, luma.dtype))
    found: NDArray[np.bool_] = prefers_short(tried[0], tried[1], step).numpy()
    return found


def _blocks(pixels: Pixels) -> Tensor:
    """Components of the 16 x 16 samples around each corner, also those at the border: (COMPONENTS, corners, 256), cell by cell."""
    planes = np.stack([np.pad(pixels[:, :, axis], _CELL, mode="edge") for axis in range(COMPONENTS)])
    down, across = (side // FACTOR for side in planes.shape[1:])
    lines = planes.view(np.int64).reshape(COMPONENTS, down, 2, _CELL, across, 2).transpose(0, 1, 4, 2, 5, 3)  # 8 pixels are moved at once
    blocks = torch.from_numpy(np.ascontiguousarray(lines).view(np.uint8).reshape(1, COMPONENTS, down * across, FACTOR**2))
    return to_components(blocks.float())[0]


def _filtered(blocks: Tensor, kinds: Tensor) -> Tensor:
    """Samples around corners (n, 256), filtered."""
    usual = int(torch.bincount(kinds).argmax())
    samples = blocks @ _filter(usual, blocks.dtype)
    for kind in torch.unique(kinds).tolist():
        if kind != usual:
            corners = torch.nonzero(kinds == kind)[:, 0]
            samples.index_copy_(0, corners, blocks[corners] @ _filter(kind, blocks.dtype))
    return samples


def _of_positions(samples: Tensor, short: NDArray[np.bool_]) -> Tensor:
    """Samples around corners -> those of positions (R, C, 256), cell by cell."""
    cells = samples.view(short.shape[0] + 1, short.shape[1] + 1, 4, -1)
    return torch.cat([cells[:-1, :-1, 3], cells[:-1, 1:, 2], cells[1:, :-1, 1], cells[1:, 1:, 0]], 2)
