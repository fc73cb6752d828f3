"""One module a file format, each a shared.Format; and jpegxl, which wraps JPEG files exactly.

`picture` calls them, and `exact` calls jpegxl; the engine's process runs it.

read(data) -> Parts
    Take a file of the format apart. Raises NotAPicture (not complete, not decodable) and Unsuitable (the structure is
    whole, but not of the kind that latents may replace; its pixels have not been decoded).
write(pixels, recipe, metadata, size, marker) -> bytes
    The file again, from other pixels of the same shape. With a `size` exactly so many bytes, or DoesNotFit; with None the
    format's natural size, `marker` included. The marker is left out where there is no room for it.
find_marker(data) -> bytes | None
    The marker that `write` embedded. `data` may be anything.
"""
