"""What a mannequin wears and carries, and the cones that this hangs on the body: cloth that is wider than the body,
hair, hats, bags."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..body.cones import BAG_LAYER, HAIR_LAYER, HAT_LAYER, HEAD, TORSO, Cone, Shape, bone

ROOT_HEIGHT = 0.53  # of the root joint at rest
HAIR_STYLES = ("none", "short", "bob", "bun", "ponytail", "long", "afro")
HATS = ("none", "beanie", "cap", "brim")
BAGS = ("none", "handbag", "backpack", "crossbody")


class Dice:
    """Random draws of one figure, the same on every device."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator, device="cpu"))

    def around(self, middle: float, spread: float) -> float:
        return middle * (1 + spread * math.tanh(float(torch.randn((), generator=self.generator, device="cpu"))))

    def chance(self, p: float) -> bool:
        return self.uniform() < p

    def choice(self, options):
        return options[int(torch.randint(len(options), (), generator=self.generator, device="cpu"))]

    def pick(self, **weights: float) -> str:
        """One of the names, in proportion to their weights."""
        at = self.uniform(0, sum(weights.values()))
        for name, weight in weights.items():
            at -= weight
            if at < 0:
                return name
        return name


@dataclass(frozen=True)
class Outfit:
    """waist, hem: rest heights of a skirt's waist and hem, hem 0 for trousers. flare: how much wider the hem is than
    the hips.

    sleeve, leg: how far arms and legs are covered, in limb segments (2 is down to the wrist or ankle). loose_sleeve,
    loose_leg: how much wider than the limb the cloth hangs, 0 for close. folds: of the skirt.
    """

    one_piece: bool
    waist: float
    hem: float
    flare: float
    sleeve: float
    loose_sleeve: float
    leg: float
    loose_leg: float
    folds: float
    hair: str
    hat: str
    bag: str
    side: int  # +1: the bag on the left, -1: on the right


def random_shape(dice: Dice) -> Shape:
    """A plausible body: most are grown-ups, one in eight a child."""
    if dice.chance(0.12):
        return Shape(
            dice.around(0.9, 0.06),
            dice.around(0.86, 0.06),
            dice.around(0.94, 0.1),
            dice.around(0.9, 0.04),
            dice.around(1.24, 0.05),
            dice.uniform(0.72, 0.86),
        )
    girth = dice.around(1.0, 0.2) if dice.chance(0.8) else dice.uniform(1.2, 1.5)
    return Shape(
        dice.around(1, 0.12),
        dice.around(1, 0.15),
        girth,
        dice.around(1, 0.08),
        dice.around(1, 0.07),
        dice.uniform(0.93, 1.04),
    )


def random_outfit(dice: Dice) -> Outfit:
    """Clothes that go together."""
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
    """The same list of kinds for every outfit; what is not worn has radius 0."""
    return [
        *_loose_cloth(shape, outfit),
        _skirt(shape, outfit),
        *_hair(shape, outfit),
        *_hat(shape, outfit),
        *_bag(shape, outfit),
    ]


def _worn(radii: tuple[float, float], worn: bool) -> tuple[float, float]:
    return radii if worn else (0.0, 0.0)


def _loose_cloth(shape: Shape, outfit: Outfit) -> list[Cone]:
    """Sleeves and trouser legs that stand off the limb and lag behind it."""
    pieces = []
    for covered, loose, limbs in (
        (outfit.sleeve, outfit.loose_sleeve, (("shoulder", "elbow"), ("elbow", "wrist"))),
        (outfit.leg if not outfit.hem else 0.0, outfit.loose_leg, (("hip", "knee"), ("knee", "ankle"))),
    ):
        for number, (start, end) in enumerate(limbs):
            share = min(1.0, covered - number)  # of this segment
            for side in ("left", "right"):
                limb = bone(shape, side, start, end, (1, 1))
                length = math.dist(limb.start, limb.end)
                whole = length + sum(limb.radii)
                first, last = limb.radii[0], limb.radii[0] + (limb.radii[1] - limb.radii[0]) * max(share, 0.0)
                reach = max(share, 0.05)
                widths = (first * (1.04 + 0.5 * number * loose), last * (1.05 + (0.5 + 0.5 * number) * loose))
                pieces.append(
                    Cone(
                        limb.joint,
                        limb.start,
                        tuple(reach * x for x in limb.end),
                        _worn(widths, loose > 0 and share > 0.05),
                        (1, 1.05),
                        "limb",
                        limb.parts,
                        span=(limb.radii[0] / whole, (limb.radii[0] + reach * length) / whole),
                        cut=share < 0.98 or number == 1,
                        swing=0.35 * loose if covered > number else 0.0,
                    )
                )
    return pieces


