"""File bytes ↔ pixels and metadata; rendering at an exact size; the file itself, packed. The only room with Pillow and imagecodecs.

The engine's process runs it. It imports `blob`: signatures, and the kinds of a blob.
"""
