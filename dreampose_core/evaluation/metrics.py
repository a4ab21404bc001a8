"""Picture metrics on uint8 frames (T, H, W, 3), computed in float; no torch.

`Surface` uses exact U, V to follow colours on the body's surface through all poses. A surface point is a cell of a
part's U, V: GRID x GRID cells per part, 24 parts. With GRID 16, almost nothing of the photo itself counts as unseen
(1 % at 160 x 128, 0.1 % at 320 x 256), and a cell is still only a few pixels wide.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from ..poses import NUM_PARTS, PoseSequence

BEST_PSNR = 100.0  # dB, for frames without any error
_RADIUS, _SIGMA = 5, 1.5  # of SSIM's 11 x 11 window
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
GRID = 16
_CROSS = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)  # a pixel of a frame and its four neighbours
LEAST = 0.05  # share of the person's pixels; less may be only the one-cell border between seen and unseen
_NUM_CELLS = NUM_PARTS * GRID * GRID


def psnr(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, at most 100: the mean of the frames' values.

    mask: bool (T, H, W), the pixels to compare; frames without any are left out. NaN when every frame is left out.
    """
    return _mean(_decibels(_of_frames((frames.astype(np.float64) - truth) ** 2, mask)))


def pooled_psnr(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """PSNR in dB, at most 100, of all pixels of the mask bool (T, H, W) together; NaN when the mask is empty.

    Use it for masks that are small in some frames: a mean over frames would be dominated by frames in which a few
    pixels happen to be right.
    """
    pairs = zip(frames, truth, mask)
    errors = np.concatenate([(frame[m].astype(np.float64) - true[m]).ravel() for frame, true, m in pairs])
    return float(_decibels(np.mean(errors**2))) if len(errors) else float("nan")


def l1(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean absolute error, 0..1, over all frames; mask as in `psnr`."""
    return _mean(_of_frames(np.abs(frames.astype(np.float64) - truth), mask)) / 255


def ssim_mean(maps: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean of SSIM maps (T, H, W): of all windows that lie inside the frames or, with a mask as in `psnr`, of the
    windows around its pixels."""
    if mask is None:
        return float(maps[:, _RADIUS:-_RADIUS, _RADIUS:-_RADIUS].mean())
    return _mean(_of_frames(maps, mask))


def ssim_maps(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity around every pixel, float (T, H, W), at most 1; frames are mirrored at their edges.

    Wang et al. 2004: Gaussian window of 11 x 11, sigma 1.5, K 0.01 and 0.03; mean over the channels.
    """
    out = np.empty(frames.shape[:3])
    for index, (frame, true) in enumerate(zip(frames, truth)):
        x, y = (np.moveaxis(picture, -1, 0).astype(np.float64) for picture in (frame, true))  # (3, H, W)
        mean_x, mean_y, xx, yy, xy = (
            gaussian_filter(picture, _SIGMA, radius=_RADIUS, axes=(1, 2)) for picture in (x, y, x * x, y * y, x * y)
        )
        variances, covariance = xx - mean_x**2 + yy - mean_y**2, xy - mean_x * mean_y
        likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
        out[index] = (likeness / ((mean_x**2 + mean_y**2 + _C1) * (variances + _C2))).mean(0)
    return out


def sharpness(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Gradient magnitude inside the mask divided by the truth's: 1 is ideal, blur gives less, noise more."""
    inner = inside(mask)
    if not inner.any():
        return 1.0
    return float(_gradient(frames)[inner].mean() / max(_gradient(truth)[inner].mean(), 1e-9))


def inside(mask: np.ndarray) -> np.ndarray:
    """Erode a mask, bool (T, H, W), to pixels whose four neighbours are in it; the others mix with the background."""
    return binary_erosion(mask, _CROSS)


def _of_frames(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Mean of values (T, H, W, ...) in each frame, float (T,): over all pixels, or over those of the mask bool
    (T, H, W); NaN where the mask is empty."""
    if mask is None:
        return values.reshape(len(values), -1).mean(1)
    return np.array([frame[m].mean() if m.any() else np.nan for frame, m in zip(values, mask)])


def _decibels(errors):
    """Convert mean squared errors, 0..255², to PSNR in dB."""
    return np.minimum(BEST_PSNR, 10 * np.log10(255**2 / np.maximum(errors, 1e-12)))


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN when all are."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _gradient(frames: np.ndarray) -> np.ndarray:
    grey = frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return np.hypot(np.gradient(grey, axis=1), np.gradient(grey, axis=2))


class Surface:
    """The surface points that the pixels of a clip show.

    seen, unseen: bool (T, H, W), the person's pixels whose surface point the photo shows (the point itself or a
    neighbour on the same part), and those whose point it does not show. Both are None unless the photo's pose map has
    parts and the same charts.
    """

    def __init__(self, poses: PoseSequence, image_poses: PoseSequence):
        """poses: T pose maps with parts and U, V. image_poses: the photo's pose map (one frame, of any size)."""
        cells, person = _cells(poses), poses.mask
        self._inner, self._length = inside(person), len(poses)
        frames = np.arange(self._length)[:, None, None]
        self._index = (frames * _NUM_CELLS + cells)[self._inner]  # (N,), frame by frame
        self._counts = np.bincount(self._index, minlength=self._length * _NUM_CELLS).reshape(self._length, _NUM_CELLS)
        self.seen = self.unseen = self._known = None
        if image_poses.parts is not None and image_poses.charts == poses.charts:
            self._known = _spread(np.unique(_cells(image_poses)[image_poses.mask]))
            self.seen, self.unseen = person & self._known[cells], person & ~self._known[cells]

    def identity_errors(self, frames: np.ndarray, truth: np.ndarray) -> tuple[float | None, float | None]:
        """Colour errors of the surface, 0..1: at points that the photo shows, and at points that it does not show.

        frames, truth: uint8 (T, H, W, 3). For each point, compare its mean colour over all frames in which it is
        visible, in `frames` and in `truth`; return the mean absolute difference, points weighted by the number of
        pixels that show them. Both means are taken over the same pixels, so light and pose cancel out. So does flicker
        around the right colour, which `temporal_error` measures. Pixels at the person's edge are left out. A value is
        None where its points are less than the share LEAST of the person.
        """
        if self._known is None:
            return None, None
        counts = self._counts.sum(0)
        wrong = np.abs(self._sums(frames).sum(0) - self._sums(truth).sum(0)).mean(1)  # (cells,), times pixel counts
        both = []
        for which in (self._known, ~self._known):
            share = counts[which].sum() / max(1, counts.sum())
            both.append(float(wrong[which].sum() / counts[which].sum()) if share >= LEAST else None)
        return both[0], both[1]

    def temporal_error(self, frames: np.ndarray, truth: np.ndarray) -> float | None:
        """Error of the surface's colour changes from one frame to the next, 0..1: a measure of flicker.

        For each point visible in two consecutive frames, take the change of its mean colour in `frames` minus the
        change in `truth`, so that moving light and the pixel raster count as little as possible. Return the mean
        absolute value, points weighted by the pixels that show them in both frames. Pixels at the person's edge are
        left out. None when no point is visible in two consecutive frames.
        """
        wrong = (self._sums(frames) - self._sums(truth)) / np.maximum(self._counts, 1)[..., None]  # (T, cells, 3)
        weights = np.minimum(self._counts[1:], self._counts[:-1])
        total = weights.sum()
        return float((np.abs(np.diff(wrong, axis=0)).mean(2) * weights).sum() / total) if total else None

    def _sums(self, frames: np.ndarray) -> np.ndarray:
        """Sum the colours (0..1) of each point in each frame: float (T, cells, 3)."""
        colours = frames[self._inner].astype(np.float64) / 255
        size = self._length * _NUM_CELLS
        sums = np.stack([np.bincount(self._index, weights=channel, minlength=size) for channel in colours.T], -1)
        return sums.reshape(self._length, _NUM_CELLS, 3)


def _cells(poses: PoseSequence) -> np.ndarray:
    """The surface point of each pixel, int (T, H, W); 0, without meaning, outside the person."""
    column, row = (np.clip((poses.uv[:, i].astype(np.float32) * GRID).astype(int), 0, GRID - 1) for i in (0, 1))
    return np.where(poses.parts > 0, ((poses.parts.astype(int) - 1) * GRID + row) * GRID + column, 0)


def _spread(cells: np.ndarray) -> np.ndarray:
    """bool (cells,): the given cells and their eight neighbours on the same part."""
    known = np.zeros((NUM_PARTS, GRID, GRID), bool)
    known.ravel()[cells] = True
    return binary_dilation(known, np.ones((1, 3, 3), bool)).ravel()
