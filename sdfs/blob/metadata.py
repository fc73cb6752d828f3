"""The metadata section of a latent blob: what a picture file has besides its pixels, deflated. docs/FORMAT.md is normative.

The preset dictionary holds what many files have in common, so that the metadata of a plain JPEG or PNG take some 20 bytes.
"""

from __future__ import annotations

from sdfs.blob.deflate import deflate, inflate
from sdfs.blob.dictionaries import metadata_dictionary
from sdfs.errors import DamagedError

MAX_METADATA_BYTES = 1 << 28  # no file with more becomes latents
_MOST_RATIO = 1032  # of what is inflated to what is deflated: 258 bytes by two bits (RFC 1951)


def pack_metadata(metadata: bytes) -> bytes:
    return deflate(metadata, metadata_dictionary())


def unpack_metadata(section: bytes, size: int) -> bytes:
    """Exactly `size` bytes, which are not believed before the section could hold them. Raises DamagedError."""
    if not 0 <= size <= _MOST_RATIO * len(section):
        raise DamagedError(f"metadata claims {size} bytes in a section of {len(section)}")
    try:
        metadata = inflate(section, metadata_dictionary(), size + 1)
    except ValueError as error:
        raise DamagedError(f"metadata cannot be inflated: {error}") from None
    if len(metadata) != size:
        raise DamagedError(f"metadata: want {size} bytes, have {len(metadata)}")
    return metadata
