"""What every autoencoder offers: pixels to latents, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Latents = NDArray[np.float32]  # (channels, ceil(H / factor), ceil(W / factor)), of a pretrained autoencoder
