"""The records of a training stage in its folder: stats.jsonl, and a plot of its losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..files import appearing, storage_error

EVERY = 20  # steps between two lines of stats.jsonl


def write_line(folder: Path, stage: str, losses: list[float], lr: float, seconds: float) -> None:
    """Append the last step, the mean loss of the last EVERY steps, and the step's learning rate to stats.jsonl. Raises
    StorageError."""
    last = losses[-EVERY:]
    line = {"stage": stage, "step": len(losses), "loss": round(sum(last) / len(last), 6)}
    line |= {"lr": float(f"{lr:.6g}"), "seconds": round(seconds, 1)}
    try:
        with open(folder / "stats.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise storage_error(error, folder / "stats.jsonl") from error


def write_curve(losses: list[float], stage: str, path: Path) -> None:
    """Write a PNG plot of the losses of all steps (faint) and of their moving mean; logarithmic if the mean falls by
    more than a factor of ten. Raises StorageError."""
    from matplotlib.figure import Figure  # takes seconds to import

    steps, smooth = np.arange(1, len(losses) + 1), smoothed(losses)
    figure = Figure((8, 4.5), layout="constrained")
    axis = figure.subplots()
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
