"""The drawn body: rounded cones on its joints, and DensePose's part numbers of their surfaces.

Cloth and hair hang on a moving body: loose ends lag behind their joints, and skirts follow the legs.

Axes: x to the person's left, y up, z out of the chest. Lengths are in body heights (the body is about 1 tall), angles
in radians. At rest every joint's rotation is the identity and the arms hang down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..poses.sequence import JOINT_INDEX, JOINTS, PARENTS, SIDES, both

# DensePose's part numbers (front, back). Hands and feet have one chart; the head is split into left and right.
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
# the joints at a limb's ends
LIMBS = {
    "upper_arm": ("shoulder", "elbow"),
    "lower_arm": ("elbow", "wrist"),
    "upper_leg": ("hip", "knee"),
    "lower_leg": ("knee", "ankle"),
}
# joint positions of the average body at rest
REST = {"root": (0, 0.53, 0), "spine": (0, 0.62, 0), "head": (0, 0.855, 0)}
for _side, _sign in zip(SIDES, (1, -1)):
    REST[f"{_side}_shoulder"] = (_sign * 0.1, 0.80, -0.005)
    REST[f"{_side}_elbow"] = (_sign * 0.112, 0.635, -0.005)
    REST[f"{_side}_wrist"] = (_sign * 0.116, 0.495, 0.0)
    REST[f"{_side}_hip"] = (_sign * 0.048, 0.515, 0)
    REST[f"{_side}_knee"] = (_sign * 0.049, 0.2775, 0.004)
    REST[f"{_side}_ankle"] = (_sign * 0.047, 0.045, -0.004)
WAIST = 0.6  # rest height of a skirt's waist
# rest heights at which a chart's V is 0 and 1
HEIGHTS = {
    "torso": (0.43, 0.875),
    "head": (0.845, 1.02),
    "hand": (0.505, 0.365),
    "upper_leg": (0.57, 0.235),
    "lower_leg": (0.305, 0.02),
}
_SKIRT_LAG = 0.6  # weight of the legs' earlier position in the hem's position
_THIGH, _CALF = 1.15, 1.3  # space around the legs inside a skirt, as a factor of the leg's radius


@dataclass(frozen=True)
class Cone:
    """A rounded cone on a joint: the hull of two balls, with an elliptic cross section.

    start, end: ball centres (3,) in the joint's frame.
    radii: (2,) of the two balls; (0, 0) if the cone is absent.
    scale: (2,) of the cross section along x and z.
    chart: "limb" (front and back), "hand", "ankle" and "sole" (a part's one chart), "torso", "head", or "skirt", which
    hangs open at its end.
    parts: (front, back).
    swing: how far the end lags behind the joint, 0 to 1.
    """

    joint: str
    start: Sequence[float]
    end: Sequence[float]
    radii: Sequence[float]
    scale: Sequence[float]
    chart: str
    parts: tuple[int, int]
    swing: float = 0.0


@dataclass(frozen=True)
class Bodies:
    """The cones of F bodies as tensors.

    kinds: the C cones of the first body, for what all bodies share: joint, chart, parts, swing.
    rest: (F, J, 3) joints at rest. start, end: (F, C, 3). radii, scale: (F, C, 2); a cone with radius 0 is absent.
    head, torso: (F,) size of the head and length of the torso, over the average's.
    hem: (F,) rest height of a skirt's hem. twist: (F,) how far it is turned back, in radians.
    """

    kinds: list[Cone]
    rest: torch.Tensor
    start: torch.Tensor
    end: torch.Tensor
    radii: torch.Tensor
    scale: torch.Tensor
    head: torch.Tensor
    torso: torch.Tensor
    hem: torch.Tensor
    twist: torch.Tensor

    def hung(self, now: Posture, before: Posture) -> Bodies:
        """The bodies of T frames with their cloth and hair hanging.

        now, before: postures in each frame and a moment before it.
        """
        start, end, radii, scale = self.start, self.end.clone(), self.radii.clone(), self.scale.clone()
        for i, kind in enumerate(self.kinds):
            if kind.chart == "skirt":
                _hang_skirt(i, self, now, before, end, radii, scale)
            elif kind.swing:
                j = JOINT_INDEX[kind.joint]
                tip = self.end[:, i, :, None]
                gone = (before[0][:, j] @ tip)[..., 0] + before[1][:, j] - (now[0][:, j] @ tip)[..., 0] - now[1][:, j]
                reach = 0.5 * (end[:, i] - start[:, i]).norm(dim=-1, keepdim=True)
                gone = kind.swing * gone
                gone = gone * (reach / gone.norm(dim=-1, keepdim=True).clamp_min(1e-6)).clamp(max=1)
                end[:, i] += (now[0][:, j].transpose(1, 2) @ gone[..., None])[..., 0]
        twist = _heading(before[0]) - _heading(now[0])
        twist = torch.atan2(twist.sin(), twist.cos()).clamp(-0.6, 0.6)
        return replace(self, end=end, radii=radii, scale=scale, twist=twist)


def euler_matrices(angles: torch.Tensor) -> torch.Tensor:
    """Rotations R = Ry Rx Rz (..., 3, 3) from angles (..., 3) about x, y, z."""
    x, y, z = angles.unbind(-1)
    cx, sx, cy, sy, cz, sz = x.cos(), x.sin(), y.cos(), y.sin(), z.cos(), z.sin()
    first = cy * cz + sy * sx * sz, -cy * sz + sy * sx * cz, sy * cx
    second = cx * sz, cx * cz, -sx
    third = -sy * cz + cy * sx * sz, sy * sz + cy * sx * cz, cy * cx
    return torch.stack(first + second + third, -1).reshape(*angles.shape[:-1], 3, 3)


Posture = tuple[torch.Tensor, torch.Tensor]  # rotations (T, J, 3, 3) and positions (T, J, 3) of joints


def forward_kinematics(rest: torch.Tensor, angles: torch.Tensor, offset: torch.Tensor) -> Posture:
    """World rotations (T, J, 3, 3) and positions (T, J, 3) of the joints.

    rest: (T, J, 3) joints at rest; angles: (T, J, 3) as in `euler_matrices`; offset: (T, 3) added to the root.
    """
    local = euler_matrices(angles)
    rotations, positions = [local[:, 0]], [rest[:, 0] + offset]
    for i in range(1, len(JOINTS)):
        parent = PARENTS[i]
        bone = rest[:, i] - rest[:, parent]
        rotations.append(rotations[parent] @ local[:, i])
        positions.append(positions[parent] + (rotations[parent] @ bone[..., None])[..., 0])
    return torch.stack(rotations, 1), torch.stack(positions, 1)


def sole_height(rotations: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """World height (T,) of the lower sole, needed to set a body on the floor."""
    ankles, ends = both("ankle"), positions.new_tensor([(0, -0.044, -0.012), (0, -0.044, 0.075)])
    return torch.stack([(positions[:, i] + rotations[:, i] @ end)[:, 1] for i in ankles for end in ends]).amin(0)


def _hang_skirt(i: int, bodies: Bodies, now, before, end, radii, scale) -> None:
    """Widen the skirt's hem to surround both legs and let it lag; writes into end, radii and scale (T, C, ...)."""
    to_root = now[0][:, JOINT_INDEX["root"]].transpose(1, 2)
    middle = now[1][:, JOINT_INDEX["root"]]

    def legs_at_hem(moment) -> torch.Tensor:
        """Positions (T, 2, 3) of both legs at the hem's height, in the root's frame."""
        places = []
        for leg in zip(*(both(joint) for joint in ("hip", "knee", "ankle"))):
            (hip, knee, ankle), rest = moment[1][:, leg].unbind(1), bodies.rest[:, leg, 1]
            hem = bodies.hem * rest[:, 0] / 0.515  # the hem's height scales with the legs
            upper = ((rest[:, 0] - hem) / (rest[:, 0] - rest[:, 1])).clamp(0, 1)[:, None]
            lower = ((rest[:, 1] - hem) / (rest[:, 1] - rest[:, 2])).clamp(0, 1)[:, None]
            places.append(hip + (knee - hip) * upper + (ankle - knee) * lower)
        return torch.stack([(to_root @ (place - middle)[..., None])[..., 0] for place in places], 1)

    legs, were = legs_at_hem(now), legs_at_hem(before)
    centre = torch.lerp(legs.mean(1), were.mean(1), _SKIRT_LAG)
    # The first match is the bare leg, since the body's own cones come first.
    thigh = [kind.joint for kind in bodies.kinds].index("left_hip")
    thick = bodies.radii[:, thigh, 1]
    spread = (legs - centre[:, None]).abs().amax(1)
    # The hem must be wide enough for both legs.
    wide = torch.maximum(radii[:, i, 1] * scale[:, i, 0], spread[:, 0] + _THIGH * thick)
    deep = torch.maximum(radii[:, i, 1] * scale[:, i, 1], spread[:, 2] + _CALF * thick)
    # The cross section has the same shape from waist to hem; the waist keeps its width as far as possible.
    across = (wide / deep * scale[:, i, 1]).clamp(0.8, 1.7)
    radii[:, i, 0] *= (scale[:, i, 0] / across).clamp(0.85, 1.15)
    scale[:, i, 0] = across
    radii[:, i, 1] = torch.maximum(wide / across, deep / scale[:, i, 1])
    length = (centre - bodies.start[:, i]).norm(dim=-1)
    radii[:, i, 1] = torch.minimum(radii[:, i, 1], radii[:, i, 0] + 0.8 * length)  # a steeper cone would be a ball
    end[:, i] = centre


def _heading(rotations: torch.Tensor) -> torch.Tensor:
    """Heading (T,) of the root joint: its angle about the vertical, in radians."""
    forward = rotations[:, JOINT_INDEX["root"], :, 2]
    return torch.atan2(forward[:, 0], forward[:, 2])
