"""Hang cloth and hair on a moving body: loose ends lag behind their joints, and skirts follow the legs."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..poses.sequence import JOINT_INDEX, both
from .cones import Bodies, Posture

_SKIRT_LAG = 0.6  # weight of the legs' earlier position in the hem's position
_THIGH, _CALF = 1.15, 1.3  # space around the legs inside a skirt, as a factor of the leg's radius


def hang(bodies: Bodies, now: Posture, before: Posture) -> Bodies:
    """Return the bodies of T frames with their cloth and hair hanging.

    now, before: postures in each frame and a moment before it.
    """
    start, end, radii, scale = bodies.start, bodies.end.clone(), bodies.radii.clone(), bodies.scale.clone()
    for i, kind in enumerate(bodies.kinds):
        if kind.chart == "skirt":
            _hang_skirt(i, bodies, now, before, end, radii, scale)
        elif bool((bodies.swing[:, i] > 0).any()):
            j = JOINT_INDEX[kind.joint]
            tip = bodies.end[:, i, :, None]
            gone = (before[0][:, j] @ tip)[..., 0] + before[1][:, j] - (now[0][:, j] @ tip)[..., 0] - now[1][:, j]
            reach = 0.5 * (end[:, i] - start[:, i]).norm(dim=-1, keepdim=True)
            gone = bodies.swing[:, i, None] * gone
            gone = gone * (reach / gone.norm(dim=-1, keepdim=True).clamp_min(1e-6)).clamp(max=1)
            end[:, i] += (now[0][:, j].transpose(1, 2) @ gone[..., None])[..., 0]
    twist = _heading(before[0]) - _heading(now[0])
    twist = torch.atan2(twist.sin(), twist.cos()).clamp(-0.6, 0.6)
    return replace(bodies, end=end, radii=radii, scale=scale, twist=twist)


def _hang_skirt(i: int, bodies: Bodies, now, before, end, radii, scale) -> None:
    """Widen the skirt's hem to surround both legs and let it lag; writes into end, radii and scale (T, C, ...)."""
    to_root = now[0][:, JOINT_INDEX["root"]].transpose(1, 2)
    middle = now[1][:, JOINT_INDEX["root"]]

    def legs_at_hem(moment) -> torch.Tensor:
        """Positions (T, 2, 3) of both legs at the hem's height, in the root's frame."""
        places = []
        for leg in zip(*(both(joint) for joint in ("hip", "knee", "ankle"))):
            (hip, knee, ankle), rest = moment[1][:, leg].unbind(1), bodies.rest[:, leg, 1]
            hem = bodies.span[:, i, 1] * rest[:, 0] / 0.515  # the hem's height scales with the legs
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
