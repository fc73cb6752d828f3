"""HEIC and AVIF: recognised, and kept as they came. Source: ISO/IEC 23008-12 (HEIF), 23000-22 (MIAF), AV1 Image File Format.

No render can be one again: whoever wants latents of them asks for a JPEG (`sdfs.codec.pictures.as_jpeg`), which `examine` says whether it
would have room for all that such a file holds. It looks at structures alone: nothing is decoded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from sdfs.codec.pictures.formats import heif_coding
from sdfs.codec.pictures.formats.heif_boxes import Box, Item, Meta, boxes, name_of, parse_meta
from sdfs.codec.pictures.formats.shared import Pixels, Recipe, check_claims, check_dimensions, only
from sdfs.errors import DoesNotFit, NotAPicture, Unsuitable

P3 = 12  # primaries, as H.273 numbers them

_NAMES = {b"hvc1": "HEIC", b"av01": "AVIF"}
_CONFIGURATIONS = {b"hvc1": b"hvcC", b"av01": b"av1C"}
_GRID, _TONE_MAP = b"grid", b"tmap"
_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_FILE_BOXES = frozenset({b"ftyp", b"meta", b"mdat", b"free", b"skip"})
_PROPERTIES = frozenset({b"ispe", b"hvcC", b"av1C", b"colr", b"pixi", b"pasp", b"clap", b"irot", b"imir", b"auxC"})
_REFERENCES = frozenset({b"dimg", b"thmb", b"auxl", b"cdsc"})
_GAIN_MAP = b"urn:com:apple:photo:2020:aux:hdrgainmap"
_AUXILIARIES = {
    b"urn:mpeg:hevc:2015:auxid:1": "an alpha plane",
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha": "an alpha plane",
    b"urn:mpeg:hevc:2015:auxid:2": "a depth map",
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth": "a depth map",
}
_PQ, _HLG = 16, 18  # transfer characteristics: H.273
_CURVES = frozenset({1, 2, 6, 13})  # those of BT.709 and BT.601, which are shown as sRGB is; unspecified; sRGB
_PRIMARIES = frozenset({1, 2, P3})  # BT.709, which are sRGB's; unspecified; Display P3
_BLOCK = 64  # pixels that a coded picture may have more than it shows, to be whole blocks
_MAX_CONFIGURATION = 1024  # bytes
_RDF = b"application/rdf+xml"
_BASE_COLOURS = 0x40  # ISO 21496-1, C.2.3: the gain map is applied in the colours of the picture


class Colours(NamedTuple):
    """As H.273 numbers them; 2 where nothing is said."""

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2


class Turn(NamedTuple):
    """How the container turns and mirrors the coded picture: first the one, then the other."""

    quarters: int = 0  # anticlockwise
    mirror: int | None = None  # 0: top and bottom change places; 1: left and right


@dataclass(frozen=True)
class GainMap:
    """Apple's: a smaller grey picture that says how much brighter a display may show each place."""

    item: int
    width: int
    height: int
    xmp: bytes
    iso: bytes  # how to use it, by ISO 21496-1; empty where the file does not say


@dataclass(frozen=True)
class Still:
    """One picture, and all that its file says of it. Dimensions are those that are shown."""

    name: str  # 'HEIC' | 'AVIF'
    width: int
    height: int
    grey: bool
    turn: Turn
    colours: Colours
    icc: bytes | None
    exif: bytes | None  # from its byte order mark on
    xmp: bytes | None
    gain_map: GainMap | None


def read(data: bytes) -> NoReturn:
    still = examine(data)
    article = "an" if still.name == "AVIF" else "a"
    raise Unsuitable(f"{article} {still.name} picture: `--heic jpeg` stores it as a JPEG")


recipes = only


def write(pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes, spare: int = 0) -> NoReturn:
    raise DoesNotFit("a render is no HEIC or AVIF picture")


def find_marker(data: bytes) -> None:
    """There are no renders."""


