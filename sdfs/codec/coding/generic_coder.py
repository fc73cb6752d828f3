"""Latents of any autoencoder to bytes and back, through the generic prior and the entropy coder; exact on every machine.

What is coded are the latents divided by the steps of their channels and then rotated (`priors.rotation`), which leaves every channel
the error that its step allows. Steps and rotation stand at the head of the section and matter to pixels only: the integers do not
depend on them. The grid is cut into slices of up to SLICE x SLICE positions, each with its own parameters and entropy-coded by
itself, which bounds the memory of a decode. docs/FORMAT.md specifies the section.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from sdfs.codec.coding import rotation, slices
from sdfs.codec.coding.entropy import CLASSES, Classes, Decoder, Symbols, Tables, cheaper, encode, scale_class
from sdfs.codec.coding.generic_prior import BASE, LEVELS, PASSES, PROFILES, SHIFT_LIMIT, UNITS, Channels, GenericPrior, Planes, Where
from sdfs.errors import DamagedError

SLICE = 128  # latent positions, per side
LATENT_LIMIT = 2000  # symbol units; latents are clamped to this when encoding, so that they fit int16
_ALL_STEPS_EQUAL, _ROTATED = 1, 2
_STEPS_AN_OCTAVE, _FINEST_STEP = 16, -8  # a step is 2^(_FINEST_STEP + k / _STEPS_AN_OCTAVE), k a byte
_COARSEST = 20  # 1/16 octaves; quality 0 of channels of weight 1
_PARAMETER_CLASSES = (30, 18, 28, 12)  # of means, bases, profiles, shifts
_FIRST_BASE, _FIRST_PROFILE = 20, 16  # what those of the first channel are relative to
_SAMPLE = 64  # positions per side that profiles and shifts are chosen on
_SHIFTS = range(-6, 7)
_BIT = 0.1  # what a bit may cost in error, in squared symbol units

Quantised = NDArray[np.int16]  # (C, h, w), in 1/16 symbol units


def steps_for(quality: int, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The steps of each channel at quality 0...100; `weights`: how large they are relative to each other."""
    return np.asarray(weights * 2.0 ** ((_COARSEST - quality) / _STEPS_AN_OCTAVE), np.float32)


@dataclass(frozen=True)
class _Parameters:
    """What a slice says of itself before its symbols, by channel."""

    means: Channels  # symbol units
    bases: Channels  # scale class of the coarsest grid
    profiles: NDArray[np.int32]  # (LEVELS, C)
    shifts: NDArray[np.int32]  # (LEVELS, C)

    def level(self, level: int) -> tuple[Channels, Channels]:
        return self.profiles[level], self.shifts[level]

    @staticmethod
    def classes(channels: int) -> Classes:
        return np.repeat(np.array(_PARAMETER_CLASSES, np.uint8), [channels, channels, LEVELS * channels, LEVELS * channels])

    def symbols(self) -> Symbols:
        bases = np.diff(self.bases, prepend=_FIRST_BASE)
        profiles = np.diff(self.profiles, prepend=_FIRST_PROFILE)
        return np.concatenate([self.means, bases, profiles.ravel(), self.shifts.ravel()]).astype(np.int32)

    @classmethod
    def of(cls, symbols: Symbols) -> Self:
        """Inverse of `symbols`. Raises DamagedError where a parameter is out of range."""
        channels = len(symbols) // (2 + 2 * LEVELS)
        means, bases, profiles, shifts = np.split(symbols.astype(np.int64), np.cumsum([channels, channels, LEVELS * channels]))
        bases = _FIRST_BASE + np.cumsum(bases)
        profiles = _FIRST_PROFILE + np.cumsum(profiles.reshape(LEVELS, channels), 1)
        for name, values, least, most in (
            ("mean", means, -LATENT_LIMIT, LATENT_LIMIT),
            ("base", bases, 1, CLASSES - 1),
            ("profile", profiles, 0, PROFILES - 1),
            ("shift", shifts, -SHIFT_LIMIT, SHIFT_LIMIT),
        ):
            if values.min() < least or values.max() > most:
                raise DamagedError(f"latents: a {name} is not in {least}...{most}")
        return cls(*(part.astype(np.int32) for part in (means, bases, profiles, shifts.reshape(LEVELS, channels))))


