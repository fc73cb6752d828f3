"""Colours under full transparency, which nobody sees.

Cut-outs mostly have one colour there, black or white. Its edge would take latents, and what they leave of it would make a lossless render
too large. So latents get a smooth continuation of what is visible, and a render gets the colour back. Where there are several colours they
are pixels like all others.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def colour(pixels: Pixels, alpha: Pixels) -> list[int] | None:
    """The one colour of all hidden pixels; None where there are several, or where all are hidden, or none."""
    hidden = alpha == 0
    if hidden.all() or not hidden.any():
        return None
    found = pixels[hidden].reshape(np.count_nonzero(hidden), -1)
    return found[0].tolist() if (found == found[0]).all() else None


def fill(pixels: Pixels, alpha: Pixels) -> Pixels:
    """The pixels, (H, W, 3) or (H, W), with something near to their visible neighbours where they are hidden."""
    filled = _fill(pixels.reshape(*alpha.shape, -1), (alpha > 0)[:, :, None])
    return filled.reshape(pixels.shape)


def put(pixels: Pixels, others: Pixels, alpha: Pixels) -> Pixels:
    """The pixels, with the others where they are hidden."""
    return np.where(alpha.reshape(*alpha.shape, *[1] * (pixels.ndim - 2)) > 0, pixels, others)


def _fill(pixels: Pixels, known: npt.NDArray[np.bool_]) -> Pixels:
    """Hidden pixels get the mean of the visible ones of the smallest square around them, of sides 2, 4, 8, …, that has any."""
    if known.all():
        return pixels
    height, width = known.shape[:2]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    count = _quarter(np.pad(known, even)).astype(np.uint16)
    mean = _quarter(np.pad(pixels * known, even)) // np.maximum(count, 1)
    rough = _fill(mean.astype(np.uint8), count > 0)
    return np.where(known, pixels, rough.repeat(2, axis=0).repeat(2, axis=1)[:height, :width])


def _quarter(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint16]:
    """Sums of 2 × 2."""
    height, width, channels = values.shape
    return values.reshape(height // 2, 2, width // 2, 2, channels).sum(axis=(1, 3), dtype=np.uint16)
