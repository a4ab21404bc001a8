"""All scores of a clip's frames against the truth, and the report: a row of their means for each way to make frames."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError, shown
from ..model.conditioning import to_pixels
from .clips import Clip
from .metrics import LEAST, Surface, l1, pooled_psnr, psnr, sharpness, ssim_maps, ssim_mean

POSE_STRIDE = 4  # only every fourth frame, since the estimator takes longer than all other scores together
_BATCH = 8
_HEAD = (23, 24)  # DensePose's parts of the head

Report = dict[str, dict[str, float | None]]
"""The scores by block and by name in MEASURES."""
Lpips = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps two batches of pixels (N, 3, H, W) in [-1, 1] to their N distances, in any shape."""


# The scores, see `Scorer.score`, with title and decimals of those that have a column in tables.
MEASURES: dict[str, tuple[str, int] | None] = {
    "psnr": ("PSNR", 1),
    "psnr_mask": ("PSNR person", 1),
    "psnr_seen": ("PSNR seen", 1),
    "psnr_unseen": ("PSNR unseen", 1),
    "l1": None,
    "l1_mask": None,
    "ssim": ("SSIM", 3),
    "ssim_mask": None,
    "lpips": None,
    "lpips_mask": None,
    "sharpness": ("sharpness", 2),
    "psnr_head": ("PSNR head", 1),
    "ssim_head": None,
    "sharpness_head": ("sharpness head", 2),
    "identity_seen": ("identity seen", 3),
    "identity_unseen": ("identity unseen", 3),
    "pose_accuracy": ("pose", 2),
    "temporal_error": ("temporal", 4),
}


class Scorer:
    """Scores frames of one clip; computes once what depends only on the clip."""

    def __init__(self, clip: Clip, estimator=None, lpips: Lpips | None = None):
        """estimator: a `densepose.Estimator` for the pose accuracy. lpips: the perceptual distance. None skips the
        score."""
        self.clip, self.estimator, self.lpips = clip, estimator, lpips
        poses, self.mask = clip.poses, clip.poses.mask
        self.head = None if poses.parts is None else np.isin(poses.parts, _HEAD)
        self.surface = None if poses.parts is None or poses.uv is None else Surface(poses, clip.image_poses)
        self._readable = None if estimator is None else self._pose_accuracy(clip.truth)

    def score(self, frames: np.ndarray) -> dict[str, float | None]:
        """Compute every score in MEASURES for frames uint8 (T, h, w, 3) in the model's size; None if not measurable.

        psnr, l1 (0..1), ssim: over whole frames; with _mask inside the person, with _head inside the head. sharpness:
        inside the person or the head. psnr_seen, psnr_unseen: over all the person's pixels together whose surface the
        photo shows, or does not show; for these, identity and temporal_error see `Surface`. pose_accuracy: of the
        pixels that are person in the truth or for the estimator, the share where the estimator finds the right part,
        divided by that share in the true frames. lpips_mask: LPIPS with the truth outside the person.
        """
        truth, mask, surface = self.clip.truth, self.mask, self.surface
        similarity, scores = ssim_maps(frames, truth), {"sharpness": sharpness(frames, truth, mask)}
        regions = {"": None, "_mask": mask}
        if self.head is not None and self.head.any():
            regions["_head"] = self.head
            scores["sharpness_head"] = sharpness(frames, truth, self.head)
        for end, where in regions.items():
            scores[f"psnr{end}"], scores[f"l1{end}"] = psnr(frames, truth, where), l1(frames, truth, where)
            scores[f"ssim{end}"] = ssim_mean(similarity, where)
        if self._readable:
            scores["pose_accuracy"] = self._pose_accuracy(frames) / self._readable
        if surface is not None:
            scores["identity_seen"], scores["identity_unseen"] = surface.identity_errors(frames, truth)
            scores["temporal_error"] = surface.temporal_error(frames, truth)
            for name, where in (("psnr_seen", surface.seen), ("psnr_unseen", surface.unseen)):
                if where is not None and where.sum() >= LEAST * max(1, mask.sum()):
                    scores[name] = pooled_psnr(frames, truth, where)
        if self.lpips is not None:
            scores["lpips"] = self._lpips(frames)
            scores["lpips_mask"] = self._lpips(np.where(mask[..., None], frames, truth))
        values = {key: scores.get(key) for key in MEASURES}
        return {key: None if value is None or not math.isfinite(value) else value for key, value in values.items()}

    def unmeasured(self) -> dict[str, str]:
        """Return the reason for each score that no frames of this clip can have, by the score's name."""
        missing = {}
        if self.lpips is None:
            missing["lpips"] = "not measured: no weights were given (--lpips)"
        if self.estimator is None:
            missing["pose_accuracy"] = "not measured: the body tracker in assets/body is missing or damaged"
        if self.surface is None:
            missing["identity, temporal_error, seen and unseen"] = "not measured: parts and U, V are not both known"
        return missing

    def _pose_accuracy(self, frames: np.ndarray) -> float:
        truth = self.clip.poses.select(slice(None, None, POSE_STRIDE))
        if truth.parts is None:
            return 0.0
        estimated = self.estimator.estimate(list(frames[::POSE_STRIDE]))
        right = (estimated.parts == truth.parts) & truth.mask
        return float(right.sum() / max(1, (estimated.mask | truth.mask).sum()))

    def _lpips(self, frames: np.ndarray) -> float:
        batches = zip(*(to_pixels(torch.from_numpy(x)).split(_BATCH) for x in (frames, self.clip.truth)))
        with torch.no_grad():
            return float(torch.cat([self.lpips(a, b).flatten() for a, b in batches]).mean())


def mean_scores(scores: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Average each score over the clips that have it, rounded to 4 decimals; None where no clip has it."""
    known = {key: [score[key] for score in scores if score[key] is not None] for key in MEASURES}
    return {key: round(float(np.mean(values)), 4) if values else None for key, values in known.items()}


def table(report: Report) -> str:
    """Format a report as a Markdown table, a row for each block, "–" for None."""
    columns = {key: MEASURES[key] for key in next(iter(report.values())) if MEASURES[key]}
    titles = " | ".join(title for title, _ in columns.values())
    lines = [f"| | {titles} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in report.items():
        cells = ("–" if row[key] is None else f"{row[key]:.{decimals}f}" for key, (_, decimals) in columns.items())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def load_lpips(path: Path) -> Lpips:
    """Load the perceptual distance from a TorchScript file, as `torch.jit.trace(lpips.LPIPS(), (a, b)).save(path)`
    writes it. Raises InputError when the file cannot be loaded or returns something else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated; no other format runs without code
            distance = torch.jit.load(str(path), map_location="cpu").eval()
            probe = torch.zeros(2, 3, 64, 64)
            if distance(probe, probe).numel() != 2:
                raise ValueError("not one distance for each picture")
    except Exception as error:  # torch raises many types on other files
        needed = "give a TorchScript file of LPIPS that returns one distance for each pair of pictures"
        raise InputError(f"{shown(path.name)} cannot be loaded; {needed}.") from error
    return distance
