"""Train the bundled codec on crops (`training.crops`); run it again to go on where it stopped.

    python -m training.train CROPS.npy --out DIR [--hours H] [--cooldown H]

Writes DIR/checkpoint.pt every few minutes and a line in DIR/log.jsonl every hundred steps. The schedule has no end built in: a
warm-up, then a constant rate under an exponential moving average of the weights, which is what `training.export` takes. `--cooldown H`
lets the rate fall to zero over the last H of the hours: the last step before weights are published.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdfs.codec.autoencoders import lapped
from training.data import Crops
from training.objective import CHROMA_EVERY, Codec, distortion

CROP = 256  # pixels, per side
WARMUP_STEPS = 100
CLIP_NORM = 1.0
SAVE_SECONDS = 180
LOG_STEPS = 100
MOST_SKIPPED = 100  # steps of one run
COMPARE_STEPS = 10  # the network's gain over the transform alone is measured in every so many


class Run:
    """One training run: the codec, its moving average, the optimiser and where they stand."""

    def __init__(self, out: Path, rate: float) -> None:
        self.out, self.rate = out, rate
        self.codec = Codec()
        groups = [{"params": self.codec.prior.parameters(), "scale": 2.0}, {"params": self.codec.restoration.parameters(), "scale": 1.0}]
        self.optimiser = torch.optim.Adam(groups, lr=rate, betas=(0.9, 0.99))
        self.average = {k: v.detach().clone() for k, v in self.codec.state_dict().items()}
        self.step, self.seconds, self.skipped = 0, 0.0, 0
        out.mkdir(parents=True, exist_ok=True)
        if (out / "checkpoint.pt").exists():
            state = torch.load(out / "checkpoint.pt", weights_only=True)
            self.codec.load_state_dict(state["codec"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]
            print(f"resumed at step {self.step}, {self.seconds / 3600:.2f} h trained", flush=True)

    def save(self) -> None:
        state: dict[str, Any] = {"codec": self.codec.state_dict(), "optimiser": self.optimiser.state_dict(), "average": self.average}
        torch.save(state | {"step": self.step, "seconds": self.seconds}, self.out / "checkpoint.new")
        (self.out / "checkpoint.new").replace(self.out / "checkpoint.pt")

    def advance(self, rgb: Tensor, q: Tensor, share: float) -> dict[str, float]:
        """One step at this share of the rate. Returns figures to log; those of the network only now and then."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * group["scale"] * share * min(1.0, (self.step + 1) / WARMUP_STEPS)
        coded = self.codec.coded(rgb, q, chroma=self.step % CHROMA_EVERY == 0)
        bpp = coded.bits / rgb[0, 0].numel()
        with torch.no_grad():
            linear = self.codec.linear(coded, q)
        restored = distortion(rgb, lapped.to_rgb(self.codec.restored(linear, coded, q)))
        loss = (bpp / bpp.detach().sqrt().clamp(min=0.1)).mean() + 0.5 * restored.total.mean()
        self.optimiser.zero_grad()
        loss.backward()
        norms = [torch.nn.utils.clip_grad_norm_(part.parameters(), CLIP_NORM) for part in (self.codec.prior, self.codec.restoration)]
        if not all(norm.isfinite() for norm in norms):  # one such step would spoil the weights, and the moving average, for good
            self.skipped += 1
            if self.skipped > MOST_SKIPPED:
                raise FloatingPointError(f"{self.skipped} steps without a finite gradient: the last checkpoint is whole")
            return {}
        self.optimiser.step()
        self.codec.prior.restrain()
        self.step += 1
        with torch.no_grad():
            for name, value in self.codec.state_dict().items():
                self.average[name].lerp_(value, 1 - min(0.999, self.step / (self.step + 20)))
        figures = {"bpp": bpp.mean().item()}
        if self.step % COMPARE_STEPS == 0:
            with torch.no_grad():
                plain = distortion(rgb, lapped.to_rgb(linear))
            for name in ("squared_error", "structure", "chroma", "ripples", "seen"):
                before, after = (getattr(measured, name) + 1e-4 for measured in (plain, restored))
                figures[name] = (10 * torch.log10(before / after)).mean().item()
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path, help="as training.crops makes them")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--cooldown", type=float, default=0.0, help="hours at the end over which the rate falls to zero")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = Run(options.out, options.rate)
    batches = Crops(options.crops, CROP, seed=run.step).batches(options.batch)
    torch.manual_seed(run.step)
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _: stopped.append(caught))
    began = saved = last = time.monotonic()
    logged: list[dict[str, float]] = []
    while not stopped and (left := options.hours * 3600 - (time.monotonic() - began)) > 0:
        share = min(1.0, left / (options.cooldown * 3600)) if options.cooldown else 1.0
        logged.append(run.advance(next(batches) * 255, torch.rand(options.batch) * 100, share))
        now = time.monotonic()
        run.seconds, last = run.seconds + now - last, now
        if logged[-1] and run.step % LOG_STEPS == 0:
            names = {name for figures in logged for name in figures}
            means = {name: round(float(np.mean([f[name] for f in logged if name in f])), 4) for name in sorted(names)}
            line = json.dumps({"step": run.step, "seconds": round(run.seconds), **means})
            print(line, flush=True)
            with (run.out / "log.jsonl").open("a") as log:
                log.write(line + "\n")
            logged = []
        if now - saved > SAVE_SECONDS:
            run.save()
            saved = now
    run.save()


if __name__ == "__main__":
    main()
