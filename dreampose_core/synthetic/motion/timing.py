"""Timing of poses: eased and held key poses, with parts of the body ahead or behind."""

from __future__ import annotations

import math
import re

import torch

from .posing import HEADING, NUM_CHANNELS, STAND, WHERE, pose_vector

# Seconds by which parts follow the hips: the head leads, and the hands arrive last.
_LAGS = {"head": -0.07, "spine": 0.03, "left_arm": 0.05, "right_arm": 0.06, "left_hand": 0.12, "right_hand": 0.13}
_FADE_S = 0.5  # duration of a layer's fade in or out
_ARMS = ("left_arm", "right_arm", "left_hand", "right_hand")


def ease(x: torch.Tensor) -> torch.Tensor:
    """Ease from 0 to 1 while x runs from 0 to 1, with minimum jerk."""
    x = x.clamp(0, 1)
    return x * x * x * (10 + x * (6 * x - 15))


def sequences(table: str) -> dict[str, tuple[Sequence]]:
    """Parse a table of motions.

    Each motion has a line with its name, followed by `contact` and `turns` if they apply, then a line for each key. See
    `Sequence`.
    """
    motions = {}
    for motion in re.split(r"\n(?=[a-z])", table.strip()):
        head, *keys = filter(str.strip, motion.splitlines())
        name, *how = head.split()
        motions[name] = (Sequence(keys, "turns" in how, "contact" in how),)
    return motions


class Sequence:
    """Key poses, one after the other, repeated forever; at time 0 the first is held.

    keys: for each, the seconds to move there, the seconds to stay, and the pose, see `pose_vector`. turns: the heading
    makes a whole turn in each repetition. contact: the arms touch something (the body, each other), so the size of the
    manner does not change them.
    """

    def __init__(self, keys: list[str], turns: bool = False, contact: bool = False):
        moves, holds, poses = zip(*([*key.split(maxsplit=2), ""][:3] for key in keys))
        vectors = torch.stack([pose_vector(pose) for pose in poses]) - STAND
        moves, starts, self.period = [float(move_s) for move_s in moves[1:] + moves[:1]], [], 0.0
        for hold_s, move_s in zip(holds, moves):
            starts.append(self.period + float(hold_s))
            self.period = starts[-1] + move_s
        self._first, self._steps, self._gain = vectors[0], torch.roll(vectors, -1, 0) - vectors, 2 * math.pi * turns
        self._steps[-1, HEADING] += self._gain
        self._starts = torch.tensor(starts)[:, None]
        self._rates = torch.tensor([1 / move_s for move_s in moves])[:, None]
        self._lags, self._scaled = torch.zeros(NUM_CHANNELS), torch.ones(NUM_CHANNELS)
        for name, lag in _LAGS.items():
            self._lags[WHERE[name]] = lag
        for name in ("heading", *(_ARMS if contact else ())):  # turns do not scale with the size of the movements
            self._scaled[WHERE[name]] = 0

    def __call__(self, t: torch.Tensor, size: float) -> torch.Tensor:
        """Values (T, C) to add to standing at times (T,)."""
        delayed = torch.remainder(t[:, None] - self._lags, self.period)  # (T, C)
        done = ease((delayed[:, None] - self._starts) * self._rates)  # (T, keys, C)
        value = self._first + (done * self._steps).sum(1)
        if self._gain:
            value[:, HEADING] += self._gain * torch.floor(t / self.period)
        return value * (1 + self._scaled * (size - 1))


class Faded:
    """A layer that acts only some of the time.

    spans: (start, end) in seconds of a period between which it acts; it fades in and out around both.
    """

    def __init__(self, layer, period: float, spans: tuple[tuple[float, float], ...]):
        self._layer, self.period = layer, period
        self._edges = torch.tensor(spans).flatten() - _FADE_S / 2
        self._signs = torch.tensor([1.0, -1.0]).repeat(len(spans))

    def __call__(self, t: torch.Tensor, size: float) -> torch.Tensor:
        """Values (T, C) to add to standing at times (T,)."""
        in_period = torch.remainder(t, self.period)[:, None]
        amount = ease((in_period - self._edges) / _FADE_S) @ self._signs
        return amount[:, None] * self._layer(t, size)


class Spin:
    """A steady turn of the heading, which begins facing the camera at any phase. period_s: seconds per turn."""

    period = 0.0

    def __init__(self, period_s: float):
        self._rate = 2 * math.pi / period_s

    def __call__(self, t: torch.Tensor, size: float) -> torch.Tensor:
        """Values (T, C) to add to standing at times (T,)."""
        value = t.new_zeros(len(t), NUM_CHANNELS)
        value[:, HEADING] = self._rate * t
        return value
