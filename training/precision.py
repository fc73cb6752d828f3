"""The number format that training computes networks in."""

from __future__ import annotations

import torch

from sdfs.codec.autoencoders.runner import fastest_dtype


def autocast(device: str) -> torch.autocast:
    """bfloat16 on a GPU, and on a processor that multiplies it in hardware; others take nine times as long with it as with float32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu" or fastest_dtype() == torch.bfloat16)
