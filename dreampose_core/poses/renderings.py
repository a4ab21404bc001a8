"""Coloured DensePose pictures, as other programs draw them, back to part maps: recognised, and read through compression
noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .sequence import NUM_PARTS

# OpenCV's colour maps at index int(part * 255 / 24), RGB, parts 0..24.
_VIRIDIS = (
    (68, 1, 84),
    (71, 16, 99),
    (72, 31, 112),
    (71, 44, 122),
    (68, 57, 131),
    (64, 70, 136),
    (59, 81, 139),
    (54, 93, 141),
    (49, 104, 142),
    (44, 113, 142),
    (40, 124, 142),
    (37, 133, 142),
    (33, 144, 141),
    (31, 154, 138),
    (32, 163, 134),
    (39, 173, 129),
    (53, 183, 121),
    (70, 192, 111),
    (92, 200, 99),
    (115, 208, 86),
    (142, 214, 69),
    (170, 220, 50),
    (197, 224, 33),
    (226, 228, 24),
    (253, 231, 37),
)
_PARULA = (
    (53, 42, 135),
    (37, 60, 163),
    (20, 80, 194),
    (4, 97, 223),
    (8, 110, 221),
    (14, 122, 216),
    (20, 132, 212),
    (15, 144, 208),
    (11, 156, 203),
    (6, 166, 198),
    (22, 173, 185),
    (38, 179, 172),
    (55, 185, 159),
    (86, 187, 144),
    (114, 189, 130),
    (145, 191, 116),
    (170, 189, 105),
    (192, 188, 96),
    (216, 186, 86),
    (228, 192, 74),
    (240, 199, 60),
    (252, 206, 46),
    (251, 220, 36),
    (250, 235, 25),
    (249, 251, 14),
)
ALPHA = 0.7  # of vid2densepose over its canvas, and of detectron2's pictures over the photo
# Weights of a step of chroma against one of luma. Video stores chroma at half resolution: it tells parts apart inside,
# less at borders.
_CHROMA, _CHROMA_AT_BORDERS = 0.5, 0.3
_TRUNCATION = (
    1.5  # decoders cut RGB off instead of rounding it, so colours come out this much too dark; found by measurement
)
_REACH = 4  # pixels around a doubtful one in which its part must be seen
_WEIGHT_OF_A_NEIGHBOUR = 16.0  # in squared steps of luma
_REACH_OF_SMOOTHING = 3
_ROUNDS = 5
_SAME_COLOUR, _EVEN = 14, 6  # steps of 255: to a colour of a style, between neighbours in an even patch
_MOST_COLOURS = 8000  # of one frame
_YCC = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], np.float32)


@dataclass(frozen=True)
class Palette:
    """One style of rendering: `form` its name for the user, `colours` RGB of background and parts 1..24."""

    form: str
    colours: tuple[tuple[int, int, int], ...]
    swapped: bool = False  # red and blue have changed places

    def array(self) -> np.ndarray:
        """uint8 (25, 3), RGB."""
        return np.array(self.colours, np.uint8)


def _blended(colours) -> tuple[tuple[int, int, int], ...]:
    return tuple(
        tuple(int(ALPHA * c + (1 - ALPHA) * canvas + 1e-6) for c, canvas in zip(colour, colours[0]))
        for colour in colours
    )


MAGIC_ANIMATE = Palette("MagicAnimate rendering", _VIRIDIS)
VID2DENSEPOSE = Palette("vid2densepose rendering", _blended(_VIRIDIS))
PARULA = Palette("parula rendering", ((0, 0, 0), *_PARULA[1:]))
PALETTES = (MAGIC_ANIMATE, VID2DENSEPOSE, PARULA) + tuple(
    Palette(palette.form, tuple(colour[::-1] for colour in palette.colours), swapped=True)
    for palette in (MAGIC_ANIMATE, VID2DENSEPOSE, PARULA)
)


def palette_of(frames: Sequence[np.ndarray]) -> Palette | None:
    """The style in which `frames`, uint8 (H, W, 3) each, are drawn; None when they are something else, or nobody is in
    them.

    Judged on even patches only, where compression changes little: nearly all must have a colour of the style, and both
    the background and parts must be seen.
    """
    colours = np.concatenate([_even_colours(frame) for frame in frames])
    best, least = None, np.inf
    for palette in PALETTES if len(colours) else ():
        distances = _distances(colours, palette, chroma=1.0)
        nearest, parts = distances.min(axis=1), distances.argmin(axis=1)
        good = nearest <= _SAME_COLOUR**2
        if good.mean() < 0.97 or (good & (parts == 0)).mean() < 0.01 or (good & (parts > 0)).mean() < 0.0005:
            continue
        error = np.minimum(nearest[parts > 0], _SAME_COLOUR**2).mean()
        if error < least:
            best, least = palette, error
    return best


def is_overlay(frames: Sequence[np.ndarray]) -> bool:
    """Whether `frames` seem to be detectron2's default pictures: parula at 0.7 over the photo, from which no map can be
    won back.

    The photo adds at most 0.3 x 255 to each channel. At least eight parts must be seen, the head above the trunk above
    the legs.
    """
    return sum(_is_overlay(frame) for frame in frames) * 2 > len(frames)


def _is_overlay(frame: np.ndarray) -> bool:
    rest = frame.reshape(-1, 1, 3).astype(np.float32) - ALPHA * np.array(
        _PARULA, np.float32
    )  # (N, 25, 3): the photo's share
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
    """uint8 (N, 3), at most _MOST_COLOURS: pixels whose neighbours on all four sides look the same."""
    middle = frame[1:-1, 1:-1].astype(np.int16)
    even = np.ones(middle.shape[:2], bool)
    for neighbour in (frame[:-2, 1:-1], frame[2:, 1:-1], frame[1:-1, :-2], frame[1:-1, 2:]):
        even &= (np.abs(middle - neighbour) <= _EVEN).all(axis=-1)
    colours = frame[1:-1, 1:-1][even]
    return colours[:: len(colours) // _MOST_COLOURS + 1]


def parts_of(frame: np.ndarray, palette: Palette) -> np.ndarray:
    """uint8 (H, W), 0..24: the part map that the rendering `frame`, uint8 (H, W, 3), shows.

    Every pixel takes the nearest colour first. Between two areas, compression leaves thin bands whose colours belong to
    parts that are not there. So a pixel outside every solid patch (3 x 3 of one part) may only be a part whose patch is
    near; then all pixels near borders are weighed again together with their neighbours. Exact colours (to one step) are
    taken as they are.
    """
    sample = frame[::8, ::8].reshape(-1, 3)
    if _off(palette.array()[_distances(sample, palette, 1.0, 0.0).argmin(axis=1)], sample) <= 1:
        labels = _looked_up(frame, palette, 0.0)
        if _off(palette.array()[labels], frame) <= 1:
            return labels
    labels = _looked_up(frame, palette, _TRUNCATION)
    rows, columns = np.flatnonzero(labels.any(axis=1)), np.flatnonzero(labels.any(axis=0))
    if len(rows) == 0:
        return labels
    window = (
        slice(max(rows[0] - _REACH, 0), rows[-1] + _REACH + 1),
        slice(max(columns[0] - _REACH, 0), columns[-1] + _REACH + 1),
    )
    inside, colours = labels[window], frame[window]
    labels[window] = _smooth(_grown(inside, colours, palette), colours, palette)
    return labels


def _looked_up(frame: np.ndarray, palette: Palette, truncation: float) -> np.ndarray:
    red, green, blue = (frame[..., channel].astype(np.int32) >> 1 for channel in range(3))
    return _table(palette, truncation).ravel().take((red << 14) | (green << 7) | blue)


def _off(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference of two uint8 arrays."""
    return int((np.maximum(a, b) - np.minimum(a, b)).max())


