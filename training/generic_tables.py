"""Fit the tables of the generic prior: profiles, contexts and the entropy tables, for latents of any autoencoder.

    python -m training.generic_tables PHOTOS [--to sdfs/codec/weights/generic.safetensors]

They are fitted to latents of photos under stand-ins for autoencoders: lapped transforms of several sizes, their channels mixed at
random. Adding latents of a small AutoencoderKL made its own sections about 1 % smaller and the others' neither smaller nor larger;
without, the tables owe nothing to the model that they are measured on. Blobs depend on the tables, so that they never change.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.special import ndtr

from sdfs.codec.coding.entropy import CLASSES, PRECISION, Classes, Symbols, class_scale
from sdfs.codec.coding.generic_coder import GenericCoder
from sdfs.codec.coding.generic_prior import (
    CLASS_OFFSETS,
    LEVELS,
    PASSES,
    PROFILES,
    Activity,
    Channels,
    GenericPrior,
    Pass,
    Planes,
    Where,
    neighbours,
)
from training.data import pictures
from training.generic_samples import Latents, middle, samples

MOST_PHOTOS = 60
LEAST_POSITIONS = 64  # of a grid that profiles are fitted to
MAX_SAMPLES, MAX_SYMBOLS = 3000, 1_200_000
CLUSTER_ROUNDS, FIT_ROUNDS, FIT_STEPS = 10, 2, 150
RIDGE = 2e-3
NOISE = 1 / 12 + 0.02  # squared symbol units, under every prediction's error
WEIGHT = 256  # weights are multiples of its inverse
FIRST_CONTEXT = (0.12, 0.1, 0.05)
WIDEST, LONGEST = 8.0, 1024  # a table reaches this many scales, and no farther than this symbol
ESCAPE_MASS = 1e-6

Float = NDArray[np.floating[Any]]
Tensors = dict[str, NDArray[np.int32]]


# --- profiles: k-means on the statistics of least squares


@dataclass
class Moments:
    """Of one pass, by sample: neighbour sums with each other, with what they predict, and of that; and how many positions there were."""

    inner: Float  # (N, groups, groups)
    cross: Float  # (N, groups)
    square: Float  # (N,)
    positions: Float  # (N,)

    @classmethod
    def of(cls, grids: Sequence[Planes], one: Pass) -> Moments:
        inner, cross, square, positions = [], [], [], []
        for grid in grids:
            goals = grid[one.where(1)].reshape(len(grid), -1).astype(np.float64)
            sums = np.stack([sum(group[1:], start=group[0]) for group in neighbours(grid, one)], 1)
            sums = sums.reshape(*sums.shape[:2], -1).astype(np.float64)
            inner.append(sums @ sums.transpose(0, 2, 1) / goals.shape[1])
            cross.append((sums @ goals[:, :, None])[:, :, 0] / goals.shape[1])
            square.append((goals**2).mean(1))
            positions.append(np.full(len(grid), min(goals.shape[1], 500.0)))
        return cls(*(np.concatenate(parts) for parts in (inner, cross, square, positions)))

    def pick(self, chosen: NDArray[np.intp]) -> Moments:
        return Moments(self.inner[chosen], self.cross[chosen], self.square[chosen], self.positions[chosen])

    def alone(self) -> Float:
        """(N,): mean squared errors of each sample under taps of its own."""
        taps = np.linalg.solve(_ridged(self.inner), self.cross[:, :, None])[:, :, 0]
        return np.maximum(0.0, self.square - (taps * self.cross).sum(1)) + NOISE

    def errors(self, taps: Float) -> Float:
        """(N, K): mean squared errors of each sample under taps (K, groups)."""
        squares = np.einsum("kg,ngh,kh->nk", taps, self.inner, taps)
        return np.maximum(0.0, self.square[:, None] - 2 * self.cross @ taps.T + squares) + NOISE

    def solve(self, weights: Float) -> Float:
        """The taps (groups,) that predict best over all samples, weighted."""
        inner = np.tensordot(weights, self.inner, 1)
        return np.linalg.solve(_ridged(inner), weights @ self.cross)


def _ridged(inner: Float) -> Float:
    size = inner.shape[-1]
    return inner + (RIDGE / size * np.trace(inner, axis1=-2, axis2=-1)[..., None, None] + 1e-6) * np.eye(size)


def cluster(sets: Sequence[Latents], random: np.random.Generator) -> list[Float]:
    """The taps of each pass (PROFILES, groups): k-means, ordered from noise to smooth surfaces."""
    grids = []
    for latents in sets:
        rounded = np.rint(latents - np.rint(latents.mean((1, 2), keepdims=True))).astype(np.int32)
        grids += [rounded[:, :: 1 << level, :: 1 << level] for level in range(LEVELS)]
    grids = [grid for grid in grids if grid[0].size >= LEAST_POSITIONS]
    passes = [Moments.of(grids, one) for one in PASSES]
    chosen = random.permutation(len(passes[0].square))[:MAX_SAMPLES]
    passes = [part.pick(chosen) for part in passes]
    alone = [part.alone() for part in passes]
    labels = np.argsort(np.argsort(passes[1].square / alone[1])) * PROFILES // len(chosen)
    for _ in range(CLUSTER_ROUNDS):
        taps = []
        for part, error in zip(passes, alone, strict=True):
            weights = [np.where(labels == profile, part.positions / error, 0.0) for profile in range(PROFILES)]
            taps.append(np.array([part.solve(some if some.any() else part.positions / error) for some in weights]))
        bits = sum(part.positions[:, None] * np.log2(part.errors(some)) / 2 for part, some in zip(passes, taps, strict=True))
        labels = np.argmin(bits, 1)
        print(f"  {np.min(bits, 1).sum() / sum(part.positions.sum() for part in passes):.4f} bits a symbol and constant", flush=True)
    order = np.argsort(taps[1][:, :2].sum(1))
    return [np.rint(some[order] * WEIGHT) for some in taps]


# --- contexts and the shape of the tables: likeliest for what the coder does


@dataclass
class Shape:
    """A mixture of zero-mean Gaussians: weights, and deviations relative to the scale."""

    weights: Float
    widths: Float


@dataclass
class Observed:
    """Of each symbol: its profile and pass, as one number; magnitude; what its class is made of, in symbol units."""

    contexts: list[NDArray[np.intp]]
    magnitudes: list[Float]
    own: list[Float]
    shared: list[Float]
    offsets: list[Float]  # of the level, log2

    def tensors(self, random: np.random.Generator) -> list[torch.Tensor]:
        columns = [np.concatenate(parts) for parts in (self.contexts, self.magnitudes, self.own, self.shared, self.offsets)]
        chosen = random.permutation(len(columns[0]))[:MAX_SYMBOLS]
        return [torch.from_numpy(column[chosen]) for column in columns]


class ObservedPrior(GenericPrior):
    """Notes what the symbols of a walk were and what was known of them."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors)
        self.observed = Observed([], [], [], [], [])
        self._note: Callable[[Symbols], None] | None = None

    def classes(self, activity: Activity, level: int, number: int, profiles: Channels, shifts: Channels) -> Classes:
        def note(symbols: Symbols) -> None:
            def add(to: list[Any], values: Any) -> None:
                to.append(np.broadcast_to(values, symbols.shape).ravel())

            add(self.observed.contexts, (profiles * len(PASSES) + number).astype(np.int64)[:, None, None])
            add(self.observed.magnitudes, np.abs(symbols).astype(np.float32))
            add(self.observed.own, activity.own.astype(np.float32) / 16)
            add(self.observed.shared, activity.shared.astype(np.float32) / 16)
            add(self.observed.offsets, np.float32(CLASS_OFFSETS[level] / 4))

        self._note = note
        return super().classes(activity, level, number, profiles, shifts)

    def walk(
        self,
        planes: Planes,
        bases: Channels,
        parameters_of: Callable[[int], tuple[Channels, Channels]],
        code: Callable[[Where, Planes, Classes, int], Symbols],
    ) -> None:
        def observing(where: Where, means: Planes, classes: Classes, unit: int) -> Symbols:
            symbols = code(where, means, classes, unit)
            if self._note is not None:  # the coarsest grid has no contexts
                self._note(symbols)
            return symbols

        self._note = None
        super().walk(planes, bases, parameters_of, observing)


