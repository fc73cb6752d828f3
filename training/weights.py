"""The codec that trains ↔ the package's weights: float16 networks and the integer prior, without the entropy tables."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from training.objective import Codec

_NETWORKS = ("encoder", "decoder", "hyper_encoder")


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
    codec.prior.load_integers(part("prior"))
    return codec
