"""What the owner of a store decides about new latents, how they are made and what a reader has to get of them; and about memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Literal, Self

from sdfs.errors import UserError

Heic = Literal["keep", "jpeg"]  # what becomes of HEIC and AVIF pictures that come in
BUNDLED = "bundled"  # the name of the bundled model, whichever its version


class Effort(StrEnum):
    """How long an encoder may search for fewer bytes. Decoders take the same time whatever it was."""

    FAST = "fast"
    NORMAL = "normal"
    BEST = "best"


@dataclass(frozen=True)
class EncodeSettings:
    """Raises UserError where a value cannot be."""

    quality: int = 60  # 0 … 100: SSIMULACRA2's score that a reader is promised; of other models than the bundled one, its own quality
    model: str = BUNDLED  # or as `sdfs model` names it
    effort: Effort = Effort.NORMAL
    min_psnr: float = 22.0  # the gate, 0 … 100 dB
    min_ms_ssim: float = 0.94  # and 0 … 1

    def __post_init__(self) -> None:
        _want(type(self.quality) is int and 0 <= self.quality <= 100, "quality", "0 to 100", self.quality)
        _want(isinstance(self.model, str), "model", "a name", self.model)
        _want(isinstance(self.effort, Effort), "effort", ", ".join(Effort), self.effort)
        _want(_within(self.min_psnr, 100), "min_psnr", "0 to 100 dB", self.min_psnr)
        _want(_within(self.min_ms_ssim, 1), "min_ms_ssim", "0 to 1", self.min_ms_ssim)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """From JSON or TOML; what is missing is as by default. Raises UserError."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        if known.get("effort") in list(Effort):
            known["effort"] = Effort(known["effort"])
        return cls(**known)


def _within(value: object, most: float) -> bool:
    return type(value) in (int, float) and 0 <= value <= most  # type: ignore[operator]


def _want(fulfilled: bool, name: str, wanted: str, have: object) -> None:
    if not fulfilled:
        raise UserError(f"{name}: want {wanted}, have {have}")


DEFAULTS = EncodeSettings()


@dataclass(frozen=True)
class Memory:
    """What the engine may take, in bytes. One picture by itself gets what it needs of main memory."""

    ram: int = 4 << 30
    vram: int | None = None  # of a GPU's; None: all of it
