"""Clean pose maps: fill small holes, remove specks, and remove flicker of parts between frames.

Flickering pose maps are the cause of flickering videos. A filled pixel takes part, U and V together from one pixel, so
they belong together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy  # loads its ndimage at the first use

from .people import numbered_regions, small_regions
from .sequence import HANDS, NUM_PARTS, PoseSequence

SEEN = 0.0005  # holes are reported when together they exceed this share of the person
SMALL = 0.0025  # holes and specks of up to this share of the person are removed; a gap between arm and body is larger
MISSING = 0.5  # a part is lost when it has less than this share of its area before and after
SWOLLEN = 1.15  # a part has swallowed another one when it has more than this times its area before and after
SWAPPED = 0.5  # two parts are swapped when this share of each lies where the other is before and after
STEADY = 0.5  # a part stands still when this share of it lies on the same pixels in the frames before and after
MAX_GAP = 2  # frames; a longer loss is not flicker
MIN_AREA = 8  # pixels; smaller parts appear and disappear without an error

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)  # a pixel and its four neighbours
_Pixels = tuple[np.ndarray, np.ndarray]  # rows, columns


def holes_filled(poses: PoseSequence) -> PoseSequence:
    """Fill small holes of background inside the person, and remove small specks around them."""
    out = {name: array.copy() for name, array in poses.maps.items()}
    for index in range(len(poses)):
        mask = poses.mask_of(index)
        limit = SMALL * np.count_nonzero(mask)
        specks = small_regions(mask, limit, are_holes=False)
        holes = small_regions(~mask, limit, are_holes=True)
        for array in out.values():
            array[index][..., specks] = 0
        if holes.any():
            nearest = scipy.ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)[:, holes]
            for array in out.values():
                array[index][..., holes] = array[index][..., *nearest]
    return replace(poses, **out)


def frames_with_holes(poses: PoseSequence) -> np.ndarray:
    """bool (T,): the frames with visible holes inside one part, unlike gaps between arms and body.

    All false when the parts are unknown.
    """
    found = np.zeros(len(poses), bool)
    for index, labels in enumerate(() if poses.parts is None else poses.parts):
        area = np.count_nonzero(labels)
        regions, areas = numbered_regions(small_regions(labels == 0, SMALL * area, are_holes=True))
        numbers = np.arange(1, len(areas) + 1)
        # the lowest and the highest number of the parts around each hole
        least = 255 - scipy.ndimage.maximum(
            scipy.ndimage.maximum_filter((labels > 0) * (255 - labels), footprint=_CROSS), regions, numbers
        )
        most = scipy.ndimage.maximum(scipy.ndimage.maximum_filter(labels, footprint=_CROSS), regions, numbers)
        inside = np.equal(least, most) & ~np.isin(least, HANDS)  # between fingers there are gaps
        found[index] = areas[inside].sum() > SEEN * area
    return found


def smoothed(poses: PoseSequence) -> PoseSequence:
    """Remove flicker: parts that are lost, swapped or wrong for a frame or two.

    Moving limbs are neither delayed nor thinned: a lost part is placed where it would be on its way from the frame
    before to the frame after, and single pixels take the label of those frames only where their part stands still.
    UV-only sequences are smoothed as one part.
    """
    labels = poses.parts if poses.parts is not None else poses.mask.astype(np.uint8)  # (T, H, W)
    out = {name: array.copy() for name, array in poses.maps.items()}

    def take(index: int, at: _Pixels, source: int, source_at: _Pixels) -> None:
        """Set the pixels `at` of frame `index` to the original pixels `source_at` of frame `source`."""
        for name, array in out.items():
            array[index][..., *at] = poses.maps[name][source][..., *source_at]

    areas = np.stack([_count(frame) for frame in labels])  # (T, 25)
    for index in range(1, len(poses) - 1):
        at = _outvoted(labels[index - 1 : index + 2], areas[index - 1 : index + 2])
        take(index, at, index - 1, at)
    for part in range(1, NUM_PARTS + 1):
        for before, after in _gaps(areas[:, part]):
            for index in range(before + 1, after):
                take(index, *_lost(labels, areas, part, (before, index, after)))
    return replace(poses, **out)


def _count(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels.ravel(), minlength=NUM_PARTS + 1)


def _outvoted(labels: np.ndarray, areas: np.ndarray) -> _Pixels:
    """The pixels of the second of three maps (3, H, W) that should take the label that the other two maps agree on.

    areas: (3, 25) pixels of each label.
    """
    before, here, after = labels
    lonely = (before == after) & (before != here)
    rows, columns = np.nonzero(lonely)
    if len(rows) == 0:
        return rows, columns
    steady = _count(here[(here == before) & (here == after)]) >= STEADY * areas[1]
    # A part is a ghost when it is much larger than before and after, and nearly all of the excess is on such pixels.
    most = np.maximum(areas[0], areas[2])
    ghost = (most < MISSING * areas[1]) & (_count(here[lonely]) >= 0.9 * (areas[1] - most))
    ghost[0] = False
    now, then = here[rows, columns], before[rows, columns]
    # Find pairs of parts that have swapped places, as left and right leg do.
    taken = np.zeros((NUM_PARTS + 1, NUM_PARTS + 1), int)
    np.add.at(taken, (now, then), 1)
    swapped = taken >= SWAPPED * np.maximum(areas[1], 1)[:, None]
    swapped &= swapped.T
    swapped[0], swapped[:, 0] = False, False
    change = (steady[now] & steady[then]) | ghost[now] | swapped[now, then]
    return rows[change], columns[change]


def _gaps(area: np.ndarray) -> list[tuple[int, int]]:
    """(before, after): the frames around each stretch of at most MAX_GAP frames in which a part is lost.

    area: (T,), of that part.
    """
    found = []
    for before in range(len(area) - 2):
        for after in range(before + 2, min(before + 2 + MAX_GAP, len(area))):
            least = min(area[before], area[after])
            if least >= MIN_AREA and (area[before + 1 : after] < MISSING * least).all():
                found.append((before, after))
                break
    return found


def _lost(labels, areas, part: int, frames: tuple[int, int, int]) -> tuple[_Pixels, int, _Pixels]:
    """Where `part` belongs in the second of `frames`, in which it is lost: its pixels, and the source frame and pixels.

    Its shape is that in the first frame, moved by the matching share of the way to its place in the third.
    """
    before, index, after = frames
    share = (index - before) / (after - before)
    at, later = np.nonzero(labels[before] == part), np.nonzero(labels[after] == part)
    moved = [a + round(share * (b.mean() - a.mean())) for a, b in zip(at, later)]
    height, width = labels.shape[1:]
    inside = (moved[0] >= 0) & (moved[0] < height) & (moved[1] >= 0) & (moved[1] < width)
    rows, columns = (axis[inside] for axis in moved)
    # Only background and parts that have swallowed this one give way; a part hidden behind another one is not lost.
    free = areas[index] > SWOLLEN * np.maximum(areas[before], areas[after])
    free[0] = True
    use = free[labels[index][rows, columns]]
    return (rows[use], columns[use]), before, tuple(axis[inside][use] for axis in at)
