"""diffusers' image autoencoders, small and with random weights. Importing this takes seconds, for diffusers does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny


def kl(**changes: Any) -> Any:
    names = {"block": ["DownEncoderBlock2D"] * 3, "up": ["UpDecoderBlock2D"] * 3}
    config = {"down_block_types": names["block"], "up_block_types": names["up"], "block_out_channels": [8, 8, 16], "norm_num_groups": 4}
    return AutoencoderKL(**{**config, "latent_channels": 4, "layers_per_block": 1, "scaling_factor": 0.2, **changes})


def tiny() -> Any:
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
    )


def dc() -> Any:
    return AutoencoderDC(
        latent_channels=8,
        attention_head_dim=4,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        scaling_factor=0.4,
    )


MODELS: dict[str, tuple[Callable[[], Any], int, int]] = {  # by class: how to make one, its factor and channels
    "AutoencoderKL": (kl, 4, 4),
    "AutoencoderTiny": (tiny, 4, 4),
    "AutoencoderDC": (dc, 2, 8),
}


def saved(make: Callable[[], Any], folder: Path) -> Path:
    torch.manual_seed(1)
    make().save_pretrained(folder, safe_serialization=True)
    return folder
