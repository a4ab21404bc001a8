"""Benchmark of fine-tuning: a model before, after `fast` and after `paper`, on frames that the tuning never saw."""

from __future__ import annotations

import json
import time
from collections import defaultdict
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
from ..subject.finetuning import tuned_to
from .clips import Clip, MannequinClips
from .scores import Scorer, mean_scores

_FRAMES = 16  # scored frames of each clip


def bench_tune(
    pipe,
    folder: Path | None,
    *,
    tune: Callable[..., AbstractContextManager] = tuned_to,
    people: int = 3,
    estimator=None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, float]:
    """Measure fine-tuning on the first `people` held-out mannequins, over their last _FRAMES frames.

    folder: where to write pictures and report.json with all scores; None writes neither. Returns these means by name
    (PSNR is in dB inside the person):

    fast_s: seconds that `fast` takes. gain_db: PSNR after `fast` minus before. crude_gain_db: the same for figures
    drawn in a style that the model was not trained on. fast_minus_paper_db: PSNR after `fast` minus after `paper`.
    time_ratio_paper_over_fast: seconds of `paper` divided by those of `fast`. vae_error_ratio: squared error of the VAE
    alone inside the person, after `fast` divided by before. identity_seen_ratio, identity_unseen_ratio: identity
    errors (see `Surface`), after divided by before. pose_accuracy_change: after minus before.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    clock, done = StageClock("tunings", people * 3, on_progress), 0
    scores, seconds, vae_error_ratios = defaultdict(list), defaultdict(list), []
    for number, clip in enumerate(MannequinClips(people, pipe.model_config.size)):
        clip = clip.cut(slice(-_FRAMES, None))
        for name, shown, recipes in (("clip", clip, ("fast", "paper")), ("crude", _crude(clip), ("fast",))):
            scorer, vae_error = Scorer(shown, estimator), _vae_error(pipe, shown)
            untuned = shown.made_by(pipe, number)
            scores[f"{name} none"].append(scorer.score(untuned))
            for recipe in recipes:
                check_stop(should_stop)
                started = time.monotonic()
                with tune(pipe, shown.photo, shown.image_poses, recipe, should_stop):
                    seconds[f"{name} {recipe}"].append(time.monotonic() - started)
                    tuned = shown.made_by(pipe, number)
                    if (name, recipe) == ("clip", "fast"):
                        vae_error_ratios.append(_vae_error(pipe, shown) / vae_error)
                scores[f"{name} {recipe}"].append(scorer.score(tuned))
                if folder is not None:
                    at = [0, _FRAMES // 2, -1]
                    rows = [np.concatenate([shown.photo, *frames[at]], 1) for frames in (shown.truth, untuned, tuned)]
                    write_png(np.concatenate(rows), folder / f"{name}_{recipe}_{number}.png")
                done += 1
                clock.tick(done)

    report = {name: mean_scores(each) for name, each in scores.items()}
    none, fast, paper = report["clip none"], report["clip fast"], report["clip paper"]
    fast_s = np.mean(seconds["clip fast"])
    figures = {
        "fast_s": fast_s,
        "gain_db": fast["psnr_mask"] - none["psnr_mask"],
        "crude_gain_db": report["crude fast"]["psnr_mask"] - report["crude none"]["psnr_mask"],
        "fast_minus_paper_db": fast["psnr_mask"] - paper["psnr_mask"],
        "time_ratio_paper_over_fast": np.mean(seconds["clip paper"]) / fast_s,
        "vae_error_ratio": np.mean(vae_error_ratios),
    }
    for key in ("identity_seen", "identity_unseen"):
        if none[key] is not None and fast[key] is not None:
            figures[f"{key}_ratio"] = fast[key] / none[key]
    if none["pose_accuracy"] is not None:
        figures["pose_accuracy_change"] = fast["pose_accuracy"] - none["pose_accuracy"]
    figures = {name: round(float(value), 4) for name, value in figures.items()}
    if folder is not None:
        with appearing(folder / "report.json") as temporary:
            temporary.write_text(json.dumps({"figures": figures, "scores": report}, indent=1) + "\n", encoding="utf-8")
    return figures


@torch.no_grad()
def _vae_error(model, clip: Clip) -> float:
    """Mean squared error inside the person of the true frames encoded and decoded by the VAE."""
    pixels = to_pixels(torch.from_numpy(clip.truth)).to(model._execution_device, model.vae.dtype)
    latents = (model.vae.encode(some).latent_dist.mode() for some in pixels.split(8))
    decoded = torch.cat([model.vae.decode(some).sample for some in latents])
    mask = torch.from_numpy(clip.poses.mask)[:, None].to(model._execution_device)
    return float(((decoded.float() - pixels.float()).square() * mask).sum() / mask.sum())


def _crude(clip: Clip) -> Clip:
    """Redraw the clip in another style: few flat colours, and dark lines where body parts meet."""

    def drawn(rgb: np.ndarray, poses: PoseSequence) -> np.ndarray:
        flat = np.round(rgb.astype(np.float32) / 51) * 51
        parts = poses.parts.astype(int)
        lines = np.zeros(parts.shape, bool)
        lines[:, 1:] |= parts[:, 1:] != parts[:, :-1]
        lines[:, :, 1:] |= parts[:, :, 1:] != parts[:, :, :-1]
        flat = flat[..., ::-1]  # swaps red and blue, for colours that skin and cloth rarely have
        return np.where(lines[..., None], 30, flat).astype(np.uint8)

    truth = drawn(clip.truth, clip.poses)
    return replace(clip, photo=drawn(clip.photo[None], clip.image_poses)[0], truth=truth)
