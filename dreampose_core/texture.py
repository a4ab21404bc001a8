"""The photo's texture: harvested part by part through its DensePose, moved to another pose's map.

Pixels are float in [-1, 1], maps as in `poses.PoseSequence` but as tensors. The texture of a part is a square of texels
over its U, V; K = 15 % of the image height, 24 for 160 rows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from .poses import NUM_PARTS

WARP_PLANES = 5  # R, G, B, seen, source
SOURCE_TEXEL, SOURCE_MEAN, SOURCE_BACKGROUND = 1.0, 0.5, -1.0
EROSION = 0.0125  # of the image height: a slightly wrong map must not paint background onto the body
# where a part was not seen its front or back twin stands in, then its left or right twin (1-based part numbers)
_TWINS = {1: 2, 3: 4, 5: 6, 7: 9, 8: 10, 11: 13, 12: 14, 15: 17, 16: 18, 19: 21, 20: 22, 23: 24}
_MIRROR = {7: 8, 9: 10, 11: 12, 13: 14, 15: 16, 17: 18, 19: 20, 21: 22}


def _pairs(table: dict[int, int]) -> list[int]:
    both = {**table, **{b: a for a, b in table.items()}}
    return [both.get(part, part) - 1 for part in range(1, NUM_PARTS + 1)]


@dataclass
class Texture:
    """Textures of B references.

    texels: (B, 24, K, K, 4) colour in [-1, 1] and 1 where it was seen, else 0.
    means: (B, 24, 3) mean colour of each part, own or its twin's. known: (B, 24) whether there is any such mean.
    rows: (B, 24, K, 3) the same at each height V, so that an unseen back has its hems and belts where the front has them.
    background: (B, 3, H, W) the photo with its person filled in. covered: (B, 1, H, W) 1 where it was filled in.
    """

    texels: torch.Tensor
    means: torch.Tensor
    known: torch.Tensor
    rows: torch.Tensor
    background: torch.Tensor
    covered: torch.Tensor

    def expand(self, batch: int) -> Texture:
        """One reference for `batch` targets."""
        return Texture(*(getattr(self, f.name).expand(batch, *getattr(self, f.name).shape[1:]) for f in fields(self)))


def harvest(photos: torch.Tensor, parts: torch.Tensor, uv: torch.Tensor | None, same_person: bool = False) -> Texture:
    """The textures of photos (B, 3, H, W) in [-1, 1] with parts (B, H, W) 0..24 and uv (B, 2, H, W) 0..1 or None.

    same_person: all photos show one person; the result has B = 1, and the background is the first photo's.
    """
    batch, _, height, width = photos.shape
    k = max(8, height * 3 // 20)
    parts = parts.long()
    radius = max(1, round(EROSION * height))
    person = (parts > 0).float()[:, None]
    inner = 1 - F.max_pool2d(1 - person, 2 * radius + 1, stride=1, padding=radius)
    # a thin limb may vanish altogether: its own pixels are still better than nothing
    usable = torch.where(_share_left(inner, parts) > 0, inner[:, 0], person[:, 0]).reshape(batch, -1)
    flat = photos.permute(0, 2, 3, 1).reshape(batch, -1, 3)
    index = (parts - 1).clamp_min(0).reshape(batch, -1)
    weighted = torch.cat([flat * usable[..., None], usable[..., None]], -1)
    sums = torch.zeros(batch, NUM_PARTS, 4, device=photos.device).scatter_add_(1, index[..., None].expand(-1, -1, 4), weighted)
    texels = torch.zeros(batch, NUM_PARTS * k * k, 4, device=photos.device)
    if uv is not None:
        column, row = ((uv.float().reshape(batch, 2, -1) * k).long().clamp(0, k - 1)).unbind(1)
        texels.scatter_add_(1, ((index * k + row) * k + column)[..., None].expand(-1, -1, 4), weighted)
    texels = texels.reshape(batch, NUM_PARTS, k, k, 4)
    if same_person:
        sums, texels = sums.sum(0, keepdim=True), texels.sum(0, keepdim=True)
        photos, person = photos[:1], person[:1]
    means, known = _means(sums)
    row_means, row_known = _twin_rows(texels.sum(3))
    rows = torch.where(row_known, row_means, means[:, :, None])
    background, covered = fill_background(photos, person)
    return Texture(_close_gaps(texels), means, known, rows, background, covered)


def move(texture: Texture, parts: torch.Tensor, uv: torch.Tensor | None, background: bool) -> torch.Tensor:
    """The textures moved to target maps: planes (B, 5, H, W), R, G, B in [-1, 1], seen 0/1, source.

    parts (B, H, W), uv (B, 2, H, W) or None (then parts' mean colours only); `background` also lays the photo's filled
    background around the person. source: 1 texel, 0.5 mean of the part (at that V, where U, V are known), 0 none, -1 background.
    """
    batch, height, width = parts.shape
    k = texture.texels.shape[2]
    parts = parts.long()
    index = (parts - 1).clamp_min(0).reshape(batch, -1)
    mean = texture.means.gather(1, index[..., None].expand(-1, -1, 3))
    known = texture.known.gather(1, index)[..., None].float()
    colour, source, seen = mean * known, known * SOURCE_MEAN, torch.zeros_like(known)
    if uv is not None:
        row = (uv[:, 1].float().reshape(batch, -1) * k).long().clamp(0, k - 1)
        colour = texture.rows.reshape(batch, -1, 3).gather(1, (index * k + row)[..., None].expand(-1, -1, 3)) * known
        texel, weight = _sample(texture.texels.reshape(batch, -1, 4), index, uv.float().reshape(batch, 2, -1) * k - 0.5, k)
        found = weight > 0.25
        colour = torch.where(found, texel, colour)
        source, seen = torch.where(found, SOURCE_TEXEL, source), found.float()
    planes = torch.cat([colour, seen, source], -1).transpose(1, 2).reshape(batch, WARP_PLANES, height, width)
    person = (parts > 0)[:, None]
    behind = torch.zeros_like(planes)
    if background:
        behind = torch.cat([texture.background, 1 - texture.covered, torch.full_like(texture.covered, SOURCE_BACKGROUND)], 1)
    return torch.where(person, planes, behind)


def fill_background(photos: torch.Tensor, person: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Photos (B, 3, H, W) with the person (B, 1, H, W) and a margin filled from around, and the filled area 0/1.

    Push-pull: colours are averaged down a pyramid, ignoring holes, and come back up into the holes.
    """
    height = photos.shape[2]
    radius = max(1, round(0.02 * height))
    covered = F.max_pool2d(person, 2 * radius + 1, stride=1, padding=radius)
    levels, weight, colour = [], 1 - covered, photos * (1 - covered)
    while min(colour.shape[2:]) > 1:
        levels.append((colour, weight))
        colour, weight = F.avg_pool2d(colour, 2, ceil_mode=True), F.avg_pool2d(weight, 2, ceil_mode=True)
    filled = colour / weight.clamp_min(1e-4)
    for colour, weight in reversed(levels):
        above = F.interpolate(filled, size=colour.shape[2:], mode="bilinear", align_corners=False)
        share = (weight > 1e-3).float() * weight.clamp(0, 1)
        filled = colour / weight.clamp_min(1e-4) * share + above * (1 - share)
    return torch.where(covered > 0, filled.clamp(-1, 1), photos), covered


def _share_left(inner: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """For each pixel, how many pixels of its part survive the erosion; (B, H, W)."""
    batch = len(parts)
    index = parts.reshape(batch, -1)
    counts = torch.zeros(batch, NUM_PARTS + 1, device=inner.device).scatter_add_(1, index, inner.reshape(batch, -1))
    return counts.gather(1, index).reshape(parts.shape)


def _twin_rows(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean colours (B, 24, ..., 3) of sums (B, 24, ..., 4), a twin's where there is none, and whether any was found."""
    for table in (_TWINS, _MIRROR, _TWINS):
        sums = torch.where(sums[..., 3:] == 0, sums[:, torch.tensor(_pairs(table), device=sums.device)], sums)
    return sums[..., :3] / sums[..., 3:].clamp_min(1e-6), sums[..., 3:] > 0


def _means(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean colours (B, 24, 3) of the parts; where neither a part nor its twins were seen, of the whole person."""
    means, known = _twin_rows(sums)
    whole_colour, whole_weight = sums[..., :3].sum(1, keepdim=True), sums[..., 3:].sum(1, keepdim=True)
    whole = (whole_colour / whole_weight.clamp_min(1e-6)).expand_as(means)
    return torch.where(known, means, whole), (known | (whole_weight > 0))[..., 0]


def _close_gaps(texels: torch.Tensor) -> torch.Tensor:
    """Texels between seen ones take their neighbours' mean, twice over: a photo has gaps where a part is large in it."""
    batch, parts, k, _, _ = texels.shape
    x = texels.reshape(batch * parts, k, k, 4).permute(0, 3, 1, 2)
    colour, weight = x[:, :3] / x[:, 3:].clamp_min(1e-6), (x[:, 3:] > 0).float()
    colour = colour * weight
    for _ in range(2):
        near_colour, near_weight = F.avg_pool2d(colour, 3, 1, 1), F.avg_pool2d(weight, 3, 1, 1)
        empty = (weight == 0) & (near_weight > 0.3 / 9)
        colour = torch.where(empty, near_colour / near_weight.clamp_min(1e-6), colour)
        weight = torch.where(empty, torch.ones_like(weight), weight)
    return torch.cat([colour, weight], 1).permute(0, 2, 3, 1).reshape(batch, parts, k, k, 4)


def _sample(texels: torch.Tensor, part: torch.Tensor, position: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bilinear colours (B, N, 3) and weights (B, N, 1) at position (B, 2, N) (column, row) inside each pixel's part."""
    low = position.floor()
    share = position - low
    total = texels.new_zeros(*part.shape, 4)
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = (low[:, 0].long() + dx).clamp(0, k - 1), (low[:, 1].long() + dy).clamp(0, k - 1)
            weight = (share[:, 0] if dx else 1 - share[:, 0]) * (share[:, 1] if dy else 1 - share[:, 1])
            value = texels.gather(1, ((part * k + row) * k + column)[..., None].expand(-1, -1, 4))
            total = total + torch.cat([value[..., :3] * value[..., 3:], value[..., 3:]], -1) * weight[..., None]
    return total[..., :3] / total[..., 3:].clamp_min(1e-6), total[..., 3:]
