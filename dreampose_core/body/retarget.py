"""A motion done by the body in a photo: its bones, hair and skirt, in the motion's joint rotations."""

from __future__ import annotations

import numpy as np

from ..poses import JOINT_INDEX, Joints, PoseSequence, converted, frame_ranges
from .build import Build, Stances, drawn
from .fitting import snapped

_LAG_S = 0.12  # how far loose cloth and hair are behind the body
_KNOWN = 0.3  # confidence below which a joint is not seen
_COARSE = 400  # rows below which the edges of maps are drawn with several rays a pixel
_BESIDE = 3  # joints: of more outside the frame than in the photo one says that the person leaves it
_OFTEN = 0.1  # share of frames from which on something counts
_ANKLES = [JOINT_INDEX["left_ankle"], JOINT_INDEX["right_ankle"]]


def on_body(motion: PoseSequence, own: PoseSequence) -> tuple[PoseSequence, tuple[str, ...]]:
    """The motion drawn on the photo's own body, and sentences about it; both must have joints.

    own: the photo's map, one frame. The motion begins where the person stands in the photo. Its path is kept in body
    heights, and so is how high the lowest joint is above the floor; coming nearer makes larger. Joints that the motion
    never shows keep the photo's pose. The maps have the size and the charts of `own`.
    """
    joints, photo, (height, width) = motion.joints, own.joints, own.size
    body = Build.of(photo.body)
    rotations = joints.rotations.copy()
    unseen = np.median(joints.confidence, axis=0) < _KNOWN
    rotations[:, unseen] = photo.rotations[:, unseen]
    positions = body.positions(rotations)

    # places in frame heights, to the right and down from the frame's corner
    nearer = joints.camera[:, 0] / joints.camera[0, 0]
    by_feet = min(_seen(joints), _seen(photo)) >= _KNOWN
    place = joints.camera[:, 1:] * [motion.size[1] / motion.size[0], 1]
    start = photo.camera[0, 1:] * [width / height, 1]
    scale = photo.camera[0, 0] * nearer
    if by_feet:
        place[:, 1] -= joints.positions[..., 1].min(1) * joints.camera[:, 0]
        start[1] -= photo.positions[0, :, 1].min() * photo.camera[0, 0]
    path = start + (place - place[0]) / joints.camera[0, 0] * photo.camera[0, 0]
    if by_feet:
        path[:, 1] += positions[..., 1].min(1) * scale
    middle = (path - [width / height / 2, 0.5]) * [1, -1] / scale[:, None]
    placed = positions + np.pad(middle, ((0, 0), (0, 1)))[:, None]
    parts, uv = drawn(
        Stances(rotations, placed, scale * height),
        [body] * len(joints),
        own.size,
        lag=round(_LAG_S * motion.fps),
        supersample=2 if height < _COARSE else 1,
    )
    camera = np.stack([scale, path[:, 0] * height / width, path[:, 1]], 1)
    done = Joints(*(x.astype(np.float32) for x in (rotations, positions, camera, joints.confidence, photo.body)))
    said = (*_leaves(done, photo, own.size), *_made_up(done, photo, own.size))
    return converted(PoseSequence(parts, uv, "mannequin", motion.fps, done), own.charts), said


def in_our_charts(own: PoseSequence) -> PoseSequence:
    """A photo's map (one frame) in other charts, redrawn in ours from its joints, on the person that it shows."""
    stances = Stances.of(own.joints, own.size)
    parts, uv = drawn(stances, [Build.of(own.joints.body)], own.size)
    parts, uv = snapped(parts[0], uv[0], own.mask[0].astype(np.uint8) * 255, stances.height[0])
    return converted(PoseSequence(parts[None], uv[None], "mannequin", own.fps, own.joints), "body")


def _seen(joints: Joints) -> float:
    """How surely the feet are seen."""
    return float(np.median(joints.confidence[:, _ANKLES].max(1)))


def _leaves(done: Joints, photo: Joints, size: tuple[int, int]) -> tuple[str, ...]:
    """A sentence where the motion takes the person out of the frame."""
    before, there = _outside(photo, size)[0], _outside(done, size)
    gone = np.flatnonzero(there > before + _BESIDE)
    if not len(gone):
        return ()
    return (
        f"The person leaves the picture in frames {frame_ranges(gone, range(len(done)))}; a photo with more room "
        "around them, or a smaller zoom, shows all of the motion.",
    )


def _made_up(done: Joints, photo: Joints, size: tuple[int, int]) -> tuple[str, ...]:
    """A sentence where the motion shows legs that the photo does not."""
    knees = [JOINT_INDEX["left_knee"], JOINT_INDEX["right_knee"]]
    in_photo, in_motion = (~_beside(joints, size)[:, knees] for joints in (photo, done))
    if in_photo.any() or in_motion.all(1).mean() < _OFTEN:
        return ()
    return (
        "The motion shows legs that the photo does not: they are an average body's; a photo of the whole person works "
        "better.",
    )


def _outside(joints: Joints, size: tuple[int, int]) -> np.ndarray:
    """(T,) how many joints lie outside the frame."""
    return _beside(joints, size).sum(1)


def _beside(joints: Joints, size: tuple[int, int]) -> np.ndarray:
    """(T, J) which joints lie outside the frame."""
    scale, x, y = joints.camera.T[:, :, None]
    across = x + joints.positions[..., 0] * scale * size[0] / size[1]
    down = y - joints.positions[..., 1] * scale
    return (across < 0) | (across > 1) | (down < 0) | (down > 1)
