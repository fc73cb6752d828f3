"""The learned prior of the bundled codec: how far each symbol is expected to spread, around which value, given what is decoded.

Latents are coded group by group (`autoencoders.layout`), so that a group sees all of those before it, at every position; within a group a
second pass sees the first. The means of positions are refined as a quadtree: of a grid whose corners (even rows and columns) are known,
first its centres (odd rows and columns), then what is left; the coarsest corners come first, every fourth position each way.

    passes 0-4   MEAN     corners of the corners; their centres, odd ones; centres, odd ones: from four neighbours each
    passes 5, 6  windows  even, then odd positions: from the steps between means
    passes 7-12  LOW, MIDDLE, HIGH: even positions from what is known around; odd ones from their four neighbours, too
    pass 13      CHROMA   where the quality has it

All arithmetic is exact, on any machine and in any order of summation: every number is a dyadic rational that float32 holds. Weights are
multiples of 2^-8; activations are multiples of 1/16 from 0 to 15.9375 after each layer, and counted in these; no layer's weights add up
to more than 2^24 of these products (`LearnedPrior.check`). The same code trains: rounding passes gradients through.

Scales are base-2 logarithms of standard deviations in symbol units; values are multiples of 1/16 symbol unit. Within this module tensors
are (B, H, W, C), which products of matrices want; others are given and give (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfs.codec.autoencoders.layout import LEVELS, Group, interpolate
from sdfs.errors import DamagedError

FEATURES = 64
GRID = 4  # a grid's rows and columns are multiples of this
_WEIGHT_STEP = 2.0**-8
_ACTIVATION_BITS = 4  # of fractions
_ACTIVATION_STEP = 2.0**-_ACTIVATION_BITS
_ACTIVATION_LIMIT = 255  # steps
_VALUE_STEP = 2.0**-4
_VALUE_LIMIT = 2048.0  # values are seen clamped to this
_MEAN_STEP = 2.0**-10  # of weights from values to means, which are summed in float64
_MANTISSA_BITS, _ONE_BITS = 23, 0x3F800000  # of a float32
_HALF_BITS = 1 << (_MANTISSA_BITS - _ACTIVATION_BITS - 1)  # half a step of an activation
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
    return _first(_picked(_last(x), places))


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


def _last(x: Tensor) -> Tensor:
    """Channels first -> channels last."""
    return x.permute(0, 2, 3, 1)


def _first(x: Tensor) -> Tensor:
    """Inverse of `_last`."""
    return x.permute(0, 3, 1, 2)


def _picked(x: Tensor, places: Places) -> Tensor:
    """As `pick`, channels last."""
    match places:
        case Places.ALL:
            return x
        case Places.FAR_CORNERS:
            return _picked(_picked(x, Places.CORNERS), Places.CORNERS)
        case Places.FAR_CENTRES:
            return _picked(_picked(x, Places.CORNERS), Places.CENTRES)
        case Places.FAR_ODD:
            return _picked(_picked(x, Places.CORNERS), Places.ODD)
        case Places.CORNERS:
            return x[:, 0::2, 0::2]
        case Places.CENTRES:
            return x[:, 1::2, 1::2]
        case Places.EVEN:
            return _interleaved(x[:, 0::2, 0::2], x[:, 1::2, 1::2])
        case Places.ODD:
            return _interleaved(x[:, 0::2, 1::2], x[:, 1::2, 0::2])


def _interleaved(even_rows: Tensor, odd_rows: Tensor) -> Tensor:
    """Half of a checkerboard (B, H, W/2, C), as `pick` gives it, from its even and its odd rows (B, H/2, W/2, C): corners and centres."""
    return torch.stack([even_rows, odd_rows], 2).flatten(1, 2)


def _merged(even: Tensor, odd: Tensor) -> Tensor:
    """Even and odd positions (B, H, W/2, C), as `pick` gives them -> (B, H, W, C)."""
    batch, height, half, channels = even.shape
    whole = even.new_empty(batch, height, 2 * half, channels)
    for half_of, places in ((even, Places.EVEN), (odd, Places.ODD)):
        scatter(_first(whole), places, _first(half_of))
    return whole


def _ring(even: Tensor, *, reflected: bool) -> Tensor:
    """Half of a checkerboard with what lies beyond its border: zeros, or, reflected, what lies on the other side of an odd position."""
    if not reflected:
        return F.pad(even, (0, 0, 1, 1, 1, 1))
    rows = torch.cat([even[:, 1:2], even, even[:, -2:-1]], 1)
    return torch.cat([rows[:, :, :1], rows, rows[:, :, -1:]], 2)


def _beside_odd(even: Tensor, *, reflected: bool = False) -> Tensor:
    """Even positions (B, H, W/2, C) -> the upper, lower, left and right neighbour of each odd one, as channels: (B, H, W/2, 4C)."""
    ring, channels = _ring(even, reflected=reflected), even.shape[3]
    beside = even.new_empty(*even.shape[:3], 4, channels)
    beside[:, :, :, 0], beside[:, :, :, 1] = ring[:, :-2, 1:-1], ring[:, 2:, 1:-1]
    # in even rows an even position is to the left of the odd one of its number, in odd rows to the right
    beside[:, 0::2, :, 2], beside[:, 1::2, :, 2] = ring[:, 1:-1:2, 1:-1], ring[:, 2:-1:2, :-2]
    beside[:, 0::2, :, 3], beside[:, 1::2, :, 3] = ring[:, 1:-1:2, 2:], ring[:, 2:-1:2, 1:-1]
    return beside.flatten(3)


def _diagonals(x: Tensor) -> Tensor:
    """Corners (B, h, w, C), as `pick` gives them -> the four around each centre (the border's are repeated), as channels: (B, h, w, 4C)."""
    rows = torch.cat([x, x[:, -1:]], 1)
    p = torch.cat([rows, rows[:, :, -1:]], 2)
    return torch.cat([p[:, :-1, :-1], p[:, :-1, 1:], p[:, 1:, :-1], p[:, 1:, 1:]], 3)


def _moved(x: Tensor, steps: Sequence[tuple[int, int]]) -> list[Tensor]:
    """What lies so far down and to the right of each position, one step at most; beyond the border what is nearest to it."""
    p = _last(F.pad(_first(x), (1, 1, 1, 1), mode="replicate"))
    height, width = x.shape[1:3]
    return [p[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] for down, right in steps]


def _rounded(x: Tensor, step: float) -> Tensor:
    """To the nearest multiple, halves up; gradients pass through."""
    exact = (x.detach() * (1 / step)).add_(0.5).floor_().mul_(step)
    return x + (exact - x).detach() if x.requires_grad else exact


def _activated(x: Tensor) -> Tensor:
    """Rounded, from 0 to _ACTIVATION_LIMIT. Works in place where nothing trains."""
    if x.requires_grad:
        return _rounded(x, 1.0).clamp(0, _ACTIVATION_LIMIT)
    return x.add_(0.5).floor_().clamp_(0, _ACTIVATION_LIMIT)


def _seen(values: Tensor) -> Tensor:
    """Magnitudes of values as a layer gets them: log2(1 + 2|y|), linear between powers of two, rounded.

    The bits of a float32 are just that, of 1 + 2|y|.
    """
    bits = values.detach().abs().clamp_(max=_VALUE_LIMIT).mul_(2).add_(1).view(torch.int32)
    return bits.sub_(_ONE_BITS - _HALF_BITS).bitwise_right_shift_(_MANTISSA_BITS - _ACTIVATION_BITS).float()


def _any(x: Tensor) -> Tensor:
    """Where positions (B, H, W, C) have anything but zeros: (B, H, W) bool."""
    bits = x.contiguous().numpy().view(np.int64 if x.shape[3] % 2 == 0 else np.int32)
    return torch.from_numpy(np.bitwise_or.reduce(bits, axis=3) != 0)  # four times as fast as any() of floats


class _Exact(nn.Conv2d):
    """A convolution whose weights and biases are multiples of _WEIGHT_STEP, between activations."""

    def __init__(self, inputs: int, outputs: int, side: int = 1, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, side, padding=side // 2, bias=bias)

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        """`more` (B, outputs) is added."""
        weight, bias = self.weight, self.bias
        if weight.requires_grad:  # else they are rounded, see `LearnedPrior.check`
            weight, bias = _rounded(weight, _WEIGHT_STEP), None if bias is None else _rounded(bias, _WEIGHT_STEP)
        if more is not None:
            bias = more if bias is None else more + bias
        scaled = None if bias is None else bias * (1 / _ACTIVATION_STEP)
        given = scaled if scaled is None or scaled.ndim == 1 else scaled[0] if len(scaled) == 1 else None
        if self.padding[0]:
            found = _last(F.conv2d(_first(x), weight, given, padding=self.padding))
        else:
            found = F.linear(x, weight.flatten(1), given)
        return found if scaled is None or given is not None else found + scaled[:, None, None]

    def activated(self, x: Tensor) -> Tensor:
        """What comes out of magnitudes of values (B, H, W, inputs), of which most positions may have none but zeros."""
        here = None if self.weight.requires_grad else _any(x)
        if here is None or 2 * int(here.count_nonzero()) > here.numel():
            return _activated(self(_seen(x)))
        found = _activated(self(x.new_zeros(1, 1, 1, x.shape[3]))).repeat(*x.shape[:3], 1)
        found[here] = _activated(self(_seen(x[here])))
        return found


class _ExactMean(nn.Conv2d):
    """A convolution from differences of values, or of values that are 0 on flat ground, to means, in float64, whose sums are exact.

    Of a larger side: from differences from the middle, so that its own weight does nothing. So flat ground is expected to stay flat.
    """

    def __init__(self, inputs: int, outputs: int, side: int = 1) -> None:
        super().__init__(inputs, outputs, side, padding=side // 2, bias=False)
        nn.init.zeros_(self.weight)

    def forward(self, values: Tensor) -> Tensor:
        seen = values.detach().clamp(-_VALUE_LIMIT, _VALUE_LIMIT)
        if self.padding[0]:
            around = _moved(seen, [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)])
            seen = torch.stack(around, 3).sub_(seen[:, :, :, None]).flatten(3)
        weight = _last(self.weight).flatten(1)
        if weight.requires_grad:  # else it is rounded, as those of _Exact
            weight = _rounded(weight, _MEAN_STEP)
        return _rounded(F.linear(seen.double(), weight.double()), _VALUE_STEP).float()


class _Table(nn.Module):
    """A row of biases for each fineness."""

    def __init__(self, size: int, start: float = 0.0) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.full((LEVELS, size), start))

    def forward(self, q: Tensor) -> Tensor:
        """(B,) -> (B, size), multiples of _WEIGHT_STEP."""
        return _rounded(interpolate(self.levels, q), _WEIGHT_STEP)


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
        """Neighbours (B, h, w, 4 * 3) -> mean and log2 scale, (B, h, w, 3) each."""
        four = around.unflatten(3, (4, -1))
        middle = _rounded(four.sum(3) * 0.25, _VALUE_STEP)
        beyond = four - middle[:, :, :, None]
        spread = torch.cat([beyond, four[:, :, :, 0::2] - four[:, :, :, 1::2]], 3).flatten(3)
        hidden = _activated(self.first(_seen(spread), self.quality(q)))
        scale = self.out(_activated(self.second(hidden))) * _ACTIVATION_STEP
        return middle + self.linear(beyond.flatten(3)), scale


class _Context(nn.Module):
    """Features, with a further group seen in the 3 x 3 positions around."""

    def __init__(self, size: int, squeezed: int) -> None:
        super().__init__()
        self.keep = _Exact(FEATURES, FEATURES)
        self.squeeze, self.around = _Exact(size, squeezed), _Exact(squeezed, FEATURES, 3, bias=False)

    def forward(self, features: Tensor, even: Tensor, odd: Tensor) -> Tensor:
        squeezed = _merged(self.squeeze.activated(even), self.squeeze.activated(odd))
        return _activated(self.keep(features) + self.around(squeezed))


class _Scales(nn.Module):
    """Scales of a group in two passes."""

    def __init__(self, size: int, squeezed: int) -> None:
        super().__init__()
        self.even, self.odd = _Exact(FEATURES, FEATURES), _Exact(FEATURES, FEATURES)
        self.squeeze, self.beside = _Exact(size, squeezed), _Exact(4 * squeezed, FEATURES, bias=False)
        self.out, self.quality = _Exact(FEATURES, size), _Table(size)

    def forward(self, features: Tensor, q: Tensor, even: Tensor | None) -> Tensor:
        """Features (B, H, W, FEATURES), and even positions (B, H, W/2, size) where odd ones are asked for -> (B, H, W/2, size)."""
        if even is None:
            hidden = self.even(_picked(features, Places.EVEN))
        else:
            hidden = self.odd(_picked(features, Places.ODD)) + self.beside(_beside_odd(self.squeeze.activated(even)))
        return self.out(_activated(hidden), self.quality(q)).mul_(_ACTIVATION_STEP)


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
                reached = max(float(side.flatten(1).sum(1).max()) for side in sides) * _ACTIVATION_LIMIT * _ACTIVATION_STEP
                reached += 0 if layer.bias is None else float(layer.bias.abs().max())
                _bounded(f"layer {name}", reached, most - _MOST_ADDED)
            elif isinstance(layer, _ExactMean):  # two of them add up to what float32 holds
                _bounded(f"layer {name}", float(layer.weight.abs().flatten(1).sum(1).max()) * 2 * _VALUE_LIMIT, _EXACT * _VALUE_STEP)
            elif isinstance(layer, _Table):
                _bounded(f"table {name}", float(layer.levels.abs().max()), _MOST_ADDED)

    @torch.no_grad()
    def restrain(self) -> None:
        """Make the weights of a row smaller where their sums come near to what is not exact any more: after each step of training."""
        most = _RESTRAINED * _EXACT * _WEIGHT_STEP / _ACTIVATION_LIMIT
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
        """Go through the passes of MEAN alone, with `step` and `q` as of `passes`: (B, H, W, 3)."""
        scale = self.corners(q)[:, None, None]
        means = _stepped(step, Group.MEAN, Places.FAR_CORNERS, torch.zeros_like(scale), scale)
        for layers, places in ((self.refined[:2], (Places.FAR_CENTRES, Places.FAR_ODD)), (self.refined[2:], (Places.CENTRES, Places.ODD))):
            even = _interleaved(means, _stepped(step, Group.MEAN, places[0], *layers[0](_diagonals(means), q)))
            odd = _stepped(step, Group.MEAN, places[1], *layers[1](_beside_odd(even, reflected=True), q))
            means = _merged(even, odd)
        return means

    def passes(self, step: Step, windows: Windows, q: Tensor, *, last: Group) -> None:
        """Go through the passes: the one order that encoder, decoder and training share.

        `step(group, places, mean, log2_scale)` returns the values of a pass, multiples of 1/16, as `pick` gives them, and is told where
        they are expected, (B, C, h, w) each; the scale, which is not rounded yet; a mean or scale of one row and column stands for all, as
        that of the first pass does, whose result tells the size of the grid. `windows(places, logit)` returns whether windows are short
        there, as 0 or 1; `logit` is the natural logarithm of the odds. q (B,): fineness. Passes of groups after `last` are left out.
        """
        means = self.means(step, q)
        if last is Group.MEAN:
            return
        features = _activated(self.mix(_activated(self.into(_seen(_differences(means)), self.quality(q)))))
        features = self._seen_windows(features, windows)

        mean = self.low_mean(means)
        even = _stepped(step, Group.LOW, Places.EVEN, _picked(mean, Places.EVEN), self.low(features, q, None))
        mean = _picked(mean, Places.ODD) + self.low_mean_odd(_beside_odd(even))
        odd = _stepped(step, Group.LOW, Places.ODD, mean, self.low(features, q, even))
        if last is Group.LOW:
            return
        features = self.see_low(features, even, odd)
        features = self.see_middle(features, *self._two(Group.MIDDLE, self.middle, features, q, step))
        even, odd = self._two(Group.HIGH, self.high, features, q, step)
        if last is Group.CHROMA:
            scale = self.chroma(self.see_high(features, even, odd), self.chroma_quality(q)) * _ACTIVATION_STEP
            _stepped(step, Group.CHROMA, Places.ALL, torch.zeros(1, 1, 1, 1), scale)

    def _seen_windows(self, features: Tensor, windows: Windows) -> Tensor:
        """Go through the passes of windows: features that know them."""

        def flags(places: Places, logit: Tensor) -> Tensor:
            return _last(windows(places, _first(logit * _ACTIVATION_STEP))) * (1 / _ACTIVATION_STEP)

        even = flags(Places.EVEN, self.windows_even(_picked(features, Places.EVEN)))
        hidden = self.windows_odd(_picked(features, Places.ODD)) + self.windows_beside(_beside_odd(even * 2 - 1 / _ACTIVATION_STEP))
        short = _merged(even, flags(Places.ODD, self.windows_out(_activated(hidden))))
        return _activated(self.keep(features) + self.windows_around(short))

    @staticmethod
    def _two(group: Group, scales: _Scales, features: Tensor, q: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Even and odd positions."""
        nothing = torch.zeros(1, 1, 1, 1)
        even = _stepped(step, group, Places.EVEN, nothing, scales(features, q, None))
        return even, _stepped(step, group, Places.ODD, nothing, scales(features, q, even))


def _stepped(step: Step, group: Group, places: Places, mean: Tensor, log2_scale: Tensor) -> Tensor:
    return _last(step(group, places, _first(mean), _first(log2_scale)))


def _differences(means: Tensor) -> Tensor:
    """How far Y is from the eight around, Cb and Cr from the four beside: (B, H, W, 3) -> (B, H, W, 16)."""
    beside = torch.stack(_moved(means, [(0, 1), (0, -1), (1, 0), (-1, 0)]), 3)
    diagonal = torch.cat(_moved(means[..., :1], [(1, 1), (-1, -1), (1, -1), (-1, 1)]), 3)
    return torch.cat([(beside - means[:, :, :, None]).flatten(3), diagonal - means[..., :1]], 3)
