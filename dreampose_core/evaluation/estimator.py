"""How right an estimator is on held-out mannequins, whose DensePose is known exactly."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import appearing
from ..media import read_video, write_png, write_video
from ..poses import PoseSequence, render_colours
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..synthetic import HELD_OUT, Figure, render_clip
from ..synthetic.motion import HELD_OUT_MOTIONS
from .metrics import densepose_accuracy

SIZES = {"160 x 128": (160, 128), "320 x 256": (320, 256), "180 x 320, wide": (180, 320)}
FRAMES, FPS = 6, 1.5


def evaluate_estimator(
    estimator,
    people: int,
    folder: Path,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, dict[str, float]]:
    """Part accuracies and U, V error (see `densepose_accuracy`) at several sizes and after video compression (CRF 23).

    Person k is figure 10,000 + k in one of the held-out motions, in turn, six frames over four seconds. Writes
    report.json and contact.png into `folder`: picture, truth and estimate of every person's frame 4. The row "nobody"
    is what an empty answer would reach.
    """
    if people < 1:
        raise InputError(f"The number of people is {people}; it must be at least 1.")
    folder.mkdir(parents=True, exist_ok=True)
    scores: dict[str, list] = {name: [] for name in (*SIZES, "160 x 128, CRF 23", "nobody")}
    clock, contact = StageClock("people", people * len(SIZES), on_progress), []
    for person in range(people):
        for number, (name, size) in enumerate(SIZES.items()):
            check_stop(should_stop)
            figure, motion = Figure.from_seed(HELD_OUT + person), HELD_OUT_MOTIONS[person % len(HELD_OUT_MOTIONS)]
            rgb, truth = render_clip(figure, motion, FRAMES, size, fps=FPS)
            frames = rgb.numpy()
            found = estimator.estimate(frames)
            scores[name].append(densepose_accuracy(found, truth))
            if number == 0:
                scores["160 x 128, CRF 23"].append(densepose_accuracy(estimator.estimate(_compressed(frames)), truth))
                empty = PoseSequence(np.zeros_like(truth.parts), None, "none", truth.fps)
                scores["nobody"].append(densepose_accuracy(empty, truth))
                shown = [render_colours(poses.select([4]))[0] for poses in (truth, found)]
                contact.append(np.concatenate([frames[4], *shown], 1))
            clock.tick(person * len(SIZES) + number + 1)
    report = {
        name: {key: round(float(np.mean([s[key] for s in rows])), 4) for key in rows[0]}
        for name, rows in scores.items()
    }
    with appearing(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1))
    write_png(np.concatenate(contact), folder / "contact.png")
    return report


def _compressed(frames: np.ndarray) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(frames, path, FPS, crf=23)
        return list(read_video(path))
