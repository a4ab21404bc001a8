"""Fill the background behind a person with patches from elsewhere in the photo.

After Wexler, Shechtman and Irani, "Space-Time Completion of Video" (2007), for one picture: from coarse to fine, each
patch in the hole looks for the most similar one outside, and each cell becomes the mean of the patches over it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt

MARGIN = 0.03  # share of the photo's height around the person that is replaced, too
CELL = 4  # pixels a side of the cells of the finest level
_SIDE = 7  # cells a side of a patch
_COARSEST = 16  # cells along the shorter side of the coarsest level, at least
_ROUNDS = 30  # smoothing steps on each pyramid level
_NEAR = 0.05  # how much the distance of a patch counts, in shares of the frame, against its colours
_ALONG = 1.4  # how much more a row's distance counts than a column's: walls and floors change with height
_LIGHT = 0.25  # a smaller difference at the hole's edge is light, a larger one is another thing
_PLAIN = 0.98  # share of a line of pixels with one colour that makes it a part of a bar; some have a watermark
_AT_ONCE = 2048  # patches compared at once


def fill_background(photos: torch.Tensor, person: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill the person (B, 1, H, W), 0/1, and a margin in photos (B, 3, H, W); returns photos and the filled area."""
    radius = max(1, round(MARGIN * photos.shape[2]))
    covered = F.max_pool2d(person, 2 * radius + 1, stride=1, padding=radius)
    pairs = zip(photos.split(1), covered.split(1))
    return torch.cat([_patched(photo, hole) for photo, hole in pairs]), covered


