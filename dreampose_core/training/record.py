"""The records of a training stage in its folder: stats.jsonl, a plot of its losses, and TensorBoard's events."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import InputError, StorageError
from ..files import appearing, storage_error

log = logging.getLogger("dreampose.training")


Sample = Callable[[int], np.ndarray | None]
"""Makes pictures of a step's weights and returns them as one image, uint8 (H, W, 3), or returns None."""


class Record:
    """Writes stats.jsonl with a line for every `every` steps; loss.png (see `write_curve`) if `curve`; the folder
    tensorboard/ if `tensorboard`.

    first: the last step done before this training started or resumed; TensorBoard discards later events of an
    interrupted run. Raises InputError if TensorBoard is not installed.
    """

    def __init__(self, folder: Path, stage: str, first: int, every: int, curve: bool, tensorboard: bool):
        self.folder, self.stage, self.every, self.curve, self.last = folder, stage, every, curve, first
        self._first, self._board = first, None
        self._writer = summary_writer() if tensorboard else None

    def step(self, step: int, losses: list[float], lr: float, seconds: float) -> None:
        """Record a finished step, with all losses up to it and its learning rate. Raises StorageError."""
        self.last = step
        if self._writer is not None:
            with self._storing("tensorboard"):
                board = self._opened()
                board.add_scalar("loss", losses[-1], step)
                board.add_scalar("lr", lr, step)
        if step % self.every == 0:
            mean = sum(losses[-self.every :]) / min(len(losses), self.every)
            line = {"stage": self.stage, "step": step, "loss": round(mean, 6), "lr": float(f"{lr:.6g}")}
            line["seconds"] = round(seconds, 1)
            with self._storing("stats.jsonl"), open(self.folder / "stats.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")

    def picture(self, sheet: np.ndarray) -> None:
        """Record a picture (H, W, 3), uint8, of the last step. Raises StorageError."""
        if self._writer is not None:
            with self._storing("tensorboard"):
                self._opened().add_image("samples", sheet, self.last, dataformats="HWC")

    def draw(self, losses: list[float]) -> None:
        """Write loss.png; a full disk is logged as a warning only."""
        if self.curve and losses:
            try:
                write_curve(losses, self.stage, self.folder / "loss.png")
            except StorageError as error:
                log.warning("%s", error)

    def close(self, losses: list[float]) -> None:
        """Plot the losses once more, if there are new ones, and close TensorBoard. Raises StorageError."""
        if self.last > self._first:
            self.draw(losses)
        if self._board is not None:
            with self._storing("tensorboard"):
                self._board.close()

    def _opened(self):
        if self._board is None:  # created lazily: a run without steps left adds no file
            self._board = self._writer(self.folder / "tensorboard", purge_step=self._first + 1)
        return self._board

    @contextmanager
    def _storing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, self.folder / name) from error


def summary_writer():
    """Return TensorBoard's writer class. Raises InputError if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import
    except ImportError as error:
        raise InputError(
            "--tensorboard needs TensorBoard, which is missing; please run: pip install -r requirements-train.txt"
        ) from error
    return SummaryWriter


def write_curve(losses: list[float], stage: str, path: Path) -> None:
    """Write a PNG plot of the losses of all steps (faint) and of their moving mean; logarithmic if the mean falls by
    more than a factor of ten. Raises StorageError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes seconds to import
    from matplotlib.figure import Figure

    steps, smooth = np.arange(1, len(losses) + 1), smoothed(losses)
    figure = Figure((8, 4.5), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.plot(steps, losses, color="#93c5fd", linewidth=0.8, marker="." if len(losses) < 3 else None)
    axis.plot(steps, smooth, color="#1d4ed8", linewidth=1.8)
    if min(losses) > 0 and smooth.max() > 10 * smooth.min():
        axis.set_yscale("log")
    axis.set_title(stage, fontsize=11)
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.grid(color="#e5e7eb")
    with appearing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def smoothed(losses: list[float]) -> np.ndarray:
    """Return the moving mean of the losses over a window of a fortieth of them, at least five; shorter at the ends."""
    width = min(len(losses), max(5, len(losses) // 40) | 1)
    window = np.ones(width)
    return np.convolve(losses, window, "same") / np.convolve(np.ones(len(losses)), window, "same")
