"""The last stage of training: the prior alone, with symbols as encoders choose them. Pictures look the same after it and take fewer bytes.

    python -m training.prior RUN/checkpoint.pt CROPS --valid HELD_OUT --out RUN3 [--minutes M]

Writes RUN3/taught.pt, which `training.export` takes. The latents of some thousand crops are computed once, each at a quality of its own;
what is learned from them, prior and hyper encoder, costs a hundredth of the rest.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sdfs.autoencoders.bundled import CHANNELS, FACTOR
from training.data import Crops
from training.objective import Codec, Symbols, emphasis, worths
from training.precision import autocast

SIDE = 384  # of a crop: wide enough that few positions lack neighbours
LOG_STEPS = 200


@dataclass(frozen=True)
class Samples:
    """What encoders make of some crops."""

    y: Tensor  # (N, 256, SIDE/16, SIDE/16) float16, latents in symbol units
    q: Tensor  # (N,)
    worths: Tensor  # (N, SIDE/16, SIDE/16), as of `sdfs.trade_off`

    @classmethod
    @torch.no_grad()
    def of(cls, codec: Codec, crops: Path, count: int, seed: int) -> Samples:
        """At `count` qualities spread evenly over the scale."""
        positions = SIDE // FACTOR
        y = torch.empty(count, CHANNELS, positions, positions, dtype=torch.float16)
        found = torch.empty(count, positions, positions)
        q = torch.linspace(0, 100, count)[torch.randperm(count, generator=torch.Generator().manual_seed(seed))]
        for i, crop in zip(range(count), Crops(crops, SIDE, seed).batches(1), strict=False):
            with autocast("cpu"):
                latents = codec.encoder(crop, q[i : i + 1])
            y[i] = (latents * torch.exp2(codec.prior.gains(q[i : i + 1]))[:, :, None, None])[0].half()
            found[i] = worths(crop, q[i : i + 1])[0]
        return cls(y, q, found)

    def bpp(self, codec: Codec, chosen: Tensor) -> Tensor:
        """(len(chosen),), differentiable."""
        y, q = self.y[chosen].float(), self.q[chosen]
        return codec.coded(y, q, Symbols.CHOSEN, codec.prices(self.worths[chosen], q))[1] / SIDE**2


def teach(codec: Codec, samples: Samples, held_out: Samples | None, seconds: float, rate: float, batch: int) -> int:
    """For so long, at a rate that falls to zero. Returns the number of steps."""
    codec.requires_grad_(False)
    taught = [*codec.hyper_encoder.parameters(), *(p for name, p in codec.prior.named_parameters() if name != "gain")]
    for parameter in taught:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(taught, lr=rate, betas=(0.9, 0.99))
    begin, step = time.monotonic(), 0
    while (left := seconds - (time.monotonic() - begin)) > 0:
        if step % LOG_STEPS == 0 and held_out is not None:
            print(f"step {step}  {left / 60:.1f} min left  held out: {_report(codec, held_out)}", flush=True)
        optimiser.param_groups[0]["lr"] = rate * left / seconds
        chosen = torch.randint(len(samples.q), (batch,))
        loss = (samples.bpp(codec, chosen) / emphasis(samples.q[chosen])).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(taught, 1.0)
        optimiser.step()
        step += 1
    if held_out is not None:
        print(f"step {step}  held out: {_report(codec, held_out)}", flush=True)
    return step


@torch.no_grad()
def _report(codec: Codec, samples: Samples) -> str:
    """Bits a pixel in each fifth of the scale."""
    fifths = samples.q.argsort().chunk(5)
    return "  ".join(f"{torch.cat([samples.bpp(codec, part) for part in fifth.split(8)]).mean():.4f}" for fifth in fifths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of the first or second stage")
    parser.add_argument("crops", type=Path, help=f"a file that training.crops wrote, of crops of at least {SIDE} pixels")
    parser.add_argument("--out", type=Path, required=True, help="taught.pt goes here")
    parser.add_argument("--valid", type=Path, help="held-out crops for evaluation, never trained on")
    parser.add_argument("--minutes", type=float, default=15.0, help="of learning, after the latents were computed")
    parser.add_argument("--samples", type=int, default=2000, help="crops whose latents are kept in memory, 300 kB each")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's learning rate at the start")
    options = parser.parse_args()
    state = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    codec = Codec().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    codec.load_state_dict(state["average"])
    samples = Samples.of(codec, options.crops, options.samples, seed=0)
    held_out = None if options.valid is None else Samples.of(codec, options.valid, max(5, options.samples // 10), seed=1)
    begin = time.monotonic()
    steps = teach(codec, samples, held_out, options.minutes * 60, options.rate, options.batch)
    seconds = state["seconds"] + time.monotonic() - begin
    options.out.mkdir(parents=True, exist_ok=True)
    torch.save({"average": codec.state_dict(), "step": state["step"] + steps, "seconds": seconds}, options.out / "taught.pt")


if __name__ == "__main__":
    main()
