"""One module a file format, each a shared.Format; and jpegxl, which wraps JPEG files exactly.

`picture` calls them, and `exact` calls jpegxl; the engine's process runs it.

read(data) -> Parts
    Take a file of the format apart. Raises NotAPicture (not complete, not decodable) and Unsuitable (the structure is
    whole, but not of the kind that latents may replace; its pixels have not been decoded).
recipes(recipe) -> Iterable[Recipe]
    The recipe that `read` gave, and others by which a render is smaller: to be tried in this order by whoever makes the blob.
write(pixels, recipe, metadata, size, marker, spare=0) -> bytes
    The file again, up to the end of the picture, from other pixels of the same shape, opacity included. With a `size` exactly so many
    bytes, or DoesNotFit, as well where a compressed picture would not leave `spare` bytes; with None the format's natural size, `marker`
    included. The marker is left out where there is no room for it.
find_marker(data) -> bytes | None
    The marker that `write` embedded. `data` may be anything.
"""
