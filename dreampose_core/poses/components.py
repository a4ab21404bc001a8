"""Connected regions of a mask by rows of runs, for there is no image library at run time."""

from __future__ import annotations

import numpy as np


def small_regions(mask: np.ndarray, limit: float, *, eight: bool, touching: bool) -> np.ndarray:
    """bool (H, W): the connected regions of `mask` of at most `limit` pixels, the largest one of all left out.

    mask: bool (H, W). eight: whether pixels that meet at a corner are connected. touching: whether regions at the
    border count.
    """
    out = np.zeros_like(mask)
    rows, starts, ends = _runs(mask)
    if len(rows) == 0:
        return out
    region = _regions(rows, starts, ends, mask.shape[1] + 2, int(eight))
    area = np.bincount(region, weights=ends - starts, minlength=len(rows))
    wanted = area <= limit
    wanted[area.argmax()] = False
    if not touching:
        at_border = (rows == 0) | (rows == mask.shape[0] - 1) | (starts == 0) | (ends == mask.shape[1])
        wanted[region[at_border]] = False
    for index in np.flatnonzero(wanted[region]):
        out[rows[index], starts[index] : ends[index]] = True
    return out


def numbered_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 (H, W): the connected regions of `mask`, bool (H, W), as 1, 2, ..., the largest first, 0 outside; and their
    areas (N,).

    Pixels that meet at a corner are connected.
    """
    rows, starts, ends = _runs(mask)
    if len(rows) == 0:
        return np.zeros(mask.shape, np.int32), np.zeros(0, np.int64)
    _, region = np.unique(_regions(rows, starts, ends, mask.shape[1] + 2, 1), return_inverse=True)
    areas = np.bincount(region, weights=ends - starts).astype(np.int64)
    order = np.argsort(-areas, kind="stable")
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(1, len(order) + 1)
    steps = np.zeros(
        (mask.shape[0], mask.shape[1] + 1), np.int32
    )  # a run's number comes in at its start and goes at its end
    steps[rows, starts], steps[rows, ends] = number[region], -number[region]
    return steps.cumsum(axis=1, dtype=np.int32)[:, :-1], areas[order]


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, start and end (the column behind it) of each stretch of true pixels, in reading order."""
    framed = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    framed[:, 1:-1] = mask
    steps = np.diff(framed, axis=1)
    rows, starts = np.nonzero(steps == 1)
    return rows, starts, np.nonzero(steps == -1)[1]


def _regions(rows: np.ndarray, starts: np.ndarray, ends: np.ndarray, stride: int, corner: int) -> np.ndarray:
    """(N,) for each run the number of the first run of its region. corner: 1 where runs that meet at a corner belong
    together."""
    below = (rows + 1) * stride
    first = np.searchsorted(
        rows * stride + ends, below + starts + 1 - corner
    )  # the first run below that ends behind our start
    behind = np.searchsorted(rows * stride + starts, below + ends + corner)  # the first one that starts behind our end
    number = np.maximum(behind - first, 0)
    upper = np.repeat(np.arange(len(rows)), number)
    lower = np.arange(number.sum()) - np.repeat(number.cumsum() - number, number) + np.repeat(first, number)
    region = np.arange(len(rows))
    while True:
        a, b = region[upper], region[lower]
        if (a == b).all():
            return region
        np.minimum.at(region, np.maximum(a, b), np.minimum(a, b))
        while (region[region] != region).any():
            region = region[region]
