"""How poses follow each other: key poses eased and held with parts of the body ahead or behind, and smooth cycles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .posing import HEADING, NUM_CHANNELS, STAND, WHERE, pose_vector

# Seconds by which parts follow the hips: who looks first turns after, and the hands arrive last.
_LAGS = {"head": -0.07, "spine": 0.03, "left_arm": 0.05, "right_arm": 0.06, "left_hand": 0.12, "right_hand": 0.13}
_FIRM = ("heading",)  # a turn is as far as it is, however large the movements are
_ARMS = ("left_arm", "right_arm", "left_hand", "right_hand")


def ease(x: torch.Tensor) -> torch.Tensor:
    """0 to 1 while x runs from 0 to 1, with as little jerk as can be."""
    x = x.clamp(0, 1)
    return x * x * x * (10 + x * (6 * x - 15))


@dataclass(frozen=True)
class Key:
    """A pose, the seconds to move there and the seconds to stay."""

    move_s: float
    hold_s: float
    pose: dict[str, tuple[float, ...]]


def key(move_s: float, hold_s: float = 0.0, **pose: tuple[float, ...]) -> Key:
    """A key pose by its parts (`posing.PARTS`); those that it does not name stand at ease."""
    return Key(move_s, hold_s, pose)


class Sequence:
    """Key poses, one after the other and again from the start; at time 0 the first is held.

    turns: whole turns of the heading that are made on the way back to the first key. contact: the arms touch something
    (the body, each other), so the size of the manner leaves them alone.
    """

    def __init__(self, *keys: Key, turns: int = 0, contact: bool = False):
        arrive = keys[1:] + keys[:1]
        vectors = torch.stack([pose_vector(k.pose) for k in keys]) - STAND
        steps = torch.roll(vectors, -1, 0) - vectors
        steps[-1, HEADING] += 2 * math.pi * turns
        starts, clock = [], 0.0
        for here, there in zip(keys, arrive):
            starts.append(clock + here.hold_s)
            clock += here.hold_s + there.move_s
        self.period = clock
        self._first, self._steps, self._gain = vectors[0], steps, 2 * math.pi * turns
        self._starts = torch.tensor(starts)[:, None]
        self._rates = torch.tensor([1 / k.move_s for k in arrive])[:, None]
        self._lags, self._scaled = torch.zeros(NUM_CHANNELS), torch.ones(NUM_CHANNELS)
        for name, lag in _LAGS.items():
            self._lags[WHERE[name]] = lag
        for name in _FIRM + (_ARMS if contact else ()):
            self._scaled[WHERE[name]] = 0

    def __call__(self, t: torch.Tensor, size: float) -> torch.Tensor:
        """(T, C) what is added to standing at times (T,)."""
        own = torch.remainder(t[:, None] - self._lags, self.period)  # (T, C)
        done = ease((own[:, None] - self._starts) * self._rates)  # (T, keys, C)
        value = self._first + (done * self._steps).sum(1)
        if self._gain:
            value[:, HEADING] += self._gain * torch.floor(t / self.period)
        return value * (1 + self._scaled * (size - 1))


class Cycle:
    """A loop through evenly spaced poses, as smooth as sines.

    rows: what is added to standing, by channel (part, index): the values at even moments of one period. harmonics: how
    fine it is.
    """

    def __init__(self, period: float, rows: dict[tuple[str, int], list[float]], harmonics: int = 4):
        count = len(next(iter(rows.values())))
        table = torch.zeros(count, NUM_CHANNELS)
        for (part, index), values in rows.items():
            table[:, WHERE[part].start + index] = torch.tensor(values, dtype=torch.float32)
        waves = torch.fft.rfft(table, dim=0)[: harmonics + 1] / count
        self.period, self._orders = period, torch.arange(1, harmonics + 1) * 2 * math.pi / period
        self._mean, self._cos, self._sin = waves[0].real, 2 * waves[1:].real, -2 * waves[1:].imag

    def __call__(self, t: torch.Tensor, size: float) -> torch.Tensor:
        """(T, C) what is added to standing at times (T,)."""
        angle = t[:, None] * self._orders
        return (self._mean + angle.cos() @ self._cos + angle.sin() @ self._sin) * size


class Faded:
    """A layer that is there only some of the time.

    spans: (start, end) in seconds of a period between which it is there; it fades in and out over `fade` seconds around
    both.
    """

    def __init__(self, layer: Cycle, period: float, spans: tuple[tuple[float, float], ...], fade: float = 0.5):
        self._layer, self.period = layer, period
        self._edges, self._rate = torch.tensor(spans).flatten() - fade / 2, 1 / fade
        self._signs = torch.tensor([1.0, -1.0]).repeat(len(spans))

    def __call__(self, t: torch.Tensor, size: float) -> torch.Tensor:
        """(T, C) what is added to standing at times (T,)."""
        own = torch.remainder(t, self.period)[:, None]
        amount = ease((own - self._edges) * self._rate) @ self._signs
        return amount[:, None] * self._layer(t, size)


class Spin:
    """A steady turn of the heading, which begins facing us whatever the phase. period_s: of one turn."""

    period = 0.0

    def __init__(self, period_s: float):
        self._rate = 2 * math.pi / period_s

    def __call__(self, t: torch.Tensor, size: float) -> torch.Tensor:
        """(T, C) what is added to standing at times (T,)."""
        value = t.new_zeros(len(t), NUM_CHANNELS)
        value[:, HEADING] = self._rate * t
        return value
