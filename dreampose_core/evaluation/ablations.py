"""The paper's design taken apart: small models that differ in one thing, each trained equally long, measured side by side."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import torch

from ..conditioning import ModelForm
from ..errors import InputError
from ..files import appearing
from ..images import write_png
from ..mannequin.dataset import MannequinSamples
from ..mini import MiniRun, build_mini
from ..pipeline import DreamPosePipeline
from ..progress import OnProgress, ShouldStop, check_stop, ignore_progress, never_stop
from ..training.base import Dropout, train_base
from ..training.loop import LoopOptions
from .clips import MannequinClips
from .pictures import panel
from .report import Report, table
from .scores import Scorer, mean_scores

# what differs from the paper's design: `ModelForm`'s fields, and the adapter's sources as "tokens"
VARIANTS: dict[str, dict] = {
    "both": {}, "clip": {"tokens": "clip"}, "vae": {"tokens": "vae"}, "places": {"tokens": "places"},
    "one_pose": {"pose_window": "one"}, "five_copies": {"pose_window": "copies"}, "uv_alone": {"pose_encoding": "uv"},
    "frame_attention": {"frame_attention": True}, "attention": {"reference_attention": True}, "texture": {"reference_warp": "texture"},
    "encoded": {"reference_warp": "encoded"},
    "texture_places": {"reference_warp": "texture", "tokens": "places"},
    "texture_attention": {"reference_warp": "texture", "reference_attention": True},
}  # fmt: skip
_PAPERS = {
    "reference_warp": "none", "pose_window": "five", "pose_encoding": "iuv", "reference_attention": False, "frame_attention": False,
}  # fmt: skip
_GUIDANCE = (0.0, 1.0, 2.0, 4.0)
_FRAMES = 16  # of a clip


def ablate(
    pipe: DreamPosePipeline, folder: Path, *, names: tuple[str, ...] = tuple(VARIANTS), size: tuple[int, int] | None = None,
    unet_channels: tuple[int, ...] = MiniRun.unet_channels, steps: int = 1500, batch_size: int = 8, lr: float = 5e-4, people: int = 6,
    seed: int = 0, precision: str = "fp32", estimator=None,
    on_progress: OnProgress = ignore_progress, should_stop: ShouldStop = never_stop,
) -> Report:  # fmt: skip
    """The figures of `scores.KEYS` for each variant, means over held-out people.

    pipe: its device and VAE are all variants'; its UNet is not used. size: (height, width) of all, pipe's where it is None; without a
    texture a model of mini's size learns nothing in minutes, so a smaller one tells more. unet_channels, steps, batch_size, lr, seed: of
    every training, which sees the same samples and the same noise. Each variant has a folder of its own below `folder` with checkpoints
    and scores.json; those that are finished are not trained again. Writes report.json and table.md. Raises InputError, Cancelled.
    """
    if strange := sorted(set(names) - set(VARIANTS)):
        raise InputError(f"There is no variant {strange[0]!r}; there are {', '.join(VARIANTS)}.")
    folder.mkdir(parents=True, exist_ok=True)
    height, width = size or pipe.form.size
    multiple = pipe.factor * 2 ** (len(unet_channels) - 1)
    if any(side < multiple or side % multiple for side in (height, width)):
        raise InputError(f"The size is {height}x{width}; both must be multiples of {multiple}.")
    form = ModelForm(**{**vars(pipe.form), "height": height, "width": width})
    asked = {"steps": steps, "batch_size": batch_size, "lr": lr, "people": people, "seed": seed, "size": [height, width],
             "unet_channels": list(unet_channels), "sampling_steps": form.standard_steps}  # fmt: skip
    report = {}
    for name in names:
        check_stop(should_stop)
        done = folder / name / "scores.json"
        before = json.loads(done.read_text()) if done.is_file() else None
        if before is not None and before["asked"] != asked:
            raise InputError(f"{done} is of another run: {before['asked']}; choose another folder.")
        if before is None:
            options = LoopOptions(steps, lr, ema=0.995)
            variant = _trained(pipe, form, name, unet_channels, folder / name, options, batch_size, seed, precision, on_progress,
                               should_stop)  # fmt: skip
            before = {"asked": asked, "scores": _scored(variant, people, seed, estimator, folder / name, should_stop)}
            _write(done, json.dumps(before, indent=1))
        report[name] = before["scores"]
    _write(folder / "report.json", json.dumps(report, indent=1))
    _write(folder / "table.md", table(report) + "\n")
    return report


def guidance_grid(pipe: DreamPosePipeline, path: Path, *, person: int = 0, quality: str = "standard") -> None:
    """Writes a PNG: one frame of a held-out person for every pair of guidance weights; s_I grows downwards, s_P to the right."""
    clip = next(iter(MannequinClips(person + 1, pipe.form.size))) if person == 0 else list(MannequinClips(person + 1, pipe.form.size))[-1]
    middle = clip.poses.select([len(clip) // 2])
    cells = {}
    for s_image, s_pose in product(_GUIDANCE, _GUIDANCE):
        made = pipe(clip.photo, middle, clip.image_poses, image_guidance=s_image, pose_guidance=s_pose,
                    generator=torch.Generator().manual_seed(0), **vars(pipe.form.sampling(quality)))  # fmt: skip
        cells[s_image, s_pose] = panel(made.frames[0], f"s_I {s_image:g}, s_P {s_pose:g}")
    truth = [panel(clip.photo, "photo"), panel(clip.truth[len(clip) // 2], "truth")]
    rows = [np.concatenate([cells[s_image, s_pose] for s_pose in _GUIDANCE], 1) for s_image in _GUIDANCE]
    left = np.concatenate([*truth, *[np.zeros_like(truth[0])] * (len(rows) - 2)], 0)
    write_png(np.concatenate([left, np.concatenate(rows)], 1), path)


def _trained(
    pipe, form, name, unet_channels, folder, options, batch_size, seed, precision, on_progress, should_stop
) -> DreamPosePipeline:
    """The variant, trained; its checkpoints let a stopped run go on."""
    changes = {**_PAPERS, **VARIANTS[name]}
    tokens = changes.pop("tokens", "both")
    form = ModelForm(**{**vars(form), **changes, "image_guidance": 1.0, "pose_guidance": 1.0})
    variant = build_mini(form, seed, vae=pipe.vae, tokens=tokens, unet_channels=unet_channels).to(pipe.device)
    samples = MannequinSamples(form.size, batch_size, seed, pipe.device, consecutive=form.frame_attention)
    # every map has its U, V: a model that is told poses by U, V alone could not do without
    train_base(variant, samples, options, seed, dropout=Dropout(uv=0, parts=0), noisier=MiniRun.noisier,
               folder=folder, precision=torch.bfloat16 if precision == "bf16" else torch.float32,
               on_progress=on_progress, should_stop=should_stop)  # fmt: skip
    return variant


def _scored(pipe, people, seed, estimator, folder, should_stop) -> dict[str, float | None]:
    scores, shown = [], []
    for number, clip in enumerate(MannequinClips(people, pipe.form.size)):
        check_stop(should_stop)
        clip = clip.first(_FRAMES)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        frames = pipe(clip.photo, clip.poses, clip.image_poses, generator=generator).frames
        scores.append(Scorer(clip, estimator).score(frames))
        at = _FRAMES // 2
        shown.append(np.concatenate([clip.photo, clip.truth[at], frames[at]], 0))
    write_png(np.concatenate(shown, 1), folder / "contact.png")
    return mean_scores(scores)


def _write(path: Path, text: str) -> None:
    with appearing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
