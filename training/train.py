"""Train the bundled codec on a file of crops; run it again to go on where it stopped.

    python -m training.train CROPS --out DIR [--hours H] [--valid FOLDER]

Writes DIR/checkpoint.pt every few minutes, DIR/log.jsonl, and every half an hour DIR/samples/*.png (original above, q = 10, 50, 90
below) and, with --valid, an evaluation. `python -m training.export DIR` turns the checkpoint into the package's weights.

The schedule has no end built in: a warm-up, then a constant rate under an exponential moving average of the weights, which is
what is exported, so a run can be stopped and taken up at any time. `--cooldown H` lets the rate fall to zero over H hours at the
end and then stops: the last step before weights are published.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from training.data import Crops, load, pictures, to_tensor
from training.objective import Codec, Symbols, rate_distortion
from training.precision import autocast
from training.weights import codec_of

WARMUP_STEPS = 300
CLIP_NORM = 1.0
SAVE_SECONDS = 240
SHOW_SECONDS = 1800  # samples and evaluations take a minute or two of a small machine
LOG_STEPS = 100
SAMPLE_QUALITIES = (10, 50, 90)


def optimiser(codec: Codec, rate: float) -> torch.optim.Optimizer:
    """Adam. The transform's weights are tiny, the gains and the prior live on coarser scales: each group has a rate of its own."""

    def group(name: str) -> str:
        if name.endswith("kernels"):
            return "kernels"
        return "prior" if name.startswith("prior.") else "networks"

    scales = {"kernels": 0.1, "prior": 2.0, "networks": 1.0}
    groups: dict[str, list[nn.Parameter]] = {key: [] for key in scales}
    for name, parameter in codec.named_parameters():
        groups[group(name)].append(parameter)
    return torch.optim.Adam(
        [{"params": groups[key], "lr": rate * scale, "base": rate * scale} for key, scale in scales.items()], betas=(0.9, 0.99)
    )


