"""Builds: a body's bones, widths, hair, skirt and outline; posed by joint rotations and drawn as pose maps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch

from ..errors import InputError
from ..poses.sequence import JOINT_INDEX, JOINTS, PARENTS, Joints, both
from ..progress import ShouldStop, check_stop, never_stop
from .cones import HAIR_LAYER, HEAD, LIMBS, PARTS, TORSO, TORSO_JOINTS, Bodies, Cone, Shape, body_cones, rest_joints
from .drawing import View, draw
from .outline import SHAPE as OUTLINE
from .outline import outlined

_SHOULDERS, _HIPS = 0.2, 0.096  # average body: distance from the left to the right joint
_SHOULDER_HEIGHT = 0.18  # average body: height above the spine's joint
_HAND, _FOOT = 0.055, 0.11  # average body: wrist to knuckles, heel to toe
HEAD_WIDTH, HEAD_TOP = 0.048, 0.139  # average body: half the head's width, and its top above the joint
_FINGERS = 1.6  # length of a hand over its length up to the knuckles
_GROIN = 0.02  # extra length at the torso's lower end
_ANKLE_HEIGHT = 0.045  # height of the ankle joints above the floor
_WAIST = 0.6  # rest height of a skirt's waist
_SKIRT_ACROSS, _SKIRT_DEEP = 1.3, 1.1  # scale of a skirt's cross section along x and z
_DOWN = np.array([0.0, -1.0, 0.0])
_BATCH = 8  # frames drawn at once
# From the ankle joint to heel and toes, for the left foot; fitted to masks of 13 real and 18 drawn pictures.
_SOLE = (0, -0.042, 0.006), (0.012, -0.044, 0.085), (0.0275, 0.0205), (1.2, 0.95)
_ANKLE = 0.026  # the ankle's largest radius, for wide trousers; else as wide as the leg
_THROAT = Cone("head", (0, -0.02, 0.0), (0, 0.035, 0.008), (0.032, 0.036), (1, 1), "head", HEAD)


@dataclass(frozen=True, eq=False)
class Build:
    """A body's proportions. Lengths are in body heights; widths are factors of the average body's.

    offsets: (J, 3) from each joint's parent to the joint, at rest.
    hand, foot: their lengths.
    limbs: (4, 2) widths at start and end, in the order of LIMBS.
    trunk: (3,) widths of hips, waist and chest.
    head: its size, 1 for the average.
    hair: (4,) hair that stands off the head: height of its lower middle, radius there, height of its top, radius there;
    all 0 for none.
    locks: (2,) how far hair hangs down next to the neck, and half its width there; 0 for none.
    skirt: (2,) rest height of the hem, and half the skirt's width there; 0 for none.
    outline: offsets from the drawn body to the person's outline, see `outline.outline_of`.
    """

    offsets: np.ndarray
    hand: float = _HAND
    foot: float = _FOOT
    limbs: np.ndarray = field(default_factory=lambda: np.ones((4, 2)))
    trunk: np.ndarray = field(default_factory=lambda: np.ones(3))
    head: float = 1.0
    hair: np.ndarray = field(default_factory=lambda: np.zeros(4))
    locks: np.ndarray = field(default_factory=lambda: np.zeros(2))
    skirt: np.ndarray = field(default_factory=lambda: np.zeros(2))
    outline: np.ndarray = field(default_factory=lambda: np.zeros(OUTLINE))

    @classmethod
    def average(cls) -> Build:
        """The average body."""
        rest = np.array([rest_joints(Shape())[name] for name in JOINTS], float)
        return cls(rest - rest[PARENTS])

    def numbers(self) -> np.ndarray:
        """All proportions as float32 (N,), the form that `poses.Joints` keeps."""
        return np.concatenate([np.ravel(getattr(self, f.name)) for f in fields(self)]).astype(np.float32)

    @classmethod
    def of(cls, numbers: np.ndarray) -> Build:
        """Restore a build from its `numbers`. Raises InputError if there are too many or too few."""
        shapes = [np.shape(getattr(cls.average(), f.name)) for f in fields(cls)]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        if len(numbers) != ends[-1]:
            raise InputError(f"The joints' body has {len(numbers)} numbers; expected {ends[-1]}.")
        parts = np.split(np.asarray(numbers, float), ends[:-1])
        return cls(*(part.reshape(shape) if shape else float(part[0]) for part, shape in zip(parts, shapes)))

    def length(self, joint: str) -> float:
        """Length of the bone that ends at `joint`."""
        return float(np.linalg.norm(self.offsets[JOINT_INDEX[joint]]))

    @property
    def torso(self) -> float:
        """Length of the torso over the average's, at least 0.5."""
        return max(0.5, float(self.offsets[both("shoulder"), 1].mean()) / _SHOULDER_HEIGHT)

    def positions(self, rotations: np.ndarray) -> np.ndarray:
        """Joint positions (T, J, 3) in body heights, with the root at 0, from joint rotations (T, J, 3, 3)."""
        positions = np.zeros((len(rotations), len(JOINTS), 3))
        neck, head = np.array([0, self.offsets[both("shoulder"), 1].mean(), 0]), JOINT_INDEX["head"]
        for i, parent in list(enumerate(PARENTS))[1:]:
            positions[:, i] = positions[:, parent] + rotations[:, parent] @ (neck if i == head else self.offsets[i])
            if i == head:  # the neck follows the spine up to the shoulders, and the head above them
                positions[:, i] += rotations[:, i] @ (self.offsets[i] - neck)
        return positions

    def rest(self) -> dict[str, tuple[float, float, float]]:
        """Joint positions at rest, standing on the floor."""
        positions = self.positions(np.broadcast_to(np.eye(3), (1, len(JOINTS), 3, 3)))[0]
        positions[:, 1] += _ANKLE_HEIGHT - positions[both("ankle"), 1].mean()
        return {name: tuple(positions[i]) for i, name in enumerate(JOINTS)}

    def cones(self) -> list[Cone]:
        """Rounded cones of this body, its hair and its skirt.

        They are the mannequin's cones with this body's lengths and widths. As in DensePose, the ankles are part of the
        feet and the throat is part of the head.
        """
        cones, trunk = [], 0
        shoulders, hips = (np.linalg.norm(np.subtract(*self.offsets[both(joint)])) for joint in ("shoulder", "hip"))
        shape = Shape(float(np.clip(shoulders / _SHOULDERS, 0.7, 1.5)), float(np.clip(hips / _HIPS, 0.7, 1.6)))
        for cone in (*body_cones(shape), _THROAT):
            start, end, radii, scale = (np.array(x, float) for x in (cone.start, cone.end, cone.radii, cone.scale))
            side, _, name = cone.joint.rpartition("_")
            if cone.chart == "torso":
                if cone.joint == "root":
                    start[1] -= _GROIN
                start[1], end[1] = start[1] * self.torso, end[1] * self.torso
                scale[0] *= self.trunk[min(trunk, 2)]
                trunk += 1
            elif cone.chart == "limb":
                number, (_, last) = next((i, ends) for i, ends in enumerate(LIMBS.values()) if ends[0] == name)
                end = _DOWN * self.length(f"{side}_{last}")
                radii = radii * self.limbs[number]
                if last == "ankle":
                    place = (0, 0.03, -0.004), (0, -0.015, -0.006), (min(_ANKLE, radii[1]),) * 2, (1, 1)
                    cones.append(Cone(f"{side}_ankle", *place, "whole", PARTS[f"{side}_foot"]))
            elif name == "wrist":
                size = max(0.7, self.hand / _HAND)
                start, end, radii = start * size, end * size * _FINGERS, radii * size * 1.3
            elif name == "ankle":
                start, end, radii, scale = (np.array(x, float) for x in _SOLE)
                size = np.array([1, 1, np.clip(self.foot / _FOOT, 0.8, 1.6)])
                start, end = start * size, end * size * [1 if side == "left" else -1, 1, 1]
            elif cone.chart == "head":
                start, end, radii = start * self.head, end * self.head, radii * self.head
            cones.append(replace(cone, start=tuple(start), end=tuple(end), radii=tuple(radii), scale=tuple(scale)))
        return cones + [*self._hair(), self._skirt()]

    def _hair(self) -> list[Cone]:
        (low, low_radius, top, top_radius), (fall, width) = map(float, self.hair), map(float, self.locks)
        back = -0.02 * self.head
        ball = (0, low, back), (0, max(low + 1e-3, top - top_radius), back), (low_radius, top_radius), (1, 1.0)
        locks = (0, 0.06, 1.5 * back), (0, 0.06 - max(fall, 1e-3), 2 * back), (width, 0.85 * width), (1, 0.7)
        return [
            Cone("head", *place, "head", HEAD, layer=HAIR_LAYER, swing=swing)
            for place, swing in ((ball, 0.0), (locks, 0.8))
        ]

    def _skirt(self) -> Cone:
        hem, width = map(float, self.skirt)
        waist = 0.066 * 0.95 * max(1.0, float(self.trunk[:2].mean()) * 1.08)
        fall = -(TORSO_JOINTS["root"] - (hem or 0.3))
        flare = (width / _SKIRT_ACROSS - waist) / max(0.05, _WAIST - (hem or 0.3))
        width *= math.sqrt(1 - min(0.6, abs(flare)) ** 2)  # the cone is wider at its end than its last ball
        ends = (0, (_WAIST - TORSO_JOINTS["root"]) * self.torso, 0), (0, fall, 0)
        radii = (waist, width / _SKIRT_ACROSS) if width else (0.0, 0.0)
        return Cone("root", *ends, radii, (_SKIRT_ACROSS, _SKIRT_DEEP), "skirt", TORSO, span=(_WAIST, hem), cut=True)


