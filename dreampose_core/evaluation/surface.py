"""What exact U, V make possible: colours followed over the body's surface, whatever the pose.

A surface point is a cell of a part's U, V: GRID x GRID cells a part, 24 parts. With 16 cells hardly anything of the
photo itself counts as unseen (1 % at 160 x 128, 0.1 % at 320 x 256), and a cell is still only some pixels wide.
"""

from __future__ import annotations

import numpy as np

from ..poses import NUM_PARTS, PoseSequence
from .metrics import inside

GRID = 16
# of the person's pixels: less than that may be nothing but the border between seen and unseen, which is a cell wide
LEAST = 0.05
_NUM_CELLS = NUM_PARTS * GRID * GRID


class Surface:
    """The surface points that the pixels of a clip show.

    seen, unseen: bool (T, H, W), pixels of the person whose surface point can be seen in the photo (itself or a
    neighbour on the same part), and those where it cannot; both None where the photo's map is not known in the same
    charts.
    """

    def __init__(self, poses: PoseSequence, image_poses: PoseSequence | None):
        """poses: T maps with parts and U, V; image_poses: the photo's map (one frame), which may be of another size, or
        None."""
        cells, person = _cells(poses), poses.mask
        inner = inside(person)
        self._inner = inner
        self._length = len(poses)
        self._index = (np.arange(self._length)[:, None, None] * _NUM_CELLS + cells)[inner]  # (N,), frame by frame
        self._counts = np.bincount(self._index, minlength=self._length * _NUM_CELLS).reshape(self._length, _NUM_CELLS)
        self.seen = self.unseen = self._known = None
        if image_poses is not None and image_poses.parts is not None and image_poses.charts == poses.charts:
            self._known = _spread(np.unique(_cells(image_poses)[image_poses.mask]))
            self.seen, self.unseen = person & self._known[cells], person & ~self._known[cells]

    @classmethod
    def of(cls, poses: PoseSequence, image_poses: PoseSequence | None) -> Surface | None:
        """The surface points of a clip, None where parts or U, V are not known."""
        return None if poses.parts is None or poses.uv is None else cls(poses, image_poses)

    def identity_errors(self, frames: np.ndarray, truth: np.ndarray) -> tuple[float | None, float | None]:
        """How wrong the colours of the surface are, 0..1: at points seen in the photo, and at those unseen.

        For each point its mean colour over all frames in which it is visible, in `frames` and in `truth`, uint8 (T, H,
        W, 3); the mean absolute difference of the two, points weighted by how many pixels show them. Since both means
        are taken over the same pixels, light and pose cancel out, and so does what flickers around the right colour, of
        which `temporal_error` tells. Pixels at the person's edge are left out. None where less than LEAST of the person
        is such surface.
        """
        if self._known is None:
            return None, None
        counts = self._counts.sum(0)
        wrong = np.abs(self._sums(frames).sum(0) - self._sums(truth).sum(0)).mean(
            1
        )  # (cells,), times the number of pixels
        both = []
        for which in (self._known, ~self._known):
            share = counts[which].sum() / max(1, counts.sum())
            both.append(float(wrong[which].sum() / counts[which].sum()) if share >= LEAST else None)
        return both[0], both[1]

    def temporal_error(self, frames: np.ndarray, truth: np.ndarray) -> float | None:
        """How differently from the truth the surface changes its colour from one frame to the next, 0..1.

        For each point visible in two consecutive frames the change of its mean colour in `frames`, minus the change in
        `truth`, so that moving light and the raster of pixels count as little as they can; mean absolute value, points
        weighted by the pixels that show them in both frames. Pixels at the person's edge are left out. None where no
        point is visible twice.
        """
        wrong = (self._sums(frames) - self._sums(truth)) / np.maximum(self._counts, 1)[..., None]  # (T, cells, 3)
        weights = np.minimum(self._counts[1:], self._counts[:-1])
        total = weights.sum()
        return float((np.abs(np.diff(wrong, axis=0)).mean(2) * weights).sum() / total) if total else None

    def _sums(self, frames: np.ndarray) -> np.ndarray:
        """Sums of the colours (0..1) of each point in each frame, float (T, cells, 3)."""
        colours = frames[self._inner].astype(np.float64) / 255
        size = self._length * _NUM_CELLS
        sums = np.stack([np.bincount(self._index, weights=channel, minlength=size) for channel in colours.T], -1)
        return sums.reshape(self._length, _NUM_CELLS, 3)


def enough(mask: np.ndarray, person: np.ndarray) -> bool:
    """Whether a mask is at least LEAST of the person."""
    return bool(mask.sum() >= LEAST * max(1, person.sum()))


def _cells(poses: PoseSequence) -> np.ndarray:
    """The surface point of each pixel, int (T, H, W); 0 outside the person, where it means nothing."""
    column, row = (np.clip((poses.uv[:, i].astype(np.float32) * GRID).astype(int), 0, GRID - 1) for i in (0, 1))
    return np.where(poses.parts > 0, ((poses.parts.astype(int) - 1) * GRID + row) * GRID + column, 0)


def _spread(cells: np.ndarray) -> np.ndarray:
    """bool (cells,): the given cells and their eight neighbours on the same part."""
    known = np.zeros((NUM_PARTS, GRID + 2, GRID + 2), bool)
    part, row, column = cells // GRID**2, cells // GRID % GRID, cells % GRID
    for down in range(3):
        for across in range(3):
            known[part, row + down, column + across] = True
    return known[:, 1:-1, 1:-1].ravel()