def examine(data: bytes) -> Still:
    """What a JPEG has to hold. Raises NotAPicture (broken, cut off), and Unsuitable where there is something that it could not."""
    file = memoryview(data)
    outer = list(boxes(file, of_file=True))
    if not outer or outer[0].type != b"ftyp":
        raise NotAPicture("it does not begin with its type")
    _check_file(outer)
    metas = [box for box in outer if box.type == b"meta"]
    if len(metas) != 1:
        raise NotAPicture(f"it has {len(metas)} boxes of metadata")
    meta = parse_meta(metas[0], file)
    gain_maps, tone_maps = _check_items(meta)
    primary = meta.items[meta.primary]
    coding, width, height, grey = _picture(meta, primary, len(data))
    check_dimensions(width, height, len(data))
    turn = _turn(primary)
    if turn.quarters % 2:
        width, height = height, width
    icc, colours = _colours(meta, primary)
    exif, xmp, gain_map_xmp = _metadata(meta, gain_maps)
    gain_map = _gain_map(meta, gain_maps[0], turn, gain_map_xmp, tone_maps, len(data)) if gain_maps else None
    if gain_map is not None and coding != b"hvc1":
        raise Unsuitable("a gain map")
    return Still(_NAMES[coding], width, height, grey, turn, colours, icc, exif, xmp, gain_map)


def _check_file(outer: list[Box]) -> None:
    types = [box.type for box in outer]
    if b"moov" in types:
        raise Unsuitable("an animation")
    if b"mpvd" in types:
        raise Unsuitable("a motion photo")
    if _C2PA in types:
        raise Unsuitable("content credentials are bound to the exact bytes")
    if unknown := [box for box in outer if box.type not in _FILE_BOXES]:
        type_, payload = unknown[0]
        if not type_.strip(b"\0"):
            raise Unsuitable(f"{len(payload) + 8} zeros behind the picture")
        raise Unsuitable(f"a box {name_of(type_)} that a JPEG has no place for")


def _check_items(meta: Meta) -> tuple[list[int], list[Item]]:
    """The numbers of gain maps, and the items that say how to use them: at most one of each, and Unsuitable if there is more."""
    if unknown := [reference.type for reference in meta.references if reference.type not in _REFERENCES]:
        raise Unsuitable(f"a reference {name_of(unknown[0])} between its items")
    parts, gain_maps = {meta.primary}, []
    derived: list[tuple[int, tuple[int, ...]]] = []
    for type_, source, targets in meta.references:
        if source not in meta.items or any(target not in meta.items for target in targets):
            raise NotAPicture("it refers to an item that is not there")
        if type_ == b"auxl":
            _check_auxiliary(meta.items[source], targets == (meta.primary,))
            gain_maps.append(source)
        elif type_ == b"dimg":
            derived.append((source, targets))
        if type_ in (b"auxl", b"thmb"):
            parts.add(source)
    tone_maps = [(source, targets) for source, targets in derived if meta.items[source].type == _TONE_MAP]
    if len(tone_maps) > 1 or any(targets != (meta.primary, *gain_maps) for _, targets in tone_maps):
        raise Unsuitable("a gain map")
    parts |= {source for source, _ in tone_maps} | {target for source, targets in derived if source in parts for target in targets}
    others = [item.type for number, item in meta.items.items() if number not in parts and item.type not in (b"Exif", b"mime")]
    if unknown := [type_ for type_ in others if type_ not in (*_CONFIGURATIONS, _GRID)]:
        raise Unsuitable(f"an item {name_of(unknown[0])} that a JPEG has no place for")
    if others or len(gain_maps) > 1 or set(meta.groups) - {b"altr"}:
        raise Unsuitable("several pictures")
    return gain_maps, [meta.items[source] for source, _ in tone_maps]


def _check_auxiliary(item: Item, of_primary: bool) -> None:
    """Raise Unsuitable unless an auxiliary picture is Apple's gain map, and of the primary picture."""
    type_ = (item.property(b"auxC") or b"")[4:].partition(b"\0")[0]
    if type_ != _GAIN_MAP:
        raise Unsuitable(_AUXILIARIES.get(type_, f"an auxiliary picture ({type_.decode('ascii', 'replace')})"))
    if not of_primary:
        raise Unsuitable("a gain map of another picture")


