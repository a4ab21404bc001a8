"""Fit the joints of a body to a person's landmarks."""

from __future__ import annotations

import math

import numpy as np

from ..poses.sequence import JOINT_INDEX, JOINTS, PARENTS, SIDES, both
from .build import Build, Stances

_DOWN = np.array([0.0, -1.0, 0.0])
_TORSO_LENGTH, _LEG_LENGTH = 0.285, 0.47  # average body: shoulders to hips, hip to ankle
_NECK = 0.068  # from the head's joint up to the point between the ears
# Left limbs' reference directions. A limb turns from hanging to its reference and from there to its own direction, so
# its twist is smooth everywhere except opposite to the reference, where no joint reaches.
_MIDDLE = {
    "shoulder": np.array([0.7, -0.66, 0.27]),
    "elbow": np.array([0.0, -0.75, 0.66]),
    "hip": np.array([0.17, -0.87, 0.46]),
    "knee": np.array([0.0, -0.85, -0.53]),
}
# A bone is at least as long as this share of its median length and as this percentile of its lengths in the picture.
_WHOLE, _LONG = 0.97, 70


# A person's landmarks in pixels, with 0 in the picture's middle: x right in the picture, y up, z to the viewer. Ear,
# shoulder, elbow, wrist, hand, hip, knee, ankle, heel and toe are pairs (2, 3), left and right; only nose is (3,).
Points = dict[str, np.ndarray]


def lean(points: Points) -> float:
    """Angle in radians by which the line from ankles to shoulders leans out of the picture; > 0 towards the viewer."""
    up = points["shoulder"].sum(0) - points["ankle"].sum(0)
    return math.atan2(up[2], up[1])


def body_height(points: Points, legs: bool = True) -> float:
    """Pixels per body height, from the torso, and also from the legs if they are visible (`legs`)."""
    hip, knee, ankle = points["hip"], points["knee"], points["ankle"]
    torso = np.linalg.norm(points["shoulder"].mean(0) - hip.mean(0)) / _TORSO_LENGTH
    leg = np.linalg.norm(hip - knee, axis=1) + np.linalg.norm(knee - ankle, axis=1)
    return float(0.5 * torso + 0.5 * leg.mean() / _LEG_LENGTH) if legs else float(torso)


def lifted(points: list[Points], scale: np.ndarray) -> list[Points]:
    """Correct the landmarks' depths in T frames so that torso and limbs have the same length in all of them.

    scale: (T,) how large the person appears. A landmark's position in the picture is known better than its depth, so
    the depth is computed from how much of the length is visible (Taylor, Computer Vision and Image Understanding 80,
    2000); its sign is kept.
    """
    scale = scale[:, None, None]
    p = {name: np.stack([np.atleast_2d(some[name]) for some in points]) / scale for name in points[0]}
    done = {name: x.copy() for name, x in p.items()}

    def move(names: tuple[str, ...], depth: np.ndarray) -> None:
        for name in names:
            done[name][..., 2] += depth

    trunk, neck = ((p[a].mean(1) - p[b].mean(1))[:, None] for a, b in (("shoulder", "hip"), ("ear", "shoulder")))
    move(("nose", "ear", "shoulder", "elbow", "wrist", "hand"), _depth(trunk) - trunk[..., 2])
    move(("nose", "ear"), _depth(neck) - neck[..., 2])
    for first, second, last in (("shoulder", "elbow", ("wrist", "hand")), ("hip", "knee", ("ankle", "heel", "toe"))):
        for a, b, more in ((first, second, last), (second, last[0], last[1:])):
            bone = p[b] - p[a]
            move((b, *more), _depth(bone) - bone[..., 2])
    done = {name: (x * scale).reshape(-1, *points[0][name].shape) for name, x in done.items()}
    return [{name: x[i] for name, x in done.items()} for i in range(len(points))]


def _depth(bone: np.ndarray) -> np.ndarray:
    """Depths (T, S) of the ends of a bone (T, S, 3), seen S times per frame, at which its length is always the same.

    A bone that appears at nearly full length is assumed to lie in the picture, so that noise in its depth does not
    shorten it.
    """
    seen = np.linalg.norm(bone[..., :2], axis=-1)
    length = max(_WHOLE * float(np.median(np.linalg.norm(bone, axis=-1))), float(np.percentile(seen, _LONG)))
    return np.sign(bone[..., 2]) * np.sqrt((length**2 - seen**2).clip(0))


