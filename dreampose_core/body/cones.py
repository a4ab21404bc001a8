"""The mannequin's body: a skeleton, the rounded cones that hang on it, and DensePose's numbers for their surfaces.

Axes: x to the person's left, y up, z out of the chest; lengths in body heights (about 1 in all), angles in radians.
At rest every joint's rotation is the identity and the arms hang down.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from ..poses import JOINT_INDEX, JOINTS

PARENT = {
    "spine": "root",
    "head": "spine",
    "left_shoulder": "spine",
    "left_elbow": "left_shoulder",
    "left_wrist": "left_elbow",
    "right_shoulder": "spine",
    "right_elbow": "right_shoulder",
    "right_wrist": "right_elbow",
    "left_hip": "root",
    "left_knee": "left_hip",
    "left_ankle": "left_knee",
    "right_hip": "root",
    "right_knee": "right_hip",
    "right_ankle": "right_knee",
}
HAIR_LAYER, HAT_LAYER, BAG_LAYER = 24, 25, 26  # texture layers 0..23 are parts 1..24
NUM_LAYERS = 27

# DensePose's fine labels as (front, back); hands and feet have one chart, the head is split (left, right) instead.
TORSO = (2, 1)
PARTS = {
    "right_hand": (3, 3),
    "left_hand": (4, 4),
    "left_foot": (5, 5),
    "right_foot": (6, 6),
    "right_upper_leg": (9, 7),
    "left_upper_leg": (10, 8),
    "right_lower_leg": (13, 11),
    "left_lower_leg": (14, 12),
    "left_upper_arm": (15, 17),
    "right_upper_arm": (16, 18),
    "left_lower_arm": (19, 21),
    "right_lower_arm": (20, 22),
}
HEAD = (24, 23)  # left and right half
TORSO_HEIGHTS = (0.43, 0.875)  # V 0 and 1 of the torso's two charts
TORSO_JOINTS = {"root": 0.53, "spine": 0.62}  # heights of its joints, average legs provided
LEG_HEIGHTS = {"upper_leg": (0.57, 0.235), "lower_leg": (0.305, 0.02)}  # the same of the legs' charts
HIP_HEIGHT, KNEE_HEIGHT = 0.5, 0.27  # where cloth passes from one chart to the next
HEAD_HEIGHTS = (0.845, 1.02)  # V 0 and 1 of the head's two charts


@dataclass(frozen=True)
class Cone:
    """A rounded cone: the hull of two balls, on a joint, with an elliptic cross section.

    start, end: ball centres in the joint's frame. radii: of the two balls, (0, 0) where it is absent. scale: of the
    cross section along x and z. chart: "limb" (front and back), "whole" (one chart), "torso", "head", "skirt", or
    "none" for what is no part of the body. parts: (front, back). layer: the texture layer, None for the part's own.
    span: V at start and end, of a limb's sleeve; rest heights at start and end, of a skirt; (0, 0) otherwise.
    cut: the second ball is cut off, for cloth that hangs open. swing: how far the end lags behind the joint, 0..1.
    folds: how deep its folds are.
    """

    joint: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radii: tuple[float, float]
    scale: tuple[float, float]
    chart: str
    parts: tuple[int, int]
    layer: int | None = None
    span: tuple[float, float] = (0.0, 0.0)
    cut: bool = False
    swing: float = 0.0
    folds: float = 0.0


@dataclass(frozen=True)
class Shape:
    """Body proportions, each 1 for the average: shoulders, hips, girth (of limbs and belly), legs (their length), head.

    height: of the whole figure, as a share of a grown-up's.
    """

    shoulders: float = 1.0
    hips: float = 1.0
    girth: float = 1.0
    legs: float = 1.0
    head: float = 1.0
    height: float = 1.0


def rest_joints(shape: Shape) -> dict[str, tuple[float, float, float]]:
    """Joint positions at rest, in body heights."""
    hip = 0.515 * (0.5 + 0.5 * shape.legs)
    knee = 0.5 * hip + 0.02
    shoulder_x = 0.1 * shape.shoulders
    lift = hip - 0.515
    joints = {"root": (0, 0.53 + lift, 0), "spine": (0, 0.62 + lift, 0), "head": (0, 0.855 + lift, 0.0)}
    for side, sign in (("left", 1), ("right", -1)):
        joints[f"{side}_shoulder"] = (sign * shoulder_x, 0.80 + lift, -0.005)
        joints[f"{side}_elbow"] = (sign * (shoulder_x + 0.012), 0.635 + lift, -0.005)
        joints[f"{side}_wrist"] = (sign * (shoulder_x + 0.016), 0.495 + lift, 0.0)
        joints[f"{side}_hip"] = (sign * 0.048 * shape.hips, hip, 0)
        joints[f"{side}_knee"] = (sign * 0.049, knee, 0.004)
        joints[f"{side}_ankle"] = (sign * 0.047, 0.045, -0.004)
    return joints


def body_cones(shape: Shape) -> list[Cone]:
    """The bare body's rounded cones, lengths as in `rest_joints`."""
    g, wide, hips = shape.girth, shape.shoulders, shape.hips
    slim = 0.6 + 0.4 * g
    belly = 1 + 0.55 * max(0.0, g - 1.1)  # what is heavy is round in front
    body = [
        Cone(
            "root",
            (0, -0.045, -0.004),
            (0, 0.03, 0),
            (0.064 * slim, 0.062 * g),
            (1.5 * hips, 1.05 * belly),
            "torso",
            TORSO,
        ),
        Cone("spine", (0, -0.04, 0), (0, 0.075, 0), (0.059 * g, 0.067 * slim), (1.36, 1.02 * belly), "torso", TORSO),
        Cone("spine", (0, 0.09, 0), (0, 0.163, -0.004), (0.069 * slim, 0.054), (1.46 * wide, 0.98), "torso", TORSO),
        *(
            Cone(
                "spine",
                (x * 0.014, 0.192, -0.005),
                (x * 0.086 * wide, 0.17, -0.005),
                (0.036, 0.032),
                (1, 1),
                "torso",
                TORSO,
            )
            for x in (1, -1)
        ),
        Cone("spine", (0, 0.19, -0.004), (0, 0.25, 0.002), (0.034, 0.029), (1.0, 1.0), "torso", TORSO),
    ]
    for side, sign in (("left", 1), ("right", -1)):
        body += [
            bone(shape, side, "shoulder", "elbow", (1, 1.05)),
            bone(shape, side, "elbow", "wrist", (1, 1)),
            Cone(
                f"{side}_wrist",
                (0, -0.012, 0),
                (0, -0.062, 0.006),
                (0.0165, 0.014),
                (0.72, 1.2),
                "whole",
                PARTS[f"{side}_hand"],
            ),
            bone(shape, side, "hip", "knee", (1, 1.05)),
            bone(shape, side, "knee", "ankle", (1, 1.08)),
            Cone(
                f"{side}_ankle",
                (0, -0.018, -0.012),
                (sign * 0.012, -0.026, 0.078),
                (0.026, 0.018),
                (1.05, 0.8),
                "whole",
                PARTS[f"{side}_foot"],
            ),
        ]
    s = shape.head
    return body + [
        Cone("head", (0, 0.035 * s, 0.012), (0, 0.087 * s, 0.0), (0.037 * s, 0.052 * s), (0.92, 1.08), "head", HEAD),
        Cone(
            "head", (0, 0.05 * s, 0.052 * s), (0, 0.066 * s, 0.05 * s), (0.0085 * s, 0.005 * s), (1, 1), "head", HEAD
        ),  # nose
    ]


