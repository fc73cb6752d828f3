"""What a file claims to be, from its first bytes. Knows nothing of the rest: the engine judges that."""

from __future__ import annotations

HEAD_BYTES = 16  # as much of a file as `picture_format` wants to see

_BRANDS = dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"miaf"), "heic")
_BRANDS |= dict.fromkeys((b"avif", b"avis"), "avif")


def picture_format(head: bytes) -> str | None:
    """'jpeg', 'png', 'webp', 'bmp', 'tiff', 'heic' or 'avif' where `head`, a file's first HEAD_BYTES bytes, begins like one; else None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"BM") and len(head) >= 14 and head[6:10] == bytes(4):
        return "bmp"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):  # and BigTIFF
        return "tiff"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    return None
