"""How coarsely each latent channel of a pretrained autoencoder may be quantised: what `sdfs model calibrate` measures.

Noise is added to one channel at a time. What it does to the decoded pixels, in the mean over photos, is that channel's sensitivity, and a
step inversely proportional to its root spends the error evenly: coarser steps anywhere would add more error than they save bits, if
quantisation errors add up and are small (reverse water-filling; Cover and Thomas, Elements of Information Theory, 10.3.3).

Only encoders look at it: blobs have their steps in them. `python -m sdfs.codec.calibration NAME FOLDER` prints a line of JSON for each
photo and the result as the last one; the command runs it as a process of its own, for it needs torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.codec.autoencoders.pretrained import TILE_PIXELS, PretrainedAutoencoder
from sdfs.codec.choosing import to_rgb
from sdfs.codec.pictures.picture import probe
from sdfs.errors import PictureError, SdfsError, UserError
from sdfs.models import registry
from sdfs.models.folder import Model

PHOTOS = 16
_NOISE = 0.25  # standard deviation, of latents whose own is about 1
_LARGEST_RATIO = 8.0  # of the coarsest step to the geometric mean, and of that to the finest


def measure(model: Model, photos: Iterator[np.ndarray]) -> Iterator[dict[str, Any]]:
    """Yields {"photos": n} after each photo (H, W, 3), and {"photos": n, "steps": [a relative step for each channel]} at the end.

    Raises ModelError; UserError where there is no photo.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autoencoder = PretrainedAutoencoder.load(model.folder, model.id, model.weights_sha256, device=device)
    random = np.random.default_rng(0)
    harm = np.zeros(autoencoder.channels)
    count = 0
    for photo in photos:
        latents = autoencoder.encode(photo)
        clean = autoencoder.decode(latents, *photo.shape[:2]).astype(np.float32)
        for channel in range(autoencoder.channels):
            noisy = latents.copy()
            noisy[channel] += random.normal(0, _NOISE, latents.shape[1:]).astype(np.float32)
            harm[channel] += np.square(autoencoder.decode(noisy, *photo.shape[:2]) - clean).mean()
        count += 1
        yield {"photos": count}
    if not count:
        raise UserError("there is no photo in the folder: calibration needs some, of the kind that will be stored")
    yield {"photos": count, "steps": relative_steps(harm).tolist()}


def relative_steps(harm: np.ndarray) -> np.ndarray:
    """(C,) mean squared errors of equal noise in each channel -> steps whose geometric mean is 1."""
    logarithms = -0.5 * np.log(np.maximum(harm, 1e-12))
    centred = logarithms - logarithms.mean()
    limited = np.clip(centred, -np.log(_LARGEST_RATIO), np.log(_LARGEST_RATIO))
    steps: np.ndarray = np.exp(limited - limited.mean())
    return steps


def photos_of(folder: Path) -> Iterator[np.ndarray]:
    """The middle of up to PHOTOS photos, evenly spread over the folder's files by name: (H, W, 3) uint8, a tile large at most."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and picture_format(_head(path)) is not None)
    for path in files[:: max(1, len(files) // PHOTOS)][:PHOTOS]:
        try:
            pixels = probe(path.read_bytes()).pixels
        except PictureError:
            continue
        top, left = (max(0, (side - TILE_PIXELS) // 2) for side in pixels.shape[:2])
        part = pixels[top : top + TILE_PIXELS, left : left + TILE_PIXELS]
        yield to_rgb(part)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def main() -> None:
    name, folder = sys.argv[1:]
    try:
        for line in measure(registry.resolve(name), photos_of(Path(folder))):
            print(json.dumps(line), flush=True)
    except SdfsError as error:
        print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    main()
