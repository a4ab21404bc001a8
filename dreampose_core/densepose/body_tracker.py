"""The body tracker: pictures of a person -> DensePose, by landmarks, mask and a body fitted to them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..body.cones import PARTS
from ..body.fitting import Build, Points, Stance, body_height, drawn, fitted_widths, lean, snapped, stance_of
from ..errors import InputError
from ..poses import PoseSequence, converted, frame_ranges
from .blazepose import LANDMARKS, NOSE, BlazePose, Pose, refined_mask

CHARTS = "body"
_BATCH = 8  # frames that are drawn together
_FITTED = 5  # frames whose masks say how wide the body is
_MOST_LEAN = 0.44  # radians: the landmarks lean people out of the picture by less than that; more is meant
_LOST_FRAMES = 15  # of a clip that are filled in between two that are found
_SMOOTH, _REACH = 2.0, 5  # frames: standard deviation of the smoothing over time, and how far it looks
_JITTER = 0.012  # of the person's size: how much landmarks tremble
_CLOSE = 0.5  # of the square's side: how far somebody may move while they are lost


class BodyTracker:
    """An estimator of the form `Estimator`. folder: of BlazePose's networks. person: whom to follow, 1 for who is
    leftmost in the first frame that shows anybody; None for the largest."""

    def __init__(self, folder: Path, device: str = "cpu", person: int | None = None):
        self.network, self.person = BlazePose(folder, device), person
        self.left_out, self.notices = 0, ()

    def estimate(self, images: Iterable[np.ndarray]) -> PoseSequence:
        """Maps of uint8 (H, W, 3) pictures of one size, RGB, at their size (charts: body); all 0 where nobody is found.

        Raises InputError where there are fewer people than `person` says.
        """
        self.left_out, self.notices, size = 0, (), None
        found: list[Pose | None] = []
        masks: list[np.ndarray | None] = []
        for image in images:
            size = image.shape[:2]
            pose = self._next(image, next((pose for pose in reversed(found) if pose is not None), None), found)
            found.append(pose)
            masks.append(None if pose is None else refined_mask(pose, image))
        if size is None:
            raise InputError("There is no picture to find anybody in.")
        return self._maps(found, masks, size)

    def _next(self, image: np.ndarray, last: Pose | None, before: list[Pose | None]) -> Pose | None:
        """The person in the next picture: where they were, else found anew."""
        if last is not None and before[-1] is not None:
            pose = self.network.poses(image, [last.next_roi])[0]
            if pose.presence >= 0.5:
                return pose
        people = self.network.people(image)
        if not people:
            return None
        if last is None:
            self.left_out = len(people) - 1
            if self.person is not None:
                if self.person > len(people):
                    there = "is one person" if len(people) == 1 else f"are {len(people)} people"
                    raise InputError(f"--person is {self.person}, but there {there} in the picture.")
                return people[self.person - 1]
            return max(people, key=lambda pose: pose.area)
        near = min(people, key=lambda pose: np.hypot(pose.roi.x - last.roi.x, pose.roi.y - last.roi.y))
        off = np.hypot(near.roi.x - last.roi.x, near.roi.y - last.roi.y)
        lost = next(i for i, pose in enumerate(reversed(before)) if pose is not None)
        return near if off < _CLOSE * last.roi.side or lost >= _LOST_FRAMES else None

    def _maps(self, found: list[Pose | None], masks: list[np.ndarray | None], size: tuple[int, int]) -> PoseSequence:
        parts, uv = np.zeros((len(found), *size), np.uint8), np.zeros((len(found), 2, *size), np.float16)
        between = _between(found)
        if between:
            where = frame_ranges(np.array(between), range(len(found)))
            self.notices = (f"The person was not found in frames {where}, which lie between the frames around them.",)
        there = [index for index, pose in enumerate(found) if pose is not None or index in between]
        if there:
            stances, builds, points = _fit(found, masks, there, size)
            for start in range(0, len(there), _BATCH):
                which = slice(start, start + _BATCH)
                raw = drawn(stances[which], builds[which], size)
                for index, own_parts, own_uv, stance, at in zip(there[which], *raw, stances[which], points[which]):
                    for ankle, foot in zip(at.ankle, ("left_foot", "right_foot")):
                        if abs(ankle[0]) > size[1] / 2 or abs(ankle[1]) > size[0] / 2:
                            # it ends outside the picture: what is seen there is the leg
                            own_parts = np.where(np.isin(own_parts, PARTS[foot]), 0, own_parts)
                    if masks[index] is not None:
                        own_parts, own_uv = snapped(own_parts, own_uv, masks[index], stance.height)
                    parts[index], uv[index] = own_parts, own_uv.clip(0, 1)
        return converted(PoseSequence(parts, uv, "mannequin"), CHARTS)


def _between(found: list[Pose | None]) -> list[int]:
    """The frames without a person that lie between two with one which are not far apart."""
    there = [index for index, pose in enumerate(found) if pose is not None]
    gaps = [range(a + 1, b) for a, b in zip(there, there[1:]) if 1 < b - a <= _LOST_FRAMES + 1]
    return [index for gap in gaps for index in gap]


def _fit(
    found: list[Pose | None], masks: list[np.ndarray | None], there: list[int], size: tuple[int, int]
) -> tuple[list[Stance], list[Build], list[Points]]:
    """The person's body in the frames `there`, with the widths that they have in all of them, and their landmarks."""
    seen = [index for index in there if found[index] is not None]
    xy, world = (
        _interpolated(np.stack([getattr(found[index], name) for index in seen]), seen, there)
        for name in ("xy", "world")
    )
    xy, world = (_smoothed(x, _JITTER * float(np.median(np.ptp(x, axis=1).max(-1)))) for x in (xy, world))
    points = [_points(a, b, size) for a, b in zip(xy, world)]
    pitch = float(np.median([lean(some) for some in points]))
    if abs(pitch) < _MOST_LEAN:
        points = [_points(a, b, size, pitch) for a, b in zip(xy, world)]
    legs = float(np.median([found[index].visibility[[25, 26]].min() for index in seen])) > 0.5
    height = float(np.median([body_height(some, legs) for some in points]))
    made = [stance_of(some, height) for some in points]
    stances, builds = [stance for stance, _ in made], [build for _, build in made]
    at = {index: number for number, index in enumerate(there)}
    which = sorted({seen[round(i)] for i in np.linspace(0, len(seen) - 1, _FITTED)})
    fitted = [fitted_widths(stances[at[index]], builds[at[index]], masks[index]).widths for index in which]
    widths = {
        parts: tuple(np.median([some[parts] for some in fitted if parts in some], axis=0))
        for parts in {parts for some in fitted for parts in some}
    }
    return stances, [Build(b.bones, b.torso, b.shoulders, b.hips, widths) for b in builds], points


