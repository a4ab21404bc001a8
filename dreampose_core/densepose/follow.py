"""Choose the person to follow in a clip, and find their detection in each frame (numpy only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError

MIN_SCORE = 0.5  # detectron2's dumps hold guesses down to 0.05
MAX_PEOPLE = 20  # only the largest of a frame are tracked; tracking is unreliable in larger crowds
PATIENCE = 15  # frames for which a person may be unseen and keep their track: half a second
_MIN_OVERLAP = 0.1  # least overlap of one person's boxes in neighbouring frames
_FAR = 1e6  # pixels; limit of a box's coordinates, which also rejects NaN
_MAX_RATIO = 2.0  # largest ratio of one person's areas, used where the boxes overlap too little


@dataclass(frozen=True)
class Detection:
    """One person seen in one frame.

    box: x0, y0, x1, y1 in pixels. score: 0..1; 1 when the estimator gives none. payload: any data of the caller.
    """

    box: tuple[float, float, float, float]
    score: float = 1.0
    payload: Any = None


def place(map_: np.ndarray, box: tuple[float, float, float, float], frame: np.ndarray) -> None:
    """Write a person's map (..., h, w) into a frame (..., H, W) at their box; what lies beyond the frame is cut off."""
    (left, top), (height, width) = np.floor(box[:2]).astype(int), frame.shape[-2:]
    map_ = map_[..., max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    high, wide = map_.shape[-2:]
    frame[..., max(top, 0) : max(top, 0) + high, max(left, 0) : max(left, 0) + wide] = map_


@dataclass
class _Track:
    """One person through the frames. seen: frame -> index of the detection. boxes: theirs, (4,) each, in pixels."""

    seen: dict[int, int] = field(default_factory=dict)
    boxes: list[np.ndarray] = field(default_factory=list)
    motion: np.ndarray | float = 0.0  # (4,), movement of the box per frame

    def add(self, frame: int, index: int, box: np.ndarray) -> None:
        if self.seen:
            moved = np.tile((box - self.boxes[-1]).reshape(2, 2).mean(axis=0), 2) / (frame - self.last)
            self.motion = 0.5 * self.motion + 0.5 * moved
        self.seen[frame] = index
        self.boxes.append(box)

    def expected(self, frame: int) -> np.ndarray:
        """The box expected at `frame`: extrapolated for at most 5 frames: people do not move straight on for long."""
        return self.boxes[-1] + self.motion * min(frame - self.last, 5)

    @property
    def last(self) -> int:
        return next(reversed(self.seen))

    @property
    def area(self) -> float:
        return float(np.median(_area(np.stack(self.boxes))))


def followed(frames: Sequence[Sequence[Detection]], person: int | None = None) -> list[int | None]:
    """Choose the person to follow: the index of their detection in each frame, None where they are not seen.

    The default is the largest persistent person: the track with the largest median box among those seen in more than
    half of the frames that show anyone (if there is none, among those seen at least half as often as the most frequent
    one). person: follow the N-th largest of these instead, from 1.

    Detections below MIN_SCORE, without area, or with a box far outside any picture are ignored. All None when no
    person is left.
    Raises InputError with the number of people when there is no N-th person.
    """
    tracks = _joined(_tracks(frames))
    anybody = len({frame for track in tracks for frame in track.seen})
    most = max((len(track.seen) for track in tracks), default=0)
    people = [track for track in tracks if 2 * len(track.seen) > anybody]
    people = people or [track for track in tracks if 2 * len(track.seen) >= most]
    people.sort(key=lambda track: -track.area)
    if person is not None and not 1 <= person <= len(people):
        count = {0: "no person is seen", 1: "1 person is seen"}.get(len(people), f"{len(people)} people are seen")
        numbers = f"a number from 1 to {len(people)}" if people else "frames that show a person"
        raise InputError(f"Person {person} was asked for, but {count} through these frames; please give {numbers}.")
    seen = people[(person or 1) - 1].seen if people else {}
    return [seen.get(frame) for frame in range(len(frames))]


def _tracks(frames: Sequence[Sequence[Detection]]) -> list[_Track]:
    tracks: list[_Track] = []
    for frame, detections in enumerate(frames):
        active = [track for track in tracks if frame - track.last <= PATIENCE]
        indices, boxes = _usable(detections)
        free = set(range(len(indices)))
        expected = np.array([track.expected(frame) for track in active]).reshape(-1, 4)
        closeness = _closeness(expected, boxes)  # (tracks, boxes)
        for pair in np.argsort(-closeness, axis=None, kind="stable"):
            track, box = divmod(int(pair), len(indices))
            if closeness[track, box] > -np.inf and active[track].last < frame and box in free:
                free.remove(box)
                active[track].add(frame, indices[box], boxes[box])
        for box in sorted(free):
            tracks.append(_Track())
            tracks[-1].add(frame, indices[box], boxes[box])
    return tracks


def _joined(tracks: list[_Track]) -> list[_Track]:
    """Join tracks of similar size when one starts after the other has ended: a person left the picture and returned.

    Tracks of fewer than five frames are not joined to earlier ones.
    """
    joined: list[_Track] = []
    for track in sorted(tracks, key=lambda track: min(track.seen)):
        ended = (one for one in joined if one.last < min(track.seen))
        alike = [one for one in ended if 1 / _MAX_RATIO <= one.area / track.area <= _MAX_RATIO]
        if alike and len(track.seen) >= 5:
            other = max(alike, key=lambda other: len(other.seen))
            other.seen |= track.seen
            other.boxes += track.boxes
        else:
            joined.append(track)
    return joined


def _usable(detections: Sequence[Detection]) -> tuple[list[int], np.ndarray]:
    """Indices and float (N, 4) boxes of the detections that may be followed, at most the MAX_PEOPLE largest."""
    boxes = np.array([detection.box for detection in detections], np.float64).reshape(-1, 4)
    scores = np.array([detection.score for detection in detections], np.float64)
    good = (np.abs(boxes) < _FAR).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (scores >= MIN_SCORE)
    indices = np.flatnonzero(good)
    indices = indices[np.argsort(-_area(boxes[indices]), kind="stable")][:MAX_PEOPLE]
    return indices.tolist(), boxes[indices]


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)


def _closeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Closeness (A, B) of the boxes (A, 4) and (B, 4); -inf where they cannot be one person.

    It is the generalised IoU: intersection over union, minus the share of the enclosing box that neither fills; it
    still falls with distance when boxes no longer touch.
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