class Run:
    """One training run: the model, its moving average, the optimiser and where they stand."""

    checkpoint = "checkpoint.pt"

    def __init__(
        self, out: Path, rate: float, device: str, symbols: Symbols = Symbols.NEAREST, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        """`weights`: where a run that has no checkpoint yet begins, as the package has them. CHOSEN symbols keep the gains as they are."""
        self.out = out
        self.device = device
        self.symbols = symbols
        self.codec = (Codec() if weights is None else codec_of(weights)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.codec.prior.gain.requires_grad_(symbols is Symbols.NEAREST)
        self.optimiser = optimiser(self.codec, rate)
        self.average = {k: v.detach().clone() for k, v in self.codec.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        out.mkdir(parents=True, exist_ok=True)
        if (out / self.checkpoint).exists():
            self.resume(torch.load(out / self.checkpoint, map_location=device, weights_only=True))
            print(f"resumed at step {self.step}, {self.seconds / 3600:.2f} h trained", flush=True)

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, but at the rates of this run."""
        self.codec.load_state_dict(state["codec"])
        rates = [(g["lr"], g["base"]) for g in self.optimiser.param_groups]
        self.optimiser.load_state_dict(state["optimiser"])
        for group, (lr, base) in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"], group["base"] = lr, base
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]

    def state(self) -> dict[str, Any]:
        return {
            "codec": self.codec.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
        }

    def save(self, name: str | None = None) -> None:
        torch.save(self.state(), self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / (name or self.checkpoint))

    def log(self, **entry: Any) -> None:
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, "hours": round(self.seconds / 3600, 4), **entry}) + "\n")

    def advance(self, pixels: Tensor, rate_factor: float) -> tuple[float, float, float]:
        """One step. Returns the loss, mean bits a pixel, and PSNR of the mean squared error."""
        q = torch.rand(len(pixels), device=self.device) * 100
        with autocast(self.device):
            loss = rate_distortion(self.codec, pixels, q, self.symbols)
        self.descend(loss.total, rate_factor * min(1.0, (self.step + 1) / WARMUP_STEPS))
        return loss.total.item(), loss.bpp.detach().mean().item(), 10 * float(torch.log10(65025 / loss.mse.detach().mean()))

    def descend(self, loss: Tensor, rate_factor: float) -> None:
        """One step of the optimiser; the average follows."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * rate_factor
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.codec.parameters(), CLIP_NORM)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        with torch.no_grad():
            decay = min(0.999, 1 - 1 / (1 + self.step / 10))
            for key, value in self.codec.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)

    def averaged(self) -> Codec:
        codec = Codec().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        codec.load_state_dict(self.average)
        return codec.eval()


@torch.no_grad()
def evaluate(codec: Codec, folder: Path, count: int = 20) -> list[dict[str, float]]:
    """Estimated bits a pixel and PSNR at several qualities, mean over the first `count` pictures, sides cut to multiples of 64."""
    rows = []
    device = next(codec.parameters()).device
    arrays = [a[: a.shape[0] // 64 * 64, : a.shape[1] // 64 * 64] for a in (load(p, 1024) for p in pictures(folder)[:count])]
    for quality in (0, 20, 40, 60, 80, 100):
        bpps, psnrs = [], []
        for array in arrays:
            pixels = to_tensor([array]).to(device)
            with autocast(device.type):
                reconstruction, bits = codec(pixels, torch.tensor([float(quality)], device=device))
            mse = (reconstruction.clamp(0, 1) - pixels).square().mean()
            bpps.append(bits.item() / pixels[0, 0].numel())
            psnrs.append(-10 * torch.log10(mse).item())
        rows.append({"q": quality, "bpp": float(np.mean(bpps)), "psnr": float(np.mean(psnrs))})
    return rows


@torch.no_grad()
def sample(codec: Codec, pixels: Tensor, path: Path) -> None:
    """A sheet: the batch above, its reconstructions below, a row a quality."""
    rows = [pixels]
    for quality in SAMPLE_QUALITIES:
        with autocast(pixels.device.type):
            rows.append(codec(pixels, torch.full((len(pixels),), float(quality), device=pixels.device))[0])
    sheet = torch.cat([torch.cat(list(row), 2) for row in rows], 1).clamp(0, 1)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).cpu().numpy()).save(path)


def show(run: Run, pixels: Tensor, valid: Path | None) -> None:
    """A sheet of what the average makes of the batch, and its scores over held-out photos."""
    codec = run.averaged()
    sample(codec, pixels, run.out / "samples" / f"{run.step:07d}.png")
    if valid is not None:
        rows = evaluate(codec, valid)
        run.log(valid=rows)
        print("  ".join(f"q{r['q']}: {r['bpp']:.3f} bpp {r['psnr']:.2f} dB" for r in rows), flush=True)


def train(
    crops: Path,
    run: Run,
    *,
    hours: float,
    cooldown: float,
    batch: int,
    size: int,
    valid: Path | None,
    max_steps: int | None,
    final: str | None = None,
) -> None:
    """For so many hours or steps, or until SIGTERM; then saved as `final`, or else as the run's checkpoint, and shown unless stopped."""
    batches = Crops(crops, size, seed=run.step).batches(batch)
    shown = next(Crops(crops, size, seed=1).batches(4)).to(run.device)
    stop = [False]
    signal.signal(signal.SIGTERM, lambda *_: stop.__setitem__(0, True))
    begin = last_save = last_show = last = time.monotonic()
    first_step = run.step
    print(f"training from step {run.step}", flush=True)
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, batches)
        while not stop[0] and (max_steps is None or run.step - first_step < max_steps):
            left = hours * 3600 - (time.monotonic() - begin)
            if left <= 0:
                break
            pixels = upcoming.result().to(run.device)
            upcoming = pool.submit(next, batches)
            loss, bpp, psnr = run.advance(pixels, min(1.0, left / (cooldown * 3600)) if cooldown else 1.0)
            now = time.monotonic()
            run.seconds += now - last
            last = now
            if run.step % LOG_STEPS == 0:
                speed = (run.step - first_step) / (now - begin)
                print(
                    f"step {run.step}  loss {loss:.3f}  {bpp:.3f} bpp  {psnr:.2f} dB  {speed:.2f} steps/s  {left / 60:.0f} min left",
                    flush=True,
                )
                run.log(loss=loss, bpp=bpp, psnr=psnr)
            if now - last_save > SAVE_SECONDS:
                run.save()
                last_save = time.monotonic()
            if now - last_show > SHOW_SECONDS:
                show(run, shown, valid)
                last_show = time.monotonic()
    run.save(final)
    if not stop[0]:
        show(run, shown, valid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path, help="a file that training.crops wrote")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, log and samples go here; resumed from where they exist")
    parser.add_argument("--valid", type=Path, help="a folder of held-out photos for evaluation, never trained on")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--cooldown", type=float, default=0.0, help="let the rate fall to zero over the last H hours; writes cooled.pt")
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="side of the crops, a multiple of 64")
    parser.add_argument("--rate", type=float, default=4e-4, help="Adam's learning rate")
    parser.add_argument("--symbols", choices=[one.name.lower() for one in Symbols], default="nearest", help="chosen: for trained codecs")
    parser.add_argument("--weights", type=Path, help="begin with these, as sdfs/weights/bundled.safetensors, and not with a bare transform")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    weights = None if options.weights is None else load_file(options.weights)
    run = Run(options.out, options.rate, options.device, Symbols[options.symbols.upper()], weights)
    train(
        options.crops,
        run,
        hours=options.hours,
        cooldown=options.cooldown,
        batch=options.batch,
        size=options.size,
        valid=options.valid,
        max_steps=options.steps,
        final="cooled.pt" if options.cooldown else None,
    )


if __name__ == "__main__":
    main()
