"""Retarget a motion to the body in a photo: its bones, hair and skirt, with the motion's joint rotations."""

from __future__ import annotations

import numpy as np

from ..poses import Joints, PoseSequence, frame_ranges
from ..poses.sequence import both
from ..progress import ShouldStop, never_stop
from .build import LAG_S, Build, Stances, drawn, turn_arms
from .outline import snapped

_KNOWN = 0.3  # joints with a lower confidence count as not seen
_COARSE = 400  # maps with fewer rows are drawn with several rays per pixel
# The person leaves the frame if the number of joints outside it exceeds the photo's by more than this.
_MOST_OUTSIDE = 3
_OFTEN = 0.1  # share of frames that a notice about legs needs


def on_body(
    motion: PoseSequence, own: PoseSequence, should_stop: ShouldStop = never_stop
) -> tuple[PoseSequence, tuple[str, ...]]:
    """Draw a motion on the photo's own body, and return notices about the result. Both must have joints.

    own: the photo's map, one frame. The motion starts where the person stands in the photo. Its path and the height of
    its lowest joint above the floor are kept in body heights; coming nearer makes the person larger. Joints that the
    motion never shows keep the photo's pose; without ankles the motion leaves the feet on the floor. The maps have the
    size of `own` and body charts. Raises Cancelled.
    """
    joints, photo, (height, width) = motion.joints, own.joints, own.size
    body = Build.of(photo.body)
    rotations = joints.rotations.copy()
    unseen = np.median(joints.confidence, axis=0) < _KNOWN
    rotations[:, unseen] = photo.rotations[:, unseen]
    positions = body.positions(rotations)

    # Positions in frame heights, right and down from the frame's upper left corner.
    nearer = joints.camera[:, 0] / joints.camera[0, 0]
    seen, on_floor = (np.median(x.confidence[:, both("ankle")].max(1)) >= _KNOWN for x in (joints, photo))
    place = joints.camera[:, 1:] * [motion.size[1] / motion.size[0], 1]
    start = photo.camera[0, 1:] * [width / height, 1]
    scale = photo.camera[0, 0] * nearer
    if on_floor:
        if seen:
            place[:, 1] -= joints.positions[..., 1].min(1) * joints.camera[:, 0]
        else:  # of a motion without legs nothing tells a jump from a nod, so the feet stay where they stand
            place[:, 1] = place[0, 1]
        start[1] -= photo.positions[0, :, 1].min() * photo.camera[0, 0]
    path = start + (place - place[0]) / joints.camera[0, 0] * photo.camera[0, 0]
    if on_floor:
        path[:, 1] += positions[..., 1].min(1) * scale
    middle = (path - [width / height / 2, 0.5]) * [1, -1] / scale[:, None]
    placed = positions + np.pad(middle, ((0, 0), (0, 1)))[:, None]
    stances, lag = Stances(rotations, placed, scale * height), round(LAG_S * motion.fps)
    rays = 2 if height < _COARSE else 1
    parts, uv = drawn(stances, [body] * len(joints), own.size, lag, rays, should_stop=should_stop)
    turn_arms(parts, uv)
    camera = np.stack([scale, path[:, 0] * height / width, path[:, 1]], 1)
    done = Joints(*(x.astype(np.float32) for x in (rotations, positions, camera, joints.confidence, photo.body)))
    return PoseSequence(parts, uv, "body", motion.fps, done), _notices(done, photo, own.size)


def in_our_charts(own: PoseSequence) -> PoseSequence:
    """Redraw a photo's map (one frame) of other charts in body charts, from its joints and within its mask."""
    stances = Stances.of(own.joints, own.size)
    parts, uv = drawn(stances, [Build.of(own.joints.body)], own.size)
    parts[0], uv[0] = snapped(parts[0], uv[0], own.mask[0].astype(np.uint8) * 255, stances.height[0])
    turn_arms(parts, uv)
    return PoseSequence(parts, uv, "body", own.fps, own.joints)


def _notices(done: Joints, photo: Joints, size: tuple[int, int]) -> tuple[str, ...]:
    """Notices for a motion that takes the person out of the frame or shows legs that the photo does not."""
    outside, in_photo = (_outside(joints, size) for joints in (done, photo))
    notices, gone = [], np.flatnonzero(outside.sum(1) > in_photo[0].sum() + _MOST_OUTSIDE)
    if len(gone):
        notices.append(
            f"The person leaves the picture in frames {frame_ranges(gone, range(len(done)))}; a photo with more room "
            "around them, or a smaller zoom, shows all of the motion."
        )
    if in_photo[:, both("knee")].all() and (~outside[:, both("knee")]).all(1).mean() >= _OFTEN:
        notices.append(
            "The motion shows legs that the photo does not, so they look like an average body's; a photo of the whole "
            "person works better."
        )
    return tuple(notices)


def _outside(joints: Joints, size: tuple[int, int]) -> np.ndarray:
    """Joints outside the frame, as bool (T, J)."""
    scale, x, y = joints.camera.T[:, :, None]
    across = x + joints.positions[..., 0] * scale * size[0] / size[1]
    down = y - joints.positions[..., 1] * scale
    return (across < 0) | (across > 1) | (down < 0) | (down > 1)