def _grown(labels: np.ndarray, colours: np.ndarray, palette: Palette) -> np.ndarray:
    """`labels`, where pixels outside every solid patch take a part of the patches in reach: near in colour and often
    there."""
    none = NUM_PARTS + 1
    core = np.pad(np.where(_uniform(labels, 1), labels, none), 1, constant_values=none)
    solid = np.zeros(labels.shape, bool)
    for dy in range(3):
        for dx in range(3):
            solid |= core[dy : dy + labels.shape[0], dx : dx + labels.shape[1]] == labels
    y, x = np.nonzero(~solid)
    counts = _neighbours(np.where(solid, labels, none), y, x, _REACH)
    cost = np.where(
        counts > 0, _distances(colours[y, x], palette, _CHROMA_AT_BORDERS) - _WEIGHT_OF_A_NEIGHBOUR / 2 * counts, np.inf
    )
    out = labels.copy()
    out[y, x] = np.where((counts > 0).any(axis=1), cost.argmin(axis=1), labels[y, x])
    return out


def _smooth(labels: np.ndarray, colours: np.ndarray, palette: Palette) -> np.ndarray:
    """`labels`, where pixels near borders are chosen by colour and by what most of their neighbours are."""
    y, x = np.nonzero(~_uniform(labels, 2))
    distances = _distances(colours[y, x], palette, _CHROMA_AT_BORDERS)
    labels, again = labels.copy(), np.ones(len(y), bool)
    for _ in range(_ROUNDS):
        counts = _neighbours(labels, y[again], x[again], _REACH_OF_SMOOTHING)
        chosen = np.where(counts > 0, distances[again] - _WEIGHT_OF_A_NEIGHBOUR * counts, np.inf).argmin(axis=1)
        changed = np.zeros(labels.shape, bool)
        changed[y[again], x[again]] = chosen != labels[y[again], x[again]]
        labels[y[again], x[again]] = chosen
        again = _around(changed, y, x, _REACH_OF_SMOOTHING, beyond=0).any(axis=1)  # all others would choose as they did
        if not again.any():
            break
    return labels