class Head:
    """Steps and rotation: flags | steps | angles."""

    def __init__(self, steps: NDArray[np.uint8], angles: rotation.Angles | None) -> None:
        self._step_bytes, self._angles = steps, angles
        self.steps = np.exp2(_FINEST_STEP + steps / _STEPS_AN_OCTAVE)
        self.back = np.eye(len(steps)) if angles is None else rotation.matrix(angles, len(steps))

    @classmethod
    def fitting(cls, latents: NDArray[np.float32], steps: NDArray[np.float32]) -> Self:
        codes = np.rint((np.log2(steps) - _FINEST_STEP) * _STEPS_AN_OCTAVE).clip(0, 255).astype(np.uint8)
        return cls(codes, rotation.fitting(cls(codes, None).apply(latents)))

    def apply(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Latents to symbol units."""
        return np.tensordot((self.back.T / self.steps).astype(np.float32), latents, 1)

    def undo(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.tensordot((self.steps[:, None] * self.back).astype(np.float32), latents, 1)

    def pack(self) -> bytes:
        equal = bool((self._step_bytes == self._step_bytes[0]).all())
        flags = _ALL_STEPS_EQUAL * equal | _ROTATED * (self._angles is not None)
        angles = b"" if self._angles is None else self._angles.tobytes()
        return bytes([flags]) + self._step_bytes[: 1 if equal else None].tobytes() + angles

    @classmethod
    def parse(cls, data: bytes, channels: int) -> tuple[Self, int]:
        """The head and its length. Raises DamagedError."""
        flags = data[0] if data else 0
        steps = 1 if flags & _ALL_STEPS_EQUAL else channels
        angles = rotation.angle_count(channels) if flags & _ROTATED else 0
        if flags > _ALL_STEPS_EQUAL | _ROTATED or len(data) < 1 + steps + angles:
            raise DamagedError(f"latents: {len(data)} bytes with flags {flags} are no section of {channels} channels")
        codes = np.broadcast_to(np.frombuffer(data, np.uint8, steps, 1), channels)
        found = np.frombuffer(data, np.int8, angles, 1 + steps) if flags & _ROTATED else None
        return cls(codes, found), 1 + steps + angles


class GenericCoder:
    """Any autoencoder's way from latents to bytes."""

    def __init__(self, tensors: Mapping[str, NDArray[np.int32]] | None = None) -> None:
        """`tensors` as training/generic_tables.py makes them; without, the package's."""
        if tensors is None:
            tensors = safetensors.numpy.load(resources.files("sdfs").joinpath("codec/weights/generic.safetensors").read_bytes())
        self.prior = GenericPrior(tensors)
        self._tables = Tables(tensors["entropy.reach"], tensors["entropy.frequencies"])
        self._bits = self._tables.bits()

    def encode(self, latents: NDArray[np.float32], steps: NDArray[np.float32]) -> tuple[bytes, Quantised]:
        """(C, h, w) float32, finite, and (C,) steps of at least 2^-8 -> the section, and the latents a decoder will get."""
        head = Head.fitting(latents, steps)
        targets = np.rint(head.apply(latents).clip(-LATENT_LIMIT, LATENT_LIMIT) * 16).astype(np.int32)
        quantised = np.empty(latents.shape, np.int16)
        parts = []
        for place in slices.places(latents.shape[1], latents.shape[2], SLICE):
            data, quantised[:, *place] = self._encode_slice(targets[:, *place])
            parts.append(data)
        return head.pack() + slices.join(parts), quantised

    def decode(self, data: bytes, channels: int, rows: int, columns: int) -> Quantised:
        """Inverse of `encode`. Raises DamagedError where `data` does not hold exactly these slices."""
        parts = slices.split(data[Head.parse(data, channels)[1] :], rows, columns, SLICE)
        quantised = np.empty((channels, rows, columns), np.int16)
        for place, part in zip(slices.places(rows, columns, SLICE), parts, strict=True):
            quantised[:, *place] = self._decode_slice(part, quantised[:, *place].shape)
        return quantised

    def dequantise(self, data: bytes, quantised: Quantised) -> NDArray[np.float32]:
        """Quantised latents -> latents (C, h, w) float32. Raises DamagedError."""
        return Head.parse(data, len(quantised))[0].undo(quantised.astype(np.float32) / np.float32(16))

    def _encode_slice(self, targets: Planes) -> tuple[bytes, Quantised]:
        means = np.rint(targets.mean((1, 2)) / 16).astype(np.int32)
        targets = targets - 16 * means[:, None, None]
        planes = np.zeros_like(targets)
        parameters = _Parameters(means, _base_classes(targets), *np.empty((2, LEVELS, len(means)), np.int32))
        passes: list[tuple[Symbols, Classes]] = []

        def choose(level: int) -> tuple[Channels, Channels]:
            parameters.profiles[level], parameters.shifts[level] = self._choose(_known(targets, planes, level), level)
            return parameters.level(level)

        def code(where: Where, means: Planes, classes: Classes, unit: int) -> Symbols:
            symbols = self._quantise(targets[where] - means, classes, unit)[0]
            passes.append((symbols.ravel(), classes.ravel()))
            return symbols

        self.prior.walk(planes, parameters.bases, choose, code)
        data = encode([(parameters.symbols(), parameters.classes(len(means))), *passes], self._tables)
        return data, _to_quantised(planes, means)

    def _decode_slice(self, data: bytes, shape: tuple[int, ...]) -> Quantised:
        decoder = Decoder(data, self._tables)
        parameters = _Parameters.of(decoder.read(_Parameters.classes(shape[0])))
        planes = np.zeros(shape, np.int32)

        def code(where: Where, means: Planes, classes: Classes, unit: int) -> Symbols:
            return decoder.read(classes.ravel()).reshape(classes.shape)

        self.prior.walk(planes, parameters.bases, parameters.level, code)
        decoder.finish()
        return _to_quantised(planes, parameters.means)

    def _choose(self, grid: Planes, level: int) -> tuple[Channels, Channels]:
        """The profiles and shifts that make the passes of a level cost least."""
        channels = len(grid)
        none = np.zeros(channels, np.int32)
        costs = [self._costs(grid, level, np.full(channels, profile), none) for profile in range(PROFILES)]
        profiles = np.empty(channels, np.int32)
        previous = _FIRST_PROFILE
        for channel, cost in enumerate(np.transpose(costs)):
            previous = int(np.argmin(cost + self._bits[_PARAMETER_CLASSES[2], np.abs(np.arange(PROFILES) - previous)]))
            profiles[channel] = previous
        bits = self._bits[_PARAMETER_CLASSES[3]]
        shifted = [self._costs(grid, level, profiles, none + shift) + bits[abs(shift)] for shift in _SHIFTS]
        return profiles, np.array(_SHIFTS, np.int32)[np.argmin(shifted, 0)]

    def _costs(self, grid: Planes, level: int, profiles: Channels, shifts: Channels) -> NDArray[np.float64]:
        """What the passes of a level cost, by channel."""
        costs = np.zeros(len(grid))
        for number, one in enumerate(PASSES):
            activity = self.prior.activity(grid, number, profiles)
            classes = self.prior.classes(activity, level, number, profiles, shifts)
            costs += self._quantise(grid[one.where(1)] - activity.means, classes, UNITS[level])[1].sum((1, 2), dtype=np.float64)
        return costs

    def _quantise(self, residuals: Planes, classes: Classes, unit: int) -> tuple[Symbols, NDArray[np.float32]]:
        """Of the nearest symbols and the next ones towards 0 those that cost less in error and bits; and what they cost, in bits."""
        magnitudes = np.abs(residuals)
        nearest = (2 * magnitudes + unit) // (2 * unit)

        def error(symbols: Symbols) -> NDArray[Any]:
            errors = (magnitudes - unit * symbols).astype(np.float32) / 16
            return errors * errors / np.float32(_BIT)

        chosen, costs = cheaper(nearest, classes, self._bits, error)
        return np.sign(residuals) * chosen, costs


def _base_classes(targets: Planes) -> Channels:
    coarsest = targets[:, ::BASE, ::BASE] / 16
    return np.maximum(1, scale_class(np.log2((coarsest**2).mean((1, 2)) + 0.1) / 2)).astype(np.int32)


def _known(targets: Planes, planes: Planes, level: int) -> Planes:
    """A part of the grid of a level, its finer positions as if they were decoded without loss."""
    stride = 1 << level
    grid = targets[:, ::stride, ::stride].copy()
    grid[:, ::2, ::2] = planes[:, :: 2 * stride, :: 2 * stride]
    top, left = (max(0, side - _SAMPLE) // 4 * 2 for side in grid.shape[1:])
    return grid[:, top : top + _SAMPLE, left : left + _SAMPLE]


def _to_quantised(planes: Planes, means: Channels) -> Quantised:
    quantised: Quantised = np.clip(planes + 16 * means[:, None, None], -32768, 32767).astype(np.int16)
    return quantised
