"""What of a person can be seen in one map, and where: the measures by which a motion is fitted to a photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .sequence import NUM_PARTS

_FRONT = 2
# DensePose's parts by what they tell of a figure's height; 6 are all others
_KIND = {"torso": 1, "feet": 2, "thighs": 3, "shins": 4, "head": 5}
_KINDS = np.full(NUM_PARTS + 1, 6, np.uint8)
_KINDS[0] = 0
for _name, _parts in (
    ("torso", (1, 2)),
    ("feet", (5, 6)),
    ("thighs", (7, 8, 9, 10)),
    ("shins", (11, 12, 13, 14)),
    ("head", (23, 24)),
):
    _KINDS[list(_parts)] = _KIND[_name]
_GRID = (40, 30)  # points of a likeness, down and across
_REACH = (
    -1.2,
    3.0,
    1.6,
)  # of a likeness: from above the torso's top to below it, and to both sides of its middle; in torso heights
_SIDEWAYS = 0.15  # how much less of one side of the torso may be seen for two figures to count as turned alike

# From where to where two figures can be compared, the longest way first; the two ends are named in sentences.
SPANS = (
    ("head", "feet"),
    ("neck", "feet"),
    ("head", "ankles"),
    ("neck", "ankles"),
    ("head", "knees"),
    ("neck", "knees"),
    ("head", "hips"),
    ("neck", "hips"),
    ("head", "chin"),
)


@dataclass(frozen=True)
class Figure:
    """The person in one map; lengths in pixels of that map.

    heights: how far down the ends of SPANS are that can be seen, and always the "body", the middle of what is seen.
    middle: of the torso (of the whole person without parts), from the left. width: of the torso, None without parts or
    torso.
    facing: 1 where only one side of the torso, front or back, is seen, 0.5 for both alike.
    frame: (top, middle, unit) to which a likeness is taken: its origin and the torso's height.
    """

    heights: dict[str, float]
    middle: float
    width: float | None
    facing: float
    frame: tuple[float, float, float]

    def turned_like(self, other: Figure) -> bool:
        """Whether the widths of both can be compared."""
        return abs(self.facing - other.facing) <= _SIDEWAYS


def measured(labels: np.ndarray, parts_known: bool) -> Figure | None:
    """The figure in a map of labels, uint8 (H, W): parts, or 1 on the person where parts are not known. None where
    nobody is seen."""
    whole = _rows(labels > 0)
    if whole is None:
        return None
    return _by_parts(labels, whole) if parts_known else _by_mask(labels > 0, whole)


def _by_parts(labels: np.ndarray, whole: tuple[int, int]) -> Figure:
    kinds = _KINDS[labels]
    torso = kinds == _KIND["torso"]
    spans = {name: _rows(kinds == number) for name, number in _KIND.items()}
    heights: dict[str, float] = {}
    if spans["head"] and spans["head"][0] > 0:
        heights["head"], heights["chin"] = spans["head"]
    if spans["torso"] and spans["torso"][0] > 0:
        heights["neck"] = spans["torso"][0]
    # The end of a part is a joint only where the next part is seen; otherwise clothes, or the photo's edge, have cut
    # it.
    for end, part, following in (
        ("hips", "torso", "thighs"),
        ("knees", "thighs", "shins"),
        ("ankles", "shins", "feet"),
    ):
        if spans[part] and spans[following]:
            heights[end] = spans[part][1]
    if spans["feet"] and spans["feet"][1] < labels.shape[0]:
        heights["feet"] = spans["feet"][1]
    top, bottom = spans["torso"] or whole
    heights["body"] = (top + bottom) / 2
    area = np.count_nonzero(torso)
    middle = float(np.median(np.nonzero(torso if area else kinds)[1])) + 0.5
    front = np.count_nonzero(labels == _FRONT) / area if area else 0.0
    return Figure(heights, middle, _width(torso[top:bottom]), max(front, 1 - front), (top, middle, bottom - top))


def _by_mask(mask: np.ndarray, whole: tuple[int, int]) -> Figure:
    top, bottom = whole
    heights: dict[str, float] = {}
    if top > 0:
        heights["head"] = top
    if bottom < mask.shape[0]:
        heights["feet"] = bottom
    middle = float(np.median(np.nonzero(mask)[1])) + 0.5
    heights["body"] = (top + bottom) / 2
    shoulders, trunk = top + 0.15 * (bottom - top), 0.4 * (bottom - top)
    return Figure(heights, middle, None, 1.0, (shoulders, middle, trunk))


def _rows(mask: np.ndarray) -> tuple[int, int] | None:
    """The first row of the mask and the one behind its last; rows of a single pixel in a large map are specks."""
    count = mask.sum(axis=1)
    rows = np.flatnonzero(count > (1 if mask.shape[1] >= 256 else 0))
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else None


def _width(mask: np.ndarray) -> float | None:
    """How wide the broad middle of a mask (rows, W) is: less than its widest rows, more than those that arms hide."""
    rows = mask[len(mask) // 6 : max(len(mask) * 5 // 6, 1)]
    rows = rows[rows.any(axis=1)]
    if len(rows) == 0:
        return None
    width = mask.shape[1] - rows[:, ::-1].argmax(axis=1) - rows.argmax(axis=1)
    return float(np.percentile(width, 75))


def likeness(figure: Figure, labels: np.ndarray) -> np.ndarray:
    """int16 (points,): labels at points around the torso, -1 beyond the map: equal for one pose whatever its size and
    place."""
    top, middle, unit = figure.frame
    above, below, aside = _REACH
    rows = np.floor(top + np.linspace(above, below, _GRID[0]) * unit).astype(int)
    columns = np.floor(middle + np.linspace(-aside, aside, _GRID[1]) * unit).astype(int)
    out = np.full(_GRID, -1, np.int16)
    inside_rows, inside_columns = (rows >= 0) & (rows < labels.shape[0]), (columns >= 0) & (columns < labels.shape[1])
    out[np.ix_(inside_rows, inside_columns)] = labels[np.ix_(rows[inside_rows], columns[inside_columns])]
    return out.ravel()


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """0..1: the share of points on a person in either likeness, and inside both maps, that have one label."""
    seen = (a >= 0) & (b >= 0) & ((a > 0) | (b > 0))
    return float((a == b)[seen].mean()) if seen.any() else 0.0
