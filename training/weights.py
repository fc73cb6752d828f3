"""The codec that trains ↔ the package's weights: float16 networks and the integer prior, without the entropy tables."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sdfs.autoencoders.bundled import LEVELS, QUALITIES, interpolate
from sdfs.priors.learned import LOG_STEP, WEIGHT_STEP
from training.objective import Codec

_NETWORKS = ("encoder", "decoder", "hyper_encoder")
_TABLES = {"gains": ("gain", LOG_STEP), "hyper_scales": ("hyper_scale", LOG_STEP), "quality_bias": ("quality", WEIGHT_STEP)}


def weights_of(codec: Codec) -> dict[str, Tensor]:
    weights = {f"prior.{name}": value for name, value in codec.prior.integers().items()}
    for name in _NETWORKS:
        weights |= {f"{name}.{k}": v.half().contiguous() for k, v in getattr(codec, name).state_dict().items()}
    return weights


def codec_of(weights: Mapping[str, Tensor]) -> Codec:
    """Inverse of `weights_of`, but for what rounding took."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix + "."): v for k, v in weights.items() if k.startswith(prefix + ".")}

    codec = Codec()
    for name in _NETWORKS:
        getattr(codec, name).load_state_dict({k: v.float() for k, v in part(name).items()})
    prior = part("prior")
    del prior["multipliers"]  # made of the gains
    state = {name: integers.float() * WEIGHT_STEP for name, integers in prior.items() if name not in _TABLES}
    # the table of all qualities was interpolated between LEVELS of them
    between = interpolate(torch.eye(LEVELS), torch.arange(QUALITIES, dtype=torch.float32)).double()
    for table, (name, step) in _TABLES.items():
        state[name] = torch.linalg.lstsq(between, prior[table].double() * step).solution.float()
    codec.prior.load_state_dict(state)
    return codec
