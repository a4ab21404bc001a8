"""Random draws that are the same on every device, and blending of colours."""

from __future__ import annotations

import math

import torch

from ..errors import InputError
from ..settings import MAX_SEED


class Dice:
    """Random draws from a seed."""

    def __init__(self, seed: int):
        self._generator = torch.Generator().manual_seed(seed)

    @classmethod
    def of(cls, who: int, purpose: int) -> Dice:
        """Dice for one purpose of the person with seed `who`. Raises InputError for a seed out of range."""
        if not 0 <= who <= MAX_SEED:
            raise InputError(f"The seed is {who}; it must be 0 to {MAX_SEED}.")
        return cls(who * 7919 + purpose)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=self._generator, device="cpu"))

    def around(self, middle: float, spread: float) -> float:
        return middle * (1 + spread * math.tanh(float(torch.randn((), generator=self._generator, device="cpu"))))

    def chance(self, p: float) -> bool:
        return self.uniform() < p

    def choice(self, options):
        return options[int(torch.randint(len(options), (), generator=self._generator, device="cpu"))]

    def pick(self, **weights: float) -> str:
        """One of the names, in proportion to their weights."""
        at = self.uniform(0, sum(weights.values()))
        for name, weight in weights.items():
            at -= weight
            if at < 0:
                return name
        return name


def mix(base: torch.Tensor, other: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Blend colours (..., 3) with another one, by a share (...) that is clamped to 0..1."""
    return base + (other - base) * share[..., None].clamp(0, 1)
