"""The body tracker: estimate pose maps from pictures by landmarks, a mask, and a body model fitted to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..body.build import Build, Stances, drawn, turn_arms
from ..body.cones import PARTS
from ..body.fitting import Points, body_height, lean, lifted, stance_of
from ..body.outline import snapped
from ..body.worn import fitted_body
from ..errors import InputError
from ..poses import JOINT_INDEX, JOINTS, Joints, PoseSequence, frame_ranges, largest_alone, people
from ..poses.sequence import OTHER_SIDE, both
from ..progress import OnProgress, StageClock, check_stop, ignore_progress, never_stop
from .blazepose import LANDMARKS, NOSE, BlazePose, Pose, refined_mask
from .painting import on_parts, painted

_FITTED = 5  # number of frames whose masks determine the body's build
_MOST_LEAN = 0.44  # radians; a smaller lean out of the picture is an error of the landmarks, a larger one is real
_LOST_FRAMES = 15  # longest gap in a clip, in frames, that is interpolated
_SMOOTH, _REACH = 2.0, 5  # smoothing of the landmarks over time: standard deviation and reach, in frames
_JITTER = 0.006  # noise of the landmarks, as a share of the person's size
_CAMERA = 8.0  # standard deviation, in frames, of the smoothing of the person's size
_LONGEST, _SHORTEST = 1.25, 0.8  # limits of a limb's length over the average length, since depth is a guess
# A scene begins where the mean change between two frames (0 to 1) exceeds _CUT, or half of it if that is _SUDDEN times
# the median change of the last _USUAL frames.
_CUT, _SUDDEN, _USUAL = 0.15, 6, 24
_FLASH = 5  # frames; a shorter scene counts as a flash
_FITS = 0.55  # overlap of the mask and the fitted body below which the fit is poor (standing people: .80 to .95)
_SURE = 0.2  # confidence below which hidden limbs are guesses
_SHARE_FOUND = 0.7  # share of a motion's frames in which the person must be found to give it joints
_CLOSE = 0.5  # how far a person may move while they are not found, as a share of the square's side


class BodyTracker:
    """The body tracker; implements `Estimator`.

    folder: BlazePose's networks. person: which person to follow, in the first frame that shows any: counted from the
    left, 1 for the leftmost; or the one nearest to a point, (column, row) in pixels; None for the largest.
    """

    def __init__(self, folder: Path, device: str = "cpu", person: int | tuple[float, float] | None = None):
        self.network, self.person = BlazePose(folder, device), person
        self.left_out, self.notices, self.should_stop = 0, (), never_stop

    def estimate(self, images: Iterable[np.ndarray]) -> PoseSequence:
        """Estimate maps (charts: body) of RGB pictures, uint8 (H, W, 3) of one size, at that size; 0 without a person.

        Raises InputError when there are no pictures, or fewer people than `person`.
        """
        self.left_out, self.notices, size = 0, (), None
        found: list[Pose | None] = []
        masks: list[np.ndarray | None] = []
        cuts, changes, before = [0], [], None
        for image in images:
            size = image.shape[:2]
            small = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BOX), float) / 255
            changes.append(0.0 if before is None else float(np.abs(small - before).mean()))
            before, is_cut = small, _is_cut(changes)
            if is_cut:
                cuts.append(len(found))
            found.append(self._next(image, found, is_cut))
            masks.append(None if found[-1] is None else refined_mask(found[-1], image))
        if size is None:
            raise InputError("There is no picture to find anybody in.")
        cuts = _scenes(cuts, len(found))
        if len(cuts) > 1:
            where = frame_ranges(np.array(cuts[1:]), range(len(found)))
            self.notices = (
                f"The clip cuts to another scene at frame {where}, where the motion jumps; a range of frames without a "
                "cut works better.",
            )
        return self._maps(found, masks, size, cuts)

    def with_joints(self, poses: PoseSequence, on_progress: OnProgress = ignore_progress) -> PoseSequence:
        """Add the person's joints to maps with parts; returns `poses` unchanged when too few frames show a person.

        Each part map is painted as a picture of a dressed person, in which BlazePose finds the landmarks; joints are
        moved to where two parts meet.
        """
        self.notices, self.person = (), None  # the painted picture shows one person
        if len(people(poses.parts[0])) > 1:
            self.notices = ("Several people are in the motion: the largest one is used.",)
            poses = largest_alone(poses)
        found: list[Pose | None] = []
        clock = StageClock("estimating", len(poses), on_progress)
        for index, parts in enumerate(poses.parts):
            check_stop(self.should_stop)
            clock.tick(index)
            pose = self._next(painted(parts), found)
            found.append(None if pose is None else on_parts(pose, parts))
        clock.tick(clock.total)
        there = [index for index, pose in enumerate(found) if pose is not None]
        if not there or len(there) < _SHARE_FOUND * poses.mask.any((1, 2)).sum():
            return poses
        there = sorted({*there, *_between(found)})
        masks = [parts.astype(bool).astype(np.uint8) * 255 for parts in poses.parts]
        joints = _fit(found, masks, there, poses.size, poses.parts)[-1]
        return replace(poses, joints=_held(joints, there, len(poses)))

    def _next(self, image: np.ndarray, before: list[Pose | None], is_cut: bool = False) -> Pose | None:
        """Find the person in the next picture: first where they were in the last one, then with the detector.

        is_cut: whether the picture begins another scene.
        """
        there = [index for index, pose in enumerate(before) if pose is not None]
        last, lost = (before[there[-1]], len(before) - 1 - there[-1]) if there else (None, 0)
        if last is not None and not lost and not is_cut:
            pose = self.network.poses(image, [last.next_roi])[0]
            if pose.presence >= 0.5:
                return pose
        everyone = self.network.people(image)
        if not everyone:
            return None
        if last is None:
            self.left_out = len(everyone) - 1
            if isinstance(self.person, tuple):
                x, y = self.person
                return min(everyone, key=lambda pose: np.hypot(pose.roi.x - x, pose.roi.y - y) / pose.roi.side)
            if self.person is not None:
                if self.person > len(everyone):
                    there = "is one person" if len(everyone) == 1 else f"are {len(everyone)} people"
                    raise InputError(f"--person is {self.person}, but there {there} in the picture.")
                return everyone[self.person - 1]
            return max(everyone, key=lambda pose: pose.area)
        near = min(everyone, key=lambda pose: np.hypot(pose.roi.x - last.roi.x, pose.roi.y - last.roi.y))
        off = np.hypot(near.roi.x - last.roi.x, near.roi.y - last.roi.y)
        if off < _CLOSE * last.roi.side:
            return near
        return max(everyone, key=lambda pose: pose.area) if is_cut or lost >= _LOST_FRAMES else None

    def _maps(
        self, found: list[Pose | None], masks: list[np.ndarray | None], size: tuple[int, int], cuts: Sequence[int]
    ) -> PoseSequence:
        """Fit the body to all frames and draw its maps. cuts: the first frame of each scene."""
        parts, uv = np.zeros((len(found), *size), np.uint8), np.zeros((len(found), 2, *size), np.float16)
        scenes = zip(cuts, [*cuts[1:], len(found)])
        between = [start + index for start, stop in scenes for index in _between(found[start:stop])]
        if between:
            where = frame_ranges(np.array(between), range(len(found)))
            self.notices += (f"The person was not found in frames {where}, which lie between the frames around them.",)
        there = [index for index, pose in enumerate(found) if pose is not None or index in between]
        joints = None
        if there:
            stances, builds, points, joints = _fit(found, masks, there, size)
            raw_parts, raw_uv = drawn(stances, builds, size, should_stop=self.should_stop)
            for number, (index, at) in enumerate(zip(there, points)):
                check_stop(self.should_stop)
                own_parts, own_uv = raw_parts[number], raw_uv[number]
                for is_inside, foot in zip(_inside(at["ankle"], size), ("left_foot", "right_foot")):
                    if not is_inside:  # the ankle is outside the picture, so the visible pixels belong to the leg
                        own_parts = np.where(np.isin(own_parts, PARTS[foot]), 0, own_parts)
                if masks[index] is not None:
                    own_parts, own_uv = snapped(own_parts, own_uv, masks[index], stances.height[number])
                parts[index], uv[index] = own_parts, own_uv
            seen = [(raw_parts[i] > 0, masks[index] > 127) for i, index in enumerate(there) if masks[index] is not None]
            fit = float(np.median([(a & b).sum() / max(1, (a | b).sum()) for a, b in seen]))
            self.notices += _doubts(joints, points, size, fit)
            joints = _held(joints, there, len(found))
        turn_arms(parts, uv)
        return PoseSequence(parts, uv, "body", joints=joints)


def _between(found: list[Pose | None]) -> list[int]:
    """The frames without a person in short gaps (at most _LOST_FRAMES) between two frames with one."""
    there = [index for index, pose in enumerate(found) if pose is not None]
    gaps = [range(a + 1, b) for a, b in zip(there, there[1:]) if 1 < b - a <= _LOST_FRAMES + 1]
    return [index for gap in gaps for index in gap]


def _is_cut(changes: list[float]) -> bool:
    """Whether the last of these changes between frames begins another scene."""
    usual = np.median(changes[-_USUAL - 1 : -1]) if len(changes) > 2 else _CUT
    return changes[-1] > _CUT or (changes[-1] > _CUT / 2 and changes[-1] > _SUDDEN * usual)


def _scenes(cuts: list[int], length: int) -> list[int]:
    """The first frame of each scene; a stretch shorter than _FLASH between two cuts is a flash or a gap, no scene."""
    lengths = np.diff([*cuts, length])
    lengths[[0, -1]] = _FLASH
    return [0, *(cut for cut, before, after in zip(cuts[1:], lengths, lengths[1:]) if min(before, after) >= _FLASH)]


def _doubts(joints: Joints, points: list[Points], size: tuple[int, int], fit: float) -> tuple[str, ...]:
    """A notice about what may come out wrong, or none. fit: how well the body covers the mask, 0 to 1."""
    if fit < _FITS:
        return ("The pose may come out wrong: the body that was found fits the person only in part.",)
    unsure = []
    for words, names in (("arms", ("elbow", "wrist")), ("legs", ("knee", "ankle"))):
        inside = np.mean([_inside(some[name], size) for some in points for name in names])
        which = [joint for name in names for joint in both(name)]
        if inside > 0.7 and float(np.median(joints.confidence[:, which].min(1))) < _SURE:
            unsure.append(words)
    limbs = " and ".join(unsure).capitalize()
    return (f"{limbs} may come out wrong: the person is partly hidden.",) if unsure else ()


def _inside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (N,): which of the points (N, 3) lie in the picture."""
    return (np.abs(points[:, 0]) < size[1] / 2) & (np.abs(points[:, 1]) < size[0] / 2)


