"""A mannequin's looks: skin, face, hair and clothes as one texture atlas."""

from __future__ import annotations

import math

import torch

from ..body.cones import BAG_LAYER, HAIR_LAYER, HAT_LAYER, HEAD, HEIGHTS, NUM_LAYERS, PARTS, TORSO
from .dice import Dice, mix
from .outfit import Outfit
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
_SOFT = 0.004  # half the width of soft edges, in body heights
_HEIGHTS = {"upper_arm": (0.835, 0.61), "lower_arm": (0.66, 0.48), **HEIGHTS}  # rest heights at V 0 and 1
_RADII = {"upper_arm": 0.028, "lower_arm": 0.021, "upper_leg": 0.047, "lower_leg": 0.031, "torso": 0.085}
_SKIRT_RADIUS = 0.11


def dress(dice: Dice, outfit: Outfit) -> torch.Tensor:
    """Paint a texture atlas (27, K, K, 3) in [0, 1].

    Rows are V, columns U; the layers are parts 1..24, hair, hat and bag.
    """
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
    heights = {chart: start + (end - start) * v for chart, (start, end) in _HEIGHTS.items()}
    for part in HEAD:
        atlas[part - 1] = face(u * math.pi, heights["head"])
    for part, turn in zip(TORSO, (0.0, math.pi)):
        atlas[part - 1] = torso((u - 0.5) * math.pi + turn, heights["torso"])
    for name, parts in PARTS.items():
        side, _, limb = name.partition("_")
        for part, back in zip(parts, (False, True)):
            if limb in ("hand", "foot"):
                atlas[part - 1] = skin if limb == "hand" else shoe
                continue
            start, end = _HEIGHTS[limb]
            height, arc = heights[limb], ((u - 0.5) * math.pi + (math.pi if back else 0.0)) * _RADII[limb]
            under = skin.expand(TEXELS, TEXELS, 3)
            if limb.endswith("arm"):
                covered, cloth = outfit.sleeve - (limb == "lower_arm"), top
            else:
                covered, cloth = outfit.leg - (limb == "lower_leg"), bottom
                if limb == "lower_leg":
                    under = mix(under, sock, _edge(v - 0.72, 0.02))
                if outfit.hem:  # the pattern runs around the skirt, not around each leg
                    covered = (start - outfit.hem) / (start - end)
                    arc = _skirt_angle(u, side == "left", back) * _SKIRT_RADIUS
            atlas[part - 1] = mix(under, cloth(arc, height), _edge(covered * 1.02 - v, 0.02))
    strands = 1 + 0.16 * torch.sin(2 * math.pi * u * 9) * torch.sin(3 + 4 * v)
    atlas[HAIR_LAYER] = hair * strands[..., None]
    hat, band, bag = cloth_colour(dice), cloth_colour(dice), cloth_colour(dice)
    atlas[HAT_LAYER] = mix(hat.expand(TEXELS, TEXELS, 3), band, _edge(0.08 - (v - 0.7).abs(), 0.03) * dice.chance(0.4))
    atlas[BAG_LAYER] = mix(bag.expand(TEXELS, TEXELS, 3), bag * 0.6, _edge(0.06 - (v - 0.62).abs(), 0.03))
    return atlas.clamp(0.02, 1)


def _edge(inside: torch.Tensor, soft: float) -> torch.Tensor:
    """1 where `inside` is above `soft`, 0 where it is below -`soft`, linear between them."""
    return (0.5 + inside / (2 * soft)).clamp(0, 1)


def _skirt_angle(u: torch.Tensor, left: bool, back: bool) -> torch.Tensor:
    """Angle around a skirt from the U of a leg; see `drawing._skirt_chart`."""
    outwards = u if left != back else 1 - u
    angle = math.pi - outwards * math.pi / 2 if back else outwards * math.pi / 2
    return angle if left else -angle


