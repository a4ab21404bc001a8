"""A body of our own, fitted to a person's landmarks and mask: rotations of its joints, lengths of its bones, widths."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from .cones import HEAD, JOINT_INDEX, JOINTS, PARTS, TORSO, Bodies, Cone, Shape, body_cones
from .drawing import View, draw
from .nearest import nearest

_DOWN = np.array([0.0, -1.0, 0.0])
_TORSO_LENGTH, _LEG_LENGTH = 0.285, 0.47  # of the average body: shoulders to hips, hip to ankle
_SHOULDERS, _HIPS = 0.2, 0.096  # widths between its joints
_HAND, _FOOT = 0.055, 0.11  # wrist to knuckles, heel to toe
_FINGERS = 1.6  # a hand's length over that to its knuckles
_GROIN = 0.02  # by so much the torso reaches further down
SIDES = ("left", "right")
LIMBS = {
    "upper_arm": ("shoulder", "elbow"),
    "lower_arm": ("elbow", "wrist"),
    "upper_leg": ("hip", "knee"),
    "lower_leg": ("knee", "ankle"),
}


# the probability, 0 to 255, above which a pixel is the person's, by its distance from the body in thousandths of its
# height: logits from 0.5 on it to 2.5 far from it, where masks bulge and nobody is
_PER_HEIGHT = 1000
_LEAST_CHANCE = 255 / (1 + np.exp(-0.5 - np.minimum(np.arange(200) / 5, 2.0)))
_MORE = (
    Cone("head", (0, -0.02, 0.0), (0, 0.035, 0.008), (0.032, 0.036), (1, 1), "head", HEAD),
    *(
        Cone(
            f"{side}_ankle",
            (0, 0.03, -0.004),
            (0, -0.015, -0.006),
            (0.03, 0.031),
            (1, 1),
            "whole",
            PARTS[f"{side}_foot"],
        )
        for side in SIDES
    ),
)


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


@dataclass(frozen=True)
class Stance:
    """A body in one frame: rotations (J, 3, 3) of its joints to the world, their positions (J, 3) in body heights about
    the picture's middle; height: pixels a body height."""

    rotations: np.ndarray
    positions: np.ndarray
    height: float


@dataclass(frozen=True)
class Build:
    """What a body is like, in whatever pose. Lengths in body heights.

    bones: of limbs, hands and feet by joint (shoulder, elbow, wrist, hip, knee, ankle). torso: shoulders to hips over
    the average. widths: by DensePose part pair, over the average's: at a limb's start and its end; of torso and head.
    """

    bones: dict[str, float]
    torso: float
    shoulders: float
    hips: float
    widths: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)

    def cones(self) -> list[Cone]:
        """The rounded cones of this body: the mannequin's with its lengths and widths, with the ankles part of the feet
        and the throat part of the head, as DensePose has them."""
        found = []
        shape = Shape(shoulders=self.shoulders, hips=self.hips)
        for cone in (*body_cones(shape), *_MORE):
            start, end, radii, scale = (np.array(x, float) for x in (cone.start, cone.end, cone.radii, cone.scale))
            wide = np.array(self.widths.get(cone.parts, (1.0, 1.0)))
            name = cone.joint.split("_")[-1]
            if cone.chart == "torso":
                if cone.joint == "root":
                    start[1] -= _GROIN
                start[1], end[1] = start[1] * self.torso, end[1] * self.torso
                scale[0] *= wide[0]
            elif cone.chart == "limb":
                end = _DOWN * self.bones[cone.joint]
                radii = radii * wide
            elif name == "wrist":
                size = max(0.7, self.bones[cone.joint] / _HAND)
                start, end, radii = start * size, end * size * _FINGERS, radii * size * 1.7
            elif name == "ankle":
                size = np.clip(self.bones[cone.joint] / _FOOT, 0.8, 1.6)
                start, end, radii = start * size, end * size, radii * 1.15
            elif cone.chart == "head":
                start, end, radii = start * wide[0], end * wide[0], radii * wide[0]
            found.append(replace(cone, start=tuple(start), end=tuple(end), radii=tuple(radii), scale=tuple(scale)))
        return found


