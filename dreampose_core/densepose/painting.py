"""Paint part maps as a person, for networks trained on pictures; and correct a pose found in them by the parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..body.cones import HEAD, PARTS
from ..poses.sequence import SIDES
from .blazepose import LANDMARKS, Pose

_ROUND = 0.02  # width of the darker edge of painted people, as a share of the map's height
_SKIN, _SHIRT, _TROUSERS, _SHOES, _WALL = (224, 178, 150), (186, 62, 52), (52, 62, 112), (40, 34, 34), (214, 214, 218)
# the colour of each part
_PAINT = np.array(
    [_WALL, *[_SHIRT] * 2, *[_SKIN] * 2, *[_SHOES] * 2, *[_TROUSERS] * 8, *[_SHIRT] * 4, *[_SKIN] * 6], np.float32
)
_HAIR = (58, 40, 30)
_SIDED = ("hand", "foot", "upper_leg", "lower_leg", "upper_arm", "lower_arm")
_MEETINGS = (
    ("elbow", "upper_arm", "lower_arm"),
    ("wrist", "lower_arm", "hand"),
    ("knee", "upper_leg", "lower_leg"),
    ("ankle", "lower_leg", "foot"),
)
_FEW, _ASTRAY = 12, 0.1  # least number of pixels where two parts meet; largest correction of a joint, of the square


def painted(parts: np.ndarray) -> np.ndarray:
    """Paint parts, uint8 (H, W), as a dressed and lit person in front of a wall: uint8 (H, W, 3)."""
    soft = torch.from_numpy((parts > 0).astype(np.float32))[None, None]
    side = 2 * max(1, round(_ROUND * parts.shape[0])) + 1
    soft = torch.nn.functional.avg_pool2d(soft, side, 1, side // 2, count_include_pad=False)[0, 0].numpy()
    shade = np.where(parts > 0, 0.35 + 0.65 * soft, 1.0)[..., None]
    return (_with_face(_PAINT[parts], parts) * shade).astype(np.uint8)


def _with_face(picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Paint hair on the head of the picture (H, W, 3); from the front, also eyes and a mouth where its halves meet."""
    rows, columns = np.nonzero(np.isin(parts, HEAD))
    if len(rows) < _FEW:
        return picture
    left, right = (columns[parts[rows, columns] == part] for part in HEAD)
    top, size = rows.min(), max(1, np.ptp(rows))
    low = (rows - top) / size
    from_front = len(left) and (not len(right) or left.mean() > right.mean())
    hair = low < (0.28 if from_front else 0.8)
    picture[rows[hair], columns[hair]] = _HAIR
    if from_front:
        # one half of the head is hidden when it is turned away
        middle = (left.min() + right.max()) / 2 if len(right) else left.min()
        for x, y, wide in ((-0.17, 0.45, 0.06), (0.17, 0.45, 0.06), (0.0, 0.75, 0.08)):
            spot = (np.abs(columns - middle - x * size) < wide * size) & (np.abs(low - y) < 0.035)
            picture[rows[spot], columns[spot]] = _HAIR
    return picture


def on_parts(pose: Pose, parts: np.ndarray) -> Pose:
    """Correct a pose found in painted parts (H, W): left and right as in the parts, joints where two parts meet."""
    on_left, on_right = ([part for limb in _SIDED for part in PARTS[f"{side}_{limb}"]] for side in SIDES)
    rows, columns = (pose.xy[:, i].astype(int).clip(0, n - 1) for i, n in ((1, parts.shape[0]), (0, parts.shape[1])))
    there = parts[rows, columns]
    left, right = map(list, zip(*LANDMARKS.values()))
    right_way = np.isin(there[left], on_left).sum() + np.isin(there[right], on_right).sum()
    wrong_way = np.isin(there[left], on_right).sum() + np.isin(there[right], on_left).sum()
    xy, world, visibility = pose.xy.copy(), pose.world.copy(), pose.visibility.copy()
    if wrong_way > right_way:  # the network took a back for a front
        for array in (xy, world, visibility):
            array[left + right] = array[right + left]
        world[:, 2] *= -1
    box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(parts))
    own = parts[box]
    for name, *limbs in _MEETINGS:
        for side, landmark in zip(SIDES, LANDMARKS[name]):
            at = _meeting(*(np.isin(own, PARTS[f"{side}_{limb}"]) for limb in limbs))
            if at is not None:
                at = at + [box[1].start, box[0].start]
                if np.hypot(*(at - xy[landmark])) < _ASTRAY * pose.roi.side:
                    xy[landmark] = at
    return replace(pose, xy=xy, world=world, visibility=visibility)


def _meeting(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The middle (x, y) of where two regions (H, W) meet, ignoring specks: (2,); None where they do not meet."""
    masks = torch.from_numpy(np.stack([a, b]).astype(np.float32))[:, None]
    solid = (torch.nn.functional.avg_pool2d(masks, 5, 1, 2) > 0.5).float()
    near = torch.nn.functional.max_pool2d(solid, 5, 1, 2)[:, 0].numpy() > 0
    rows, columns = np.nonzero(near[0] & near[1])
    return np.array([np.median(columns) + 0.5, np.median(rows) + 0.5]) if len(rows) >= _FEW else None
