"""Figures: people made of capsules, drawn from a seed, and clips of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch

from ..body.build import Build
from ..body.cones import Bodies, Cone, Posture, Shape, body_cones, forward_kinematics, rest_joints, sole_height
from ..body.drawing import Rendering, View, draw
from ..body.fitting import offsets_of
from ..poses.sequence import JOINT_INDEX, JOINTS, Joints, PoseSequence, both
from .backdrop import backdrop, seen_through
from .dice import Dice
from .motion import Manner, motion, random_manner
from .outfit import Outfit, outfit_cones, random_outfit, random_shape
from .wardrobe import dress

HELD_OUT = 10_000  # seeds below are for training; this one and those above are never trained on
FLOOR = 0.02  # the soles' height above the lower edge of a body-high frame, in body heights
LAG_S = 0.12  # delay of loose cloth and hair


@dataclass(frozen=True)
class Camera:
    """A camera that may move.

    zoom: image heights per adult's height. shift: of the image's middle to the right, in body heights. sway: how far it
    moves to the sides, in frame heights. breathe: how far it zooms, as a share. rate: of both, in cycles per second.
    phase: 0 to 1.
    """

    zoom: float
    shift: float
    sway: float = 0.0
    breathe: float = 0.0
    rate: float = 0.1
    phase: float = 0.0

    @classmethod
    def random(cls, dice: Dice) -> Camera:
        """Draw a camera that shows the whole figure; one in three moves a little."""
        moves = dice.chance(0.3)
        zoom, shift = dice.uniform(0.76, 0.88), dice.uniform(-0.05, 0.05)
        sway, breathe = moves * dice.uniform(0, 0.025), moves * dice.uniform(0, 0.05)
        return cls(zoom, shift, sway, breathe, dice.uniform(0.05, 0.15), dice.uniform())


@dataclass(frozen=True)
class Light:
    """Light on the figure.

    direction: unit vector towards the light. ambient: share of light that comes from everywhere. tint: its colour.
    """

    direction: tuple[float, float, float]
    ambient: float
    tint: tuple[float, float, float]

    @classmethod
    def random(cls, dice: Dice) -> Light:
        """Draw a soft light from above, more or less from one side."""
        x, y, z = dice.uniform(-0.6, 0.6), dice.uniform(0.3, 0.7), dice.uniform(0.6, 0.9)
        length = math.sqrt(x * x + y * y + z * z)
        warmth = dice.uniform(-0.05, 0.05)
        return cls((x / length, y / length, z / length), dice.uniform(0.48, 0.7), (1 + warmth, 1.0, 1 - warmth))


@dataclass(frozen=True)
class Actor:
    """A `Figure` or a `people.Person`: a manner of moving, and the camera and the light."""

    seed: int
    manner: Manner
    camera: Camera
    light: Light

    def backdrop(self, size: tuple[int, int]) -> torch.Tensor:
        """Backdrop behind the actor, larger than a frame of `size`; see `backdrop.backdrop`."""
        return backdrop(Dice.of(self.seed, self.place), size)

    def moments(self, name: str, times: torch.Tensor) -> Moments:
        """Moments of the named motion at `times` (T,), in seconds, ascending."""
        cycle = 2 * math.pi * (self.camera.rate * times + self.camera.phase)
        zoom = 1 + self.camera.breathe * torch.sin(cycle)
        pan = self.camera.sway * torch.stack([torch.sin(1.3 * cycle), 0.3 * torch.cos(cycle)], -1)
        now, before = (motion(name, at, self.manner) for at in (times, (times - LAG_S).clamp_min(0)))
        return Moments(*now, *before, zoom, pan)


@dataclass(frozen=True)
class Figure(Actor):
    """An actor made of capsules: proportions, clothes, and a texture atlas (27, K, K, 3)."""

    shape: Shape
    outfit: Outfit
    atlas: torch.Tensor
    place = 29

    @classmethod
    def from_seed(cls, seed: int) -> Figure:
        """The figure with this seed, always the same."""
        dice = Dice.of(seed, 17)
        shape, outfit, camera = random_shape(dice), random_outfit(dice), Camera.random(dice)
        atlas = dress(dice, outfit)
        return cls(seed, random_manner(dice), camera, Light.random(dice), shape, outfit, atlas)

    @cached_property
    def cones(self) -> list[Cone]:
        """Cones of the body and of the outfit."""
        return body_cones(self.shape) + outfit_cones(self.shape, self.outfit)

    @property
    def height(self) -> float:
        """Height as a share of an adult's."""
        return self.shape.height


