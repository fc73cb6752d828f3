"""What a pixel costs: multiplications, each with its addition, that torch is asked for."""

from __future__ import annotations

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from bench.rate_distortion.codecs import Codec

_SIDE = 512  # pixels: no more than a tile, whose edges would be computed twice


def decoder_kmac(codec: Codec) -> float | None:
    """kMAC a pixel of convolutions and matrix products on this thread, whatever their number format. None: it has no decoder to call."""
    if codec.decode is None:
        return None
    ramp = np.linspace(0, 255, _SIDE).astype(np.uint8)
    data, _ = codec.code(np.stack(np.broadcast_arrays(ramp, ramp[:, None], ramp[::-1]), 2), 50)
    with FlopCounterMode(display=False) as counter:
        codec.decode(data)
    return float(counter.get_total_flops()) / 2 / _SIDE**2 / 1000
