"""Charts, whose U, V a map carries: from our earlier ones to those that agree with DensePose about an arm's front.

On an arm, part and U are an angle about the bone: `mannequin` counts it from the front of a hanging arm, `body` from
ARM_TURN further inwards, as DensePose does.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .sequence import NUM_PARTS, Charts, PoseSequence

ARM_TURN = math.radians(75)
LEFT_ARM, RIGHT_ARM = ((15, 17), (19, 21)), ((16, 18), (20, 22))  # (front, back) of upper and lower arm
FIRST_ARM = 15
_OURS = ("mannequin", "body")


def convertible(a: Charts, b: Charts) -> bool:
    """Whether U, V in charts `a` can be brought to charts `b`."""
    return a == b or (a in _OURS and b in _OURS)


def converted(poses: PoseSequence, charts: Charts) -> PoseSequence:
    """The sequence in other charts; as it is where that cannot be, see `convertible`."""
    if poses.charts == charts or not convertible(poses.charts, charts):
        return poses
    if poses.parts is None:
        return poses  # which arm it is is not known
    parts, uv = poses.parts.copy(), poses.uv.copy()
    turns = np.zeros(NUM_PARTS + 1)
    for limbs, side in ((LEFT_ARM, 1), (RIGHT_ARM, -1)):
        turns[[part for limb in limbs for part in limb]] = side * (ARM_TURN if charts == "body" else -ARM_TURN)
    for own, values in zip(parts, uv):
        rows, columns = np.nonzero((own >= FIRST_ARM) & (own < FIRST_ARM + 8))
        part, u = own[rows, columns], values[0, rows, columns].astype(np.float32)
        on_front = np.isin(part, [front for front, _ in LEFT_ARM + RIGHT_ARM])
        angle = np.where(on_front, u - 0.5, u + 0.5) * math.pi + turns[part]
        angle = (angle + math.pi) % (2 * math.pi) - math.pi
        is_front = np.abs(angle) <= math.pi / 2
        own[rows, columns] = part + np.where(on_front, 0, -2) + np.where(is_front, 0, 2)
        values[0, rows, columns] = np.where(is_front, 0.5 + angle / math.pi, (angle / math.pi) % 2 - 0.5).clip(0, 1)
    return replace(poses, parts=parts, uv=uv, charts=charts)
