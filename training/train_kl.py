"""Train a small AutoencoderKL of Stable Diffusion 1.x's geometry on a file of crops; run it again to go on where it stopped.

    python -m training.train_kl CROPS --out DIR [--hours H] [--valid HELD_OUT]

Writes DIR/checkpoint.pt and DIR/model, a folder that diffusers loads, every few minutes. H is the length of the whole run, however
often it is stopped: the rate falls to zero over it. What DIR/model holds is a moving average of the weights; its scaling factor is
1 / the standard deviation of its latents. The end prints what its latents look like.

Where other programs want the processor too, OMP_NUM_THREADS=1 is several times as fast as threads that wait for each other.
"""

from __future__ import annotations

import argparse
import copy
import math
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn.functional import l1_loss

from training.data import Crops
from training.precision import autocast
from training.train import CLIP_NORM, LOG_STEPS, SAVE_SECONDS, WARMUP_STEPS

SIDE = 128  # of the crops
EARLY_SIDE, EARLY = 64, 0.75  # so much of the time sees corners of them: four times the steps
LONGEST_STEP = 60.0  # seconds; what takes longer was a pause of the process or the machine, which the schedule must not count
PROBES = 32  # crops that the scaling factor and the statistics are measured on
KL_WEIGHT = 1e-6  # on sums over a picture, as in latent diffusion
CORRELATION_WEIGHT = 0.05  # so short a training else ends with luma in every channel


def small_autoencoder() -> AutoencoderKL:
    """SD 1.x's layout (factor 8, 4 channels, attention in the middle, quant convolutions), with fewer channels, layers and norm groups."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
    )


class Run:
    """One training run: the model, its moving average, the optimiser and where they stand."""

    def __init__(self, out: Path, rate: float, device: str) -> None:
        self.out = out
        self.device = device
        self.stopped = False
        self.model = small_autoencoder().to(device)  # type: ignore[arg-type]
        self.average = copy.deepcopy(self.model)
        self.rate = rate
        self.optimiser = torch.optim.Adam(self.model.parameters(), rate, betas=(0.9, 0.99))
        self.step, self.seconds = 0, 0.0
        out.mkdir(parents=True, exist_ok=True)
        if (out / "checkpoint.pt").exists():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.out / "checkpoint.pt", map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        print(f"resumed at step {self.step}, {self.seconds / 3600:.2f} h trained", flush=True)

    def save(self, probes: Tensor) -> None:
        """The checkpoint, and the averaged model with the scaling factor that its latents of `probes` ask for."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")
        model = self.average
        model.register_to_config(scaling_factor=1 / latents_of(model, probes).std().item())
        model.save_pretrained(self.out / "model", safe_serialization=True)

    def advance(self, pixels: Tensor, progress: float) -> float:
        """One step on pixels (B, 3, H, W) in [0, 1] at `progress` 0…1 of the schedule. Returns the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * min(1.0, (self.step + 1) / WARMUP_STEPS) * (1 + math.cos(math.pi * progress)) / 2
        target = (pixels * 2 - 1).contiguous()  # these channels are too few for channels-last to pay
        with autocast(self.device):
            posterior = self.model.encode(target).latent_dist
            reconstruction = self.model.decode(posterior.sample()).sample
        loss = (
            l1_loss(reconstruction.float(), target)
            + KL_WEIGHT * posterior.kl().float().sum() / target.numel()
            + CORRELATION_WEIGHT * correlation_between_channels(posterior.mean.float())
        )
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        decay = min(0.999, 1 - 1 / (1 + self.step / 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        return loss.item()


def correlation_between_channels(latents: Tensor) -> Tensor:
    """Mean square, over all pairs of channels; a scalar 0…1."""
    correlations = torch.corrcoef(latents.transpose(0, 1).flatten(1))
    count = len(correlations)
    return (correlations.square().sum() - count) / (count * (count - 1))


@torch.no_grad()
def latents_of(model: AutoencoderKL, pixels: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> the posteriors' means, (N, 4, H/8, W/8) float32."""
    with autocast(pixels.device.type):
        return torch.cat([model.encode(part * 2 - 1).latent_dist.mode().float() for part in pixels.split(8)])


