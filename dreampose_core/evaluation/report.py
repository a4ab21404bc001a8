"""The mannequin benchmark: held-out people turning and walking, the model beside its baselines, numbers and a contact sheet."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..files import appearing
from ..images import write_png
from ..mannequin import HELD_OUT, Figure, render_clip
from ..progress import OnProgress, ShouldStop, StageClock, ignore_progress, never_stop
from ..settings import QUALITY_STEPS
from .baselines import baseline_frames
from .metrics import psnr, sharpness

FRAMES, FIRST_SCORED, FPS = 60, 20, 20.0
MOTIONS = ("turn", "walk")


def evaluate(
    pipe, people: int, recipe: str, quality: str, folder: Path, tune=None, on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Mean figures of the model (under its recipe's name) and of every baseline: psnr, psnr_mask, sharpness.

    Person k is figure 10,000 + k, turning or walking for 60 frames; the photo is frame 0, frames 20 and later are scored.
    tune(photo, image_poses): a context in which `pipe` carries that person's subject; needed unless recipe is "none".
    Writes report.json and contact.png into `folder`: photo, then truth, moved texture and model at four moments.
    """
    if people < 1:
        raise InputError(f"The number of people is {people}; it must be at least 1.")
    folder.mkdir(parents=True, exist_ok=True)
    clock = StageClock("people", people, on_progress)
    scores, rows = [], []
    for person in range(people):
        rgb, poses = render_clip(Figure.from_seed(HELD_OUT + person), MOTIONS[person % 2], FRAMES, pipe.form.size, fps=FPS)
        truth, photo, own = rgb.numpy(), rgb[0].numpy(), poses.select([0])
        scored = slice(FIRST_SCORED, FRAMES)
        with tune(photo, own) if tune is not None and recipe != "none" else nullcontext():
            stream = pipe.stream(photo, poses, own, num_inference_steps=QUALITY_STEPS[quality],
                                 generator=torch.Generator().manual_seed(person), first_frame=16, should_stop=should_stop)  # fmt: skip
            made = {recipe: np.stack(list(stream))[FIRST_SCORED - 16 :]}
        made.update(baseline_frames(photo, own, poses.select(scored), truth[scored], pipe.vae))
        mask = poses.mask[scored]
        scores.append({name: _score(frames, truth[scored], mask) for name, frames in made.items()})
        moments = [4, 14, 24, 36]
        rows.append(np.concatenate([photo, *truth[scored][moments], *made["moved_texture"][moments], *made[recipe][moments]], 1))
        clock.tick(person + 1)
    report = {name: {key: round(float(np.mean([s[name][key] for s in scores])), 3) for key in scores[0][name]} for name in scores[0]}
    with appearing(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1))
    write_png(np.concatenate(rows), folder / "contact.png")
    return report


def table(report: dict[str, dict[str, float]]) -> str:
    """The report as a Markdown table."""
    keys = list(next(iter(report.values())))
    lines = ["| | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    return "\n".join(lines + [f"| {name} | " + " | ".join(f"{row[key]:.2f}" for key in keys) + " |" for name, row in report.items()])


def _score(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    return {"psnr": psnr(frames, truth), "psnr_mask": psnr(frames, truth, mask), "sharpness": sharpness(frames, truth, mask)}
