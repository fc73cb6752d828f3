"""SDFS's bundled codec beside JPEG, WebP, AVIF and JPEG XL: curves, BD rates, and 512 x 512 pixels in 4,970 bytes.

    python -m bench.rate_distortion PHOTOS... [--json FILE] [--figures FOLDER] [--sheets FOLDER] [--scale FOLDER]

Every photo is coded whole, with each codec at some steps of its quality, for the curves; then the middle of it, scaled to 512 x 512,
with each codec at the best quality that fits into 4,970 bytes, which is what Stable Diffusion's latents took for that in 2022. Bytes
are of whole files without metadata, of SDFS of the whole blob. --figures draws the curves, --sheets the pictures of 4,970 bytes side
by side, --scale SDFS's qualities.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track

from bench.rate_distortion import figures, sheets
from bench.rate_distortion.codecs import Codec, codecs
from bench.rate_distortion.curves import HIGH, LOW
from bench.rate_distortion.measuring import LIMIT_BYTES, SIDE, Measured, measure_all
from bench.rate_distortion.scores import METRICS
from bench.rate_distortion.tables import bd_rates, bd_table, curve_table, limited_table, wins_table
from sdfs.settings import Effort
from training.data import pictures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.figures and options.no_curves:
        parser.error("--figures are of curves")
    paths = [path for photo in options.photos for path in (pictures(photo) if photo.is_dir() else [photo])][: options.limit]
    if len({path.stem for path in paths}) < len(paths):
        parser.error("two photos have the same name")
    measuring = measure_all(paths, options.effort, options.jobs, curves=not options.no_curves)
    measured = list(track(measuring, "measuring", len(paths), console=Console(stderr=True), transient=True))
    ours = codecs(options.effort)
    _show(measured, Console())
    if options.json:
        options.json.write_text(json.dumps(_as_dict(measured, ours), indent=1) + "\n")
    if options.figures:
        figures.draw([result for one in measured for result in one.curves], options.figures)
    if options.sheets:
        sheets.draw(paths, [result for one in measured for result in one.limited], ours, options.sheets, f".{options.sheet_type}")
    if options.scale:
        sheets.draw_scale(paths, ours[-1], options.scale, f".{options.sheet_type}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", help="photos, and folders of photos, searched recursively")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N photos only")
    parser.add_argument("--no-curves", action="store_true", help="only 512 x 512 pixels in 4,970 bytes, which takes a fraction of the time")
    parser.add_argument("--effort", type=Effort, choices=list(Effort), default=Effort.NORMAL, help="of SDFS's encoder")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes, of one thread each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything measured")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="curves, as PNG and SVG")
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="pictures side by side, and where SDFS does worst")
    parser.add_argument("--scale", type=Path, metavar="FOLDER", help="the squares at some of SDFS's qualities, side by side")
    parser.add_argument("--sheet-type", choices=["png", "webp"], default="png")
    return parser


def _show(measured: Sequence[Measured], console: Console) -> None:
    limited = [result for one in measured for result in one.limited]
    curves = [result for one in measured for result in one.curves]
    if curves:
        console.print(curve_table(curves), bd_table(bd_rates(curves)))
    for metric in METRICS:
        console.print(limited_table(limited, metric))
    console.print(wins_table(limited))


def _as_dict(measured: Sequence[Measured], codecs: Sequence[Codec]) -> dict[str, object]:
    curves = [result for one in measured for result in one.curves]
    return {
        "codecs": {codec.name: codec.version for codec in codecs},
        "bd_rate_bits_per_pixel": [LOW, HIGH],
        "bd_rates": [asdict(rate) for rate in bd_rates(curves)],
        "curves": [result.as_dict() for result in curves],
        "limited": {
            "side_pixels": SIDE,
            "limit_bytes": LIMIT_BYTES,
            "results": [result.as_dict() for one in measured for result in one.limited],
        },
    }


if __name__ == "__main__":
    main()