def filled(photos: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Fill the hole (B, 1, H, W), 0/1, in photos (B, 3, H, W) smoothly from its edge: each of its pixels becomes the
    mean of its neighbours.

    Colours outside the hole are averaged down a pyramid, then refined on each level on the way back up.
    """
    levels, weight, colour = [], 1 - hole, photos * (1 - hole)
    while min(colour.shape[2:]) > 1:
        levels.append((colour, weight))
        colour, weight = F.avg_pool2d(colour, 2, ceil_mode=True), F.avg_pool2d(weight, 2, ceil_mode=True)
    whole = colour / weight.clamp_min(1e-4)
    for colour, weight in reversed(levels):
        known = (weight > 0.5).to(colour.dtype)
        fixed = colour / weight.clamp_min(1e-4) * known
        whole = fixed + F.interpolate(whole, size=colour.shape[2:], mode="bilinear", align_corners=False) * (1 - known)
        for _ in range(_ROUNDS):
            near = F.pad(whole, (1, 1, 1, 1), mode="replicate")
            rows = near[..., 1:-1, :-2] + near[..., 1:-1, 2:]
            columns = near[..., :-2, 1:-1] + near[..., 2:, 1:-1]
            whole = fixed + (rows + columns) / 4 * (1 - known)
    return torch.where(hole > 0, whole.clamp(-1, 1), photos)


def _patched(photo: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Fill the hole (1, 1, H, W) in a photo (1, 3, H, W) with patches; smoothly, where there are none."""
    bars, found = _bars(photo), None
    cells = [CELL << level for level in range(8) if min(photo.shape[2:]) // (CELL << level) >= _COARSEST]
    guess = _across(*_known(photo, hole, CELL))
    for cell in reversed(cells):
        known, weight = _known(photo, hole, cell)
        inside = weight < 1
        guess = torch.where(inside, F.interpolate(guess, known.shape[2:], mode="area"), known)
        here, wrong = (_around(x) for x in (inside, inside | (F.max_pool2d(bars, cell, ceil_mode=True) > 0)))
        if not here.any() or wrong.all():
            continue
        for _ in range(8 if cell == cells[-1] else 4 if cell > CELL else 2):
            found = _most_similar(guess, here, ~wrong, half=cell == CELL)
            guess = torch.where(inside, _mean_of_patches(guess, *found), guess)
    return filled(photo, hole) if found is None else _copied(photo, hole, found[:2], cells[0])


def _known(photo: torch.Tensor, hole: torch.Tensor, cell: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean colours outside the hole of cells (1, 3, h, w), and the share of each that is outside."""
    weight = F.avg_pool2d(1 - hole, cell, ceil_mode=True)
    return F.avg_pool2d(photo * (1 - hole), cell, ceil_mode=True) / weight.clamp_min(1e-4), weight


def _across(cells: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Fill cells (1, 3, h, w) of a weight (1, 1, h, w) below half from the nearest others in their row: behind a person
    who stands, floor and horizon go on from side to side. A mean of both sides may look like something else."""
    inside, sampling = (weight[0, 0] < 0.5).cpu().numpy(), (cells.shape[3], 1)
    row, column = distance_transform_edt(inside, sampling, return_distances=False, return_indices=True)
    return cells[..., row, column]


def _patches(picture: torch.Tensor) -> torch.Tensor:
    """The patches (C _SIDE _SIDE, h w) about each cell of (1, C, h, w)."""
    return F.unfold(F.pad(picture, (_SIDE // 2,) * 4, mode="replicate"), _SIDE)[0]


def _around(cells: torch.Tensor) -> torch.Tensor:
    """Whether the patch about each cell (h w) holds one of `cells`, bool (1, 1, h, w)."""
    return F.max_pool2d(cells.float(), _SIDE, stride=1, padding=_SIDE // 2)[0, 0].flatten() > 0


def _bars(photo: torch.Tensor) -> torch.Tensor:
    """Bars of one colour along opposite edges of a photo (1, 3, H, W), 0/1 (1, 1, H, W): nothing is to be copied from
    them. A photo with bars of its own may have been given others."""
    bars = torch.ones_like(photo[:, :1])
    inner = bars
    for dim in (2, 3, 2, 3):
        plain = ((photo - photo[..., :1, :1]).abs() < 0.02).all(1)[0].float().mean(3 - dim) > _PLAIN
        width = min(int(side.long().cumprod(0).sum()) for side in (plain, plain.flip(0)))
        if 2 * width < photo.shape[dim]:
            photo, inner = (x.narrow(dim, width, x.shape[dim] - 2 * width) for x in (photo, inner))
    inner.zero_()
    return bars


def _most_similar(picture: torch.Tensor, here: torch.Tensor, there: torch.Tensor, half: bool):
    """For each cell of `here` the most similar patch about a cell of `there`, both bool (h w).

    half: compare with every second cell only. Returns both cells' numbers and their differences.
    """
    height, width = picture.shape[2:]
    number = torch.arange(height * width, device=here.device)
    y, x = number // width, number % width
    even = (y + x) % 2 == 0
    here, there = here.nonzero()[:, 0], (there & even if half and (there & even).any() else there).nonzero()[:, 0]
    scale = (_NEAR * 3 * _SIDE * _SIDE) ** 0.5
    places = torch.stack([y * scale * _ALONG / height, x * scale / width])
    patches = torch.cat([_patches(picture), places])
    given, wanted = patches[:, there], patches[:, here]
    squares = given.square().sum(0)[None]
    nearest = [torch.addmm(squares, some.T, given, alpha=-2).min(1) for some in wanted.split(_AT_ONCE, 1)]
    difference = torch.cat([one.values for one in nearest]) + wanted.square().sum(0)
    return here, there[torch.cat([one.indices for one in nearest])], difference.clamp_min(0)


def _mean_of_patches(picture: torch.Tensor, here: torch.Tensor, there: torch.Tensor, difference: torch.Tensor):
    """Put the patches of `there` at `here`; returns their mean (1, 3, h, w), weighted by how well they fit."""
    patches = _patches(picture)
    weights = torch.exp(-difference / (difference.quantile(0.75) + 1e-6))
    placed, share = torch.zeros_like(patches), torch.zeros_like(patches[: _SIDE * _SIDE])
    placed[:, here], share[:, here] = patches[:, there] * weights, weights
    size, edge = [side + _SIDE - 1 for side in picture.shape[2:]], slice(_SIDE // 2, -(_SIDE // 2))
    total, weight = (F.fold(x[None], size, _SIDE)[..., edge, edge] for x in (placed, share))
    return total / weight.clamp_min(1e-9)


def _copied(photo: torch.Tensor, hole: torch.Tensor, found: tuple[torch.Tensor, torch.Tensor], cell: int):
    """Fill the hole pixel by pixel from where its cell's patch came from, softly mixed with the cells around it.

    The pixels around the hole are copied, too: by how they differ from the photo the light of the fill is corrected.
    """
    height, width = photo.shape[2:]
    rows, columns = -(-height // cell), -(-width // cell)
    shift = torch.zeros(rows * columns, 2, dtype=torch.long, device=photo.device)
    here, there = found
    shift[here] = torch.stack([there // columns - here // columns, there % columns - here % columns], 1) * cell
    wide = F.max_pool2d(hole, 4 * cell + 1, stride=1, padding=2 * cell)
    y, x = wide[0, 0].nonzero(as_tuple=True)
    total, weight = torch.zeros(3, len(y), device=photo.device), torch.zeros(len(y), device=photo.device)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            row, column = (y // cell + down).clamp(0, rows - 1), (x // cell + right).clamp(0, columns - 1)
            from_y, from_x = shift[row * columns + column].unbind(1)
            copied = from_y.ne(0) | from_x.ne(0)
            from_y, from_x = (y + from_y).clamp(0, height - 1), (x + from_x).clamp(0, width - 1)
            middle = cell / 2 - 0.5
            off = (y - row * cell - middle).square() + (x - column * cell - middle).square()
            share = copied * (1 - hole[0, 0, from_y, from_x]) / (1 + 2 * off / cell**2).square()
            total, weight = total + photo[0, :, from_y, from_x] * share, weight + share
    result = photo.clone()
    result[0, :, y, x] = torch.where(weight > 0, total / weight.clamp_min(1e-9), filled(photo, hole)[0, :, y, x])
    error = photo - result
    around = (wide - hole) * (error.abs().amax(1, keepdim=True) < _LIGHT)
    sums = F.avg_pool2d(torch.cat([error * around, around], 1), 2 * cell + 1, stride=1, padding=cell)
    error = sums[:, :3] / sums[:, 3:].clamp_min(1e-6) * around
    return torch.where(hole > 0, (result + filled(error, 1 - around)).clamp(-1, 1), photo)
