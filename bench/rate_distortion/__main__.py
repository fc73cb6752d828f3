"""SDFS's codec beside AVIF, JPEG, WebP, JPEG XL and what is published of others: BD rates, noise on calm ground, cost.

    python -m bench.rate_distortion --quick [--weights bundled A.safetensors B.safetensors]        # a minute or two
    python -m bench.rate_distortion --set faces FOLDER --set screens a.png b.png --kodak FOLDER --jobs 2

Tables go to stdout, as Markdown. What was measured is kept in --results, by hashes of pictures, of SDFS's code and of its weights: a
run that was stopped goes on, and the next one measures only what changed. Of AVIF four ways are measured, tuned for looks and for
PSNR, with chroma at half and at full resolution; at each rate the best of them counts. --quick cuts a square out of each picture and
leaves out the networks' scores and all codecs but AVIF.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.rate_distortion import codecs as known
from bench.rate_distortion import figures, squares
from bench.rate_distortion.codecs import RIVAL, Codec
from bench.rate_distortion.cost import decoder_kmac
from bench.rate_distortion.measuring import measure
from bench.rate_distortion.pictures import KODAK, QUICK_SIDE, Picture, Sets, parse_sets, shipped
from bench.rate_distortion.published import published_table
from bench.rate_distortion.results import Results
from bench.rate_distortion.scores import NOISE, QUICK, SCORES, available
from bench.rate_distortion.tables import bd_table, families, noise_table, usual_avif
from sdfs.settings import BUNDLED, Effort


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    sets = _sets(options)
    ours = _ours(options)
    others = known.avif() if options.quick else [*known.avif(), *known.classics()]
    scores = list(QUICK) if options.quick else _scores()
    results = Results(options.results)
    pictures = [picture for found in sets.values() for picture in found]
    measure(pictures, [known.original()], NOISE, results)
    measure(pictures, [*ours, *others], scores, results, options.jobs)
    _show(results, sets, ours, others, scores)
    if options.slower:
        _compare_speeds(results, sets, options, scores)
    if options.figures:
        for name, found in sets.items():
            shown = [codec for codec in (*others, *ours) if codec.family != RIVAL or codec.name == known.AVIF_USUAL]
            figures.draw(results, found, shown, [s for s in scores if s in SCORES], options.figures / name.replace(" ", "-"))
    if options.squares:
        _squares(pictures, [*ours, *others], scores, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rates, a square of each picture, AVIF only")
    parser.add_argument("--set", nargs="+", action="append", default=[], metavar=("NAME", "PLACE"), help="a set: folders, pictures, lists")
    parser.add_argument("--kodak", type=Path, metavar="FOLDER", help="Kodak's 24 pictures")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N pictures of each set only")
    parser.add_argument("--weights", nargs="+", default=[BUNDLED], metavar="FILE", help=f"files of weights, or '{BUNDLED}'")
    parser.add_argument(
        "--codec", nargs="+", default=[], metavar="MODULE:FUNCTION", help="codecs in development: pixels, quality -> bytes, pixels"
    )
    parser.add_argument("--effort", type=Effort, choices=list(Effort), default=Effort.NORMAL, help="of SDFS's encoder")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes, of one thread each")
    parser.add_argument("--slower", type=int, default=0, metavar="N", help="the first N pictures of each set through AVIF at speed 3, too")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="curves of each set, as SVG")
    parser.add_argument(
        "--squares", type=Path, metavar="FOLDER", help="512 x 512 pixels in 4,970 bytes, and SDFS's qualities, side by side"
    )
    parser.add_argument("--squares-type", choices=["png", "webp"], default="png")
    parser.add_argument("--results", type=Path, metavar="FILE", default=_usual_results(), help="where results are kept, as lines of JSON")
    return parser


def _usual_results() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "sdfs-bench", "results.jsonl")


def _sets(options: argparse.Namespace) -> Sets:
    cut = QUICK_SIDE if options.quick else None
    sets = parse_sets(options.set, options.limit, cut)
    if options.kodak:
        sets |= parse_sets([[KODAK, str(options.kodak)]], options.limit, cut)
    if sets:
        return sets
    sets, reasons = shipped(options.limit, cut)
    print(*reasons, sep="\n", file=sys.stderr)
    return sets


def _ours(options: argparse.Namespace) -> list[Codec]:
    steps = known.QUICK_QUALITIES if options.quick else known.QUALITIES
    return [known.sdfs(weights, options.effort, steps) for weights in options.weights] + [
        known.named(name, steps) for name in options.codec
    ]


def _scores() -> list[str]:
    names, reasons = available()
    print(*reasons, sep="\n", file=sys.stderr)
    return names


def _show(results: Results, sets: Sets, ours: Sequence[Codec], others: Sequence[Codec], scores: Sequence[str]) -> None:
    shown = [name for name in scores if name in SCORES]
    print(bd_table(results, sets, families(others), families(ours), shown))
    print()
    print(noise_table(results, sets, families(ours), usual_avif(others), known.original()))
    if KODAK in sets and "lpips" in scores:
        for codec in ours:
            print(f"\n{published_table(results, sets[KODAK], codec)}")
    for codec in ours:
        if (kmac := decoder_kmac(codec)) is not None:
            print(f"\n{codec.name}: {kmac:.2f} kMAC a pixel to decode")


def _compare_speeds(results: Results, sets: Sets, options: argparse.Namespace, scores: Sequence[str]) -> None:
    few = {name: found[: options.slower] for name, found in sets.items()}
    usual, slower = known.avif(), known.avif(speed=3)
    measure([picture for found in few.values() for picture in found], slower, scores, results, options.jobs)
    print(f"\n{bd_table(results, few, families(usual), families(slower), [name for name in scores if name in SCORES])}")


def _squares(pictures: Sequence[Picture], codecs: Sequence[Codec], scores: Sequence[str], options: argparse.Namespace) -> None:
    large = squares.squares_of(pictures)
    shown = [name for name in scores if name in SCORES]
    found = squares.measure_squares(large, codecs, shown)
    print(f"\n{squares.wins_table(found, codecs[0], shown)}")
    squares.draw(large, found, options.squares, f".{options.squares_type}")
    squares.draw_scale(large, codecs[0], shown, options.squares, f".{options.squares_type}")


if __name__ == "__main__":
    main()
