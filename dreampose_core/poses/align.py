"""Moving and scaling a pose sequence to the person in the photo: height, feet, middle, and width by the torso."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..media import Box, pad_box
from .figures import SPANS, Figure, agreement, likeness, measured
from .fit import fitted
from .sequence import PoseSequence

MIN_SCALE, MAX_SCALE = 0.2, 5.0
MIN_WIDENING, MAX_WIDENING = 0.75, 1.33  # of the width's scale against the height's
_NEAR = 0.05  # how much less alike than the best a frame may be to be measured with it
_MOST = 10  # frames of which the medians are taken
_MEASURED = 120  # frames, evenly spread, out of which they are chosen


@dataclass(frozen=True)
class Alignment:
    """What was done to a motion, fitted to the photo's size before: a point (y, x) went to (scale_y y + shift_y,
    scale_x x + shift_x).

    shift_y, shift_x: pixels. moved_down, moved_right: pixels by which the person's feet (or head) and middle have
    moved.
    span: what was compared, for example ("head", "feet").
    """

    scale_y: float
    scale_x: float
    shift_y: float
    shift_x: float
    moved_down: float
    moved_right: float
    span: tuple[str, str]

    def sentence(self) -> str:
        """What the user should know, in one sentence."""
        done = [_percent(self.scale_y, "larger", "smaller"), _percent(self.scale_x / self.scale_y, "wider", "narrower")]
        for pixels, one, other in ((self.moved_right, "right", "left"), (self.moved_down, "down", "up")):
            if round(pixels):
                count = abs(round(pixels))
                done.append(f"{count} pixel{'s' * (count > 1)} {one if pixels > 0 else other}")
        done = [words for words in done if words]
        if not done:
            return "The motion fits the person in the photo as it is."
        way = f", from {self.span[0]} to {self.span[1]}" if self.span[0] != self.span[1] else ""
        return f"The motion was fitted to the person in the photo{way}: {', '.join(done)}."


def aligned(poses: PoseSequence, own: PoseSequence, size: tuple[int, int]) -> tuple[PoseSequence, Alignment | None]:
    """`poses` at (height, width) = `size`, its person as tall and broad and in the same place as the one in `own`; and
    what was done.

    own: the photo's map, one frame, of `size`. Every frame of the motion is treated alike. What is compared are the
    frames in which the person stands most as in the photo, over the longest way that can be seen in both, so photos
    that end at the head or above the feet do no harm. A sequence whose first map, once it is fitted to `size`, is the
    photo's own is only fitted; then there is no Alignment.

    Raises InputError where there is nobody in `own`, or in no map of `poses`; ValueError where `own` is not one map of
    `size`.
    """
    if len(own) != 1 or own.size != tuple(size):
        raise ValueError(f"the photo's map must be one of {size}, not {len(own)} of {own.size}")
    if _same(fitted(poses.select(slice(0, 1)), size), own):
        return fitted(poses, size), None
    by_parts = poses.parts is not None and own.parts is not None
    own_labels = _labels(own, 0, by_parts)
    target = measured(own_labels, by_parts)
    if target is None:
        raise InputError(
            "Nobody is found in the photo's DensePose, so the motion cannot be fitted to it; give another map or none."
        )
    seen = _figures(poses, by_parts)
    if not seen:
        raise InputError("Nobody is found in any map of the motion; give a motion that shows a person.")
    alike = _most_alike(seen, target, own_labels)
    box = pad_box(poses.size, size)
    zoom = size[0] / box.height  # of the fitting: pixels of `size` a pixel of `poses`
    span, taller, place = _compared(target, own_labels, alike)
    scale_y = min(max(taller / zoom, MIN_SCALE), MAX_SCALE)
    scale_x = scale_y * min(
        max(_broader(target, own_labels, alike, seen, span[1], taller) / taller, MIN_WIDENING), MAX_WIDENING
    )
    old_y, old_x = zoom * (place - box.top), zoom * (_median(look.figure.middle for look in alike) - box.left)
    new_y, new_x = target.heights[span[1]], target.middle
    shift_y, shift_x = new_y - scale_y * old_y, new_x - scale_x * old_x
    # What the photo's frame shows of the motion, in the motion's own pixels: fitting and aligning are one step of
    # nearest neighbours.
    window = Box(
        box.top - shift_y / (scale_y * zoom),
        box.left - shift_x / (scale_x * zoom),
        box.height / scale_y,
        box.width / scale_x,
    )
    return fitted(poses, size, window), Alignment(
        scale_y, scale_x, shift_y, shift_x, new_y - old_y, new_x - old_x, span
    )


@dataclass(frozen=True)
class _Look:
    """A figure, and the labels it was measured in."""

    figure: Figure
    labels: np.ndarray


def _figures(poses: PoseSequence, by_parts: bool) -> list[_Look]:
    """Looks at evenly spread frames, the first one among them; those without a person are left out."""
    frames = np.unique(np.linspace(0, len(poses) - 1, min(len(poses), _MEASURED)).round().astype(int))
    looks = []
    for index in frames:
        labels = _labels(poses, index, by_parts)
        figure = measured(labels, by_parts)
        if figure is not None:
            looks.append(_Look(figure, labels))
    return looks


def _most_alike(seen: list[_Look], target: Figure, own_labels: np.ndarray) -> list[_Look]:
    """Those who stand most like the target, the best first."""
    wanted = likeness(target, own_labels)
    ranks = np.array([agreement(likeness(look.figure, look.labels), wanted) for look in seen])
    order = np.argsort(-ranks, kind="stable")[:_MOST]
    return [seen[i] for i in order if ranks[i] >= ranks[order[0]] - _NEAR]


def _compared(target: Figure, own_labels: np.ndarray, alike: list[_Look]) -> tuple[tuple[str, str], float, float]:
    """What is compared; how much taller the target is, its pixels a pixel of the motion; how far down the second end is
    in the motion."""
    for top, bottom in SPANS:
        both = [look.figure.heights for look in alike if {top, bottom} <= set(look.figure.heights)]
        lengths = [heights[bottom] - heights[top] for heights in both]
        if {top, bottom} <= set(target.heights) and 2 * len(both) >= len(alike) and min(lengths) > 0:
            taller = (target.heights[bottom] - target.heights[top]) / _median(lengths)
            return (top, bottom), taller, _median(heights[bottom] for heights in both)
    best = alike[0]
    end = next(
        name for name in ("head", "neck", "feet", "body") if name in target.heights and name in best.figure.heights
    )
    return (end, end), _taller_by_overlap(target, own_labels, best, end), best.figure.heights[end]


def _taller_by_overlap(target: Figure, own_labels: np.ndarray, look: _Look, end: str) -> float:
    """How much taller the target is, where no length can be compared: with that, both cover each other best when `end`
    lies on `end`."""
    usual = own_labels.shape[0] / look.labels.shape[0]
    scales = np.geomspace(MIN_SCALE, MAX_SCALE, 65) * usual  # steps of 5 %
    coarse = max(scales, key=lambda scale: _overlap(target, own_labels, look, end, scale, scale))
    return float(
        max(
            coarse * np.linspace(0.95, 1.05, 21),
            key=lambda scale: _overlap(target, own_labels, look, end, scale, scale),
        )
    )


def _overlap(target: Figure, own_labels: np.ndarray, look: _Look, end: str, scale_y: float, scale_x: float) -> float:
    """0..1: how well the figure of `look`, scaled so and laid on the target by `end` and middle, covers it with the
    same labels."""
    height, width = own_labels.shape
    rows, columns = (np.arange(0.5, length, max(1, length / 100)) for length in (height, width))
    wanted = own_labels[rows.astype(int)][:, columns.astype(int)]
    from_rows = np.floor(look.figure.heights[end] + (rows - target.heights[end]) / scale_y).astype(int)
    from_columns = np.floor(look.figure.middle + (columns - target.middle) / scale_x).astype(int)
    found = np.pad(look.labels, 1)  # a frame of background, on which all falls that lies outside
    found = found[(from_rows + 1).clip(0, len(found) - 1)][:, (from_columns + 1).clip(0, found.shape[1] - 1)]
    return np.count_nonzero((found == wanted) & (wanted > 0)) / max(np.count_nonzero((found > 0) | (wanted > 0)), 1)


def _broader(
    target: Figure, own_labels: np.ndarray, alike: list[_Look], seen: list[_Look], end: str, taller: float
) -> float:
    """How much broader the target is: by the torsos of figures that are turned as it is, or as much as it is taller
    where there are none.

    Without parts a torso cannot be told from the arms beside it: then as much as makes both cover each other best.
    """
    if target.width is None:
        covers = [
            (
                sum(_overlap(target, own_labels, look, end, taller, taller * widening) for look in alike[:3]),
                -abs(widening - 1),
                widening,
            )
            for widening in np.linspace(MIN_WIDENING, MAX_WIDENING, 30)
            if all(end in look.figure.heights for look in alike[:3])
        ]
        return taller * (max(covers)[2] if covers else 1.0)
    for group in (alike, seen):
        widths = [look.figure.width for look in group if look.figure.width and look.figure.turned_like(target)]
        if widths:
            return target.width / _median(widths)
    return taller


def _labels(poses: PoseSequence, index: int, by_parts: bool) -> np.ndarray:
    """uint8 (H, W): parts, or 1 on the person."""
    return poses.parts[index] if by_parts else poses.select(slice(index, index + 1)).mask[0].astype(np.uint8)


def _same(a: PoseSequence, b: PoseSequence) -> bool:
    """Whether two maps are one, in all that both of them know; U, V of other charts say nothing."""
    if a.parts is not None and b.parts is not None and not np.array_equal(a.parts, b.parts):
        return False
    if a.charts == b.charts and a.uv is not None:
        return np.array_equal(a.uv, b.uv)
    return a.parts is not None and b.parts is not None


def _median(values) -> float:
    return float(np.median(list(values)))


def _percent(ratio: float, more: str, less: str) -> str:
    percent = round(100 * (ratio - 1))
    return f"{abs(percent)} % {more if percent > 0 else less}" if percent else ""