def lean(points: Points) -> float:
    """By how much the line from ankles to shoulders leans out of the picture, in radians; towards the viewer is > 0."""
    up = points.shoulder.sum(0) - points.ankle.sum(0)
    return math.atan2(up[2], up[1])


def body_height(points: Points, legs: bool = True) -> float:
    """Pixels a body height: from the torso, and the legs where they are seen."""
    torso = np.linalg.norm(points.shoulder.mean(0) - points.hip.mean(0)) / _TORSO_LENGTH
    leg = np.linalg.norm(points.hip - points.knee, axis=1) + np.linalg.norm(points.knee - points.ankle, axis=1)
    return float(0.5 * torso + 0.5 * leg.mean() / _LEG_LENGTH) if legs else float(torso)


def stance_of(points: Points, height: float) -> tuple[Stance, Build]:
    """The stance whose joints lie at these points, and the lengths of its bones; height: pixels a body height.

    A bone's rotation is the smallest that brings it where it is from where its parent takes it, so it has no twist.
    """
    p = {name: getattr(points, name) / height for name in Points.__dataclass_fields__}
    shoulders, hips = p["shoulder"].mean(0), p["hip"].mean(0)
    torso = float(np.linalg.norm(shoulders - hips)) / _TORSO_LENGTH
    up = _unit(shoulders - hips)
    rotations, positions = {name: np.eye(3) for name in JOINTS}, {}
    rotations["root"], rotations["spine"] = (_axes(up, p[name][0] - p[name][1]) for name in ("hip", "shoulder"))
    positions["root"], positions["spine"] = hips + up * 0.015 * torso, hips + up * 0.105 * torso
    rotations["head"], positions["head"] = _head(p, up, shoulders, rotations["spine"])
    bones = {}
    for i, side in enumerate(SIDES):
        for first, middle, last in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")):
            base = rotations["spine" if first == "shoulder" else "root"]
            one, two = p[middle][i] - p[first][i], p[last][i] - p[middle][i]
            upper = _turn(base @ _DOWN, one) @ base
            lower = _turn(upper @ _DOWN, two) @ upper
            rotations[f"{side}_{first}"], rotations[f"{side}_{middle}"] = upper, lower
            bones[f"{side}_{first}"], bones[f"{side}_{middle}"] = map(float, map(np.linalg.norm, (one, two)))
            for name in (first, middle, last):
                positions[f"{side}_{name}"] = p[name][i]
        hand = p["hand"][i] - p["wrist"][i]
        bones[f"{side}_wrist"], fore = float(np.linalg.norm(hand)), rotations[f"{side}_elbow"]
        rotations[f"{side}_wrist"] = _turn(fore @ _DOWN, hand) @ fore if bones[f"{side}_wrist"] > 0.005 else fore
        foot, shank = p["toe"][i] - p["heel"][i], rotations[f"{side}_knee"]
        bones[f"{side}_ankle"] = float(np.linalg.norm(foot))
        if bones[f"{side}_ankle"] > 0.02:
            front = _unit(foot)
            left = np.cross(shank[:, 1], front)
            left = _unit(left) if np.linalg.norm(left) > 0.05 else shank[:, 0]
            rotations[f"{side}_ankle"] = np.stack([left, np.cross(front, left), front], 1)
        else:
            rotations[f"{side}_ankle"] = shank
    build = Build(
        bones,
        torso,
        float(np.clip(np.linalg.norm(p["shoulder"][0] - p["shoulder"][1]) / _SHOULDERS, 0.7, 1.5)),
        float(np.clip(np.linalg.norm(p["hip"][0] - p["hip"][1]) / _HIPS, 0.7, 1.6)),
    )
    stance = Stance(*(np.stack([x[name] for name in JOINTS]) for x in (rotations, positions)), height)
    return stance, build


