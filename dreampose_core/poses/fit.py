"""Pose maps at another size: nearest neighbour, or U, V as the original resized them; aspect kept, borders filled with
background."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..media import Box, pad_box, placement
from .sequence import PoseSequence


def fitted(poses: PoseSequence, size: tuple[int, int], box: Box | None = None, bilinear: bool = False) -> PoseSequence:
    """What `box` shows of `poses`, scaled to (height, width) = `size`; what lies beyond the maps is background.

    box: in the maps' own pixels, of the shape of `size`; None holds the whole maps, centred. A photo fitted with the
    same box (`images.fit_image`) stays aligned with its map. bilinear: U, V are interpolated, also across the borders
    of parts, as the original does it; parts never are.
    """
    if box is None and poses.size == tuple(size):
        return poses
    box = box or pad_box(poses.size, size)
    seen, (top, left, height, width) = placement(poses.size, size, box)
    rows, columns = (seen.top, seen.height, height, poses.size[0]), (seen.left, seen.width, width, poses.size[1])

    def fit(array: np.ndarray | None, resize) -> np.ndarray | None:
        if array is None:
            return None
        out = np.zeros((*array.shape[:-2], *size), array.dtype)
        for old, new in zip(
            array.reshape(-1, *array.shape[-2:]), out.reshape(-1, *size)
        ):  # map by map: no copy of the whole
            new[top : top + height, left : left + width] = resize(old)
        return out

    def nearest(map_: np.ndarray) -> np.ndarray:
        return map_[_nearest(*rows)].take(_nearest(*columns), axis=1)

    def between(map_: np.ndarray) -> np.ndarray:
        for axis, ((low, high, share), shape) in enumerate(((_between(*rows), (-1, 1)), (_between(*columns), (1, -1)))):
            map_ = map_.take(low, axis) * (1 - share).reshape(shape) + map_.take(high, axis) * share.reshape(shape)
        return map_

    joints = poses.joints
    if joints is not None:
        joints = joints.seen_in(poses.size, box.top, box.left, box.height, box.width)
    uv = fit(poses.uv, between if bilinear else nearest)
    return replace(poses, parts=fit(poses.parts, nearest), uv=uv, joints=joints)


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


def _between(start: float, length: float, number: int, source: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two neighbours of each sample, and the second one's share."""
    at = np.clip(start + (np.arange(number) + 0.5) * length / number - 0.5, 0, source - 1)
    low = at.astype(int)
    return low, np.minimum(low + 1, source - 1), (at - low).astype(np.float32)
