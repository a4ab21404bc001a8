"""Outline offsets: how far a person's outline lies outside or inside the drawn body.

The reasons are hair, cloth, thin and thick places. The offsets move with the body's surface. This module also fits a
drawn pose map to a mask.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from .cones import HEAD, PARTS, TORSO

# Pairs of parts (front, back), for the head (left, right). Hands and feet keep their outline: their charts say little
# about where it is.
_PAIRS = (TORSO, HEAD, *(pair for name, pair in PARTS.items() if "hand" not in name and "foot" not in name))
_BINS = 6  # along V
SHAPE = (len(_PAIRS), _BINS, 2)  # axes of offsets: pair, bin along V, the person's right and left side
# Limits of the offsets, in body heights. Pixels further away move with something else.
_MOST = np.array([{TORSO: 0.05, HEAD: 0.12}.get(pair, 0.08 if pair[0] in (9, 10) else 0.03) for pair in _PAIRS])
_LEAST = -0.03
_FEW = 4  # bins with fewer pixels are ignored
_FARTHEST = 90  # percentile of the distances to add or remove in a bin
# Probability, 0 to 255, above which a pixel belongs to the person, by its distance from the body in thousandths of the
# body's height. Its logit rises from 0.5 on the body to 2.5 far from it, where masks bulge without a person.
_PER_HEIGHT = 1000
_LEAST_CHANCE = 255 / (1 + np.exp(-0.5 - np.minimum(np.arange(200) / 5, 2.0)))
_PAIR_OF = np.full(25, -1)
_IS_BACK = np.zeros(25, bool)
for _number, (_front, _back) in enumerate(_PAIRS):
    _PAIR_OF[[_front, _back]] = _number
    _IS_BACK[_back] = _front != _back


def outline_of(parts: np.ndarray, uv: np.ndarray, mask: np.ndarray, height: float) -> np.ndarray:
    """Measure a mask's outline against a drawn map: SHAPE offsets in body heights, > 0 outwards.

    parts: (H, W). uv: (2, H, W). mask: (H, W) bool. height: pixels per body height. Bins that the map shows on one side
    only have the same offset on the other.
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
    offsets = np.clip(offsets, _LEAST, _MOST[:, None, None])
    seen = np.zeros(SHAPE, bool)
    place = _bins(parts[body], uv[:, body])
    seen[np.unravel_index(np.unique(place[place >= 0]), SHAPE)] = True
    return np.where(seen, offsets, np.where(seen[..., ::-1], offsets[..., ::-1], 0))


def outlined(
    parts: np.ndarray, uv: np.ndarray, offsets: np.ndarray, height: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move the outlines of drawn maps, parts (T, H, W) and U, V (T, 2, H, W), by offsets (SHAPE).

    height: (T,) pixels per body height.
    """
    parts, uv = parts.copy(), uv.copy()
    for whole_parts, whole_uv, scale in zip(parts, uv, height):
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
        added, removed = ~body & (out <= off[rows, columns]), body & (within <= -off)
        new_parts, new_uv = box_parts[rows, columns], box_uv[:, rows, columns]
        box_parts[added], box_uv[:, added] = new_parts[added], new_uv[:, added]
        box_parts[removed], box_uv[:, removed] = 0, 0
    return parts, uv


def _bins(parts: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Flat index (N,) into SHAPE of surface points with parts (N,) and U, V (2, N); -1 for parts without offsets."""
    pair, left = _sides(parts, uv)
    along = (uv[1].astype(np.float32) * _BINS).astype(int).clip(0, _BINS - 1)
    return np.where(pair < 0, -1, (pair * _BINS + along) * 2 + left)


def _between(offsets: np.ndarray, parts: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Offset (N,) of each surface point, interpolated along V between its bin and the next; see `_bins`."""
    pair, left = _sides(parts, uv)
    along = (uv[1].astype(np.float32) * _BINS - 0.5).clip(0, _BINS - 1)
    low = np.minimum(along.astype(int), _BINS - 2)
    share = along - low
    offset = offsets[pair, low, left] * (1 - share) + offsets[pair, low + 1, left] * share
    return np.where(pair < 0, 0, offset)


def _sides(parts: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of surface points (N,): the index of their pair in _PAIRS, -1 for none, and their side, 1 for left, else 0."""
    pair = _PAIR_OF[parts]
    left = np.where(_IS_BACK[parts], uv[0] < 0.5, uv[0] > 0.5)
    return pair, np.where(pair == 1, parts == HEAD[0], left).astype(int)  # the head's halves are its sides


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
