"""The number format that training computes networks in."""

from __future__ import annotations

import torch

from sdfs.autoencoders.runner import fastest_dtype


def autocast(device: str) -> torch.autocast:
    """bfloat16 where the device multiplies it in hardware; a processor that does not takes nine times as long with it as with float32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu" or fastest_dtype() == torch.bfloat16)
