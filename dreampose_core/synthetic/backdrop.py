"""Where mannequins stand: studios and rooms, drawn a little larger than the frame, so that a camera can move over
them."""

from __future__ import annotations

import colorsys
import math

import torch

from .outfit import Dice

MARGIN = 1.25  # sides of a backdrop, in sides of the frame


def backdrop(dice: Dice, size: tuple[int, int]) -> torch.Tensor:
    """(H', W', 3) in [0, 1] around a frame of `size` (height, width); H', W' are even multiples of MARGIN away from
    it."""
    height, width = backdrop_size(size)
    # of the frame: y 0 at its top, 1 at its bottom; x -1 .. 1 across
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
    """Size of the backdrop for frames of `size`: as much is added on all sides, in whole pixels."""
    return tuple(side + 2 * math.ceil(side * (MARGIN - 1) / 2) for side in size)


def seen_through(
    backdrops: torch.Tensor, size: tuple[int, int], zoom: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """Frames (T, H, W, 3) cut from backdrops (T, H', W', 3).

    zoom (T,): how much larger than drawn the backdrop is seen. shift (T, 2): of the middle to the right and down, in
    frame heights.
    """
    count, high, wide, _ = backdrops.shape
    height, width = size
    theta = torch.zeros(count, 2, 3, device=backdrops.device)
    theta[:, 0, 0], theta[:, 1, 1] = width / wide / zoom, height / high / zoom
    theta[:, 0, 2], theta[:, 1, 2] = shift[:, 0] * 2 * height / wide, shift[:, 1] * 2 * height / high
    grid = torch.nn.functional.affine_grid(theta, [count, 3, height, width], align_corners=False)
    planes = backdrops.permute(0, 3, 1, 2)
    return torch.nn.functional.grid_sample(planes, grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)


def _paint(dice: Dice, saturation: float, value: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(colorsys.hsv_to_rgb(dice.uniform(), dice.uniform(0, saturation), dice.uniform(*value)))


def _lay(picture, share, colour):
    return picture + (colour - picture) * share[..., None]


def _box(x, y, left, right, top, bottom, soft):
    """Share of a box with soft edges; x is stretched by the frame's shape, which its edges' softness ignores."""
    across = ((0.5 + (x - left) / soft).clamp(0, 1)) * ((0.5 + (right - x) / soft).clamp(0, 1))
    return across * ((0.5 + (y - top) / soft).clamp(0, 1)) * ((0.5 + (bottom - y) / soft).clamp(0, 1))


def _studio(dice: Dice, x, y, wall, floor):
    """A wall that runs into the floor."""
    horizon, seam = dice.uniform(0.8, 0.93), dice.uniform(0.008, 0.07)
    return _lay(wall.expand(*y.shape, 3), torch.sigmoid((y - horizon) / seam), floor)


def _room(dice: Dice, x, y, wall, floor, soft):
    """A wall with a skirting board, a floor of boards or with a rug, and what stands and hangs in a room."""
    horizon = dice.uniform(0.79, 0.9)
    paper = dice.pick(none=0.6, stripes=0.22, panels=0.18)
    picture = wall.expand(*y.shape, 3)
    if paper == "stripes":
        picture = _lay(
            picture, 0.5 * (0.5 + 3 * torch.sin(x * dice.uniform(14, 34))).clamp(0, 1), wall * dice.uniform(0.84, 0.95)
        )
    elif paper == "panels":
        step = torch.remainder(x * dice.uniform(1.2, 2.2) + dice.uniform(), 1)
        frame = ((step - 0.5).abs() - 0.4).abs() < 0.02
        picture = _lay(picture, (frame & (y > 0.1) & (y < horizon - 0.12)).float() * 0.6, wall * 0.8)
    for _ in range(dice.choice((0, 1, 1, 2, 2))):
        picture = _thing_on_the_wall(dice, picture, x, y, soft)
    boards = (
        floor * (1 + 0.08 * torch.sin((x - 0.1) / (0.35 + y) * 22).sign())[..., None]
        if dice.chance(0.5)
        else floor.expand_as(picture)
    )
    nearer = ((y - horizon) / (1 - horizon)).clamp(0, 1)
    picture = torch.where((y > horizon)[..., None], boards * (0.86 + 0.14 * nearer)[..., None], picture)
    if dice.chance(0.3):
        rug = (1 - torch.hypot(x / dice.uniform(0.7, 1.1), (y - (horizon + 0.1)) / 0.08)) / 0.05
        picture = _lay(picture, rug.clamp(0, 1), _paint(dice, 0.6, (0.3, 0.8)))
    picture = _lay(picture, _box(x, y, -9, 9, horizon - 0.03, horizon, soft), wall * 0.5 + 0.45)
    for _ in range(dice.choice((0, 1, 1, 2))):
        picture = _thing_on_the_floor(dice, picture, x, y, horizon, soft)
    return picture


def _thing_on_the_wall(dice: Dice, picture, x, y, soft):
    left, top = dice.uniform(-1.1, 0.6), dice.uniform(0.05, 0.3)
    wide, high = dice.uniform(0.3, 0.7), dice.uniform(0.14, 0.34)
    if dice.chance(0.4):  # a window
        sky = torch.tensor([0.82, 0.9, 0.98]) * dice.uniform(0.85, 1.02)
        frame, middle = torch.tensor([0.93, 0.92, 0.9]), left + wide / 2
        picture = _lay(
            picture, _box(x, y, left - 0.04, left + wide + 0.04, top - 0.015, top + high + 0.015, soft), frame
        )
        picture = _lay(picture, _box(x, y, left, left + wide, top, top + high, soft), sky)
        return _lay(picture, _box(x, y, middle - 0.015, middle + 0.015, top, top + high, soft), frame)
    right, bottom = left + wide * 0.7, top + high * 0.8
    picture = _lay(
        picture, _box(x, y, left - 0.03, right + 0.03, top - 0.012, bottom + 0.012, soft), _paint(dice, 0.5, (0.1, 0.5))
    )
    inside = _box(x, y, left, right, top, bottom, soft)
    sea, land = _paint(dice, 0.5, (0.6, 0.95)), _paint(dice, 0.7, (0.2, 0.7))
    hills = top + high * (0.45 + 0.1 * torch.sin(9 * x + dice.uniform(0, 6)))
    return _lay(_lay(picture, inside, sea), inside * (y > hills), land)


def _thing_on_the_floor(dice: Dice, picture, x, y, horizon, soft):
    side = dice.choice((-1, 1))
    middle, wide, high = side * dice.uniform(0.6, 1.1), dice.uniform(0.2, 0.5), dice.uniform(0.1, 0.3)
    foot = horizon + dice.uniform(0.0, 0.05)
    colour = _paint(dice, 0.6, (0.2, 0.75))
    picture = _lay(
        picture, 0.35 * torch.exp(-(((x - middle) / (wide * 0.8)) ** 2) - ((y - foot) / 0.02) ** 2), colour * 0.2
    )
    if dice.chance(0.3):  # a plant
        picture = _lay(picture, _box(x, y, middle - 0.08, middle + 0.08, foot - 0.07, foot, soft), colour)
        green = torch.tensor(colorsys.hsv_to_rgb(dice.uniform(0.25, 0.4), 0.5, dice.uniform(0.25, 0.5)))
        for k in range(7):
            lean = (k - 3) * 0.09
            leaf = 1 - torch.hypot(
                (x - middle - lean * (foot - y) / 0.15) / 0.05, (y - foot + 0.07 + 0.4 * high) / (0.5 * high)
            )
            picture = _lay(picture, (leaf / 0.15).clamp(0, 1), green * (0.8 + 0.06 * k))
        return picture
    picture = _lay(picture, _box(x, y, middle - wide / 2, middle + wide / 2, foot - high, foot, soft), colour)
    picture = _lay(
        picture, _box(x, y, middle - wide / 2, middle + wide / 2, foot - high, foot - high + 0.02, soft), colour * 1.25
    )
    for k in range(dice.choice((0, 2, 3))):
        line = foot - high + 0.02 + (k + 1) * (high - 0.02) / 4
        picture = _lay(
            picture,
            _box(x, y, middle - wide / 2 + 0.03, middle + wide / 2 - 0.03, line, line + 0.006, soft),
            colour * 0.55,
        )
    return picture
