"""Raw deflate (RFC 1951) with a preset dictionary: for small things that look alike."""

from __future__ import annotations

import zlib


def deflate(data: bytes, dictionary: bytes) -> bytes:
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=dictionary)
    return compressor.compress(data) + compressor.flush()


def inflate(deflated: bytes, dictionary: bytes, most: int) -> bytes:
    """At most `most` bytes (> 0), and no memory for more. Raises ValueError if there are more, or it is not all of deflated data."""
    decompressor = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=dictionary)
    try:
        data = decompressor.decompress(deflated, most)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"not all of a stream, or one of more than {most} bytes")
    return data
