"""What the owner of a store decides about new latents."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from sdfs.errors import UserError
from sdfs.settings import DEFAULTS, Effort, EncodeSettings


def test_they_survive_json() -> None:
    settings = EncodeSettings(7, "other", Effort.BEST, 20.5, 1)
    assert EncodeSettings.parse(json.loads(json.dumps(asdict(settings)))) == settings


def test_what_is_missing_is_as_by_default() -> None:
    assert EncodeSettings.parse({"unknown": 1}) == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("quality", 101, "quality: want 0 to 100, have 101"),
        ("quality", 35.5, "quality: want 0 to 100, have 35.5"),
        ("quality", True, "quality: want 0 to 100, have True"),
        ("model", 1, "model: want a name, have 1"),
        ("effort", "much", "effort: want fast, normal, best, have much"),
        ("effort", [], r"effort: want fast, normal, best, have \[\]"),
        ("min_psnr", -1, "min_psnr: want 0 to 100 dB, have -1"),
        ("min_psnr", float("nan"), "min_psnr: want 0 to 100 dB, have nan"),
        ("min_ms_ssim", 94, "min_ms_ssim: want 0 to 1, have 94"),
        ("min_ms_ssim", "0.9", "min_ms_ssim: want 0 to 1, have 0.9"),
    ],
)
def test_what_cannot_be_is_refused_with_want_and_have(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        EncodeSettings.parse({name: value})
