"""All figures of one way to make the frames of a clip: one block of report.json."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError, shown
from ..model.conditioning import to_pixels
from ..poses import PoseSequence, converted
from .clips import Clip
from .metrics import densepose_accuracy, l1, pooled_psnr, psnr, psnr_of_frames, sharpness, ssim_maps, ssim_mean
from .surface import Surface, enough

KEYS = (
    "psnr",
    "psnr_mask",
    "psnr_seen",
    "psnr_unseen",
    "l1",
    "l1_mask",
    "ssim",
    "ssim_mask",
    "lpips",
    "lpips_mask",
    "sharpness",
    "psnr_head",
    "ssim_head",
    "sharpness_head",
    "identity_seen",
    "identity_unseen",
    "pose_accuracy",
    "temporal_error",
)
POSE_STRIDE = 4  # every fourth frame goes to the estimator, which takes longer than all else together
_BATCH = 8
_HEAD = (23, 24)  # parts of the head

Lpips = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Two batches of pixels (N, 3, H, W) in [-1, 1] -> their distances, N values in any shape."""


class Scorer:
    """What does not depend on who made the frames of a clip, computed once."""

    def __init__(self, clip: Clip, estimator=None, lpips: Lpips | None = None):
        """estimator: a `densepose.Estimator` for the pose accuracy, lpips for the perceptual distance; None leaves them
        unmeasured."""
        self.clip, self.estimator, self.lpips = clip, estimator, lpips
        self.mask = clip.poses.mask
        self.head = None if clip.poses.parts is None else np.isin(clip.poses.parts, _HEAD)
        self.surface = Surface.of(clip.poses, clip.image_poses)
        self._probed = slice(None, None, POSE_STRIDE)
        self._readable = None if estimator is None else self._pose_accuracy(clip.truth)

    def score(self, frames: np.ndarray) -> dict[str, float | None]:
        """Every figure of KEYS for frames uint8 (T, h, w, 3) in the model's size; None for what cannot be said of this
        clip.

        psnr, l1 (0..1), ssim: over the frame; with _mask inside the person, with _head in their head; psnr_seen,
        psnr_unseen: inside the person, of all pixels together whose surface the photo shows or not (see `Surface`).
        pose_accuracy: the right parts' share that the estimator finds ("union" of `densepose_accuracy`) over the share
        that it finds in the true frames. lpips_mask: with the truth outside the person.
        """
        truth, mask, surface = self.clip.truth, self.mask, self.surface
        likeness = ssim_maps(frames, truth)
        found = {
            "psnr": psnr(frames, truth),
            "psnr_mask": psnr(frames, truth, mask),
            "l1": l1(frames, truth),
            "l1_mask": l1(frames, truth, mask),
            "ssim": ssim_mean(likeness),
            "ssim_mask": ssim_mean(likeness, mask),
            "sharpness": sharpness(frames, truth, mask),
            "pose_accuracy": self._pose_accuracy(frames) / self._readable if self._readable else None,
        }
        if self.head is not None and self.head.any():
            found["psnr_head"] = psnr(frames, truth, self.head)
            found["ssim_head"] = ssim_mean(likeness, self.head)
            found["sharpness_head"] = sharpness(frames, truth, self.head)
        if surface is not None:
            found["identity_seen"], found["identity_unseen"] = surface.identity_errors(frames, truth)
            found["temporal_error"] = surface.temporal_error(frames, truth)
            for name, where in (("psnr_seen", surface.seen), ("psnr_unseen", surface.unseen)):
                if where is not None and enough(where, mask):
                    found[name] = pooled_psnr(frames, truth, where)
        if self.lpips is not None:
            found["lpips"] = self._lpips(frames)
            found["lpips_mask"] = self._lpips(np.where(mask[..., None], frames, truth))
        return {key: value if (value := found.get(key)) is not None and math.isfinite(value) else None for key in KEYS}

    def psnr_of_frames(self, frames: np.ndarray) -> np.ndarray:
        """PSNR in dB inside the person, frame by frame (T,), NaN where nobody is."""
        return psnr_of_frames(frames, self.clip.truth, self.mask)

    def _pose_accuracy(self, frames: np.ndarray) -> float:
        truth = self.clip.poses.select(self._probed)
        if truth.parts is None:
            return 0.0
        found = converted(self.estimator.estimate(list(frames[self._probed])), truth.charts)
        return densepose_accuracy(found, truth)["union"]

    def _lpips(self, frames: np.ndarray) -> float:
        batches = zip(*(to_pixels(torch.from_numpy(x)).split(_BATCH) for x in (frames, self.clip.truth)))
        with torch.no_grad():
            return float(torch.cat([self.lpips(a, b).flatten() for a, b in batches]).mean())


def mean_scores(scores: list[dict[str, float | None]]) -> dict[str, float | None]:
    """The mean of each figure over the clips of which it is known, rounded; None where it is known of none."""
    known = {key: [score[key] for score in scores if score[key] is not None] for key in KEYS}
    return {key: round(float(np.mean(values)), 4) if values else None for key, values in known.items()}


def load_lpips(path: Path) -> Lpips:
    """The perceptual distance in a TorchScript file, as `torch.jit.trace(lpips.LPIPS(), (a, b)).save(path)` makes it.
    Raises InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch calls TorchScript deprecated; it is still the one form that needs no code
            distance = torch.jit.load(str(path), map_location="cpu").eval()
            probe = torch.zeros(2, 3, 64, 64)
            works = distance(probe, probe).numel() == 2
    except Exception as error:  # torch raises many kinds on files of another kind
        raise InputError(
            f"{shown(path.name)} cannot be loaded; give a TorchScript file of LPIPS that takes two batches."
        ) from error
    if not works:
        raise InputError(
            f"{shown(path.name)} does not give one distance for each picture; give a TorchScript file of LPIPS."
        )
    return distance


def unmeasured(estimator, lpips, poses: PoseSequence) -> dict[str, str]:
    """Why figures are missing from every block, by figure, in words."""
    missing = {}
    if lpips is None:
        missing["lpips"] = "not measured: no weights were given (--lpips)"
    if estimator is None:
        missing["pose_accuracy"] = "not measured: the body tracker in assets/body is missing or damaged"
    if poses.parts is None or poses.uv is None:
        missing["identity, temporal_error, seen and unseen"] = "not measured: parts and U, V are not both known"
    return missing
