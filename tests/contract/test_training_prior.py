"""The last stage of training: fewer bits for the same latents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training import prior
from training.objective import Codec, Symbols
from training.prior import Samples, teach


@pytest.fixture
def samples(crops: Path, monkeypatch: pytest.MonkeyPatch) -> Samples:
    monkeypatch.setattr(prior, "SIDE", 64)
    torch.manual_seed(0)
    return Samples.of(Codec(), crops, 6, seed=0)


def test_it_takes_bits_off_and_changes_nothing_else(samples: Samples) -> None:
    torch.manual_seed(0)
    codec = Codec()
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    every = torch.arange(6)
    bits = samples.bpp(codec, every).sum().item()
    assert teach(codec, samples, None, seconds=3, rate=1e-3, batch=6) > 3
    assert samples.bpp(codec, every).sum().item() < 0.99 * bits
    changed = {name for name, value in codec.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(("prior.", "hyper_encoder.")) and name != "prior.gain" for name in changed)


def test_qualities_are_spread_over_the_scale(samples: Samples) -> None:
    assert sorted(samples.q.tolist()) == pytest.approx([0, 20, 40, 60, 80, 100])


def test_prices_leave_out_what_costs_more_than_it_brings(samples: Samples) -> None:
    torch.manual_seed(0)
    codec = Codec()
    y = samples.y.float()
    free, dear = (codec.coded(y, samples.q, Symbols.CHOSEN, torch.full_like(y, price))[0] for price in (0.01, 1e6))
    assert free.count_nonzero() < dear.count_nonzero()
    nearest = codec.coded(y, samples.q, Symbols.CHOSEN, None)[0]
    assert (dear != nearest).float().mean() < 0.001  # ties
