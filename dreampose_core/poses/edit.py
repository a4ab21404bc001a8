"""Edit a pose sequence: trim, clean, thin out, change speed or rate, mirror, reverse, repeat; convert its charts.

And resize it: by nearest neighbour, or U, V as the original does; aspect kept, borders filled with background.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import InputError
from ..media import Box, pad_box, placement
from ..settings import MAX_FRAMES, EditOptions
from .clean import holes_filled, smoothed
from .sequence import NUM_PARTS, PoseSequence, check_range

MIRRORED = "U, V are left out of the mirrored motion: real DensePose's cannot be mirrored, so only the parts are used."
# DensePose's part numbers by those of their mirror images; the torso, 1 and 2, is its own mirror image.
_MIRRORED = np.arange(256, dtype=np.uint8)
_MIRRORED[3 : NUM_PARTS + 1] = np.arange(3, NUM_PARTS + 1).reshape(-1, 2)[:, ::-1].ravel()
_HEAD = (NUM_PARTS - 1, NUM_PARTS)


def edited(poses: PoseSequence, options: EditOptions) -> PoseSequence:
    """Edit `poses` by `options`, in this order: trim, clean, thin out, speed, rate, mirror, reverse, repeat.

    Raises InputError as `source_frames` and `mirrored` do.
    """
    numbers = source_frames(len(poses), poses.fps, options) - (options.first_frame or 0)
    poses = poses.clip(options.first_frame, options.last_frame)
    if options.fill_holes:
        poses = holes_filled(poses)
    if options.smooth:
        poses = smoothed(poses)
    if options.mirror:
        poses = mirrored(poses)
    if not np.array_equal(numbers, np.arange(len(poses))):
        poses = poses.select(numbers)
    return poses if options.fps is None else replace(poses, fps=float(options.fps))


def source_frames(num_frames: int, fps: float, options: EditOptions) -> np.ndarray:
    """int (T,): for each frame of `edited`, its source frame in the unedited sequence of `num_frames` frames, from 0.

    At another speed or rate each new frame is the nearest in time, the earlier of two equally near ones; the first
    frame stays the first. Raises InputError for a range outside the sequence, or a result of more than MAX_FRAMES
    frames.
    """
    frames = np.arange(num_frames)[check_range(options.first_frame, options.last_frame, num_frames)]
    limit = max(MAX_FRAMES, len(frames))
    frames = frames[:: options.stride]
    for step in (options.speed, fps / (options.fps or fps)):
        if step != 1:
            at = np.arange(max(1, round(len(frames) / step))) * step
            frames = frames[np.ceil(at - 0.5 - 1e-9).astype(int).clip(0, len(frames) - 1)]
    if (num := len(frames) * options.loops) > limit:
        raise InputError(f"The motion would have {num} frames; at most {MAX_FRAMES} are accepted, so choose fewer.")
    return np.tile(frames[::-1] if options.reverse else frames, options.loops)


def mirrored(poses: PoseSequence) -> PoseSequence:
    """Mirror a sequence: left and right are exchanged in the picture and in the part numbers.

    U, V in the charts `body` are mirrored, too. DensePose's U, V are dropped, because its atlas has no
    simple symmetry and this program does not include tables for it. Raises InputError for a sequence with U, V only.
    """
    if poses.parts is None:
        raise InputError("The pose sequence holds U, V only and cannot be mirrored; that needs parts.")
    joints = None if poses.joints is None else poses.joints.mirrored()
    parts = np.stack([_MIRRORED[map_[:, ::-1]] for map_ in poses.parts])
    if poses.charts != "body":
        return replace(poses, parts=parts, uv=None, charts="none", joints=joints)
    uv = np.empty_like(poses.uv)
    for old, new, part in zip(poses.uv, uv, parts):
        new[:] = old[:, :, ::-1]
        # U runs around a limb from side to side, but on the two halves of the head from front to back.
        turned = (part > 0) & ~np.isin(part, _HEAD)
        new[0][turned] = 1 - new[0][turned]
    return replace(poses, parts=parts, uv=uv, joints=joints)


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

    def fit(array: np.ndarray, bilinear: bool) -> np.ndarray:
        out = np.zeros((*array.shape[:-2], *size), array.dtype)
        # one map at a time, to avoid a copy of the whole array
        for map_, new in zip(array.reshape(-1, *array.shape[-2:]), out.reshape(-1, *size)):
            if bilinear:
                map_ = _between(_between(map_, 0, *rows), 1, *columns)
            else:
                map_ = map_[_nearest(*rows)].take(_nearest(*columns), axis=1)
            new[top : top + height, left : left + width] = map_
        return out

    joints = poses.joints and poses.joints.seen_in(poses.size, box)
    maps = {name: fit(array, bilinear and name == "uv") for name, array in poses.maps.items()}
    return replace(poses, **maps, joints=joints)


def person_box(poses: PoseSequence) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right) of the person in the first map; None without a person.

    bottom, right: the first row and column after the person, as `images.crop_box` expects them.
    """
    mask = poses.mask_of(0)
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _nearest(start: float, length: float, number: int, source: int) -> np.ndarray:
    return np.clip((start + (np.arange(number) + 0.5) * length / number).astype(int), 0, source - 1)


def _between(map_: np.ndarray, axis: int, start: float, length: float, number: int, source: int) -> np.ndarray:
    """Interpolate a map (H, W) along one axis."""
    at = np.clip(start + (np.arange(number) + 0.5) * length / number - 0.5, 0, source - 1)
    low = at.astype(int)
    share = (at - low).astype(np.float32).reshape((-1, 1) if axis == 0 else -1)
    return map_.take(low, axis) * (1 - share) + map_.take(np.minimum(low + 1, source - 1), axis) * share
