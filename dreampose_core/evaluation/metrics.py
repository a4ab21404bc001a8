"""Picture metrics on uint8 frames (T, H, W, 3), computed in float; no torch."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..poses import PoseSequence

BEST_PSNR = 100.0  # dB, given to frames without any error
_RADIUS, _SIGMA = 5, 1.5  # of SSIM's window, which is 11 x 11
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB over all frames: the mean of each frame's, at most 100.

    mask: bool (T, H, W), only these pixels count; frames without any are left out. NaN where all are.
    """
    return _mean(psnr_of_frames(frames, truth, mask))


def psnr_of_frames(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Each frame's PSNR in dB, float (T,), at most 100; NaN where the frame has nothing of the mask."""
    return _decibels(_of_frames(_errors(frames, truth) ** 2, mask))


def pooled_psnr(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """PSNR in dB, at most 100, of all pixels of the mask bool (T, H, W) taken together; NaN where it is empty.

    For masks that are small in some frames: a mean of frames' PSNR would be ruled by those where three pixels happen to
    be right.
    """
    pairs = zip(frames, truth, mask)
    errors = np.concatenate([(frame[m].astype(np.float64) - true[m]).ravel() for frame, true, m in pairs])
    return float(_decibels(np.mean(errors**2))) if len(errors) else float("nan")


def l1(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean absolute error, 0..1, over all frames; mask as in `psnr`."""
    return _mean(_of_frames(np.abs(_errors(frames, truth)), mask)) / 255


def ssim(frames: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity, at most 1, of whole frames with sides of at least 11 pixels.

    Wang et al. 2004: a Gaussian window of 11 x 11, sigma 1.5, K 0.01 and 0.03, every channel on its own; windows that
    reach beyond the frame do not count.
    """
    return ssim_mean(ssim_maps(frames, truth))


def ssim_mean(maps: np.ndarray, mask: np.ndarray | None = None) -> float:
    """The mean of SSIM maps (T, H, W): of all windows inside the frames, or of the windows around the pixels of the
    mask as in `psnr`."""
    if mask is None:
        return float(maps[:, _RADIUS:-_RADIUS, _RADIUS:-_RADIUS].mean())
    return _mean(_of_frames(maps, mask))


def ssim_maps(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The structural similarity around every pixel, float (T, H, W), the mean of the channels; frames go on mirrored
    beyond their edge."""
    height, width = frames.shape[1:3]
    down, across = _window(height), _window(width).T
    out = np.empty(frames.shape[:3])
    for index, (frame, true) in enumerate(zip(frames, truth)):
        x, y = (np.moveaxis(picture, -1, 0).astype(np.float64) for picture in (frame, true))  # (3, H, W)
        mean_x, mean_y, xx, yy, xy = (down @ picture @ across for picture in (x, y, x * x, y * y, x * y))
        variances, covariance = xx - mean_x**2 + yy - mean_y**2, xy - mean_x * mean_y
        likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
        out[index] = (likeness / ((mean_x**2 + mean_y**2 + _C1) * (variances + _C2))).mean(0)
    return out


@cache
def _window(length: int) -> np.ndarray:
    """The Gaussian window as a matrix (length, length): a product with it blurs along one axis."""
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    source = np.pad(np.arange(length), _RADIUS, mode="symmetric")
    matrix = np.zeros((length, length))
    for offset, weight in enumerate(weights / weights.sum()):
        np.add.at(matrix, (np.arange(length), source[offset : offset + length]), weight)
    return matrix


def sharpness(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Gradient magnitude inside the mask as a share of the truth's: 1 is right, blur is below, noise above."""
    inner = inside(mask)
    if not inner.any():
        return 1.0
    return float(_gradient(frames)[inner].mean() / max(_gradient(truth)[inner].mean(), 1e-9))


def inside(mask: np.ndarray) -> np.ndarray:
    """bool (T, H, W): the pixels of a mask whose four neighbours belong to it, too; the others mix with what is
    behind."""
    m = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    return mask & m[:, :-2, 1:-1] & m[:, 2:, 1:-1] & m[:, 1:-1, :-2] & m[:, 1:-1, 2:]


def densepose_accuracy(found: PoseSequence, truth: PoseSequence) -> dict[str, float]:
    """How right DensePose maps are. parts: the share of the true person's pixels with the right part. union: the same
    among pixels that are person in truth or in the reading. uv: the mean error of U and V (0..1) where the part is
    right, 1 where that is nowhere."""
    person, right = found.mask | truth.mask, (found.parts == truth.parts) & truth.mask
    error = 1.0
    if found.uv is not None and truth.uv is not None and right.any():
        pairs = ((a.astype(np.float32) - b.astype(np.float32))[:, r] for a, b, r in zip(found.uv, truth.uv, right))
        error = float(np.abs(np.concatenate(list(pairs), 1)).mean())
    return {
        "parts": float(right.sum() / max(1, truth.mask.sum())),
        "union": float(right.sum() / max(1, person.sum())),
        "uv": error,
    }


def _errors(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return frames.astype(np.float64) - truth


def _of_frames(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The mean of values (T, H, W, ...) in each frame, or in what it has of the mask bool (T, H, W); NaN where that is
    nothing."""
    if mask is None:
        return values.reshape(len(values), -1).mean(1)
    return np.array([frame[m].mean() if m.any() else np.nan for frame, m in zip(values, mask)])


def _decibels(errors):
    """Mean squared errors, 0..255², as dB."""
    return np.minimum(BEST_PSNR, 10 * np.log10(255**2 / np.maximum(errors, 1e-12)))


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN where all is."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _gradient(frames: np.ndarray) -> np.ndarray:
    grey = frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return np.hypot(np.gradient(grey, axis=1), np.gradient(grey, axis=2))
