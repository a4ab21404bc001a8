"""The photo's texture: harvest it part by part through its DensePose, move it to another pose map.

Pixels are float in [-1, 1], maps as in `poses.PoseSequence` but as tensors. Parts store places, not colours: for a grid
of K x K points over a part's U, V, where in the photo each point lies and how that changes with U and V. Colours are
read from the photo itself, once, so nothing is averaged. K = 15 % of the image height, 24 for 160 rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..poses import NUM_PARTS
from ..poses.sequence import HANDS
from .inpainting import fill_background, filled
from .misplaced import misplaced, on_face
from .registration import registered

WARP_PLANES = 5  # R, G, B, seen, source
SOURCE_TEXEL, SOURCE_MEAN, SOURCE_BACKGROUND = 1.0, 0.5, -1.0
EROSION = 0.00625  # share of the image height: width of the border whose colours mix with the background
# a part that lies in that border entirely keeps its colours only if it has this share of its front or back twin's size
SLIVER = 0.35
REACH = 1.5  # in grid steps: photo pixels this near to a point in U, V determine its place
RIDGE = 0.1  # in squared grid steps: shrinks the change over U, V towards zero where few pixels determine it
NEAREST = 0.5  # share of the nearest seen colour in an unseen point's; the rest is the mean of its row
# The fewer pixels a row has, of about FEW, the more those count that are within this share of the rows.
ROWS, FEW = 0.02, 2
BACK = 0.55  # U from which on a point of the head is behind the ear
_HEAD = (22, 23)  # indices of the right and left half of the head; U, V are mirror images, U from front to back
LEAST = 0.02  # minimum weight of photo pixels for a point to count as seen
CLOSED = 5  # seen neighbours, of eight, that make an unseen point a gap
# an unseen part borrows from its front or back twin, then from its left or right twin (1-based part numbers)
_TWINS = {1: 2, 3: 4, 5: 6, 7: 9, 8: 10, 11: 13, 12: 14, 15: 17, 16: 18, 19: 21, 20: 22, 23: 24}
_MIRROR = {7: 8, 9: 10, 11: 12, 13: 14, 15: 16, 17: 18, 19: 20, 21: 22}


def _pairs(table: dict[int, int]) -> list[int]:
    both = {**table, **{b: a for a, b in table.items()}}
    return [both.get(part, part) - 1 for part in range(1, NUM_PARTS + 1)]


def turned(parts: torch.Tensor) -> torch.Tensor:
    """Relabel maps of parts, 0..24, as if the person faced the other way: front and back, left and right swap."""
    twins, mirror = _pairs(_TWINS), _pairs(_MIRROR)
    # hands and feet are each other's twins, as are the halves of the head: swapping twins already mirrors them
    limbs = range(7 - 1, 22)
    behind = [mirror[twin] if part in limbs else twin for part, twin in enumerate(twins)]
    return torch.tensor([0, *(1 + part for part in behind)], device=parts.device)[parts.long()]


class Texture(NamedTuple):
    """Textures of B references, each from N photos of one person.

    photos: (B, N, 3, H, W). places: (B, N, 24, K, K, 7) over V and U: x and y in the photo, -1..1 from edge to edge,
    their change per step of U, per step of V, and the weight of the photo pixels behind them. An unseen point has the
    place of a seen one that may look like it, and as weight minus the share that it gets of its colour, or 0.
    means: (B, 24, 3) mean colour of each part or its twin. known: (B, 24) whether there is such a mean.
    rows: (B, 24, K, 3) the same at each height V, or the nearest seen one, so that an unseen back gets hems and belts
    where the front has them.
    background: (B, 3, H, W) the photo with its person filled in. covered: (B, 1, H, W) 1 in the filled area.
    """

    photos: torch.Tensor
    places: torch.Tensor
    means: torch.Tensor
    known: torch.Tensor
    rows: torch.Tensor
    background: torch.Tensor
    covered: torch.Tensor

    def expand(self, batch: int) -> Texture:
        """Repeat one reference for `batch` targets."""
        return Texture(*(x.expand(batch, *x.shape[1:]) for x in self))

    def behind(self) -> torch.Tensor:
        """Return the background's planes (B, 5, H, W), see `move`."""
        return torch.cat([self.background, 1 - self.covered, torch.full_like(self.covered, SOURCE_BACKGROUND)], 1)

    def without(self, removed: torch.Tensor) -> Texture:
        """Return a copy with the points `removed` unseen: 0 or 1 in a shape that broadcasts to (B, N, 24, K, K)."""
        weight = self.places[..., 6:] * (1 - removed[..., None])
        return self._replace(places=_completed(torch.cat([self.places[..., :6], weight], -1)))


