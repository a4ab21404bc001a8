"""Changing a pose sequence before it is used: trimmed, thinned out, at another speed or rate, backwards, mirrored,
repeated, cleaned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..settings import MAX_FRAMES
from .clean import holes_filled, smoothed
from .sequence import NUM_PARTS, PoseSequence

if TYPE_CHECKING:
    from ..settings import EditOptions

MIRRORED = "U, V are left out of the mirrored motion: real DensePose's cannot be mirrored, so only the parts are used."
# DensePose's numbers of parts that are each other's mirror image; the torso, 1 and 2, is its own.
_SIDES = ((3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16), (17, 18), (19, 20), (21, 22), (23, 24))
_MIRRORED = np.arange(256, dtype=np.uint8)
for _right, _left in _SIDES:
    _MIRRORED[[_right, _left]] = _left, _right
_HEAD = (NUM_PARTS - 1, NUM_PARTS)


def edited(poses: PoseSequence, options: EditOptions) -> PoseSequence:
    """`poses` as `options` ask: trimmed, cleaned, thinned out, at another speed, at another rate, mirrored, reversed,
    repeated; in this order.

    Raises InputError for a range outside the sequence and as `at_speed`, `resampled`, `mirrored` and `looped` do.
    """
    poses = poses.clip(options.first_frame, options.last_frame)
    if options.fill_holes:
        poses = holes_filled(poses)
    if options.smooth:
        poses = smoothed(poses)
    if options.stride > 1:
        poses = poses.select(slice(None, None, options.stride))
    if options.speed != 1:
        poses = at_speed(poses, options.speed)
    if options.fps is not None:
        poses = resampled(poses, options.fps)
    if options.mirror:
        poses = mirrored(poses)
    if options.reverse:
        poses = poses.select(slice(None, None, -1))
    return looped(poses, options.loops)


def source_frames(num_frames: int, fps: float, options: EditOptions) -> np.ndarray:
    """int (T,): which frame of a sequence of so many frames each frame of `edited` is, counted from 0 as it came;
    errors as `edited`."""
    numbers = (
        (np.arange(num_frames, dtype=np.float32) / num_frames).reshape(-1, 1, 1, 1).repeat(2, 1)
    )  # U, V are told from 0 to 1
    kept = options.model_copy(update={"fill_holes": False, "smooth": False, "mirror": False})
    return np.rint(edited(PoseSequence(None, numbers, "densepose", fps), kept).uv[:, 0, 0, 0] * num_frames).astype(int)


def at_speed(poses: PoseSequence, speed: float) -> PoseSequence:
    """The same motion `speed` times as fast at its own rate: frames are left out, or repeated; the first one stays the
    first.

    Raises InputError where more than MAX_FRAMES frames would come out.
    """
    return poses.select(_nearest(len(poses), speed))


def resampled(poses: PoseSequence, fps: float) -> PoseSequence:
    """The same motion at `fps` frames per second, 1..240: each new frame is the nearest in time, the first one stays
    the first.

    Raises InputError for another rate, or where more than MAX_FRAMES frames would come out.
    """
    if not 1 <= fps <= 240:
        raise InputError(f"The rate asked for is {fps:g} frames per second; it must lie between 1 and 240.")
    if fps == poses.fps:
        return poses
    return replace(poses.select(_nearest(len(poses), poses.fps / fps)), fps=float(fps))


def _nearest(num_frames: int, step: float) -> np.ndarray:
    """int (T,): the frames that are nearest to 0, step, 2 step, ... of so many; of two equally near the earlier."""
    number = max(1, round(num_frames / step))
    _check_number(number)
    return np.ceil(np.arange(number) * step - 0.5 - 1e-9).astype(int).clip(0, num_frames - 1)


def looped(poses: PoseSequence, loops: int) -> PoseSequence:
    """The whole sequence `loops` times. Raises InputError where more than MAX_FRAMES frames would come out."""
    if loops == 1:
        return poses
    _check_number(len(poses) * loops)
    return poses.select(np.tile(np.arange(len(poses)), loops))


def mirrored(poses: PoseSequence) -> PoseSequence:
    """What a mirror shows: left and right exchanged, in the picture and in the numbers of the parts.

    U, V of mannequins are turned with the parts. Those of real DensePose are left out, for their atlas has no simple
    symmetry and tables of it are not part of this program. Raises InputError for a sequence that holds nothing but U,
    V.
    """
    if poses.parts is None:
        raise InputError(
            "The pose sequence holds U, V only and cannot be mirrored; parts are needed to tell left from right."
        )
    parts, joints = np.empty_like(poses.parts), None if poses.joints is None else poses.joints.mirrored()
    for old, new in zip(poses.parts, parts):
        new[:] = _MIRRORED[old[:, ::-1]]
    if poses.charts not in ("mannequin", "body"):
        return replace(poses, parts=parts, uv=None, charts="none", joints=joints)
    uv = np.empty_like(poses.uv)
    for old, new, part in zip(poses.uv, uv, parts):
        new[:] = old[:, :, ::-1]
        # U runs around a limb from one side to the other, but on the two halves of the head from front to back.
        turned = (part > 0) & ~np.isin(part, _HEAD)
        new[0][turned] = 1 - new[0][turned]
    return replace(poses, parts=parts, uv=uv, joints=joints)


def _check_number(number: int) -> None:
    if number > MAX_FRAMES:
        raise InputError(
            f"The motion would have {number} frames; at most {MAX_FRAMES} are accepted, please choose fewer loops, a "
            "lower rate or a shorter range."
        )
