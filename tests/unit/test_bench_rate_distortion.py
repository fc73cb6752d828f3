"""The bench beside other codecs: BD rates, envelopes, noise, files of weights, what results are kept, and a run of it all."""

from __future__ import annotations

import importlib.util
import json
import math
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from bench.rate_distortion.__main__ import main
from bench.rate_distortion.codecs import Codec, avif
from bench.rate_distortion.curves import envelope, frontier, log_rate_ratio, mean_percent
from bench.rate_distortion.measuring import best_within, measure
from bench.rate_distortion.noise import Ground, edge_ratio
from bench.rate_distortion.perceptual import Dists, Lpips, WeightsMissing, read_arrays
from bench.rate_distortion.pictures import Picture, parse_sets
from bench.rate_distortion.published import distance_at, published
from bench.rate_distortion.results import Results, key_of
from bench.rate_distortion.scores import SCORES, Judge
from bench.rate_distortion.squares import draw, draw_scale, measure_squares, squares_of, wins_table
from bench.rate_distortion.tables import bd_rate

SHARED = Path(__file__).parents[2] / "../shared"
RATES = (0.1, 0.6)
ANCHOR = [(0.05, 20.0), (0.1, 22.0), (0.2, 25.0), (0.4, 29.0), (0.8, 34.0)]


def times(factor: float, curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(rate * factor, score) for rate, score in curve]


# --- curves


@pytest.mark.parametrize(("factor", "percent"), [(0.5, -50), (1, 0), (1.5, 50), (0.9, -10)])
def test_the_bd_rate_of_a_codec_that_takes_a_share_of_the_bytes_at_every_score(factor: float, percent: float) -> None:
    ratio = log_rate_ratio(ANCHOR, times(factor, ANCHOR), RATES)
    assert ratio is not None
    assert mean_percent([ratio]) == pytest.approx(percent)


def test_the_bd_rate_weighs_what_is_saved_by_the_scores_over_which_it_is() -> None:
    anchor = [(0.1, 0.0), (0.6, 10.0)]
    half_of_the_bytes_at_the_best_score = [(0.1, 0.0), (0.3, 10.0)]
    assert log_rate_ratio(anchor, half_of_the_bytes_at_the_best_score, RATES) == pytest.approx(math.log(0.5) / 2)


def test_the_bd_rate_does_not_depend_on_what_is_beyond_the_range_of_rates() -> None:
    test = times(0.5, ANCHOR)
    beyond = [(0.01, 19.9), *test, (5.0, 34.1)]
    assert log_rate_ratio(ANCHOR, beyond, (0.1, 0.3), 0.3) == pytest.approx(log_rate_ratio(ANCHOR, test, (0.1, 0.3), 0.3))


def test_two_codecs_swapped_have_reciprocal_bd_rates() -> None:
    test = [(0.06, 21.0), (0.2, 26.0), (0.7, 31.0)]
    there, back = log_rate_ratio(ANCHOR, test, RATES), log_rate_ratio(test, ANCHOR, RATES)
    assert there is not None
    assert back == pytest.approx(-there)


def test_there_is_no_bd_rate_of_curves_without_a_score_in_common() -> None:
    assert log_rate_ratio(ANCHOR, [(0.1, 40.0), (0.6, 50.0)], RATES) is None


def test_there_is_no_bd_rate_of_curves_that_share_but_a_corner_of_the_range() -> None:
    corner = [point for point in ANCHOR if point[0] >= 0.4]
    assert log_rate_ratio(ANCHOR, corner, RATES) is None


def test_half_and_twice_the_bytes_come_out_even() -> None:
    assert mean_percent([math.log(0.5), math.log(2)]) == pytest.approx(0)


