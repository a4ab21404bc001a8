"""Colours of a person made of triangles: skin, face, eyes, hair and cloth at each pixel."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import torch

from .clothing import EYE_HEIGHT, Clothes, Layer, Surface, scalp_field, waves
from .dice import Dice, mix
from .patterns import Cloth, cloth_colour, placed_print, random_cloth, random_print

# lightest and darkest skin, sRGB
_SKINS = {
    "caucasian": ((0.95, 0.80, 0.72), (0.78, 0.58, 0.46)),
    "asian": ((0.93, 0.79, 0.66), (0.66, 0.47, 0.34)),
    "african": ((0.60, 0.42, 0.32), (0.25, 0.16, 0.12)),
}
_HAIR = {
    "black": (0.07, 0.06, 0.06),
    "dark": (0.16, 0.10, 0.07),
    "brown": (0.30, 0.19, 0.11),
    "fair": (0.68, 0.52, 0.30),
    "red": (0.48, 0.22, 0.10),
    "grey": (0.62, 0.61, 0.60),
}
_IRIS = dict(brown=(0.25, 0.14, 0.07), blue=(0.30, 0.45, 0.62), green=(0.32, 0.42, 0.25), grey=(0.42, 0.46, 0.48))


@dataclass(frozen=True)
class Looks:
    """Colours (3,) in 0..1 and the cloth of one person; logo: mask (K, K) of a print on the chest, or None."""

    seed: int
    skin: torch.Tensor
    lips: torch.Tensor
    cheeks: float
    iris: torch.Tensor
    hair: torch.Tensor
    brows: torch.Tensor
    brow_width: float
    beard: float
    top: Cloth
    bottom: Cloth
    shoes: torch.Tensor
    logo: torch.Tensor | None
    logo_colour: torch.Tensor
    wrinkles: float

    @classmethod
    def random(cls, dice: Dice, seed: int, race: str, female: bool, age: float) -> Looks:
        """Draw looks for a race, a sex and an age in years."""
        light, dark = (torch.tensor(colour) for colour in _SKINS[race])
        skin = torch.lerp(light, dark, dice.uniform())
        skin = skin * torch.tensor([dice.uniform(0.97, 1.03), 1.0, dice.uniform(0.96, 1.04)])
        if age > 58 and dice.chance(0.75):
            colour = "grey"
        elif race == "caucasian":
            colour = dice.pick(black=0.1, dark=0.25, brown=0.35, fair=0.22, red=0.08)
        else:
            colour = dice.pick(black=0.6, dark=0.32, brown=0.08)
        hair = torch.tensor(_HAIR[colour]) * dice.uniform(0.75, 1.2)
        eyes = dice.pick(brown=0.5, blue=0.25, green=0.15, grey=0.1) if race == "caucasian" else "brown"
        painted = female and age > 16 and dice.chance(0.5)
        redder = torch.tensor([0.92, 0.62, 0.62] if not painted else [0.9, 0.42, 0.45])
        bearded = not female and age > 20 and dice.chance(0.4)
        bottom = random_cloth(dice)
        if dice.chance(0.5):
            denim = colorsys.hsv_to_rgb(dice.uniform(0.57, 0.65), dice.uniform(0.1, 0.6), dice.uniform(0.15, 0.6))
            bottom = _plain(torch.tensor(denim))
        return cls(
            seed=seed,
            skin=skin.clamp(0, 1),
            lips=skin * redder,
            cheeks=dice.uniform(0.3, 1.0),
            iris=torch.tensor(_IRIS[eyes]) * dice.uniform(0.7, 1.1),
            hair=hair.clamp(0, 1),
            brows=(hair * 0.8).clamp(0, 1) if colour != "fair" else hair * 0.6,
            brow_width=dice.uniform(0.022, 0.045) * (0.8 if female else 1.1),
            beard=dice.uniform(0.25, 0.9) if bearded else 0.0,
            top=random_cloth(dice),
            bottom=bottom,
            shoes=cloth_colour(dice) if dice.chance(0.5) else torch.full((3,), dice.choice((0.1, 0.16, 0.9))),
            logo=random_print(dice) if dice.chance(0.25) else None,
            logo_colour=cloth_colour(dice),
            wrinkles=dice.uniform(0.5, 1.2),
        )


def _plain(colour: torch.Tensor) -> Cloth:
    return lambda arc, height: colour.expand(*arc.shape, 3)


def colours(looks: Looks, wear: Clothes, layer: torch.Tensor, surface: Surface, lips, eyes) -> torch.Tensor:
    """Colours (P, 3) of pixels, before lighting.

    layer: (P,). surface: at the pixels. lips: (P,) 0..1. eyes: (P, 3) places from the eyeball's middle, in its radii;
    used only on eyes.
    """
    painters = {
        Layer.SKIN: lambda at, which: _skin(looks, wear, at, lips[which]),
        Layer.LEFT_EYE: lambda at, which: _eye(looks, eyes[which]),
        Layer.RIGHT_EYE: lambda at, which: _eye(looks, eyes[which]),
        Layer.LASHES: lambda at, which: looks.skin * 0.35,
        Layer.TOP: lambda at, which: _top(looks, at),
        Layer.BOTTOM: lambda at, which: looks.bottom(*_unrolled(at)),
        Layer.SHOES: lambda at, which: _shoe(looks, at),
        Layer.HAIR: lambda at, which: _strands(looks, wear, at),
    }
    rgb = torch.zeros(len(layer), 3)
    for number in layer.unique().tolist():
        which = (layer == number).nonzero()[:, 0]
        rgb[which] = painters[number](Surface(*(values[which] for values in vars(surface).values())), which)
    return rgb


def _spot(x, y, wide, high):
    return torch.exp(-((x / wide) ** 2) - (y / high) ** 2)


def _skin(looks: Looks, wear: Clothes, at: Surface, lips: torch.Tensor) -> torch.Tensor:
    x, y, z = at.face.unbind(1)
    colour = looks.skin * (1 + 0.025 * waves(at.place, 25, looks.seed)[:, None])
    front = ((z + 0.6) / 0.3).clamp(0, 1) * (y > -1.6)
    side = x.abs()
    red = looks.skin * torch.tensor([1.0, 0.78, 0.76])
    colour = mix(colour, red, 0.4 * looks.cheeks * front * _spot(side - 0.42, y + 0.35, 0.22, 0.18))
    colour = mix(colour, red, 0.3 * front * _spot(x, y + 0.34, 0.16, 0.12))  # the tip of the nose
    dark = looks.skin * torch.tensor([0.72, 0.64, 0.62])
    colour = mix(colour, dark, 0.35 * front * _spot(side - 0.28, y - 0.05, 0.2, 0.11))  # around the eyes
    colour = mix(colour, dark * 0.6, 0.75 * front * _spot(side - 0.085, y + 0.4, 0.045, 0.03))  # nostrils
    colour = mix(colour, dark, 0.3 * front * _spot(x, y + 0.46, 0.14, 0.04))
    if looks.beard:
        jaw = ((-0.3 - y - 0.35 * (0.55 - side).clamp(0, 1)) / 0.12).clamp(0, 1) * ((y + 1.3) / 0.15).clamp(0, 1)
        grown = jaw * ((z + 0.75) / 0.2).clamp(0, 1) * (1 - 0.7 * _spot(x, y + 0.75, 0.12, 0.05))
        colour = mix(colour, looks.hair, looks.beard * grown * (0.85 + 0.12 * waves(at.place, 150, looks.seed + 5, 6)))
    colour = mix(colour, looks.lips, ((lips - 0.25) / 0.35).clamp(0, 1) * front)
    line = _spot(x, y + 0.585 + 0.05 * x * x, 0.16, 0.014)
    colour = mix(colour, looks.lips * 0.4, 0.7 * front * line)
    arch = 0.185 + 0.10 * (side - 0.16) - 0.36 * (side - 0.3).clamp_min(0)
    thin = looks.brow_width * (1 - 0.9 * (side - 0.25).clamp(0, 1))
    brow = ((thin - (y - arch).abs()) / 0.03 + 0.5).clamp(0, 1)
    brow = brow * ((side - 0.11) / 0.04).clamp(0, 1) * ((0.53 - side) / 0.05).clamp(0, 1)
    colour = mix(colour, looks.brows, 0.85 * brow * front)
    if wear.hair != "none":  # paint the scalp like hair, since it shows through a thin shell
        colour = mix(colour, looks.hair, scalp_field(at.face, wear.fringe) * 6)
    return colour


def _eye(looks: Looks, at: torch.Tensor) -> torch.Tensor:
    """A white, an iris, a pupil and a highlight."""
    radius = torch.hypot(at[:, 0], at[:, 1])
    front = at[:, 2] > 0
    colour = torch.tensor([0.88, 0.86, 0.84]).expand(len(at), 3)
    colour = mix(colour, looks.iris, ((0.56 - radius) / 0.08).clamp(0, 1) * front)
    colour = mix(colour, looks.iris * 0.4, ((radius - 0.44) / 0.06).clamp(0, 1) * (radius < 0.56) * front)
    colour = mix(colour, torch.full((3,), 0.03), ((0.25 - radius) / 0.06).clamp(0, 1) * front)
    colour = mix(
        colour, torch.ones(3), ((0.12 - torch.hypot(at[:, 0] - 0.15, at[:, 1] - 0.2)) / 0.05).clamp(0, 1) * front
    )
    return colour * (1 - 0.35 * (at[:, 1] / 0.5).clamp(0, 1))[:, None]  # the lid's shadow


def _unrolled(at: Surface) -> tuple[torch.Tensor, torch.Tensor]:
    """Arc length and height of points on cloth, in body heights: of the front plane, and along sleeves."""
    x, y, z = at.place.unbind(1)
    arc = x + torch.sign(x) * (0.5 * (0.03 - z)).clamp(-0.1, 0.1)
    sleeve = ((at.arm - 0.1) / 0.1).clamp(0, 1)
    return torch.lerp(arc, y * 0.8 - z, sleeve), torch.lerp(y, 0.8 - 0.17 * at.arm, sleeve)


def _top(looks: Looks, at: Surface) -> torch.Tensor:
    colour = looks.top(*_unrolled(at))
    if looks.logo is not None:
        x, y, z = at.place.unbind(1)
        share = placed_print(looks.logo, (x / 0.055)[None], ((y - 0.735) / 0.055)[None])[0]
        colour = mix(colour, looks.logo_colour, share * (z > 0.03) * (at.arm < 0.2))
    return colour


def _shoe(looks: Looks, at: Surface) -> torch.Tensor:
    sole = ((0.012 - at.place[:, 1]) / 0.003).clamp(0, 1)
    return mix(looks.shoes.expand(len(sole), 3), looks.shoes * 0.4 + 0.5 * (looks.shoes.mean() < 0.3), sole)


def _strands(looks: Looks, wear: Clothes, at: Surface) -> torch.Tensor:
    x, y, z = at.face.unbind(1)
    if wear.hair == "afro":
        strand = waves(at.face, 9, looks.seed + 3)
    else:
        angle = torch.atan2(x, -(z + 0.9))
        strand = torch.sin(angle * 46 + 2.5 * torch.sin(2.2 * y + looks.seed)) * 0.6
        strand = strand + 0.6 * torch.sin(angle * 19 + 1.7 * torch.sin(1.3 * y))
    shine = torch.exp(-(((y - 0.55) / 0.3) ** 2)) * (wear.hair != "afro")
    lit = looks.hair * (1 + 0.22 * strand[:, None]) + 0.07 * shine[:, None] * (1 + 0.5 * strand[:, None])
    return lit * (0.8 + 0.2 * ((at.place[:, 1] - EYE_HEIGHT + 0.15) / 0.2).clamp(0, 1))[:, None]
