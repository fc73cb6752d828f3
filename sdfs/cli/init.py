from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdfs.cli.settings import EffortOption, MinMsSsimOption, MinPsnrOption, ModelOption, QualityOption


def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder; made if it is not there.")],
    quality: QualityOption = None,
    model: ModelOption = None,
    effort: EffortOption = None,
    min_psnr: MinPsnrOption = None,
    min_ms_ssim: MinMsSsimOption = None,
) -> None:
    """Make a folder a store, which remembers how its pictures are to be shrunk.

    Pictures that it already holds are shrunk once it is mounted or synced. Defaults: quality 60, the bundled model, normal effort,
    and a gate of 22 dB and 0.94.
    """
    from sdfs.cli.output import complain
    from sdfs.cli.settings import given
    from sdfs.owner.store.store import init
    from sdfs.settings import BUNDLED, EncodeSettings

    settings = EncodeSettings.parse(given(quality=quality, model=model, effort=effort, min_psnr=min_psnr, min_ms_ssim=min_ms_ssim))
    init(store, settings)
    if settings.model != BUNDLED and min_psnr is None and min_ms_ssim is None:
        gate = f"PSNR {settings.min_psnr:g} dB or MS-SSIM {settings.min_ms_ssim:g}"
        how = f"min_psnr and min_ms_ssim in {store}/.sdfs/config.toml lower that"
        complain(f"pictures that come out of {model} with less than {gate} are kept exactly, which may be most: {how}")
