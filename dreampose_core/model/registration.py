"""Fit DensePose maps to the photo: align those that are slightly offset, for example after resizing or cropping, and
find pixels that show another part than the map says.

A map is aligned when the person's outline in the map follows edges of the photo.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

REACH = 0.03  # search radius as a share of the image height
_GAIN = 1.1  # how many times stronger the edges must be at another position before a map is moved
_EDGE = 0.6  # cap on a colour step (sum over R, G, B in [-1, 1]), so that one strong edge does not decide alone
# what is foreign: colours per channel, fewest pixels of a part, and how much likelier the other side must be
_COLOURS, _FEWEST, _LIKELIER = 12, 30, 2.5
_TRUNK, _LOWER_ARMS, _UPPER_ARMS = (1, 2), (3, 4, 19, 20, 21, 22), (15, 16, 17, 18)
_THIGHS, _SHANKS = (7, 8, 9, 10), (5, 6, 11, 12, 13, 14)


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


def foreign(photos: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """Find pixels (B, H, W) of photos (B, 3, H, W) in [-1, 1] that seem to show another part than parts (B, H, W) say.

    Hair and wide clothes hang over arms, and hands rest on hips, a little off the map's. A pixel of an arm that lies
    next to trunk, legs or head, or the other way round, is foreign if its colour is _LIKELIER times as frequent on the
    other side nearby as on its own part away from there.
    """
    return torch.stack([_foreign(photo, part) for photo, part in zip(photos, parts.long())])


def _foreign(photo: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    steps = ((photo.float() + 1) / 2 * _COLOURS).long().clamp(0, _COLOURS - 1)
    colours = (steps[0] * _COLOURS + steps[1]) * _COLOURS + steps[2]
    upper, lower = (_is_one_of(parts, group) for group in (_UPPER_ARMS, _LOWER_ARMS))
    rest = (parts > 0) & ~(upper | lower)
    found = torch.zeros_like(upper)
    pairs = [(upper, rest), (lower, rest)]
    pairs += [(_is_one_of(parts, group), lower) for group in (_TRUNK, _THIGHS, _SHANKS)]
    for own, other in pairs:
        core = own & ~_near(other, REACH / 2)
        if core.sum() < _FEWEST:
            core = own & ~_near(other, REACH / 4)
        if core.sum() < _FEWEST or not other.any():
            continue
        there = _frequencies(colours[other & _near(own, 2 * REACH)])
        likelier = own & _near(other, REACH) & (there > _LIKELIER * _frequencies(colours[core]) + 1e-9)[colours]
        even = -F.max_pool2d(-likelier[None, None].float(), 3, stride=1, padding=1)
        found |= own & (F.max_pool2d(even, 7, stride=1, padding=3)[0, 0] > 0)
    return found


def _is_one_of(parts: torch.Tensor, group: tuple[int, ...]) -> torch.Tensor:
    return torch.isin(parts, torch.tensor(group, device=parts.device))


def _near(mask: torch.Tensor, share: float) -> torch.Tensor:
    """Where `mask` (H, W) is at most this share of the height away."""
    radius = max(1, round(share * len(mask)))
    grown = F.max_pool2d(mask[None, None].float(), (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(grown, (1, 2 * radius + 1), stride=1, padding=(0, radius))[0, 0] > 0


def _frequencies(colours: torch.Tensor) -> torch.Tensor:
    """Shares (_COLOURS ** 3,) of `colours` (N,), smoothed over neighbouring colours."""
    counts = torch.bincount(colours, minlength=_COLOURS**3).float().reshape(1, 1, *[_COLOURS] * 3)
    for _ in range(2):
        counts = F.avg_pool3d(F.pad(counts, (1,) * 6, mode="replicate"), 3, stride=1)
    return (counts / counts.sum().clamp_min(1)).flatten()
