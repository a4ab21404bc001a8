"""Pose maps at another size: nearest neighbour, aspect kept, borders filled with background."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..images import Box, pad_box, placement
from .sequence import PoseSequence


def fitted(poses: PoseSequence, size: tuple[int, int], box: Box | None = None) -> PoseSequence:
    """What `box` shows of `poses`, scaled to (height, width) = `size`; what lies beyond the maps is background.

    box: in the maps' own pixels, of the shape of `size`; None holds the whole maps, centred. A photo fitted with the same box
    (`images.fit_image`) stays aligned with its map.
    """
    if box is None and poses.size == tuple(size):
        return poses
    seen, (top, left, height, width) = placement(poses.size, size, box or pad_box(poses.size, size))
    rows = _nearest(seen.top, seen.height, height, poses.size[0])
    columns = _nearest(seen.left, seen.width, width, poses.size[1])

    def fit(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        out = np.zeros((*array.shape[:-2], *size), array.dtype)
        for old, new in zip(array.reshape(-1, *array.shape[-2:]), out.reshape(-1, *size)):  # map by map: no copy of the whole
            new[top : top + height, left : left + width] = old[rows].take(columns, axis=1)
        return out

    return replace(poses, parts=fit(poses.parts), uv=fit(poses.uv))


def person_box(poses: PoseSequence, frame: int = 0) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right) of the person in map `frame`; None where there is nobody.

    bottom, right: the first row and column without the person, as `images.crop_box` takes them.
    """
    mask = poses.select(slice(frame, frame + 1)).mask[0]
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _nearest(start: float, length: float, number: int, source: int) -> np.ndarray:
    return np.clip((start + (np.arange(number) + 0.5) * length / number).astype(int), 0, source - 1)
