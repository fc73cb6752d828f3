"""Make the golden blobs again: after the format or, before the first release, the weights have changed.

    python -m tests.vectors.make

golden/ holds blobs that must decode, with what they decode to in golden.json; bad/ holds blobs that must be refused, with the
error in bad.json. Pictures are parts of scikit-image's astronaut.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image

from sdfs.blob import container
from sdfs.blob.container import KIND_RAW, PREAMBLE_BYTES
from sdfs.codec.codec import Codec, pack_exact
from sdfs.settings import EncodeSettings

HERE = Path(__file__).parent
PHOTO = skimage.data.astronaut()
PARTS = {"face": (slice(40, 120), slice(170, 266)), "odd": (slice(100, 177), slice(60, 131)), "badge": (slice(300, 364), slice(60, 140))}


def picture(part: str, pillow_format: str, grey: bool = False, **options: Any) -> bytes:
    pixels = PHOTO[PARTS[part]]
    out = io.BytesIO()
    Image.fromarray(pixels[..., 1] if grey else pixels).save(out, pillow_format, **options)
    return out.getvalue()


def golden_blobs(codec: Codec) -> dict[str, bytes]:
    return {
        "latent-png-q20": codec.encode(picture("face", "PNG"), EncodeSettings(20)),
        "latent-png-odd-q60": codec.encode(picture("odd", "PNG"), EncodeSettings(60)),
        "latent-jpeg-q80": codec.encode(picture("face", "JPEG", quality=97, subsampling=0), EncodeSettings(80)),
        "latent-grey-tiff-q50": codec.encode(picture("badge", "TIFF", grey=True), EncodeSettings(50)),
        "exact-jxl": codec.encode(picture("face", "JPEG", quality=30), EncodeSettings(100)),
        "exact-lz4": pack_exact(_flat_rgba(), "made by hand"),
        "exact-raw": container.pack(KIND_RAW, 4, {"reason": "made by hand"}, {"file": b"\x89SDF"}),
    }


def _flat_rgba() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((90, 90, 4), 7, np.uint8)).save(out, "TIFF")
    return out.getvalue()


def bad_blobs(good: bytes) -> dict[str, tuple[str, bytes]]:
    """Name -> the error's class and the blob."""
    parsed = container.parse(good)

    def header(**changes: Any) -> bytes:
        return container.pack(parsed.preamble.kind, parsed.preamble.rendered_size, parsed.header | changes, parsed.sections)

    def preamble(offset: int, layout: str, value: int) -> bytes:
        head = bytearray(good[:28])
        struct.pack_into(layout, head, offset, value)
        return bytes(head) + zlib.crc32(head).to_bytes(4, "little") + good[PREAMBLE_BYTES:]

    flipped = bytearray(good)
    flipped[-40] ^= 1
    return {
        "empty": ("DamagedError", b""),
        "magic-only": ("DamagedError", good[:8]),
        "truncated": ("DamagedError", good[:-1]),
        "extended": ("DamagedError", good + b"\0"),
        "section-bit-flip": ("DamagedError", bytes(flipped)),
        "preamble-checksum": ("DamagedError", good[:16] + b"\1" + good[17:]),
        "version-2": ("StoreTooNew", preamble(8, "<H", 2)),
        "unknown-kind": ("StoreTooNew", preamble(10, "<B", 77)),
        "unknown-flag": ("StoreTooNew", preamble(11, "<B", 1)),
        "header-of-1-gib": ("DamagedError", preamble(24, "<I", 1 << 30)),
        "rendered-size-of-1-eib": ("DamagedError", preamble(16, "<Q", 1 << 60)),
        "width-of-2-30": ("DamagedError", header(width=1 << 30)),
        "wrong-latents-checksum": ("DamagedError", header(latents_crc32=1)),
        "other-weights": ("ModelError", header(weights="f" * 16)),
        "metadata-bomb": ("DamagedError", header(metadata_size=1 << 40)),
    }


def main() -> None:
    codec = Codec(device="cpu", dtype="float32")
    for folder in ("golden", "bad"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
        (HERE / folder).mkdir()
    golden = golden_blobs(codec)
    index = {}
    for name, blob in golden.items():
        (HERE / "golden" / f"{name}.sdfs").write_bytes(blob)
        render = codec.decode(blob)
        index[name] = {"rendered_size": len(render), "sha256": None if name.startswith("latent") else hashlib.sha256(render).hexdigest()}
    (HERE / "golden.json").write_text(json.dumps(index, indent=1) + "\n")
    bad = bad_blobs(golden["latent-png-q20"])
    for name, (_, blob) in bad.items():
        (HERE / "bad" / f"{name}.sdfs").write_bytes(blob)
    (HERE / "bad.json").write_text(json.dumps({name: error for name, (error, _) in bad.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
