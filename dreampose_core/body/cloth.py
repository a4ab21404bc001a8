"""How cloth and hair hang on a moving body: ends that lag behind their joints, and skirts that follow the legs."""

from __future__ import annotations

from dataclasses import replace

import torch

from .cones import JOINT_INDEX, Bodies

_SKIRT_LAG = 0.6  # share of a skirt's hem that is still where the legs were
_THIGH, _CALF = 1.15, 1.3  # room around the legs, as a factor of their radii


def hang(
    bodies: Bodies, now: tuple[torch.Tensor, torch.Tensor], before: tuple[torch.Tensor, torch.Tensor]
) -> tuple[Bodies, torch.Tensor]:
    """The bodies (of T frames) with their cloth as it hangs, and how far each skirt's hem is still turned back (T,), in
    radians.

    now, before: rotations (T, J, 3, 3) and positions (T, J, 3) of the frame and of a moment before it, from
    `forward_kinematics`.
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
    return replace(bodies, end=end, radii=radii, scale=scale), twist


def _hang_skirt(i: int, bodies: Bodies, now, before, end, radii, scale) -> None:
    """Ends the skirt around both legs at the height of its hem, and lets it lag; writes into end, radii and scale (T,
    C, ...)."""
    to_root = now[0][:, JOINT_INDEX["root"]].transpose(1, 2)
    middle = now[1][:, JOINT_INDEX["root"]]

    def legs_at_hem(moment) -> torch.Tensor:
        """(T, 2, 3) where the legs are at the hem's height, in the root's frame."""
        places = []
        for side in ("left", "right"):
            hip, knee, ankle = (moment[1][:, JOINT_INDEX[f"{side}_{joint}"]] for joint in ("hip", "knee", "ankle"))
            rest = bodies.rest[:, [JOINT_INDEX[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle")], 1]
            hem = bodies.span[:, i, 1] * rest[:, 0] / 0.515  # longer legs lower the hem with them
            upper = ((rest[:, 0] - hem) / (rest[:, 0] - rest[:, 1])).clamp(0, 1)[:, None]
            lower = ((rest[:, 1] - hem) / (rest[:, 1] - rest[:, 2])).clamp(0, 1)[:, None]
            places.append(hip + (knee - hip) * upper + (ankle - knee) * lower)
        return torch.stack([(to_root @ (place - middle)[..., None])[..., 0] for place in places], 1)

    legs, were = legs_at_hem(now), legs_at_hem(before)
    centre = torch.lerp(legs.mean(1), were.mean(1), _SKIRT_LAG)
    # wide enough for the legs within it
    thigh = next(
        k for k, kind in enumerate(bodies.kinds) if kind.joint == "left_hip"
    )  # the bare body's cones come first
    thick = bodies.radii[:, thigh, 1]
    spread = (legs - centre[:, None]).abs().amax(1)
    wide = torch.maximum(radii[:, i, 1] * scale[:, i, 0], spread[:, 0] + _THIGH * thick)
    deep = torch.maximum(radii[:, i, 1] * scale[:, i, 1], spread[:, 2] + _CALF * thick)
    # the cross section has one shape from waist to hem: the waist keeps its width as far as that allows
    across = (wide / deep * scale[:, i, 1]).clamp(0.8, 1.7)
    radii[:, i, 0] *= (scale[:, i, 0] / across).clamp(0.85, 1.15)
    scale[:, i, 0] = across
    radii[:, i, 1] = torch.maximum(wide / across, deep / scale[:, i, 1])
    length = (centre - bodies.start[:, i]).norm(dim=-1)
    radii[:, i, 1] = torch.minimum(radii[:, i, 1], radii[:, i, 0] + 0.8 * length)  # a cone, not a ball
    end[:, i] = centre


def _heading(rotations: torch.Tensor) -> torch.Tensor:
    """(T,) where the chest points, about the vertical."""
    forward = rotations[:, JOINT_INDEX["root"], :, 2]
    return torch.atan2(forward[:, 0], forward[:, 2])
