"""Decoding pictures in a process of its own, without a filesystem: as the engine's, it is new, and has one model and no cache.

The seconds are those of the decoder alone; the files are in memory. Every decoder may use all processors.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import imagecodecs
from PIL import Image

if TYPE_CHECKING:
    from sdfs.codec.codec import Codec

_codec: Codec  # of the process


class Decoder:
    def __init__(self, process: ProcessPoolExecutor) -> None:
        self._process = process

    def blob(self, path: Path) -> float:
        """Seconds from a blob to the file that a reader gets: model and render."""
        return self._process.submit(_blob, path).result()

    def picture(self, path: Path) -> float:
        """Seconds from a picture file to pixels."""
        return self._process.submit(_picture, path).result()


@contextmanager
def decoder() -> Iterator[Decoder]:
    with ProcessPoolExecutor(1, get_context("spawn"), _start) as process:
        yield Decoder(process)


def _start() -> None:
    global _codec
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the engine does, before torch is imported
    from sdfs.codec.codec import Codec

    _codec = Codec()


def _blob(path: Path) -> float:
    data = path.read_bytes()
    begun = perf_counter()
    _codec.decode(data)
    return perf_counter() - begun


def _picture(path: Path) -> float:
    data = path.read_bytes()
    begun = perf_counter()
    if path.suffix == ".jxl":
        imagecodecs.jpegxl_decode(data, numthreads=os.cpu_count())
    else:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    return perf_counter() - begun
