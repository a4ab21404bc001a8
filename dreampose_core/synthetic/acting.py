"""Draw a mannequin's motion from options as pose maps: the motion and its manner, the body, and the camera."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..body.cones import Shape
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import MotionOptions
from .dice import Dice
from .figure import Camera, Figure, Light, joints, render
from .motion import Manner
from .outfit import Outfit

_HEIGHTS = {
    "child": Shape(shoulders=0.9, hips=0.86, girth=0.94, legs=0.9, head=1.24, height=0.79),
    "short": Shape(legs=0.97, head=1.03, height=0.93),
    "average": Shape(height=0.985),
    "tall": Shape(legs=1.04, head=0.97, height=1.04),
}
# factors on the shape of the height
_BUILDS = {
    "slim": Shape(shoulders=0.95, hips=0.92, girth=0.82),
    "average": Shape(),
    "heavy": Shape(shoulders=1.05, hips=1.12, girth=1.32),
}
_HEMS = {"close": 0.0, "skirt": 0.3, "long_skirt": 0.14}
_ZOOM = 0.76  # at distance 1; leaves room above for hands and jumps
_BATCH = 8  # frames drawn at once; the run can be stopped between batches


def acted(
    options: MotionOptions,
    size: tuple[int, int],
    *,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> PoseSequence:
    """Draw the pose maps of a motion, of `size` (height, width), with exact parts and U, V (charts: mannequin).

    U, V are rounded to steps of 1/255, as in DensePose's own files; that takes a third of the bytes on disk.
    Raises InputError for an unknown motion, Cancelled if should_stop() returns true.
    """
    figure = _mannequin(options)
    times = torch.arange(options.num_frames) / options.fps
    moments = figure.moments(options.motion, times).seen_from(torch.deg2rad(options.view + options.turning * times))
    moments = replace(moments, zoom=moments.zoom / options.distance)
    parts, uv = [], []
    clock = StageClock("drawing", options.num_frames, on_progress)
    for which in torch.arange(options.num_frames).split(_BATCH):
        check_stop(should_stop)
        drawn = render(figure, moments.select(which), size, maps_only=True)
        parts.append(drawn.parts)
        uv.append((drawn.uv.float() * 255).round().div(255).half())
        clock.tick(int(which[-1]) + 1)
    exact_joints = joints(figure, moments, size)
    return PoseSequence(torch.cat(parts).numpy(), torch.cat(uv).numpy(), "mannequin", options.fps, exact_joints)


def _mannequin(options: MotionOptions) -> Figure:
    """A figure in close or skirted clothes, with an empty atlas because only its maps are drawn."""
    dice = Dice(options.seed)
    tall, broad = _HEIGHTS[options.height], _BUILDS[options.build]
    drawn = {
        name: dice.around(getattr(tall, name) * getattr(broad, name), 0.03)
        for name in ("shoulders", "hips", "girth", "legs", "head")
    }
    shape, outfit = Shape(**drawn, height=tall.height), Outfit(waist=0.6, hem=_HEMS[options.clothes], flare=1.5)
    manner = Manner(options.speed, options.amplitude, 0.0, 1 if dice.chance(0.5) else -1)
    light = Light((0.0, math.sqrt(0.5), math.sqrt(0.5)), 0.5, (1.0, 1.0, 1.0))  # unused in maps
    return Figure(options.seed, manner, Camera(_ZOOM, 0.0), light, shape, outfit, torch.empty(0))
