"""Picture metrics on uint8 frames (T, H, W, 3), computed in float; no torch."""

from __future__ import annotations

import numpy as np

from ..poses import PoseSequence


def psnr(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB over all frames: the mean of each frame's, at most 100.

    mask: bool (T, H, W), only these pixels count; frames without any are left out.
    """
    values = []
    for index, (frame, true) in enumerate(zip(frames, truth)):
        error = (frame.astype(np.float64) - true.astype(np.float64)) ** 2
        if mask is not None:
            if not mask[index].any():
                continue
            error = error[mask[index]]
        values.append(min(100.0, 10 * np.log10(255**2 / max(error.mean(), 1e-12))))
    return float(np.mean(values))


def sharpness(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Gradient magnitude inside the mask as a share of the truth's: 1 is right, blur is below, noise above."""
    inner = mask & np.roll(mask, 1, 1) & np.roll(mask, -1, 1) & np.roll(mask, 1, 2) & np.roll(mask, -1, 2)
    if not inner.any():
        return 1.0
    return float(_gradient(frames)[inner].mean() / max(_gradient(truth)[inner].mean(), 1e-9))


def _gradient(frames: np.ndarray) -> np.ndarray:
    grey = frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return np.hypot(np.gradient(grey, axis=1), np.gradient(grey, axis=2))


def densepose_accuracy(found: PoseSequence, truth: PoseSequence) -> dict[str, float]:
    """How right DensePose maps are. parts: the share of the true person's pixels with the right part. union: the same among pixels that
    are person in truth or in the reading. uv: the mean error of U and V (0..1) where the part is right, 1 where that is nowhere."""
    person, right = found.mask | truth.mask, (found.parts == truth.parts) & truth.mask
    error = 1.0
    if found.uv is not None and truth.uv is not None and right.any():
        pairs = ((a.astype(np.float32) - b.astype(np.float32))[:, r] for a, b, r in zip(found.uv, truth.uv, right))
        error = float(np.abs(np.concatenate(list(pairs), 1)).mean())
    return {"parts": float(right.sum() / max(1, truth.mask.sum())), "union": float(right.sum() / max(1, person.sum())), "uv": error}
