"""Printed cloth: periodic patterns, and single prints such as letters and logos."""

from __future__ import annotations

import colorsys
import math
import string
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .dice import Dice, mix

# Colours (..., 3) at an arc length and a rest height, both in body heights.
Cloth = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_PATTERNS = dict(plain=0.4, denim=0.08, stripes=0.08, bars=0.05, checks=0.06)
_PATTERNS |= dict(plaid=0.07, dots=0.07, zigzag=0.05, floral=0.08, blots=0.06)
_TILE = 32  # texels of one period
_PRINT = 48  # texels of a print


def cloth_colour(dice: Dice) -> torch.Tensor:
    """Draw a colour for clothes: vivid, muted, dark or light."""
    hue, kind = dice.uniform(), dice.pick(vivid=0.28, muted=0.34, dark=0.2, light=0.18)
    saturation, value = (
        {"vivid": (0.45, 0.8), "muted": (0.1, 0.4), "dark": (0.0, 0.5), "light": (0.0, 0.12)}[kind],
        {"vivid": (0.4, 0.88), "muted": (0.45, 0.88), "dark": (0.08, 0.28), "light": (0.85, 0.98)}[kind],
    )
    return torch.tensor(colorsys.hsv_to_rgb(hue, dice.uniform(*saturation), dice.uniform(*value)))


