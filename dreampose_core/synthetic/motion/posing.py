"""Poses in everyday terms (feet on the floor, hips above them, arms raised), converted to joint angles.

A pose is a vector with a few numbers for each of `PARTS`. Lengths are in body heights, angles in radians. The feet are
given by their position on the floor, and the legs follow by inverse kinematics of the average body, so planted feet
stay planted while the hips move.
"""

from __future__ import annotations

import math

import torch

from ...body.cones import REST, euler_matrices
from ...poses.sequence import JOINT_INDEX, JOINTS, OTHER_SIDE, both

# Numbers of each part. For limbs, "out" is away from the body's middle on both sides.
PARTS = {
    "heading": ("turn",),  # of the whole body, about the vertical through its place; > 0 to its left
    "height": ("above",),  # of the lower sole above the floor, at least 0
    # of the pelvis from its place above the feet; it sinks further if the feet are too far away
    "hips": ("left", "sink", "forward"),
    "pelvis": ("bend", "turn", "lean"),  # forwards, to the left, to the right
    "spine": ("bend", "turn", "lean"),
    "head": ("bend", "turn", "lean"),
    "left_arm": ("raise", "out", "elbow", "twist"),  # forwards, sideways, bent, forearm outwards
    "right_arm": ("raise", "out", "elbow", "twist"),
    "left_hand": ("bend", "out"),
    "right_hand": ("bend", "out"),
    # from the foot's place at rest; turned outwards; heel up, toes down
    "left_foot": ("out", "lift", "forward", "turn", "heel"),
    "right_foot": ("out", "lift", "forward", "turn", "heel"),
}
_starts = [sum(len(numbers) for numbers in list(PARTS.values())[:i]) for i in range(len(PARTS))]
WHERE = {name: slice(start, start + len(PARTS[name])) for name, start in zip(PARTS, _starts)}
_BOTH = {"arms": "arm", "hands": "hand", "feet": "foot"}
NUM_CHANNELS = sum(len(numbers) for numbers in PARTS.values())
HEADING, HEIGHT = WHERE["heading"].start, WHERE["height"].start

_SIDES = torch.tensor([1.0, -1.0])  # left, right
_LEGS = torch.tensor([both("hip"), both("knee"), both("ankle")]).flatten()


def _rest(joint: str) -> torch.Tensor:
    """Positions (2, 3) of the left and the right joint at rest."""
    return torch.tensor([REST[f"left_{joint}"], REST[f"right_{joint}"]])


_ROOT = torch.tensor(REST["root"])
_HIPS = _rest("hip") - _ROOT
_ANKLES = _rest("ankle")
_THIGH_BONE, _SHANK_BONE = (_rest("knee") - _rest("hip"))[0].tolist(), (_ANKLES - _rest("knee"))[0].tolist()
_THIGH, _SHANK = math.hypot(*_THIGH_BONE[1:]), math.hypot(*_SHANK_BONE[1:])
# the knee's bend at rest
_BENT_AT_REST = math.atan2(_THIGH_BONE[2], -_THIGH_BONE[1]) - math.atan2(_SHANK_BONE[2], -_SHANK_BONE[1])
# Limits of the leg's length: never quite straight, or the knee would snap; never folded.
_REACH, _CLOSEST = 0.997 * (_THIGH + _SHANK), 0.34 * (_THIGH + _SHANK)
_ABOVE_SOLE, _BALL, _HEEL = 0.044, 0.055, -0.012  # ankle above the sole; ball and heel, forward of the ankle