def _skirt(shape: Shape, outfit: Outfit) -> Cone:
    """From the waist to the hem, as it hangs at rest; `cloth.py` moves it with the legs."""
    lift = 0.515 * 0.5 * (shape.legs - 1)
    hips = 0.066 * (0.6 + 0.4 * shape.girth)
    fall = outfit.waist - outfit.hem
    widen = 1 + (outfit.flare - 1) * min(1.0, fall / 0.3)
    hem = -(ROOT_HEIGHT + lift - outfit.hem * (1 + lift / 0.515)) if outfit.hem else -0.2
    return Cone(
        "root",
        (0, outfit.waist - ROOT_HEIGHT, 0),
        (0, hem, 0),
        _worn((hips * 0.95, hips * widen), outfit.hem > 0),
        (1.42 * shape.hips, 1.1),
        "skirt",
        TORSO,
        span=(outfit.waist, outfit.hem),
        cut=True,
        folds=outfit.folds,
    )


def _hair(shape: Shape, outfit: Outfit) -> list[Cone]:
    s, style = shape.head, outfit.hair

    def lock(start, end, radii, scale, styles, swing=0.0) -> Cone:
        start, end = (tuple(s * x for x in point) for point in (start, end))
        radii = _worn(tuple(s * r for r in radii), style in styles)
        return Cone("head", start, end, radii, scale, "head", HEAD, layer=HAIR_LAYER, swing=swing)

    return [
        lock(
            (0, 0.088, -0.012),
            (0, 0.096, -0.008),
            (0.055, 0.0545),
            (0.98, 1.05),
            ("short", "bob", "bun", "ponytail", "long"),
        ),
        lock((0, 0.125, -0.05), (0, 0.135, -0.055), (0.026, 0.026), (1.1, 1), ("bun",)),
        lock((0, 0.075, -0.026), (0, 0.008, -0.026), (0.05, 0.046), (1.24, 0.85), ("bob",), 0.3),
        lock((0, 0.075, -0.03), (0, -0.1, -0.04), (0.047, 0.04), (1.3, 0.72), ("long",), 0.8),
        lock((0, 0.1, -0.058), (0, -0.045, -0.082), (0.022, 0.017), (1.0, 1.0), ("ponytail",), 1.0),
        lock((0, 0.108, -0.03), (0, 0.116, -0.028), (0.071, 0.07), (1.1, 1.0), ("afro",)),
    ]


def _hat(shape: Shape, outfit: Outfit) -> list[Cone]:
    s, hat = shape.head, outfit.hat
    room = 1.0 if outfit.hair == "none" else 1.05

    def piece(start, end, radii, scale, hats) -> Cone:
        start, end = (tuple(s * x for x in point) for point in (start, end))
        return Cone(
            "head",
            start,
            end,
            _worn(tuple(s * room * r for r in radii), hat in hats),
            scale,
            "head",
            HEAD,
            layer=HAT_LAYER,
        )

    return [
        piece((0, 0.112, -0.006), (0, 0.12, -0.008), (0.056, 0.051), (0.98, 1.04), ("beanie", "cap", "brim")),
        piece((0, 0.112, 0.052), (0, 0.108, 0.075), (0.034, 0.03), (1.05, 0.16), ("cap",)),
        piece((-0.045, 0.113, -0.004), (0.045, 0.113, -0.004), (0.062, 0.062), (0.13, 1.35), ("brim",)),
    ]


def _bag(shape: Shape, outfit: Outfit) -> list[Cone]:
    side = "left" if outfit.side > 0 else "right"

    def piece(joint, start, end, radii, scale, bag, swing=0.0) -> Cone:
        return Cone(
            joint, start, end, _worn(radii, outfit.bag == bag), scale, "none", (0, 0), layer=BAG_LAYER, swing=swing
        )

    bags = []
    for name in ("left", "right"):  # both, because all figures have the same cones
        bag = "handbag" if name == side else None
        bags += [
            piece(f"{name}_wrist", (0, -0.06, 0.002), (0, -0.1, 0.002), (0.005, 0.005), (1, 3.0), bag, 0.3),
            piece(f"{name}_wrist", (0, -0.128, -0.03), (0, -0.128, 0.034), (0.034, 0.034), (0.5, 0.95), bag, 0.3),
        ]
    hip = 0.115 * shape.hips
    return bags + [
        piece("spine", (0, 0.12, -0.105), (0, 0.03, -0.11), (0.062, 0.07), (1.05, 0.6), "backpack"),
        piece(
            "root",
            (outfit.side * hip, -0.03, -0.02),
            (outfit.side * hip, -0.03, 0.035),
            (0.036, 0.036),
            (0.55, 1.0),
            "crossbody",
            0.3,
        ),
    ]
