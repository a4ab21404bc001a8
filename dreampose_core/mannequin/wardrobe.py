"""What a mannequin looks like: skin, face, hair and clothes as one texture atlas, from a seed."""

from __future__ import annotations

import colorsys
import math

import torch

from .body import HAIR_LAYER, HEAD_HEIGHTS, NUM_LAYERS, TORSO_HEIGHTS

TEXELS = 64
_SKINS = ((0.96, 0.80, 0.69), (0.90, 0.71, 0.57), (0.80, 0.59, 0.44), (0.66, 0.46, 0.33), (0.48, 0.32, 0.23), (0.35, 0.23, 0.17))
_HAIRS = ((0.10, 0.08, 0.07), (0.22, 0.14, 0.09), (0.40, 0.25, 0.13), (0.72, 0.55, 0.30), (0.55, 0.24, 0.12), (0.62, 0.60, 0.58))
# texture layer (part - 1) -> (limb, side of the limb, rest height at V 0 and 1, radius); see body.PARTS
_UPPER_ARM, _LOWER_ARM, _HAND, _UPPER_LEG, _LOWER_LEG, _FOOT, _TORSO, _HEAD = range(8)
_LAYERS = {
    0: (_TORSO, "back"), 1: (_TORSO, "front"), 2: (_HAND, ""), 3: (_HAND, ""), 4: (_FOOT, ""), 5: (_FOOT, ""),
    6: (_UPPER_LEG, "back"), 7: (_UPPER_LEG, "back"), 8: (_UPPER_LEG, "front"), 9: (_UPPER_LEG, "front"),
    10: (_LOWER_LEG, "back"), 11: (_LOWER_LEG, "back"), 12: (_LOWER_LEG, "front"), 13: (_LOWER_LEG, "front"),
    14: (_UPPER_ARM, "front"), 15: (_UPPER_ARM, "front"), 16: (_UPPER_ARM, "back"), 17: (_UPPER_ARM, "back"),
    18: (_LOWER_ARM, "front"), 19: (_LOWER_ARM, "front"), 20: (_LOWER_ARM, "back"), 21: (_LOWER_ARM, "back"),
    22: (_HEAD, "right"), 23: (_HEAD, "left"),
}  # fmt: skip
_LENGTHS = {_UPPER_ARM: (0.835, 0.61), _LOWER_ARM: (0.66, 0.48), _UPPER_LEG: (0.57, 0.235), _LOWER_LEG: (0.305, 0.02)}
_RADII = {_UPPER_ARM: 0.028, _LOWER_ARM: 0.021, _UPPER_LEG: 0.047, _LOWER_LEG: 0.031, _TORSO: 0.085}


