"""The processes that train together: one, or as many as `accelerate launch` or `torchrun` started, each with its share
of every batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.distributed.tensor import DTensor

Share = tuple[int, int]
"""This process's rank, and the number of processes."""


class Processes:
    """This process among those that train together. rank: its number; count: of processes; main: whether it is the one
    that writes.

    device: this process's GPU if there are several processes; None for no preference.
    """

    def __init__(self):
        state = PartialState(cpu=not torch.cuda.is_available())
        self.rank, self.count, self.main = state.process_index, state.num_processes, state.is_main_process
        self.device = str(state.device) if self.count > 1 else None

    @property
    def share(self) -> Share:
        """This process's part of every batch."""
        return self.rank, self.count

    def wait(self) -> None:
        """Wait until all processes have called this."""
        PartialState().wait_for_everyone()

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Set every gradient to its mean over the processes; sharded parameters (see `sharding`) have it already."""
        if self.count == 1:
            return
        whole = (parameter for parameter in parameters if not isinstance(parameter, DTensor))
        gradients = [parameter.grad for parameter in whole if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, (flat / self.count).split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: torch.Tensor) -> float:
        """Return the mean of a number over the processes."""
        value = value.detach().clone()
        if self.count > 1:
            dist.all_reduce(value)
        return float(value) / self.count

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether `here` is true in any process, so that all of them stop at the same step."""
        if self.count == 1:
            return here
        flag = torch.tensor(float(here), device=device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)


def random(seed: int, step: int, purpose: int) -> torch.Generator:
    """Return the generator for one purpose in one step: draws do not depend on earlier draws."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 16 + purpose)


class Draws:
    """Random draws for one purpose in one step: a pure function of (seed, step, purpose) and of the number of samples
    in all processes.

    Every method returns this process's rows of what a single process would draw, on the CPU.
    """

    def __init__(self, seed: int, step: int, purpose: int, share: Share = (0, 1)):
        self._generator = random(seed, step, purpose)
        self._rank, self._processes = share

    def rand(self, count: int, *shape: int) -> torch.Tensor:
        """(count, *shape) uniform in 0..1, for `count` samples of this process."""
        return self._own(count, torch.rand(count * self._processes, *shape, generator=self._generator))

    def randn(self, count: int, *shape: int) -> torch.Tensor:
        """(count, *shape) of the standard normal distribution."""
        return self._own(count, torch.randn(count * self._processes, *shape, generator=self._generator))

    def _own(self, count: int, drawn: torch.Tensor) -> torch.Tensor:
        return drawn[self._rank * count : (self._rank + 1) * count]
