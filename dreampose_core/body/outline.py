"""Outline offsets: how far a person's outline lies outside or inside the drawn body.

The reasons are hair, cloth, thin and thick places. The offsets move with the body's surface. This module also fits a
drawn pose map to a mask.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter, uniform_filter

from .cones import HEAD, HEIGHTS, PARTS, TORSO

# Pairs of parts (front, back), for the head (left, right). Hands and feet keep their outline: their charts say little
# about where it is.
_PAIRS = (TORSO, HEAD, *(pair for name, pair in PARTS.items() if "hand" not in name and "foot" not in name))
_BINS = 6  # along V
SHAPE = (len(_PAIRS), _BINS, 2)  # axes of offsets: pair, bin along V, the person's right and left side
# Limits of the offsets, in body heights. Pixels further away move with something else.
_MOST = np.full((len(_PAIRS), _BINS), 0.03)
_MOST[:4] = [[0.05], [0.12], [0.08], [0.08]]  # torso, head, upper legs
_MOST[2:4, 0] = 0  # at the hips the torso shows how wide they are
_MOST[6:8, 0] = 0.01  # what stands off the shoulders is hair
_LEAST = -0.03
_BARE = 0.015  # the most for legs below a skirt
_AROUND, _SMOOTH = 0.01, 0.003  # body heights: reach of the pixels around one, and smoothing along the outline
_FEW = 4  # bins with fewer pixels are ignored
_FARTHEST = 90  # percentile of the distances to add or remove in a bin
# Probability, 0 to 255, above which a pixel belongs to the person, by its distance from the body in thousandths of the
# body's height. Its logit rises from 0.5 on the body to 2.5 far from it, where masks bulge without a person.
_PER_HEIGHT = 1000
_LEAST_CHANCE = 255 / (1 + np.exp(-0.5 - np.minimum(np.arange(200) / 5, 2.0)))
_REST = np.ones((len(_PAIRS), _BINS))  # rest heights of the middles of the legs' bins
for _name in ("left_upper_leg", "right_upper_leg", "left_lower_leg", "right_lower_leg"):
    _first, _last = HEIGHTS[_name.split("_", 1)[1]]
    _REST[_PAIRS.index(PARTS[_name])] = _first + (np.arange(_BINS) + 0.5) / _BINS * (_last - _first)
_LEG_PARTS = [part for name, pair in PARTS.items() if name.endswith("_leg") for part in pair]
_PAIR_OF = np.full(25, -1)
_IS_BACK = np.zeros(25, bool)
for _number, (_front, _back) in enumerate(_PAIRS):
    _PAIR_OF[[_front, _back]] = _number
    _IS_BACK[_back] = _front != _back


def outline_of(parts: np.ndarray, uv: np.ndarray, mask: np.ndarray, height: float, hem: float = 0.0) -> np.ndarray:
    """Measure a mask's outline against a drawn map: SHAPE offsets in body heights, > 0 outwards.

    parts: (H, W). uv: (2, H, W). mask: (H, W) bool. height: pixels per body height. hem: rest height of a skirt's hem.
    Bins that the map shows on one side only have the same offset on the other.
    """
    offsets = np.zeros(SHAPE)
    if not (parts > 0).any() or (parts > 0).all():
        return offsets
    count, body = np.zeros(SHAPE, int), parts > 0
    rows, columns, out = nearest(body)
    missing, too_much = mask & ~body, body & ~mask
    for pixels, distances, sign in (
        ((rows[missing], columns[missing]), out[missing], 1),
        (np.nonzero(too_much), nearest(~body)[2][too_much], -1),
    ):
        place = _bins(parts[pixels], uv[:, pixels[0], pixels[1]])
        for number in np.unique(place[place >= 0]):
            chosen, at = distances[place == number], np.unravel_index(number, SHAPE)
            if len(chosen) >= max(_FEW, count[at] + 1):
                offsets[at], count[at] = sign * np.percentile(chosen, _FARTHEST) / height, len(chosen)
    offsets = np.clip(offsets, _LEAST, np.where(_REST < hem, _BARE, _MOST)[..., None])
    seen = np.zeros(SHAPE, bool)
    place = _bins(parts[body], uv[:, body])
    seen[np.unravel_index(np.unique(place[place >= 0]), SHAPE)] = True
    return np.where(seen, offsets, np.where(seen[..., ::-1], offsets[..., ::-1], 0))


def with_even_sides(parts: np.ndarray, uv: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Even out where the two parts of a pair meet in drawn maps, parts (T, H, W) and U, V (T, 2, H, W).

    Where a limb is seen from the front, its back shows as a sliver, in some rows of pixels and not in others. Each
    pixel takes the part that most pixels of its pair have around it. height: (T,) pixels per body height.
    """
    parts, uv = parts.copy(), uv.copy()
    for own, (u, _), scale in zip(parts, uv, height):
        side = 2 * round(_AROUND * scale) + 1
        for pair, box in zip(_PAIRS, find_objects(_PAIR_OF[own] + 1)):
            if box is None:
                continue
            labels, across = own[box], u[box]
            first, second = (labels == part for part in pair)
            balance = uniform_filter(second.astype(np.float32) - first, side, mode="constant")
            other = first & (balance > 0) | second & (balance < 0)
            if pair != HEAD:  # they meet at the left, at U 1 of the front and 0 of the back, and at the right
                across[other] = np.where(across[other] < 0.5, 1, 0)
            labels[other] = sum(pair) - labels[other]
    return parts, uv