def _picture(meta: Meta, item: Item, size: int) -> tuple[bytes, int, int, bool]:
    """Coding, width, height, whether it is grey: of an item that is a coded picture, or a grid of such."""
    width, height = _extent(item)
    check_claims(width, height, size)
    if item.type == _GRID:
        number = next(number for number, other in meta.items.items() if other is item)
        coding, grey = _grid(meta, item, meta.tiles(number), width, height)
    else:
        coding, grey = item.type, _coded(item, width, height)
    if unknown := [box.type for box in item.properties if box.type not in _PROPERTIES]:
        raise Unsuitable(f"a property {name_of(unknown[0])} that a JPEG has no place for")
    return coding, *_cropped(item, width, height), grey


def _grid(meta: Meta, item: Item, targets: list[int], width: int, height: int) -> tuple[bytes, bool]:
    """Coding of the tiles, and whether they are grey (ISO/IEC 23008-12, 6.6.2.3)."""
    head = item.data
    if len(head) < 4 or len(head) != (12 if head[1] & 1 else 8):
        raise NotAPicture("the description of its grid is broken")
    rows, columns = head[2] + 1, head[3] + 1
    if (width, height) != struct.unpack(">II" if head[1] & 1 else ">HH", head[4:]) or len(targets) != rows * columns:
        raise NotAPicture(f"its grid of {rows} x {columns} has {len(targets)} tiles, and other dimensions than it claims")
    tiles = [meta.items[number] for number in dict.fromkeys(targets)]
    tile_width, tile_height = _extent(tiles[0])
    if not (0 <= columns * tile_width - width < tile_width and 0 <= rows * tile_height - height < tile_height):
        raise NotAPicture(f"its tiles of {tile_width} x {tile_height} do not make {width} x {height}")
    kinds = {(tile.type, _coded(tile, tile_width, tile_height)) for tile in tiles if _turn(tile) == Turn()}
    if len(kinds) != 1 or any(_extent(tile) != (tile_width, tile_height) or tile.property(b"clap") for tile in tiles):
        raise Unsuitable("a grid of different tiles")
    return kinds.pop()


def _coded(item: Item, width: int, height: int) -> bool:
    """Whether a coded picture is grey. Raises NotAPicture, and Unsuitable (more than 8 bits, another coding, other dimensions)."""
    if (kind := _CONFIGURATIONS.get(item.type)) is None:  # of a grid's tiles, another grid, too
        raise Unsuitable(f"a picture coded as {name_of(item.type)}")
    configuration = item.property(kind)
    if configuration is None or len(configuration) > _MAX_CONFIGURATION:
        raise NotAPicture(f"its property {name_of(kind)} is not there, or broken")
    coded = (heif_coding.hevc if item.type == b"hvc1" else heif_coding.av1)(configuration, item.data)
    depths = (item.property(b"pixi") or b"")[5:]
    if (bits := max(coded.bits, *depths, 8)) > 8:
        raise Unsuitable(f"{bits} bits a sample")
    if not heif_coding.fits(coded.sizes, width, height, _BLOCK):
        raise Unsuitable(f"{width}×{height} pixels, and other dimensions in the coded picture")
    return coded.grey


def _extent(item: Item) -> tuple[int, int]:
    claimed = item.property(b"ispe")
    if claimed is None or len(claimed) != 12:
        raise NotAPicture("it does not say how large it is")
    width, height = struct.unpack(">4xII", claimed)
    return width, height


def _turn(item: Item) -> Turn:
    quarters, mirror = 0, None
    for box in item.properties:
        if box.type in (b"irot", b"imir") and len(box.payload) != 1:
            raise NotAPicture("it does not say how it is turned")
        if box.type == b"irot":
            if mirror is not None:
                raise Unsuitable("a picture that is mirrored, then turned")
            quarters += box.payload[0] & 3
        elif box.type == b"imir":
            mirror = box.payload[0] & 1
        elif box.type == b"pasp" and bytes(box.payload[:4]) != bytes(box.payload[4:]):
            raise Unsuitable("pixels that are no squares")
    return Turn(quarters % 4, mirror)


