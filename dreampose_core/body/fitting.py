"""A body fitted to a person: its joints to landmarks; its widths, hair and skirt to a mask; a map to a mask."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..poses import JOINT_INDEX, JOINTS
from . import outline
from .build import HEAD_TOP, HEAD_WIDTH, LIMBS, SIDES, Build, Stances, drawn
from .cones import HEAD, PARENT, PARTS, TORSO
from .nearest import nearest

_DOWN = np.array([0.0, -1.0, 0.0])
_TORSO_LENGTH, _LEG_LENGTH = 0.285, 0.47  # of the average body: shoulders to hips, hip to ankle
_NECK = 0.068  # from the head's joint up to between the ears
# Where a limb's twist is smooth: it is turned from hanging to this direction and from there to its own, so that only
# the opposite of this direction, which no joint reaches, has no twist of its own. Of the left side.
_MIDDLE = {
    "shoulder": np.array([0.7, -0.66, 0.27]),
    "elbow": np.array([0.0, -0.75, 0.66]),
    "hip": np.array([0.17, -0.87, 0.46]),
    "knee": np.array([0.0, -0.85, -0.53]),
}
_WHOLE, _LONG = 0.95, 80  # share of its length from which a bone is seen whole; percentile of what is seen of it
_BANDS = ((-0.25, 0.2), (0.2, 0.6), (0.6, 1.05))  # of hips, waist and chest: shares of the way from hips to shoulders
_LEAST_STEP = 0.003  # body heights: hair that stands off the head by less is part of the head
_LEG_STEPS, _NEAR_STEPS = 48, 6  # places between hips and ankles where a skirt is looked for; and on each side of a hem
# the probability, 0 to 255, above which a pixel is the person's, by its distance from the body in thousandths of its
# height: logits from 0.5 on it to 2.5 far from it, where masks bulge and nobody is
_PER_HEIGHT = 1000
_LEAST_CHANCE = 255 / (1 + np.exp(-0.5 - np.minimum(np.arange(200) / 5, 2.0)))


@dataclass(frozen=True)
class Points:
    """Where a person's landmarks are, by name: (3,) each, x right in the picture, y up, z to the viewer, in pixels
    about the picture's middle; pairs (left, right) but for nose."""

    nose: np.ndarray
    ear: np.ndarray
    shoulder: np.ndarray
    elbow: np.ndarray
    wrist: np.ndarray
    hand: np.ndarray
    hip: np.ndarray
    knee: np.ndarray
    ankle: np.ndarray
    heel: np.ndarray
    toe: np.ndarray


def lean(points: Points) -> float:
    """By how much the line from ankles to shoulders leans out of the picture, in radians; towards the viewer is > 0."""
    up = points.shoulder.sum(0) - points.ankle.sum(0)
    return math.atan2(up[2], up[1])


def body_height(points: Points, legs: bool = True) -> float:
    """Pixels a body height: from the torso, and the legs where they are seen."""
    torso = np.linalg.norm(points.shoulder.mean(0) - points.hip.mean(0)) / _TORSO_LENGTH
    leg = np.linalg.norm(points.hip - points.knee, axis=1) + np.linalg.norm(points.knee - points.ankle, axis=1)
    return float(0.5 * torso + 0.5 * leg.mean() / _LEG_LENGTH) if legs else float(torso)