@dataclass
class Moments:
    """T moments of a motion.

    angles: (T, J, 3) of the joints. offset: (T, 3) of the root. before_angles, before_offset: the same LAG_S earlier.
    zoom: (T,) of the camera, 1 at rest. pan: (T, 2) of the camera to the right and down, in frame heights.
    """

    angles: torch.Tensor
    offset: torch.Tensor
    before_angles: torch.Tensor
    before_offset: torch.Tensor
    zoom: torch.Tensor
    pan: torch.Tensor

    @classmethod
    def still(cls, angles: torch.Tensor, offset: torch.Tensor) -> Moments:
        """Poses without a motion before them, and a camera at rest."""
        return cls(angles, offset, angles, offset, torch.ones(len(angles)), torch.zeros(len(angles), 2))

    @classmethod
    def join(cls, several: list[Moments]) -> Moments:
        """Concatenate moments."""
        return cls(*(torch.cat([getattr(m, f.name) for m in several]) for f in fields(cls)))

    def select(self, which: torch.Tensor | slice) -> Moments:
        """The moments at these indices."""
        return Moments(*(getattr(self, f.name)[which] for f in fields(self)))

    def turned(self, angle: float | torch.Tensor) -> Moments:
        """The same moments, turned about the vertical by an angle in radians."""
        turn = torch.zeros_like(self.angles)
        turn[:, JOINT_INDEX["root"], 1] = angle
        return replace(self, angles=self.angles + turn, before_angles=self.before_angles + turn)

    def seen_from(self, angles: torch.Tensor) -> Moments:
        """The same moments from a camera that has moved around the figure's place.

        angles: (T,) in radians, > 0 towards the figure's left side.
        """
        cos, sin = angles.cos(), angles.sin()

        def moved(offset: torch.Tensor) -> torch.Tensor:
            x, y, z = offset.unbind(-1)
            return torch.stack([cos * x - sin * z, y, sin * x + cos * z], -1)

        return replace(self.turned(-angles), offset=moved(self.offset), before_offset=moved(self.before_offset))

    def __len__(self) -> int:
        return len(self.angles)


def render(figure: Figure, moments: Moments, size: tuple[int, int], *, maps_only: bool = False) -> Rendering:
    """Draw a figure in T moments, all at once. size: (height, width). maps_only: draw no pictures."""
    bodies, now, view = _staged(figure, moments)
    bodies = bodies.hung(now, _standing(bodies, moments.before_angles, moments.before_offset))
    painted = None if maps_only else (figure.atlas, behind(figure.backdrop(size), moments, now[1], view, size))
    return draw(bodies, now, view, size, painted=painted)


def joints(figure: Figure, moments: Moments, size: tuple[int, int]) -> Joints:
    """The exact joints of a figure in frames of `size` (height, width).

    Their body has the figure's bones, but nothing of what it wears.
    """
    bodies, (rotations, positions), view = _staged(figure, moments)
    root = positions[:, :1]
    x, y = (root[:, 0, :2] - view.centre).unbind(-1)
    camera = torch.stack([view.scale, 0.5 + x * view.scale * size[0] / size[1], 0.5 - y * view.scale], -1)
    still = torch.eye(3, dtype=torch.float64).expand(len(JOINTS), 3, 3)
    body = Build(offsets_of(still.numpy(), bodies.rest[0].double().numpy()), head=figure.shape.head)
    ones = torch.ones(len(positions), len(JOINTS))
    return Joints(*(t.float().numpy() for t in (rotations, positions - root, camera, ones)), body.numbers())


