"""How far a person's outline stands off the body drawn for them, or lies within it: hair, cloth, thin and thick places;
carried along by the surface of the body."""

from __future__ import annotations

import numpy as np
import torch

from .cones import HEAD, PARTS, TORSO
from .nearest import nearest

# (front, back), of the head (left, right); hands and feet, whose charts say little of their outline, keep theirs
_PAIRS = (TORSO, HEAD, *(pair for name, pair in PARTS.items() if "hand" not in name and "foot" not in name))
_BINS = 6  # along V
SHAPE = (len(_PAIRS), _BINS, 2)  # of offsets: pair, along V, the person's right and left side
# body heights: how far an outline may be off; what is further away moves with something else
_MOST = np.array([{TORSO: 0.05, HEAD: 0.12}.get(pair, 0.08 if pair[0] in (9, 10) else 0.03) for pair in _PAIRS])
_LEAST = -0.03
_FEW = 4  # pixels, of which nothing is concluded
_FARTHEST, _TYPICAL = 90, 50  # percentiles of distances: so much is added, so much is taken away
_PAIR_OF = np.full(25, -1)
_IS_BACK = np.zeros(25, bool)
for _number, (_front, _back) in enumerate(_PAIRS):
    _PAIR_OF[[_front, _back]] = _number
    _IS_BACK[_back] = _front != _back


def outline_of(parts: np.ndarray, uv: np.ndarray, mask: np.ndarray, height: float) -> np.ndarray:
    """SHAPE offsets in body heights, outwards, of the mask (H, W) from a drawn map: parts (H, W), U, V (2, H, W).

    height: pixels a body height. Sides that the mask says nothing of have the other side's.
    """
    found = np.zeros(SHAPE)
    if not (parts > 0).any() or (parts > 0).all():
        return found
    count, body = np.zeros(SHAPE, int), parts > 0
    out_from, out = _from(body)
    _, within = _from(~body)
    rows, columns = np.nonzero(mask & ~body)
    outside = out_from[0][rows, columns], out_from[1][rows, columns]
    too_much = np.nonzero(body & ~mask)
    for pixels, distances, sign, percentile in (
        (outside, out[rows, columns], 1, _FARTHEST),
        (too_much, within[too_much], -1, _TYPICAL),
    ):
        place = _bins(parts[pixels], uv[:, pixels[0], pixels[1]])
        for number in np.unique(place[place >= 0]):
            own, at = distances[place == number], np.unravel_index(number, SHAPE)
            if len(own) >= max(_FEW, count[at] + 1):
                found[at], count[at] = sign * np.percentile(own, percentile) / height, len(own)
    found = np.clip(found, _LEAST, _MOST[:, None, None])
    seen = np.zeros(SHAPE, bool)
    place = _bins(parts[body], uv[:, body])
    seen[np.unravel_index(np.unique(place[place >= 0]), SHAPE)] = True
    return np.where(seen, found, np.where(seen[..., ::-1], found[..., ::-1], 0))


def outlined(
    parts: np.ndarray, uv: np.ndarray, offsets: np.ndarray, height: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Drawn maps (T, H, W) and (T, 2, H, W) with their outlines moved by the offsets (T, *SHAPE) of each; height: (T,)
    pixels a body height."""
    parts, uv = parts.copy(), uv.copy()
    for whole_parts, whole_uv, own, tall in zip(parts, uv, offsets, height):
        rows, columns = np.nonzero(whole_parts)
        if not len(rows):
            continue
        room = int(max(0.0, own.max()) * tall) + 2
        box = tuple(slice(max(0, int(at.min()) - room), int(at.max()) + room + 1) for at in (rows, columns))
        own_parts, own_uv = whole_parts[box], whole_uv[:, box[0], box[1]]
        body = own_parts > 0
        if body.all():
            continue
        _, within = _from(~body)
        (rows, columns), out = _from(body, max(0.0, own.max()) * tall)
        off = np.zeros(body.shape)
        off[body] = _between(own, own_parts[body], own_uv[:, body]) * tall
        added, removed = ~body & (out <= off[rows, columns]), body & (within <= -off)
        new_parts, new_uv = own_parts[rows, columns], own_uv[:, rows, columns]
        own_parts[added], own_uv[:, added] = new_parts[added], new_uv[:, added]
        own_parts[removed], own_uv[:, removed] = 0, 0
    return parts, uv


def _bins(parts: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(N,) where in SHAPE, counted in a row, surface points (N,) with U, V (2, N) are; -1 for nowhere."""
    pair, left = _sides(parts, uv)
    along = (uv[1].astype(np.float32) * _BINS).astype(int).clip(0, _BINS - 1)
    return np.where(pair < 0, -1, (pair * _BINS + along) * 2 + left)


def _between(offsets: np.ndarray, parts: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(N,) the offset of each surface point, as `_bins`, between those of its bin and the next."""
    pair, left = _sides(parts, uv)
    along = (uv[1].astype(np.float32) * _BINS - 0.5).clip(0, _BINS - 1)
    low = np.minimum(along.astype(int), _BINS - 2)
    share = along - low
    found = offsets[pair, low, left] * (1 - share) + offsets[pair, low + 1, left] * share
    return np.where(pair < 0, 0, found)


def _sides(parts: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) the pair in _PAIRS of surface points, -1 for none, and whether (0, 1) they are on its left."""
    pair = _PAIR_OF[parts]
    left = np.where(_IS_BACK[parts], uv[0] < 0.5, uv[0] > 0.5)
    return pair, np.where(pair == 1, parts == HEAD[0], left).astype(int)  # the head's halves are its sides


def _from(there: np.ndarray, reach: float = 128) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """For each pixel (H, W) the row and column of the nearest that is `there`, and how far away it is, in pixels."""
    rows, columns = (x[0].numpy() for x in nearest(torch.from_numpy(there)[None], max(2, int(reach) + 1)))
    own = np.mgrid[: there.shape[0], : there.shape[1]]
    return (rows, columns), np.hypot(rows - own[0], columns - own[1])
