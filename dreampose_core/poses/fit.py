"""Pose maps at another size: nearest neighbour, aspect kept, borders filled with background."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..images import fit_box
from .sequence import PoseSequence


def fitted(poses: PoseSequence, size: tuple[int, int]) -> PoseSequence:
    """`poses` scaled to lie wholly inside (height, width) = `size`, centred, the rest background."""
    if poses.size == tuple(size):
        return poses
    (height, width), (source_height, source_width) = size, poses.size
    top, left, inner_height, inner_width = fit_box(poses.size, size)
    rows = np.minimum(((np.arange(inner_height) + 0.5) * source_height / inner_height).astype(int), source_height - 1)
    columns = np.minimum(((np.arange(inner_width) + 0.5) * source_width / inner_width).astype(int), source_width - 1)

    def fit(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        out = np.zeros((*array.shape[:-2], height, width), array.dtype)
        out[..., top : top + inner_height, left : left + inner_width] = array[..., rows[:, None], columns[None, :]]
        return out

    return replace(poses, parts=fit(poses.parts), uv=fit(poses.uv))
