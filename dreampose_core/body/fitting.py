"""A body fitted to a person: its joints to landmarks; its widths, hair and skirt to a mask; a map to a mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..poses import JOINT_INDEX, JOINTS
from .build import SIDES, Build, Stances
from .cones import PARENT
from .nearest import nearest

_DOWN = np.array([0.0, -1.0, 0.0])
_TORSO_LENGTH, _LEG_LENGTH = 0.285, 0.47  # of the average body: shoulders to hips, hip to ankle
_NECK = 0.068  # from the head's joint up to between the ears
# Where a limb's twist is smooth: it is turned from hanging to this direction and from there to its own, so that only
# the opposite of this direction, which no joint reaches, has no twist of its own. Of the left side.
_MIDDLE = {
    "shoulder": np.array([0.7, -0.66, 0.27]),
    "elbow": np.array([0.0, -0.75, 0.66]),
    "hip": np.array([0.17, -0.87, 0.46]),
    "knee": np.array([0.0, -0.85, -0.53]),
}
_WHOLE, _LONG = 0.97, 70  # share of its length from which a bone is seen whole; percentile of what is seen of it
# the probability, 0 to 255, above which a pixel is the person's, by its distance from the body in thousandths of its
# height: logits from 0.5 on it to 2.5 far from it, where masks bulge and nobody is
_PER_HEIGHT = 1000
_LEAST_CHANCE = 255 / (1 + np.exp(-0.5 - np.minimum(np.arange(200) / 5, 2.0)))


@dataclass(frozen=True)
class Points:
    """Where a person's landmarks are, by name: (3,) each, x right in the picture, y up, z to the viewer, in pixels
    about the picture's middle; pairs (left, right) but for nose."""

    nose: np.ndarray
    ear: np.ndarray
    shoulder: np.ndarray
    elbow: np.ndarray
    wrist: np.ndarray
    hand: np.ndarray
    hip: np.ndarray
    knee: np.ndarray
    ankle: np.ndarray
    heel: np.ndarray
    toe: np.ndarray


def lean(points: Points) -> float:
    """By how much the line from ankles to shoulders leans out of the picture, in radians; towards the viewer is > 0."""
    up = points.shoulder.sum(0) - points.ankle.sum(0)
    return math.atan2(up[2], up[1])


def body_height(points: Points, legs: bool = True) -> float:
    """Pixels a body height: from the torso, and the legs where they are seen."""
    torso = np.linalg.norm(points.shoulder.mean(0) - points.hip.mean(0)) / _TORSO_LENGTH
    leg = np.linalg.norm(points.hip - points.knee, axis=1) + np.linalg.norm(points.knee - points.ankle, axis=1)
    return float(0.5 * torso + 0.5 * leg.mean() / _LEG_LENGTH) if legs else float(torso)


def lifted(points: list[Points], scale: np.ndarray) -> list[Points]:
    """The landmarks of T frames at depths at which torso and limbs have one length in all of them.

    scale: (T,) how large the person is seen. Where a landmark lies in the picture is known better than its depth: that
    follows from how much of the length is seen (Taylor, Computer Vision and Image Understanding 80, 2000); on which
    side it lies is kept.
    """
    names = Points.__dataclass_fields__
    p = {
        name: np.stack([getattr(some, name) for some in points]) / scale[:, None, None]
        for name in names
        if name != "nose"
    }
    p["nose"] = np.stack([some.nose for some in points])[:, None] / scale[:, None, None]
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
    done = {name: x * scale[:, None, None] for name, x in done.items()}
    done["nose"] = done["nose"][:, 0]
    return [Points(**{name: x[i] for name, x in done.items()}) for i in range(len(points))]


