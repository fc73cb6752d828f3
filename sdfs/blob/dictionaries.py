"""The preset dictionaries of deflated headers and metadata. They are frozen: every blob's bytes depend on them."""

from __future__ import annotations

from functools import cache
from importlib import resources

HEADER_DICTIONARY = (
    b'"reason":"latents take of bytes at quality quality gives PSNR dB, MS-SSIM : want dB, MS-SSIM '
    b"is times as far off as it may be at pixel (, ): mean error , rms error , structure 0.not a recognised picture file"
    b'{"sections":[["file",{"runs":[["offset":54,"top_down":false}"lossless":true,"before":"tile":[64,16],"tiff""bmp""webp""png""jpeg"'
    b'null"grey":true,["alpha",["behind",{"before":{"lossless":false,"before":0},'
    b'{"sections":[["latents",["metadata",]],"original_size":,"original_sha256":"","format":"jpeg","width":,"height":,'
    b'"autoencoder":"bundled-","weights":"","quality":50,"grey":false,"latents_crc32":,"scores":{"psnr":,"ms_ssim":0.9,'
    b'"worst_x":,"worst_y":,"worst_mean_error":,"worst_rms_error":,"worst_structure":0.},'
    b'"coarser":1.3},"behind_size":}"recipe":{"head":},"render":"","metadata_size":}'
)
_XMP = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 6.0.0">\n'
    b' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n  <rdf:Description rdf:about=""\n'
    b'    xmlns:xmp="http://ns.adobe.com/xap/1.0/"\n    xmlns:dc="http://purl.org/dc/elements/1.1/"\n'
    b'    xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"\n    xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"\n'
    b'    xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"\n    xmlns:stRef="http://ns.adobe.com/xap/1.0/sType/ResourceRef#"\n'
    b'    xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/"\n    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"\n'
    b'    xmlns:tiff="http://ns.adobe.com/tiff/1.0/"\n    xmlns:exif="http://ns.adobe.com/exif/1.0/"\n'
    b'    xmlns:aux="http://ns.adobe.com/exif/1.0/aux/"\n    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"\n'
    b'    xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"\n    xmlns:GCamera="http://ns.google.com/photos/1.0/camera/">\n'
    b"   <dc:subject>\n    <rdf:Bag>\n     <rdf:li></rdf:li>\n    </rdf:Bag>\n   </dc:subject>\n   <dc:title>\n    <rdf:Alt>\n"
    b'     <rdf:li xml:lang="x-default"></rdf:li>\n    </rdf:Alt>\n   </dc:title>\n   <xmpMM:History>\n    <rdf:Seq>\n'
    b'     <rdf:li stEvt:action="saved" stEvt:instanceID="xmp.iid:" stEvt:when="2020-01-01T00:00:00+01:00" stEvt:softwareAgent="Adobe '
    b'Photoshop Lightroom (Macintosh)" stEvt:changed="/metadata"/>\n    </rdf:Seq>\n   </xmpMM:History>\n'
    b'xmp:CreatorTool="" xmp:CreateDate="" xmp:ModifyDate="" xmp:MetadataDate="" xmp:Rating="" dc:format="image/jpeg" '
    b'photoshop:ColorMode="3" photoshop:ICCProfile="sRGB IEC61966-2.1" xmpMM:DocumentID="xmp.did:" xmpMM:OriginalDocumentID="" '
    b'xmpMM:InstanceID="" tiff:Orientation="1" exif:ColorSpace="1" exif:PixelXDimension="" exif:PixelYDimension=""'
    b"  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n" + (b" " * 100 + b"\n") * 2 + b'<?xpacket end="w"?>'
)
_EXIF = b"Apple\0Canon\0NIKON CORPORATION\0SONY\0samsung\0Google\0R980100\0002020:01:01 00:00:00\0ASCII\0\0\0"
_PNG = (
    b"\0\0\0\x01sRGB\0\xae\xce\x1c\xe9\0\0\0\x04gAMA\0\0\xb1\x8f\x0b\xfca\x05\0\0\0\x09pHYs\0\0\x0e\xc3\0\0\x0e\xc3\x01\xc7o\xa8d\0\0\x0b\x13"
    b"\0\0\x0b\x13\x01\0\x9a\x9c\x18\0\0\0 cHRM\0\0z&\0\0\x80\x84\0\0\xfa\0\0\0\x80\xe8\0\0u0\0\0\xea`\0\0:\x98\0\0\x17p\x9c\xbaQ<"
    b"iCCPICC profile\0\0tEXtSoftware\0iTXtXML:com.adobe.xmp\0\0\0\0\0tEXtComment\0tEXtdate:create\0\0\0%tEXtdate:modify\0eXIf"
    b"\0\0\0\rIHDR\0\0\x02\0\0\0\x02\0\x08\x02\0\0\0\0\0\0\0IEND\xaeB`\x82"
)
_JPEG = (
    b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\x01\xff\xed\0,Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0f\x1c\x01Z\0\x03\x1b%G\x1c\x02\0\0\x02\0\x04"
    b"8BIM\x04%\xff\xe1\0\0http://ns.adobe.com/xap/1.0/\0\xff\xe2\x02\x1cICC_PROFILE\0\x01\x01\xff\xe1\0\0Exif\0\0MM\0*\0\0\0\x08Exif\0\0II*\0\x08\0\0\0"
    b"\xff\xe0\0\x10JFIF\0\x01\x02\0\0\x01\0\x01\0\0\xff\xe0\0\x10JFIF\0\x01\x01\x01\x01,\x01,\0\0\xff\xe0\0\x10JFIF\0\x01\x01\x01\0H\0H\0\0\xff\xe2\x0cX"
    b"ICC_PROFILE\0\x01\x01\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
)
# Frame headers without dimensions: of a baseline or progressive picture, grey, or with chroma 4:4:4, 4:2:2 or 4:2:0.
_FRAMES = b"".join(
    b"\xff"
    + kind
    + (
        b"\0\x0b\x08" + bytes(4) + b"\x01\x01\x11\0"
        if luma is None
        else b"\0\x11\x08" + bytes(4) + b"\x03\x01" + luma + b"\0\x02\x11\x01\x03\x11\x01"
    )
    for kind in (b"\xc2", b"\xc0")
    for luma in (None, b"\x11", b"\x21", b"\x22")
)
# Quantisation steps of luma and chroma, in the order of a scan, which libjpeg scales: ITU-T T.81, tables K.1 and K.2.
_STEPS = (
    "16 11 12 14 12 10 16 14 13 14 18 17 16 19 24 40 26 24 22 22 24 49 35 37 29 40 58 51 61 60 57 51 "
    "56 55 64 72 92 78 64 68 87 69 55 56 80 109 81 87 95 98 103 104 103 62 77 113 121 112 100 120 92 101 103 99",
    "17 18 18 24 21 24 47 26 26 47 99 66 56 66" + " 99" * 50,
)
_JPEG_QUALITIES = (*range(50, 75, 5), *range(75, 101))


@cache
def metadata_dictionary() -> bytes:
    """Bytes that never change; the likeliest last, where they are the cheapest to name."""
    profile = resources.files("sdfs").joinpath("blob/sRGB.icc").read_bytes()
    tables = b"".join(_quantisation_tables(quality) for quality in _JPEG_QUALITIES)
    return _XMP + _EXIF + _PNG + profile + tables + _FRAMES + _JPEG


def _quantisation_tables(quality: int) -> bytes:
    """DQT segments as libjpeg writes them at a quality of 50 to 100."""
    scaled = [bytes(min(255, max(1, (int(step) * (200 - 2 * quality) + 50) // 100)) for step in steps.split()) for steps in _STEPS]
    return b"".join(b"\xff\xdb\0\x43" + bytes([number]) + table for number, table in enumerate(scaled))