def _held(joints: Joints, there: list[int], count: int) -> Joints:
    """Extend joints of the frames `there` to all `count` frames; other frames take the nearest frame's joints."""
    return joints.select(np.abs(np.subtract.outer(np.arange(count), there)).argmin(1))


def _fit(
    found: list[Pose | None],
    masks: list[np.ndarray | None],
    there: list[int],
    size: tuple[int, int],
    parts: np.ndarray | None = None,
) -> tuple[Stances, list[Build], list[Points], Joints]:
    """Fit a body to the person in the frames `there`: stances as the camera sees them, builds, landmarks and joints.

    parts: part maps of all frames, where they are known.
    """
    seen = [index for index in there if found[index] is not None]
    xy, world, visibility = (
        _interpolated(np.stack([getattr(found[index], name) for index in seen]), seen, there)
        for name in ("xy", "world", "visibility")
    )
    xy, world = (_smoothed(x, _JITTER * float(np.median(np.ptp(x, axis=1).max(-1)))) for x in (xy, world))
    points = [_points(a, b, size) for a, b in zip(xy, world)]
    pitch = float(np.median([lean(some) for some in points]))
    if abs(pitch) < _MOST_LEAN:
        points = [_points(a, b, size, pitch) for a, b in zip(xy, world)]
    scale = np.array([_scale(a, b) for a, b in zip(xy, world)])
    # Smooth the scale over many frames: people approach the camera slowly, so fast changes are noise.
    weights = np.exp(-0.5 * (np.subtract.outer(np.arange(len(scale)), np.arange(len(scale))) / _CAMERA) ** 2)
    nearer = weights @ scale / weights.sum(1) / np.median(scale)
    legs = float(np.median(visibility[:, [25, 26]].min(1))) > 0.5
    height = float(np.median([body_height(some, legs) for some in points]))
    # Each frame's stance and bones, first as seen in the picture, then corrected for depth.
    made = [zip(*(stance_of(some, height) for some in given)) for given in (points, lifted(points, nearer))]
    (stances, builds), (true, bones) = ((Stances.joined(list(a)), list(b)) for a, b in made)
    which = sorted({there.index(seen[round(i)]) for i in np.linspace(0, len(seen) - 1, _FITTED)})
    shown = [None if parts is None else parts[there[i]] for i in which]
    fitted = [fitted_body(stances.select([i]), builds[i], masks[there[i]], own) for i, own in zip(which, shown)]
    body = _together(fitted, bones, legs)
    joints = _joints(true, height * nearer, visibility, body, size)
    builds = [replace(body, offsets=b.offsets, hand=b.hand, foot=b.foot) for b in builds]
    return stances, builds, points, joints


