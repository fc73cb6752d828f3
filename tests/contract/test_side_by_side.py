"""Work by several threads: what `map` gives, and torch left as it was."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from sdfs.codec.autoencoders.runner import BundledAutoencoder
from sdfs.codec.autoencoders.side_by_side import side_by_side
from sdfs.codec.coding import learned_coder
from sdfs.codec.coding.learned_coder import LearnedCoder
from sdfs.codec.quality.rate_distortion import worth
from sdfs.codec.quality.scores import Bound, Scores, compare, worst_place
from tests.support.threads import threads


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_are_in_the_order_of_what_was_given(count: int) -> None:
    with threads(count):
        assert side_by_side(lambda a, b: a * b, range(20), range(20)) == [n * n for n in range(20)]


def test_each_thread_has_one_of_torch_and_others_what_they_had() -> None:
    with threads(3):
        both = threading.Barrier(2, timeout=60)  # so that it takes two threads
        assert side_by_side(lambda _: (both.wait(), torch.get_num_threads())[1], range(2)) == [1, 1]
        assert torch.get_num_threads() == 3
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]


def test_what_one_raises_is_raised() -> None:
    with threads(2), pytest.raises(ZeroDivisionError):
        side_by_side(lambda n: 1 // n, [2, 1, 0, 3])


@pytest.mark.parametrize("count", [2, 4])
def test_slices_tiles_and_strips_are_the_same_in_any_number_of_threads(
    count: int, weights: dict[str, torch.Tensor], coder: LearnedCoder, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned_coder, "SLICE", 8)
    autoencoder = BundledAutoencoder(weights, "", torch.device("cpu"), torch.float32, tile=4)
    picture = np.ascontiguousarray(np.concatenate([photo[:300, :200]] * 6))

    def everything() -> tuple[bytes, int, int, np.ndarray, Scores, object]:
        data, latents = coder.encode(autoencoder.encode(picture, 60), 60, worth(picture))
        read = coder.decode(data, *latents.short.shape, 60)
        decoded = autoencoder.decode(read, 60, *picture.shape[:2])
        return data, latents.crc32(), read.crc32(), decoded, compare(picture, decoded), worst_place(picture, decoded, Bound(22, 0.5))

    wanted = everything()
    with threads(count):
        found = everything()
    np.testing.assert_array_equal(found[3], wanted[3])
    assert found[:3] == wanted[:3]
    assert found[4:] == wanted[4:]
