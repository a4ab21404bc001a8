"""The benchmark: compare a model with baselines on clips with ground truth; write scores, pictures and a page."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..files import appearing
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import Recipe
from ..subject.finetuning import tuned_to
from .baselines import BASELINES, baseline_frames
from .clips import Clip, DrawnPeople, MannequinClips, VideoClips
from .metrics import psnr_of_frames
from .page import SHOWN, shown, write_contact, write_page, write_plots, write_side_by_side
from .perturb import DISTURBED, disturbances
from .report import UNDISTURBED, Report, table
from .scores import Lpips, Scorer, mean_scores, unmeasured

# Each perturbed photo map costs another run of the model, so the robustness test uses fewer clips and frames.
ROBUST_PEOPLE, ROBUST_FRAMES = 8, 16


def evaluate(
    pipe,
    clips: MannequinClips | DrawnPeople | VideoClips,
    folder: Path,
    *,
    recipe: Recipe = "none",
    quality: str = "standard",
    seed: int = 0,
    robustness: bool = False,
    tune: Callable[..., AbstractContextManager] = tuned_to,
    estimator=None,
    lpips: Lpips | None = None,
    about: dict | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Report:
    """Run the benchmark and return its report: for each block the scores in MEASURES, averaged over the clips.

    A block is one way to make frames: "none" is the model without fine-tuning; the name of `recipe`, unless that is
    "none", is the model fine-tuned to each photo inside the context manager `tune`; every baseline is a block. With
    `robustness` there are also "undisturbed" (the model again, for comparison) and one block for each name in
    DISTURBED, where the photo's pose map is perturbed that way; these use the first ROBUST_PEOPLE clips and their first
    ROBUST_FRAMES frames. Scores that cannot be computed are None.

    estimator, lpips: as in `Scorer`. about: more entries for about.json.

    The same clips, model and seed give the same report on the same kind of machine. At the end, `folder` holds
    report.json (the report), table.md, about.json (the run's settings and the scores of each clip), report.html and its
    pictures and video. Raises InputError for clips that cannot be used, StorageError, and Cancelled when should_stop()
    is true.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clock = StageClock("people", len(clips), on_progress)
    sampling = pipe.model_config.sampling(quality)
    people: list[dict] = []
    course = defaultdict(list)  # for each block, an array per clip with the PSNR of each frame
    first_clips, missing, seconds, num_frames = [], {}, 0.0, 0

    def generated(clip: Clip, image_poses: PoseSequence | None, count: int) -> np.ndarray:
        """Generate the first `count` frames of a clip, with the same noise and pose windows as for the whole clip."""
        nonlocal seconds, num_frames
        started = time.monotonic()
        args = {"generator": torch.Generator().manual_seed(clip_seed), "should_stop": should_stop}
        stream = pipe.stream(clip.photo, clip.poses, image_poses, **args, **vars(sampling))
        frames = np.stack(list(islice(stream, count)))
        seconds, num_frames = seconds + time.monotonic() - started, num_frames + count
        return frames

    for number, clip in enumerate(clips):
        check_stop(should_stop)
        clip_seed = seed * 1_000_003 + number
        made = {"none": generated(clip, clip.image_poses, len(clip))}
        if recipe != "none":
            with tune(pipe, clip.photo, clip.image_poses, recipe, should_stop):
                made[recipe] = generated(clip, clip.image_poses, len(clip))
        device = pipe._execution_device
        made |= baseline_frames(clip.photo, clip.image_poses, clip.poses, clip.truth, pipe.vae, device)

        scorer, scores = Scorer(clip, estimator, lpips), {}
        for name, frames in made.items():
            check_stop(should_stop)
            scores[name] = scorer.score(frames)
            course[name].append(psnr_of_frames(frames, clip.truth, clip.poses.mask))

        if robustness and number < ROBUST_PEOPLE:
            count = min(ROBUST_FRAMES, len(clip))
            scorer = Scorer(clip.cut(slice(count)), estimator, lpips)
            scores[UNDISTURBED] = scorer.score(made["none"][:count])
            for name, image_poses in disturbances(clip.image_poses, clip_seed).items():
                scores[name] = scorer.score(generated(clip, image_poses, count))

        people.append({"name": clip.name, "frames": len(clip), "fps": clip.poses.fps, "scores": scores})
        missing |= unmeasured(estimator, lpips, clip.poses)
        if number < SHOWN:
            first_clips.append(shown(clip, made))
        clock.tick(number + 1)

    models = ("none",) if recipe == "none" else ("none", recipe)
    blocks = (*models, *BASELINES, *((UNDISTURBED, *DISTURBED) if robustness else ()))
    report = {name: mean_scores([one["scores"][name] for one in people if name in one["scores"]]) for name in blocks}
    shortest = min(one["frames"] for one in people)
    fewer = {"people": min(len(people), ROBUST_PEOPLE), "frames": min(shortest, ROBUST_FRAMES)}
    facts = {
        **(about or {}),
        "clips": clips.kind,
        "people": len(clips),
        "size": list(clips.size),
        "recipe": recipe,
        "quality": quality,
        "steps": sampling.num_inference_steps,
        "seed": seed,
        "robustness": fewer if robustness else None,
        "not_measured": missing,
        "seconds_per_frame": round(seconds / num_frames, 3),
        "versions": {"dreampose": __version__, "torch": torch.__version__},
    }
    texts = {
        "report.json": json.dumps(report, indent=1),
        "table.md": table(report),
        "about.json": json.dumps({**facts, "each": people}, indent=1),
    }
    for name, text in texts.items():
        with appearing(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    write_contact(first_clips, folder)
    write_side_by_side(first_clips, people[0]["fps"], folder)
    write_plots(report, people, course, folder)
    write_page(report, facts, folder)
    return report
