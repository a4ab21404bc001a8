"""A person's body, in any pose: bones, widths, hair, skirt and outline; and how it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch

from ..errors import InputError
from ..poses import JOINT_INDEX, JOINTS, Joints
from .cloth import hang
from .cones import HAIR_LAYER, HEAD, PARENT, PARTS, TORSO, TORSO_JOINTS, Bodies, Cone, Shape, body_cones, rest_joints
from .drawing import View, draw
from .outline import SHAPE as OUTLINE
from .outline import outlined

SIDES = ("left", "right")
LIMBS = {  # in the order of Build.limbs
    "upper_arm": ("shoulder", "elbow"),
    "lower_arm": ("elbow", "wrist"),
    "upper_leg": ("hip", "knee"),
    "lower_leg": ("knee", "ankle"),
}
_SHOULDERS, _HIPS = 0.2, 0.096  # the average's widths between its joints
_SHOULDER_HEIGHT = 0.18  # of the average, above the spine's joint
_HAND, _FOOT = 0.055, 0.11  # the average's, wrist to knuckles, heel to toe
HEAD_WIDTH, HEAD_TOP = 0.048, 0.139  # the average's, half, and above the head's joint
_FINGERS = 1.6  # a hand's length over that to its knuckles
_GROIN = 0.02  # by so much the torso reaches further down
_ANKLE_HEIGHT = 0.045  # of the ankles' joints above the floor
_WAIST = 0.6  # rest height of a skirt's waist
_SKIRT_ACROSS, _SKIRT_DEEP = 1.3, 1.1  # a skirt's cross section
_DOWN = np.array([0.0, -1.0, 0.0])
_BATCH = 8  # frames that are drawn together
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


@dataclass(frozen=True, eq=False)
class Build:
    """A body's proportions; lengths in body heights, widths over the average's.

    offsets: (J, 3) from each joint's parent to it, at rest. hand, foot: lengths. limbs: (4, 2), see LIMBS, widths at
    start and end. trunk: (3,) widths of hips, waist and chest. head: its size. hair: (4,) of what stands off the head:
    height of its lower middle, radius there, height of its top, radius there; all 0 for none. locks: (2,) how far hair
    hangs down next to the neck, and half its width there; 0 for none. skirt: (2,) rest height of its hem, and half its
    width there; 0 for none. outline: how far the person's outline is off that, see `outline.outline_of`.
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
        rest = rest_joints(Shape())
        zero = dict.fromkeys(JOINTS, (0, 0, 0)) | {name: rest[parent] for name, parent in PARENT.items()}
        return cls(np.array([np.subtract(rest[name], zero[name]) if name in PARENT else (0, 0, 0) for name in JOINTS]))

    def numbers(self) -> np.ndarray:
        """All of it as float32 (N,), for `poses.Joints`."""
        return np.concatenate([np.ravel(getattr(self, f.name)) for f in fields(self)]).astype(np.float32)

    @classmethod
    def of(cls, numbers: np.ndarray) -> Build:
        """The body that `numbers` tell. Raises InputError where they are too many or too few."""
        average, values, start = cls.average(), {}, 0
        for f in fields(cls):
            like = np.asarray(getattr(average, f.name))
            part = np.asarray(numbers[start : start + like.size], float)
            if len(part) < like.size:
                break
            values[f.name], start = part.reshape(like.shape) if like.shape else float(part[0]), start + like.size
        if start != len(numbers) or len(values) != len(fields(cls)):
            raise InputError(f"The joints' body has {len(numbers)} numbers; expected {len(average.numbers())}.")
        return cls(**values)

    def symmetrical(self) -> Build:
        """The same with left and right alike."""
        offsets = self.offsets.copy()
        for i, name in enumerate(JOINTS):
            side, _, joint = name.partition("_")
            if side == "left":
                other = JOINT_INDEX[f"right_{joint}"]
                mean = (offsets[i] + offsets[other] * [-1, 1, 1]) / 2
                offsets[i], offsets[other] = mean, mean * [-1, 1, 1]
            elif side != "right":
                offsets[i, 0] = 0
        return replace(self, offsets=offsets)

    def length(self, joint: str) -> float:
        """Of the bone that ends at this joint."""
        return float(np.linalg.norm(self.offsets[JOINT_INDEX[joint]]))

    @property
    def torso(self) -> float:
        """Its length over the average's."""
        return max(0.5, float(self._shoulder_height()) / _SHOULDER_HEIGHT)

    def _shoulder_height(self) -> float:
        return np.mean([self.offsets[JOINT_INDEX[f"{side}_shoulder"], 1] for side in SIDES])

    def _width(self, joint: str) -> float:
        left, right = (self.offsets[JOINT_INDEX[f"{side}_{joint}"]] for side in SIDES)
        return float(np.linalg.norm(left - right))

    def positions(self, rotations: np.ndarray) -> np.ndarray:
        """(T, J, 3) of the joints in body heights, the root at 0, when they are turned by `rotations` (T, J, 3, 3)."""
        found = np.zeros((len(rotations), len(JOINTS), 3))
        neck = np.array([0, self._shoulder_height(), 0])
        for i, name in enumerate(JOINTS[1:], 1):
            parent = JOINT_INDEX[PARENT[name]]
            turn, offset = rotations[:, parent], self.offsets[i]
            found[:, i] = found[:, parent]
            if name == "head":  # the neck bends half way
                found[:, i] += turn @ neck + rotations[:, i] @ (offset - neck)
            else:
                found[:, i] += turn @ offset
        return found

    def rest(self) -> dict[str, tuple[float, float, float]]:
        """Its joints at rest, on the floor."""
        found = self.positions(np.broadcast_to(np.eye(3), (1, len(JOINTS), 3, 3)))[0]
        found[:, 1] += _ANKLE_HEIGHT - np.mean([found[JOINT_INDEX[f"{side}_ankle"], 1] for side in SIDES])
        return {name: tuple(found[i]) for i, name in enumerate(JOINTS)}

    def cones(self) -> list[Cone]:
        """The rounded cones of this body: the mannequin's with its lengths and widths, with the ankles part of the feet
        and the throat part of the head, as DensePose has them; its hair and its skirt."""
        found, trunk = [], 0
        shape = Shape(
            shoulders=float(np.clip(self._width("shoulder") / _SHOULDERS, 0.7, 1.5)),
            hips=float(np.clip(self._width("hip") / _HIPS, 0.7, 1.6)),
        )
        for cone in (*body_cones(shape), *_MORE):
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
            elif name == "wrist":
                size = max(0.7, self.hand / _HAND)
                start, end, radii = start * size, end * size * _FINGERS, radii * size * 1.3
            elif name == "ankle":
                size = [1, 1, np.clip(self.foot / _FOOT, 0.8, 1.6)]
                start, end = start * size, end * size
            elif cone.chart == "head":
                start, end, radii = start * self.head, end * self.head, radii * self.head
            found.append(replace(cone, start=tuple(start), end=tuple(end), radii=tuple(radii), scale=tuple(scale)))
        return found + [*self._hair(), self._skirt()]

    def _hair(self) -> list[Cone]:
        low, low_radius, top, top_radius = map(float, self.hair)
        fall, width = map(float, self.locks)
        back = -0.02 * self.head

        def cone(start, end, radii, deep: float, swing: float = 0.0) -> Cone:
            return Cone("head", start, end, radii, (1, deep), "head", HEAD, layer=HAIR_LAYER, swing=swing)

        rise = max(low + 1e-3, top - top_radius)
        return [
            cone((0, low, back), (0, rise, back), (low_radius, top_radius), 1.0),
            cone((0, 0.06, 1.5 * back), (0, 0.06 - max(fall, 1e-3), 2 * back), (width, 0.85 * width), 0.7, 0.8),
        ]

    def _skirt(self) -> Cone:
        hem, width = map(float, self.skirt)
        waist = 0.066 * 0.95 * max(1.0, float(self.trunk[:2].mean()) * 1.08)
        fall = -(TORSO_JOINTS["root"] - (hem or 0.3))
        flare = (width / _SKIRT_ACROSS - waist) / max(0.05, _WAIST - (hem or 0.3))
        width *= math.sqrt(1 - min(0.6, abs(flare)) ** 2)  # where the cone ends it is wider than its last ball
        return Cone(
            "root",
            (0, (_WAIST - TORSO_JOINTS["root"]) * self.torso, 0),
            (0, fall, 0),
            (waist, width / _SKIRT_ACROSS) if width else (0.0, 0.0),
            (_SKIRT_ACROSS, _SKIRT_DEEP),
            "skirt",
            TORSO,
            span=(_WAIST, hem),
            cut=True,
        )


