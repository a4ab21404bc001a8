"""The progress record that the library, the command line, the workers and the page share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """The progress of one stage.

    stage: a short lower-case word, for example "tuning", "decoder", "frames", "video".
    step, total: finished steps and all steps, 0 <= step <= total.
    seconds_left: an estimate for this stage, None while unknown.
    loss: the latest training loss, None outside training.
    """

    stage: str
    step: int
    total: int
    seconds_left: float | None = None
    loss: float | None = None


OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


def never_stop() -> bool:
    """The `should_stop` of callers that never cancel."""
    return False


def ignore_progress(progress: Progress) -> None:
    """The `on_progress` of callers that do not watch."""


def check_stop(should_stop: ShouldStop) -> None:
    """Raise Cancelled if `should_stop()` returns true."""
    if should_stop():
        raise Cancelled("stopped on request")


class StageClock:
    """Makes Progress records of one stage and estimates the time left from the pace so far."""

    def __init__(self, stage: str, total: int, on_progress: OnProgress = ignore_progress, first: int = 0):
        self.stage, self.total, self.first = stage, total, first
        self.on_progress = on_progress
        self.started = time.monotonic()

    def tick(self, step: int, loss: float | None = None) -> None:
        """Report that `step` of `total` steps are done."""
        done = step - self.first
        left = (time.monotonic() - self.started) / done * (self.total - step) if done > 0 else None
        self.on_progress(Progress(self.stage, step, self.total, left, loss))
