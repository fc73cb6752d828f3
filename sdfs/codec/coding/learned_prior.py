"""The learned prior of the bundled codec: how far each symbol is expected to spread, around which value, given what is decoded.

Latents are coded group by group (`autoencoders.layout`), so that a group sees all of those before it, at every position; within a group a
second pass sees the first. The means of positions are refined as a quadtree: of a grid whose corners (even rows and columns) are known,
first its centres (odd rows and columns), then what is left; the coarsest corners come first, every fourth position each way.

    passes 0-4   MEAN     corners of the corners; their centres, odd ones; centres, odd ones: from four neighbours each
    passes 5, 6  windows  even, then odd positions: from the steps between means
    passes 7-12  LOW, MIDDLE, HIGH: even positions from what is known around; odd ones from their four neighbours, too
    pass 13      CHROMA   where the quality has it

All arithmetic is exact, on any machine and in any order of summation: every number is a dyadic rational that float32 holds. Weights are
multiples of 2^-8; activations are multiples of 1/16 from 0 to 15.9375 after each layer; no layer's weights add up to more than 2^24 of
these products (`LearnedPrior.check`). The same code trains: rounding passes gradients through.

Scales are base-2 logarithms of standard deviations in symbol units, in steps of 1/16; values are multiples of 1/16 symbol unit.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfs.codec.autoencoders.layout import LEVELS, Group, interpolate
from sdfs.errors import DamagedError

FEATURES = 64
GRID = 4  # a grid's rows and columns are multiples of this
_WEIGHT_STEP = 2.0**-8
_ACTIVATION_STEP = 2.0**-4
_ACTIVATION_LIMIT = 16 - _ACTIVATION_STEP
_VALUE_STEP = 2.0**-4
_VALUE_LIMIT = 2048.0  # values are seen clamped to this
_MEAN_STEP = 2.0**-10  # of weights from values to means, which are summed in float64
_MANTISSA_BITS, _ONE_BITS = 23, 0x3F800000  # of a float32
_EXACT = 2**24  # float32 holds whole numbers up to this
_RESTRAINED = 0.8  # of it is left to weights in training
_MOST_ADDED = 512  # of what layers and tables add to each other


class Places(Enum):
    """Some positions of a grid. Corners and centres together are the even ones."""

    ALL = "all"
    CORNERS = "even rows and columns"
    CENTRES = "odd rows and columns"
    EVEN = "even row + column"
    ODD = "odd row + column"
    FAR_CORNERS = "corners of the corners"
    FAR_CENTRES = "centres of the corners"
    FAR_ODD = "odd ones of the corners"


def pick(x: Tensor, places: Places) -> Tensor:
    """Of (B, C, H, W), H and W even, some positions: (B, C, H/2, W/2) or, of a checkerboard, (B, C, H, W/2).

    The far ones, H and W multiples of 4: as these of the corners.
    """
    match places:
        case Places.ALL:
            return x
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


def scatter(whole: Tensor, places: Places, part: Tensor) -> None:
    """Inverse of `pick`: put what some positions have where it belongs in `whole` (B, C, H, W)."""
    match places:
        case Places.ALL:
            whole[:] = part
        case Places.FAR_CORNERS:
            scatter(whole[:, :, 0::2, 0::2], Places.CORNERS, part)
        case Places.FAR_CENTRES:
            scatter(whole[:, :, 0::2, 0::2], Places.CENTRES, part)
        case Places.FAR_ODD:
            scatter(whole[:, :, 0::2, 0::2], Places.ODD, part)
        case Places.CORNERS:
            whole[:, :, 0::2, 0::2] = part
        case Places.CENTRES:
            whole[:, :, 1::2, 1::2] = part
        case Places.EVEN:
            whole[:, :, 0::2, 0::2], whole[:, :, 1::2, 1::2] = part[:, :, 0::2], part[:, :, 1::2]
        case Places.ODD:
            whole[:, :, 0::2, 1::2], whole[:, :, 1::2, 0::2] = part[:, :, 0::2], part[:, :, 1::2]


def interleave(even_rows: Tensor, odd_rows: Tensor) -> Tensor:
    """Half of a checkerboard (B, C, H, W/2), as `pick` gives it, from its even and its odd rows (B, C, H/2, W/2): corners and centres."""
    return torch.stack([even_rows, odd_rows], 3).flatten(2, 3)


def merge(even: Tensor, odd: Tensor) -> Tensor:
    """Even and odd positions (B, C, H, W/2), as `pick` gives them -> (B, C, H, W)."""
    rows0 = torch.stack([even[:, :, 0::2], odd[:, :, 0::2]], 4).flatten(3, 4)
    rows1 = torch.stack([odd[:, :, 1::2], even[:, :, 1::2]], 4).flatten(3, 4)
    return torch.stack([rows0, rows1], 3).flatten(2, 3)


def neighbours(x: Tensor, outside: str = "constant") -> Tensor:
    """Up, down, left and right neighbours, stacked as channels: (B, 4C, H, W).

    `outside`: a mode of `torch.nn.functional.pad`: zeros, or with "reflect" the neighbour on the other side.
    """
    p = F.pad(x, (1, 1, 1, 1), mode=outside)
    return torch.cat([p[:, :, :-2, 1:-1], p[:, :, 2:, 1:-1], p[:, :, 1:-1, :-2], p[:, :, 1:-1, 2:]], 1)


def beside_odd(even: Tensor) -> Tensor:
    """Even positions (B, C, H, W/2) -> the four neighbours of each odd one, stacked as channels: (B, 4C, H, W/2)."""
    return pick(neighbours(merge(even, torch.zeros_like(even))), Places.ODD)


def diagonals(x: Tensor) -> Tensor:
    """Corners (B, C, h, w), as `pick` gives them -> the four around each centre (the border's are repeated), as channels: (B, 4C, h, w)."""
    p = F.pad(x, (0, 1, 0, 1), mode="replicate")
    return torch.cat([p[:, :, :-1, :-1], p[:, :, :-1, 1:], p[:, :, 1:, :-1], p[:, :, 1:, 1:]], 1)


def magnitude(y: Tensor) -> Tensor:
    """log2(1 + 2|y|), linear between powers of two: the bits of a float32 are just that, of 1 + 2|y|."""
    bits = (y.detach().abs() * 2 + 1).view(torch.int32)
    return (bits - _ONE_BITS).float() * 2.0**-_MANTISSA_BITS


def _rounded(x: Tensor, step: float) -> Tensor:
    """To the nearest multiple, halves up; gradients pass through."""
    exact = (x.detach() * (1 / step)).add_(0.5).floor_().mul_(step)
    return x + (exact - x).detach() if x.requires_grad else exact


def _activated(x: Tensor) -> Tensor:
    return _rounded(x, _ACTIVATION_STEP).clamp(0, _ACTIVATION_LIMIT)


def _seen(values: Tensor) -> Tensor:
    """Magnitudes of values as a layer gets them."""
    return _activated(magnitude(values.clamp(-_VALUE_LIMIT, _VALUE_LIMIT)))


class _Exact(nn.Conv2d):
    """A convolution whose weights and biases are multiples of _WEIGHT_STEP."""

    def __init__(self, inputs: int, outputs: int, side: int = 1, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, side, padding=side // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if weight.requires_grad:  # else they are rounded, see `LearnedPrior.check`
            weight, bias = _rounded(weight, _WEIGHT_STEP), None if bias is None else _rounded(bias, _WEIGHT_STEP)
        return F.conv2d(x, weight, bias, padding=self.padding)


class _ExactMean(nn.Conv2d):
    """A convolution from differences of values, or of values that are 0 on flat ground, to means, in float64, whose sums are exact.

    Of a larger side: from differences from the middle, so that its own weight does nothing. So flat ground is expected to stay flat.
    """

    def __init__(self, inputs: int, outputs: int, side: int = 1) -> None:
        super().__init__(inputs, outputs, side, padding=side // 2, bias=False)
        nn.init.zeros_(self.weight)

    def forward(self, values: Tensor) -> Tensor:
        seen = values.detach().clamp(-_VALUE_LIMIT, _VALUE_LIMIT).double()
        weight = _rounded(self.weight, _MEAN_STEP).double()
        if self.padding[0]:
            found = F.conv2d(F.pad(seen, (1, 1, 1, 1), mode="replicate"), weight) - F.conv2d(seen, weight.sum((2, 3), keepdim=True))
        else:
            found = F.conv2d(seen, weight)
        return _rounded(found, _VALUE_STEP).float()


class _Table(nn.Module):
    """A row of biases for each fineness."""

    def __init__(self, size: int, start: float = 0.0) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.full((LEVELS, size), start))

    def forward(self, q: Tensor) -> Tensor:
        """(B,) -> (B, size, 1, 1), multiples of _WEIGHT_STEP."""
        return _rounded(interpolate(self.levels, q), _WEIGHT_STEP)[:, :, None, None]


Step = Callable[[Group, Places, Tensor, Tensor], Tensor]
Windows = Callable[[Places, Tensor], Tensor]


class _Mean(nn.Module):
    """Means of positions that have four known neighbours."""

    def __init__(self) -> None:
        super().__init__()
        size = Group.MEAN.size
        self.linear = _ExactMean(4 * size, size)
        self.quality = _Table(32)
        self.first, self.second, self.out = _Exact(6 * size, 32), _Exact(32, 32), _Exact(32, size)

    def forward(self, around: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbours (B, 4 * 3, h, w) -> mean and log2 scale, (B, 3, h, w) each."""
        first, second, third, fourth = around.chunk(4, 1)
        middle = _rounded((first + second + third + fourth) / 4, _VALUE_STEP)
        beyond = torch.cat([first - middle, second - middle, third - middle, fourth - middle], 1)
        spread = torch.cat([beyond, first - second, third - fourth], 1)
        hidden = _activated(self.first(_seen(spread)) + self.quality(q))
        return middle + self.linear(beyond), _rounded(self.out(_activated(self.second(hidden))), _VALUE_STEP)


class _Context(nn.Module):
    """Features, with a further group seen in the 3 x 3 positions around."""

    def __init__(self, size: int, squeezed: int) -> None:
        super().__init__()
        self.keep = _Exact(FEATURES, FEATURES)
        self.squeeze, self.around = _Exact(size, squeezed), _Exact(squeezed, FEATURES, 3, bias=False)

    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        return _activated(self.keep(features) + self.around(_activated(self.squeeze(_seen(values)))))


class _Scales(nn.Module):
    """Scales of a group in two passes."""

    def __init__(self, size: int, squeezed: int) -> None:
        super().__init__()
        self.even, self.odd = _Exact(FEATURES, FEATURES), _Exact(FEATURES, FEATURES)
        self.squeeze, self.beside = _Exact(size, squeezed), _Exact(4 * squeezed, FEATURES, bias=False)
        self.out, self.quality = _Exact(FEATURES, size), _Table(size)

    def forward(self, features: Tensor, q: Tensor, even: Tensor | None) -> Tensor:
        """Features (B, FEATURES, H, W), and even positions (B, size, H, W/2) where odd ones are asked for -> (B, size, H, W/2)."""
        if even is None:
            hidden = self.even(pick(features, Places.EVEN))
        else:
            hidden = self.odd(pick(features, Places.ODD)) + self.beside(beside_odd(_activated(self.squeeze(_seen(even)))))
        return _rounded(self.out(_activated(hidden)) + self.quality(q), _VALUE_STEP)


def _bounded(what: str, reached: float, most: float) -> None:
    if not reached < most:  # nor where it is no number
        raise DamagedError(f"prior: {what} does not stay exact: want sums below {most:.0f}, have {reached:.0f}")


class LearnedPrior(nn.Module):
    """The network. It trains as it is; `exactly` gives what is the same on every machine."""

    def __init__(self) -> None:
        super().__init__()
        low, middle, high, chroma = (group.size for group in (Group.LOW, Group.MIDDLE, Group.HIGH, Group.CHROMA))
        self.corners = _Table(Group.MEAN.size, 5.0)
        self.refined = nn.ModuleList([_Mean() for _ in range(4)])
        self.quality = _Table(FEATURES)
        self.into, self.mix = _Exact(16, FEATURES), _Exact(FEATURES, FEATURES, 3)
        self.windows_even, self.windows_odd = _Exact(FEATURES, 1), _Exact(FEATURES, FEATURES)
        self.windows_beside, self.windows_out = _Exact(4, FEATURES, bias=False), _Exact(FEATURES, 1)
        self.windows_around, self.keep = _Exact(1, FEATURES, 3, bias=False), _Exact(FEATURES, FEATURES)
        self.low_mean, self.low_mean_odd = _ExactMean(Group.MEAN.size, low, 3), _ExactMean(4 * low, low)
        self.low, self.middle, self.high = _Scales(low, 32), _Scales(middle, 32), _Scales(high, 48)
        self.see_low, self.see_middle, self.see_high = _Context(low, 32), _Context(middle, 48), _Context(high, 48)
        self.chroma, self.chroma_quality = _Exact(FEATURES, chroma), _Table(chroma)

    def check(self) -> None:
        """Raises DamagedError where weights are not rounded, or sums of a layer may exceed what float32 holds exactly."""
        most = _EXACT * _WEIGHT_STEP * _ACTIVATION_STEP
        for name, value in self.exact_state().items():
            if not torch.equal(value, self.state_dict()[name]):
                raise DamagedError(f"prior: {name} is not rounded: export it again")
        for name, layer in self.named_modules():
            if isinstance(layer, _Exact):
                # no activation is negative, so no partial sum leaves what all positive or all negative weights reach
                sides = (layer.weight.clamp(min=0), (-layer.weight).clamp(min=0))
                reached = max(float(side.flatten(1).sum(1).max()) for side in sides) * _ACTIVATION_LIMIT
                reached += 0 if layer.bias is None else float(layer.bias.abs().max())
                _bounded(f"layer {name}", reached, most - _MOST_ADDED)
            elif isinstance(layer, _ExactMean):  # two of them add up to what float32 holds
                _bounded(f"layer {name}", float(layer.weight.abs().flatten(1).sum(1).max()) * 2 * _VALUE_LIMIT, _EXACT * _VALUE_STEP)
            elif isinstance(layer, _Table):
                _bounded(f"table {name}", float(layer.levels.abs().max()), _MOST_ADDED)

    @torch.no_grad()
    def restrain(self) -> None:
        """Make the weights of a row smaller where their sums come near to what is not exact any more: after each step of training."""
        most = _RESTRAINED * _EXACT * _WEIGHT_STEP * _ACTIVATION_STEP / _ACTIVATION_LIMIT
        for layer in self.modules():
            if isinstance(layer, _Exact):
                flat = layer.weight.flatten(1)
                reached = torch.maximum(flat.clamp(min=0).sum(1), (-flat).clamp(min=0).sum(1))
                layer.weight *= (most / reached.clamp(min=most))[:, None, None, None]
            elif isinstance(layer, _ExactMean):
                most_mean = _RESTRAINED * _EXACT * _VALUE_STEP / (2 * _VALUE_LIMIT)
                layer.weight *= (most_mean / layer.weight.abs().flatten(1).sum(1).clamp(min=most_mean))[:, None, None, None]

    def exact_state(self) -> dict[str, Tensor]:
        """The parameters rounded to what the passes compute with, but for tables of qualities, which are rounded once interpolated."""
        state = self.state_dict()
        for name, layer in self.named_modules():
            if isinstance(layer, _Exact | _ExactMean):
                step = _WEIGHT_STEP if isinstance(layer, _Exact) else _MEAN_STEP
                state |= {f"{name}.{kind}": _rounded(value.detach(), step) for kind, value in layer.named_parameters()}
        return state

    def means(self, step: Step, q: Tensor) -> Tensor:
        """Go through the passes of MEAN alone, with `step` and `q` as of `passes`: (B, 3, H, W)."""
        scale = _rounded(self.corners(q), _VALUE_STEP)
        means = step(Group.MEAN, Places.FAR_CORNERS, torch.zeros_like(scale), scale)
        for layers, places in ((self.refined[:2], (Places.FAR_CENTRES, Places.FAR_ODD)), (self.refined[2:], (Places.CENTRES, Places.ODD))):
            even = interleave(means, step(Group.MEAN, places[0], *layers[0](diagonals(means), q)))
            around = pick(neighbours(merge(even, torch.zeros_like(even)), "reflect"), Places.ODD)
            means = merge(even, step(Group.MEAN, places[1], *layers[1](around, q)))
        return means

    def passes(self, step: Step, windows: Windows, q: Tensor, *, last: Group) -> None:
        """Go through the passes: the one order that encoder, decoder and training share.

        `step(group, places, mean, log2_scale)` returns the values of a pass, multiples of 1/16, as `pick` gives them, and is told where
        they are expected, (B, C, h, w) each; a mean or scale of one row and column stands for all, as that of the first pass does, whose
        result tells the size of the grid. `windows(places, logit)` returns whether windows are short there, as 0 or 1; `logit` is the
        natural logarithm of the odds. q (B,): fineness. Passes of groups after `last` are left out.
        """
        means = self.means(step, q)
        if last is Group.MEAN:
            return
        features = _activated(self.mix(_activated(self.into(_seen(_differences(means))) + self.quality(q))))

        even = windows(Places.EVEN, self.windows_even(pick(features, Places.EVEN)))
        hidden = self.windows_odd(pick(features, Places.ODD)) + self.windows_beside(beside_odd(even * 2 - 1))
        short = merge(even, windows(Places.ODD, self.windows_out(_activated(hidden))))
        features = _activated(self.keep(features) + self.windows_around(short))

        mean = self.low_mean(means)
        even = step(Group.LOW, Places.EVEN, pick(mean, Places.EVEN), self.low(features, q, None))
        mean = pick(mean, Places.ODD) + self.low_mean_odd(beside_odd(even))
        low = merge(even, step(Group.LOW, Places.ODD, mean, self.low(features, q, even)))
        if last is Group.LOW:
            return
        features = self.see_low(features, low)
        features = self.see_middle(features, self._two(Group.MIDDLE, self.middle, features, q, step))
        high = self._two(Group.HIGH, self.high, features, q, step)
        if last is Group.CHROMA:
            scale = _rounded(self.chroma(self.see_high(features, high)) + self.chroma_quality(q), _VALUE_STEP)
            step(Group.CHROMA, Places.ALL, torch.zeros_like(scale), scale)

    @staticmethod
    def _two(group: Group, scales: _Scales, features: Tensor, q: Tensor, step: Step) -> Tensor:
        scale, nothing = scales(features, q, None), torch.zeros(1, 1, 1, 1)
        even = step(group, Places.EVEN, nothing, scale)
        return merge(even, step(group, Places.ODD, nothing, scales(features, q, even)))


def _differences(means: Tensor) -> Tensor:
    """How far Y is from the eight around, Cb and Cr from the four beside: (B, 3, H, W) -> (B, 16, H, W)."""
    p = F.pad(means, (1, 1, 1, 1), mode="replicate")
    height, width = means.shape[2:]

    def moved(down: int, right: int) -> Tensor:
        return p[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width] - means

    beside = [moved(*place) for place in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    diagonal = [moved(*place)[:, :1] for place in ((1, 1), (-1, -1), (1, -1), (-1, 1))]
    return torch.cat([*beside, *diagonal], 1)
