"""Backdrops of drawn people: studios and rooms, a little larger than the frame, so that a camera can move over them."""

from __future__ import annotations

import colorsys
import math
from functools import partial

import torch

from .dice import Dice, mix

MARGIN = 1.25  # side of a backdrop over side of the frame


def backdrop(dice: Dice, size: tuple[int, int]) -> torch.Tensor:
    """Draw a backdrop (H', W', 3) in [0, 1] for frames of `size` (height, width); H', W' as in `backdrop_size`."""
    height, width = backdrop_size(size)
    # In the frame, y is 0 at the top and 1 at the bottom; x is -1 at the left and 1 at the right.
    y = ((torch.arange(height) + 0.5 - height / 2) / size[0] + 0.5)[:, None].expand(height, width)
    x = ((torch.arange(width) + 0.5 - width / 2) / (size[1] / 2))[None].expand(height, width)
    soft = 1.2 / size[0]
    wall, floor = _paint(dice, 0.26, (0.5, 0.96)), _paint(dice, 0.3, (0.3, 0.75))
    if dice.chance(0.5):
        floor = wall * dice.uniform(0.6, 0.92)
    picture = _room(dice, x, y, wall, floor, soft) if dice.chance(0.5) else _studio(dice, x, y, wall, floor)
    glow = dice.uniform(-0.1, 0.14) * torch.exp(-((x - dice.uniform(-0.5, 0.5)) ** 2) - (2 * y - 0.8) ** 2)
    vignette = 1 - dice.uniform(0.0, 0.14) * (0.5 * x**2 + (2 * y - 1) ** 2 * 0.5)
    picture = (picture + glow[..., None]) * vignette[..., None]
    if dice.chance(0.5):  # out of focus
        radius = max(1, round(size[0] * dice.uniform(0.004, 0.012)))
        planes = torch.nn.functional.pad(picture.permute(2, 0, 1)[None], (radius,) * 4, mode="replicate")
        for _ in range(2):
            planes = torch.nn.functional.avg_pool2d(planes, 2 * (radius // 2) + 1, 1, radius // 2)
        planes = torch.nn.functional.avg_pool2d(planes, 2 * radius + 1, 1)
        picture = planes[0].permute(1, 2, 0)
    return picture.clamp(0, 1)


def backdrop_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size (height, width) of the backdrop for frames of `size`.

    It adds the same number of whole pixels on opposite sides, so that each side is about MARGIN times as long.
    """
    return tuple(side + 2 * math.ceil(side * (MARGIN - 1) / 2) for side in size)


def seen_through(
    backdrop: torch.Tensor, size: tuple[int, int], zoom: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """Cut frames (T, H, W, 3) of `size` from a backdrop (H', W', 3).

    zoom: (T,) magnification of the backdrop, 1 as drawn. shift: (T, 2) of the frame's middle to the right and down, in
    frame heights.
    """
    count, (high, wide, _), (height, width) = len(zoom), backdrop.shape, size
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width / wide / zoom, height / high / zoom
    theta[:, 0, 2], theta[:, 1, 2] = shift[:, 0] * 2 * height / wide, shift[:, 1] * 2 * height / high
    grid = torch.nn.functional.affine_grid(theta, [count, 3, height, width], align_corners=False)
    planes = backdrop.permute(2, 0, 1).expand(count, -1, -1, -1)
    return torch.nn.functional.grid_sample(planes, grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)


def _paint(dice: Dice, saturation: float, value: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(colorsys.hsv_to_rgb(dice.uniform(), dice.uniform(0, saturation), dice.uniform(*value)))


def _box(x, y, soft, left, right, top, bottom):
    """Coverage of a box with soft edges; their softness ignores that x is stretched by the frame's shape."""
    across = ((0.5 + (x - left) / soft).clamp(0, 1)) * ((0.5 + (right - x) / soft).clamp(0, 1))
    return across * ((0.5 + (y - top) / soft).clamp(0, 1)) * ((0.5 + (bottom - y) / soft).clamp(0, 1))


def _studio(dice: Dice, x, y, wall, floor):
    """A wall that blends into the floor."""
    horizon, seam = dice.uniform(0.8, 0.93), dice.uniform(0.008, 0.07)
    return mix(wall.expand(*y.shape, 3), floor, torch.sigmoid((y - horizon) / seam))


def _room(dice: Dice, x, y, wall, floor, soft):
    """A wall with a skirting board, a floor with boards or a rug, and things that hang and stand in a room."""
    box = partial(_box, x, y, soft)
    horizon = dice.uniform(0.79, 0.9)
    paper = dice.pick(none=0.6, stripes=0.22, panels=0.18)
    picture = wall.expand(*y.shape, 3)
    if paper == "stripes":
        stripes = 0.5 * (0.5 + 3 * torch.sin(x * dice.uniform(14, 34))).clamp(0, 1)
        picture = mix(picture, wall * dice.uniform(0.84, 0.95), stripes)
    elif paper == "panels":
        step = torch.remainder(x * dice.uniform(1.2, 2.2) + dice.uniform(), 1)
        frame = ((step - 0.5).abs() - 0.4).abs() < 0.02
        picture = mix(picture, wall * 0.8, (frame & (y > 0.1) & (y < horizon - 0.12)).float() * 0.6)
    for _ in range(dice.choice((0, 1, 1, 2, 2))):
        picture = _thing_on_the_wall(dice, picture, x, y, box)
    if dice.chance(0.5):  # boards
        floor = floor * (1 + 0.08 * torch.sin((x - 0.1) / (0.35 + y) * 22).sign())[..., None]
    nearer = ((y - horizon) / (1 - horizon)).clamp(0, 1)
    picture = torch.where((y > horizon)[..., None], floor * (0.86 + 0.14 * nearer)[..., None], picture)
    if dice.chance(0.3):
        rug = (1 - torch.hypot(x / dice.uniform(0.7, 1.1), (y - (horizon + 0.1)) / 0.08)) / 0.05
        picture = mix(picture, _paint(dice, 0.6, (0.3, 0.8)), rug)
    picture = mix(picture, wall * 0.5 + 0.45, box(-9, 9, horizon - 0.03, horizon))
    for _ in range(dice.choice((0, 1, 1, 2))):
        picture = _thing_on_the_floor(dice, picture, x, y, horizon, box)
    return picture


def _thing_on_the_wall(dice: Dice, picture, x, y, box):
    left, top = dice.uniform(-1.1, 0.6), dice.uniform(0.05, 0.3)
    wide, high = dice.uniform(0.3, 0.7), dice.uniform(0.14, 0.34)
    if dice.chance(0.4):  # a window
        sky = torch.tensor([0.82, 0.9, 0.98]) * dice.uniform(0.85, 1.02)
        frame, middle = torch.tensor([0.93, 0.92, 0.9]), left + wide / 2
        picture = mix(picture, frame, box(left - 0.04, left + wide + 0.04, top - 0.015, top + high + 0.015))
        picture = mix(picture, sky, box(left, left + wide, top, top + high))
        return mix(picture, frame, box(middle - 0.015, middle + 0.015, top, top + high))
    right, bottom = left + wide * 0.7, top + high * 0.8
    picture = mix(picture, _paint(dice, 0.5, (0.1, 0.5)), box(left - 0.03, right + 0.03, top - 0.012, bottom + 0.012))
    inside = box(left, right, top, bottom)
    sea, land = _paint(dice, 0.5, (0.6, 0.95)), _paint(dice, 0.7, (0.2, 0.7))
    hills = top + high * (0.45 + 0.1 * torch.sin(9 * x + dice.uniform(0, 6)))
    return mix(mix(picture, sea, inside), land, inside * (y > hills))


def _thing_on_the_floor(dice: Dice, picture, x, y, horizon, box):
    side = dice.choice((-1, 1))
    middle, wide, high = side * dice.uniform(0.6, 1.1), dice.uniform(0.2, 0.5), dice.uniform(0.1, 0.3)
    foot = horizon + dice.uniform(0.0, 0.05)
    colour = _paint(dice, 0.6, (0.2, 0.75))
    shadow = 0.35 * torch.exp(-(((x - middle) / (wide * 0.8)) ** 2) - ((y - foot) / 0.02) ** 2)
    picture = mix(picture, colour * 0.2, shadow)
    if dice.chance(0.3):  # a plant
        picture = mix(picture, colour, box(middle - 0.08, middle + 0.08, foot - 0.07, foot))
        green = torch.tensor(colorsys.hsv_to_rgb(dice.uniform(0.25, 0.4), 0.5, dice.uniform(0.25, 0.5)))
        for k in range(7):
            lean = (k - 3) * 0.09
            across, up = (x - middle - lean * (foot - y) / 0.15) / 0.05, (y - foot + 0.07 + 0.4 * high) / (0.5 * high)
            picture = mix(picture, green * (0.8 + 0.06 * k), (1 - torch.hypot(across, up)) / 0.15)
        return picture
    left, right, top = middle - wide / 2, middle + wide / 2, foot - high
    picture = mix(picture, colour, box(left, right, top, foot))
    picture = mix(picture, colour * 1.25, box(left, right, top, top + 0.02))
    for k in range(dice.choice((0, 2, 3))):
        line = top + 0.02 + (k + 1) * (high - 0.02) / 4
        picture = mix(picture, colour * 0.55, box(left + 0.03, right - 0.03, line, line + 0.006))
    return picture
