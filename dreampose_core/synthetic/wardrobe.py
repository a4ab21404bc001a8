"""What a mannequin looks like: skin, face, hair and clothes as one texture atlas."""

from __future__ import annotations

import math

import torch

from ..body.cones import BAG_LAYER, HAIR_LAYER, HAT_LAYER, HEAD_HEIGHTS, LEG_HEIGHTS, NUM_LAYERS, TORSO_HEIGHTS
from .outfit import Dice, Outfit
from .patterns import Cloth, cloth_colour, placed_print, random_cloth, random_print

TEXELS = 80
_SKINS = (
    (0.96, 0.80, 0.69),
    (0.90, 0.71, 0.57),
    (0.80, 0.59, 0.44),
    (0.66, 0.46, 0.33),
    (0.48, 0.32, 0.23),
    (0.35, 0.23, 0.17),
)
_HAIRS = (
    (0.09, 0.07, 0.06),
    (0.20, 0.13, 0.08),
    (0.38, 0.24, 0.13),
    (0.72, 0.55, 0.30),
    (0.55, 0.24, 0.12),
    (0.62, 0.60, 0.58),
    (0.85, 0.74, 0.52),
)
_EYES = ((0.16, 0.10, 0.07), (0.25, 0.38, 0.45), (0.28, 0.33, 0.18), (0.10, 0.08, 0.07))
_SOFT = 0.004  # half the width of a seam's edge, in body heights
# texture layer (part - 1) -> (limb, side of the limb); see body.PARTS
_LAYERS = {
    0: ("torso", "back"),
    1: ("torso", "front"),
    2: ("hand", "right"),
    3: ("hand", "left"),
    4: ("foot", "left"),
    5: ("foot", "right"),
    6: ("upper_leg", "right back"),
    7: ("upper_leg", "left back"),
    8: ("upper_leg", "right front"),
    9: ("upper_leg", "left front"),
    10: ("lower_leg", "right back"),
    11: ("lower_leg", "left back"),
    12: ("lower_leg", "right front"),
    13: ("lower_leg", "left front"),
    14: ("upper_arm", "left front"),
    15: ("upper_arm", "right front"),
    16: ("upper_arm", "left back"),
    17: ("upper_arm", "right back"),
    18: ("lower_arm", "left front"),
    19: ("lower_arm", "right front"),
    20: ("lower_arm", "left back"),
    21: ("lower_arm", "right back"),
    22: ("head", "right"),
    23: ("head", "left"),
}
_HEIGHTS = {
    "upper_arm": (0.835, 0.61),
    "lower_arm": (0.66, 0.48),
    **LEG_HEIGHTS,
    "torso": TORSO_HEIGHTS,
}  # at V 0 and 1
_RADII = {"upper_arm": 0.028, "lower_arm": 0.021, "upper_leg": 0.047, "lower_leg": 0.031, "torso": 0.085}
_SKIRT_RADIUS = 0.11