def stance_of(points: Points, height: float) -> tuple[Stances, Build]:
    """Stance (one frame) whose joints lie at these points, and its bones; height: pixels per body height.

    A limb's rotation follows from its direction alone (see `_limb`), so photo and motion agree about its twist.
    """
    p = {name: x / height for name, x in points.items()}
    shoulders, hips = p["shoulder"].mean(0), p["hip"].mean(0)
    torso = float(np.linalg.norm(shoulders - hips)) / _TORSO_LENGTH
    up = unit(shoulders - hips)
    rotations, positions = {name: np.eye(3) for name in JOINTS}, {}
    rotations["root"], rotations["spine"] = (_axes(up, p[name][0] - p[name][1]) for name in ("hip", "shoulder"))
    positions["root"], positions["spine"] = hips + up * 0.015 * torso, hips + up * 0.105 * torso
    rotations["head"], positions["head"] = _head(p, up, shoulders, rotations["spine"])
    for i, (side, sign) in enumerate(zip(SIDES, (1, -1))):
        for first, middle, last in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")):
            base = rotations["spine" if first == "shoulder" else "root"]
            upper = _limb(base, p[middle][i] - p[first][i], _MIDDLE[first] * [sign, 1, 1])
            lower = _limb(upper, p[last][i] - p[middle][i], _MIDDLE[middle] * [sign, 1, 1])
            rotations[f"{side}_{first}"], rotations[f"{side}_{middle}"] = upper, lower
            for name in (first, middle, last):
                positions[f"{side}_{name}"] = p[name][i]
        hand, fore = p["hand"][i] - p["wrist"][i], rotations[f"{side}_elbow"]
        rotations[f"{side}_wrist"] = _turn(fore @ _DOWN, hand) @ fore if np.linalg.norm(hand) > 0.005 else fore
        foot, shank = p["toe"][i] - p["heel"][i], rotations[f"{side}_knee"]
        rotations[f"{side}_ankle"] = shank
        if np.linalg.norm(foot) > 0.02:
            front = unit(foot)
            left = np.cross(shank[:, 1], front)
            left = unit(left) if np.linalg.norm(left) > 0.05 else shank[:, 0]
            rotations[f"{side}_ankle"] = np.stack([left, np.cross(front, left), front], 1)
    turned, placed = (np.stack([x[name] for name in JOINTS]) for x in (rotations, positions))
    lengths = (float(np.linalg.norm(p[a] - p[b], axis=1).mean()) for a, b in (("hand", "wrist"), ("toe", "heel")))
    return Stances(turned[None], placed[None], np.array([height])), Build(offsets_of(turned, placed), *lengths)


def offsets_of(rotations: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Offsets (J, 3) of a `Build` whose joints, turned by rotations (J, 3, 3), lie at positions (J, 3)."""
    offsets = np.zeros((len(JOINTS), 3))
    for i, parent in list(enumerate(PARENTS))[1:]:
        offsets[i] = rotations[parent].T @ (positions[i] - positions[parent])
    spine, at = JOINT_INDEX["spine"], JOINT_INDEX["head"]
    neck = np.array([0, offsets[both("shoulder"), 1].mean(), 0])
    offsets[at] = neck + rotations[at].T @ (positions[at] - positions[spine] - rotations[spine] @ neck)
    return offsets


def _head(p: dict, up: np.ndarray, shoulders: np.ndarray, spine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and position of the head: x runs from the right ear to the left, y from the neck to between the ears."""
    between, across = p["ear"].mean(0), p["ear"][0] - p["ear"][1]
    top = unit((between - shoulders - up * 0.03) * [1, 1, 0.5])
    nose = p["nose"] - between
    nose = nose - across * (nose @ across) / max(1e-9, across @ across)
    if abs(unit(across) @ top) < 0.8:
        rotation = _axes(top, across)
    else:
        front = unit(nose) if np.linalg.norm(nose) > 0.01 else spine[:, 2]
        left = unit(np.cross(top, front))
        rotation = np.stack([left, top, np.cross(left, top)], 1)
    return rotation, between - rotation[:, 1] * _NECK


def _limb(base: np.ndarray, direction: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Rotation of a limb that points in `direction`, on a joint turned by `base`; middle: see _MIDDLE."""
    return base @ _turn(middle, base.T @ direction) @ _turn(_DOWN, middle)


def unit(v: np.ndarray) -> np.ndarray:
    """Scale a vector to length 1; 0 stays 0."""
    return v / max(1e-9, float(np.linalg.norm(v)))


def _axes(up: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Rotation with the columns left, up and front; up is exact, left as close as possible."""
    up = unit(up)
    front = unit(np.cross(left, up))
    return np.stack([np.cross(up, front), up, front], 1)


def _turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation from direction a to direction b."""
    a, b = unit(a), unit(b)
    v, c = np.cross(a, b), float(a @ b)
    if c < -0.999:
        return np.diag([1.0, -1.0, -1.0])
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)
