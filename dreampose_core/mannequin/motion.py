"""Named motions: joint angles and the way across the floor, as smooth functions of time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import InputError
from .body import JOINT_INDEX, JOINTS

X, Y, Z = 0, 1, 2  # bend forwards and back, turn, lean sideways


@dataclass(frozen=True)
class Manner:
    """How one figure does a motion: speed and size of its movements (1 is usual), phase 0..1, side +1 or -1."""

    speed: float = 1.0
    size: float = 1.0
    phase: float = 0.0
    side: int = 1


class Pose:
    """Joint angles (T, J, 3) and root offsets (T, 3), set joint by joint."""

    def __init__(self, frames: int):
        self.angles = torch.zeros(frames, len(JOINTS), 3)
        self.offset = torch.zeros(frames, 3)

    def bend(self, joint: str, axis: int, angle) -> None:
        self.angles[:, JOINT_INDEX[joint], axis] += angle


def _stand(pose: Pose, t: torch.Tensor, m: Manner) -> None:
    """Breathing and a little life, which every motion starts from; arms a hand's breadth off the body."""
    sway = torch.sin(2 * math.pi * (0.23 * t + m.phase))
    pose.bend("root", Z, 0.012 * sway)
    pose.bend("spine", Z, -0.02 * sway)
    pose.bend("head", Y, 0.08 * torch.sin(2 * math.pi * (0.17 * t + 2 * m.phase)))
    for side, sign in (("left", 1), ("right", -1)):
        pose.bend(f"{side}_shoulder", Z, sign * (0.16 + 0.01 * sway))
        pose.bend(f"{side}_elbow", X, -0.18)
        pose.bend(f"{side}_hip", Z, sign * 0.03)


def _steps(pose: Pose, cycle: torch.Tensor, amount, size: float) -> None:
    """Legs and arms of a walk; `cycle` in steps pairs, `amount` 0..1 fades it in and out."""
    swing = torch.sin(2 * math.pi * cycle)
    for side, sign in (("left", 1), ("right", -1)):
        s = sign * swing
        lift = torch.clamp(torch.cos(2 * math.pi * cycle) * sign, min=0)
        pose.bend(f"{side}_hip", X, -amount * size * (0.36 * s + 0.16 * lift))
        pose.bend(f"{side}_knee", X, amount * size * (0.12 + 0.62 * lift))
        pose.bend(f"{side}_ankle", X, amount * size * (0.1 * s - 0.12 * lift))
        pose.bend(f"{side}_shoulder", X, amount * size * 0.42 * s)
        pose.bend(f"{side}_elbow", X, -amount * size * (0.2 - 0.15 * s))
    pose.bend("root", Y, amount * 0.09 * swing * size)
    pose.bend("spine", Y, -amount * 0.16 * swing * size)
    pose.bend("root", Z, amount * 0.03 * torch.cos(2 * math.pi * cycle))


def _ease(x):
    x = torch.as_tensor(x).clamp(0, 1)
    return x * x * (3 - 2 * x)


def _ease_integral(x):
    x = torch.as_tensor(x)
    inside = x.clamp(0, 1)
    return inside**3 - 0.5 * inside**4 + (x - 1).clamp_min(0)


def _walk(pose, t, m):
    turn = 0.5 * m.side * torch.sin(2 * math.pi * (0.11 * m.speed * t + m.phase))
    pose.bend("root", Y, turn)
    _steps(pose, 0.85 * m.speed * t + m.phase, 1.0, m.size)
    pose.offset[:, 0] += 0.06 * torch.sin(2 * math.pi * (0.11 * m.speed * t + m.phase))


def _turn(pose, t, m):
    pose.bend("root", Y, m.side * 2 * math.pi * 0.22 * m.speed * t)
    _steps(pose, 0.9 * m.speed * t, 0.35, m.size)


def _wave(pose, t, m):
    side = "left" if m.side > 0 else "right"
    sign = m.side
    up = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.clamp(0.3 * m.speed * t, max=0.5))
    pose.bend(f"{side}_shoulder", Z, sign * up * 1.25 * min(m.size, 1.1))
    pose.bend(f"{side}_elbow", Z, sign * up * (1.15 + 0.38 * torch.sin(2 * math.pi * 1.3 * m.speed * t)))
    pose.bend("spine", Z, -sign * 0.05 * up)
    pose.bend("root", Y, 0.2 * torch.sin(2 * math.pi * (0.12 * t + m.phase)))


def _catwalk(pose, t, m):
    """Towards us, a stop with a hand on the hip, a turn, and away."""
    t = m.speed * t
    walking = 1 - _ease((t - 1.6) / 0.4) + _ease((t - 3.6) / 0.4)
    cycle = t - 0.4 * _ease_integral((t - 1.6) / 0.4) + 0.4 * _ease_integral((t - 3.6) / 0.4)
    stop = _ease((t - 1.7) / 0.4) - _ease((t - 2.7) / 0.4)
    _steps(pose, 0.95 * cycle + m.phase, walking, m.size)
    pose.bend("root", Y, m.side * math.pi * _ease((t - 2.7) / 1.1))
    side = "left" if m.side > 0 else "right"
    pose.bend(f"{side}_shoulder", Z, m.side * 0.55 * stop)
    pose.bend(f"{side}_elbow", Z, -m.side * 1.5 * stop)
    pose.bend("root", Z, m.side * 0.06 * stop)
    pose.bend("spine", Z, -m.side * 0.1 * stop)


