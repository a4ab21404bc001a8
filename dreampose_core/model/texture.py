"""The photo's texture: harvested part by part through its DensePose, moved to another pose's map.

Pixels are float in [-1, 1], maps as in `poses.PoseSequence` but as tensors. What is kept of a part is not colours but
places: for a grid of K x K points over its U, V, where in the photo each lies, and how that changes with U and V.
Colours are read from the photo itself, once, so that nothing is averaged. K = 15 % of the image height, 24 for 160
rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F

from ..poses import NUM_PARTS
from .registration import registered

WARP_PLANES = 5  # R, G, B, seen, source
SOURCE_TEXEL, SOURCE_MEAN, SOURCE_BACKGROUND = 1.0, 0.5, -1.0
EROSION = 0.00625  # of the image height: that far inside the person's edge its colours begin to be its own
SLIVER = (
    0.35  # a part smaller than that beside its front or back twin, all of it at the edge, has no colours of its own
)
REACH = 1.5  # grid steps from a point in U, V up to which photo pixels say where it lies
MARGIN = 0.03  # of the image height: the person and so much around it is taken out of the background
ALONG, ROUNDS = (
    4.0,
    30,
)  # how much more a pixel of a filled background has of its row than of its column; steps towards that on each level
RIDGE = 0.1  # square grid steps: keeps a change over U, V that too few pixels tell at zero
LEAST = 0.02  # weight of photo pixels below which a point was not seen
# where a part was not seen its front or back twin stands in, then its left or right twin (1-based part numbers)
_TWINS = {1: 2, 3: 4, 5: 6, 7: 9, 8: 10, 11: 13, 12: 14, 15: 17, 16: 18, 19: 21, 20: 22, 23: 24}
_MIRROR = {7: 8, 9: 10, 11: 12, 13: 14, 15: 16, 17: 18, 19: 20, 21: 22}


def _pairs(table: dict[int, int]) -> list[int]:
    both = {**table, **{b: a for a, b in table.items()}}
    return [both.get(part, part) - 1 for part in range(1, NUM_PARTS + 1)]


def turned(parts: torch.Tensor) -> torch.Tensor:
    """Maps of parts, 0..24, as if the person stood with their back to where their front is: fronts are backs, the left
    is the right."""
    twins, mirror = _pairs(_TWINS), _pairs(_MIRROR)
    limbs = range(
        7 - 1, 22
    )  # hands, feet and the head's halves are each other's twins: there that is the mirror already
    behind = [mirror[twin] if part in limbs else twin for part, twin in enumerate(twins)]
    return torch.tensor([0, *(1 + part for part in behind)], device=parts.device)[parts.long()]


@dataclass
class Texture:
    """Textures of B references, each from N photos of one person.

    photos: (B, N, 3, H, W). places: (B, N, 24, K, K, 7) over V and U: x and y in the photo, -1..1 from edge to edge,
    their change for one step of U, for one step of V, and how much of the photo says so, 0 where the point was not
    seen.
    means: (B, 24, 3) mean colour of each part, own or its twin's. known: (B, 24) whether there is any such mean.
    rows: (B, 24, K, 3) the same at each height V, so that an unseen back has its hems and belts where the front has
    them.
    background: (B, 3, H, W) the photo with its person filled in. covered: (B, 1, H, W) 1 where it was filled in.
    """

    photos: torch.Tensor
    places: torch.Tensor
    means: torch.Tensor
    known: torch.Tensor
    rows: torch.Tensor
    background: torch.Tensor
    covered: torch.Tensor

    def expand(self, batch: int) -> Texture:
        """One reference for `batch` targets."""
        return Texture(*(getattr(self, f.name).expand(batch, *getattr(self, f.name).shape[1:]) for f in fields(self)))

    def behind(self) -> torch.Tensor:
        """The planes (B, 5, H, W) where nobody is; see `move`."""
        return torch.cat([self.background, 1 - self.covered, torch.full_like(self.covered, SOURCE_BACKGROUND)], 1)

    def without(self, removed: torch.Tensor) -> Texture:
        """As if the points `removed`, 0 or 1 in a shape that fits (B, N, 24, K, K), had not been seen."""
        weight = self.places[..., 6:] * (1 - removed[..., None])
        return replace(self, places=torch.cat([self.places[..., :6], weight], -1))


def harvest(photos: torch.Tensor, parts: torch.Tensor, uv: torch.Tensor | None, same_person: bool = False) -> Texture:
    """The textures of photos (B, 3, H, W) in [-1, 1] with parts (B, H, W) 0..24 and uv (B, 2, H, W) 0..1 or None.

    Maps that lie a little beside their person are moved back, see `registration`. same_person: all photos show one
    person; the result has B = 1 and all photos, and the background is the first one's.
    """
    batch, _, height, width = photos.shape
    k = max(8, height * 3 // 20)
    parts, uv = registered(photos, parts.long(), uv)
    person = (parts > 0).float()[:, None]
    inside = _inside(parts, max(1, round(EROSION * height)))
    # outlines show body and background mixed: there the body's own colours are drawn outwards
    own = filled(photos, 1 - inside)
    sums, rows = _sums(photos, torch.where(inside[:, 0] > 0, parts, 0), uv, k)
    if uv is None:
        places = photos.new_zeros(batch, NUM_PARTS, k, k, 7)
    else:
        places = _places(parts, uv.float(), k)
    own, places = own[:, None], places[:, None]
    if same_person:
        sums, rows = sums.sum(0, keepdim=True), rows.sum(0, keepdim=True)
        own, places, photos, person = own.transpose(0, 1), places.transpose(0, 1), photos[:1], person[:1]
    means, known = _means(sums)
    row_means, row_known = _twin_colours(rows)
    rows = torch.where(row_known, row_means, means[:, :, None])
    return Texture(own, places, means, known, rows, *fill_background(photos, person))


def move(texture: Texture, parts: torch.Tensor, uv: torch.Tensor | None, background: bool) -> torch.Tensor:
    """The textures moved to target maps: planes (B, 5, H, W), R, G, B in [-1, 1], seen 0/1, source.

    parts (B, H, W), uv (B, 2, H, W) or None (then parts' mean colours only); `background` also lays the photo's filled
    background around the person. source: 1 texel, 0.5 mean of the part (at that V, where U, V are known), 0 none, -1
    background.
    """
    k = texture.rows.shape[2]
    person = parts > 0
    b, y, x = person.nonzero(as_tuple=True)
    part = parts.long()[b, y, x] - 1
    known = texture.known[b, part][:, None].float()
    colour = texture.means[b, part] * known
    found = torch.zeros_like(known)
    if uv is not None:
        at = uv.movedim(1, -1)[b, y, x].float() * k
        colour = texture.rows[b, part, at[:, 1].long().clamp(0, k - 1)] * known
        weight = torch.zeros_like(known)
        for photo, places in zip(
            texture.photos.unbind(1), texture.places.unbind(1)
        ):  # the photo that shows a place largest wins
            place, here = _found(places, b, part, at - 0.5, k)
            better = (here > weight) & (here > LEAST)
            colour = torch.where(better, _read(photo, b, y, x, place), colour)
            weight, found = torch.where(better, here, weight), torch.where(better, 1.0, found)
    source = torch.where(found > 0, SOURCE_TEXEL, known * SOURCE_MEAN)
    planes = colour.new_zeros(len(parts), WARP_PLANES, *parts.shape[1:])
    planes.movedim(1, -1)[b, y, x] = torch.cat([colour, found, source], -1)
    return laid(planes, person, texture.behind()) if background else planes


def laid(planes: torch.Tensor, person: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
    """Planes (B, 5, H, W) of persons (B, H, W) over others: the colours along an outline are mixed, as a camera would
    mix them."""
    person = person[:, None]
    share = F.avg_pool2d(F.pad(person.to(planes.dtype), (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    mixed = torch.cat([torch.lerp(behind[:, :3], planes[:, :3], share), planes[:, 3:]], 1)
    return torch.where(person, mixed, behind)


def fill_background(photos: torch.Tensor, person: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Photos (B, 3, H, W) with the person (B, 1, H, W) and a margin filled from around, and the filled area 0/1.

    Rows are more alike than columns: walls and floors change with height.
    """
    radius = max(1, round(MARGIN * photos.shape[2]))
    covered = F.max_pool2d(person, 2 * radius + 1, stride=1, padding=radius)
    return filled(photos, covered, ALONG), covered


def filled(photos: torch.Tensor, hole: torch.Tensor, along: float = 1.0) -> torch.Tensor:
    """Photos (B, 3, H, W) with the hole (B, 1, H, W), 0/1, filled smoothly from its edge: every pixel of it becomes the
    mean of its neighbours, those in its row counting `along` times.

    Colours are averaged down a pyramid, ignoring the hole, and refined on every level of the way back up.
    """
    levels, weight, colour = [], 1 - hole, photos * (1 - hole)
    while min(colour.shape[2:]) > 1:
        levels.append((colour, weight))
        colour, weight = F.avg_pool2d(colour, 2, ceil_mode=True), F.avg_pool2d(weight, 2, ceil_mode=True)
    whole = colour / weight.clamp_min(1e-4)
    for colour, weight in reversed(levels):
        known = (weight > 0.5).to(colour.dtype)
        given = colour / weight.clamp_min(1e-4) * known
        whole = given + F.interpolate(whole, size=colour.shape[2:], mode="bilinear", align_corners=False) * (1 - known)
        for _ in range(ROUNDS):
            near = F.pad(whole, (1, 1, 1, 1), mode="replicate")
            rows = near[..., 1:-1, :-2] + near[..., 1:-1, 2:]
            columns = near[..., :-2, 1:-1] + near[..., 2:, 1:-1]
            whole = given + (along * rows + columns) / (2 * along + 2) * (1 - known)
    return torch.where(hole > 0, whole.clamp(-1, 1), photos)


def _places(parts: torch.Tensor, uv: torch.Tensor, k: int) -> torch.Tensor:
    """Where in a photo the points of a grid over each part's V and U lie, (B, 24, K, K, 7); see `Texture`.

    Moving least squares: the pixels within REACH of a point, the near ones more, give a place that changes linearly
    with U and V.
    """
    batch, height, width = parts.shape
    b, y, x = (parts > 0).nonzero(as_tuple=True)
    place = torch.stack([(x + 0.5) / width, (y + 0.5) / height], 1) * 2 - 1
    at = uv.movedim(1, -1)[b, y, x] * k - 0.5
    first = (b * NUM_PARTS + parts[b, y, x] - 1) * k * k
    sums = torch.zeros(batch * NUM_PARTS * k * k, 12, device=parts.device)
    steps = range(-math.floor(REACH), math.floor(REACH) + 1)
    for down in steps:
        for right in steps:
            point = at.round() + torch.tensor([right, down], device=at.device)
            off = at - point
            weight = (1 - off.abs() / REACH).clamp_min(0).prod(1, keepdim=True) * ((point >= 0) & (point < k)).all(
                1, keepdim=True
            )
            column, row = point.long().clamp(0, k - 1).unbind(1)
            u, v = off[:, :1], off[:, 1:]
            terms = torch.cat([torch.ones_like(u), u, v, u * u, u * v, v * v, place, place * u, place * v], 1)
            sums.index_add_(0, first + row * k + column, terms * weight)
    weight = sums[:, :1]
    u, v, uu, uv_, vv, *rest = (sums[:, 1:] / weight.clamp_min(1e-6)).split([1, 1, 1, 1, 1, 2, 2, 2], 1)
    place, place_u, place_v = rest
    uu, uv_, vv = uu - u * u + RIDGE, uv_ - u * v, vv - v * v + RIDGE
    place_u, place_v = place_u - place * u, place_v - place * v
    determinant = uu * vv - uv_ * uv_
    by_u, by_v = (vv * place_u - uv_ * place_v) / determinant, (uu * place_v - uv_ * place_u) / determinant
    return torch.cat([place - by_u * u - by_v * v, by_u, by_v, weight], 1).reshape(batch, NUM_PARTS, k, k, 7)


def _found(
    places: torch.Tensor, b: torch.Tensor, part: torch.Tensor, at: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where in the photos (M, 2) the positions `at` (M, 2), in grid steps over U and V of `part`, lie, and how much of
    the photo says so, (M, 1): the four points around each are asked, and blended."""
    total, low = at.new_zeros(len(at), 4), at.floor()
    for right in (0, 1):
        for down in (0, 1):
            corner = low + torch.tensor([right, down], device=at.device)
            share = (1 - (at - corner).abs()).clamp_min(0).prod(1, keepdim=True)
            point = corner.clamp(0, k - 1)
            said = places[b, part, point[:, 1].long(), point[:, 0].long()]
            off, share = at - point, share * (said[:, 6:] > LEAST)
            place = said[:, :2] + said[:, 2:4] * off[:, :1] + said[:, 4:6] * off[:, 1:]
            total += torch.cat([place, said[:, 6:], torch.ones_like(share)], 1) * share
    share = total[:, 3:]
    return total[:, :2] / share.clamp_min(1e-6), torch.where(share > 0.25, total[:, 2:3] / share.clamp_min(1e-6), 0.0)


def _read(photos: torch.Tensor, b: torch.Tensor, y: torch.Tensor, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Colours (M, 3) of photos (B, 3, H, W) at places (M, 2); the M places belong to pixels (b, y, x), of which there
    are at most B H W."""
    grid = place.new_zeros(len(photos), *photos.shape[2:], 2)
    grid[b, y, x] = place
    read = F.grid_sample(photos, grid.to(photos.dtype), mode="bicubic", padding_mode="border", align_corners=False)
    return read.clamp(-1, 1).movedim(1, -1)[b, y, x]


def _inside(parts: torch.Tensor, radius: int) -> torch.Tensor:
    """1 where the person's edge is more than `radius` pixels away, (B, 1, H, W).

    Of a part of which nothing would be left, such as a hand, all; unless it is a sliver beside its front or back twin.
    """
    index, person = parts.flatten(1), (parts > 0).float()[:, None]
    inner = 1 - F.max_pool2d(1 - person, 2 * radius + 1, stride=1, padding=radius)
    counts = torch.zeros(2, len(parts), NUM_PARTS + 1, device=parts.device)
    size, left = counts.scatter_add_(2, index.expand(2, -1, -1), torch.stack([person.flatten(1), inner.flatten(1)]))
    twin = size[:, [0, *(1 + part for part in _pairs(_TWINS))]]
    thin = (left == 0) & (size >= SLIVER * twin)
    return torch.maximum(inner, person * thin.gather(1, index).reshape(person.shape))


def _sums(
    photos: torch.Tensor, parts: torch.Tensor, uv: torch.Tensor | None, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of colours and their count, of parts (B, 24, 4) and of parts at each height V (B, 24, K, 4), zeros without
    U, V."""
    batch = len(photos)
    b, y, x = (parts > 0).nonzero(as_tuple=True)
    colour = F.pad(photos.movedim(1, -1)[b, y, x], (0, 1), value=1.0)
    part = b * NUM_PARTS + parts[b, y, x] - 1
    sums, rows = colour.new_zeros(batch * NUM_PARTS, 4), colour.new_zeros(batch * NUM_PARTS * k, 4)
    if uv is not None:
        rows.index_add_(0, part * k + (uv[b, 1, y, x].float() * k).long().clamp(0, k - 1), colour)
    return sums.index_add_(0, part, colour).reshape(batch, NUM_PARTS, 4), rows.reshape(batch, NUM_PARTS, k, 4)


def _twin_colours(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean colours (B, 24, ..., 3) of sums (B, 24, ..., 4), a twin's where there is none, and whether any was found."""
    for table in (_TWINS, _MIRROR, _TWINS):
        sums = torch.where(sums[..., 3:] == 0, sums[:, torch.tensor(_pairs(table), device=sums.device)], sums)
    return sums[..., :3] / sums[..., 3:].clamp_min(1e-6), sums[..., 3:] > 0


def _means(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean colours (B, 24, 3) of the parts; where neither a part nor its twins were seen, of the whole person."""
    means, known = _twin_colours(sums)
    whole_colour, whole_weight = sums[..., :3].sum(1, keepdim=True), sums[..., 3:].sum(1, keepdim=True)
    whole = (whole_colour / whole_weight.clamp_min(1e-6)).expand_as(means)
    return torch.where(known, means, whole), (known | (whole_weight > 0))[..., 0]