def _together(fitted: list[Build], builds: list[Build], legs: bool) -> Build:
    """Combine the bodies fitted to some frames and all frames' bones into one build. legs: whether legs are seen."""
    average = Build.average()
    symmetrical = [(build.offsets + build.offsets[OTHER_SIDE] * [-1, 1, 1]) / 2 for build in builds]
    of_all = np.median(symmetrical, axis=0)
    for name in ("elbow", "wrist", "knee", "ankle"):
        for i in both(name):
            usual, length = (np.linalg.norm(offsets[i]) for offsets in (average.offsets, of_all))
            if not legs and name in ("knee", "ankle"):
                of_all[i] = average.offsets[i]
            elif length > 0:
                of_all[i] *= np.clip(length, _SHORTEST * usual, _LONGEST * usual) / length

    def middle(name: str, bodies: list[Build]) -> np.ndarray:
        return np.median([getattr(body, name) for body in bodies], axis=0)

    values = {name: middle(name, fitted) for name in ("limbs", "trunk", "outline")}
    for name in ("hair", "locks", "skirt"):  # kept only if more than half of the fitted frames show it
        given = [body for body in fitted if getattr(body, name).any()]
        if 2 * len(given) > len(fitted):
            values[name] = middle(name, given)
    lengths = {"hand": float(middle("hand", builds)), "foot": float(middle("foot", builds))}
    return Build(of_all, **lengths, **values, head=float(middle("head", fitted)))