@dataclass(frozen=True, eq=False)
class Stances:
    """A body in T frames.

    rotations: (T, J, 3, 3) from the joints' axes to the picture's. positions: (T, J, 3) of the joints in body heights,
    with 0 in the picture's middle. height: (T,) of the body in pixels.
    """

    rotations: np.ndarray
    positions: np.ndarray
    height: np.ndarray

    @classmethod
    def of(cls, joints: Joints, size: tuple[int, int]) -> Stances:
        """Stances of joints in frames of `size` (height, width)."""
        tall = joints.camera[:, 0] * size[0]
        middle = (joints.camera[:, 1:] - 0.5) * [size[1], -size[0]] / tall[:, None]
        return cls(joints.rotations, joints.positions + np.pad(middle, ((0, 0), (0, 1)))[:, None], tall)

    @classmethod
    def joined(cls, several: list[Stances]) -> Stances:
        """Concatenate stances frame by frame."""
        return cls(*(np.concatenate([getattr(one, f.name) for one in several]) for f in fields(cls)))

    def select(self, which) -> Stances:
        """Stances of some frames; which: an index array or a slice."""
        return Stances(*(getattr(self, f.name)[which] for f in fields(self)))

    def __len__(self) -> int:
        return len(self.height)


def drawn(
    stances: Stances,
    builds: list[Build],
    size: tuple[int, int],
    lag: int = 0,
    supersample: int = 1,
    should_stop: ShouldStop = never_stop,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw bodies in their stances: parts uint8 (T, H, W) and U, V float16 (T, 2, H, W), in mannequin's charts.

    builds: one for each frame. size: (height, width). lag: frames by which loose cloth and hair follow the body.
    supersample: rays per pixel side. Raises Cancelled.
    """
    parts, uv = np.zeros((len(stances), *size), np.uint8), np.zeros((len(stances), 2, *size), np.float16)
    posture = tuple(torch.tensor(x, dtype=torch.float32) for x in (stances.rotations, stances.positions))
    for which in np.split(np.arange(len(stances)), range(_BATCH, len(stances), _BATCH)):
        check_stop(should_stop)
        chosen, count, height = [builds[index] for index in which], len(which), stances.height[which]
        made = ((build.rest(), build.head, build.cones(), build.torso) for build in chosen)
        now, before = (tuple(x[at] for x in posture) for at in (which, (which - lag).clip(0)))
        scale, light = torch.tensor(height / size[0], dtype=torch.float32), torch.tensor([0, 0, 1.0])
        view = View(scale, torch.zeros(count, 2), light.expand(count, 3), torch.ones(count), torch.ones(count, 3))
        rendering = draw(Bodies.of(made).hung(now, before), now, view, size, supersample)
        maps = rendering.parts.numpy(), rendering.uv.numpy().clip(0, 1)
        if any(build.outline.any() for build in chosen):
            maps = outlined(*maps, np.stack([build.outline for build in chosen]), height)
        parts[which], uv[which] = maps
    return parts, uv
