"""The learned prior of the bundled codec: which scale class and mean each latent symbol has, given what is decoded already.

A hyperlatent grid at 1/64 says roughly where the picture is busy; seven vectorised passes then follow. Channels are a low band (LOW
channels) and a high band. The low band is refined as a quadtree: of a grid whose corners (even rows and columns) are known, first
its centres (odd rows and columns), then what is left. The corners themselves are coded first, in the same way:

    pass 0   low band,  corners of the corners  from the hyperlatents
    pass 1   low band,  centres of the corners  + the four diagonal neighbours, two positions away each way
    pass 2   low band,  the other corners       + the four neighbours beside, above and below, two positions away
    pass 3   low band,  centres                 + the four diagonal neighbours
    pass 4   low band,  odd row + column        + the four neighbours beside, above and below
    pass 5   high band, even row + column       + the low band of the 3 x 3 neighbourhood
    pass 6   high band, odd row + column        + the high band of the four neighbours

Every number is a dyadic rational: weights are multiples of 2^-12, activations are rounded to multiples of 2^-8 and clamped to
0..128 after each layer. Sums then stay below 2^20 in magnitude and are multiples of 2^-20, so float64 holds them exactly, in any
order of summation, on any machine. `LearnedPrior` trains, in ordinary floating point; `ExactPrior` is the same network with the
rounding, built from the integers that `LearnedPrior.integers` exports.

Scales and gains are base-2 logarithms in steps of 1/16. Quality only shifts a scale (and multiplies a mean) by the channel's gain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfs.autoencoders.bundled import CHANNELS, LEVELS, QUALITIES, interpolate
from sdfs.entropy import FIRST_SCALE

HYPER = 32  # hyperlatent channels
HYPER_FACTOR = 4  # latent positions a hyperlatent position, per side
FEATURES = 32
LOW = 32  # channels of the low band
LOW_BAND, HIGH_BAND = slice(0, LOW), slice(LOW, CHANNELS)
_SQUEEZED = 16
_MEAN_SCALE = 32.0  # hyper-predicted means leave the network in units of this many latent units
_WEIGHT_STEP = 2.0**-12
_ACTIVATION_STEP = 2.0**-8
_ACTIVATION_LIMIT = 128.0
_MEAN_STEP = 2.0**-4
_LOG_STEP = 2.0**-4
_HYPER_LIMIT = 64.0  # hyperlatents are seen clamped to this
_LATENT_LIMIT = 2048.0  # quantised latents are seen clamped to this
# what is exported for all qualities, of which parameter it is interpolated, and its step
_TABLES = {"gains": ("gain", _LOG_STEP), "hyper_scales": ("hyper_scale", _LOG_STEP), "quality_bias": ("quality", _WEIGHT_STEP)}
_INTERPOLATED = {name for name, _ in _TABLES.values()}


class Places(Enum):
    """Some positions of a grid. Corners and centres together are the even ones."""

    CORNERS = "even rows and columns"
    CENTRES = "odd rows and columns"
    EVEN = "even row + column"
    ODD = "odd row + column"
    FAR_CORNERS = "corners of the corners"
    FAR_CENTRES = "centres of the corners"
    FAR_ODD = "odd ones of the corners"


_NEAR = (Places.CENTRES, Places.ODD)
_FAR = (Places.FAR_CENTRES, Places.FAR_ODD)


def pick(x: Tensor, places: Places) -> Tensor:
    """Of (B, C, H, W), H and W even, some positions: (B, C, H/2, W/2) or, of a checkerboard, (B, C, H, W/2).

    The far ones, H and W multiples of 4: as these of the corners.
    """
    match places:
        case Places.FAR_CORNERS:
            return pick(pick(x, Places.CORNERS), Places.CORNERS)
        case Places.FAR_CENTRES:
            return pick(pick(x, Places.CORNERS), Places.CENTRES)
        case Places.FAR_ODD:
            return pick(pick(x, Places.CORNERS), Places.ODD)
        case Places.CORNERS:
            return x[:, :, 0::2, 0::2]
        case Places.CENTRES:
            return x[:, :, 1::2, 1::2]
        case Places.EVEN:
            return interleave(x[:, :, 0::2, 0::2], x[:, :, 1::2, 1::2])
        case Places.ODD:
            return interleave(x[:, :, 0::2, 1::2], x[:, :, 1::2, 0::2])


def interleave(even_rows: Tensor, odd_rows: Tensor) -> Tensor:
    """Half of a checkerboard (B, C, H, W/2), as `pick` gives it, from its even and its odd rows (B, C, H/2, W/2): corners and centres."""
    return torch.stack([even_rows, odd_rows], 3).flatten(2, 3)


def merge(even: Tensor, odd: Tensor) -> Tensor:
    """Even and odd positions (B, C, H, W/2), as `pick` gives them -> (B, C, H, W)."""
    rows0 = torch.stack([even[:, :, 0::2], odd[:, :, 0::2]], 4).flatten(3, 4)
    rows1 = torch.stack([odd[:, :, 1::2], even[:, :, 1::2]], 4).flatten(3, 4)
    return torch.stack([rows0, rows1], 3).flatten(2, 3)


def neighbours(x: Tensor) -> Tensor:
    """Up, down, left and right neighbours (zero outside), stacked as channels: (B, 4C, H, W)."""
    p = F.pad(x, (1, 1, 1, 1))
    return torch.cat([p[:, :, :-2, 1:-1], p[:, :, 2:, 1:-1], p[:, :, 1:-1, :-2], p[:, :, 1:-1, 2:]], 1)


def diagonals(x: Tensor) -> Tensor:
    """Corners (B, C, h, w), as `pick` gives them -> the four around each centre (zero outside), stacked as channels: (B, 4C, h, w)."""
    p = F.pad(x, (0, 1, 0, 1))
    return torch.cat([p[:, :, :-1, :-1], p[:, :, :-1, 1:], p[:, :, 1:, :-1], p[:, :, 1:, 1:]], 1)


def magnitude(y: Tensor) -> Tensor:
    """log2(1 + 2|y|), linear between powers of two, so that it is exact in binary arithmetic."""
    mantissa, exponent = torch.frexp(y.abs() * 2 + 1)
    return exponent + 2 * mantissa - 2


Step = Callable[[slice, Places, Tensor, Tensor], Tensor]


class HyperEncoder(nn.Module):
    """Latents in symbol units to hyperlatents: encoder side only, so in ordinary floating point."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.into = nn.Conv2d(CHANNELS + LOW, width, 3, padding=1)
        self.quality = nn.Parameter(torch.zeros(LEVELS, width))
        self.down_first = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.down_second = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.out = nn.Conv2d(width, HYPER, 1)

    def forward(self, y: Tensor, q: Tensor) -> Tensor:
        """(B, 256, h, w) float32, h and w multiples of 4 -> (B, HYPER, h/4, w/4) float32."""
        dtype = self.into.weight.dtype
        x = torch.cat([magnitude(y), torch.asinh(y[:, :LOW])], 1).to(dtype)
        x = F.silu(self.into(x) + interpolate(self.quality, q).to(dtype)[:, :, None, None])
        return self.out(F.silu(self.down_second(F.silu(self.down_first(x))))).float()