def _cropped(item: Item, width: int, height: int) -> tuple[int, int]:
    """What the container shows of a coded picture: all but a few columns and rows at the right and the bottom, which fill up a block.

    Raises Unsuitable where it hides more (ISO/IEC 14496-12, 12.1.4).
    """
    if (clap := item.property(b"clap")) is None:
        return width, height
    if len(clap) != 32:
        raise NotAPicture("its property 'clap' is broken")
    shown_width, by, shown_height, by_too, left, left_by, top, top_by = struct.unpack(">4I4i", clap)
    for full, shown, offset, offset_by in ((width, shown_width, left, left_by), (height, shown_height, top, top_by)):
        if not full - _BLOCK < shown <= full or 2 * offset != (shown - full) * offset_by or (by, by_too) != (1, 1) or item.type == b"av01":
            raise Unsuitable("a picture of which its container hides a part")
    return shown_width, shown_height


def _colours(meta: Meta, primary: Item) -> tuple[bytes | None, Colours]:
    """The ICC profile, and what the container says without one."""
    icc, colours = None, Colours()
    described = [box for box in primary.properties if box.type == b"colr"]
    if not described and primary.type == _GRID:
        first = meta.items[meta.tiles(meta.primary)[0]]
        described = [box for box in first.properties if box.type == b"colr"]
    for box in described:
        kind, payload = bytes(box.payload[:4]), bytes(box.payload[4:])
        if kind in (b"prof", b"rICC"):
            icc = payload
        elif kind == b"nclx" and len(payload) >= 7:
            colours = Colours(*struct.unpack_from(">HHH", payload))
    if colours.transfer in (_PQ, _HLG):
        raise Unsuitable(f"HDR colours ({'PQ' if colours.transfer == _PQ else 'HLG'})")
    if icc is None and not (colours.primaries in _PRIMARIES and colours.transfer in _CURVES):
        raise Unsuitable(f"colours that are neither sRGB nor Display P3 ({colours.primaries}/{colours.transfer}/{colours.matrix})")
    return icc, colours


def _metadata(meta: Meta, gain_maps: list[int]) -> tuple[bytes | None, bytes | None, bytes]:
    """EXIF data and XMP of the picture, and XMP of its gain map."""
    exif, xmp, gain_map_xmp = None, None, b""
    about = {reference.source: set(reference.targets) for reference in meta.references if reference.type == b"cdsc"}
    for number, item in meta.items.items():
        of_gain_map = bool(gain_maps) and about.get(number) == set(gain_maps)
        if item.type == b"Exif" and exif is None and not of_gain_map:
            data = item.data
            exif = data[4 + int.from_bytes(data[:4], "big") :]
            if exif[:4] not in (b"II*\0", b"MM\0*"):
                raise Unsuitable("EXIF data that do not begin like such")
        elif item.type == b"mime" and item.content_type == _RDF and of_gain_map and not gain_map_xmp:
            gain_map_xmp = item.data
        elif item.type == b"mime" and item.content_type == _RDF and xmp is None and not of_gain_map:
            xmp = item.data.rstrip(b"\0")
        elif item.type in (b"Exif", b"mime"):
            raise Unsuitable("metadata that a JPEG has no place for")
    return exif, xmp, gain_map_xmp


def _gain_map(meta: Meta, number: int, turn: Turn, xmp: bytes, tone_maps: list[Item], size: int) -> GainMap:
    item = meta.items[number]
    _, width, height, grey = _picture(meta, item, size)
    if _turn(item) != turn or not grey:
        raise Unsuitable("a gain map of colours, or turned otherwise than its picture")
    iso = b"".join(item.data for item in tone_maps)
    if iso and (len(iso) < 6 or iso[0] or not iso[5] & _BASE_COLOURS):
        raise Unsuitable("a gain map in other colours than its picture's")
    return GainMap(number, *((height, width) if turn.quarters % 2 else (width, height)), xmp, iso[1:])
