"""Move and scale a pose sequence to the person in the photo: height, feet, middle, and width by the torso."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..media import Box, pad_box
from .edit import fitted
from .sequence import FEET, HEAD, SHINS, THIGHS, TORSO, PoseSequence

MIN_SCALE, MAX_SCALE = 0.2, 5.0
MIN_WIDENING, MAX_WIDENING = 0.75, 1.33  # limits of scale_x / scale_y
_NEAR = 0.05  # frames are used whose agreement is at most this much lower than that of the best frame
_MOST = 10  # most frames used; lengths are the medians over them
_MEASURED = 120  # most frames measured, evenly spread, from which those are chosen

_FRONT = 2
_GROUPS = {"head": HEAD, "torso": TORSO, "thighs": THIGHS, "shins": SHINS, "feet": FEET}
_ABSURD = 3.0  # times larger or smaller than the photo's person: may show none
_GRID = (40, 30)  # rows and columns of the points of a likeness
# Extent of a likeness, in torso heights: up and down from the top of the torso, and to both sides of its middle.
_REACH = (-1.2, 3.0, 1.6)
_SIDEWAYS = 0.15  # largest difference of `Figure.facing` for two figures to count as turned alike
# The vertical spans over which two figures can be compared, the longest first; notices name both ends.
_SPANS = (
    *((top, bottom) for bottom in ("feet", "ankles", "knees", "hips") for top in ("head", "neck")),
    ("head", "chin"),
)


@dataclass(frozen=True)
class Alignment:
    """How `aligned` changed a motion after fitting it to the photo's size.

    scale_y, scale_x: factors of its height and width. moved_down, moved_right: pixels by which the person's feet (or
    head) and middle moved. span: the compared span, for example ("head", "feet").
    """

    scale_y: float
    scale_x: float
    moved_down: float
    moved_right: float
    span: tuple[str, str]

    def sentence(self) -> str:
        """The notice for the user, one sentence."""
        done = []
        for ratio, more, less in (
            (self.scale_y, "larger", "smaller"),
            (self.scale_x / self.scale_y, "wider", "narrower"),
        ):
            if percent := round(100 * (ratio - 1)):
                done.append(f"{abs(percent)} % {more if percent > 0 else less}")
        for shift, more, less in ((self.moved_right, "right", "left"), (self.moved_down, "down", "up")):
            if pixels := round(shift):
                done.append(f"{abs(pixels)} pixel{'s' * (abs(pixels) > 1)} {more if pixels > 0 else less}")
        if not done:
            return "The motion fits the person in the photo as it is."
        way = f", from {self.span[0]} to {self.span[1]}" if self.span[0] != self.span[1] else ""
        absurd = not 1 / _ABSURD < self.scale_y < _ABSURD
        doubt = "; so different a size may be a mistake, please look at the preview" if absurd else ""
        return f"The motion was fitted to the person in the photo{way}: {', '.join(done)}{doubt}."


def aligned(poses: PoseSequence, image_poses: PoseSequence) -> tuple[PoseSequence, Alignment]:
    """Scale and move a motion so that its person has the height, width and place of the person in `image_poses`.

    Returns the motion at the size of `image_poses`, the photo's map (one frame). All frames of the motion are changed
    alike. The two people are compared in the frames in which the person stands most as in the photo, over the longest
    span that is visible in both, so photos that end at the head or above the feet work, too.

    Raises InputError when no person is in `image_poses` or in any map of `poses`.
    """
    size = image_poses.size
    by_parts = poses.parts is not None and image_poses.parts is not None

    def figure_in(maps: PoseSequence, index: int) -> Figure | None:
        return measured(maps.parts[index] if by_parts else maps.mask_of(index).astype(np.uint8), by_parts)

    target = figure_in(image_poses, 0)
    if target is None:
        raise InputError("No person is found in the photo's DensePose, to fit the motion to; give another map or none.")
    # Measure evenly spread frames, including the first one; skip those without a person.
    frames = np.unique(np.linspace(0, len(poses) - 1, min(len(poses), _MEASURED)).round().astype(int))
    seen = [figure for index in frames if (figure := figure_in(poses, index)) is not None]
    if not seen:
        raise InputError("No person is found in any map of the motion; give a motion that shows a person.")
    # Choose the frames in which the person stands most as the target does, the best first.
    wanted = _likeness(target)
    ranks = np.array([_agreement(_likeness(figure), wanted) for figure in seen])
    best = np.argsort(-ranks, kind="stable")[:_MOST]
    alike = [seen[i] for i in best if ranks[i] >= ranks[best[0]] - _NEAR]

    box = pad_box(poses.size, size)
    zoom = size[0] / box.height  # scale of the fitting: pixels of `size` per pixel of `poses`
    span, taller, place = _compared(target, alike)
    scale_y = min(max(taller / zoom, MIN_SCALE), MAX_SCALE)
    widening = _broader(target, alike, seen, span[1], taller) / taller
    scale_x = scale_y * min(max(widening, MIN_WIDENING), MAX_WIDENING)
    old_y, old_x = zoom * (place - box.top), zoom * (_median(figure.middle for figure in alike) - box.left)
    new_y, new_x = target.heights[span[1]], target.middle
    shift_y, shift_x = new_y - scale_y * old_y, new_x - scale_x * old_x
    # The part of the motion that the photo's frame shows, in the motion's pixels: fitting and aligning in one step lose
    # less to nearest-neighbour sampling than two.
    top, left = box.top - shift_y / (scale_y * zoom), box.left - shift_x / (scale_x * zoom)
    done = Alignment(scale_y, scale_x, new_y - old_y, new_x - old_x, span)
    return fitted(poses, size, Box(top, left, box.height / scale_y, box.width / scale_x)), done


def _compared(target: Figure, alike: list[Figure]) -> tuple[tuple[str, str], float, float]:
    """Compare the heights of the target and the figures.

    Returns the span compared, the target's height in target pixels per pixel of the motion, and the median row of the
    span's second end in the motion.
    """
    for top, bottom in _SPANS:
        both = [figure.heights for figure in alike if {top, bottom} <= set(figure.heights)]
        lengths = [heights[bottom] - heights[top] for heights in both]
        if {top, bottom} <= set(target.heights) and 2 * len(both) >= len(alike) and min(lengths) > 0:
            taller = (target.heights[bottom] - target.heights[top]) / _median(lengths)
            return (top, bottom), taller, _median(heights[bottom] for heights in both)
    # No span is visible in both: choose the scale at which both overlap best when placed on each other by one end.
    figure = alike[0]
    end = next(name for name in ("head", "neck", "feet", "body") if name in target.heights and name in figure.heights)
    scales = np.geomspace(MIN_SCALE, MAX_SCALE, 65) * (target.labels.shape[0] / figure.labels.shape[0])  # steps of 5 %
    coarse = max(scales, key=lambda scale: _overlap(target, figure, end, scale, scale))
    scales = coarse * np.linspace(0.95, 1.05, 21)
    taller = max(scales, key=lambda scale: _overlap(target, figure, end, scale, scale))
    return (end, end), float(taller), figure.heights[end]


def _overlap(target: Figure, figure: Figure, end: str, scale_y: float, scale_x: float) -> float:
    """The overlap of equal labels, 0..1, of the target and the figure, scaled and placed on it by `end` and middle."""
    height, width = target.labels.shape
    rows, columns = (np.arange(0.5, length, max(1, length / 100)) for length in (height, width))
    wanted = target.labels[rows.astype(int)][:, columns.astype(int)]
    from_rows = np.floor(figure.heights[end] + (rows - target.heights[end]) / scale_y).astype(int)
    from_columns = np.floor(figure.middle + (columns - target.middle) / scale_x).astype(int)
    found = np.pad(figure.labels, 1)  # points outside the map fall on this border of background
    found = found[(from_rows + 1).clip(0, len(found) - 1)][:, (from_columns + 1).clip(0, found.shape[1] - 1)]
    return np.count_nonzero((found == wanted) & (wanted > 0)) / max(np.count_nonzero((found > 0) | (wanted > 0)), 1)


def _broader(target: Figure, alike: list[Figure], seen: list[Figure], end: str, taller: float) -> float:
    """The ratio of the target's width to the motion's, by the torsos of figures turned alike; `taller` without any.

    Without parts the torso cannot be separated from the arms next to it; then the ratio at which both overlap best.
    """
    if target.width is None:
        first = alike[:3]
        if not all(end in figure.heights for figure in first):
            return taller
        covers = [
            (sum(_overlap(target, figure, end, taller, taller * wide) for figure in first), -abs(wide - 1), wide)
            for wide in np.linspace(MIN_WIDENING, MAX_WIDENING, 30)
        ]
        return taller * max(covers)[2]
    for group in (alike, seen):
        widths = [figure.width for figure in group if figure.width and abs(figure.facing - target.facing) <= _SIDEWAYS]
        if widths:
            return target.width / _median(widths)
    return taller


def _median(values) -> float:
    return float(np.median(list(values)))


# ---- measuring the person in one map ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """The measurements of the person in one map; lengths are in pixels of that map.

    labels: the map, uint8 (H, W). heights: the rows of those ends of _SPANS that are visible, and always of "body", the
    middle of what is visible. middle: column of the middle of the torso (of the whole person without parts). width: of
    the torso, None without parts or torso. facing: 1 when only one side of the torso, front or back, is visible, 0.5
    when both are equally. frame: (top, unit), the origin of a likeness and the torso's height.
    """

    labels: np.ndarray
    heights: dict[str, float]
    middle: float
    width: float | None
    facing: float
    frame: tuple[float, float]


def measured(labels: np.ndarray, parts_known: bool) -> Figure | None:
    """Measure the person in a map of labels, uint8 (H, W): parts, or 1 on the person if not `parts_known`.

    None without a person.
    """
    whole = _rows(labels > 0)
    if whole is None:
        return None
    spans = {name: _rows(np.isin(labels, group)) if parts_known else None for name, group in _GROUPS.items()}
    spans |= {} if parts_known else {"head": whole, "feet": whole}
    heights: dict[str, float] = {}
    if spans["head"] and spans["head"][0] > 0:
        heights["head"], heights["chin"] = spans["head"]
    if spans["torso"] and spans["torso"][0] > 0:
        heights["neck"] = spans["torso"][0]
    # The end of a part is a joint only if the next part is visible; otherwise clothes or the photo's edge cut it off.
    for end, part, below in (("hips", "torso", "thighs"), ("knees", "thighs", "shins"), ("ankles", "shins", "feet")):
        if spans[part] and spans[below]:
            heights[end] = spans[part][1]
    if spans["feet"] and spans["feet"][1] < labels.shape[0]:
        heights["feet"] = spans["feet"][1]
    top, bottom = spans["torso"] or whole
    heights["body"] = (top + bottom) / 2
    torso = np.isin(labels, TORSO)  # the whole person if the parts are unknown
    area = np.count_nonzero(torso)
    middle = float(np.median(np.nonzero(torso if area else labels)[1])) + 0.5
    front = np.count_nonzero(labels == _FRONT) / area if area else 0.0
    width, frame = _width(torso[top:bottom]), (top, bottom - top)
    if not parts_known:
        heights.pop("chin", None)
        width, frame = None, (top + 0.15 * (bottom - top), 0.4 * (bottom - top))
    return Figure(labels, heights, middle, width, max(front, 1 - front), frame)


def _rows(mask: np.ndarray) -> tuple[int, int] | None:
    """The first row of the mask and the row after its last; in a large map, rows with a single pixel are specks."""
    count = mask.sum(axis=1)
    rows = np.flatnonzero(count > (1 if mask.shape[1] >= 256 else 0))
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else None


def _width(mask: np.ndarray) -> float | None:
    """The width of the broad middle of a mask (rows, W): less than its widest rows, more than those that arms hide."""
    rows = mask[len(mask) // 6 : max(len(mask) * 5 // 6, 1)]
    rows = rows[rows.any(axis=1)]
    if len(rows) == 0:
        return None
    width = mask.shape[1] - rows[:, ::-1].argmax(axis=1) - rows.argmax(axis=1)
    return float(np.percentile(width, 75))


def _likeness(figure: Figure) -> np.ndarray:
    """Labels at points around the torso, int16 (points,), -1 outside the map.

    They are equal for the same pose at any size and place.
    """
    (top, unit), (above, below, aside) = figure.frame, _REACH
    rows = np.floor(top + np.linspace(above, below, _GRID[0]) * unit).astype(int)
    columns = np.floor(figure.middle + np.linspace(-aside, aside, _GRID[1]) * unit).astype(int)
    height, width = figure.labels.shape
    beyond = ((rows < 0) | (rows >= height))[:, None] | (columns < 0) | (columns >= width)
    points = figure.labels[rows.clip(0, height - 1)][:, columns.clip(0, width - 1)].astype(np.int16)
    return np.where(beyond, np.int16(-1), points).ravel()


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    """0..1: the share of points with equal labels, among those on a person in either likeness and inside both maps."""
    seen = (a >= 0) & (b >= 0) & ((a > 0) | (b > 0))
    return float((a == b)[seen].mean()) if seen.any() else 0.0