def _head(p: dict, up: np.ndarray, shoulders: np.ndarray, spine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and position of the head: its left is from ear to ear, its up from the neck to between them."""
    between, across = p["ear"].mean(0), p["ear"][0] - p["ear"][1]
    top = _unit(0.5 * _unit(between - shoulders - up * 0.03) + 0.5 * up)
    nose = p["nose"] - between
    nose = nose - across * (nose @ across) / max(1e-9, across @ across)
    if abs(_unit(across) @ top) < 0.8:
        rotation = _axes(top, across)
    else:
        front = _unit(nose) if np.linalg.norm(nose) > 0.01 else spine[:, 2]
        left = _unit(np.cross(top, front))
        rotation = np.stack([left, top, np.cross(left, top)], 1)
    return rotation, between - rotation[:, 1] * 0.068


def drawn(stances: list[Stance], builds: list[Build], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Parts uint8 (T, H, W) and U, V float32 (T, 2, H, W) of bodies in their stances; size: (height, width)."""
    count = len(stances)
    shapes = [Shape(shoulders=build.shoulders, hips=build.hips) for build in builds]
    bodies = Bodies.of(shapes, [build.cones() for build in builds])
    ones = torch.ones(count)
    scale = torch.tensor([stance.height / size[0] for stance in stances], dtype=torch.float32)
    view = View(
        scale, torch.zeros(count, 2), torch.tensor([[0, 0, 1.0]]).expand(count, 3), ones, ones[:, None].expand(count, 3)
    )
    rotations, positions = (
        torch.tensor(np.stack([getattr(stance, name) for stance in stances]), dtype=torch.float32)
        for name in ("rotations", "positions")
    )
    found = draw(bodies, rotations, positions, torch.zeros(count), None, torch.arange(count), None, view, size, 1)
    return found.parts.numpy(), found.uv.float().numpy()


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


def fitted_widths(stance: Stance, build: Build, mask: np.ndarray, rounds: int = 3) -> Build:
    """The build with widths of limbs, torso and head as the mask (H, W), uint8 probabilities, asks: from the area that
    falls to each."""
    for _ in range(rounds):
        raw, uv = drawn([stance], [build], mask.shape)
        near, _ = snapped(raw[0], uv[0], mask, stance.height)
        build = _refitted(stance, build, raw[0], near)
    return build


def _refitted(stance: Stance, build: Build, raw: np.ndarray, near: np.ndarray) -> Build:
    """One round: raw is the body as it is drawn, near what of the mask falls to each part."""
    height, width = raw.shape
    rows, columns = np.mgrid[:height, :width]
    x, y = columns + 0.5 - width / 2, height / 2 - rows - 0.5
    widths = dict(build.widths)
    for name, parts in PARTS.items():
        side, limb = name.split("_", 1)
        if limb not in LIMBS:
            continue
        a, b = (stance.positions[JOINT_INDEX[f"{side}_{joint}"]][:2] * stance.height for joint in LIMBS[limb])
        along = b - a
        length = np.linalg.norm(along)
        got, was = np.isin(near, parts), np.isin(raw, parts)
        if length < 0.04 * stance.height or got.sum() < 20 or was.sum() < 20:
            continue
        new = []
        for k, (low, high) in enumerate(((0.0, 0.5), (0.5, 1.0))):

            def area(where, low=low, high=high, a=a, along=along, length=length):
                at = ((x[where] - a[0]) * along[0] + (y[where] - a[1]) * along[1]) / length**2
                return ((at >= low) & (at < high)).sum()

            ratio = np.clip(area(got) / max(10, area(was)), 0.7, 1.5)
            new.append(float(np.clip(widths.get(parts, (1.0, 1.0))[k] * ratio, 0.6, 2.6)))
        widths[parts] = tuple(new)
    for parts, power, steps, limits in ((TORSO, 1.0, (0.8, 1.25), (0.75, 1.6)), (HEAD, 0.5, (0.85, 1.2), (0.8, 1.35))):
        was = np.isin(raw, parts).sum()
        if was > 20:
            ratio = np.clip((np.isin(near, parts).sum() / was) ** power, *steps)
            value = float(np.clip(widths.get(parts, (1.0, 1.0))[0] * ratio, *limits))
            widths[parts] = (value, value)
    return replace(build, widths=widths)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / max(1e-9, float(np.linalg.norm(v)))


def _axes(up: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The rotation whose columns are left, up and front; up is kept, left as near as can be."""
    up = _unit(up)
    front = _unit(np.cross(left, up))
    return np.stack([np.cross(up, front), up, front], 1)


def _turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation that brings direction a to direction b."""
    a, b = _unit(a), _unit(b)
    v, c = np.cross(a, b), float(a @ b)
    if c < -0.999:
        return np.diag([1.0, -1.0, -1.0])
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)
