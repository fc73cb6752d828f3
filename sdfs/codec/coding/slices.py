"""A grid of latents in slices, each coded by itself; their bytes in one section, each but the last preceded by its length in 4 bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdfs.errors import DamagedError

Place = tuple[slice, slice]  # rows and columns
_LENGTH_BYTES = 4
_LEAST_BYTES = 1  # of a slice


def places(rows: int, columns: int, side: int) -> Iterator[Place]:
    """Of the slices of a grid, in raster order; those at the right and lower edges may be smaller than side x side."""
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            yield slice(top, min(top + side, rows)), slice(left, min(left + side, columns))


def join(parts: Sequence[bytes]) -> bytes:
    return b"".join([len(part).to_bytes(_LENGTH_BYTES, "little") + part for part in parts[:-1]] + [parts[-1]])


def split(data: bytes, rows: int, columns: int, side: int) -> list[bytes]:
    """Inverse of `join`, for the slices of a grid. Raises DamagedError; a claimed size costs memory only where there are bytes for it."""
    count = -(-rows // side) * -(-columns // side)
    if len(data) < (_LENGTH_BYTES + _LEAST_BYTES) * count - _LENGTH_BYTES:
        raise DamagedError(f"latents: {len(data)} bytes cannot hold {rows} x {columns} positions")
    parts, at = [], 0
    for _ in range(count - 1):
        length, at = int.from_bytes(data[at : at + _LENGTH_BYTES], "little"), at + _LENGTH_BYTES
        if at + length > len(data):
            raise DamagedError(f"latents: slice at {at} claims {length} bytes of {len(data)}")
        parts.append(data[at : at + length])
        at += length
    return [*parts, data[at:]]
