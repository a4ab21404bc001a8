"""A figure from a seed, and clips of it: the entry to rendered people."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import InputError
from ..poses import PoseSequence
from ..settings import MAX_SEED
from .body import JOINT_INDEX, Bodies, Shape, forward_kinematics, random_shape, sole_height
from .motion import Manner, motion, random_manner
from .renderer import Rendering, draw
from .wardrobe import backdrop, dress

HELD_OUT = 10_000  # seeds below are for training, this and above are never trained on
FLOOR = 0.02  # the soles' height above the lower edge of a body-high frame, in body heights


@dataclass(frozen=True)
class Figure:
    """A person made by the program: proportions, looks (25, K, K, 3), studio (as drawn by `backdrop`), manner, camera."""

    seed: int
    shape: Shape
    atlas: torch.Tensor
    manner: Manner
    zoom: float
    shift: float

    @classmethod
    def from_seed(cls, seed: int) -> Figure:
        """The figure with this seed, always the same."""
        if not 0 <= seed <= MAX_SEED:
            raise InputError(f"The seed is {seed}; it must be 0 to {MAX_SEED}.")
        g = torch.Generator().manual_seed(seed * 7919 + 17)
        shape, manner = random_shape(g), random_manner(g)
        zoom = 0.76 + 0.12 * float(torch.rand((), generator=g))
        shift = 0.05 * (2 * float(torch.rand((), generator=g)) - 1)
        return cls(seed, shape, dress(g), manner, zoom, shift)

    def backdrop(self, size: tuple[int, int]) -> torch.Tensor:
        """The figure's studio, (H, W, 3) in [0, 1]."""
        return backdrop(torch.Generator().manual_seed(self.seed * 7919 + 29), size)


def render(
    figures: list[Figure], owner: torch.Tensor, angles: torch.Tensor, offset: torch.Tensor, size: tuple[int, int], *,
    device: str | torch.device = "cpu", supersample: int = 2,
) -> Rendering:  # fmt: skip
    """T frames, each of one of `figures`: owner (T,) says whose, angles (T, J, 3) and offset (T, 3) are `motion`'s.

    size: (height, width). supersample: rays a pixel side. All frames are drawn at once on `device`.
    """
    owner = owner.to(device)
    bodies = Bodies.of([figure.shape for figure in figures], device).select(owner)
    rotations, positions = forward_kinematics(bodies.rest, angles.to(device), offset.to(device))
    rise = FLOOR - sole_height(rotations, positions)  # the lower sole stands on the floor
    positions = positions + torch.stack([torch.zeros_like(rise), rise, torch.zeros_like(rise)], -1)[:, None]
    scale = torch.tensor([figure.zoom for figure in figures], device=device)[owner]
    centre = torch.tensor([[figure.shift, 0.5 / figure.zoom - 0.045] for figure in figures], device=device)[owner]
    studios = torch.stack([figure.backdrop(size) for figure in figures]).to(device)[owner]
    background = _with_shadow(studios, positions, scale, centre)
    atlases = torch.stack([figure.atlas for figure in figures]).to(device)
    return draw(bodies, rotations, positions, atlases, owner, background, scale, centre, size, supersample)


def render_clip(
    figure: Figure, name: str, frames: int, size: tuple[int, int], *, fps: float = 20.0, start_s: float = 0.0,
    device: str | torch.device = "cpu",
) -> tuple[torch.Tensor, PoseSequence]:
    """rgb uint8 (T, H, W, 3) on the CPU and its exact pose sequence (charts: mannequin)."""
    angles, offset = motion(name, start_s + torch.arange(frames) / fps, figure.manner)
    chunks = [
        render([figure], torch.zeros(len(a), dtype=torch.long), a, o, size, device=device)
        for a, o in zip(angles.split(64), offset.split(64))
    ]
    rgb, parts, uv = (torch.cat([getattr(c, key).cpu() for c in chunks]) for key in ("rgb", "parts", "uv"))
    return rgb, PoseSequence(parts.numpy(), uv.numpy(), "mannequin", fps)


def _with_shadow(background, positions, scale, centre) -> torch.Tensor:
    """Backgrounds (T, H, W, 3) with a soft shadow on the floor under the feet."""
    _, height, width, _ = background.shape
    feet = positions[:, [JOINT_INDEX["left_ankle"], JOINT_INDEX["right_ankle"]], 0]
    middle, reach = feet.mean(1), 0.09 + 0.5 * (feet[:, 0] - feet[:, 1]).abs()
    pixels = scale * height
    x = (torch.arange(width, device=background.device) + 0.5 - width / 2)[None, None, :]
    y = (torch.arange(height, device=background.device) + 0.5)[None, :, None]
    x0 = ((middle - centre[:, 0]) * pixels)[:, None, None]
    y0 = (height / 2 - (FLOOR + 0.002 - centre[:, 1]) * pixels)[:, None, None]
    blob = torch.exp(-(((x - x0) / (reach * pixels)[:, None, None]) ** 2) - ((y - y0) / (0.018 * pixels)[:, None, None]) ** 2)
    return background * (1 - 0.35 * blob[..., None])