def _interpolated(x: np.ndarray, seen: list[int], there: list[int]) -> np.ndarray:
    """x (S, ...) of the frames `seen` at the frames `there`."""
    flat = x.reshape(len(x), -1)
    return np.stack([np.interp(there, seen, column) for column in flat.T], 1).reshape(len(there), *x.shape[1:])


def _points(xy: np.ndarray, world: np.ndarray, size: tuple[int, int], pitch: float = 0.0) -> Points:
    """BlazePose's landmarks (33, 2) in pixels and (33, 3) in metres as points; depth is scaled as the picture is.

    pitch: by how much the landmarks lean out of the picture, in radians, see `lean`.
    """
    height, width = size
    trunk = [11, 12, 13, 14, 23, 24, 25, 26]
    a, b = world[trunk, :2] - world[trunk, :2].mean(0), xy[trunk] - xy[trunk].mean(0)
    scale = math.sqrt((b**2).sum() / max(1e-9, (a**2).sum()))
    p = np.stack([xy[:, 0] - width / 2, height / 2 - xy[:, 1], -world[:, 2] * scale], 1)
    if pitch:  # upright, with every landmark where the picture shows it
        p[:, 2] -= math.tan(pitch) * (p[:, 1] - p[[23, 24], 1].mean())
    pairs = {name: p[list(both)] for name, both in LANDMARKS.items() if name not in ("pinky", "index")}
    hand = (p[list(LANDMARKS["index"])] + p[list(LANDMARKS["pinky"])]) / 2
    return Points(nose=p[NOSE], hand=hand, **pairs)


def _smoothed(x: np.ndarray, jitter: float) -> np.ndarray:
    """x (T, N, D) smoothed over time without delay: neighbours count as far as they lie within `jitter`, so that what
    trembles is stilled and what moves keeps its speed, whatever the frame rate."""
    total, weights = x.copy(), np.ones(x.shape[:2])
    for step in range(1, min(_REACH, len(x) - 1) + 1):
        off = np.linalg.norm(x[step:] - x[:-step], axis=-1)
        weight = math.exp(-0.5 * (step / _SMOOTH) ** 2) * np.exp(-0.5 * (off / jitter) ** 2)
        for here, there in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
            total[here] += weight[..., None] * x[there]
            weights[here] += weight
    return total / weights[..., None]
