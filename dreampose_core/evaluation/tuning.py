"""What tuning is worth: a model as it is, after `fast` and after `paper`, on frames that the tuning never saw."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..files import appearing
from ..media import write_png
from ..model.conditioning import to_pixels
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .clips import Clip, MannequinClips
from .report import Report
from .scores import Scorer, mean_scores

_FRAMES = 16  # of each clip

Tune = Callable[[np.ndarray, PoseSequence, str], AbstractContextManager]
"""A photo, its map and a recipe -> a context in which the model carries a subject tuned to them."""


def bench_tune(
    pipe,
    tune: Tune,
    folder: Path | None,
    *,
    people: int = 3,
    estimator=None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, float]:
    """The figures of tuning, means over the first `people` held-out mannequins, in their last _FRAMES frames.

    folder: for report.json, with all scores, and pictures; None for neither.
    Keys, PSNR in dB inside the person:

    fast_s: seconds that `fast` takes. gain_db: what it gains; crude_gain_db: on figures drawn in another style than any
    the model was trained on. fast_minus_paper_db: how far `fast` is above `paper`. time_ratio_paper_over_fast: of their
    times. vae_error_ratio: squared error of the VAE alone inside the person, tuned over untuned; identity_seen_ratio,
    identity_unseen_ratio: of the identity errors (see `Scorer`). pose_accuracy_change: tuned less untuned.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    runs = [("clip", "fast", False), ("clip", "paper", False), ("crude", "fast", True)]
    clock = StageClock("tunings", people * len(runs), on_progress)
    scores: dict[str, list] = {}
    seconds: dict[str, list[float]] = {}
    vae_errors: list[float] = []
    for number, clip in enumerate(MannequinClips(people, pipe.model_config.size)):
        clip = clip.last(_FRAMES)
        for index, (name, recipe, crude) in enumerate(runs):
            check_stop(should_stop)
            shown = _crude(clip) if crude else clip
            scorer, before = Scorer(shown, estimator), _vae_error(pipe, shown)
            untuned = _frames(pipe, shown, number)
            if f"{name} none" not in scores or len(scores[f"{name} none"]) <= number:
                scores.setdefault(f"{name} none", []).append(scorer.score(untuned))
            started = time.monotonic()
            with tune(shown.photo, shown.image_poses, recipe):
                seconds.setdefault(f"{name} {recipe}", []).append(time.monotonic() - started)
                tuned = _frames(pipe, shown, number)
                if (name, recipe) == ("clip", "fast"):
                    vae_errors.append(_vae_error(pipe, shown) / before)
            scores.setdefault(f"{name} {recipe}", []).append(scorer.score(tuned))
            if folder is not None:
                at = [0, _FRAMES // 2, -1]
                rows = [np.concatenate([shown.photo, *frames[at]], 1) for frames in (shown.truth, untuned, tuned)]
                write_png(np.concatenate(rows), folder / f"{name}_{recipe}_{number}.png")
            clock.tick(number * len(runs) + index + 1)
    report = {name: mean_scores(each) for name, each in scores.items()}
    figures = _figures(
        report, {name: float(np.mean(each)) for name, each in seconds.items()}, float(np.mean(vae_errors))
    )
    if folder is not None:
        with appearing(folder / "report.json") as temporary:
            temporary.write_text(json.dumps({"figures": figures, "scores": report}, indent=1) + "\n", encoding="utf-8")
    return figures


def _figures(report: Report, seconds: dict[str, float], vae_error_ratio: float) -> dict[str, float]:
    def change(key: str, name: str) -> float:
        return report[f"{name} fast"][key] - report[f"{name} none"][key]

    figures = {
        "fast_s": seconds["clip fast"],
        "gain_db": change("psnr_mask", "clip"),
        "crude_gain_db": change("psnr_mask", "crude"),
        "fast_minus_paper_db": report["clip fast"]["psnr_mask"] - report["clip paper"]["psnr_mask"],
        "time_ratio_paper_over_fast": seconds["clip paper"] / seconds["clip fast"],
        "vae_error_ratio": vae_error_ratio,
    }
    for key in ("identity_seen", "identity_unseen"):
        before, after = report["clip none"][key], report["clip fast"][key]
        if before is not None and after is not None:
            figures[f"{key}_ratio"] = after / before
    if report["clip none"]["pose_accuracy"] is not None:
        figures["pose_accuracy_change"] = change("pose_accuracy", "clip")
    return {name: round(value, 4) for name, value in figures.items()}


def _frames(model, clip: Clip, number: int) -> np.ndarray:
    return model(clip.photo, clip.poses, clip.image_poses, generator=torch.Generator().manual_seed(number)).frames


@torch.no_grad()
def _vae_error(model, clip: Clip) -> float:
    """Mean squared error of the true frames through the VAE and back, inside the person."""
    pixels = to_pixels(torch.from_numpy(clip.truth)).to(model._execution_device, model.vae.dtype)
    decoded = torch.cat(
        [model.vae.decode(model.vae.encode(some).latent_dist.mode()).sample for some in pixels.split(8)]
    )
    mask = torch.from_numpy(clip.poses.mask)[:, None].to(model._execution_device)
    return float(((decoded.float() - pixels.float()).square() * mask).sum() / mask.sum())


def _crude(clip: Clip) -> Clip:
    """The clip as if drawn by another hand: few flat colours, and dark lines where one part of the body ends and
    another begins."""

    def drawn(rgb: np.ndarray, poses: PoseSequence) -> np.ndarray:
        flat = np.round(rgb.astype(np.float32) / 51) * 51
        parts = poses.parts.astype(int)
        lines = np.zeros(parts.shape, bool)
        lines[:, 1:] |= parts[:, 1:] != parts[:, :-1]
        lines[:, :, 1:] |= parts[:, :, 1:] != parts[:, :, :-1]
        return np.where(lines[..., None], 30, flat[..., ::-1]).astype(
            np.uint8
        )  # red for blue: colours that skin and cloth rarely have

    truth = drawn(clip.truth, clip.poses)
    return replace(clip, photo=drawn(clip.photo[None], clip.image_poses)[0], truth=truth)