_LIMBS = {  # by start joint: limb, radii of its two balls
    "shoulder": ("upper_arm", (0.033, 0.024)),
    "elbow": ("lower_arm", (0.025, 0.0165)),
    "hip": ("upper_leg", (0.06, 0.039)),
    "knee": ("lower_leg", (0.041, 0.025)),
}


def bone(shape: Shape, side: str, start: str, end: str, scale: tuple[float, float]) -> Cone:
    """The rounded cone of a limb between two joints."""
    joints, (limb, radii) = rest_joints(shape), _LIMBS[start]
    offset = tuple(q - p for p, q in zip(joints[f"{side}_{start}"], joints[f"{side}_{end}"]))
    thin = 0.55 + 0.45 * shape.girth
    first = shape.girth if start == "hip" else thin
    return Cone(
        f"{side}_{start}",
        (0, 0, 0),
        offset,
        (radii[0] * first, radii[1] * thin),
        scale,
        "limb",
        PARTS[f"{side}_{limb}"],
    )


@dataclass(frozen=True)
class Bodies:
    """The cones of F bodies as tensors: rest joints (F, J, 3), start and end (F, C, 3), radii, scale and span (F, C,
    2), cut (0 or 1), swing and folds (F, C), head and torso (F,).

    kinds: the C cones of the first body, for what all bodies share: joint, chart, parts, layer. A cone with radius 0 is
    absent.
    head, torso: the size of the head and the length of the torso, over the average's.
    """

    kinds: list[Cone]
    rest: torch.Tensor
    start: torch.Tensor
    end: torch.Tensor
    radii: torch.Tensor
    scale: torch.Tensor
    span: torch.Tensor
    cut: torch.Tensor
    swing: torch.Tensor
    folds: torch.Tensor
    head: torch.Tensor
    torso: torch.Tensor

    @classmethod
    def of(
        cls,
        rest: list[dict[str, tuple[float, float, float]]],
        head: list[float],
        tables: list[list[Cone]],
        device: str | torch.device = "cpu",
        torso: list[float] | None = None,
    ) -> Bodies:
        """The bodies with these joints at rest, made of these cones, which are the same kinds for all."""

        def tensor(values) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        moving = ("start", "end", "radii", "scale", "span", "cut", "swing", "folds")
        return cls(
            tables[0],
            tensor([[joints[name] for name in JOINTS] for joints in rest]),
            *(tensor([[getattr(cone, name) for cone in table] for table in tables]) for name in moving),
            tensor(head),
            tensor([1.0] * len(tables) if torso is None else torso),
        )

    def select(self, owner: torch.Tensor) -> Bodies:
        """The bodies of frames, `owner` (T,) being each frame's body."""
        return Bodies(self.kinds, *(getattr(self, f.name)[owner] for f in fields(self)[1:]))