@pytest.mark.skipif(not (SHARED / "anchors/bd.py").exists(), reason="no second implementation of the BD rate here")
@pytest.mark.parametrize("rates", [(0.1, 0.6), (0.6, 1.5)])
def test_the_bd_rate_of_published_curves_is_what_another_implementation_gives(rates: tuple[float, float]) -> None:
    other = loaded(SHARED / "anchors/bd.py")
    curves = {curve.name: curve.curve("psnr") for curve in published()}
    points = {name: [{"bpp": rate, "psnr": score} for rate, score in curve] for name, curve in curves.items()}
    for anchor in curves:
        for test in curves:
            try:
                there = other.bd_rate(other.Curve(points[test], "psnr"), other.Curve(points[anchor], "psnr"), *rates, 0.5)[0]
            except other.NoOverlap:
                there = None
            here = log_rate_ratio(curves[anchor], curves[test], rates)
            assert there == pytest.approx(None if here is None else mean_percent([here])), (test, anchor)


def test_a_result_that_a_smaller_one_beats_is_not_on_the_curve() -> None:
    assert frontier([(0.3, 25.0), (0.1, 22.0), (0.2, 21.0)]) == [(0.1, 22.0), (0.3, 25.0)]


def test_the_envelope_of_one_curve_is_its_frontier() -> None:
    assert envelope([[(0.3, 25.0), (0.1, 22.0), (0.2, 21.0)]]) == [(0.1, 22.0), (0.3, 25.0)]


def test_the_envelope_follows_the_better_of_two_curves_between_their_points() -> None:
    early, late = [(0.1, 10.0), (1.0, 14.0)], [(0.1, 8.0), (1.0, 16.0)]  # they cross at the middle of the logarithms
    best = dict(envelope([early, late]))
    assert (best[0.1], best[1.0]) == (10.0, 16.0)
    for rate, score in best.items():
        along = math.log10(rate) + 1
        assert score == pytest.approx(max(10 + 4 * along, 8 + 8 * along))


def test_the_envelope_does_not_lengthen_a_curve() -> None:
    assert {score for rate, score in envelope([[(0.1, 1.0), (0.2, 2.0)], [(0.5, 3.0), (1.0, 4.0)]]) if 0.2 < rate < 0.5} == set()


# --- the best within a limit