class LowContext(nn.Module):
    """What the low band of a pass is predicted with where four of its neighbours are known; `LearnedPrior` computes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(4 * LOW, LOW, 1, bias=False)
        self.context = nn.Conv2d(4 * LOW, FEATURES, 1)
        self.features = nn.Conv2d(FEATURES, FEATURES, 1, bias=False)
        self.out = nn.Conv2d(FEATURES, 2 * LOW, 1)
        with torch.no_grad():
            self.linear.weight.zero_()


class LearnedPrior(nn.Module):
    """The network in floating point, as it trains. Symbol units: latents times 2^gain; a symbol is a whole number of them."""

    def __init__(self) -> None:
        super().__init__()
        self.up_first = nn.Conv2d(HYPER, 4 * FEATURES, 3, padding=1)
        self.up_second = nn.Conv2d(FEATURES, 4 * FEATURES, 1)
        self.mix = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.quality = nn.Parameter(torch.zeros(LEVELS, FEATURES))
        self.low_corners = nn.Conv2d(FEATURES, 2 * LOW, 1)
        self.low_far_centres = LowContext()
        self.low_far_odd = LowContext()
        self.low_centres = LowContext()
        self.low_odd = LowContext()
        self.squeeze_low = nn.Conv2d(LOW, _SQUEEZED, 1)
        self.high_context = nn.Conv2d(_SQUEEZED, FEATURES, 3, padding=1)
        self.high_features = nn.Conv2d(FEATURES, FEATURES, 1, bias=False)
        self.squeeze_high = nn.Conv2d(CHANNELS - LOW, _SQUEEZED, 1)
        self.high_neighbours = nn.Conv2d(4 * _SQUEEZED, FEATURES, 1, bias=False)
        self.high = nn.Conv2d(FEATURES, CHANNELS - LOW, 1)
        self.gain = nn.Parameter(torch.linspace(-7.9, -3.7, LEVELS)[:, None].repeat(1, CHANNELS))
        self.hyper_scale = nn.Parameter(torch.zeros(LEVELS, HYPER))  # log2 of the hyperlatents' standard deviations
        with torch.no_grad():
            start = torch.linspace(5.0, 2.0, CHANNELS)  # log2 of typical standard deviations of latents
            for layer in (self.low_corners, *(part.out for part in self.modules() if isinstance(part, LowContext))):
                layer.weight[:LOW].zero_()
                layer.bias.copy_(torch.cat([torch.zeros(LOW), start[:LOW]]))  # type: ignore[union-attr]
            self.high.bias.copy_(start[LOW:])  # type: ignore[union-attr]

    def _round(self, x: Tensor, step: float) -> Tensor:
        return x

    def gains(self, q: Tensor) -> Tensor:
        """(B, 256): log2 of the gain of each channel at quality q (B,)."""
        return interpolate(self.gain, q)

    def hyper_scales(self, q: Tensor) -> Tensor:
        """(B, HYPER): log2 of the standard deviations of hyperlatents at quality q (B,)."""
        return interpolate(self.hyper_scale, q)

    def _quality_bias(self, q: Tensor) -> Tensor:
        return interpolate(self.quality, q)

    def _multipliers(self, q: Tensor) -> Tensor:
        return torch.exp2(self.gains(q)[:, :LOW])

    def integers(self) -> dict[str, Tensor]:
        """What `ExactPrior` is made of: int32 multiples of the steps, and the tables over all qualities."""
        q = torch.arange(QUALITIES, dtype=torch.float32)
        tables = {table: (interpolate(getattr(self, name), q), step) for table, (name, step) in _TABLES.items()}
        multipliers = torch.exp2(torch.round(self.gains(q)[:, :LOW] / _LOG_STEP) * _LOG_STEP)
        tables["multipliers"] = (multipliers, _WEIGHT_STEP)
        layers = {k: (v, _WEIGHT_STEP) for k, v in self.state_dict().items() if k not in _INTERPOLATED}
        return {k: torch.round(v.detach().double() / step).to(torch.int32) for k, (v, step) in {**tables, **layers}.items()}

    def load_integers(self, integers: Mapping[str, Tensor]) -> None:
        """Inverse of `integers`, but for what rounding took."""
        between = interpolate(torch.eye(LEVELS), torch.arange(QUALITIES, dtype=torch.float32)).double()  # how tables were made of levels
        state = {
            name: torch.linalg.lstsq(between, integers[table].double() * step).solution.float() for table, (name, step) in _TABLES.items()
        }
        layers = {k: v.float() * _WEIGHT_STEP for k, v in integers.items() if k not in _TABLES and k != "multipliers"}
        self.load_state_dict(state | layers)

    def _magnitude(self, y: Tensor) -> Tensor:
        return self._round(magnitude(y.clamp(-_LATENT_LIMIT, _LATENT_LIMIT)), _ACTIVATION_STEP)

    def _activate(self, x: Tensor) -> Tensor:
        return self._round(x, _ACTIVATION_STEP).clamp(0, _ACTIVATION_LIMIT)

    def features(self, hyper: Tensor, q: Tensor) -> Tensor:
        """Hyperlatents (B, HYPER, h, w) -> features (B, FEATURES, 4h, 4w)."""
        x = F.pixel_shuffle(self._activate(self.up_first(hyper.clamp(-_HYPER_LIMIT, _HYPER_LIMIT))), 2)
        x = F.pixel_shuffle(self._activate(self.up_second(x)), 2)
        return self._activate(self.mix(x) + self._quality_bias(q)[:, :, None, None])

    def _refined(
        self, corners: Tensor, layers: tuple[LowContext, LowContext], places: tuple[Places, Places], features: Tensor, q: Tensor, step: Step
    ) -> Tensor:
        """The low band of a grid (B, LOW, H, W) whose corners (B, LOW, H/2, W/2) are known: its centres, then its odd positions.

        features (B, FEATURES, H, W); `places`: what `step` knows the two by.
        """
        around = diagonals(corners.clamp(-_LATENT_LIMIT, _LATENT_LIMIT))
        even = interleave(corners, step(LOW_BAND, places[0], *self._low_beside(layers[0], pick(features, Places.CENTRES), around, q)))
        known = merge(even, torch.zeros_like(even)).clamp(-_LATENT_LIMIT, _LATENT_LIMIT)
        around = pick(neighbours(known), Places.ODD)
        return merge(even, step(LOW_BAND, places[1], *self._low_beside(layers[1], pick(features, Places.ODD), around, q)))

    def _low_beside(self, layers: LowContext, features: Tensor, around: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self._activate(layers.context(self._magnitude(around)) + layers.features(features))
        mean, scale = self._low(layers.out(hidden), q)
        return self._rounded(mean + layers.linear(around), scale)

    def _low(self, out: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = self._round(out, _ACTIVATION_STEP).chunk(2, 1)
        return mean * _MEAN_SCALE * self._multipliers(q)[:, :, None, None], scale + self.gains(q)[:, :LOW, None, None]

    def _rounded(self, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Scales of class 1 at least: a symbol can then put right whatever mean, however sure of it the network is."""
        return self._round(mean, _MEAN_STEP), self._round(scale, _LOG_STEP).clamp(min=FIRST_SCALE * _LOG_STEP)

    def passes(self, features: Tensor, q: Tensor, step: Step) -> Tensor:
        """Go through the passes: the one order that encoder, decoder and training share.

        features (B, FEATURES, H, W), from `features`. `step(channels, places, mean, log2_scale)` returns the quantised latents of a pass in
        symbol units, multiples of 1/16 where they are coded, as `pick` gives them; means and scales are in these units, too.
        Returns (B, 256, H, W).
        """
        alone = self._rounded(*self._low(self.low_corners(pick(features, Places.FAR_CORNERS)), q))
        low = step(LOW_BAND, Places.FAR_CORNERS, *alone)
        far, near = (self.low_far_centres, self.low_far_odd), (self.low_centres, self.low_odd)
        low = self._refined(low, far, _FAR, pick(features, Places.CORNERS), q, step)
        low = self._refined(low, near, _NEAR, features, q, step)
        base = self.high_base(features, low)
        scale = self.high_scales(base, None, q)
        even = step(HIGH_BAND, Places.EVEN, torch.zeros_like(scale), scale)
        scale = self.high_scales(base, even, q)
        return torch.cat([low, merge(even, step(HIGH_BAND, Places.ODD, torch.zeros_like(scale), scale))], 1)

    def high_base(self, features: Tensor, low: Tensor) -> Tensor:
        """What both parities of the high band see: (B, FEATURES, H, W), before activation."""
        squeezed = self._activate(self.squeeze_low(self._magnitude(low)))
        return self.high_context(squeezed) + self.high_features(features)

    def high_scales(self, base: Tensor, even: Tensor | None, q: Tensor) -> Tensor:
        """Log2 standard deviations (means are 0) of the high band at its even positions or, where those are known, at its odd ones.

        base from `high_base`; even (B, CHANNELS - LOW, H, W/2): quantised latents, or None -> (B, CHANNELS - LOW, H, W/2).
        """
        if even is None:
            h = pick(base, Places.EVEN)
        else:
            squeezed = self._activate(self.squeeze_high(self._magnitude(even)))
            around = pick(neighbours(merge(squeezed, torch.zeros_like(squeezed))), Places.ODD)
            h = pick(base, Places.ODD) + self.high_neighbours(around)
        return self._round(self.high(self._activate(h)) + self.gains(q)[:, LOW:, None, None], _LOG_STEP)