def _torso(dice: Dice, outfit: Outfit, skin: torch.Tensor, top: Cloth, bottom: Cloth):
    """Colours of the torso by angle and rest height.

    Includes the neckline, buttons or an open front, prints, a belt, and the straps of bags.
    """
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
            colours = mix(colours, other, _edge(block - height, _SOFT))
        if front == "open":
            colours = mix(colours, inner(arc, height), _edge(gap - turned.abs() * (1.5 - height), 0.05))
        if mark is not None and front == "closed":
            chest = angle - math.pi if behind else angle
            chest = torch.atan2(chest.sin(), chest.cos())
            inked = placed_print(mark, chest * radius / size, (height - at) / size) * (chest.abs() < 1.5)
            colours = mix(colours, ink, inked)
        if front == "buttons":
            down = torch.remainder(height / 0.035, 1) - 0.5
            colours = mix(colours, trim, _edge(0.16 - torch.hypot(turned / 0.35, down), 0.06))
        open_front = torch.exp(-((turned / width) ** 2)) * depth
        open_back = torch.exp(-(((turned.abs() - math.pi) / 0.6) ** 2)) * back_depth
        colours = mix(skin.expand_as(colours), colours, _edge(neck - open_front - open_back - height, _SOFT))
        below = bottom(turned * _SKIRT_RADIUS if outfit.hem else arc, height)
        colours = mix(colours, below, _edge(outfit.waist - height, _SOFT))
        if belt is not None:
            colours = mix(colours, belt, _edge(0.009 - (height - outfit.waist).abs(), _SOFT))
        if outfit.bag == "crossbody":
            across = torch.where(turned.abs() < math.pi / 2, turned, torch.sign(turned) * math.pi - turned)
            line = height - 0.68 + outfit.side * across * 0.1
            colours = mix(colours, trim * 0.4, _edge(0.008 - line.abs(), _SOFT))
        if outfit.bag == "backpack":
            strap = ((turned.abs() - 0.62).abs() < 0.09) * _edge(height - 0.66, _SOFT) * _edge(0.83 - height, _SOFT)
            colours = mix(colours, trim * 0.4, strap)
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
            """Coverage of an ellipse: 1 inside, falling to 0 over `soft` of its radius."""
            return ((1 - torch.hypot((angle - x0) / wide, (y - y0) / high)) / soft + 0.5).clamp(0, 1)

        base = skin.expand(*y.shape, 3)
        blush = torch.exp(-(((angle - 0.55) / 0.3) ** 2) - ((y - 0.905) / 0.013) ** 2)
        base = mix(base, skin * torch.tensor([1.06, 0.86, 0.84]), 0.5 * blush)
        base = mix(base, skin * 0.72, 0.35 * spot(0.42, 0.931, 0.3, 0.016))  # the eye sockets
        base = mix(base, skin * 0.6, 0.45 * spot(0.1, 0.9, 0.14, 0.006))  # under the nose
        if beard:
            base = mix(base, hair, beard * (0.5 + (0.893 - y) / 0.02).clamp(0, 1) * (angle < 1.5))
        base = mix(base, torch.tensor([0.96, 0.95, 0.93]), spot(0.42, 0.926, 0.19, 0.0088))
        base = mix(base, iris, spot(0.42, 0.9262, 0.1, 0.0086))
        base = mix(base, torch.tensor([0.03, 0.03, 0.03]), spot(0.42, 0.9262, 0.05, 0.0042))
        base = mix(base, skin * 0.25, spot(0.42, 0.9345, 0.22, 0.0032))  # lashes
        base = mix(base, hair * 0.75, spot(0.43, 0.947, 0.25, 0.0045))
        base = mix(base, lips, spot(0.0, 0.884, 0.33, 0.0062))
        base = mix(base, lips * 0.5, spot(0.0, 0.8842, 0.3, 0.0014))
        base = mix(base, skin * torch.tensor([0.92, 0.78, 0.74]), 0.6 * spot(1.55, 0.922, 0.14, 0.016))  # ears
        if glasses:
            ring = (1 - (torch.hypot((angle - 0.43) / 0.3, (y - 0.927) / 0.015) - 1).abs() / 0.2).clamp(0, 1)
            base = mix(base, torch.tensor([0.08, 0.08, 0.09]), ring)
        if outfit.hair != "none":
            line = hairline - 0.05 * (angle / 1.25) ** 2 - 0.09 * (angle > 1.7)
            base = mix(base, hair, _edge(y - line, _SOFT))
        return base

    return face
