"""Builds: a body's bones, widths, hair, skirt and outline; posed by joint rotations and drawn as pose maps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np
import torch

from ..errors import InputError
from ..poses.sequence import JOINT_INDEX, JOINTS, PARENTS, SIDES, Joints, both
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .cones import HEAD, LIMBS, PARTS, REST, TORSO, WAIST, Bodies, Cone
from .drawing import draw
from .outline import SHAPE as OUTLINE
from .outline import outlined, with_even_sides

_SHOULDERS, _HIPS = 0.2, 0.096  # average body: distance from the left to the right joint
_SHOULDER_HEIGHT = 0.18  # average body: height above the spine's joint
_HAND, _FOOT = 0.055, 0.11  # average body: wrist to knuckles, heel to toe
HEAD_WIDTH, HEAD_TOP = 0.048, 0.139  # average body: half the head's width, and its top above the joint
_ANKLE_HEIGHT = 0.045  # height of the ankle joints above the floor
_SKIRT_ACROSS, _SKIRT_DEEP = 1.3, 1.1  # scale of a skirt's cross section along x and z
_BATCH = 8  # frames drawn at once
LAG_S = 0.12  # delay of loose cloth and hair
_ARM_TURN = math.radians(75)
_FIRST_ARM, _FRONTS = 15, (15, 16, 19, 20)  # front + 2 is the back of the same limb; odd parts belong to the left arm
# From the ankle joint to heel and toes, for the left foot; fitted to masks of 13 real and 18 drawn pictures.
_SOLE = (0, -0.042, 0.006), (0.012, -0.044, 0.085), (0.0275, 0.0205), (1.2, 0.95)
_ANKLE = 0.026  # the ankle's largest radius, for wide trousers; else as wide as the leg
# radii of a limb's two balls, and the depth of its cross section
_THICKNESS = {
    "upper_arm": ((0.033, 0.024), 1.05),
    "lower_arm": ((0.025, 0.0165), 1),
    "upper_leg": ((0.06, 0.039), 1.05),
    "lower_leg": ((0.041, 0.025), 1.08),
}
# of the left hand: palm, thumb, and fingers from the first to the fourth, as below
_ON_HAND = (
    ((0, -0.014, 0), (0, -0.046, 0.001), (0.0185, 0.0205), (0.6, 1.2)),
    ((0, -0.02, 0.011), (-0.006, -0.056, 0.037), (0.009, 0.0058), (1, 1)),
    ((0, -0.05, 0.017), (-0.006, -0.098, 0.025), (0.006, 0.0046), (1, 1)),
    ((0, -0.05, 0.006), (-0.007, -0.107, 0.0085), (0.0062, 0.0047), (1, 1)),
    ((0, -0.05, -0.005), (-0.007, -0.1, -0.0085), (0.006, 0.0045), (1, 1)),
    ((0, -0.048, -0.0155), (-0.006, -0.084, -0.0245), (0.0054, 0.004), (1, 1)),
)
# skull, nose and throat: start, end, radii, cross section
_ON_HEAD = (
    ((0, 0.035, 0.012), (0, 0.087, 0.0), (0.037, 0.052), (0.92, 1.08)),
    ((0, 0.05, 0.052), (0, 0.066, 0.05), (0.0085, 0.005), (1, 1)),
    ((0, -0.02, 0.0), (0, 0.035, 0.008), (0.032, 0.036), (1, 1)),
)


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
        rest = np.array([REST[name] for name in JOINTS], float)
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

    def rest(self) -> np.ndarray:
        """Joint positions (J, 3) at rest, standing on the floor."""
        positions = self.positions(np.broadcast_to(np.eye(3), (1, len(JOINTS), 3, 3)))[0]
        positions[:, 1] += _ANKLE_HEIGHT - positions[both("ankle"), 1].mean()
        return positions

    def cones(self) -> list[Cone]:
        """Rounded cones of this body, its hair and its skirt.

        As in DensePose, the ankles are part of the feet and the throat is part of the head.
        """
        shoulders, hips = (np.linalg.norm(np.subtract(*self.offsets[both(joint)])) for joint in ("shoulder", "hip"))
        wide, broad = np.clip(shoulders / _SHOULDERS, 0.7, 1.5), np.clip(hips / _HIPS, 0.7, 1.6)
        hip, waist, chest = self.trunk
        torso = (
            ("root", (0, -0.025, -0.004), (0, 0.045, 0), (0.063, 0.05), (1.5 * broad * hip, 1.15)),
            ("spine", (0, -0.04, 0), (0, 0.075, 0), (0.059, 0.067), (1.36 * waist, 1.02)),
            ("spine", (0, 0.09, 0), (0, 0.163, -0.004), (0.069, 0.054), (1.46 * wide * chest, 0.98)),
            ("spine", (0.014, 0.192, -0.005), (0.086 * wide, 0.17, -0.005), (0.036, 0.032), (chest, 1)),
            ("spine", (-0.014, 0.192, -0.005), (-0.086 * wide, 0.17, -0.005), (0.036, 0.032), (chest, 1)),
            ("spine", (0, 0.19, -0.004), (0, 0.25, 0.002), (0.034, 0.029), (chest, 1.0)),
        )
        tall = (1, self.torso, 1)
        cones = [
            Cone(joint, np.multiply(start, tall), np.multiply(end, tall), *shape, "torso", TORSO)
            for joint, start, end, *shape in torso
        ]
        for side, sign in zip(SIDES, (1, -1)):
            for (limb, (first, last)), widths in zip(LIMBS.items(), self.limbs):
                radii, depth = _THICKNESS[limb]
                radii, end = np.multiply(radii, widths), (0, -self.length(f"{side}_{last}"), 0)
                parts = PARTS[f"{side}_{limb}"]
                cones.append(Cone(f"{side}_{first}", (0, 0, 0), end, radii, (1, depth), "limb", parts))
            foot, parts = f"{side}_ankle", PARTS[f"{side}_foot"]
            thin = (min(_ANKLE, radii[1]),) * 2
            cones.append(Cone(foot, (0, 0.03, -0.004), (0, -0.015, -0.006), thin, (1, 1), "ankle", parts))
            long = (1, 1, np.clip(self.foot / _FOOT, 0.8, 1.6))
            start, end, *shape = _SOLE
            start, end = np.multiply(start, long), np.multiply(end, long) * (sign, 1, 1)
            cones.append(Cone(foot, start, end, *shape, "sole", parts))
            size = max(0.7, self.hand / _HAND)
            for start, end, radii, scale in _ON_HAND:
                start, end = (np.multiply(x, (sign * size, size, size)) for x in (start, end))
                radii = np.multiply(radii, size)
                cones.append(Cone(f"{side}_wrist", start, end, radii, scale, "hand", PARTS[f"{side}_hand"]))
        for *place, scale in _ON_HEAD:
            cones.append(Cone("head", *(np.multiply(x, self.head) for x in place), scale, "head", HEAD))
        return cones + [*self._hair(), self._skirt()]

    def _hair(self) -> list[Cone]:
        (low, low_radius, top, top_radius), (fall, width) = map(float, self.hair), map(float, self.locks)
        back = -0.02 * self.head
        ball = (0, low, back), (0, max(low + 1e-3, top - top_radius), back), (low_radius, top_radius), (1, 1.0)
        locks = (0, 0.06, 1.5 * back), (0, 0.06 - max(fall, 1e-3), 2 * back), (width, 0.85 * width), (1, 0.7)
        return [Cone("head", *place, "head", HEAD, swing) for place, swing in ((ball, 0.0), (locks, 0.8))]

    def _skirt(self) -> Cone:
        hem, width = map(float, self.skirt)
        waist = 0.066 * 0.95 * max(1.0, float(self.trunk[:2].mean()) * 1.08)
        fall = -(REST["root"][1] - (hem or 0.3))
        flare = (width / _SKIRT_ACROSS - waist) / max(0.05, WAIST - (hem or 0.3))
        width *= math.sqrt(1 - min(0.6, abs(flare)) ** 2)  # the cone is wider at its end than its last ball
        ends = (0, (WAIST - REST["root"][1]) * self.torso, 0), (0, fall, 0)
        radii = (waist, width / _SKIRT_ACROSS) if width else (0.0, 0.0)
        return Cone("root", *ends, radii, (_SKIRT_ACROSS, _SKIRT_DEEP), "skirt", TORSO)


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
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw bodies in their stances: parts uint8 (T, H, W) and U, V float16 (T, 2, H, W).

    `turn_arms` must follow to make them maps in the charts `body`. builds: one for each frame, which differ only in
    their bones. size: (height, width). lag: frames by which loose cloth and hair follow the body. supersample: rays per
    pixel side. Raises Cancelled.
    """
    parts, uv = np.zeros((len(stances), *size), np.uint8), np.zeros((len(stances), 2, *size), np.float16)
    posture = tuple(torch.tensor(x, dtype=torch.float32) for x in (stances.rotations, stances.positions))
    clock = StageClock("drawing", len(stances), on_progress)
    for which in np.split(np.arange(len(stances)), range(_BATCH, len(stances), _BATCH)):
        check_stop(should_stop)
        chosen, height = [builds[index] for index in which], stances.height[which]
        now, before = (tuple(x[at] for x in posture) for at in (which, (which - lag).clip(0)))
        scale = torch.tensor(height / size[0], dtype=torch.float32)
        drawn_parts, drawn_uv, skirt = draw(_stacked(chosen).hung(now, before), now, scale, size, supersample)
        maps = with_even_sides(drawn_parts.numpy(), drawn_uv.numpy().clip(0, 1), height)
        if builds[0].outline.any():
            skirt = skirt.numpy() if builds[0].skirt.any() else None
            maps = outlined(*maps, builds[0].outline, height, skirt)
        parts[which], uv[which] = maps
        clock.tick(int(which[-1]) + 1)
    return parts, uv