def observe(tensors: Tensors, sets: Sequence[Latents]) -> Observed:
    """What decoding all sets meets; prints what coding them took."""
    coder, reader = GenericCoder(tensors), GenericCoder(tensors)
    reader.prior = prior = ObservedPrior(tensors)
    size = 0
    for latents in sets:
        data, _ = coder.encode(latents, np.ones(len(latents), np.float32))
        reader.decode(data, *latents.shape)
        size += len(data)
    print(f"  {8 * size / sum(latents.size for latents in sets):.4f} bits a symbol", flush=True)
    return prior.observed


def fit(observed: Observed, shape: Shape, random: np.random.Generator) -> tuple[Float, Shape]:
    """Contexts (PROFILES, 3, 3) and the mixture, by maximum likelihood."""
    context, magnitude, own, shared, offset = observed.tensors(random)
    start = torch.tensor(FIRST_CONTEXT).log().repeat(PROFILES * len(PASSES), 1)
    logs = start.clone().requires_grad_()
    widths = torch.tensor(shape.widths, dtype=torch.float32).log().requires_grad_()
    weights = torch.tensor(shape.weights, dtype=torch.float32).log().requires_grad_()
    optimiser = torch.optim.Adam([{"params": [logs], "lr": 0.08}, {"params": [widths, weights], "lr": 0.02}])
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, FIT_STEPS * 2 // 3, 0.3)
    for _ in range(FIT_STEPS):
        constant, of_own, of_shared = logs.exp()[context].unbind(1)
        scale = ((constant + of_own * own + of_shared * shared) * torch.exp2(offset)).clamp_min(2.0**-3)[:, None] * widths.exp()
        upper, lower = (torch.special.ndtr((magnitude[:, None] + edge) / scale) for edge in (0.5, -0.5))
        likelihood = ((upper - lower).clamp_min(0) * weights.softmax(0)).sum(1)
        loss = -torch.log2(likelihood + 1e-7).mean() + 1e-4 * (logs - start).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    print(f"  fitted: {loss.item():.4f} bits a symbol", flush=True)
    contexts = logs.detach().exp().double().numpy().reshape(PROFILES, len(PASSES), 3)
    return contexts, Shape(weights.detach().softmax(0).double().numpy(), widths.detach().exp().double().numpy())


