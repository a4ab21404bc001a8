"""A motion made to order: what a mannequin does and how, who it is and where it is seen from; drawn as maps alone."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..body.cones import Shape, body_cones
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import MotionOptions
from .figure import Camera, Figure, Light, joints, render
from .motion import Manner
from .outfit import Dice, Outfit, outfit_cones

_HEIGHTS = {
    "child": Shape(shoulders=0.9, hips=0.86, girth=0.94, legs=0.9, head=1.24, height=0.79),
    "short": Shape(legs=0.97, head=1.03, height=0.93),
    "average": Shape(height=0.985),
    "tall": Shape(legs=1.04, head=0.97, height=1.04),
}
_BUILDS = {  # times what the height says
    "slim": Shape(shoulders=0.95, hips=0.92, girth=0.82),
    "average": Shape(),
    "heavy": Shape(shoulders=1.05, hips=1.12, girth=1.32),
}
_HEMS = {"close": 0.0, "skirt": 0.3, "long_skirt": 0.14}
_ZOOM = 0.76  # at distance 1: with room above for hands and jumps
_BATCH = 8  # frames drawn at once; between two batches it can be stopped


def acted(
    options: MotionOptions,
    size: tuple[int, int],
    *,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> PoseSequence:
    """The maps (height, width) = `size` of the motion, in its exact parts and U, V (charts: mannequin).

    U, V are rounded to steps of 1/255, as DensePose's own files have them: a third of the bytes on disk.
    Raises InputError for a motion that there is not, Cancelled when should_stop() is true.
    """
    figure = _mannequin(options)
    times = torch.arange(options.num_frames) / options.fps
    moments = figure.moments(options.motion, times).seen_from(torch.deg2rad(options.view + options.turning * times))
    moments = replace(moments, zoom=moments.zoom / options.distance)
    parts, uv = [], []
    clock = StageClock("drawing", options.num_frames, on_progress)
    for which in torch.arange(options.num_frames).split(_BATCH):
        check_stop(should_stop)
        drawn = render([figure], torch.zeros(len(which), dtype=torch.long), moments.select(which), size, maps_only=True)
        parts.append(drawn.parts)
        uv.append((drawn.uv.float() * 255).round().div(255).half())
        clock.tick(int(which[-1]) + 1)
    own = joints(figure, moments, size)
    return PoseSequence(torch.cat(parts).numpy(), torch.cat(uv).numpy(), "mannequin", options.fps, own)


def _mannequin(options: MotionOptions) -> Figure:
    """Somebody in close or skirted clothes, of whom only maps are drawn: nothing is painted on them."""
    dice = Dice(torch.Generator().manual_seed(options.seed))
    tall, broad = _HEIGHTS[options.height], _BUILDS[options.build]
    drawn = {
        name: dice.around(getattr(tall, name) * getattr(broad, name), 0.03)
        for name in ("shoulders", "hips", "girth", "legs", "head")
    }
    shape = Shape(**drawn, height=tall.height)
    hem = _HEMS[options.clothes]
    outfit = Outfit(
        one_piece=False,
        waist=0.6,
        hem=hem,
        flare=1.5,
        sleeve=0.0,
        loose_sleeve=0.0,
        leg=0.0,
        loose_leg=0.0,
        folds=0.0,
        hair="short",
        hat="none",
        bag="none",
        side=1,
    )
    manner = Manner(options.speed, options.amplitude, 0.0, 1 if dice.chance(0.5) else -1)
    light = Light((0.0, math.sqrt(0.5), math.sqrt(0.5)), 0.5, (1.0, 1.0, 1.0))  # that nobody sees
    cones = body_cones(shape) + outfit_cones(shape, outfit)
    return Figure(options.seed, shape, outfit, cones, torch.empty(0), manner, Camera(_ZOOM, 0.0), light)