def _joints(stances: Stances, height: np.ndarray, visibility: np.ndarray, body: Build, size: tuple[int, int]) -> Joints:
    """The joints of a person `height` (T,) pixels tall. visibility: (T, 33), of the landmarks."""
    root = stances.positions[:, :1]
    about = (stances.positions - root) * (stances.height / height)[:, None, None]
    x, y = (stances.positions[:, 0, :2] * stances.height[:, None]).T
    camera = np.stack([height / size[0], 0.5 + x / size[1], 0.5 - y / size[0]], 1)
    confidence = np.ones((len(stances), len(JOINTS)))
    ends = {"shoulder": "elbow", "elbow": "wrist", "wrist": "index", "hip": "knee", "knee": "ankle", "ankle": "toe"}
    for name, end in ends.items():
        for i, of in zip(both(name), zip(LANDMARKS[name], LANDMARKS[end])):
            confidence[:, i] = visibility[:, of].min(1)
    trunk = {"root": LANDMARKS["hip"], "spine": LANDMARKS["shoulder"], "head": (NOSE, *LANDMARKS["ear"])}
    for name, of in trunk.items():
        confidence[:, JOINT_INDEX[name]] = visibility[:, of].mean(1)
    arrays = (stances.rotations, about, camera, confidence.clip(0, 1), body.numbers())
    return Joints(*(array.astype(np.float32) for array in arrays))


def _interpolated(x: np.ndarray, seen: list[int], there: list[int]) -> np.ndarray:
    """Interpolate `x` (S, ...), known at the frames `seen`, at the frames `there`."""
    flat = x.reshape(len(x), -1)
    return np.stack([np.interp(there, seen, column) for column in flat.T], 1).reshape(len(there), *x.shape[1:])


def _points(xy: np.ndarray, world: np.ndarray, size: tuple[int, int], pitch: float = 0.0) -> Points:
    """Convert BlazePose's landmarks, (33, 2) in pixels and (33, 3) in metres, to points; depth is scaled to pixels.

    pitch: angle in radians by which the landmarks lean out of the picture, see `lean`; it is removed.
    """
    (height, width), scale = size, _scale(xy, world)
    p = np.stack([xy[:, 0] - width / 2, height / 2 - xy[:, 1], -world[:, 2] * scale], 1)
    if pitch:  # only depth changes, so every landmark stays where the picture shows it
        p[:, 2] -= math.tan(pitch) * (p[:, 1] - p[[23, 24], 1].mean())
    pairs = {name: p[list(both)] for name, both in LANDMARKS.items() if name not in ("pinky", "index")}
    hand = (p[list(LANDMARKS["index"])] + p[list(LANDMARKS["pinky"])]) / 2
    return {"nose": p[NOSE], "hand": hand, **pairs}


def _scale(xy: np.ndarray, world: np.ndarray) -> float:
    """Pixels per metre, from landmarks (33, 2) in pixels and (33, 3) in metres."""
    trunk = [11, 12, 13, 14, 23, 24, 25, 26]
    a, b = world[trunk, :2] - world[trunk, :2].mean(0), xy[trunk] - xy[trunk].mean(0)
    return math.sqrt((b**2).sum() / max(1e-9, (a**2).sum()))


def _smoothed(x: np.ndarray, jitter: float) -> np.ndarray:
    """Smooth `x` (T, N, D) over time without delay.

    Neighbours count less the further they are away, on the scale of `jitter`; so noise is removed and fast motion keeps
    its speed at any frame rate.
    """
    total, weights = x.copy(), np.ones(x.shape[:2])
    for step in range(1, min(_REACH, len(x) - 1) + 1):
        off = np.linalg.norm(x[step:] - x[:-step], axis=-1)
        weight = math.exp(-0.5 * (step / _SMOOTH) ** 2) * np.exp(-0.5 * (off / jitter) ** 2)
        for here, there in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
            total[here] += weight[..., None] * x[there]
            weights[here] += weight
    return total / weights[..., None]