def _stacked(builds: list[Build]) -> Bodies:
    """The cones of builds with the same hair and skirt, as tensors."""
    cones, sizes = (
        [build.cones() for build in builds],
        [(build.head, build.torso, build.skirt[0], 0) for build in builds],
    )
    shapes = ([[getattr(cone, name) for cone in of] for of in cones] for name in ("start", "end", "radii", "scale"))
    values = [build.rest() for build in builds], *shapes, *zip(*sizes)
    return Bodies(cones[0], *(torch.tensor(np.array(x), dtype=torch.float32) for x in values))


def turn_arms(parts: np.ndarray, uv: np.ndarray) -> None:
    """Put what `drawn` returns, parts (T, H, W) and U, V (T, 2, H, W), in the charts `body`, in place.

    On an arm, part and U encode an angle about the bone. `drawn` measures it from the front of a hanging arm, the
    charts from _ARM_TURN further inwards, as DensePose does.
    """
    for labels, values in zip(parts, uv):
        rows, columns = np.nonzero((labels >= _FIRST_ARM) & (labels < _FIRST_ARM + 8))
        part, u = labels[rows, columns], values[0, rows, columns].astype(np.float32)
        on_front = np.isin(part, _FRONTS)
        turn = np.where(part % 2, _ARM_TURN, -_ARM_TURN)
        angle = np.where(on_front, u - 0.5, u + 0.5) * math.pi + turn
        angle = (angle + math.pi) % (2 * math.pi) - math.pi
        is_front = np.abs(angle) <= math.pi / 2
        labels[rows, columns] = part + np.where(on_front, 0, -2) + np.where(is_front, 0, 2)
        values[0, rows, columns] = np.where(is_front, 0.5 + angle / math.pi, (angle / math.pi) % 2 - 0.5).clip(0, 1)