def _angle_map() -> torch.Tensor:
    """Matrix (C, J x 3) of 0, 1 and -1 from the numbers of a pose to the angles of all joints but the legs'."""
    table = torch.zeros(NUM_CHANNELS, len(JOINTS), 3)
    for joint, part in (("root", "pelvis"), ("spine", "spine"), ("head", "head")):
        table[WHERE[part], JOINT_INDEX[joint]] = torch.eye(3)
    for side, sign in (("left", 1), ("right", -1)):
        shoulder, elbow, wrist = (JOINT_INDEX[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
        (raised, out, bent, twist), (hand, hand_out) = table[WHERE[f"{side}_arm"]], table[WHERE[f"{side}_hand"]]
        raised[shoulder, 0], out[shoulder, 2], bent[elbow, 0], twist[elbow, 1] = -1, sign, -1, sign
        hand[wrist, 0], hand_out[wrist, 2] = -1, sign
    table[HEADING, JOINT_INDEX["root"], 1] = 1
    return table.flatten(1)


_TO_ANGLES = _angle_map()


def pose_vector(pose: str) -> torch.Tensor:
    """Numbers (C,) of a pose, which is text that names `PARTS` with their numbers, as in "spine .1, left_foot .02 .03".

    Parts that it does not name, and numbers left out at the end of a part, are at ease as in STAND.

    "arms", "hands" and "feet" set both sides, unless one side is named, too.
    """
    vector, parts = STAND.clone(), [part.split() for part in pose.split(",") if pose]
    for name, *numbers in sorted(parts, key=lambda part: part[0] not in _BOTH):
        values = torch.tensor([float(number) for number in numbers])
        for key in [f"{side}_{_BOTH[name]}" for side in ("left", "right")] if name in _BOTH else [name]:
            vector[WHERE[key].start : WHERE[key].start + len(values)] = values
    return vector


STAND = torch.zeros(NUM_CHANNELS)  # at ease: arms a little off the body, feet a little apart and turned out
for _side in ("left", "right"):
    STAND[WHERE[f"{_side}_arm"]] = torch.tensor([0.03, 0.16, 0.22, -0.25])
    STAND[WHERE[f"{_side}_foot"]] = torch.tensor([0.014, 0.0, 0.0, 0.14, 0.0])
STAND[WHERE["hips"].start + 1] = 0.002


def reach(wrist: tuple[float, float, float], elbow: tuple[float, float, float]) -> str:
    """The numbers of an arm whose wrist is at a place of the average body, as text for a pose.

    wrist: (out, up, forward) in body heights from the floor, for the body at rest. elbow: the direction (out, up,
    forward) in which the elbow points. A wrist further away than the arm is long is moved closer.
    """
    shoulder, middle, end = (torch.tensor(REST[f"left_{joint}"]) for joint in ("shoulder", "elbow", "wrist"))
    upper, lower = (middle - shoulder).norm(), (end - middle).norm()
    way = torch.tensor(wrist) - shoulder
    distance = way.norm().clamp(upper * 0.45, (upper + lower) * 0.995)
    way = way / way.norm()
    pole = torch.tensor(elbow, dtype=torch.float32)
    pole = torch.nn.functional.normalize(pole - (pole @ way) * way, dim=0)
    along = (upper**2 + distance**2 - lower**2) / (2 * distance)
    x, y, z = ((along * way + (upper**2 - along**2).clamp_min(0).sqrt() * pole) / upper).tolist()
    if y > abs(z) < x:  # the arm is raised sideways
        out, bend = math.pi - math.asin(x), math.atan2(z, y)
    else:  # the arm is raised forwards
        out, bend = math.asin(x), math.atan2(-z, -y)
    bone = middle - shoulder
    out -= math.atan2(bone[0], -bone[1])  # without the upper arm's angle at rest
    turned = euler_matrices(torch.tensor([bend, 0.0, out]))
    fore = turned.T @ torch.nn.functional.normalize(distance * way - turned @ bone, dim=0)
    bent, twist = math.acos(max(-1.0, min(1.0, -fore[1].item()))), math.atan2(fore[0].item(), fore[2].item())
    return f"{-bend} {out} {bent} {twist}"


HAND_ON_HIP = reach((0.138, 0.588, 0.022), (1.0, 0.0, -0.45))


def assemble(channels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Joint angles (T, J, 3) and root offsets (T, 3) of poses (T, C).

    The offset's y is the height of the lower sole above the floor.
    """
    angles = (channels @ _TO_ANGLES).unflatten(1, (-1, 3))
    angles[:, _LEGS] = _legs(channels)
    heading = channels[:, HEADING]
    left, _, forward = channels[:, WHERE["hips"]].unbind(-1)
    cos, sin = heading.cos(), heading.sin()
    return angles, torch.stack(
        [cos * left + sin * forward, channels[:, HEIGHT].clamp_min(0), cos * forward - sin * left], -1
    )


def _legs(channels: torch.Tensor) -> torch.Tensor:
    """Angles (T, 6, 3) of both hips, both knees and both ankles, left first, that put the feet where the poses say."""
    # (T, 2) each
    out, lift, forward, turn, heel = channels[:, WHERE["left_foot"].start :].unflatten(1, (2, 5)).unbind(-1)
    left, sink, ahead = channels[:, WHERE["hips"]].unbind(-1)
    pelvis_angles = channels[:, WHERE["pelvis"]]
    turn = turn * _SIDES
    zero = torch.zeros_like(turn)
    turned = euler_matrices(torch.cat([torch.stack([heel, turn, zero], -1), pelvis_angles[:, None]], 1))
    foot, pelvis = turned[:, :2], turned[:, 2:]

    # Place the ankles, with each foot rolled over its ball or heel; then the hips, as high as the feet allow.
    pivot = torch.where(heel > 0, _BALL, _HEEL)
    cos, sin = heel.cos(), heel.sin()
    rise, advance = _ABOVE_SOLE * (cos - 1) + pivot * sin, _ABOVE_SOLE * sin + pivot * (1 - cos)
    ankle = _ANKLES + torch.stack(
        [out * _SIDES + advance * turn.sin(), lift + rise, forward + advance * turn.cos()], -1
    )
    hip = (pelvis @ _HIPS[..., None])[..., 0] + _ROOT + torch.stack([left, -sink, ahead], -1)[:, None]
    way = ankle - hip
    height = (_REACH**2 - way[..., 0] ** 2 - way[..., 2] ** 2).clamp_min(0.01).sqrt()
    too_high = (-way[..., 1] - height).amax(1).clamp_min(0)
    way[..., 1] += too_high[:, None]

    # Solve for two bones: the knee's bend from the distance, then the hip's rotation that points the bent leg along
    # `way`, with the knee in the foot's direction.
    way = (pelvis.transpose(-1, -2) @ way[..., None])[..., 0]
    distance = way.norm(dim=-1)
    way = way / distance[..., None]
    distance = distance.clamp(_CLOSEST, _REACH)
    way = way * distance[..., None]
    cos = (distance**2 - (_THIGH**2 + _SHANK**2)) / (2 * _THIGH * _SHANK)  # cosine of the knee's bend
    knee = cos.acos() - _BENT_AT_REST
    cos, sin = knee.cos(), knee.sin()
    y = _THIGH_BONE[1] + cos * _SHANK_BONE[1] - sin * _SHANK_BONE[2]
    z = _THIGH_BONE[2] + sin * _SHANK_BONE[1] + cos * _SHANK_BONE[2]
    hip_turn = turn - pelvis_angles[:, 1:2]
    cos, sin = hip_turn.cos(), hip_turn.sin()
    wx, wz = cos * way[..., 0] - sin * way[..., 2], sin * way[..., 0] + cos * way[..., 2]
    lean = (wx / -y).clamp(-1, 1).asin()
    bend = torch.atan2(wz, way[..., 1]) - torch.atan2(z, lean.cos() * y)
    bend = torch.remainder(bend + math.pi, 2 * math.pi) - math.pi
    hip_angles, knee_angles = torch.stack([bend, hip_turn, lean], -1), torch.stack([knee, zero, zero], -1)

    # The ankle turns the foot to the orientation that the pose asks for.
    leg = euler_matrices(torch.cat([hip_angles, knee_angles], 1))
    turned = (pelvis @ leg[:, :2] @ leg[:, 2:]).transpose(-1, -2) @ foot
    ankle_bend = (-turned[..., 1, 2]).clamp(-1, 1).asin()
    ankle_turn = torch.atan2(turned[..., 0, 2], turned[..., 2, 2])
    ankle_lean = torch.atan2(turned[..., 1, 0], turned[..., 1, 1])
    return torch.cat([hip_angles, knee_angles, torch.stack([ankle_bend, ankle_turn, ankle_lean], -1)], 1)


def mirrored(angles: torch.Tensor, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same motion with left and right exchanged."""
    return angles[:, OTHER_SIDE] * angles.new_tensor([1, -1, -1]), offset * offset.new_tensor([-1, 1, 1])


_FREE = (-math.inf, math.inf)
# Limits of the joints' angles about x, y, z, for the left side. Motions stay within them up to 1.2 times their size.
_REACHES = {
    "root": ((-0.35, 0.61), _FREE, (-0.15, 0.15)),
    "spine": ((-0.2, 0.57), (-0.92, 0.92), (-0.48, 0.48)),
    "head": ((-0.5, 0.5), (-1.19, 1.19), (-0.3, 0.3)),
    "shoulder": ((-3.02, 0.95), _FREE, (-0.63, 2.52)),
    "elbow": ((-2.5, -0.02), (-1.7, 2.2), _FREE),
    "wrist": ((-0.5, 0.5), _FREE, (-0.45, 0.45)),
    "hip": ((-2.2, 0.6), _FREE, _FREE),
    "knee": ((0.0, 2.5), _FREE, _FREE),
    "ankle": ((-0.8, 1.2), _FREE, _FREE),
}
_REACH_OF = torch.tensor([_REACHES[name.rpartition("_")[2]] for name in JOINTS])  # (J, 3, 2)
_RIGHT = torch.tensor([name.startswith("right") for name in JOINTS])
_REACH_OF[_RIGHT, 1:] = -_REACH_OF[_RIGHT, 1:].flip(-1)


def within_reach(angles: torch.Tensor) -> torch.Tensor:
    """Clamp joint angles (T, J, 3) to the limits of the joints."""
    return angles.clamp(*_REACH_OF.unbind(-1))
