"""The bench beside other codecs: what a BD rate is, the search below a limit, and a run of it all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from skimage import data

from bench.rate_distortion.__main__ import main
from bench.rate_distortion.curves import frontier, log_rate_ratio, mean_percent
from bench.rate_distortion.measuring import LIMIT_BYTES, Result, best_within
from bench.rate_distortion.scores import METRICS, Scores
from bench.rate_distortion.sheets import worst

ANCHOR = [(0.05, 20.0), (0.1, 22.0), (0.2, 25.0), (0.4, 29.0), (0.8, 34.0)]


def times(factor: float, curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(rate * factor, score) for rate, score in curve]


@pytest.mark.parametrize(("factor", "percent"), [(0.5, -50), (1, 0), (2, 100), (0.9, -10)])
def test_the_bd_rate_of_a_codec_that_takes_a_share_of_the_bytes_at_every_score(factor: float, percent: float) -> None:
    ratio = log_rate_ratio(ANCHOR, times(factor, ANCHOR))
    assert ratio is not None
    assert mean_percent([ratio]) == pytest.approx(percent)


def test_the_bd_rate_weighs_what_is_saved_by_the_scores_over_which_it_is() -> None:
    anchor = [(0.1, 0.0), (0.6, 10.0)]
    half_of_the_bytes_at_the_best_score = [(0.1, 0.0), (0.3, 10.0)]
    assert log_rate_ratio(anchor, half_of_the_bytes_at_the_best_score) == pytest.approx(math.log(0.5) / 2)


def test_the_bd_rate_does_not_depend_on_what_is_beyond_the_range_of_rates() -> None:
    test = times(0.5, ANCHOR)
    beyond = [(0.01, 19.9), *test, (5.0, 34.1)]
    assert log_rate_ratio(ANCHOR, beyond, 0.1, 0.3) == pytest.approx(log_rate_ratio(ANCHOR, test, 0.1, 0.3))


def test_two_codecs_swapped_have_reciprocal_bd_rates() -> None:
    test = [(0.06, 21.0), (0.2, 26.0), (0.7, 31.0)]
    there, back = log_rate_ratio(ANCHOR, test), log_rate_ratio(test, ANCHOR)
    assert there is not None
    assert back == pytest.approx(-there)


def test_there_is_no_bd_rate_of_curves_without_a_score_in_common() -> None:
    assert log_rate_ratio(ANCHOR, [(0.1, 40.0), (0.6, 50.0)]) is None


def test_half_and_twice_the_bytes_come_out_even() -> None:
    assert mean_percent([math.log(0.5), math.log(2)]) == pytest.approx(0)


def test_a_result_that_a_smaller_one_beats_is_not_on_the_curve() -> None:
    assert frontier([(0.3, 25.0), (0.1, 22.0), (0.2, 21.0)]) == [(0.1, 22.0), (0.3, 25.0)]


@pytest.mark.parametrize("limit", [10, 11, 499, 500, 1_000, 5_000])
def test_the_best_setting_within_a_limit(limit: int) -> None:
    setting, coded = best_within(limit, range(101), sized(lambda setting: 10 + 10 * setting))
    assert (setting, len(coded)) == (min(100, (limit - 10) // 10), min(1_010, limit // 10 * 10))


@pytest.mark.parametrize("limit", range(50, 70))
def test_a_found_file_is_never_over_the_limit_where_sizes_do_not_always_grow(limit: int) -> None:
    _, coded = best_within(limit, range(101), sized(lambda setting: 50 + setting + 9 * (setting % 2)))
    assert len(coded) <= limit


def test_the_coarsest_file_where_none_is_within_the_limit() -> None:
    assert best_within(4, range(101), sized(lambda setting: 5 + int(setting))) == (0, bytes(5))


def sized(bytes_at: Callable[[float], float]) -> Callable[[float], bytes]:
    return lambda setting: bytes(int(bytes_at(setting)))


def test_the_worst_are_the_pictures_where_avif_is_the_furthest_ahead() -> None:
    ahead = {"level": 0.0, "far": 40.0, "behind": -5.0, "near": 3.0}
    results = [
        Result(picture, codec, 0, 1, b"", Scores(30, 0.9, score, 1))
        for picture, lead in ahead.items()
        for codec, score in (("AVIF", 20 + lead), ("SDFS", 20.0))
    ]
    assert worst(results) == ["far", "near", "level", "behind"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the bench made of two small photos."""
    folder = tmp_path_factory.mktemp("bench")
    photos = folder / "photos"
    photos.mkdir()
    Image.fromarray(data.astronaut()[:96, 180:276]).save(photos / "face.png")
    Image.fromarray(data.coffee()[100:180, 200:320]).save(photos / "cup.png")
    sheets = str(folder / "sheets")
    main([str(photos), "--json", str(folder / "all.json"), "--figures", str(folder / "figures"), "--sheets", sheets, "--scale", sheets])
    return folder


@pytest.fixture(scope="module")
def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "all.json").read_text())
    return found


@pytest.mark.long
def test_every_codec_has_a_bd_rate_for_every_score(results: dict[str, Any]) -> None:
    found = {(rate["codec"], rate["metric"]) for rate in results["bd_rates"]}
    assert found == {(codec, metric) for codec in ("JPEG", "WebP", "AVIF", "JPEG XL") for metric in METRICS}


@pytest.mark.long
def test_a_curve_has_more_bytes_and_a_better_psnr_at_its_end(results: dict[str, Any]) -> None:
    for codec in results["codecs"]:
        curve = [result for result in results["curves"] if (result["codec"], result["picture"]) == (codec, "face")]
        assert curve[0]["bytes"] < curve[-1]["bytes"]
        assert curve[0]["psnr"] < curve[-1]["psnr"]


@pytest.mark.long
def test_one_of_each_codec_is_told_within_the_limit_or_at_its_smallest(results: dict[str, Any]) -> None:
    limited = results["limited"]["results"]
    assert sorted((r["picture"], r["codec"]) for r in limited) == sorted((p, c) for p in ("face", "cup") for c in results["codecs"])
    assert any(r["bytes"] <= LIMIT_BYTES for r in limited)


@pytest.mark.long
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_there_is_a_figure_of_every_score(run: Path, metric: str, suffix: str) -> None:
    assert (run / "figures" / f"{metric}{suffix}").stat().st_size > 1_000


@pytest.mark.long
@pytest.mark.parametrize("name", ["face", "cup"])
def test_there_is_a_sheet_of_every_picture(run: Path, name: str) -> None:
    with Image.open(run / "sheets" / f"{name}.png") as sheet:
        assert sheet.width == 3 * 512 + 2 * 8


@pytest.mark.long
@pytest.mark.parametrize("name", ["face", "cup"])
def test_there_is_a_sheet_of_qualities_of_every_picture(run: Path, name: str) -> None:
    with Image.open(run / "sheets" / f"{name}-scale.png") as sheet:
        assert sheet.width == 2 * 512 + 8