def _arms(pose, t, m):
    wave = 0.5 - 0.5 * torch.cos(2 * math.pi * (0.35 * m.speed * t + m.phase))
    for side, sign in (("left", 1), ("right", -1)):
        pose.bend(f"{side}_shoulder", Z, sign * wave * 1.9 * min(m.size, 1.25))
        pose.bend(f"{side}_elbow", Z, sign * 0.25 * wave)
    pose.bend("root", Y, 0.35 * m.side * torch.sin(2 * math.pi * (0.16 * m.speed * t + m.phase)))


def _side_step(pose, t, m):
    beat = torch.sin(2 * math.pi * (0.45 * m.speed * t + m.phase))
    pose.offset[:, 0] += 0.075 * m.size * beat
    for side, sign in (("left", 1), ("right", -1)):
        out = torch.clamp(sign * torch.cos(2 * math.pi * (0.45 * m.speed * t + m.phase)), min=0)
        pose.bend(f"{side}_hip", Z, sign * 0.28 * m.size * out)
        pose.bend(f"{side}_knee", X, 0.35 * out)
        pose.bend(f"{side}_hip", X, -0.2 * out)
        pose.bend(f"{side}_shoulder", Z, sign * 0.4 * m.size * out)
        pose.bend(f"{side}_elbow", X, -0.6 * out)
    pose.bend("spine", Z, 0.08 * beat)


def _twist(pose, t, m):
    beat = torch.sin(2 * math.pi * (0.5 * m.speed * t + m.phase))
    pose.bend("root", Y, -0.35 * m.size * beat)
    pose.bend("spine", Y, 0.85 * m.size * beat)
    pose.bend("head", Y, 0.25 * beat)
    for side, sign in (("left", 1), ("right", -1)):
        pose.bend(f"{side}_shoulder", Z, sign * 0.45)
        pose.bend(f"{side}_shoulder", X, -0.45)
        pose.bend(f"{side}_elbow", X, -1.0)


def _squat(pose, t, m):
    down = 0.5 - 0.5 * torch.cos(2 * math.pi * (0.33 * m.speed * t + m.phase))
    down = down * min(m.size, 1.2)
    for side, sign in (("left", 1), ("right", -1)):
        pose.bend(f"{side}_hip", X, -1.0 * down)
        pose.bend(f"{side}_hip", Z, sign * 0.14 * down)
        pose.bend(f"{side}_knee", X, 1.55 * down)
        pose.bend(f"{side}_ankle", X, -0.55 * down)
        pose.bend(f"{side}_shoulder", X, -1.2 * down)
    pose.bend("spine", X, 0.25 * down)
    pose.bend("root", X, 0.12 * down)
    pose.bend("root", Y, 0.45 * m.side * torch.sin(2 * math.pi * (0.1 * t + m.phase)))


def _dance(pose, t, m):
    beat = 2 * math.pi * (0.7 * m.speed * t + m.phase)
    pose.bend("root", Y, 0.4 * m.side * torch.sin(beat / 4))
    pose.bend("root", Z, 0.07 * torch.sin(beat))
    pose.bend("spine", Z, -0.12 * torch.sin(beat))
    for side, sign, shift in (("left", 1, 0.0), ("right", -1, math.pi)):
        pose.bend(f"{side}_knee", X, 0.3 + 0.25 * torch.sin(beat + shift))
        pose.bend(f"{side}_hip", X, -0.15 - 0.12 * torch.sin(beat + shift))
        pose.bend(f"{side}_shoulder", Z, sign * (0.7 + 0.6 * m.size * torch.sin(beat / 2 + shift)))
        pose.bend(f"{side}_elbow", Z, sign * (0.7 + 0.5 * torch.sin(beat + shift)))


def _idle(pose, t, m):
    pose.bend("root", Y, 0.6 * m.side * torch.sin(2 * math.pi * (0.14 * m.speed * t + m.phase)))


MOTIONS: dict[str, Callable] = {
    "idle": _idle, "walk": _walk, "turn": _turn, "wave": _wave, "catwalk": _catwalk, "arms": _arms, "side_step": _side_step,
    "twist": _twist, "squat": _squat, "dance": _dance,
}  # fmt: skip


def motion(name: str, times: torch.Tensor, manner: Manner = Manner()) -> tuple[torch.Tensor, torch.Tensor]:
    """Joint angles (T, J, 3) and root offsets (T, 3) at `times` (T,), in seconds, ascending."""
    if name not in MOTIONS:
        raise InputError(f"There is no motion {name!r}; there are {', '.join(MOTIONS)}.")
    pose = Pose(len(times))
    _stand(pose, times, manner)
    MOTIONS[name](pose, times, manner)
    return pose.angles, pose.offset


def random_manner(generator: torch.Generator) -> Manner:
    """A manner of moving."""
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    return Manner(uniform(0.75, 1.25), uniform(0.8, 1.2), uniform(0, 1), 1 if uniform(0, 1) < 0.5 else -1)
