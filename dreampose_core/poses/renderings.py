"""Read coloured DensePose renderings of other programs as part maps: recognise the style, undo compression noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy  # loads its ndimage at the first use

from .sequence import NUM_PARTS


def _colours(text: str) -> np.ndarray:
    """Parse colours written as hexadecimal RRGGBB: uint8 (N, 3)."""
    return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, 3)


# OpenCV's colour maps at index int(part * 255 / 24), RGB, parts 0..24.
_VIRIDIS = _colours(
    "440154 471063 481f70 472c7a 443983 404688 3b518b 365d8d 31688e 2c718e 287c8e 25858e 21908d "
    "1f9a8a 20a386 27ad81 35b779 46c06f 5cc863 73d056 8ed645 aadc32 c5e021 e2e418 fde725"
)
_PARULA = _colours(
    "352a87 253ca3 1450c2 0461df 086edd 0e7ad8 1484d4 0f90d0 0b9ccb 06a6c6 16adb9 26b3ac 37b99f "
    "56bb90 72bd82 91bf74 aabd69 c0bc60 d8ba56 e4c04a f0c73c fcce2e fbdc24 faeb19 f9fb0e"
)
ALPHA = 0.7  # opacity of vid2densepose over its canvas, and of detectron2's pictures over the photo
# Weights of a step of chroma relative to one of luma. Video stores chroma at half resolution, so it is less reliable at
# the borders of parts.
_CHROMA, _CHROMA_AT_BORDERS = 0.5, 0.3
# Decoders truncate RGB instead of rounding it, so colours are this much too dark (measured).
_TRUNCATION = 1.5
_REACH = 4  # pixels around a doubtful pixel in which a part must be seen to be chosen
_WEIGHT_OF_A_NEIGHBOUR = 16.0  # in squared steps of luma
_REACH_OF_SMOOTHING = 3
_ROUNDS = 5
SAME_COLOUR, _EVEN = 14, 6  # largest difference (of 255) to a style's colour; between neighbours in an even patch
_MOST_COLOURS = 8000  # most colours sampled from one frame
_GROUND = 0.5  # share of the frame's edge that has the background's colour
_FEWEST_PARTS = 6  # parts that must appear before a background that is not the style's own
# What looks drawn: largest step in a flat area, least step of a sharp border; shares of the frame that are figure, of
# the figure that are flat, and of other colours than its 24 most frequent. Compressed small maps are less flat: they
# have hardly any other colour, and borders nearly everywhere.
_FLAT, _SHARP, _LEAST_FIGURE, _DRAWN, _OTHER_COLOURS = 2, 16, 0.003, 0.8, 0.05
_DRAWN_SMALL, _NO_OTHER_COLOUR, _MANY_BORDERS = 0.5, 0.005, 0.4
_RAMP, _FEWEST_STEPS = 0.75, 10  # share of borders between numbers at most 3 apart, and their count, that tell U or V
_YCC = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], np.float32)


_WHOLE = slice(None), slice(None)


@dataclass(frozen=True, eq=False)
class Palette:
    """A style of rendering.

    form: its name for the user. colours: uint8 (25, 3), RGB of the background and parts 1..24. swapped: whether red and
    blue are exchanged. window: rows and columns of the frame inside even bars.
    """

    form: str
    colours: np.ndarray
    swapped: bool = False
    window: tuple[slice, slice] = _WHOLE


MAGIC_ANIMATE = Palette("MagicAnimate rendering", _VIRIDIS)
VID2DENSEPOSE = Palette(
    "vid2densepose rendering", (ALPHA * _VIRIDIS + (1 - ALPHA) * _VIRIDIS[0] + 1e-6).astype(np.uint8)
)
PARULA = Palette("parula rendering", np.concatenate([np.zeros((1, 3), np.uint8), _PARULA[1:]]))
# detectron2's picture over black
DIM = Palette("dim parula rendering", (ALPHA * PARULA.colours + 1e-6).astype(np.uint8))
_STYLES = MAGIC_ANIMATE, VID2DENSEPOSE, PARULA, DIM
PALETTES = (*_STYLES, *(Palette(style.form, style.colours[:, ::-1], swapped=True) for style in _STYLES))


def palette_of(frames: Sequence[np.ndarray], tolerance: int = SAME_COLOUR) -> tuple[Palette, float] | None:
    """Recognise the style of `frames`, uint8 (H, W, 3) each, and how far their colours are off, as a squared distance;
    None for anything else, or when they show no person.

    The background may have any even colour, with bars of another around it. Only even patches count, which compression
    changes little: nearly all of them must have a colour of the style, up to `tolerance`, and both the background and
    parts must appear.
    """
    window, ground = _within_bars(frames)
    colours = np.concatenate([_even_colours(frame[window]) for frame in frames])
    found = []
    for palette in PALETTES if len(colours) else ():
        fewest = 1
        if ground is not None and abs(ground - palette.colours[0].astype(int)).max() > SAME_COLOUR:
            colours_here = np.concatenate([ground[None].astype(np.uint8), palette.colours[1:]])
            palette, fewest = replace(palette, colours=colours_here), _FEWEST_PARTS
        distances = _distances(colours, palette, chroma=1.0)
        nearest, parts = distances.min(axis=1), distances.argmin(axis=1)
        counts = np.bincount(parts[nearest <= tolerance**2], minlength=NUM_PARTS + 1) / len(colours)
        shares = counts.sum(), counts[0], counts[1:].sum(), (counts[1:] > 0.0005).sum()
        if all(share >= least for share, least in zip(shares, (0.97, 0.01, 0.0005, fewest))):
            error = np.minimum(nearest[parts > 0], tolerance**2).mean()
            found.append((palette if window == _WHOLE else replace(palette, window=window), float(error)))
    return min(found, key=lambda one: one[1], default=None)


def _within_bars(frames: Sequence[np.ndarray]) -> tuple[tuple[slice, slice], np.ndarray | None]:
    """Rows and columns of `frames` inside even bars, and the background's colour (3,), None if it is not even."""
    if len({frame.shape for frame in frames}) > 1:
        return _WHOLE, None
    whole, cuts, colours = np.stack(frames), [], []
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):  # top, bottom, left, right
        lines = np.moveaxis(whole, axis, 0)[::step].reshape(whole.shape[axis], -1, 3)
        colour = np.median(lines[0], axis=0)
        other = (abs(lines - colour) > SAME_COLOUR).any((1, 2))
        cuts.append(int(other.argmax()) if other.any() else 0)
        colours.append(colour)
    for _ in range(2):  # lines that have the background's colour are no bars
        (top, bottom), (left, right) = cuts[:2], cuts[2:]
        window = slice(top, whole.shape[1] - bottom), slice(left, whole.shape[2] - right)
        inside = whole[:, window[0], window[1]]
        edge = np.concatenate([inside[:, [0, -1]].reshape(-1, 3), inside[:, :, [0, -1]].reshape(-1, 3)]).astype(int)
        _, at, counts = np.unique(edge // 8, axis=0, return_inverse=True, return_counts=True)
        ground = np.median(edge[at.ravel() == counts.argmax()], axis=0).astype(int)
        if (abs(edge - ground).max(1) <= SAME_COLOUR).mean() < _GROUND:
            return _WHOLE, None
        cuts = [0 if abs(c - ground).max() <= SAME_COLOUR else cut for cut, c in zip(cuts, colours)]
    return window if any(cuts) else _WHOLE, ground


def shows_ramps(frames: Sequence[np.ndarray], palette: Palette) -> bool:
    """Whether `frames` show U or V in the colours of `palette`: numbers that rise steadily instead of even parts."""
    steady = steps = 0
    for labels in (parts_of(frame, palette).astype(int) for frame in frames):
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            border = (a != b) & (a > 0) & (b > 0)
            steady, steps = steady + (abs(a - b)[border] <= 3).sum(), steps + border.sum()
    return steps >= _FEWEST_STEPS * len(frames) and steady > _RAMP * steps


def looks_drawn(frames: Sequence[np.ndarray]) -> bool:
    """Whether `frames` are flat areas of a few colours with sharp borders on an even background, as maps of parts
    are."""
    figure, flat, others, borders = np.median([_flatness(frame.astype(np.int16)) for frame in frames], 0)
    small = flat >= _DRAWN_SMALL and others <= _NO_OTHER_COLOUR and borders >= _MANY_BORDERS
    return bool(figure >= _LEAST_FIGURE and others <= _OTHER_COLOURS and (flat >= _DRAWN or small))


def _flatness(frame: np.ndarray) -> tuple[float, float, float, float]:
    """Shares: of the frame that is a figure without its borders; of the figure that is flat; of colours in it other
    than the 24 most frequent; of borders in all that is no background."""
    step = _steps(frame)
    cells, counts = np.unique(frame[step <= _FLAT].reshape(-1, 3) // 16, axis=0, return_counts=True)
    if not len(cells):
        return 0.0, 0.0, 1.0, 0.0
    not_ground = abs(frame // 16 - cells[counts.argmax()]).max(-1) > 1
    figure = not_ground & _uniform(step > _SHARP, 3) & (step <= _SHARP)
    if not figure.any():
        return 0.0, 0.0, 1.0, 0.0
    left = colours = frame[figure][:: figure.sum() // _MOST_COLOURS + 1]
    for _ in range(NUM_PARTS):
        if len(left):
            cells, counts = np.unique(left // 4, axis=0, return_counts=True)
            left = left[abs(left - cells[counts.argmax()] * 4 - 2).max(-1) > _EVEN]
    borders = (step > _SHARP).sum() / not_ground.sum()
    return figure.mean(), (step[figure] <= _FLAT).mean(), len(left) / len(colours), borders


def _steps(frame: np.ndarray) -> np.ndarray:
    """The largest difference of each pixel of `frame`, int16 (H, W, 3), to its four neighbours: int16 (H, W)."""
    step = np.zeros(frame.shape[:2], np.int16)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        off = abs(frame[here] - frame[there]).max(-1)
        for side in (here, there):
            np.maximum(step[side], off, out=step[side])
    return step


def is_overlay(frames: Sequence[np.ndarray]) -> bool:
    """Whether `frames` look like detectron2's default pictures: parula at 0.7 over the photo, which hides the map.

    No map can be recovered from them. The photo adds at most 0.3 x 255 to each channel. At least eight parts must be
    visible, with the head above the trunk above the legs.
    """
    return sum(_is_overlay(frame) for frame in frames) * 2 > len(frames)


def _is_overlay(frame: np.ndarray) -> bool:
    # (N, 25, 3): the photo's share of each pixel, if the pixel showed each part
    rest = frame.reshape(-1, 1, 3).astype(np.float32) - ALPHA * _PARULA.astype(np.float32)
    fits = ((rest > -5) & (rest < (1 - ALPHA) * 255 + 5)).all(axis=-1)
    fits[:, 0] = False
    spread = np.where(fits, ((rest - (1 - ALPHA) * 128) ** 2).sum(axis=-1), np.inf)
    parts = np.where(fits.any(axis=1), spread.argmin(axis=1), 0).reshape(frame.shape[:2]).astype(np.uint8)
    parts[~_uniform(parts, 1)] = 0
    counts = np.bincount(parts.ravel(), minlength=NUM_PARTS + 1)
    heights = []
    for group in ((23, 24), (1, 2), (11, 12, 13, 14)):
        rows = np.nonzero(np.isin(parts, group))[0]
        if len(rows) < 0.001 * parts.size:
            return False
        heights.append(rows.mean())
    return (counts[1:] > 0.0005 * parts.size).sum() >= 8 and heights == sorted(heights)


def _even_colours(frame: np.ndarray) -> np.ndarray:
    """Sample pixels that look like all four of their neighbours: uint8 (N, 3), at most _MOST_COLOURS."""
    inside = np.s_[1:-1, 1:-1]
    colours = frame[inside][_steps(frame.astype(np.int16))[inside] <= _EVEN]
    return colours[:: len(colours) // _MOST_COLOURS + 1]


def parts_of(frame: np.ndarray, palette: Palette) -> np.ndarray:
    """Read the part map, uint8 (H, W) in 0..24, that the rendering `frame`, uint8 (H, W, 3), shows.

    Each pixel first takes the nearest colour. Between two areas, compression leaves thin bands whose colours belong to
    parts that are not there. So a pixel outside every solid patch (3 x 3 of one part) may only take a part that has
    such a patch nearby; then all pixels near borders are decided again together with their neighbours. Exact colours
    (within one step) are used directly. Outside of the palette's window all is background.
    """
    parts = np.zeros(frame.shape[:2], np.uint8)
    frame, labels = frame[palette.window], parts[palette.window]  # a view: what is written to it is written to `parts`
    sample = frame[::8, ::8]
    if _is_exact(sample, _distances(sample.reshape(-1, 3), palette, 1.0, 0.0).argmin(axis=1), palette):
        labels[:] = _looked_up(frame, palette, 0.0)
        if _is_exact(frame, labels, palette):
            return parts
    labels[:] = _looked_up(frame, palette, _TRUNCATION)
    rows, columns = np.flatnonzero(labels.any(axis=1)), np.flatnonzero(labels.any(axis=0))
    if len(rows):
        near = tuple(slice(max(at[0] - _REACH, 0), at[-1] + _REACH + 1) for at in (rows, columns))
        labels[near] = _smooth(_grown(labels[near], frame[near], palette), frame[near], palette)
    return parts


def _looked_up(frame: np.ndarray, palette: Palette, truncation: float) -> np.ndarray:
    red, green, blue = (frame[..., channel].astype(np.int32) >> 1 for channel in range(3))
    return _table(palette, truncation).ravel().take((red << 14) | (green << 7) | blue)


def _is_exact(frame: np.ndarray, labels: np.ndarray, palette: Palette) -> bool:
    drawn = palette.colours[labels].reshape(frame.shape)
    return (np.maximum(drawn, frame) - np.minimum(drawn, frame)).max() <= 1


def _grown(labels: np.ndarray, colours: np.ndarray, palette: Palette) -> np.ndarray:
    """Let pixels outside every solid patch take a part that has patches in reach, near in colour and frequent there."""
    solid = scipy.ndimage.maximum_filter(_uniform(labels, 1), 3)
    y, x = np.nonzero(~solid)
    counts = _neighbours(np.where(solid, labels, NUM_PARTS + 1), y, x, _REACH)
    cost = _distances(colours[y, x], palette, _CHROMA_AT_BORDERS) - _WEIGHT_OF_A_NEIGHBOUR / 2 * counts
    out = labels.copy()
    nearest = np.where(counts > 0, cost, np.inf).argmin(axis=1)
    out[y, x] = np.where(counts.any(axis=1), nearest, labels[y, x])
    return out


def _smooth(labels: np.ndarray, colours: np.ndarray, palette: Palette) -> np.ndarray:
    """Decide pixels near borders again, by their colour and by the labels of most of their neighbours."""
    y, x = np.nonzero(~_uniform(labels, 2))
    distances = _distances(colours[y, x], palette, _CHROMA_AT_BORDERS)
    labels, again = labels.copy(), np.ones(len(y), bool)
    for _ in range(_ROUNDS):
        counts = _neighbours(labels, y[again], x[again], _REACH_OF_SMOOTHING)
        chosen = np.where(counts > 0, distances[again] - _WEIGHT_OF_A_NEIGHBOUR * counts, np.inf).argmin(axis=1)
        changed = np.zeros(labels.shape, bool)
        changed[y[again], x[again]] = chosen != labels[y[again], x[again]]
        labels[y[again], x[again]] = chosen
        # Decide only pixels near a change again; all others would keep their labels.
        again = _around(changed, y, x, _REACH_OF_SMOOTHING, beyond=0).any(axis=1)
        if not again.any():
            break
    return labels


def _uniform(labels: np.ndarray, radius: int) -> np.ndarray:
    """bool (H, W): whether all pixels within `radius` rows and columns have one label; the frame's edge is repeated."""
    least, most = (
        extreme(labels, 2 * radius + 1, mode="nearest")
        for extreme in (scipy.ndimage.minimum_filter, scipy.ndimage.maximum_filter)
    )
    return least == most


def _neighbours(labels: np.ndarray, y: np.ndarray, x: np.ndarray, radius: int) -> np.ndarray:
    """Count the pixels of each part within `radius` rows and columns of the pixels (y, x): float32 (N, 25).

    The pixels themselves do not count.
    """
    around = _around(labels, y, x, radius, beyond=NUM_PARTS + 1)
    bins = NUM_PARTS + 2  # one more for pixels without a part
    counts = np.bincount((np.arange(len(y), dtype=np.int32)[:, None] * bins + around).ravel(), minlength=len(y) * bins)
    return counts.reshape(-1, bins)[:, :-1].astype(np.float32)


def _around(array: np.ndarray, y: np.ndarray, x: np.ndarray, radius: int, beyond: int) -> np.ndarray:
    """The values around the pixels (y, x) of (H, W): (N, (2 radius + 1)^2 - 1), `beyond` for places outside."""
    padded = np.pad(array, radius, constant_values=beyond)
    steps = np.arange(2 * radius + 1)
    offsets = np.delete((steps[:, None] * padded.shape[1] + steps).ravel(), 2 * radius * (radius + 1))
    return padded.ravel()[(y * padded.shape[1] + x)[:, None] + offsets]


def _distances(colours: np.ndarray, palette: Palette, chroma: float, truncation: float = _TRUNCATION) -> np.ndarray:
    """Squared distances of RGB colours (N, 3) to those of the palette: float32 (N, 25).

    chroma: weight of a step of chroma. truncation: how much darker than the palette the colours are.
    """
    to_ycc = (_YCC * np.array([[1], [chroma], [chroma]], np.float32)).T
    there = palette.colours.astype(np.float32)
    there[there.any(axis=1)] -= truncation
    here, there = colours.astype(np.float32) @ to_ycc, there @ to_ycc
    # Sum over the three planes, because a product of such thin matrices is slower.
    return sum((here[:, i, None] - there[:, i]) ** 2 for i in range(3))


@lru_cache(maxsize=2)
def _table(palette: Palette, truncation: float) -> np.ndarray:
    """The part with the nearest colour for each RGB / 2: uint8 (128, 128, 128)."""
    steps = np.arange(128, dtype=np.float32) * 2 + 0.5
    green, blue = np.meshgrid(steps, steps, indexing="ij")
    planes = (np.stack([np.full_like(green, red), green, blue], axis=-1).reshape(-1, 3) for red in steps)
    nearest = (_distances(plane, palette, _CHROMA, truncation).argmin(axis=1) for plane in planes)
    return np.stack([labels.reshape(128, 128).astype(np.uint8) for labels in nearest])
