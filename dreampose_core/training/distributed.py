"""The processes that train together: one, or as many as `accelerate launch` or `torchrun` started, each with its share
of every batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import PartialState
from accelerate.utils import reduce


def processes() -> PartialState:
    """Return the `num_processes` that train together, and this one's `process_index`, its rank, and `device`."""
    return PartialState(cpu=not torch.cuda.is_available())


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Set every gradient to its mean over the processes."""
    if processes().num_processes > 1:
        for gradient in (parameter.grad for parameter in parameters if parameter.grad is not None):
            gradient.copy_(reduce(gradient, "mean"))


def mean(value: torch.Tensor) -> float:
    """Return the mean of a number over the processes."""
    return float(reduce(value.detach(), "mean"))


def in_any(here: bool) -> bool:
    """Whether `here` is true in any process, so that all of them stop at the same step."""
    state = processes()
    return here if state.num_processes == 1 else mean(torch.tensor(float(here), device=state.device)) > 0


def random(seed: int, step: int, purpose: int) -> torch.Generator:
    """Return the generator for one purpose in one step: draws do not depend on earlier draws."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 16 + purpose)


class Draws:
    """Random draws for one purpose in one step: a pure function of (seed, step, purpose) and of the number of samples
    in all processes.

    Every method returns this process's rows of what a single process would draw, on the CPU.
    """

    def __init__(self, seed: int, step: int, purpose: int):
        self._generator = random(seed, step, purpose)

    def rand(self, count: int, *shape: int) -> torch.Tensor:
        """(count, *shape) uniform in 0..1, for `count` samples of this process."""
        return self._own(torch.rand, count, *shape)

    def randn(self, count: int, *shape: int) -> torch.Tensor:
        """(count, *shape) of the standard normal distribution."""
        return self._own(torch.randn, count, *shape)

    def _own(self, draw: Callable[..., torch.Tensor], count: int, *shape: int) -> torch.Tensor:
        rank, number = processes().process_index, processes().num_processes
        return draw(count * number, *shape, generator=self._generator)[rank * count : (rank + 1) * count]