def dress(dice: Dice, outfit: Outfit) -> torch.Tensor:
    """A texture atlas (27, K, K, 3) in [0, 1]; rows are V, columns U, layers parts 1..24, hair, hat and bag."""
    skin = torch.tensor(dice.choice(_SKINS)) * dice.uniform(0.94, 1.04)
    hair = torch.tensor(dice.choice(_HAIRS)) * dice.uniform(0.85, 1.15)
    shoe = cloth_colour(dice) if dice.chance(0.6) else torch.tensor([0.12, 0.11, 0.11])
    sock = cloth_colour(dice) if dice.chance(0.25) else skin
    top, bottom = random_cloth(dice), random_cloth(dice)
    bottom = top if outfit.one_piece else bottom
    torso = _torso(dice, outfit, skin, top, bottom)
    face = _face(dice, skin, hair, outfit)

    grid = (torch.arange(TEXELS) + 0.5) / TEXELS
    v, u = torch.meshgrid(grid, grid, indexing="ij")
    atlas = torch.empty(NUM_LAYERS, TEXELS, TEXELS, 3)
    for layer, (limb, side) in _LAYERS.items():
        around = (u - 0.5) * math.pi + (math.pi if "back" in side else 0.0)
        if limb == "torso":
            atlas[layer] = torso(around, TORSO_HEIGHTS[0] + (TORSO_HEIGHTS[1] - TORSO_HEIGHTS[0]) * v)
        elif limb == "head":
            atlas[layer] = face(u * math.pi, HEAD_HEIGHTS[0] + (HEAD_HEIGHTS[1] - HEAD_HEIGHTS[0]) * v)
        elif limb in ("hand", "foot"):
            atlas[layer] = skin if limb == "hand" else shoe
        else:
            start, end = _HEIGHTS[limb]
            height, arc = start + (end - start) * v, around * _RADII[limb]
            if limb.endswith("arm"):
                covered, cloth, under = outfit.sleeve - (limb == "lower_arm"), top, skin.expand(TEXELS, TEXELS, 3)
            else:
                covered, cloth = outfit.leg - (limb == "lower_leg"), bottom
                under = _over(
                    skin.expand(TEXELS, TEXELS, 3),
                    _edge(v - 0.72, 0.02) if limb == "lower_leg" else torch.zeros_like(v),
                    sock,
                )
                if outfit.hem:  # the pattern runs round the skirt, not round each leg
                    covered = (start - outfit.hem) / (start - end)
                    arc = _skirt_angle(u, side) * _SKIRT_RADIUS
            atlas[layer] = _over(under, _edge(covered * 1.02 - v, 0.02), cloth(arc, height))
    strands = 1 + 0.16 * torch.sin(2 * math.pi * u * 9) * torch.sin(3 + 4 * v)
    atlas[HAIR_LAYER] = hair * strands[..., None]
    hat, band, bag = cloth_colour(dice), cloth_colour(dice), cloth_colour(dice)
    atlas[HAT_LAYER] = _over(
        hat.expand(TEXELS, TEXELS, 3), _edge(0.08 - (v - 0.7).abs(), 0.03) * dice.chance(0.4), band
    )
    atlas[BAG_LAYER] = _over(bag.expand(TEXELS, TEXELS, 3), _edge(0.06 - (v - 0.62).abs(), 0.03), bag * 0.6)
    return atlas.clamp(0.02, 1)


def _edge(inside: torch.Tensor, soft: float) -> torch.Tensor:
    """1 where `inside` is above `soft`, 0 where it is below -`soft`."""
    return (0.5 + inside / (2 * soft)).clamp(0, 1)