class _Dice:
    """Random draws of one figure."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def chance(self, p: float) -> bool:
        return self.uniform() < p

    def choice(self, options):
        return options[int(torch.randint(len(options), (), generator=self.generator))]

    def cloth(self) -> torch.Tensor:
        """A colour that clothes have: vivid, muted, dark or light."""
        hue, kind = self.uniform(), self.uniform()
        if kind < 0.45:
            hsv = (hue, self.uniform(0.45, 0.9), self.uniform(0.45, 0.95))
        elif kind < 0.7:
            hsv = (hue, self.uniform(0.15, 0.4), self.uniform(0.5, 0.9))
        elif kind < 0.87:
            hsv = (hue, self.uniform(0.0, 0.5), self.uniform(0.1, 0.3))
        else:
            hsv = (hue, self.uniform(0.0, 0.12), self.uniform(0.85, 0.98))
        return torch.tensor(colorsys.hsv_to_rgb(*hsv))


def _cloth(dice: _Dice):
    """A pattern: a function of arc length and rest height (both in body heights) to colours (..., 3)."""
    kind = dice.choice(("plain", "plain", "plain", "stripes", "bars", "checks", "dots", "band"))
    a, b = dice.cloth(), dice.cloth()
    if float((a - b).abs().mean()) < 0.15:
        b = (a + 0.45) % 1.0
    period, phase = dice.uniform(0.035, 0.09), dice.uniform()

    def mix(share: torch.Tensor) -> torch.Tensor:
        return a + (b - a) * share[..., None]

    def wave(x: torch.Tensor) -> torch.Tensor:
        return (0.5 + 4 * torch.sin(2 * math.pi * (x / period + phase))).clamp(0, 1)

    return {
        "plain": lambda s, y: mix(torch.zeros_like(y)),
        "stripes": lambda s, y: mix(wave(y)),
        "bars": lambda s, y: mix(wave(s)),
        "checks": lambda s, y: mix(0.5 * wave(y) + 0.5 * wave(s)),
        "dots": lambda s, y: mix((6 * (torch.cos(2 * math.pi * s / period) * torch.cos(2 * math.pi * y / period) - 0.45)).clamp(0, 1)),
        "band": lambda s, y: mix(((y - 0.68 - 0.06 * phase).abs() < 0.03).float()),
    }[kind]


def dress(generator: torch.Generator) -> torch.Tensor:
    """A texture atlas (25, K, K, 3) in [0, 1]; rows are V, columns U, layers parts 1..24 and hair."""
    dice = _Dice(generator)
    skin = torch.tensor(dice.choice(_SKINS)) * dice.uniform(0.94, 1.04)
    hair = torch.tensor(dice.choice(_HAIRS)) * dice.uniform(0.85, 1.15)
    shoe = dice.cloth() if dice.chance(0.6) else torch.tensor([0.12, 0.11, 0.11])
    sock = dice.cloth() if dice.chance(0.3) else skin
    top, bottom = _cloth(dice), _cloth(dice)
    dressed = dice.chance(0.25)  # one garment from shoulder to thigh
    bottom = top if dressed else bottom
    waist = dice.uniform(0.575, 0.62)
    belt = dice.cloth() if dice.chance(0.35) else None
    sleeve = dice.choice((0.0, 0.35, 0.55, 1.0, 2.0, 2.0))  # in arm segments; the lower arm is the second
    leg = dice.uniform(0.25, 0.5) if dressed else dice.choice((0.35, 0.8, 1.5, 2.0, 2.0, 2.0))
    neck, neck_depth, neck_width = dice.uniform(0.815, 0.845), dice.uniform(0.0, 0.07), dice.uniform(0.3, 0.8)
    hairline, bald = dice.uniform(0.955, 0.975), dice.chance(0.06)

    atlas = torch.empty(NUM_LAYERS, TEXELS, TEXELS, 3)
    grid = (torch.arange(TEXELS) + 0.5) / TEXELS
    v, u = torch.meshgrid(grid, grid, indexing="ij")

    def over(base: torch.Tensor, where: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        return torch.where(where[..., None], colour.expand_as(base), base)

    for layer, (limb, side) in _LAYERS.items():
        base = skin.expand(TEXELS, TEXELS, 3)
        angle = (u - 0.5) * math.pi + (math.pi if side == "back" else 0.0)
        if limb in _LENGTHS:
            start, end = _LENGTHS[limb]
            arc, y = angle * _RADII[limb], start + (end - start) * v
            if limb in (_UPPER_ARM, _LOWER_ARM):
                covered = sleeve - (1 if limb == _LOWER_ARM else 0)
                base = over(base, v < covered * 1.02, top(arc, y))
            else:
                covered = leg - (1 if limb == _LOWER_LEG else 0)
                base = over(base, (v > 0.72) if limb == _LOWER_LEG else (v > 2), sock)
                base = over(base, v < covered * 1.02, bottom(arc, y))
        elif limb == _TORSO:
            y = TORSO_HEIGHTS[0] + (TORSO_HEIGHTS[1] - TORSO_HEIGHTS[0]) * v
            arc = angle * _RADII[_TORSO]
            open_here = torch.exp(-((angle / neck_width) ** 2)) * neck_depth if side == "front" else torch.zeros_like(v)
            base = over(base, y < neck - open_here, top(arc, y))
            base = over(base, y < waist, bottom(arc, y))
            if belt is not None:
                base = over(base, (y - waist).abs() < 0.009, belt)
        elif limb == _FOOT:
            base = shoe.expand(TEXELS, TEXELS, 3)
        elif limb == _HEAD:
            base = _face(u * math.pi, HEAD_HEIGHTS[0] + (HEAD_HEIGHTS[1] - HEAD_HEIGHTS[0]) * v, skin, hair, hairline, bald, over)
        atlas[layer] = base
    strands = 1 + 0.18 * torch.sin(2 * math.pi * u * 9) * torch.sin(3 + 4 * v)
    atlas[HAIR_LAYER] = hair * strands[..., None]
    return atlas.clamp(0.02, 1)


def _face(angle, y, skin, hair, hairline, bald, over):
    """One half of the head; angle 0 is the nose, pi the back."""
    base = skin.expand(*y.shape, 3)
    blush = torch.exp(-(((angle - 0.5) / 0.28) ** 2) - ((y - 0.905) / 0.012) ** 2)
    base = base + blush[..., None] * torch.tensor([0.06, -0.03, -0.03])
    base = over(base, ((angle - 0.42) / 0.16) ** 2 + ((y - 0.925) / 0.0085) ** 2 < 1, torch.tensor([0.95, 0.95, 0.95]))
    base = over(base, ((angle - 0.42) / 0.085) ** 2 + ((y - 0.925) / 0.008) ** 2 < 1, torch.tensor([0.13, 0.10, 0.09]))
    base = over(base, ((angle - 0.42) / 0.24) ** 2 + ((y - 0.943) / 0.0045) ** 2 < 1, hair * 0.8)
    base = over(base, (angle / 0.3) ** 2 + ((y - 0.883) / 0.0055) ** 2 < 1, skin * torch.tensor([0.75, 0.45, 0.45]))
    if not bald:
        line = hairline - 0.055 * (angle / 1.25) ** 2 - 0.1 * (angle > 1.45)
        base = over(base, y > line, hair)
    return base


def backdrop(generator: torch.Generator, size: tuple[int, int]) -> torch.Tensor:
    """A studio: wall and floor in soft gradients, (H, W, 3) in [0, 1]."""
    dice = _Dice(generator)
    height, width = size
    y = torch.linspace(0, 1, height)[:, None, None]
    x = torch.linspace(-1, 1, width)[None, :, None]
    wall = torch.tensor(colorsys.hsv_to_rgb(dice.uniform(), dice.uniform(0.0, 0.35), dice.uniform(0.45, 0.95)))
    floor = wall * dice.uniform(0.6, 0.92) if dice.chance(0.7) else torch.tensor(
        colorsys.hsv_to_rgb(dice.uniform(), dice.uniform(0.0, 0.35), dice.uniform(0.3, 0.8)))
    horizon = dice.uniform(0.8, 0.93)
    glow = dice.uniform(-0.12, 0.12) * torch.exp(-(x**2 + (2 * y - 1) ** 2))
    seam = dice.uniform(0.008, 0.06)
    share = torch.sigmoid((y - horizon) / seam)
    return (wall * (1 - share) + floor * share + glow).clamp(0, 1) * torch.ones(height, width, 1)
