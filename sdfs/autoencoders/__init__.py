"""Pixels to latents and back. One protocol for every autoencoder."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Latents = NDArray[np.float32]  # (channels, ceil(H / factor), ceil(W / factor))


class Autoencoder(Protocol):
    """A resident model. Results of `encode` and `decode` may differ in the last bits between machines; nothing relies on them."""

    @property
    def id(self) -> str:
        """The name under which a blob's header asks for it."""

    @property
    def weights_sha256(self) -> str:
        """Of the weights file, 64 hex digits."""

    @property
    def factor(self) -> int:
        """Pixels a latent position, per side."""

    @property
    def channels(self) -> int: ...

    def encode(self, pixels: Pixels, quality: int) -> Latents: ...

    def decode(self, latents: Latents, quality: int, height: int, width: int) -> Pixels: ...