def lifted(points: list[Points], scale: np.ndarray) -> list[Points]:
    """The landmarks of T frames at depths at which torso and limbs have one length in all of them.

    scale: (T,) how large the person is seen. Where a landmark lies in the picture is known better than its depth: that
    follows from how much of the length is seen (Taylor, Computer Vision and Image Understanding 80, 2000); on which
    side it lies is kept.
    """
    names = Points.__dataclass_fields__
    p = {
        name: np.stack([getattr(some, name) for some in points]) / scale[:, None, None]
        for name in names
        if name != "nose"
    }
    p["nose"] = np.stack([some.nose for some in points])[:, None] / scale[:, None, None]
    done = {name: x.copy() for name, x in p.items()}

    def move(names: tuple[str, ...], depth: np.ndarray) -> None:
        for name in names:
            done[name][..., 2] += depth

    trunk, neck = ((p[a].mean(1) - p[b].mean(1))[:, None] for a, b in (("shoulder", "hip"), ("ear", "shoulder")))
    move(("nose", "ear", "shoulder", "elbow", "wrist", "hand"), _depth(trunk) - trunk[..., 2])
    move(("nose", "ear"), _depth(neck) - neck[..., 2])
    for first, second, last in (("shoulder", "elbow", ("wrist", "hand")), ("hip", "knee", ("ankle", "heel", "toe"))):
        for a, b, more in ((first, second, last), (second, last[0], last[1:])):
            bone = p[b] - p[a]
            move((b, *more), _depth(bone) - bone[..., 2])
    done = {name: x * scale[:, None, None] for name, x in done.items()}
    done["nose"] = done["nose"][:, 0]
    return [Points(**{name: x[i] for name, x in done.items()}) for i in range(len(points))]


def _depth(bone: np.ndarray) -> np.ndarray:
    """(T, S) depths of the ends of a bone (T, S, 3), seen S times a frame, at which its length is always the same.

    A bone that is seen nearly whole is taken to lie in the picture, so that what trembles in depth does not shorten it.
    """
    seen = np.linalg.norm(bone[..., :2], axis=-1)
    length = max(_WHOLE * float(np.median(np.linalg.norm(bone, axis=-1))), float(np.percentile(seen, _LONG)))
    return np.sign(bone[..., 2]) * np.sqrt((length**2 - seen**2).clip(0))


def stance_of(points: Points, height: float) -> tuple[Stances, Build]:
    """The stance (one frame) whose joints lie at these points, and its bones; height: pixels a body height.

    A limb's rotation follows from its direction alone, see `_limb`, so photo and motion agree about its twist.
    """
    p = {name: getattr(points, name) / height for name in Points.__dataclass_fields__}
    shoulders, hips = p["shoulder"].mean(0), p["hip"].mean(0)
    torso = float(np.linalg.norm(shoulders - hips)) / _TORSO_LENGTH
    up = _unit(shoulders - hips)
    rotations, positions = {name: np.eye(3) for name in JOINTS}, {}
    rotations["root"], rotations["spine"] = (_axes(up, p[name][0] - p[name][1]) for name in ("hip", "shoulder"))
    positions["root"], positions["spine"] = hips + up * 0.015 * torso, hips + up * 0.105 * torso
    rotations["head"], positions["head"] = _head(p, up, shoulders, rotations["spine"])
    for i, (side, sign) in enumerate(zip(SIDES, (1, -1))):
        for first, middle, last in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")):
            base = rotations["spine" if first == "shoulder" else "root"]
            upper = _limb(base, p[middle][i] - p[first][i], _MIDDLE[first] * [sign, 1, 1])
            lower = _limb(upper, p[last][i] - p[middle][i], _MIDDLE[middle] * [sign, 1, 1])
            rotations[f"{side}_{first}"], rotations[f"{side}_{middle}"] = upper, lower
            for name in (first, middle, last):
                positions[f"{side}_{name}"] = p[name][i]
        hand, fore = p["hand"][i] - p["wrist"][i], rotations[f"{side}_elbow"]
        rotations[f"{side}_wrist"] = _turn(fore @ _DOWN, hand) @ fore if np.linalg.norm(hand) > 0.005 else fore
        foot, shank = p["toe"][i] - p["heel"][i], rotations[f"{side}_knee"]
        rotations[f"{side}_ankle"] = shank
        if np.linalg.norm(foot) > 0.02:
            front = _unit(foot)
            left = np.cross(shank[:, 1], front)
            left = _unit(left) if np.linalg.norm(left) > 0.05 else shank[:, 0]
            rotations[f"{side}_ankle"] = np.stack([left, np.cross(front, left), front], 1)
    turned, placed = (np.stack([x[name] for name in JOINTS]) for x in (rotations, positions))
    build = Build(
        offsets_of(turned, placed),
        *(float(np.linalg.norm(p[a] - p[b], axis=1).mean()) for a, b in (("hand", "wrist"), ("toe", "heel"))),
    )
    return Stances(turned[None], placed[None], np.array([height])), build