def render_clip(
    figure: Figure, name: str, frames: int, size: tuple[int, int], *, fps: float = 20.0, start_s: float = 0.0
) -> tuple[torch.Tensor, PoseSequence]:
    """Draw a motion: rgb uint8 (T, H, W, 3) and its exact pose sequence (charts: mannequin)."""
    moments = figure.moments(name, start_s + torch.arange(frames) / fps)
    chunks = [render(figure, moments.select(some), size) for some in torch.arange(frames).split(64)]
    rgb, parts, uv = (torch.cat([getattr(c, key) for c in chunks]) for key in ("rgb", "parts", "uv"))
    return rgb, PoseSequence(parts.numpy(), uv.numpy(), "mannequin", fps, joints(figure, moments, size))


def _staged(figure: Figure, m: Moments) -> tuple[Bodies, Posture, View]:
    """The figure's body in T moments, the rotations and positions of its joints, and the view."""
    made = rest_joints(figure.shape), figure.shape.head, figure.cones, 1.0
    bodies = Bodies.of([made]).select(torch.zeros(len(m), dtype=torch.long))
    return bodies, _standing(bodies, m.angles, m.offset), view_of(figure, m)


def view_of(actor: Actor, m: Moments) -> View:
    """The view of an actor in T moments."""

    def per_frame(value) -> torch.Tensor:
        return torch.tensor([value] * len(m), dtype=torch.float32)

    still = per_frame(actor.camera.zoom * actor.height)
    centre = torch.stack([per_frame(actor.camera.shift), 0.5 / still - 0.045], -1)
    return View(
        still * m.zoom,
        centre + m.pan * still.new_tensor([1.0, -1.0]) / still[:, None],
        *(per_frame(getattr(actor.light, f.name)) for f in fields(Light)),
    )


def _standing(bodies: Bodies, angles: torch.Tensor, offset: torch.Tensor) -> Posture:
    """Joint rotations and positions with the lower sole at the offset's y above the floor."""
    rotations, positions = forward_kinematics(bodies.rest, angles, offset)
    return rotations, raised(positions, FLOOR + offset[:, 1] - sole_height(rotations, positions))


def raised(positions: torch.Tensor, rise: torch.Tensor) -> torch.Tensor:
    """Positions (T, J, 3), moved up by rise (T,)."""
    return positions + torch.nn.functional.pad(rise[:, None], (1, 1))[:, None]


def behind(backdrop: torch.Tensor, m: Moments, positions, view: View, size: tuple[int, int]) -> torch.Tensor:
    """Backgrounds (T, H, W, 3): the part of a backdrop that a moving camera shows, with a soft shadow on the floor.

    The shadow is dark under the feet, and faint on the side away from the light, where the body's shadow falls.
    """
    background = seen_through(backdrop, size, m.zoom, m.pan) * view.tint[:, None, None]
    height, width = size
    feet = positions[:, both("ankle"), 0]
    middle, reach = feet.mean(1), 0.08 + 0.5 * (feet[:, 0] - feet[:, 1]).abs()
    pixels = view.scale * height
    x = (torch.arange(width) + 0.5 - width / 2)[None, None, :]
    y = (torch.arange(height) + 0.5)[None, :, None]

    def blob(x0, wide, deep) -> torch.Tensor:
        left = ((x0 - view.centre[:, 0]) * pixels)[:, None, None]
        top = (height / 2 - (FLOOR + 0.002 - view.centre[:, 1]) * pixels)[:, None, None]
        return torch.exp(
            -(((x - left) / (wide * pixels)[:, None, None]) ** 2) - ((y - top) / (deep * pixels)[:, None, None]) ** 2
        )

    near = torch.exp(-m.offset[:, 1].clamp_min(0) / 0.08)[:, None, None]
    dark = 0.36 * near * blob(middle, reach, torch.full_like(middle, 0.016))
    away = 0.14 * blob(middle - 0.16 * view.light[:, 0], reach + 0.13, torch.full_like(middle, 0.04))
    return background * (1 - dark - away)[..., None]
