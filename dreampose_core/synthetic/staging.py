"""How a drawn person is seen: moments of a motion, the camera, the light and the floor."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from ..body.build import Build
from ..body.cones import Posture
from ..poses.sequence import JOINT_INDEX, JOINTS, Joints, both
from .backdrop import seen_through
from .dice import Dice

FLOOR = 0.02  # the soles' height above the lower edge of a body-high frame, in body heights


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
        """Draw a camera that shows the whole person; one in three moves a little."""
        moves = dice.chance(0.3)
        zoom, shift = dice.uniform(0.76, 0.88), dice.uniform(-0.05, 0.05)
        sway, breathe = moves * dice.uniform(0, 0.025), moves * dice.uniform(0, 0.05)
        return cls(zoom, shift, sway, breathe, dice.uniform(0.05, 0.15), dice.uniform())


@dataclass(frozen=True)
class Light:
    """Light on a person.

    direction: (3,) unit vector towards the light. ambient: share of light that comes from everywhere. tint: (3,) its
    colour.
    """

    direction: torch.Tensor
    ambient: float
    tint: torch.Tensor

    @classmethod
    def random(cls, dice: Dice) -> Light:
        """Draw a soft light from above, more or less from one side."""
        x, y, z = dice.uniform(-0.6, 0.6), dice.uniform(0.3, 0.7), dice.uniform(0.6, 0.9)
        length = math.sqrt(x * x + y * y + z * z)
        warmth = dice.uniform(-0.05, 0.05)
        direction, ambient = torch.tensor((x / length, y / length, z / length)), dice.uniform(0.48, 0.7)
        return cls(direction, ambient, torch.tensor((1 + warmth, 1.0, 1 - warmth)))


@dataclass
class Moments:
    """T moments of a motion.

    angles: (T, J, 3) of the joints. offset: (T, 3) of the root. zoom: (T,) of the camera, 1 at rest. pan: (T, 2)
    of the camera to the right and down, in frame heights.
    """

    angles: torch.Tensor
    offset: torch.Tensor
    zoom: torch.Tensor
    pan: torch.Tensor

    @classmethod
    def still(cls, angles: torch.Tensor, offset: torch.Tensor) -> Moments:
        """Moments before a camera at rest."""
        return cls(angles, offset, torch.ones(len(angles)), torch.zeros(len(angles), 2))

    def turned(self, angle: float | torch.Tensor) -> Moments:
        """The same moments, turned about the vertical by an angle in radians."""
        turn = torch.zeros_like(self.angles)
        turn[:, JOINT_INDEX["root"], 1] = angle
        return replace(self, angles=self.angles + turn)

    def seen_from(self, angles: torch.Tensor) -> Moments:
        """The same moments from a camera that has moved around the person's place.

        angles: (T,) in radians, > 0 towards the person's left side.
        """
        cos, sin = angles.cos(), angles.sin()
        x, y, z = self.offset.unbind(-1)
        return replace(self.turned(-angles), offset=torch.stack([cos * x - sin * z, y, sin * x + cos * z], -1))

    def __len__(self) -> int:
        return len(self.angles)


@dataclass(frozen=True)
class View:
    """A parallel camera that looks along -z, in T frames.

    scale: (T,) image heights per body height. centre: (T, 2) the point in the image's middle, in body heights.
    """

    scale: torch.Tensor
    centre: torch.Tensor

    @classmethod
    def of(cls, camera: Camera, height: float, m: Moments) -> View:
        """The camera's view of a person, whose height is given in adult's heights, in T moments."""
        still = torch.full((len(m),), camera.zoom * height)
        centre = torch.stack([torch.full_like(still, camera.shift), 0.5 / still - 0.045], -1)
        return cls(still * m.zoom, centre + m.pan * still.new_tensor([1.0, -1.0]) / still[:, None])

    def joints(self, posture: Posture, body: Build, size: tuple[int, int]) -> Joints:
        """The joints of a body in this posture, in frames of `size` (height, width)."""
        rotations, positions = posture
        root = positions[:, :1]
        x, y = (root[:, 0, :2] - self.centre).unbind(-1)
        camera = torch.stack([self.scale, 0.5 + x * self.scale * size[0] / size[1], 0.5 - y * self.scale], -1)
        known = torch.ones(len(positions), len(JOINTS))
        return Joints(*(t.float().numpy() for t in (rotations, positions - root, camera, known)), body.numbers())


def behind(
    backdrop: torch.Tensor, m: Moments, positions: torch.Tensor, view: View, light: Light, size: tuple[int, int]
) -> torch.Tensor:
    """Backgrounds (T, H, W, 3): the part of a backdrop that a moving camera shows, with a soft shadow on the floor.

    The shadow is dark under the feet, and faint on the side away from the light, where the body's shadow falls.
    """
    background = seen_through(backdrop, size, m.zoom, m.pan) * light.tint
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
    away = 0.14 * blob(middle - 0.16 * light.direction[0], reach + 0.13, torch.full_like(middle, 0.04))
    return background * (1 - dark - away)[..., None]
