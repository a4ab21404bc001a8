"""The records of a training stage in its folder: stats.jsonl, and a plot of its losses."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..errors import StorageError
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
    """Write a PNG plot of the losses of all steps (faint) and of their moving mean over a fortieth of them, at least
    five; logarithmic if the mean falls by more than a factor of ten. Without disk space nothing is written."""
    from matplotlib.figure import Figure  # takes seconds to import

    width = min(len(losses), max(5, len(losses) // 40) | 1)
    smooth = np.convolve(losses, np.ones(width) / width, "valid")
    figure = Figure((8, 4.5), layout="constrained")
    axis = figure.subplots()
    axis.plot(np.arange(1, len(losses) + 1), losses, color="#93c5fd", linewidth=0.8)
    axis.plot(np.arange(len(smooth)) + (width + 1) / 2, smooth, color="#1d4ed8", linewidth=1.8)
    if min(losses) > 0 and smooth.max() > 10 * smooth.min():
        axis.set_yscale("log")
    axis.set(title=stage, xlabel="step", ylabel="loss")
    axis.grid(color="#e5e7eb")
    with suppress(StorageError), appearing(path) as temporary:  # a plot is not worth a training
        figure.savefig(temporary, format="png", dpi=110)
