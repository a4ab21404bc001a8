"""Outfits of mannequins: loose cloth, hair, hats and bags, as cones on the body.

Close-fitting clothes are painted on the body and need no cones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..body.cones import BAG_LAYER, HAIR_LAYER, HAT_LAYER, HEAD, TORSO, TORSO_JOINTS, Cone, Shape, bone
from .dice import Dice

_ALL_HAIR = ("short", "bob", "bun", "ponytail", "long")
# styles, start, end, radii, scale, swing
_HAIR = (
    (_ALL_HAIR, (0, 0.088, -0.012), (0, 0.096, -0.008), (0.055, 0.0545), (0.98, 1.05), 0.0),
    (("bun",), (0, 0.125, -0.05), (0, 0.135, -0.055), (0.026, 0.026), (1.1, 1), 0.0),
    (("bob",), (0, 0.075, -0.026), (0, 0.008, -0.026), (0.05, 0.046), (1.24, 0.85), 0.3),
    (("long",), (0, 0.075, -0.03), (0, -0.1, -0.04), (0.047, 0.04), (1.3, 0.72), 0.8),
    (("ponytail",), (0, 0.1, -0.058), (0, -0.045, -0.082), (0.022, 0.017), (1.0, 1.0), 1.0),
    (("afro",), (0, 0.108, -0.03), (0, 0.116, -0.028), (0.071, 0.07), (1.1, 1.0), 0.0),
)
_HATS = (
    (("beanie", "cap", "brim"), (0, 0.112, -0.006), (0, 0.12, -0.008), (0.056, 0.051), (0.98, 1.04), 0.0),
    (("cap",), (0, 0.112, 0.052), (0, 0.108, 0.075), (0.034, 0.03), (1.05, 0.16), 0.0),
    (("brim",), (-0.045, 0.113, -0.004), (0.045, 0.113, -0.004), (0.062, 0.062), (0.13, 1.35), 0.0),
)


@dataclass(frozen=True)
class Outfit:
    """Clothes, hair, hat and bag.

    waist, hem: rest heights of a skirt's waist and hem; hem 0 for trousers. flare: width of the hem over that of the
    hips.
    sleeve, leg: how far arms and legs are covered, in limb segments (2 reaches the wrist or ankle).
    loose_sleeve, loose_leg: how much wider than the limb the cloth hangs, 0 for close.
    folds: depth of a skirt's folds. side: of the bag, +1 is left.
    """

    waist: float
    hem: float
    flare: float
    one_piece: bool = False
    sleeve: float = 0.0
    loose_sleeve: float = 0.0
    leg: float = 0.0
    loose_leg: float = 0.0
    folds: float = 0.0
    hair: str = "short"
    hat: str = "none"
    bag: str = "none"
    side: int = 1


def random_shape(dice: Dice) -> Shape:
    """Draw a plausible body: most are adults, one in eight is a child."""
    if dice.chance(0.12):
        sizes = ((0.9, 0.06), (0.86, 0.06), (0.94, 0.1), (0.9, 0.04), (1.24, 0.05))
        return Shape(*(dice.around(*size) for size in sizes), dice.uniform(0.72, 0.86))
    girth = dice.around(1.0, 0.2) if dice.chance(0.8) else dice.uniform(1.2, 1.5)
    shoulders, hips, legs, head = (dice.around(1, spread) for spread in (0.12, 0.15, 0.08, 0.07))
    return Shape(shoulders, hips, girth, legs, head, dice.uniform(0.93, 1.04))


def random_outfit(dice: Dice) -> Outfit:
    """Draw clothes that go together."""
    kind = dice.pick(trousers=0.56, skirt=0.2, dress=0.24)
    skirted = kind != "trousers"
    long = dice.chance(0.3)
    hem = 0.0 if not skirted else dice.uniform(0.09, 0.2) if long else dice.uniform(0.24, 0.38)
    sleeve = dice.choice((0.0, 0.35, 0.55, 0.9, 1.3, 2.0, 2.0, 2.0))
    leg = (0.57 - hem) / 0.335 if skirted else dice.choice((0.4, 0.85, 1.6, 2.0, 2.0, 2.0))
    return Outfit(
        one_piece=kind == "dress" or (kind == "trousers" and dice.chance(0.1)),
        waist=dice.uniform(0.575, 0.625),
        hem=hem,
        flare=dice.uniform(1.0, 1.25) if dice.chance(0.35) else dice.uniform(1.3, 2.1),
        sleeve=sleeve,
        loose_sleeve=dice.uniform(0.25, 1.0) if sleeve and dice.chance(0.45) else 0.0,
        leg=leg,
        loose_leg=dice.uniform(0.15, 0.7) if not skirted and dice.chance(0.5) else 0.0,
        folds=dice.uniform(0.03, 0.14) if dice.chance(0.7) else 0.0,
        hair=dice.pick(none=0.06, short=0.3, bob=0.16, bun=0.1, ponytail=0.12, long=0.2, afro=0.06),
        hat=dice.pick(none=0.8, beanie=0.08, cap=0.07, brim=0.05),
        bag=dice.pick(none=0.82, handbag=0.07, backpack=0.05, crossbody=0.06),
        side=dice.choice((1, -1)),
    )


def outfit_cones(shape: Shape, outfit: Outfit) -> list[Cone]:
    """Cones of what is worn of an outfit."""
    room = shape.head * (1.0 if outfit.hair == "none" else 1.05)
    return [
        *_loose_cloth(shape, outfit),
        *([_skirt(shape, outfit)] if outfit.hem else []),
        *_on_head(_HAIR, outfit.hair, HAIR_LAYER, shape.head, shape.head),
        *_on_head(_HATS, outfit.hat, HAT_LAYER, shape.head, room),
        *_bags(shape, outfit),
    ]


def _loose_cloth(shape: Shape, outfit: Outfit) -> list[Cone]:
    """Sleeves and trouser legs that stand off the limb and lag behind it."""
    pieces = []
    for covered, loose, limbs in (
        (outfit.sleeve, outfit.loose_sleeve, ("upper_arm", "lower_arm")),
        (outfit.leg if not outfit.hem else 0.0, outfit.loose_leg, ("upper_leg", "lower_leg")),
    ):
        for number, name in enumerate(limbs):
            share = min(1.0, covered - number)  # covered share of this segment
            if loose <= 0 or share <= 0.05:
                continue
            for side in ("left", "right"):
                limb = bone(shape, side, name)
                length = math.dist(limb.start, limb.end)
                whole = length + sum(limb.radii)
                first, last = limb.radii[0], limb.radii[0] + (limb.radii[1] - limb.radii[0]) * share
                radii = first * (1.04 + 0.5 * number * loose), last * (1.05 + (0.5 + 0.5 * number) * loose)
                span = limb.radii[0] / whole, (limb.radii[0] + share * length) / whole
                sleeve = replace(limb, end=tuple(share * x for x in limb.end), radii=radii, scale=(1, 1.05), span=span)
                pieces.append(replace(sleeve, cut=share < 0.98 or number == 1, swing=0.35 * loose))
    return pieces


def _skirt(shape: Shape, outfit: Outfit) -> Cone:
    """The skirt from waist to hem, as it hangs at rest; `Bodies.hung` moves it with the legs."""
    lift = 0.515 * 0.5 * (shape.legs - 1)
    hips = 0.066 * (0.6 + 0.4 * shape.girth)
    fall = outfit.waist - outfit.hem
    widen = 1 + (outfit.flare - 1) * min(1.0, fall / 0.3)
    hem = -(TORSO_JOINTS["root"] + lift - outfit.hem * (1 + lift / 0.515))
    ends, scale = ((0, outfit.waist - TORSO_JOINTS["root"], 0), (0, hem, 0)), (1.42 * shape.hips, 1.1)
    radii, span = (hips * 0.95, hips * widen), (outfit.waist, outfit.hem)
    return Cone("root", *ends, radii, scale, "skirt", TORSO, span=span, cut=True, folds=outfit.folds)


def _on_head(table, style: str, layer: int, size: float, wide: float) -> list[Cone]:
    """Hair or a hat, `size` times as far from the head's joint as in the table and `wide` times as wide."""
    cones = []
    for styles, *ends, radii, scale, swing in table:
        if style in styles:
            start, end = (tuple(size * x for x in point) for point in ends)
            radii = tuple(wide * r for r in radii)
            cones.append(Cone("head", start, end, radii, scale, "head", HEAD, layer=layer, swing=swing))
    return cones


def _bags(shape: Shape, outfit: Outfit) -> list[Cone]:
    at, wrist = outfit.side * 0.115 * shape.hips, "left_wrist" if outfit.side > 0 else "right_wrist"
    pieces = (
        ("handbag", wrist, (0, -0.06, 0.002), (0, -0.1, 0.002), (0.005, 0.005), (1, 3.0), 0.3),
        ("handbag", wrist, (0, -0.128, -0.03), (0, -0.128, 0.034), (0.034, 0.034), (0.5, 0.95), 0.3),
        ("backpack", "spine", (0, 0.12, -0.105), (0, 0.03, -0.11), (0.062, 0.07), (1.05, 0.6), 0.0),
        ("crossbody", "root", (at, -0.03, -0.02), (at, -0.03, 0.035), (0.036, 0.036), (0.55, 1.0), 0.3),
    )
    return [
        Cone(joint, start, end, radii, scale, "none", (0, 0), layer=BAG_LAYER, swing=swing)
        for bag, joint, start, end, radii, scale, swing in pieces
        if bag == outfit.bag
    ]