def offsets_of(rotations: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(J, 3) of a `Build` whose joints, turned by rotations (J, 3, 3), lie at positions (J, 3)."""
    found = np.zeros((len(JOINTS), 3))
    for i, name in enumerate(JOINTS[1:], 1):
        if name != "head":
            parent = JOINT_INDEX[PARENT[name]]
            found[i] = rotations[parent].T @ (positions[i] - positions[parent])
    spine, at = JOINT_INDEX["spine"], JOINT_INDEX["head"]
    neck = np.array([0, np.mean([found[JOINT_INDEX[f"{side}_shoulder"], 1] for side in SIDES]), 0])
    found[at] = neck + rotations[at].T @ (positions[at] - positions[spine] - rotations[spine] @ neck)
    return found


def _head(p: dict, up: np.ndarray, shoulders: np.ndarray, spine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and position of the head: its left is from ear to ear, its up from the neck to between them."""
    between, across = p["ear"].mean(0), p["ear"][0] - p["ear"][1]
    top = _unit((between - shoulders - up * 0.03) * [1, 1, 0.5])
    nose = p["nose"] - between
    nose = nose - across * (nose @ across) / max(1e-9, across @ across)
    if abs(_unit(across) @ top) < 0.8:
        rotation = _axes(top, across)
    else:
        front = _unit(nose) if np.linalg.norm(nose) > 0.01 else spine[:, 2]
        left = _unit(np.cross(top, front))
        rotation = np.stack([left, top, np.cross(left, top)], 1)
    return rotation, between - rotation[:, 1] * _NECK


def snapped(parts: np.ndarray, uv: np.ndarray, mask: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """A map (H, W) and (2, H, W) brought to the person's mask (H, W), uint8 probabilities 0 to 255.

    Every pixel of the person takes what the nearest pixel of the body has; the further from the body a pixel lies, the
    surer it must be. height: pixels a body height.
    """
    out_parts, out_uv = np.zeros_like(parts), np.zeros_like(uv)
    if not parts.any():
        return out_parts, out_uv
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero((mask >= _LEAST_CHANCE[0]) | (parts > 0)))
    inner = (slice(None), *box)
    body = parts[box]
    rows, columns = (x[0].numpy() for x in nearest(torch.from_numpy(body > 0)[None], 128))
    own = np.mgrid[: body.shape[0], : body.shape[1]]
    off = np.hypot(rows - own[0], columns - own[1]) / height
    person = mask[box] > _LEAST_CHANCE[np.minimum(off * _PER_HEIGHT, len(_LEAST_CHANCE) - 1).astype(int)]
    out_parts[box] = np.where(person, body[rows, columns], 0)
    out_uv[inner] = np.where(person, uv[inner][:, rows, columns], 0)
    return out_parts, out_uv


def fitted_body(
    stance: Stances, build: Build, mask: np.ndarray, parts: np.ndarray | None = None, rounds: int = 3
) -> Build:
    """The build with widths, hair and skirt as the mask (H, W), uint8 probabilities, asks.

    stance: of one frame. parts: (H, W) what each pixel of the mask is, None where that is not known. Widths come from
    the area that falls to each part, hair from how far the mask stands off the head, a skirt from the gap between the
    legs.
    """
    build = replace(build, skirt=_skirt(stance, build, mask))
    near = parts
    for _ in range(rounds):
        raw, uv = drawn(stance, [build], mask.shape)
        if parts is None:
            near, _ = snapped(raw[0], uv[0], mask, stance.height[0])
        build = _refitted(stance, build, raw[0], near)
    build = _with_hair(stance, build, raw[0], near)
    raw, uv = drawn(stance, [build], mask.shape)
    return replace(build, outline=outline.offsets_of(raw[0], uv[0].astype(np.float32), mask > 127, stance.height[0]))


def _refitted(stance: Stances, build: Build, raw: np.ndarray, near: np.ndarray) -> Build:
    """One round: raw is the body as it is drawn, near what of the mask falls to each part."""
    height, places, x, y = _pixels(stance, raw.shape)
    limbs, trunk = build.limbs.copy(), build.trunk.copy()
    for number, (limb, ends) in enumerate(LIMBS.items()):
        ratios, bare = [], np.ones(raw.shape, bool)
        if "leg" in limb and build.skirt[1] > 0:
            # further up the mask shows cloth
            hips, ankles = (np.mean([places[f"{side}_{joint}"] for side in SIDES], 0) for joint in ("hip", "ankle"))
            down = ankles - hips
            bare = (x - hips[0]) * down[0] + (y - hips[1]) * down[1] > (_step(build.skirt[0]) + 0.03) * (down @ down)
        for side in SIDES:
            parts = PARTS[f"{side}_{limb}"]
            a, b = (places[f"{side}_{joint}"] for joint in ends)
            length = np.linalg.norm(b - a)
            got, was = np.isin(near, parts) & bare, np.isin(raw, parts) & bare
            if length >= 0.04 * height and got.sum() >= 20 and was.sum() >= 20:
                at = ((x - a[0]) * (b - a)[0] + (y - a[1]) * (b - a)[1]) / length**2
                halves = [(at >= low) & (at < low + 0.5) for low in (0.0, 0.5)]
                if not bare[was | (at < 0.5)].all():
                    halves = [np.ones_like(bare)] * 2
                ratios.append([(got & half).sum() / max(10, (was & half).sum()) for half in halves])
        if ratios:
            limbs[number] = (limbs[number] * np.mean(ratios, 0).clip(0.7, 1.5)).clip(0.6, 2.6)
    hips, shoulders = (np.mean([places[f"{side}_{joint}"] for side in SIDES], 0) for joint in ("hip", "shoulder"))
    up = shoulders - hips
    at = ((x - hips[0]) * up[0] + (y - hips[1]) * up[1]) / max(1.0, up @ up)
    got, was = np.isin(near, TORSO), np.isin(raw, TORSO)
    for number, (low, high) in enumerate(_BANDS):
        band = (at >= low) & (at < high)
        if (was & band).sum() > 20:
            ratio = np.clip((got & band).sum() / (was & band).sum(), 0.8, 1.25)
            trunk[number] = np.clip(trunk[number] * ratio, 0.75, 1.6)
    head, was = build.head, np.isin(raw, HEAD).sum()
    if was > 20:
        head = float(np.clip(head * np.clip((np.isin(near, HEAD).sum() / was) ** 0.5, 0.85, 1.2), 0.85, 1.1))
    return replace(build, limbs=limbs, trunk=trunk, head=head)


def _with_hair(stance: Stances, build: Build, raw: np.ndarray, near: np.ndarray) -> Build:
    """The build with what of the mask stands off its head. raw: the body as it is drawn; near: what of the mask falls
    to each part."""
    height, places, x, y = _pixels(stance, near.shape)
    up = stance.rotations[0, JOINT_INDEX["head"], :2, 1]
    if np.linalg.norm(up) < 0.7:
        return build  # seen from above
    seen, up = float(np.linalg.norm(up)), up / np.linalg.norm(up)
    at, size, bare = places["head"], build.head, HEAD_WIDTH * build.head
    across = ((x - at[0]) * up[1] - (y - at[1]) * up[0]) / height
    along = ((x - at[0]) * up[0] + (y - at[1]) * up[1]) / height / seen

    def half_width(mask: np.ndarray, low: float, high: float) -> float:
        band = mask & (along >= low * size) & (along < high * size)
        return band.sum() / height**2 / (high - low) / size / seen / 2

    def top(mask: np.ndarray) -> float:
        middle = mask & (np.abs(across) < 0.3 * bare)
        return float(along[middle].max()) if middle.any() else 0.0

    own, drawn_head = np.isin(near, HEAD), np.isin(raw, HEAD)
    beside = (near > 0) & (np.abs(across) < 3 * bare)
    rise = top(own) - top(drawn_head)
    wide, low = (half_width(own, *band) - half_width(drawn_head, *band) for band in ((0.07, 0.11), (0.03, 0.06)))
    locks = half_width(beside, -0.02, 0.02)
    hair, fall = np.zeros(4), np.zeros(2)
    if max(rise, wide) > _LEAST_STEP:
        radius = min(bare + max(wide, 0.5 * rise, 0.0), 2.2 * bare)
        # a ball around the head, that goes on down the cheeks where it is wide there, too
        cheeks = min(radius, bare + low) if low > _LEAST_STEP else 0.7 * bare
        hair = np.array([0.045 * size, cheeks, max(HEAD_TOP * size + max(rise, 0.0), radius + 0.05 * size), radius])
    if locks > 1.2 * bare and low > 0:
        fall = np.array([0.16, min(locks, 2 * bare)])
    return replace(build, hair=hair, locks=fall)


def _skirt(stance: Stances, build: Build, mask: np.ndarray) -> np.ndarray:
    """(2,) hem and half its width, see `Build`, by the gap between the legs and where the mask gets narrow; 0 for
    none."""
    none = np.zeros(2)
    height, places, _, _ = _pixels(stance, mask.shape)
    chain = np.array([[places[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle")] for side in SIDES])
    ends = chain.mean(0)
    axis = ends[2] - ends[0]
    if np.linalg.norm(axis) < 0.3 * height or -_unit(axis) @ _unit(places["spine"] - ends[0]) < 0.85:
        return none  # nobody stands here
    lowest = mask.shape[0] / 2 + chain[:, 1, 1].min()
    if lowest < 0:
        return none  # the knees are below the picture
    axis = _unit(axis)
    side = np.array([-axis[1], axis[0]])  # to the right in the picture
    if side[0] < 0:
        side = -side
    steps = (np.arange(_LEG_STEPS) + 0.5) / _LEG_STEPS
    reach = np.arange(-0.4 * height, 0.4 * height)
    wide, bare, filled = np.zeros(_LEG_STEPS), np.zeros(_LEG_STEPS), np.full(_LEG_STEPS, np.nan)
    arms = _around_arms(places, height)
    for i, step in enumerate(steps):
        # along each leg at this height: where it is, and how thick it would be if it were bare
        legs, thick = [], []
        for hip, knee, ankle in chain:
            heights = [(point - ends[0]) @ axis for point in (hip, knee, ankle)]
            at = step * (ends[2] - ends[0]) @ axis
            share = np.interp(at, heights, [0.0, 1.0, 2.0]) if heights[0] < heights[1] < heights[2] else 2 * step
            place = hip + (knee - hip) * min(share, 1.0) + (ankle - knee) * max(share - 1.0, 0.0)
            legs.append((place - ends[0]) @ side)
            thick.append(np.interp(share, [0, 1, 1.1, 2], [0.058, 0.04, 0.04, 0.026]) * height)
        line = ends[0] + axis * step * ((ends[2] - ends[0]) @ axis) + side * reach[:, None]
        columns, rows = line[:, 0] + mask.shape[1] / 2, mask.shape[0] / 2 - line[:, 1]
        inside = (columns >= 0) & (columns < mask.shape[1]) & (rows >= 0) & (rows < mask.shape[0])
        there = np.zeros(len(reach), bool)
        there[inside] = mask[rows[inside].astype(int), columns[inside].astype(int)] > 127
        there &= ~arms(line)
        person = _run(there, reach, min(legs), max(legs))
        (first, second), (one, two) = sorted(legs), thick
        wide[i] = person.sum()
        bare[i] = min(one + two + second - first, 2 * (one + two))
        gap = (reach > first + one) & (reach < second - two)
        if gap.sum() > 0.015 * height:
            filled[i] = person[gap].mean()
    return _hem(steps, wide / height, bare / height, filled)


def _hem(steps: np.ndarray, wide: np.ndarray, bare: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """As `_skirt`. wide, bare: of the mask and of bare legs at the steps from hips (0) to ankles (1). filled: how much
    of the gap between the legs is in the mask, NaN where there is no gap."""
    none, ratio = np.zeros(2), wide / np.maximum(bare, 1e-6)
    best, hem = 0.0, None
    for i in range(_NEAR_STEPS, len(steps) - 2):
        above, below = slice(max(0, i - _NEAR_STEPS), i), slice(i, i + _NEAR_STEPS)
        drop = (ratio[above].mean() - ratio[below].mean()) + _mean(filled[above], 1) - _mean(filled[below], 1)
        if drop > best:
            best, hem = drop, i
    if best > 0.45 and hem is not None:
        above, below = ratio[hem - _NEAR_STEPS : hem].mean(), ratio[hem : hem + _NEAR_STEPS].mean()
        gap = filled[:hem][steps[:hem] > 0.12]
        if _mean(gap, 0) > 0.8 and above > 1.15 * below or np.isnan(gap).all() and above > max(1.15, 1.25 * below):
            return np.array([_rest(steps[hem]), wide[max(0, hem - 3) : hem].mean() / 2])
    open_below = filled[int(0.3 * len(steps)) :]
    if _mean(open_below, 0) > 0.9 and np.median(ratio[len(steps) // 2 :]) > 1.5:
        return np.array([_rest(0.95), wide[-6:-2].mean() / 2])  # down to the ankles
    return none


def _mean(x: np.ndarray, otherwise: float) -> float:
    return otherwise if np.isnan(x).all() else float(np.nanmean(x))


def _rest(step: float) -> float:
    """Rest height of a place between hips (0) and ankles (1)."""
    return 0.515 - step * 0.47


def _step(rest: float) -> float:
    """The place between hips (0) and ankles (1) at this rest height."""
    return (0.515 - rest) / 0.47


def _run(there: np.ndarray, reach: np.ndarray, low: float, high: float) -> np.ndarray:
    """Of a row of the mask what hangs together with the places between low and high."""
    edges = np.diff(np.pad(there.astype(int), 1))
    kept = np.zeros_like(there)
    for start, stop in zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)):
        if reach[stop - 1] >= low and reach[start] <= high:
            kept[start:stop] = True
    return kept


def _around_arms(places: dict[str, np.ndarray], height: float):
    """Says of points (N, 2) which lie on forearms and hands."""
    bones = [(places[f"{side}_elbow"], places[f"{side}_wrist"]) for side in SIDES]

    def near(points: np.ndarray) -> np.ndarray:
        found = np.zeros(len(points), bool)
        for a, b in bones:
            end = b + (b - a) * 0.6
            along = ((points - a) @ (end - a) / max(1.0, (end - a) @ (end - a))).clip(0, 1)
            found |= np.linalg.norm(points - a - along[:, None] * (end - a), axis=1) < 0.03 * height
        return found

    return near


def _pixels(stance: Stances, size: tuple[int, int]) -> tuple[float, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Of one frame: its height in pixels, the joints' places (2,) and each pixel's x and y (H, W), in pixels about the
    picture's middle, y up."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    height = float(stance.height[0])
    places = {name: stance.positions[0, i, :2] * height for i, name in enumerate(JOINTS)}
    return height, places, columns + 0.5 - size[1] / 2, size[0] / 2 - rows - 0.5


def _limb(base: np.ndarray, direction: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The rotation of a limb on a joint turned by `base` that points in this direction; middle: see _MIDDLE."""
    return base @ _turn(middle, base.T @ direction) @ _turn(_DOWN, middle)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / max(1e-9, float(np.linalg.norm(v)))


def _axes(up: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The rotation whose columns are left, up and front; up is kept, left as near as can be."""
    up = _unit(up)
    front = _unit(np.cross(left, up))
    return np.stack([np.cross(up, front), up, front], 1)


def _turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation that brings direction a to direction b."""
    a, b = _unit(a), _unit(b)
    v, c = np.cross(a, b), float(a @ b)
    if c < -0.999:
        return np.diag([1.0, -1.0, -1.0])
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)
