"""Which of the people in a clip is followed, and which detection is that person in each frame (numpy only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError

MIN_SCORE = 0.5  # detectron2's dumps list guesses down to 0.05
MAX_PEOPLE = 20  # the largest ones of a frame; more would be a crowd, in which nobody is followed well
PATIENCE = 15  # frames that a person may be unseen and still be the same track: half a second
_MIN_OVERLAP = 0.1  # of two boxes of one person in neighbouring frames
_FAR = 1e6  # pixels; NaN is not below it either
_MAX_RATIO = 2.0  # of two areas of one person, where the boxes overlap too little to tell


@dataclass(frozen=True)
class Detection:
    """One person seen in one frame.

    box: x0, y0, x1, y1 in pixels. score: 0..1, 1 where the estimator gives none. payload: whatever the caller needs
    again.
    """

    box: tuple[float, float, float, float]
    score: float = 1.0
    payload: Any = None


@dataclass
class _Track:
    """One person through the frames: `seen` maps frame to index of detection, `areas` are those of its boxes."""

    seen: dict[int, int] = field(default_factory=dict)
    areas: list[float] = field(default_factory=list)
    last: int = -1  # the newest frame of `seen`
    box: np.ndarray | None = None  # (4,), the last one
    motion: np.ndarray | None = None  # (4,), of the box per frame

    def add(self, frame: int, index: int, box: np.ndarray) -> None:
        if self.box is None:
            self.motion = np.zeros(4)
        else:
            moved = np.tile((box - self.box).reshape(2, 2).mean(axis=0), 2) / (frame - self.last)
            self.motion = 0.5 * self.motion + 0.5 * moved
        self.seen[frame], self.last, self.box = index, frame, box
        self.areas.append(float(_area(box)))

    def expected(self, frame: int) -> np.ndarray:
        """The box to look for at `frame`: moved on, but for a few frames only, as nobody runs straight on for ever."""
        return self.box + self.motion * min(frame - self.last, 5)

    @property
    def area(self) -> float:
        return float(np.median(self.areas))


def followed(frames: Sequence[Sequence[Detection]], person: int | None = None) -> list[int | None]:
    """For each frame the index of the detection that is the followed person, None where that person is not seen.

    The largest person that persists: of all tracks seen in most of the frames that show anybody (where there is none
    such: seen at least half as often as the most seen one) the one of the largest median box. person: the N-th largest
    of these instead, from 1.

    Detections below MIN_SCORE, without an area or with a box that is no place in a picture are never followed. All None
    where nobody is.
    Raises InputError when there is no N-th person; it says how many there are.
    """
    people = _people(frames)
    if person is not None and not 1 <= person <= len(people):
        raise InputError(
            f"Person {person} was asked for, but {_count(len(people))} through these frames; "
            + (f"please give a number from 1 to {len(people)}." if people else "please give frames that show a person.")
        )
    if not people:
        return [None] * len(frames)
    seen = people[(person or 1) - 1].seen
    return [seen.get(frame) for frame in range(len(frames))]


def _people(frames: Sequence[Sequence[Detection]]) -> list[_Track]:
    """The tracks of people who persist, largest first."""
    tracks = _joined(_tracks(frames))
    anybody = len({frame for track in tracks for frame in track.seen})
    people = [track for track in tracks if 2 * len(track.seen) > anybody]
    if not people:
        most = max((len(track.seen) for track in tracks), default=0)
        people = [track for track in tracks if 2 * len(track.seen) >= most]
    return sorted(people, key=lambda track: -track.area)


def _tracks(frames: Sequence[Sequence[Detection]]) -> list[_Track]:
    done: list[_Track] = []
    active: list[_Track] = []
    for frame, detections in enumerate(frames):
        done += [track for track in active if frame - track.last > PATIENCE]
        active = [track for track in active if frame - track.last <= PATIENCE]
        indices, boxes = _usable(detections)
        if not indices:
            continue
        free = set(range(len(indices)))
        if active:
            closeness = _closeness(np.stack([track.expected(frame) for track in active]), boxes)  # (tracks, boxes)
            waiting = set(range(len(active)))
            for pair in np.argsort(-closeness, axis=None, kind="stable"):
                track, box = divmod(int(pair), len(indices))
                if closeness[track, box] == -np.inf:
                    break
                if track in waiting and box in free:
                    waiting.remove(track)
                    free.remove(box)
                    active[track].add(frame, indices[box], boxes[box])
        for box in sorted(free):
            active.append(_Track())
            active[-1].add(frame, indices[box], boxes[box])
    return done + active


def _joined(tracks: list[_Track]) -> list[_Track]:
    """Tracks of about one size, of which one begins after the other has ended, made one: somebody left the picture and
    came back.

    Specks of a few frames are left as they are.
    """
    joined: list[_Track] = []
    for track in sorted(tracks, key=lambda track: min(track.seen)):
        before = [
            other
            for other in joined
            if other.last < min(track.seen) and max(other.area, track.area) <= _MAX_RATIO * min(other.area, track.area)
        ]
        if before and len(track.seen) >= 5:
            other = max(before, key=lambda other: len(other.seen))
            other.seen |= track.seen
            other.last = track.last
            other.areas += track.areas
        else:
            joined.append(track)
    return joined


def _usable(detections: Sequence[Detection]) -> tuple[list[int], np.ndarray]:
    """Indices and float (N, 4) boxes of the detections that may be followed, the MAX_PEOPLE largest at most."""
    boxes = np.array([detection.box for detection in detections], np.float64).reshape(-1, 4)
    scores = np.array([detection.score for detection in detections], np.float64)
    good = (np.abs(boxes) < _FAR).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (scores >= MIN_SCORE)
    indices = np.flatnonzero(good)
    indices = indices[np.argsort(-_area(boxes[indices]), kind="stable")][:MAX_PEOPLE]
    return indices.tolist(), boxes[indices]


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)


def _closeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B): how near the boxes (A, 4) and (B, 4) are, -inf where they are not one person.

    Overlap over union, less the share of the common hull that neither fills: it goes on falling where boxes no longer
    touch.
    """
    a, b = a[:, None], b[None]
    upper, lower = np.maximum(a, b), np.minimum(a, b)
    common = np.prod(np.maximum(lower[..., 2:] - upper[..., :2], 0), axis=-1)
    union = _area(a) + _area(b) - common
    hull = np.prod(upper[..., 2:] - lower[..., :2], axis=-1)
    overlap = common / union
    near = overlap - (hull - union) / hull
    ratio = np.maximum(_area(a), _area(b)) / np.minimum(_area(a), _area(b))
    return np.where((overlap >= _MIN_OVERLAP) | ((near > -0.2) & (ratio <= _MAX_RATIO)), near, -np.inf)


def _count(people: int) -> str:
    return {0: "nobody is seen", 1: "1 person is seen"}.get(people, f"{people} people are seen")
