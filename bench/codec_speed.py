"""How fast pictures are encoded and decoded, part by part, with the bundled codec; and by other codecs.

    python -m bench.codec_speed [PHOTOS ...] [--rounds N] [--json FILE]

Each photo as a JPEG and as a PNG file; without PHOTOS one of 12 megapixels, scikit-image's astronaut enlarged, with grain. Encoded at each
effort with the number format that the engine takes here, at the fastest and decoded with float32 and bfloat16. Of the rounds the one that
took least counts. Beside the time by the clock stands the processor's, of all threads: where their ratio is below the number of cores, a
part keeps one core busy only, or other programs were at work.

The parts are what the codec itself calls, with a clock around it; the time of a part does not contain that of the parts within:

    probe            the file taken apart
    encoder          pixels to latents: the transform
    worth            what error may cost in bits
    prior            classes, means and symbols of the latents
    prior/entropy    symbols to bytes, or bytes to symbols
    decoder          latents to pixels: the transform and the network
    render           the file that a reader gets
    render/probe     what that reader sees of it
    scores           how far that is from the original
    rest             everything else: hashes, conversions, the container

The other codecs are given the pixels of the JPEG file, at their usual settings, and as many threads as there are cores. The
last column is the speed as a multiple of the first line's that goes the same way: SDFS's on a JPEG file.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the engine has it; read when torch is imported

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import load as load_weights

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT, Blob
from sdfs.codec import codec, making
from sdfs.codec.autoencoders.lapped import FACTOR
from sdfs.codec.autoencoders.layout import Group
from sdfs.codec.autoencoders.runner import BundledAutoencoder, fastest_dtype, thumbnail
from sdfs.codec.codec import Codec
from sdfs.codec.coding import entropy, learned_coder
from sdfs.codec.coding.learned_coder import LearnedCoder
from sdfs.codec.quality import rate_distortion
from sdfs.codec.resident import model as resident_model
from sdfs.settings import Effort, EncodeSettings
from training.data import load

SIDES = (3000, 4000)  # of the photo that is made
GRAIN = 3.0  # its standard deviation: about that of a phone's pictures
CORES = len(os.sched_getaffinity(0))
SOURCES: dict[str, dict[str, Any]] = {"JPEG": {"quality": 92}, "PNG": {"compress_level": 1}}
DTYPES = ("bfloat16", "float32")
ENTROPY = "prior/entropy"
PARTS: list[tuple[str, Any, str]] = [
    ("probe", codec, "probe"),
    ("encoder", BundledAutoencoder, "encode"),
    ("worth", rate_distortion, "worth"),
    ("prior", LearnedCoder, "encode"),
    ("prior", LearnedCoder, "decode"),
    ("entropy", learned_coder, "encode"),
    ("entropy", entropy.Decoder, "read"),
    ("decoder", BundledAutoencoder, "decode"),
    ("render", making, "render_for"),
    ("render", codec, "render"),
    ("scores", making, "compare"),
    ("scores", making, "worst_place"),
    ("scores", resident_model, "compare"),
]
Times = NDArray[np.float64]  # seconds (by the clock, of the processor)


@dataclass(frozen=True)
class Timing:
    work: str
    megapixels: float
    bytes: int
    seconds: float
    cpu_seconds: float
    parts: dict[str, tuple[float, float]]  # (seconds, processor's seconds)

    @property
    def speed(self) -> float:
        """Megapixels a second."""
        return self.megapixels / self.seconds

    def share(self, *parts: str) -> float:
        """Of the time by the clock, in per cent."""
        return 100 * sum(self.parts[part][0] for part in parts if part in self.parts) / self.seconds


class Clock:
    """Adds up the time of parts that call each other; one that is called by itself, or by its like, counts once.

    What several threads do at once counts as if each had done all of its share alone, and at the same time.
    """

    def __init__(self) -> None:
        self.parts: defaultdict[str, Times] = defaultdict(lambda: np.zeros(2))
        self._running: list[str] = []
        self._within = [np.zeros(2)]  # of each part that is running: what the parts within it took
        self._own = threading.get_ident()
        self._adding = threading.Lock()

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            if threading.get_ident() != self._own:
                return self._beside(part, function, args, options)
            if self._running[-1:] == [part]:
                return function(*args, **options)
            self._running.append(part)
            name, begin = "/".join(self._running), now()
            self._within.append(np.zeros(2))
            try:
                return function(*args, **options)
            finally:
                taken, within = now() - begin, self._within.pop()
                self.parts[name] += taken - within
                self._within[-1] += taken
                self._running.pop()

        return timed

    def _beside(self, part: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call in another thread than the one whose parts are running."""
        begin = np.array([time.perf_counter(), time.thread_time()])
        try:
            return function(*args, **options)
        finally:
            taken = (np.array([time.perf_counter(), time.thread_time()]) - begin) / (CORES, 1)
            with self._adding:
                self.parts["/".join([*self._running, part])] += taken
                self._within[-1] += taken


