"""Mending pose maps: small holes and specks within a frame, flicker of parts from frame to frame.

Flickering DensePose is where flickering videos come from. What is mended stays a map: a filled pixel takes part, U and
V together from one pixel, so they fit each other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .components import numbered_regions, small_regions
from .sequence import NUM_PARTS, PoseSequence

SEEN = 0.0005  # holes that together have less than this share of the person are not worth a word
SMALL = 0.0025  # holes and specks of up to this share of the person are mended; a gap between arm and body is larger
MISSING = 0.5  # a part is lost where it has less than this share of its area before and after
SWOLLEN = 1.15  # a part has taken another one in where it has more than this times its area before and after
SWAPPED = 0.5  # two parts are exchanged where this share of each lies where the other is before and after
STEADY = 0.5  # a part stands still where this share of it is where it was the frame before and will be the frame after
MAX_GAP = 2  # frames; longer losses are not flicker
MIN_AREA = 8  # pixels; smaller parts come and go by nature

_Pixels = tuple[np.ndarray, np.ndarray]  # rows, columns


def holes_filled(poses: PoseSequence) -> PoseSequence:
    """`poses` without small holes of background inside the person, and without small specks beside them."""
    out = _Copy(poses)
    for index in range(len(poses)):
        mask = poses.select(slice(index, index + 1)).mask[0]
        limit = SMALL * np.count_nonzero(mask)
        arrays = [array[index] for array in out.arrays.values()]
        specks = small_regions(mask, limit, eight=True, touching=True)
        for array in arrays:
            array[..., specks] = 0
        _fill(arrays, small_regions(~mask, limit, eight=False, touching=False), mask)
    return out.poses()


def frames_with_holes(poses: PoseSequence) -> np.ndarray:
    """bool (T,): the frames with holes that can be seen, and that are none of the gaps between arms and body: one part
    lies all around.

    False where the parts are not known.
    """
    found = np.zeros(len(poses), bool)
    for index, labels in enumerate(() if poses.parts is None else poses.parts):
        area = np.count_nonzero(labels)
        holes = small_regions(labels == 0, SMALL * area, eight=False, touching=False)
        if holes.any():
            regions, areas = numbered_regions(holes)
            least, most = np.full(len(areas) + 1, 255, np.uint8), np.zeros(len(areas) + 1, np.uint8)
            for side in range(4):  # the part in each direction of each pixel of a hole
                beside = np.rot90(np.pad(np.rot90(labels, side), ((1, 0), (0, 0)))[:-1], -side)
                rim = holes & (beside > 0)
                np.minimum.at(least, regions[rim], beside[rim])
                np.maximum.at(most, regions[rim], beside[rim])
            found[index] = areas[(least == most)[1:]].sum() > SEEN * area
    return found


def _fill(arrays: list[np.ndarray], holes: np.ndarray, mask: np.ndarray) -> None:
    """Fills `holes`, bool (H, W), from their rims inwards; arrays: (..., H, W) each, `mask` is where they are known."""
    rows, columns = np.nonzero(holes)
    known = mask.copy()
    while len(rows):
        left = np.ones(len(rows), bool)
        for row_step, column_step in ((0, -1), (0, 1), (-1, 0), (1, 0)):
            from_rows, from_columns = rows + row_step, columns + column_step  # inside: a hole does not touch the border
            use = left & known[from_rows, from_columns]
            for array in arrays:
                array[..., rows[use], columns[use]] = array[..., from_rows[use], from_columns[use]]
            left &= ~use
        known[rows[~left], columns[~left]] = True
        rows, columns = rows[left], columns[left]


def smoothed(poses: PoseSequence) -> PoseSequence:
    """`poses` without flicker: parts that are lost, swapped or wrongly seen for a frame or two.

    Limbs that move are neither delayed nor thinned: a lost part is put where it would have been on its way from the
    frame before to the frame after, and single pixels are outvoted by those frames only where their part stands still.
    UV-only sequences are smoothed as one part.
    """
    labels = poses.parts if poses.parts is not None else poses.mask.astype(np.uint8)  # (T, H, W)
    out = _Copy(poses)
    areas = np.stack([_count(frame) for frame in labels])  # (T, 25)
    for index in range(1, len(poses) - 1):
        at = _outvoted(labels[index - 1 : index + 2], areas[index - 1 : index + 2])
        out.take(index, at, index - 1, at)
    for part in range(1, NUM_PARTS + 1):
        for before, after in _gaps(areas[:, part]):
            for index in range(before + 1, after):
                share = (index - before) / (after - before)
                out.take(index, *_lost(labels, areas, part, (before, index, after), share))
    return out.poses()


class _Copy:
    """A copy of a sequence in which pixels are replaced by others of the same sequence."""

    def __init__(self, poses: PoseSequence):
        self.given = poses
        self.arrays = {name: array.copy() for name in ("parts", "uv") if (array := getattr(poses, name)) is not None}

    def take(self, index: int, at: _Pixels, source: int, source_at: _Pixels) -> None:
        """Makes the pixels `at` of frame `index` those at `source_at` of frame `source` as it was given."""
        for name, array in self.arrays.items():
            array[index][..., at[0], at[1]] = getattr(self.given, name)[source][..., source_at[0], source_at[1]]

    def poses(self) -> PoseSequence:
        return replace(self.given, **self.arrays)


def _count(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels.ravel(), minlength=NUM_PARTS + 1)


def _outvoted(labels: np.ndarray, areas: np.ndarray) -> _Pixels:
    """The pixels of the second of three maps (3, H, W) whose label differs from that before and after, which are one,
    and that may change.

    areas: (3, 25) pixels of each label.
    """
    before, here, after = labels
    lonely = (before == after) & (before != here)
    rows, columns = np.nonzero(lonely)
    if len(rows) == 0:
        return rows, columns
    steady = _count(here[(here == before) & (here == after)]) >= STEADY * areas[1]
    # A part that is much larger than before and after, nearly all of that where it is neither before nor after, was
    # never there.
    most = np.maximum(areas[0], areas[2])
    ghost = (most < MISSING * areas[1]) & (_count(here[lonely]) >= 0.9 * (areas[1] - most))
    ghost[0] = False
    now, then = here[rows, columns], before[rows, columns]
    # Two parts that have each taken the other's place, as left and right leg do.
    taken = np.bincount(now * np.intp(NUM_PARTS + 1) + then, minlength=(NUM_PARTS + 1) ** 2).reshape(
        NUM_PARTS + 1, NUM_PARTS + 1
    )
    swapped = taken >= SWAPPED * np.maximum(areas[1], 1)[:, None]
    swapped &= swapped.T
    swapped[0], swapped[:, 0] = False, False
    change = (steady[now] & steady[then]) | ghost[now] | swapped[now, then]
    return rows[change], columns[change]


def _gaps(area: np.ndarray) -> list[tuple[int, int]]:
    """(before, after): frames around each stretch of at most MAX_GAP frames in which a part of this area over time is
    lost."""
    found = []
    for before in range(len(area) - 2):
        for after in range(before + 2, min(before + 2 + MAX_GAP, len(area))):
            least = min(area[before], area[after])
            if least >= MIN_AREA and (area[before + 1 : after] < MISSING * least).all():
                found.append((before, after))
                break
    return found


def _lost(labels, areas, part: int, frames: tuple[int, int, int], share: float) -> tuple[_Pixels, int, _Pixels]:
    """Where `part` belongs in the second of `frames`, in which it is lost, and whence: a frame and its pixels.

    It lies as it did in the first of them, moved by `share` of the way to where it is in the third.
    """
    before, index, after = frames
    at, later = np.nonzero(labels[before] == part), np.nonzero(labels[after] == part)
    moved = [a + round(share * (b.mean() - a.mean())) for a, b in zip(at, later)]
    height, width = labels.shape[1:]
    inside = (moved[0] >= 0) & (moved[0] < height) & (moved[1] >= 0) & (moved[1] < width)
    rows, columns = (axis[inside] for axis in moved)
    # A part that hides behind another one is not lost; one that another has swallowed is.
    free = areas[index] > SWOLLEN * np.maximum(areas[before], areas[after])
    free[0] = True
    use = free[labels[index][rows, columns]]
    return (rows[use], columns[use]), before, tuple(axis[inside][use] for axis in at)