def _over(base: torch.Tensor, share: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    return base + (colour - base) * share[..., None]


def _skirt_angle(u: torch.Tensor, side: str) -> torch.Tensor:
    """The angle round a skirt of a leg's U; see `renderer._skirt_chart`."""
    left, front = "left" in side, "front" in side
    outwards = u if left == front else 1 - u
    angle = outwards * math.pi / 2 if front else math.pi - outwards * math.pi / 2
    return angle if left else -angle


def _torso(dice: Dice, outfit: Outfit, skin: torch.Tensor, top: Cloth, bottom: Cloth):
    """Colours of the torso by angle and rest height: neckline, what is buttoned or open in front, prints, belt,
    straps."""
    neck, depth, width = dice.uniform(0.815, 0.845), dice.uniform(0.0, 0.07), dice.uniform(0.3, 0.8)
    back_depth = dice.uniform(0.0, 0.1) if dice.chance(0.2) else 0.0
    belt = cloth_colour(dice) if dice.chance(0.35) else None
    front = dice.pick(closed=0.62, buttons=0.18, open=0.2)
    inner, gap = random_cloth(dice), dice.uniform(0.18, 0.5)
    trim = cloth_colour(dice)
    mark, ink = (random_print(dice) if dice.chance(0.32) else None), cloth_colour(dice)
    at, size, behind = dice.uniform(0.7, 0.745), dice.uniform(0.035, 0.062), dice.chance(0.3)
    block = dice.uniform(0.66, 0.74) if dice.chance(0.12) else None
    other = cloth_colour(dice)
    radius = _RADII["torso"]

    def torso(angle: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        turned = torch.atan2(angle.sin(), angle.cos())
        arc = turned * radius
        colours = top(arc, height)
        if block is not None:
            colours = _over(colours, _edge(block - height, _SOFT), other)
        if front == "open":
            colours = _over(colours, _edge(gap - turned.abs() * (1.5 - height), 0.05), inner(arc, height))
        if mark is not None and front == "closed":
            chest = angle - math.pi if behind else angle
            chest = torch.atan2(chest.sin(), chest.cos())
            colours = _over(
                colours, placed_print(mark, chest * radius / size, (height - at) / size) * (chest.abs() < 1.5), ink
            )
        if front == "buttons":
            down = torch.remainder(height / 0.035, 1) - 0.5
            colours = _over(colours, _edge(0.16 - torch.hypot(turned / 0.35, down), 0.06), trim)
        open_front = torch.exp(-((turned / width) ** 2)) * depth
        open_back = torch.exp(-(((turned.abs() - math.pi) / 0.6) ** 2)) * back_depth
        colours = _over(skin.expand_as(colours), _edge(neck - open_front - open_back - height, _SOFT), colours)
        colours = _over(
            colours,
            _edge(outfit.waist - height, _SOFT),
            bottom(arc if not outfit.hem else turned * _SKIRT_RADIUS, height),
        )
        if belt is not None:
            colours = _over(colours, _edge(0.009 - (height - outfit.waist).abs(), _SOFT), belt)
        if outfit.bag == "crossbody":
            across = torch.where(turned.abs() < math.pi / 2, turned, torch.sign(turned) * math.pi - turned)
            line = height - 0.68 + outfit.side * across * 0.1
            colours = _over(colours, _edge(0.008 - line.abs(), _SOFT), trim * 0.4)
        if outfit.bag == "backpack":
            strap = ((turned.abs() - 0.62).abs() < 0.09) * _edge(height - 0.66, _SOFT) * _edge(0.83 - height, _SOFT)
            colours = _over(colours, strap, trim * 0.4)
        return colours

    return torso


def _face(dice: Dice, skin: torch.Tensor, hair: torch.Tensor, outfit: Outfit):
    """Colours of half a head by angle (0 is the nose, pi the back) and rest height."""
    hairline, iris = dice.uniform(0.955, 0.972), torch.tensor(dice.choice(_EYES))
    lips = skin * torch.tensor([0.8, 0.5, 0.5]) if dice.chance(0.7) else torch.tensor([0.72, 0.16, 0.2])
    beard = dice.uniform(0.35, 0.9) if outfit.hair in ("none", "short") and dice.chance(0.25) else 0.0
    glasses = dice.chance(0.1)

    def face(angle: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        def spot(x0: float, y0: float, wide: float, high: float, soft: float = 0.35) -> torch.Tensor:
            """An ellipse's share: 1 within, falling over `soft` of its radius."""
            return ((1 - torch.hypot((angle - x0) / wide, (y - y0) / high)) / soft + 0.5).clamp(0, 1)

        base = skin.expand(*y.shape, 3)
        blush = torch.exp(-(((angle - 0.55) / 0.3) ** 2) - ((y - 0.905) / 0.013) ** 2)
        base = _over(base, 0.5 * blush, skin * torch.tensor([1.06, 0.86, 0.84]))
        base = _over(base, 0.35 * spot(0.42, 0.931, 0.3, 0.016), skin * 0.72)  # the sockets
        base = _over(base, 0.45 * spot(0.1, 0.9, 0.14, 0.006), skin * 0.6)  # under the nose
        if beard:
            base = _over(base, beard * (0.5 + (0.893 - y) / 0.02).clamp(0, 1) * (angle < 1.5), hair)
        base = _over(base, spot(0.42, 0.926, 0.19, 0.0088), torch.tensor([0.96, 0.95, 0.93]))
        base = _over(base, spot(0.42, 0.9262, 0.1, 0.0086), iris)
        base = _over(base, spot(0.42, 0.9262, 0.05, 0.0042), torch.tensor([0.03, 0.03, 0.03]))
        base = _over(base, spot(0.42, 0.9345, 0.22, 0.0032), skin * 0.25)  # lashes
        base = _over(base, spot(0.43, 0.947, 0.25, 0.0045), hair * 0.75)
        base = _over(base, spot(0.0, 0.884, 0.33, 0.0062), lips)
        base = _over(base, spot(0.0, 0.8842, 0.3, 0.0014), lips * 0.5)
        base = _over(base, 0.6 * spot(1.55, 0.922, 0.14, 0.016), skin * torch.tensor([0.92, 0.78, 0.74]))  # ears
        if glasses:
            ring = (1 - (torch.hypot((angle - 0.43) / 0.3, (y - 0.927) / 0.015) - 1).abs() / 0.2).clamp(0, 1)
            base = _over(base, ring, torch.tensor([0.08, 0.08, 0.09]))
        if outfit.hair != "none":
            line = hairline - 0.05 * (angle / 1.25) ** 2 - 0.09 * (angle > 1.7)
            base = _over(base, _edge(y - line, _SOFT), hair)
        return base

    return face