def now() -> Times:
    return np.array([time.perf_counter(), time.process_time()])


@contextmanager
def clocks() -> Iterator[Clock]:
    """Around every part of the codec."""
    clock = Clock()
    before = [(owner, name, getattr(owner, name)) for _, owner, name in PARTS]
    for (part, owner, name), (_, _, function) in zip(PARTS, before, strict=True):
        setattr(owner, name, clock.around(part, function))
    try:
        yield clock
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def timing(work: str, megapixels: float, rounds: int, call: Callable[[], bytes]) -> tuple[Timing, bytes]:
    """Of the round that took least; and what came of it."""
    timings = []
    for _ in range(rounds):
        with clocks() as clock:
            begin = now()
            result = call()
            taken = now() - begin
        clock.parts["rest"] = taken - sum(clock.parts.values())
        parts = {part: (float(times[0]), float(times[1])) for part, times in clock.parts.items()}
        timings.append(Timing(work, megapixels, len(result), float(taken[0]), float(taken[1]), parts))
    return min(timings, key=lambda timing: timing.seconds), result


def as_file(pixels: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def photo_of_12_mp() -> NDArray[np.uint8]:
    from skimage import data

    astronaut: NDArray[np.uint8] = data.astronaut()  # type: ignore[no-untyped-call]
    enlarged = np.asarray(Image.fromarray(astronaut).resize((SIDES[1], SIDES[1]), Image.Resampling.LANCZOS))[: SIDES[0]]
    grain = np.random.default_rng(0).normal(0, GRAIN, enlarged.shape).astype(np.float32)
    return np.clip(enlarged + grain, 0, 255).astype(np.uint8)


def ours(name: str, pixels: NDArray[np.uint8], rounds: int) -> Iterator[Timing]:
    megapixels, usual = pixels.shape[0] * pixels.shape[1] / 1e6, str(fastest_dtype()).removeprefix("torch.")
    for kind, options in SOURCES.items():
        source = as_file(pixels, kind, **options)
        for dtype in sorted(DTYPES, key=lambda dtype: dtype != usual):
            coder = Codec("cpu", dtype)
            efforts = list(Effort) if (dtype, kind) == (usual, "JPEG") else [Effort.FAST]
            for effort in efforts:
                settings = EncodeSettings(effort=effort)
                encode = functools.partial(coder.encode, source, settings)
                encoded, blob = timing(f"{name}: {kind}, {dtype}, encode {effort}", megapixels, rounds, encode)
                yield encoded
            parsed = container.parse(blob)
            if parsed.preamble.kind == KIND_LATENT:
                yield timing(f"{name}: {kind}, {dtype}, decode", megapixels, rounds, functools.partial(coder.decode, blob))[0]
                if (dtype, kind) == (usual, "JPEG"):
                    yield from thumbnails(name, parsed, megapixels, rounds)


def thumbnails(name: str, blob: Blob, megapixels: float, rounds: int) -> Iterator[Timing]:
    """On one core, from the first passes alone."""
    coder = LearnedCoder(load_weights(resources.files("sdfs").joinpath("codec/weights/bundled.safetensors").read_bytes()))
    rows, columns = (-(-blob.header[side] // FACTOR) for side in ("height", "width"))
    torch.set_num_threads(1)
    for factor, last in ((16, Group.MEAN), (8, Group.LOW)):

        def made(factor: int = factor, last: Group = last) -> bytes:
            latents = coder.decode(blob.sections["latents"], rows, columns, blob.header["quality"], last)
            return thumbnail(latents, blob.header["quality"], factor).tobytes()

        yield timing(f"{name}: thumbnail at 1/{factor}, one core", megapixels, rounds, made)[0]
    torch.set_num_threads(CORES)


def others(name: str, pixels: NDArray[np.uint8], rounds: int) -> Iterator[Timing]:
    def with_pillow(kind: str, **options: Any) -> tuple[Callable[[], bytes], Callable[[bytes], bytes]]:
        return functools.partial(as_file, pixels, kind, **options), lambda data: np.asarray(Image.open(io.BytesIO(data))).tobytes()

    codecs: dict[str, tuple[Callable[[], bytes], Callable[[bytes], bytes]]] = {
        "JPEG, quality 75": with_pillow("JPEG"),
        "WebP, quality 80": with_pillow("WEBP"),
        "AVIF, quality 75, speed 6": with_pillow("AVIF", speed=6, max_threads=CORES),
        "JPEG XL, distance 1, effort 7": (
            lambda: bytes(imagecodecs.jpegxl_encode(pixels, distance=1.0, effort=7, numthreads=CORES)),
            lambda data: imagecodecs.jpegxl_decode(data, numthreads=CORES).tobytes(),
        ),
    }
    megapixels = pixels.shape[0] * pixels.shape[1] / 1e6
    for codec_name, (encode, decode) in codecs.items():
        encoded, data = timing(f"{name}: {codec_name}, encode", megapixels, rounds, encode)
        yield encoded
        yield timing(f"{name}: {codec_name}, decode", megapixels, rounds, functools.partial(decode, data))[0]


def show(results: list[Timing], console: Console) -> None:
    table = Table("", "MP/s", "seconds", "processor's", "gives kB", "entropy, %", "with prior, %", "× first", title=f"{CORES} cores")
    first: dict[tuple[str, str], Timing] = {}  # of each photo and direction: SDFS's
    for result in results:
        direction = (result.work.split(": ")[0], "decode" if result.work.endswith("decode") else "encode")
        ratio = result.speed / first.setdefault(direction, result).speed
        shares = [f"{result.share(*parts):.1f}" for parts in ((ENTROPY,), (ENTROPY, "prior"))] if ENTROPY in result.parts else ["", ""]
        times = [f"{value:.2f}" for value in (result.speed, result.seconds, result.cpu_seconds)]
        table.add_row(result.work, *times, f"{result.bytes / 1e3:.0f}", *shares, f"{ratio:.2f}")
    console.print(table)
    coded = [result for result in results if len(result.parts) > 1]
    names = list(dict.fromkeys(part for result in coded for part in result.parts))
    seconds = Table("seconds (processor's)", *names)
    for result in coded:
        cells = (result.parts.get(part) for part in names)
        seconds.add_row(result.work, *(f"{cell[0]:.2f} ({cell[1]:.2f})" if cell else "" for cell in cells))
    console.print(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*", metavar="PHOTO")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(CORES)
    photos: dict[str, Callable[[], NDArray[np.uint8]]] = {path.stem: functools.partial(load, path) for path in options.photos}
    photos = photos or {"12 MP": photo_of_12_mp}
    Codec("cpu").encode(as_file(photo_of_12_mp()[:256, :256], "PNG"), EncodeSettings())  # what is loaded at first use
    results: list[Timing] = []
    for name, read in photos.items():
        pixels = read()
        results += [*ours(name, pixels, options.rounds), *others(name, pixels, options.rounds)]
    show(results, Console(width=200))
    if options.json:
        values = [asdict(result) | {"megapixels_a_second": result.speed} for result in results]
        options.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