def harvest(photos: torch.Tensor, parts: torch.Tensor, uv: torch.Tensor | None, same_person: bool = False) -> Texture:
    """Harvest the textures of photos (B, 3, H, W) in [-1, 1] with parts (B, H, W) 0..24 and uv (B, 2, H, W) 0..1 or
    None.

    Slightly offset maps are aligned first, see `registration`; `misplaced` pixels are left out. same_person: all photos
    show one person; the result has B = 1 and all photos, and the background is the first one's.
    """
    batch, _, height, width = photos.shape
    k = max(8, height * 3 // 20)
    parts, uv = registered(photos, parts.long(), uv)
    person = (parts > 0).float()[:, None]
    inside = _inside(parts, max(1, round(EROSION * height)))
    # pixels at the outline mix body and background, so colours from further inside replace them
    body = filled(photos, 1 - inside)
    if uv is None:
        shown, face, places = parts, torch.zeros_like(parts), photos.new_zeros(batch, NUM_PARTS, k, k, 7)
    else:
        shown, face = torch.where(misplaced(photos, parts, uv), 0, parts), on_face(parts, uv).long()
        places = _completed(_closed(_places(shown, uv.float(), k)))
    sums, rows = _sums(photos, torch.where(inside[:, 0] > 0, shown, 0), uv, k)
    face = _sums(photos, face, None, k)[0][:, :1]
    body, places = body[:, None], places[:, None]
    if same_person:
        sums, rows, face = (x.sum(0, keepdim=True) for x in (sums, rows, face))
        body, places, photos, person = body.transpose(0, 1), places.transpose(0, 1), photos[:1], person[:1]
    hands = [number - 1 for number in HANDS]  # if neither is seen, they have the face's colour
    sums[:, hands] = torch.where((sums[:, hands, 3:] == 0).all(1, keepdim=True), face, sums[:, hands])
    means, known = _means(sums)
    row_means, row_known = _twin_colours(_with_neighbours(rows))
    rows = torch.where(row_known.any(2, keepdim=True), _nearest_rows(row_means, row_known), means[:, :, None])
    return Texture(body, places, means, known, rows, *fill_background(photos, person))


def move(texture: Texture, parts: torch.Tensor, uv: torch.Tensor | None, background: bool) -> torch.Tensor:
    """Move the textures to target maps; returns planes (B, 5, H, W): R, G, B in [-1, 1], seen 0/1, source.

    parts: (B, H, W). uv: (B, 2, H, W), or None to use mean colours of parts only. background: put the photo's filled
    background around the person. source: 1 texel, 0.5 mean of the part (at that V, if U, V are known), 0 none, -1
    background.
    """
    k = texture.rows.shape[2]
    person = parts > 0
    b, y, x = person.nonzero(as_tuple=True)
    part = parts.long()[b, y, x] - 1
    known = texture.known[b, part][:, None].float()
    colour = texture.means[b, part] * known
    seen = torch.zeros_like(known)
    if uv is not None:
        at = uv.movedim(1, -1)[b, y, x].float() * k
        colour = texture.rows[b, part, at[:, 1].long().clamp(0, k - 1)] * known
        # an unseen point: its row's mean, in part replaced by a colour that the first photo shows elsewhere
        row, column = at.long().clamp(0, k - 1).flip(1).unbind(1)
        near = texture.places[b, 0, part, row, column]
        nearest = _read(texture.photos[:, 0], b, y, x, near[:, :2])
        colour = torch.lerp(colour, nearest, -near[:, 6:].clamp(-1, 0))
        # the back of the head has the colour of the crown, usually hair, where its mirror image is unseen, too
        crown = texture.rows[:, _HEAD, int(0.8 * k) : int(0.95 * k)].mean((1, 2))
        back = ((at[:, :1] / k - BACK) / 0.15).clamp(0, 1) * (part >= _HEAD[0])[:, None] * (near[:, 6:] > -1)
        colour = torch.lerp(colour, crown[b], back)
        weight = torch.zeros_like(known)
        # the photo that shows a point largest supplies its colour
        for photo, places in zip(texture.photos.unbind(1), texture.places.unbind(1)):
            place, here = _found(places, b, part, at - 0.5, k)
            better = (here > weight) & (here > LEAST)
            colour = torch.where(better, _read(photo, b, y, x, place), colour)
            weight, seen = torch.where(better, here, weight), torch.where(better, 1.0, seen)
    source = torch.where(seen > 0, SOURCE_TEXEL, known * SOURCE_MEAN)
    planes = colour.new_zeros(len(parts), WARP_PLANES, *parts.shape[1:])
    planes.movedim(1, -1)[b, y, x] = torch.cat([colour, seen, source], -1)
    return laid(planes, person, texture.behind()) if background else planes


def laid(planes: torch.Tensor, person: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
    """Lay planes (B, 5, H, W) of persons (B, H, W) over others; colours along an outline mix as in a camera image."""
    person = person[:, None]
    share = F.avg_pool2d(F.pad(person.to(planes.dtype), (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    mixed = torch.cat([torch.lerp(behind[:, :3], planes[:, :3], share), planes[:, 3:]], 1)
    return torch.where(person, mixed, behind)


def _places(parts: torch.Tensor, uv: torch.Tensor, k: int) -> torch.Tensor:
    """Locate a grid of points over each part's V and U in a photo: (B, 24, K, K, 7), see `Texture`.

    Moving least squares: the pixels within REACH of a point, weighted by distance, define a place that changes linearly
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


def _closed(places: torch.Tensor) -> torch.Tensor:
    """Close the small gaps in grids (B, 24, K, K, 7) that photo pixels just miss: an unseen point with CLOSED of its
    eight neighbours seen is their mean."""
    seen = (places[..., 6:] > LEAST).to(places.dtype)
    known = torch.cat([places * seen, seen], -1).flatten(0, 1).movedim(-1, 1)
    around = F.avg_pool2d(known, 3, stride=1, padding=1).movedim(1, -1).reshape(*places.shape[:-1], 8)
    mean, share = around.split([7, 1], -1)
    return torch.where((seen == 0) & (share > (CLOSED - 0.5) / 9), mean / share.clamp_min(1e-6), places)


def _completed(places: torch.Tensor) -> torch.Tensor:
    """Give the unseen points of grids (..., 24, K, K, 7) the place of a seen one, with a weight below 0: on the head,
    its mirror image; else about the nearest of the part."""
    k = places.shape[-2]
    seen = (places[..., 6:] > LEAST).to(places.dtype)
    grown = torch.cat([places[..., :2] * seen, seen], -1).reshape(-1, k, k, 3).movedim(-1, 1)
    grown = F.avg_pool2d(grown, 2, ceil_mode=True)  # every second point is near enough
    for _ in range(k // 4):
        around = F.avg_pool2d(grown, 3, stride=1, padding=1)
        grown = torch.where(grown[:, 2:] > 0, grown, around)
    grown = F.interpolate(grown, size=(k, k)).movedim(1, -1).reshape(*places.shape[:-1], 3)
    place, share = grown[..., :2] / grown[..., 2:].clamp_min(1e-12), NEAREST * (grown[..., 2:] > 0)
    halves = slice(_HEAD[0], _HEAD[-1] + 1)
    mirror, mirror_seen = (x[..., halves, :, :, :].flip(-4) for x in (places, seen))
    place[..., halves, :, :, :] = torch.where(mirror_seen > 0, mirror[..., :2], place[..., halves, :, :, :])
    share[..., halves, :, :, :] = torch.where(mirror_seen > 0, 1.0, share[..., halves, :, :, :])
    return torch.where(seen > 0, places, torch.cat([place, torch.zeros_like(places[..., 2:6]), -share], -1))


def _found(
    places: torch.Tensor, b: torch.Tensor, part: torch.Tensor, at: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Look up where in the photos the positions `at` (M, 2), in grid steps over U and V of `part`, lie: (M, 2), and the
    weight of photo pixels behind that, (M, 1), by interpolating between the four nearest points."""
    total, low = at.new_zeros(len(at), 4), at.floor()
    for right in (0, 1):
        for down in (0, 1):
            corner = low + torch.tensor([right, down], device=at.device)
            share = (1 - (at - corner).abs()).clamp_min(0).prod(1, keepdim=True)
            point = corner.clamp(0, k - 1)
            entry = places[b, part, point[:, 1].long(), point[:, 0].long()]
            off, share = at - point, share * (entry[:, 6:] > LEAST)
            place = entry[:, :2] + entry[:, 2:4] * off[:, :1] + entry[:, 4:6] * off[:, 1:]
            total += torch.cat([place, entry[:, 6:], torch.ones_like(share)], 1) * share
    share = total[:, 3:]
    return total[:, :2] / share.clamp_min(1e-6), torch.where(share > 0.25, total[:, 2:3] / share.clamp_min(1e-6), 0.0)


def _read(photos: torch.Tensor, b: torch.Tensor, y: torch.Tensor, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Read colours (M, 3) of photos (B, 3, H, W) at places (M, 2); the places belong to pixels (b, y, x), so M is at
    most B H W."""
    grid = place.new_zeros(len(photos), *photos.shape[2:], 2)
    grid[b, y, x] = place
    read = F.grid_sample(photos, grid.to(photos.dtype), mode="bicubic", padding_mode="border", align_corners=False)
    return read.clamp(-1, 1).movedim(1, -1)[b, y, x]


def _inside(parts: torch.Tensor, radius: int) -> torch.Tensor:
    """Return (B, 1, H, W), 1 where the person's edge is more than `radius` pixels away.

    A part that would vanish, such as a hand, stays whole, unless it is a sliver next to its front or back twin.
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
    """Return sums and counts of colours for parts (B, 24, 4) and for parts at each height V (B, 24, K, 4), the latter
    zero without U, V."""
    batch = len(photos)
    b, y, x = (parts > 0).nonzero(as_tuple=True)
    colour = F.pad(photos.movedim(1, -1)[b, y, x], (0, 1), value=1.0)
    part = b * NUM_PARTS + parts[b, y, x] - 1
    sums, rows = colour.new_zeros(batch * NUM_PARTS, 4), colour.new_zeros(batch * NUM_PARTS * k, 4)
    if uv is not None:
        rows.index_add_(0, part * k + (uv[b, 1, y, x].float() * k).long().clamp(0, k - 1), colour)
    return sums.index_add_(0, part, colour).reshape(batch, NUM_PARTS, 4), rows.reshape(batch, NUM_PARTS, k, 4)


def _with_neighbours(rows: torch.Tensor) -> torch.Tensor:
    """Add to sums of colours (B, 24, K, 4) those of rows nearby where a row has few pixels, whose noise would show as
    a stripe."""
    reach = round(ROWS * rows.shape[2])
    around = F.avg_pool2d(rows, (2 * reach + 1, 1), stride=1, padding=(reach, 0)) * (2 * reach + 1) - rows
    return rows + around * (FEW / (FEW + rows[..., 3:])) ** 2


def _twin_colours(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean colours (B, 24, ..., 3) of sums (B, 24, ..., 4), a twin's for empty sums, and whether one exists."""
    for table in (_TWINS, _MIRROR, _TWINS):
        sums = torch.where(sums[..., 3:] == 0, sums[:, torch.tensor(_pairs(table), device=sums.device)], sums)
    return sums[..., :3] / sums[..., 3:].clamp_min(1e-6), sums[..., 3:] > 0


def _nearest_rows(means: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean colours (B, 24, K, 3) in which each row has those of the nearest `known` one, (B, 24, K, 1)."""
    at = torch.arange(means.shape[2], device=means.device)
    off = (at[:, None] - at).abs() + len(at) * ~known.movedim(3, 2)  # (B, 24, K, K)
    return means.gather(2, off.argmin(3, keepdim=True).expand_as(means))


def _means(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean colours (B, 24, 3) of the parts; of the whole person if neither a part nor its twins were seen."""
    means, known = _twin_colours(sums)
    whole_colour, whole_weight = sums[..., :3].sum(1, keepdim=True), sums[..., 3:].sum(1, keepdim=True)
    whole = (whole_colour / whole_weight.clamp_min(1e-6)).expand_as(means)
    return torch.where(known, means, whole), (known | (whole_weight > 0))[..., 0]
