"""The models that are measured, in each number format, and what they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load
from torch import Tensor

from sdfs.codec.autoencoders import lapped, layout
from sdfs.codec.autoencoders.lapped import BANDS, COMPONENTS, FACTOR
from sdfs.codec.autoencoders.layout import DETAIL_CHANNELS
from sdfs.codec.autoencoders.runner import LARGEST_ERROR, BundledAutoencoder

QUALITY = 70.0
# a pixel: the blocks of the bundled transform, its filters across both kinds of borders, long and short ones, and colours
LINEAR_FLOP = 2.0 * COMPONENTS * (BANDS + 2 * 2 * FACTOR + COMPONENTS)
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    name: str
    dtype: torch.dtype
    tf32: bool  # in what is float32

    @contextmanager
    def set(self) -> Iterator[None]:
        """What torch does with float32 from here on."""
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.tf32
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]


EXACT = Format("fp32", torch.float32, False)
TF32 = Format("fp32, TF32", torch.float32, True)
FORMATS = (Format("bf16", torch.bfloat16, True), Format("fp16", torch.float16, True), TF32, EXACT)


@dataclass(frozen=True)
class Model:
    """In one format. Pixels are (B, 3, H, W) float32 in [0, 1], latents float32."""

    encoder: Network
    decoder: Network
    linear_flop: float = 0.0  # a pixel: what is float32 in any format


def bundled(device: torch.device, format: Format) -> Model:
    """Raises ValueError where the engine does not take the format."""
    weights = load(resources.files("sdfs").joinpath("codec/weights/bundled.safetensors").read_bytes())
    autoencoder = BundledAutoencoder(weights, "", device, format.dtype)
    if autoencoder.placed[1] != format.dtype:
        raise ValueError(f"bundled, {format.name}: off by more than {LARGEST_ERROR} of 255, so that the engine takes float32")
    restoration: Any = autoencoder._network.restoration
    q = torch.tensor([QUALITY], device=device)
    step, steps = torch.exp2(layout.log2_step(q)), torch.exp2(layout.log2_steps(q))[:, :, None, None]

    def long(x: Tensor, side: int) -> Tensor:
        return torch.zeros(len(x), x.shape[2] // side, x.shape[3] // side, dtype=torch.bool, device=device)

    def encoder(pixels: Tensor) -> Tensor:
        return layout.to_channels(lapped.forward(lapped.to_components(pixels * 255), long(pixels, FACTOR))) / steps

    def decoder(latents: Tensor) -> Tensor:
        components = lapped.inverse(layout.to_coefficients(latents * steps), long(latents, 1))
        restored = restoration(components, latents[:, DETAIL_CHANNELS], long(latents, 1), step.expand(len(latents)), q.expand(len(latents)))
        return lapped.to_rgb(restored) / 255

    return Model(encoder, decoder, LINEAR_FLOP)


def autoencoder_kl(device: torch.device, format: Format, config: dict[str, Any]) -> Model:
    """With random weights, the same for all formats."""
    from sdfs.codec.autoencoders.pretrained import CLASSES

    torch.manual_seed(0)
    made: Any = CLASSES["AutoencoderKL"](**config).eval().requires_grad_(False)
    made.to(device=device, dtype=format.dtype, memory_format=torch.channels_last)

    def encoder(pixels: Tensor) -> Tensor:
        latents: Tensor = made.encode((pixels * 2 - 1).to(format.dtype)).latent_dist.mode().float()
        return latents

    def decoder(latents: Tensor) -> Tensor:
        pixels: Tensor = made.decode(latents.to(format.dtype)).sample.float()
        return (pixels + 1) / 2

    return Model(encoder, decoder)


@torch.inference_mode()
def inputs(exact: Model, device: torch.device, side: int, count: int) -> tuple[Tensor, Tensor]:
    """Pixels of a photo, shifted from picture to picture, and their latents."""
    from skimage import data

    photo: np.ndarray = data.astronaut()  # type: ignore[no-untyped-call]
    scaled = np.asarray(Image.fromarray(photo).resize((side, side), Image.Resampling.LANCZOS))
    batch = np.stack([np.roll(scaled, 37 * index, (0, 1)) for index in range(count)])
    pixels = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float() / 255
    with EXACT.set():
        return pixels, torch.cat([exact.encoder(pixels[index : index + 1]) for index in range(count)])
