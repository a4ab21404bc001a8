"""Align DensePose maps that are slightly offset from the person in the photo, for example after resizing or cropping.

A map is aligned when the person's outline in the map follows edges of the photo.
"""

from __future__ import annotations

import torch

REACH = 0.03  # search radius as a share of the image height
_GAIN = 1.1  # how many times stronger the edges must be at another position before a map is moved
_EDGE = 0.6  # cap on a colour step (sum over R, G, B in [-1, 1]), so that one strong edge does not decide alone


def registered(
    photos: torch.Tensor, parts: torch.Tensor, uv: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Move maps (B, H, W) and (B, 2, H, W) of photos (B, 3, H, W) in [-1, 1] by up to REACH to where their outlines fit
    best."""
    down, right = displacements(photos, parts > 0)
    moved = _rolled(parts, down, right)
    return moved, None if uv is None else _rolled(uv, down, right)


def displacements(photos: torch.Tensor, person: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many pixels down and to the right, each (B,), the person masks (B, H, W) must move to match photos (B,
    3, H, W)."""
    batch, _, height, width = photos.shape
    reach = max(1, round(REACH * height))
    fit = photos.new_zeros(batch, 2 * reach + 1, 2 * reach + 1)
    for axis in (1, 2):
        outline = person.diff(dim=axis).float()
        edges = photos.diff(dim=axis + 1).abs().sum(1).clamp_max(_EDGE)
        fit = fit + _correlation(outline, edges, reach)
    fit = fit.flatten(1)
    at_home, (best, where) = fit[:, fit.shape[1] // 2], fit.max(1)
    where = torch.where(best > _GAIN * at_home + 1e-3 * best.clamp_min(1), where, fit.shape[1] // 2)
    return where // (2 * reach + 1) - reach, where % (2 * reach + 1) - reach


def _correlation(a: torch.Tensor, b: torch.Tensor, reach: int) -> torch.Tensor:
    """Return the sum of a(y, x) b(y + down, x + right) for (B, H, W) and all down and right from -reach to reach: (B, 2
    reach + 1, 2 reach + 1)."""
    # padding, so that the circular correlation does not wrap around
    size = [side + reach for side in a.shape[1:]]
    spectrum = torch.fft.rfft2(a, s=size).conj() * torch.fft.rfft2(b, s=size)
    around = torch.fft.irfft2(spectrum, s=size)
    return around.roll((reach, reach), (1, 2))[:, : 2 * reach + 1, : 2 * reach + 1]


def _rolled(maps: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Move each of the maps (B, ..., H, W) by whole pixels and fill with 0."""
    height, width = maps.shape[-2:]
    if not (down.any() or right.any()):
        return maps
    moved = torch.zeros_like(maps)
    for i, (y, x) in enumerate(zip(down.tolist(), right.tolist())):
        into = maps[i, ..., max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
        moved[i, ..., max(0, y) : height - max(0, -y), max(0, x) : width - max(0, -x)] = into
    return moved