@dataclass(frozen=True, eq=False)
class Stances:
    """A body in T frames: rotations (T, J, 3, 3) of its joints to the picture's axes, their positions (T, J, 3) in body
    heights about the picture's middle, and its height (T,) in pixels."""

    rotations: np.ndarray
    positions: np.ndarray
    height: np.ndarray

    @classmethod
    def of(cls, joints: Joints, size: tuple[int, int]) -> Stances:
        """Where joints lie in frames of (height, width) `size`."""
        tall = joints.camera[:, 0] * size[0]
        middle = (joints.camera[:, 1:] - 0.5) * [size[1], -size[0]] / tall[:, None]
        return cls(joints.rotations, joints.positions + np.pad(middle, ((0, 0), (0, 1)))[:, None], tall)

    @classmethod
    def joined(cls, several: list[Stances]) -> Stances:
        """All of them in a row."""
        return cls(*(np.concatenate([getattr(one, f.name) for one in several]) for f in fields(cls)))

    def select(self, which) -> Stances:
        """Those of some frames (an index array or a slice)."""
        return Stances(*(getattr(self, f.name)[which] for f in fields(self)))

    def __len__(self) -> int:
        return len(self.height)


def drawn(
    stances: Stances, builds: list[Build], size: tuple[int, int], lag: int = 0, supersample: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Parts uint8 (T, H, W) and U, V float16 (T, 2, H, W), in mannequin's charts, of bodies in their stances.

    builds: of each frame. size: (height, width). lag: by so many frames loose cloth and hair are behind.
    """
    parts, uv = np.zeros((len(stances), *size), np.uint8), np.zeros((len(stances), 2, *size), np.float16)
    for start in range(0, len(stances), _BATCH):
        which = np.arange(start, min(start + _BATCH, len(stances)))
        own = [builds[index] for index in which]
        bodies = Bodies.of(
            [build.rest() for build in own],
            [build.head for build in own],
            [build.cones() for build in own],
            torso=[build.torso for build in own],
        )
        now, before = stances.select(which), stances.select((which - lag).clip(0))
        moments = [
            tuple(torch.tensor(x, dtype=torch.float32) for x in (moment.rotations, moment.positions))
            for moment in (now, before)
        ]
        bodies, twist = hang(bodies, *moments)
        count = len(which)
        view = View(
            torch.tensor(now.height / size[0], dtype=torch.float32),
            torch.zeros(count, 2),
            torch.tensor([[0, 0, 1.0]]).expand(count, 3),
            torch.ones(count),
            torch.ones(count, 3),
        )
        found = draw(bodies, *moments[0], twist, None, torch.arange(count), None, view, size, supersample)
        maps = found.parts.numpy(), found.uv.numpy().clip(0, 1)
        if any(build.outline.any() for build in own):
            maps = outlined(*maps, np.stack([build.outline for build in own]), now.height)
        parts[which], uv[which] = maps
    return parts, uv
