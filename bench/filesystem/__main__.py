"""What the mount costs: native folder, plain passthrough in the same binding and SDFS, side by side.

    python -m bench.filesystem [--where FOLDER] [--pictures FOLDER] [--rounds N] [--only PART...] [--json FILE]

Rounds alternate between the systems, and medians are reported, so that a noisy machine is noisy for all: ratios tell more than figures.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench.filesystem import files, listing, memory, mounting, pictures
from bench.filesystem.figures import Figures
from scripts.demo import packaged_photos

PARTS = ("files", "listing", "mount", "pictures", "memory")


def main() -> None:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _stop)  # as Ctrl-C, so that no mount is left behind
    photos = sorted(path for path in options.pictures.rglob("*") if path.is_file()) if options.pictures else list(packaged_photos())
    if not photos:
        sys.exit("no photos: name a folder of them with --pictures, or install scikit-image")
    parts: dict[str, Callable[[Path], list[Figures]]] = {
        "files": lambda work: [files.measure(work, options.rounds)],
        "listing": lambda work: [listing.measure(work, options.rounds)],
        "mount": lambda work: mounting.measure(work, options.rounds, photos[0]),
        "pictures": lambda work: pictures.measure(work, options.rounds, photos, options.large),
        "memory": lambda work: [memory.measure(work, photos, options.copies)],
    }
    measured: dict[str, list[Figures]] = {}
    for name in options.only or parts:
        with tempfile.TemporaryDirectory(prefix="sdfs-bench-", dir=options.where) as work, Console(stderr=True).status(name):
            measured[name] = parts[name](Path(work))
        Console().print(*(figures.table() for figures in measured[name]))
    if options.json:
        figures = {name: [table.as_dict() for table in tables] for name, tables in measured.items()}
        options.json.write_text(json.dumps({"rounds": options.rounds, "parts": figures}, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--where", type=Path, metavar="FOLDER", help="where the files go; a tmpfs leaves the disk out of it")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="photos (default: those that scikit-image and scikit-learn have)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--large", type=int, default=2, metavar="N", help="pictures of 12 MP, made of the photos, that are read, too")
    parser.add_argument("--copies", type=int, default=20, metavar="N", help="pictures of 12 MP that memory is looked at with")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything measured")
    return parser


def _stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit("stopped")


if __name__ == "__main__":
    main()
