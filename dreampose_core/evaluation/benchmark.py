"""The benchmark: a model beside baselines that need no network, on clips whose truth is known; figures, pictures, a
page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..files import appearing
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import Recipe
from .baselines import BASELINES, baseline_frames
from .clips import Clip, MannequinClips, VideoClips
from .page import write_page
from .perturb import DISTURBED, disturbances
from .pictures import SHOWN, Shown, write_bars, write_contact, write_course, write_people, write_side_by_side
from .report import UNDISTURBED, Report, table
from .scores import Lpips, Scorer, mean_scores, unmeasured

ROBUST_PEOPLE, ROBUST_FRAMES = 8, 16  # a disturbed photo map is another run of the model: fewer of them have to do

Tune = Callable[[np.ndarray, PoseSequence], AbstractContextManager]
"""A photo and its map -> a context in which the model carries a subject tuned to them."""


def evaluate(
    pipe,
    clips: MannequinClips | VideoClips,
    folder: Path,
    *,
    recipe: Recipe = "none",
    quality: str = "standard",
    seed: int = 0,
    robustness: bool = False,
    tune: Tune | None = None,
    estimator=None,
    lpips: Lpips | None = None,
    about: dict | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Report:
    """What stands in report.json: for each way to make frames a block of the figures in `scores.KEYS`, means over the
    clips.

    Blocks: "none", the model as it is; with recipe "fast" also "fast", tuned to each photo by `tune`; every baseline;
    and with `robustness`, for the first ROBUST_PEOPLE clips and ROBUST_FRAMES frames, "undisturbed" (the model again,
    to compare with) and one for each name in DISTURBED, where the photo's map given to the model is wrong in that way.
    Figures that cannot be had are None.
    estimator, lpips: as in `Scorer`. about: what else about.json shall say.

    The same clips, model and seed give the same report on the same kind of machine. When all is done, `folder` holds
    report.json, table.md, about.json (what was run, and the figures of each clip), report.html and its pictures and
    video. Raises InputError for clips that cannot be used, StorageError, Cancelled when should_stop() is true.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(pipe, recipe, quality, seed, tune, estimator, lpips, should_stop)
    clock = StageClock("people", len(clips), on_progress)
    for number, clip in enumerate(clips):
        run.measure(clip, number, disturbed=robustness and number < ROBUST_PEOPLE)
        clock.tick(number + 1)
    blocks = (*run.models, *BASELINES, *((UNDISTURBED, *DISTURBED) if robustness else ()))
    report = {
        name: mean_scores([one["scores"][name] for one in run.people if name in one["scores"]]) for name in blocks
    }
    facts = {
        **(about or {}),
        "clips": clips.kind,
        "people": len(clips),
        "size": list(clips.size),
        **run.facts(robustness),
    }
    _write(folder, report, facts, run)
    return report


@dataclass
class _Run:
    """A model being measured, and what has come out so far: of every clip its figures, and of the first ones the
    frames."""

    pipe: object
    recipe: Recipe
    quality: str
    seed: int
    tune: Tune | None
    estimator: object
    lpips: Lpips | None
    should_stop: ShouldStop
    people: list[dict] = field(default_factory=list)
    course: dict[str, list[np.ndarray]] = field(default_factory=dict)  # by block, each clip's mask PSNR of its frames
    shown: list[Shown] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    num_frames: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        return ("none",) if self.recipe == "none" else ("none", self.recipe)

    def measure(self, clip: Clip, number: int, disturbed: bool) -> None:
        """Makes the frames of a clip in every way and scores them."""
        check_stop(self.should_stop)
        made = {"none": self._generated(clip, number, clip.image_poses, len(clip))}
        if self.recipe != "none":
            with self.tune(clip.photo, clip.image_poses):
                made[self.recipe] = self._generated(clip, number, clip.image_poses, len(clip))
        made.update(
            baseline_frames(
                clip.photo, clip.image_poses, clip.poses, clip.truth, self.pipe.vae, self.pipe._execution_device
            )
        )
        scorer, scores = Scorer(clip, self.estimator, self.lpips), {}
        for name, frames in made.items():
            check_stop(self.should_stop)
            scores[name] = scorer.score(frames)
            self.course.setdefault(name, []).append(scorer.psnr_of_frames(frames))
        if disturbed:
            count = min(ROBUST_FRAMES, len(clip))
            scorer = Scorer(clip.first(count), self.estimator, self.lpips)
            scores[UNDISTURBED] = scorer.score(made["none"][:count])
            for name, image_poses in disturbances(clip.image_poses, self._seed_of(number)).items():
                scores[name] = scorer.score(self._generated(clip, number, image_poses, count))
        self.people.append({"name": clip.name, "frames": len(clip), "fps": clip.poses.fps, "scores": scores})
        self.missing.update(unmeasured(self.estimator, self.lpips, clip.poses))
        if len(self.shown) < SHOWN:
            self.shown.append(Shown.of(clip, made))

    def facts(self, robustness: bool) -> dict:
        """What was run, for about.json."""
        length = min(person["frames"] for person in self.people)
        fewer = {"people": min(len(self.people), ROBUST_PEOPLE), "frames": min(ROBUST_FRAMES, length)}
        sampling = self.pipe.model_config.sampling(self.quality)
        return {
            "recipe": self.recipe,
            "quality": self.quality,
            "steps": sampling.num_inference_steps,
            "seed": self.seed,
            "robustness": fewer if robustness else None,
            "not_measured": self.missing,
            "seconds_per_frame": round(self.seconds / self.num_frames, 3),
            "versions": {"dreampose": __version__, "torch": torch.__version__},
        }

    def _generated(self, clip: Clip, number: int, image_poses: PoseSequence | None, count: int) -> np.ndarray:
        """The model's first `count` frames of a clip, uint8 (count, h, w, 3); noise and windows are those of the whole
        clip."""
        started = time.monotonic()
        generator = torch.Generator().manual_seed(self._seed_of(number))
        stream = self.pipe.stream(
            clip.photo,
            clip.poses,
            image_poses,
            generator=generator,
            should_stop=self.should_stop,
            **vars(self.pipe.model_config.sampling(self.quality)),
        )
        frames = np.stack(list(islice(stream, count)))
        self.seconds, self.num_frames = self.seconds + time.monotonic() - started, self.num_frames + count
        return frames

    def _seed_of(self, number: int) -> int:
        return self.seed * 1_000_003 + number


def _write(folder: Path, report: Report, facts: dict, run: _Run) -> None:
    texts = {
        "report.json": json.dumps(report, indent=1),
        "table.md": table(report),
        "about.json": json.dumps({**facts, "each": run.people}, indent=1),
    }
    for name, text in texts.items():
        with appearing(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    longest = max(person["frames"] for person in run.people)
    course = {name: np.full((len(values), longest), np.nan) for name, values in run.course.items()}
    for name, values in run.course.items():
        for row, value in zip(course[name], values):
            row[: len(value)] = value
    write_contact(run.shown, folder / "contact.png")
    write_side_by_side(run.shown, folder / "side_by_side.mp4")
    write_bars(report, folder / "blocks.png")
    write_course(course, folder / "frames.png")
    write_people(run.people, folder / "people.png")
    plots = {
        "The main figures of every row": folder / "blocks.png",
        "Frame by frame, the mean of all clips": folder / "frames.png",
        "Clip by clip": folder / "people.png",
    }
    write_page(
        report,
        facts,
        {"Photo, truth, moved texture and model at four moments": folder / "contact.png"},
        plots,
        folder / "side_by_side.mp4",
        folder / "report.html",
    )