def _uniform(labels: np.ndarray, radius: int) -> np.ndarray:
    """bool (H, W): all within `radius` rows and columns are of one part; beyond the frame's edge its last pixels go
    on."""
    least = most = np.pad(labels, radius, mode="edge")
    for axis in (0, 1):
        least = np.minimum.reduce(_shifted(least, 2 * radius + 1, axis))
        most = np.maximum.reduce(_shifted(most, 2 * radius + 1, axis))
    return least == most


def _neighbours(labels: np.ndarray, y: np.ndarray, x: np.ndarray, radius: int) -> np.ndarray:
    """float32 (N, 25): how many pixels of each part lie within `radius` rows and columns of the pixels (y, x),
    themselves left out."""
    around = _around(labels, y, x, radius, beyond=NUM_PARTS + 1)
    bins = NUM_PARTS + 2  # one more for what is none
    counts = np.bincount((np.arange(len(y), dtype=np.int32)[:, None] * bins + around).ravel(), minlength=len(y) * bins)
    return counts.reshape(-1, bins)[:, :-1].astype(np.float32)


def _around(array: np.ndarray, y: np.ndarray, x: np.ndarray, radius: int, beyond: int) -> np.ndarray:
    """(N, (2 radius + 1)^2 - 1): what stands around the pixels (y, x) of (H, W), `beyond` outside of it."""
    padded = np.pad(array, radius, constant_values=beyond)
    steps = np.arange(2 * radius + 1)
    offsets = np.delete((steps[:, None] * padded.shape[1] + steps).ravel(), 2 * radius * (radius + 1))
    return padded.ravel()[(y * padded.shape[1] + x)[:, None] + offsets]


def _shifted(array: np.ndarray, count: int, axis: int) -> list[np.ndarray]:
    """The `count` views of (H, W) that start at 0, 1, ... along `axis`, all of one length."""
    length = array.shape[axis] - count + 1
    return [array[i : i + length] if axis == 0 else array[:, i : i + length] for i in range(count)]


def _distances(colours: np.ndarray, palette: Palette, chroma: float, truncation: float = _TRUNCATION) -> np.ndarray:
    """float32 (N, 25): squared distances of RGB colours (N, 3) to those of the palette; a step of chroma weighs
    `chroma`."""
    to_ycc = (_YCC * np.array([[1], [chroma], [chroma]], np.float32)).T
    there = palette.array().astype(np.float32)
    there[there.any(axis=1)] -= truncation
    here, there = colours.astype(np.float32) @ to_ycc, there @ to_ycc
    return sum(
        (here[:, i, None] - there[:, i]) ** 2 for i in range(3)
    )  # three planes: a product of matrices this thin is slower


@lru_cache(maxsize=2)
def _table(palette: Palette, truncation: float) -> np.ndarray:
    """uint8 (128, 128, 128): the part whose colour is nearest, at RGB / 2."""
    steps = np.arange(128, dtype=np.float32) * 2 + 0.5
    green, blue = np.meshgrid(steps, steps, indexing="ij")
    planes = (np.stack([np.full_like(green, red), green, blue], axis=-1).reshape(-1, 3) for red in steps)
    nearest = (_distances(plane, palette, _CHROMA, truncation).argmin(axis=1) for plane in planes)
    return np.stack([labels.reshape(128, 128).astype(np.uint8) for labels in nearest])
