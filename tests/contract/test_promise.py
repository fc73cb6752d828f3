"""The promise: a picture reaches its score, letters theirs, and what is asked for costs no more than it must."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import skimage.data
import ssimulacra2 as published
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sdfs.blob import container
from sdfs.codec import patches
from sdfs.codec.choosing import ALLOWANCE, LETTERS, Asked
from sdfs.codec.codec import Codec
from sdfs.codec.patches import Patch
from sdfs.codec.quality.sample import SIDE, Corner, Judgement, Sample
from sdfs.codec.quality.text import squares_with_text
from sdfs.codec.resident.image_codecs import IMAGE_CODECS
from sdfs.errors import DamagedError
from sdfs.settings import Effort, EncodeSettings

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec("cpu")


def coded(pixels: Pixels, pillow_format: str, **options: object) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, pillow_format, **options)  # type: ignore[arg-type]
    return np.asarray(Image.open(file).convert("RGB"))


def jpeg(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def page(height: int = 512, width: int = 512, ground: Pixels | None = None, lines: int = 20) -> Pixels:
    picture = Image.fromarray(ground) if ground is not None else Image.new("RGB", (width, height), (250, 248, 240))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    draw.rectangle((0, 0, 300, 22 * lines + 8), fill=(250, 248, 240))
    for line in range(lines):
        draw.text((12, 10 + 22 * line), "Total 24.70 EUR, table 17, receipt 480213", (20, 20, 30), font)
    return np.asarray(picture)


def test_scores_are_those_of_the_published_ones(tmp_path: object) -> None:
    """In rank, and within four points; mostly below them, because squares have borders."""
    ours, theirs = [], []
    for pixels in (skimage.data.astronaut()[:384, :384], skimage.data.coffee()[:300, :450], skimage.data.chelsea()):
        for options in ({"quality": 15}, {"quality": 40}, {"quality": 70}, {"quality": 92}):
            worse = coded(pixels, "JPEG", **options)
            ours.append(Sample(pixels).judge(worse).score)
            files = [io.BytesIO() for _ in range(2)]
            for file, picture in zip(files, (pixels, worse), strict=True):
                Image.fromarray(picture).save(file, "PNG")
            theirs.append(published.compute_ssimulacra2(*files))
    ranks = [np.argsort(np.argsort(scores)) for scores in (ours, theirs)]
    assert np.corrcoef(ranks)[0, 1] >= 0.95
    assert np.abs(np.subtract(ours, theirs)).max() < 4


def test_equal_pictures_score_100(photo: Pixels) -> None:
    assert Sample(photo).judge(photo).score == pytest.approx(100, abs=0.1)


def test_a_sample_of_a_large_picture_scores_as_the_picture_does(photo: Pixels) -> None:
    large = np.asarray(Image.fromarray(skimage.data.coffee()).resize((2400, 1600), Image.Resampling.LANCZOS))
    sample = Sample(large)
    assert not sample.is_whole
    assert sample.share < 0.5
    of_sample = sample.judge_sample(coded(sample.picture, "JPEG", quality=50)).score
    assert of_sample == pytest.approx(sample.judge(coded(large, "JPEG", quality=50)).score, abs=2)


@pytest.mark.parametrize("asked", [35, 60, 75])
def test_a_photo_reaches_what_is_asked_and_not_much_more(codec: Codec, asked: int) -> None:
    blob = container.parse(codec.encode(jpeg(skimage.data.astronaut()), EncodeSettings(asked)))
    scores = blob.header["scores"]
    assert asked <= scores["score"] < asked + 8
    assert scores["worst_score"] >= asked - ALLOWANCE
    assert blob.header["asked"] == asked


def test_letters_are_found_where_they_are() -> None:
    assert len(squares_with_text(page(), 99)) >= 2
    assert squares_with_text(skimage.data.astronaut(), 99) == []
    assert squares_with_text(np.full((300, 300), 128, np.uint8), 99) == []
    assert squares_with_text(np.zeros((5, 5, 3), np.uint8), 99) == []


def test_a_page_of_text_reaches_the_score_of_letters(codec: Codec) -> None:
    source = jpeg(page())
    blob = codec.encode(source, EncodeSettings(40))
    scores = container.parse(blob).header.get("scores")
    assert scores is None or scores["letters_score"] >= LETTERS


def test_a_few_letters_do_not_make_the_whole_picture_dear(codec: Codec) -> None:
    """They are coded by themselves; what they cost is less than what all of the picture would."""
    ground = np.asarray(Image.fromarray(skimage.data.coffee()).resize((1500, 1000), Image.Resampling.LANCZOS))
    source = jpeg(page(ground=ground, lines=9))
    blob = codec.encode(source, EncodeSettings(60))
    parsed = container.parse(blob)
    assert parsed.header["scores"]["letters_score"] >= LETTERS
    assert parsed.header["scores"]["score"] < LETTERS - 5
    assert 0 < len(parsed.sections["patches"]) < len(parsed.sections["latents"])
    read = np.asarray(Image.open(io.BytesIO(codec.decode(blob))))
    judged = Sample(np.asarray(Image.open(io.BytesIO(source))), [Corner(0, 0)]).judge(read)
    assert judged.letters >= LETTERS - 1


def test_a_drawing_is_kept_without_loss_where_that_takes_less(codec: Codec) -> None:
    file = io.BytesIO()
    Image.fromarray(page()).save(file, "PNG", compress_level=1)
    blob = codec.encode(file.getvalue(), EncodeSettings(60))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(codec.decode(blob)))), page())
    assert len(blob) < len(file.getvalue())


@pytest.mark.parametrize(
    ("judged", "kept"),
    [
        (Judgement(60.0, 48.0, Corner(0, 0), 100.0), True),
        (Judgement(59.8, 58.0, Corner(0, 0), 100.0), False),
        (Judgement(70.0, 47.8, Corner(0, 0), 100.0), False),
        (Judgement(70.0, 65.0, Corner(0, 0), 79.8), False),
        (Judgement(70.0, 65.0, Corner(0, 0), 80.0), True),
    ],
)
def test_the_promise(judged: Judgement, kept: bool) -> None:
    assert (Asked(60).excess(judged) >= 0) is kept


class TestPatches:
    @pytest.fixture
    def packed(self, photo: Pixels) -> bytes:
        square = photo[32 : 32 + 64, 16 : 16 + 48]
        encoded = IMAGE_CODECS["avif"].encode(square, 90, Effort.FAST)
        return patches.pack([Patch(Corner(5, 7), encoded.pixels, encoded.section)])

    def test_they_are_put_where_they_belong(self, packed: bytes) -> None:
        whole = patches.apply(packed, np.zeros((100, 100, 3), np.uint8))
        assert whole[5:69, 7:55].mean() > 10
        whole[5:69, 7:55] = 0
        assert not whole.any()

    @pytest.mark.parametrize(
        "changed",
        [
            lambda packed: packed[:10],
            lambda packed: packed[:-1],
            lambda packed: struct.pack("<I", 90) + packed[4:],
            lambda packed: struct.pack("<IIII", 5, 7, 32, 48) + packed[16:],
            lambda packed: struct.pack("<IIII", 5, 7, 0, 48) + packed[16:],
            lambda packed: packed[:16] + struct.pack("<I", 4) + b"avif",
        ],
    )
    def test_what_has_no_place_is_damage(self, packed: bytes, changed: object) -> None:
        with pytest.raises(DamagedError):
            patches.apply(changed(packed), np.zeros((100, 100, 3), np.uint8))  # type: ignore[operator]


def test_a_square_is_no_larger_than_the_picture() -> None:
    sample = Sample(np.zeros((40, 3 * SIDE), np.uint8))
    assert sample.judge(np.zeros((40, 3 * SIDE), np.uint8)).score == pytest.approx(100, abs=0.1)