@pytest.mark.parametrize("limit", [10, 11, 499, 500, 1_000, 5_000])
def test_the_best_setting_within_a_limit(limit: int) -> None:
    setting, coded, _ = best_within(limit, range(101), *sized(lambda setting: 10 + 10 * setting))
    assert (setting, len(coded)) == (min(100, (limit - 10) // 10), min(1_010, limit // 10 * 10))


@pytest.mark.parametrize("limit", range(50, 70))
def test_a_found_file_is_never_over_the_limit_where_sizes_do_not_always_grow(limit: int) -> None:
    _, coded, _ = best_within(limit, range(101), *sized(lambda setting: 50 + setting + 9 * (setting % 2)))
    assert len(coded) <= limit


def test_the_coarsest_file_where_none_is_within_the_limit() -> None:
    assert best_within(4, range(101), *sized(lambda setting: 5 + int(setting)))[:2] == (0, bytes(5))


BLACK = np.zeros((8, 8, 3), np.uint8)


def sized(bytes_at: Callable[[float], float]) -> tuple[Callable[[NDArray[np.uint8], float], tuple[bytes, NDArray[np.uint8]]], Any]:
    return lambda pixels, setting: (bytes(int(bytes_at(setting))), pixels), BLACK


def test_squares_are_cut_out_of_pictures_and_never_enlarged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 520, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    Image.fromarray(pixels[:511]).save(tmp_path / "small.png")
    found = squares_of([Picture(tmp_path / "large.png"), Picture(tmp_path / "small.png")])
    assert [square.name for square in found] == ["large"]
    assert np.array_equal(found[0].load(), pixels[44:556, 4:516])


def test_squares_are_scored_and_drawn_side_by_side(tmp_path: Path) -> None:
    Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.png")
    codecs = [
        Codec(name, name, "1", (), in_levels(bits), (128, 64, 32, 16)) for name, bits in (("fine", 0.4), ("coarse", 3.0), ("huge", 90.0))
    ]
    squares = [Picture(tmp_path / "astronaut.png", 512)]
    found = measure_squares(squares, codecs, ["psnr"])
    assert [square.fits for square in found] == [True, True, False]
    header, _, coarse, huge = wins_table(found, codecs[0], ["psnr"]).splitlines()
    assert header == "| fine against | squares that fit | PSNR, dB: won, by |"
    assert coarse.startswith("| coarse | 1 of 1 | 1 of 1, +")
    assert huge == "| huge | 0 of 1 | – |"
    draw(squares, found, tmp_path, ".png")
    draw_scale(squares, replace(codecs[0], code=by_quality), ["psnr"], tmp_path, ".png")
    for name, columns in (("astronaut.png", 3), ("astronaut-scale.png", 2)):
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width == columns * 520 - 8


def in_levels(bits: float) -> Callable[[NDArray[np.uint8], float], tuple[bytes, NDArray[np.uint8]]]:
    """Rounds to a multiple of the setting, and takes `bits` times more bytes the finer that is."""
    return lambda pixels, step: (bytes(int(bits * 1000 * 32 / step)), (pixels // int(step) * int(step)).astype(np.uint8))


def by_quality(pixels: NDArray[np.uint8], quality: float) -> tuple[bytes, NDArray[np.uint8]]:
    return in_levels(1)(pixels, 100 - quality + 1)


# --- noise


def loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def page() -> NDArray[np.uint8]:
    """Grey ground with a black bar, and a gradient."""
    pixels = np.full((96, 128, 3), 200, np.uint8)
    pixels[:, 60:68] = 0
    pixels[64:] = np.linspace(20, 220, 128).astype(np.uint8)[None, :, None]
    return pixels


def test_a_constant_picture_has_no_noise_and_no_edges() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    noise = Ground(grey).noise(grey)
    assert noise.flat == pytest.approx(0, abs=1e-3)
    assert noise.edge is None


def test_noise_on_flat_ground_is_measured_in_levels() -> None:
    grey = np.full((256, 256, 3), 128, np.uint8)
    checkered = grey + 4 * (np.indices((256, 256)).sum(0) % 2).astype(np.uint8)[:, :, None]
    assert Ground(grey).noise(checkered).flat == pytest.approx(2, rel=0.02)


def test_noise_beside_an_edge_is_not_the_edge_itself() -> None:
    ground = Ground(page())
    ringing = page().copy()
    ringing[:64, 72:76] += 20
    clean, harmed = ground.noise(page()), ground.noise(ringing)
    assert clean.edge is not None
    assert harmed.edge is not None
    assert clean.edge < 0.5
    assert harmed.edge > 2


def test_the_edge_ratio_takes_what_is_very_calm_as_no_calmer_than_its_floor() -> None:
    assert edge_ratio(0.6, 0.0) == 1
    assert edge_ratio(1.5, 0.1) == 2


@pytest.mark.skipif(not (SHARED / "tools/harm.py").exists(), reason="no second implementation of the noise here")
@pytest.mark.parametrize("picture", [page(), data.astronaut()[:200, :300], data.coffee()], ids=["drawn", "astronaut", "coffee"])
def test_noise_is_what_another_implementation_gives(picture: NDArray[np.uint8], tmp_path: Path) -> None:
    harm = loaded(SHARED / "tools/harm.py")
    Image.fromarray(picture).save(tmp_path / "p.jpg", quality=30)
    with Image.open(tmp_path / "p.jpg") as file:
        render = np.asarray(file.convert("RGB"))
    there = harm.compare(harm.Original(picture, "eng"), render, skip=tuple(harm.MEASURES))
    ground = Ground(picture)
    was, has = ground.noise(picture), ground.noise(render)
    assert (was.flat, has.flat) == pytest.approx((there.flat_noise_original, there.flat_noise), rel=1e-5)
    assert (was.edge, has.edge) == pytest.approx((there.edge_noise_original, there.edge_noise), rel=1e-5)


# --- networks


def test_a_pickle_of_arrays_is_read() -> None:
    arrays = {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    old = pickle.dumps(arrays, 3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert np.array_equal(read_arrays(old)["layer"]["kernel"], arrays["layer"]["kernel"])


class _Calls:
    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._made = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self._made


@pytest.mark.parametrize(
    "harmful",
    [
        _Calls(print, "called"),
        {"layer": _Calls(eval, "1")},
        {"layer": {"kernel": _Calls(Path, "/")}},
        _Calls(np.lib.format.open_memmap, "file"),
    ],
    ids=["a builtin", "eval", "a class", "a function of numpy"],
)
def test_a_pickle_that_names_anything_but_arrays_is_refused(harmful: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(pickle.UnpicklingError, match="no place among arrays"):
        read_arrays(pickle.dumps(harmful))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("other", [[1, 2], {"layer": "text"}, {1: {}}, {"layer": [1.5]}], ids=["list", "text", "a key", "numbers"])
def test_a_pickle_of_other_data_is_refused(other: object) -> None:
    with pytest.raises(pickle.UnpicklingError):
        read_arrays(pickle.dumps(other))


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({"a": 1.0})[:-3]], ids=["empty", "text", "cut"])
def test_what_is_no_pickle_is_refused(content: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        read_arrays(content)


@pytest.fixture(params=[Lpips, Dists])
def network(request: pytest.FixtureRequest) -> Lpips | Dists:
    try:
        made: Lpips | Dists = request.param()
    except WeightsMissing as reason:
        pytest.skip(str(reason))
    return made


def test_equal_pictures_have_no_distance(network: Lpips | Dists) -> None:
    seen = network.features(data.astronaut()[:128, :128])
    assert network.distance(seen, seen) == pytest.approx(0, abs=1e-5)


def test_a_worse_picture_is_farther(network: Lpips | Dists, tmp_path: Path) -> None:
    picture = data.astronaut()[:160, :160]
    seen, distances = network.features(picture), []
    for quality in (80, 40, 10):
        Image.fromarray(picture).save(tmp_path / "p.jpg", quality=quality)
        with Image.open(tmp_path / "p.jpg") as file:
            distances.append(network.distance(seen, network.features(np.asarray(file))))
    assert 0 < distances[0] < distances[1] < distances[2] < 1


# --- scores and results


def test_ms_ssim_of_rgb_sees_a_colour_that_luma_does_not() -> None:
    picture = data.astronaut()[:192, :192].astype(np.float32)
    stripes = 30 * np.sin(np.arange(192) / 2)[:, None]
    tinted = picture + stripes[:, :, None] * np.array([1.0, -0.299 / 0.587, 0.0])
    scores = Judge(picture.astype(np.uint8)).scores(np.clip(tinted, 0, 255).astype(np.uint8), ["ms_ssim", "ms_ssim_rgb"])
    assert scores["ms_ssim"] is not None
    assert scores["ms_ssim_rgb"] is not None
    assert scores["ms_ssim"] > 0.99 > 0.95 > scores["ms_ssim_rgb"]


@pytest.fixture
def picture(tmp_path: Path) -> Picture:
    Image.fromarray(data.astronaut()[:64, 180:276]).save(tmp_path / "face.png")
    return Picture(tmp_path / "face.png")


class Counting:
    """Rounds to fewer levels, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixels: NDArray[np.uint8], step: float) -> tuple[bytes, NDArray[np.uint8]]:
        self.calls += 1
        coarse = (pixels // int(step)) * int(step) + int(step) // 2
        return bytes(int(60_000 / step)), coarse.astype(np.uint8)


def in_development(code: Counting, version: str = "1") -> Codec:
    return Codec("mine", "mine", version, (64, 32, 16), code)


def test_what_was_measured_is_not_measured_again(picture: Picture, tmp_path: Path) -> None:
    code = Counting()
    for _ in range(2):
        measure([picture], [in_development(code)], ["psnr"], Results(tmp_path / "results.jsonl"))
    assert code.calls == 3


def test_another_version_is_measured_anew(picture: Picture, tmp_path: Path) -> None:
    code = Counting()
    for version in ("1", "2"):
        measure([picture], [in_development(code, version)], ["psnr"], Results(tmp_path / "results.jsonl"))
    assert code.calls == 6


def test_a_codec_without_a_version_leaves_no_trace(picture: Picture, tmp_path: Path) -> None:
    measure([picture], [in_development(Counting(), "")], ["psnr"], Results(tmp_path / "results.jsonl"))
    assert not (tmp_path / "results.jsonl").exists()


def test_a_score_that_is_missing_joins_those_that_are_there(picture: Picture, tmp_path: Path) -> None:
    path, codec = tmp_path / "results.jsonl", in_development(Counting())
    measure([picture], [codec], ["psnr"], Results(path))
    measure([picture], [codec], ["psnr", "ms_ssim_rgb"], Results(path))
    assert Results(path).missing(key_of(picture, codec, 16), ["psnr", "ms_ssim_rgb"]) == ()


def test_a_line_that_was_cut_off_is_measured_again(picture: Picture, tmp_path: Path) -> None:
    path, code = tmp_path / "results.jsonl", Counting()
    measure([picture], [in_development(code)], ["psnr"], Results(path))
    path.write_text(path.read_text()[:-20])
    measure([picture], [in_development(code)], ["psnr"], Results(path))
    assert code.calls == 4


def twice_the_bytes(pixels: NDArray[np.uint8], step: float) -> tuple[bytes, NDArray[np.uint8]]:
    coded, decoded = Counting()(pixels, step)
    return 2 * coded, decoded


def test_a_codec_that_takes_twice_the_bytes_is_100_percent_worse(picture: Picture) -> None:
    mine, worse, results = in_development(Counting()), Codec("worse", "worse", "1", (64, 32, 16), twice_the_bytes), Results()
    measure([picture], [mine, worse], ["psnr"], results)
    assert bd_rate(results, [picture], [mine], [worse], "psnr", (1.0, 6.0)) == (pytest.approx(100), 1)


def test_of_several_ways_of_one_codec_the_best_counts(picture: Picture) -> None:
    mine, worse, results = in_development(Counting()), Codec("worse", "worse", "1", (64, 32, 16), twice_the_bytes), Results()
    measure([picture], [mine, worse], ["psnr"], results)
    assert bd_rate(results, [picture], [worse, mine], [mine], "psnr", (1.0, 6.0)) == (pytest.approx(0, abs=0.01), 1)


# --- sets and what is published


def test_a_set_is_a_folder_pictures_or_a_list(picture: Picture, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("face.png\n")
    for place in (tmp_path, picture.path, tmp_path / "list.txt"):
        assert parse_sets([["faces", str(place)]], None, None) == {"faces": [picture]}


@pytest.mark.parametrize("named", [["faces"], ["faces", "not-there"]], ids=["no place", "a place that is not there"])
def test_a_set_without_pictures_is_refused(named: Sequence[str]) -> None:
    with pytest.raises(SystemExit, match=r"name a folder, pictures, or a \.txt file"):
        parse_sets([named], None, None)


def test_published_curves_name_their_sources() -> None:
    path = Path(sys.modules[published.__module__].__file__ or "").with_name("published.json")
    for entry in json.loads(path.read_text()):
        assert entry["source"]["repository"], entry["id"]
        assert len(entry["source"]["commit"]) == 40, entry["id"]


def test_the_distance_at_a_rate_is_read_off_a_curve_where_it_has_that_rate() -> None:
    scale = SCORES["lpips"].scale
    assert distance_at([(0.1, scale(0.4)), (0.15, scale(0.3)), (0.2, scale(0.2))]) == "0.300"
    assert distance_at([(0.2, scale(0.4)), (0.3, scale(0.3))]) == "–"


# --- a run


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_run_keeps_results_and_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(data.astronaut()[:96, 180:276]).save(photos / "face.png")
    Image.fromarray(data.coffee()[100:180, 200:320]).save(photos / "cup.png")
    kept, figures = tmp_path / "results.jsonl", tmp_path / "figures"
    places = ["--set", "small", str(photos), "--kodak", str(photos)]
    main([*places, "--slower", "1", "--results", str(kept), "--figures", str(figures)])
    codecs = {json.loads(line)["key"]["codec"] for line in kept.read_text().splitlines()}
    assert codecs == {"SDFS", "jpeg", "webp", "jpegxl", "original", *(codec.name for codec in (*avif(), *avif(3)))}
    assert (figures / "small/psnr.svg").stat().st_size > 1_000
    shown = capsys.readouterr().out
    for heading in (
        "small (2): SDFS to AVIF",
        "Kodak (2): SDFS to JPEG XL",
        "AVIF, speed 3 to AVIF",
        "noise at quality 50",
        "kMAC a pixel",
    ):
        assert heading in shown
