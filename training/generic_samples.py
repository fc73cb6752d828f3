"""Latents to fit the generic prior to: of stand-ins for autoencoders.

A stand-in is a lapped transform whose channels are mixed at random. Like autoencoders' latents, its channels are of about unit
variance, correlated between neighbours and between each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdfs.codec.coding.generic_coder import Head

SIDE = 512  # pixels; the middle of each photo
STAND_INS = ((8, 16, 4, 60), (8, 16, 16, 16), (32, 48, 32, 60))  # factor, window, channels, photos
PATCHES = 30  # a photo
STEPS = (-3.0, 0.5)  # log2 of the steps, relative to the latents' deviation

Photo = NDArray[np.uint8]  # (SIDE, SIDE, 3)
Latents = NDArray[np.float32]


def middle(path: Path) -> Photo:
    """The middle of a photo, which is enlarged where a side is shorter."""
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    scale = max(1.0, SIDE / min(rgb.size))
    rgb = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.LANCZOS)
    left, top = (rgb.width - SIDE) // 2, (rgb.height - SIDE) // 2
    return np.array(rgb.crop((left, top, left + SIDE, top + SIDE)))


class StandIn:
    """A lapped transform: the principal components of windowed patches, mixed by a random rotation."""

    def __init__(self, photos: Sequence[Photo], factor: int, window: int, channels: int, random: np.random.Generator) -> None:
        self._factor, self._size = factor, window
        bump = np.sin(np.pi * (np.arange(window) + 0.5) / window)
        self._window = (bump[:, None] * bump)[:, :, None]
        corners = random.integers(0, SIDE - window + 1, (len(photos), PATCHES, 2))
        patches = np.array([photo[y : y + window, x : x + window] for photo, some in zip(photos, corners, strict=True) for y, x in some])
        flat = ((patches / 127.5 - 1) * self._window).reshape(len(patches), -1)
        flat -= flat.mean(0)
        components = np.linalg.svd(flat, full_matrices=False)[2][:channels]
        spread = (flat @ components.T).std(0)
        mixed = np.linalg.qr(random.normal(size=(channels, channels)))[0] @ (components / spread[:, None] ** 0.7)
        self._matrix = mixed / (flat @ mixed.T).std(0)[:, None]

    def encode(self, photo: Photo) -> Latents:
        margin = (self._size - self._factor) // 2
        padded = np.pad(photo, ((margin, margin), (margin, margin), (0, 0)), "reflect")
        patches = np.lib.stride_tricks.sliding_window_view(padded, (self._size, self._size), (0, 1))[:: self._factor, :: self._factor]
        flat = ((patches.transpose(0, 1, 3, 4, 2) / 127.5 - 1) * self._window).reshape(*patches.shape[:2], -1)
        return np.moveaxis(flat @ self._matrix.T, 2, 0).astype(np.float32)


def in_symbols(latents: Latents, random: np.random.Generator) -> Latents:
    steps = np.full(len(latents), latents.std() * 2 ** random.uniform(*STEPS), np.float32)
    return Head.fitting(latents, steps).apply(latents)


def samples(photos: Sequence[Photo], random: np.random.Generator) -> Iterator[Latents]:
    """Latents in symbol units of many steps, rotated."""
    for factor, window, channels, count in STAND_INS:
        stand_in = StandIn(photos, factor, window, channels, random)
        for photo in photos[:count]:
            yield in_symbols(stand_in.encode(photo), random)
