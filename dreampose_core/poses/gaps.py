"""Frames of which nothing is known: they repeat the nearest known frame, and the user is told which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from .sequence import PoseSequence

_MOST_RANGES = 12


def fill_gaps(
    poses: PoseSequence, known: np.ndarray, what: str, numbers: Sequence[int] | None = None
) -> tuple[PoseSequence, tuple[str, ...]]:
    """`poses` with each unknown frame taken from the nearest known one (the earlier of two), and what to tell the user.

    known: bool (T,). what: the notice's start, for example "Nobody was found in". numbers: what the frames are called,
    else 0, 1, ... Raises InputError when more than half is unknown.
    """
    known = np.asarray(known, bool)
    notices = gap_notices(known, what, numbers)
    return (poses.select(nearest_known(known)) if notices else poses), notices


def gap_notices(known: np.ndarray, what: str, numbers: Sequence[int] | None = None) -> tuple[str, ...]:
    """The notice that names the unknown frames, none where all are known; numbers: what the frames are called, else 0,
    1, ...

    Raises InputError when more than half is unknown.
    """
    missing = np.flatnonzero(~known)
    if len(missing) == 0:
        return ()
    names = range(len(known)) if numbers is None else numbers
    frames = f"{what} frame{'s' * (len(missing) > 1)} {frame_ranges(missing, names)}"
    if 2 * len(missing) > len(known):
        raise InputError(
            f"{frames}, which is {len(missing)} of {len(known)}; at least half of the frames are needed, please "
            "give a fuller motion."
        )
    return (f"{frames}; {'they repeat' if len(missing) > 1 else 'it repeats'} the nearest frame.",)


def nearest_known(known: np.ndarray) -> np.ndarray:
    """int (T,): for each frame the index of the nearest known one, of two equally near the earlier."""
    frames = np.flatnonzero(known)
    after = np.searchsorted(frames, np.arange(len(known))).clip(0, len(frames) - 1)
    before = (after - 1).clip(0)
    index = np.arange(len(known))
    return np.where(abs(frames[before] - index) <= abs(frames[after] - index), frames[before], frames[after])


def repeat_nearest(array: np.ndarray, known: np.ndarray) -> None:
    """Fills the unknown frames of `array` (T, ...) in place, for arrays too large for a second copy."""
    source = nearest_known(known)
    for index in np.flatnonzero(~known):
        array[index] = array[source[index]]


def frame_ranges(indices: np.ndarray, names: Sequence[int]) -> str:
    """Frames by their indices, int (N,), and what each is called, for example "3-5 and 9"."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    texts = [str(names[run[0]]) if len(run) == 1 else f"{names[run[0]]}-{names[run[-1]]}" for run in runs]
    if len(texts) > _MOST_RANGES:
        texts = [*texts[:_MOST_RANGES], "others"]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