class ExactPrior(LearnedPrior):
    """The network in exact arithmetic: float64 that only ever holds dyadic rationals; inference only."""

    def __init__(self, integers: dict[str, Tensor]) -> None:
        """`integers` as exported by `LearnedPrior.integers`, of any integer dtype."""
        super().__init__()
        self.double().requires_grad_(False)
        steps = {table: step for table, (_, step) in _TABLES.items()} | {"multipliers": _WEIGHT_STEP}
        self._tables = {name: integers[name].double() * step for name, step in steps.items()}
        layers = {name: value.double() * _WEIGHT_STEP for name, value in integers.items() if name not in steps}
        missing, unexpected = self.load_state_dict(layers, strict=False)
        if unexpected or set(missing) != _INTERPOLATED:  # those three became tables
            raise ValueError(f"prior: missing {missing}, unexpected {unexpected}")

    def _round(self, x: Tensor, step: float) -> Tensor:
        return torch.floor(x * (1 / step) + 0.5) * step

    def gains(self, q: Tensor) -> Tensor:
        return self._tables["gains"][q]

    def hyper_scales(self, q: Tensor) -> Tensor:
        return self._tables["hyper_scales"][q]

    def _quality_bias(self, q: Tensor) -> Tensor:
        return self._tables["quality_bias"][q]

    def _multipliers(self, q: Tensor) -> Tensor:
        return self._tables["multipliers"][q]

    @torch.no_grad()
    def walk(self, hyper: Tensor, q: int, step: Step) -> Tensor:
        """`passes` at one quality. hyper (1, HYPER, h, w) float64, whole numbers -> (1, 256, 4h, 4w) float64."""
        quality = torch.tensor([q])
        return self.passes(self.features(hyper, quality), quality, step)