def euler_matrices(angles: torch.Tensor) -> torch.Tensor:
    """(..., 3) angles about x, y, z -> (..., 3, 3) rotations R = Ry Rx Rz."""
    x, y, z = angles.unbind(-1)
    cx, sx, cy, sy, cz, sz = x.cos(), x.sin(), y.cos(), y.sin(), z.cos(), z.sin()
    rows = [
        cy * cz + sy * sx * sz,
        -cy * sz + sy * sx * cz,
        sy * cx,
        cx * sz,
        cx * cz,
        -sx,
        -sy * cz + cy * sx * sz,
        sy * sz + cy * sx * cz,
        cy * cx,
    ]
    return torch.stack(rows, -1).reshape(*angles.shape[:-1], 3, 3)


def forward_kinematics(
    rest: torch.Tensor, angles: torch.Tensor, offset: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """World rotations (T, J, 3, 3) and positions (T, J, 3) of the joints.

    rest: (T, J, 3) joints at rest; angles: (T, J, 3) as in `euler_matrices`; offset: (T, 3) added to the root.
    """
    local = euler_matrices(angles)
    rotations, positions = [], []
    for i, name in enumerate(JOINTS):
        if name == "root":
            rotations.append(local[:, i])
            positions.append(rest[:, i] + offset)
            continue
        parent = JOINT_INDEX[PARENT[name]]
        bone = rest[:, i] - rest[:, parent]
        rotations.append(rotations[parent] @ local[:, i])
        positions.append(positions[parent] + (rotations[parent] @ bone[..., None])[..., 0])
    return torch.stack(rotations, 1), torch.stack(positions, 1)


def sole_height(rotations: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(T,) world height of the lower sole, so that a figure can be set on the floor."""
    lows = []
    for side in ("left", "right"):
        i = JOINT_INDEX[f"{side}_ankle"]
        for point in ((0, -0.044, -0.012), (0, -0.044, 0.075)):
            p = torch.tensor(point, dtype=positions.dtype, device=positions.device)
            lows.append((positions[:, i] + rotations[:, i] @ p)[:, 1])
    return torch.stack(lows).amin(0)