@torch.no_grad()
def psnr(model: AutoencoderKL, pixels: Tensor) -> float:
    """Mean over the pictures, in dB, of what the unquantised means decode to."""
    latents = latents_of(model, pixels)
    with autocast(pixels.device.type):
        decoded = torch.cat([model.decode(part).sample.float() for part in latents.split(8)])
    errors = ((decoded / 2 + 0.5).clamp(0, 1) - pixels).square().flatten(1).mean(1)
    return float((-10 * torch.log10(errors)).mean())


@dataclass
class Statistics:
    """Of latents, by channel."""

    mean: list[float]
    std: list[float]
    neighbours: list[float]  # correlation with the next latent, mean of to the right and below
    channels: list[list[float]]  # correlation with the other channels at the same place


def statistics(latents: Tensor) -> Statistics:
    planes = latents.transpose(0, 1)

    def correlation(a: Tensor, b: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])

    return Statistics(
        mean=planes.flatten(1).mean(1).tolist(),
        std=planes.flatten(1).std(1).tolist(),
        neighbours=[(correlation(p[..., 1:], p[..., :-1]) + correlation(p[..., 1:, :], p[..., :-1, :])) / 2 for p in planes],
        channels=torch.corrcoef(planes.flatten(1)).tolist(),
    )


def train(crops: Path, run: Run, *, hours: float, batch: int, valid: Path | None, max_steps: int | None) -> None:
    """Until the run has trained `hours`, `max_steps` more are done or `run.stopped`; saved then, and every few minutes."""
    probes = next(Crops(crops, SIDE, seed=1).batches(PROBES)).to(run.device)
    held_out = None if valid is None else next(Crops(valid, SIDE, seed=1).batches(PROBES)).to(run.device)
    batches = Crops(crops, SIDE, seed=run.step).batches(batch)
    print(f"training from step {run.step}", flush=True)
    losses: list[float] = []
    first_step = run.step
    last_save = last_log = last = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, batches)
        while not run.stopped and run.seconds < hours * 3600 and (max_steps is None or run.step - first_step < max_steps):
            progress = run.seconds / (hours * 3600)
            side = EARLY_SIDE if progress < EARLY else SIDE
            pixels = upcoming.result()[..., :side, :side].to(run.device)
            upcoming = pool.submit(next, batches)
            losses.append(run.advance(pixels, progress))
            now = time.monotonic()
            run.seconds += min(now - last, LONGEST_STEP)
            last = now
            if run.step % LOG_STEPS == 0:
                mean, speed = sum(losses) / len(losses), len(losses) / (now - last_log)
                left = hours * 60 - run.seconds / 60
                print(f"step {run.step}  {side} px  loss {mean:.4f}  {speed:.2f} steps/s  {left:.0f} min left", flush=True)
                losses.clear()
                last_log = now
            if now - last_save > SAVE_SECONDS:
                run.save(probes)
                if held_out is not None:
                    print(f"held out: {psnr(run.average, held_out):.2f} dB", flush=True)
                last_save = time.monotonic()
    run.save(probes)
    report(run.average, probes, held_out)


def report(model: AutoencoderKL, probes: Tensor, held_out: Tensor | None) -> None:
    if held_out is not None:
        print(f"held out: {psnr(model, held_out):.2f} dB")
    print(f"scaling factor {model.config['scaling_factor']:.5f}\nchannel     mean      std  neighbours  channels")
    found = statistics(latents_of(model, probes))
    for channel, row in enumerate(zip(found.mean, found.std, found.neighbours, found.channels, strict=True)):
        mean, std, neighbours, channels = row
        print(f"{channel:7} {mean:8.3f} {std:8.3f} {neighbours:11.3f}  {' '.join(f'{c:6.3f}' for c in channels)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path, help="a file that training.crops wrote")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint and the model go here; resumed from where they exist")
    parser.add_argument("--valid", type=Path, help="held-out crops for evaluation, never trained on")
    parser.add_argument("--hours", type=float, default=1.0, help="the length of the whole run")
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's learning rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    run = Run(options.out, options.rate, options.device)
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stopped", True))
    train(options.crops, run, hours=options.hours, batch=options.batch, valid=options.valid, max_steps=options.steps)


if __name__ == "__main__":
    main()
