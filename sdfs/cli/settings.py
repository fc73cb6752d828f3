"""The options that say how pictures are shrunk: `sdfs.settings.EncodeSettings`, each of them None where it is not given."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sdfs.settings import BUNDLED, Effort

QualityOption = Annotated[
    int | None, typer.Option("--quality", "-Q", min=0, max=100, help="The score (SSIMULACRA2) that every picture reaches at least.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="The model that shrinks: `bundled`, or one that `sdfs model` lists.")
]
EffortOption = Annotated[Effort | None, typer.Option("--effort", help="How long to search for fewer bytes.")]
MinPsnrOption = Annotated[
    float | None, typer.Option("--min-psnr", min=0, max=100, help="In dB: a picture that readers would get with less is kept exactly.")
]
MinMsSsimOption = Annotated[
    float | None, typer.Option("--min-ms-ssim", min=0, max=1, help="A picture that readers would get with less is kept exactly.")
]


def given(**options: Any) -> dict[str, Any]:
    """Those that are, by the names of the settings; a model as its id on this machine. Raises ModelMissing, ModelError."""
    from sdfs.models.registry import resolve

    settings = {name: option for name, option in options.items() if option is not None}
    if settings.get("model", BUNDLED) != BUNDLED:
        settings["model"] = resolve(settings["model"]).id
    return settings
