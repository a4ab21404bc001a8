"""Make samples one step ahead, in a thread, while the networks compute the current step."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch


class Prefetch:
    """Calls `make(step)` one step ahead in a thread; results are those of `make`, so a run stays a pure function of its
    steps."""

    def __init__(self, make):
        self.make = make
        # one thread: more would compete with the networks' own for the cores
        self.pool = ThreadPoolExecutor(max_workers=1, initializer=torch.set_num_threads, initargs=(1,))
        self.next: tuple[int, Future] | None = None

    def __call__(self, step: int):
        """Return the result of `make(step)`."""
        if self.next is not None and self.next[0] == step:
            made = self.next[1].result()
        else:
            made = self.make(step)
        self.next = (step + 1, self.pool.submit(self.make, step + 1))
        return made