def _depth(bone: np.ndarray) -> np.ndarray:
    """(T, S) depths of the ends of a bone (T, S, 3), seen S times a frame, at which its length is always the same.

    A bone that is seen nearly whole is taken to lie in the picture, so that what trembles in depth does not shorten it.
    """
    seen = np.linalg.norm(bone[..., :2], axis=-1)
    length = max(_WHOLE * float(np.median(np.linalg.norm(bone, axis=-1))), float(np.percentile(seen, _LONG)))
    return np.sign(bone[..., 2]) * np.sqrt((length**2 - seen**2).clip(0))


def stance_of(points: Points, height: float) -> tuple[Stances, Build]:
    """The stance (one frame) whose joints lie at these points, and its bones; height: pixels a body height.

    A limb's rotation follows from its direction alone, see `_limb`, so photo and motion agree about its twist.
    """
    p = {name: getattr(points, name) / height for name in Points.__dataclass_fields__}
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
    build = Build(
        offsets_of(turned, placed),
        *(float(np.linalg.norm(p[a] - p[b], axis=1).mean()) for a, b in (("hand", "wrist"), ("toe", "heel"))),
    )
    return Stances(turned[None], placed[None], np.array([height])), build


def offsets_of(rotations: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(J, 3) of a `Build` whose joints, turned by rotations (J, 3, 3), lie at positions (J, 3)."""
    found = np.zeros((len(JOINTS), 3))
    for i, name in enumerate(JOINTS[1:], 1):
        if name != "head":
            parent = JOINT_INDEX[PARENT[name]]
            found[i] = rotations[parent].T @ (positions[i] - positions[parent])
    spine, at = JOINT_INDEX["spine"], JOINT_INDEX["head"]
    neck = np.array([0, np.mean([found[JOINT_INDEX[f"{side}_shoulder"], 1] for side in SIDES]), 0])
    found[at] = neck + rotations[at].T @ (positions[at] - positions[spine] - rotations[spine] @ neck)
    return found


def _head(p: dict, up: np.ndarray, shoulders: np.ndarray, spine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and position of the head: its left is from ear to ear, its up from the neck to between them."""
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


def snapped(parts: np.ndarray, uv: np.ndarray, mask: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """A map (H, W) and (2, H, W) brought to the person's mask (H, W), uint8 probabilities 0 to 255.

    Every pixel of the person takes what the nearest pixel of the body has; the further from the body a pixel lies, the
    surer it must be. height: pixels a body height.
    """
    out_parts, out_uv = np.zeros_like(parts), np.zeros_like(uv)
    if not parts.any():
        return out_parts, out_uv
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero((mask >= _LEAST_CHANCE[0]) | (parts > 0)))
    inner = (slice(None), *box)
    body = parts[box]
    rows, columns = (x[0].numpy() for x in nearest(torch.from_numpy(body > 0)[None], 128))
    own = np.mgrid[: body.shape[0], : body.shape[1]]
    off = np.hypot(rows - own[0], columns - own[1]) / height
    person = mask[box] > _LEAST_CHANCE[np.minimum(off * _PER_HEIGHT, len(_LEAST_CHANCE) - 1).astype(int)]
    out_parts[box] = np.where(person, body[rows, columns], 0)
    out_uv[inner] = np.where(person, uv[inner][:, rows, columns], 0)
    return out_parts, out_uv


def _limb(base: np.ndarray, direction: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The rotation of a limb on a joint turned by `base` that points in this direction; middle: see _MIDDLE."""
    return base @ _turn(middle, base.T @ direction) @ _turn(_DOWN, middle)


def unit(v: np.ndarray) -> np.ndarray:
    """The vector at length 1; 0 stays 0."""
    return v / max(1e-9, float(np.linalg.norm(v)))


def _axes(up: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The rotation whose columns are left, up and front; up is kept, left as near as can be."""
    up = unit(up)
    front = unit(np.cross(left, up))
    return np.stack([np.cross(up, front), up, front], 1)


def _turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation that brings direction a to direction b."""
    a, b = unit(a), unit(b)
    v, c = np.cross(a, b), float(a @ b)
    if c < -0.999:
        return np.diag([1.0, -1.0, -1.0])
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)