def random_cloth(dice: Dice) -> Cloth:
    """Draw a cloth with a pattern; 40 % are plain."""
    kind = dice.pick(**_PATTERNS)
    base = cloth_colour(dice)
    if kind == "denim":
        hue, saturation, value = dice.uniform(0.57, 0.63), dice.uniform(0.3, 0.65), dice.uniform(0.25, 0.65)
        base = torch.tensor(colorsys.hsv_to_rgb(hue, saturation, value))
    second = cloth_colour(dice)
    if float((base - second).abs().mean()) < 0.15:
        second = (base + 0.45) % 1.0
    tile = _tile(kind, dice, base, second)
    period = dice.uniform(0.04, 0.09) if kind not in ("floral", "blots", "plaid") else dice.uniform(0.08, 0.16)
    phase = dice.uniform()

    def cloth(arc: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        return _sampled(tile, arc / period + phase, height / period + phase)

    return cloth


def _sampled(tile: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sample the periodic tile (K, K, 3) bilinearly at x, y in periods."""
    column, row = torch.remainder(x, 1) * _TILE, torch.remainder(y, 1) * _TILE
    left, top = column.floor(), row.floor()
    right_share, low_share = (column - left)[..., None], (row - top)[..., None]
    left, top = left.long() % _TILE, top.long() % _TILE
    right, low = (left + 1) % _TILE, (top + 1) % _TILE
    above = torch.lerp(tile[top, left], tile[top, right], right_share)
    return torch.lerp(above, torch.lerp(tile[low, left], tile[low, right], right_share), low_share)


def _tile(kind: str, dice: Dice, base, second) -> torch.Tensor:
    """One period (K, K, 3) of a pattern."""
    line = (torch.arange(_TILE) + 0.5) / _TILE
    x, y = line.expand(_TILE, _TILE), line[:, None].expand(_TILE, _TILE)  # in periods
    plain = base.expand(_TILE, _TILE, 3)
    if kind == "denim":
        return mix(base, base * 1.25, 0.5 + 0.5 * torch.sin(2 * math.pi * (3 * x + 3 * y)))
    if kind == "plaid":
        third, cloth = cloth_colour(dice), mix(base, second, 0.45 * _wave(x) + 0.45 * _wave(y))
        for line in (x, y):
            cloth = mix(cloth, third, 0.7 * ((line - 0.25).abs() < 0.05))
        return cloth
    if kind == "floral":
        return _floral(dice, plain, second, x, y)
    if kind == "blots":
        third, sizes = cloth_colour(dice), [dice.uniform(0.1, 0.25) for _ in range(7)]
        for k, (dx, dy) in enumerate(_away(dice, 7, x, y)):
            distance = torch.hypot(dx, dy * 1.4) / sizes[k]
            plain = mix(plain, second if k % 2 else third, 4 * (1 - distance) + 0.5)
        return plain
    shares = {
        "plain": torch.zeros_like(x),
        "stripes": _wave(y),
        "bars": _wave(x),
        "checks": 0.5 * _wave(x) + 0.5 * _wave(y),
        "dots": 6 * (torch.cos(2 * math.pi * x) * torch.cos(2 * math.pi * y) - 0.4),
        "zigzag": _wave(y + (x - 0.5).abs()),
    }
    return mix(base, second, shares[kind])


def _wave(x: torch.Tensor) -> torch.Tensor:
    """A square wave between 0 and 1 with soft edges; x in periods."""
    return (0.5 + 3 * torch.sin(2 * math.pi * x)).clamp(0, 1)


def _away(dice: Dice, count: int, x, y) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Distances (K, K) across and down from `count` random places of a periodic tile to each texel."""
    places = [(dice.uniform(), dice.uniform()) for _ in range(count)]
    return [(torch.remainder(x - a + 0.5, 1) - 0.5, torch.remainder(y - b + 0.5, 1) - 0.5) for a, b in places]


def _floral(dice: Dice, cloth, second, x, y) -> torch.Tensor:
    """Blossoms with green leaves next to them."""
    heart = cloth * 0.5 + 0.5
    leaf = torch.tensor(colorsys.hsv_to_rgb(dice.uniform(0.22, 0.42), 0.5, dice.uniform(0.3, 0.6)))
    third, sizes = cloth_colour(dice), [dice.uniform(0.13, 0.2) for _ in range(5)]
    for k, (dx, dy) in enumerate(_away(dice, 5, x, y)):
        radius, angle = torch.hypot(dx, dy), torch.atan2(dy, dx)
        leaves = (torch.hypot(dx - 0.12, dy + 0.1) / 0.1).clamp(0, 1.4)
        petals = radius / (sizes[k] * (0.75 + 0.25 * torch.cos(5 * angle + k)))
        colours = (leaves, leaf), (petals, second if k % 2 else third), (radius / (0.3 * sizes[k]), heart)
        for distance, colour in colours:
            cloth = mix(cloth, colour, 4 * (1 - distance) + 0.5)
    return cloth


def random_print(dice: Dice) -> torch.Tensor:
    """Draw a print as a mask (K, K) in [0, 1], first row on top: letters, a number, or a sign."""
    kind = dice.pick(word=0.4, number=0.25, star=0.12, ring=0.12, heart=0.11)
    picture = Image.new("L", (_PRINT, _PRINT))
    pen, middle = ImageDraw.Draw(picture), _PRINT / 2
    if kind in ("word", "number"):
        letters = string.digits if kind == "number" else string.ascii_uppercase
        text = "".join(dice.choice(letters) for _ in range(dice.choice((1, 2) if kind == "number" else (1, 2, 3))))
        font = ImageFont.load_default(40 if len(text) == 1 else 66 / len(text))
        pen.text((middle, middle), text, fill=255, anchor="mm", font=font)
    elif kind == "star":
        tips = [(22 if a % 2 == 0 else 9, a * math.pi / 5) for a in range(10)]
        pen.polygon([(middle + r * math.sin(a), middle - r * math.cos(a)) for r, a in tips], fill=255)
    elif kind == "ring":
        pen.ellipse((4, 4, 44, 44), outline=255, width=9)
        pen.ellipse((19, 19, 29, 29), fill=255)
    else:
        pen.ellipse((5, 8, 25, 28), fill=255)
        pen.ellipse((23, 8, 43, 28), fill=255)
        pen.polygon([(6.5, 23), (41.5, 23), (24, 44)], fill=255)
    return torch.tensor(np.asarray(picture).astype(np.float32) / 255)


def placed_print(mask: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sample the mask at x (to its right) and y (upwards), each -1..1 across the mask; 0 outside."""
    grid = torch.stack([x, -y], -1)
    sampled = torch.nn.functional.grid_sample(mask[None, None], grid[None], align_corners=False)
    return sampled[0, 0]
