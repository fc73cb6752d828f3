"""What a file claims to be, from its first bytes. Knows nothing of the rest: the engine judges that."""

from __future__ import annotations

HEAD_BYTES = 16  # as much of a file as `picture_format` wants to see


def picture_format(head: bytes) -> str | None:
    """'jpeg', 'png', 'webp', 'bmp' or 'tiff' where `head`, a file's first HEAD_BYTES bytes, begins like one; else None."""
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
    return None