def outlined(
    parts: np.ndarray, uv: np.ndarray, offsets: np.ndarray, height: np.ndarray, skirt: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Move the outlines of drawn maps, parts (T, H, W) and U, V (T, 2, H, W), by offsets (SHAPE).

    height: (T,) pixels per body height. skirt: bool (T, H, W), which pixels show one; None for a body without.
    """
    parts, uv = parts.copy(), uv.copy()
    for index, (whole_parts, whole_uv, scale) in enumerate(zip(parts, uv, height)):
        rows, columns = np.nonzero(whole_parts)
        if not len(rows):
            continue
        room = int(max(0.0, offsets.max()) * scale) + 2
        box = tuple(slice(max(0, int(at.min()) - room), int(at.max()) + room + 1) for at in (rows, columns))
        box_parts, box_uv = whole_parts[box], whole_uv[:, box[0], box[1]]
        body = box_parts > 0
        if body.all():
            continue
        within = nearest(~body)[2]
        rows, columns, out = nearest(body)
        off = np.zeros(body.shape)
        off[body] = _between(offsets, box_parts[body], box_uv[:, body]) * scale
        if skirt is not None:
            cloth = skirt[index][box]
            legs = ~cloth & np.isin(box_parts, _LEG_PARTS)
            off[legs] = off[legs].clip(max=_BARE * scale)
        edge = body & (within < 2)  # without steps along it
        smooth = [gaussian_filter(np.float32(x), _SMOOTH * scale, truncate=2) for x in (np.where(edge, off, 0), edge)]
        off = smooth[0] / smooth[1].clip(1e-6)
        added, removed = ~body & (out <= off[rows, columns]), body & (within <= -off)
        if skirt is not None and cloth.any():  # a skirt does not grow at its hem
            below = slice(int(np.nonzero(cloth)[0].max()) + 1, None)
            added[below] &= ~cloth[rows[below], columns[below]]
        new_parts, new_uv = box_parts[rows, columns], box_uv[:, rows, columns]
        box_parts[added], box_uv[:, added] = new_parts[added], new_uv[:, added]
        box_parts[removed], box_uv[:, removed] = 0, 0
    return parts, uv


def _bins(parts: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Flat index (N,) into SHAPE of surface points with parts (N,) and U, V (2, N); -1 for parts without offsets."""
    pair, left = _sides(parts, uv)
    along = (uv[1].astype(np.float32) * _BINS).astype(int).clip(0, _BINS - 1)
    return np.where(pair < 0, -1, (pair * _BINS + along) * 2 + (left > 0.5))


def _between(offsets: np.ndarray, parts: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Offset (N,) of each surface point, interpolated along V between its bin and the next and across the sides."""
    pair, left = _sides(parts, uv)
    along = (uv[1].astype(np.float32) * _BINS - 0.5).clip(0, _BINS - 1)
    low = np.minimum(along.astype(int), _BINS - 2)
    share = along - low
    sides = offsets[pair, low] * (1 - share[:, None]) + offsets[pair, low + 1] * share[:, None]
    return np.where(pair < 0, 0, sides[:, 0] * (1 - left) + sides[:, 1] * left)


def _sides(parts: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of surface points (N,): the index of their pair in _PAIRS, -1 for none, and how far they lie on its left side.

    That is 0 on the right and 1 on the left, and between them in the middle of the front and of the back.
    """
    pair, u = _PAIR_OF[parts], uv[0].astype(np.float32)
    left = np.where(_IS_BACK[parts], 0.5 - u, u - 0.5)
    half = np.minimum(u, 1 - u)  # of the head, whose halves are its sides
    left = np.where(pair == 1, np.where(parts == HEAD[0], half, -half), left)
    return pair, (0.5 + 6 * left).clip(0, 1)


def snapped(parts: np.ndarray, uv: np.ndarray, mask: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit a map, parts (H, W) and U, V (2, H, W), to the person's mask (H, W), uint8 probabilities 0 to 255.

    Every pixel of the person takes the values of the nearest pixel of the body. The further a pixel is from the body,
    the higher its probability must be. height: pixels per body height.
    """
    out_parts, out_uv = np.zeros_like(parts), np.zeros_like(uv)
    if not parts.any():
        return out_parts, out_uv
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero((mask >= _LEAST_CHANCE[0]) | (parts > 0)))
    inner = (slice(None), *box)
    rows, columns, off = nearest(parts[box] > 0)
    person = mask[box] > _LEAST_CHANCE[np.minimum(off / height * _PER_HEIGHT, len(_LEAST_CHANCE) - 1).astype(int)]
    out_parts[box] = np.where(person, parts[box][rows, columns], 0)
    out_uv[inner] = np.where(person, uv[inner][:, rows, columns], 0)
    return out_parts, out_uv


def nearest(marked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and distance of the marked pixel nearest to each pixel (H, W); at least one pixel is marked."""
    off, (rows, columns) = distance_transform_edt(~marked, return_indices=True)
    return rows, columns, off
