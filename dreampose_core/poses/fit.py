"""Resize pose maps: nearest neighbour, or U, V as the original does; aspect kept, borders filled with background."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..media import Box, pad_box, placement
from .sequence import PoseSequence


def fitted(poses: PoseSequence, size: tuple[int, int], box: Box | None = None, bilinear: bool = False) -> PoseSequence:
    """Scale the part of `poses` in `box` to (height, width) = `size`; background where the box exceeds the maps.

    box: in the maps' pixels, with the aspect of `size`; None shows the whole maps, centred. A photo fitted with the
    same box (`images.fit_image`) stays aligned with its map. bilinear: interpolate U, V, also across the borders of
    parts, as the original does; parts are never interpolated.
    """
    if box is None and poses.size == tuple(size):
        return poses
    box = box or pad_box(poses.size, size)
    seen, (top, left, height, width) = placement(poses.size, size, box)
    rows, columns = (seen.top, seen.height, height, poses.size[0]), (seen.left, seen.width, width, poses.size[1])
    between = tuple(zip((_between(*rows), _between(*columns)), ((-1, 1), (1, -1))))

    def fit(array: np.ndarray | None, bilinear: bool) -> np.ndarray | None:
        if array is None:
            return None
        out = np.zeros((*array.shape[:-2], *size), array.dtype)
        # one map at a time, to avoid a copy of the whole array
        for map_, new in zip(array.reshape(-1, *array.shape[-2:]), out.reshape(-1, *size)):
            if bilinear:
                for axis, ((low, high, share), shape) in enumerate(between):
                    share = share.reshape(shape)
                    map_ = map_.take(low, axis) * (1 - share) + map_.take(high, axis) * share
            else:
                map_ = map_[_nearest(*rows)].take(_nearest(*columns), axis=1)
            new[top : top + height, left : left + width] = map_
        return out

    joints = poses.joints
    if joints is not None:
        joints = joints.seen_in(poses.size, box.top, box.left, box.height, box.width)
    return replace(poses, parts=fit(poses.parts, False), uv=fit(poses.uv, bilinear), joints=joints)


def person_box(poses: PoseSequence) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right) of the person in the first map; None without a person.

    bottom, right: the first row and column after the person, as `images.crop_box` expects them.
    """
    mask = poses.select([0]).mask[0]
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _nearest(start: float, length: float, number: int, source: int) -> np.ndarray:
    return np.clip((start + (np.arange(number) + 0.5) * length / number).astype(int), 0, source - 1)


def _between(start: float, length: float, number: int, source: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two neighbours of each sample, and the weight of the second one."""
    at = np.clip(start + (np.arange(number) + 0.5) * length / number - 0.5, 0, source - 1)
    low = at.astype(int)
    return low, np.minimum(low + 1, source - 1), (at - low).astype(np.float32)