FIRST_SHAPE = Shape(np.array([0.2, 0.5, 0.25, 0.05]), np.array([0.5, 0.9, 1.5, 3.0]))


# --- tables


def entropy_tables(shape: Shape) -> Tensors:
    reach = np.zeros(CLASSES, np.int32)
    frequencies = []
    for index in range(1, CLASSES):
        reach[index] = min(int(WIDEST * class_scale(index)) + 2, LONGEST)
        symbols = np.arange(-reach[index], reach[index] + 1)[:, None]
        scales = class_scale(index) * shape.widths
        mass = (ndtr((symbols + 0.5) / scales) - ndtr((symbols - 0.5) / scales)) @ shape.weights
        frequencies.append(normalised(np.append(mass, max(ESCAPE_MASS, 1 - mass.sum()))))
    return {"entropy.reach": reach, "entropy.frequencies": np.concatenate(frequencies)}


def normalised(mass: Float) -> NDArray[np.int32]:
    """Integer frequencies that sum to 2^24, none 0; the largest takes what rounding leaves."""
    frequencies = np.maximum(1, np.rint(mass / mass.sum() * (1 << PRECISION))).astype(np.int64)
    frequencies[np.argmax(frequencies)] += (1 << PRECISION) - frequencies.sum()
    return frequencies.astype(np.int32)


def tensors_of(taps: Sequence[Float], contexts: Float, shape: Shape) -> Tensors:
    units = np.array([16 * WEIGHT, WEIGHT, WEIGHT])  # of a context
    prior = {f"prior.taps.{number}": part.astype(np.int32) for number, part in enumerate(taps)}
    return {**prior, "prior.contexts": np.rint(contexts * units).astype(np.int32).reshape(PROFILES, -1), **entropy_tables(shape)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photos, searched recursively")
    parser.add_argument("--to", type=Path, default=Path("sdfs/codec/weights/generic.safetensors"))
    options = parser.parse_args()
    random = np.random.default_rng(0)
    files = pictures(options.photos)
    photos = [middle(path) for path in files[:: max(1, len(files) // MOST_PHOTOS)][:MOST_PHOTOS]]
    sets = list(samples(photos, random))
    print(f"{len(sets)} sets of latents; profiles", flush=True)
    taps = cluster(sets, random)
    contexts, shape = np.tile(FIRST_CONTEXT, (PROFILES, len(PASSES), 1)), FIRST_SHAPE
    for number in range(FIT_ROUNDS):
        print(f"contexts, round {number + 1}", flush=True)
        contexts, shape = fit(observe(tensors_of(taps, contexts, shape), sets), shape, random)
    save_file(tensors_of(taps, contexts, shape), options.to)
    print(f"{options.to}: {options.to.stat().st_size / 1e3:.0f} kB, mixture {shape}")


if __name__ == "__main__":
    main()
