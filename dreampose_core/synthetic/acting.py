"""Draw a made motion from options as pose maps: the motion and its manner, the body, and the camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..body.build import LAG_S, Build, Stances, drawn, turn_arms
from ..body.cones import forward_kinematics, sole_height
from ..poses import PoseSequence
from ..poses.sequence import both
from ..progress import OnProgress, ShouldStop, ignore_progress, never_stop
from ..settings import MotionOptions
from .dice import Dice
from .motion import Manner, motion
from .staging import FLOOR, Camera, Moments, View

# factors on the average body: shoulders, hips, girth, legs, head; and the height in adult's heights
_HEIGHTS = {
    "child": ((0.9, 0.86, 0.94, 0.95, 1.24), 0.79),
    "short": ((1, 1, 1, 0.985, 1.03), 0.93),
    "average": ((1, 1, 1, 1, 1), 0.985),
    "tall": ((1, 1, 1, 1.02, 0.97), 1.04),
}
_BUILDS = {"slim": (0.95, 0.92, 0.82, 1, 1), "average": (1, 1, 1, 1, 1), "heavy": (1.05, 1.12, 1.32, 1, 1)}
_SKIRTS = {"close": (0.0, 0.0), "skirt": (0.3, 0.14), "long_skirt": (0.14, 0.14)}  # hem and half its width
_ZOOM = 0.74  # at distance 1; leaves room above for hands and jumps


def acted(
    options: MotionOptions,
    size: tuple[int, int],
    *,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> PoseSequence:
    """Draw the pose maps of a motion, of `size` (height, width), with exact parts and U, V (charts: body) and joints.

    U, V are rounded to steps of 1/255, as in DensePose's own files; that takes a third of the bytes on disk.
    Raises InputError for an unknown motion, Cancelled if should_stop() returns true.
    """
    dice = Dice(options.seed)
    build = _build(options, dice)
    manner = Manner(options.speed, options.amplitude, 0.0, 1 if dice.chance(0.5) else -1)
    times = torch.arange(options.num_frames) / options.fps
    moments = Moments.still(*motion(options.motion, times, manner))
    moments = moments.seen_from(torch.deg2rad(options.view + options.turning * times))
    moments = replace(moments, zoom=moments.zoom / options.distance)
    rest = torch.tensor(build.rest(), dtype=torch.float32).expand(len(times), -1, -1)
    rotations, positions = forward_kinematics(rest, moments.angles, moments.offset)
    positions[..., 1] += (FLOOR + moments.offset[:, 1] - sole_height(rotations, positions))[:, None]
    view = View.of(Camera(_ZOOM, 0.0), _HEIGHTS[options.height][1], moments)
    joints = view.joints((rotations, positions), build, size)
    stances, lag = Stances.of(joints, size), round(LAG_S * options.fps)
    parts, uv = drawn(stances, [build] * len(times), size, lag, 2, on_progress, should_stop)
    turn_arms(parts, uv)
    uv = ((uv.astype(np.float32) * 255).round() / 255).astype(np.float16)
    return PoseSequence(parts, uv, "body", options.fps, joints)


def _build(options: MotionOptions, dice: Dice) -> Build:
    """The body of these options, a little different for every seed."""
    factors = zip(_HEIGHTS[options.height][0], _BUILDS[options.build])
    shoulders, hips, girth, legs, head = (dice.around(tall * broad, 0.03) for tall, broad in factors)
    offsets = Build.average().offsets
    offsets[both("shoulder"), 0] *= shoulders
    offsets[both("hip"), 0] *= hips
    offsets[both("knee") + both("ankle"), 1] *= legs
    hem, width = _SKIRTS[options.clothes]
    skirt = np.array([hem, width * hips * (0.6 + 0.4 * girth)])
    return Build(
        offsets, limbs=np.full((4, 2), 0.55 + 0.45 * girth), trunk=np.full(3, 0.3 + 0.7 * girth), head=head, skirt=skirt
    )
