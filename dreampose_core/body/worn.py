"""Fit a body to a mask: widths, hair, a skirt, and the outline's offsets from the drawn body."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..poses.sequence import JOINT_INDEX, SIDES, both
from .build import HEAD_TOP, HEAD_WIDTH, Build, Stances, drawn
from .cones import HEAD, LIMBS, PARTS, TORSO
from .fitting import unit
from .outline import outline_of, snapped

_BANDS = ((-0.25, 0.2), (0.2, 0.6), (0.6, 1.05))  # hips, waist and chest, from 0 at the hips to 1 at the shoulders
_LEAST_STEP = 0.003  # body heights; thinner hair counts as part of the head
_HIPS, _LEGS = 0.515, 0.47  # rest height of the hips; distance from there to the ankles
_ROUNDS = 3
_SHORTER = 0.006  # the drawn skirt ends this much above the hem, so that what is below never shows on it
# samples between hips and ankles in the search for a skirt; samples compared on each side of a hem
_LEG_STEPS, _NEAR_STEPS = 48, 6


def fitted_body(stance: Stances, build: Build, mask: np.ndarray, parts: np.ndarray | None = None) -> Build:
    """Fit the widths, hair, skirt and outline of a build to a mask (H, W), uint8 probabilities.

    stance: one frame. parts: (H, W) part of each pixel of the mask; None if unknown. Widths come from the area of each
    part, hair from how far the mask stands off the head, a skirt from the gap between the legs.
    """
    build = replace(build, skirt=_skirt(stance, mask))
    near = parts
    for _ in range(_ROUNDS):
        raw, uv = drawn(stance, [build], mask.shape)
        if parts is None:
            near, _ = snapped(raw[0], uv[0], mask, stance.height[0])
        build = _refitted(stance, build, raw[0], near)
    build = _with_hair(stance, build, raw[0], near)
    raw, uv = drawn(stance, [build], mask.shape)
    outline = outline_of(raw[0], uv[0].astype(np.float32), mask > 127, stance.height[0], build.skirt[0])
    return replace(build, outline=outline)


def _refitted(stance: Stances, build: Build, raw: np.ndarray, near: np.ndarray) -> Build:
    """One round of fitting. raw: (H, W) parts of the drawn body; near: (H, W) parts of the mask."""
    height, places, x, y = _pixels(stance, raw.shape)
    limbs, trunk = build.limbs.copy(), build.trunk.copy()
    hips, shoulders = (places[both(joint)].mean(0) for joint in ("hip", "shoulder"))
    for number, (limb, ends) in enumerate(LIMBS.items()):
        ratios, bare = [], np.ones(raw.shape, bool)
        if "leg" in limb and build.skirt[1] > 0:
            down, hem = places[both("ankle")].mean(0) - hips, (_HIPS - build.skirt[0]) / _LEGS
            bare = _along(x, y, hips, down) > (hem + 0.03) * (down @ down)  # the mask shows cloth above the hem
        for side, a, b in zip(SIDES, *(places[both(joint)] for joint in ends)):
            parts, length = PARTS[f"{side}_{limb}"], np.linalg.norm(b - a)
            got, was = np.isin(near, parts) & bare, np.isin(raw, parts) & bare
            if length >= 0.04 * height and got.sum() >= 20 and was.sum() >= 20:
                at = _along(x, y, a, b - a) / length**2
                halves = [(at >= low) & (at < low + 0.5) for low in (0.0, 0.5)]
                if not bare[was | (at < 0.5)].all():
                    halves = [np.ones_like(bare)] * 2
                ratios.append([(got & half).sum() / max(10, (was & half).sum()) for half in halves])
        if ratios:
            limbs[number] = (limbs[number] * np.mean(ratios, 0).clip(0.7, 1.5)).clip(0.6, 2.6)
    up = shoulders - hips
    at = _along(x, y, hips, up) / max(1.0, up @ up)
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
    """Add the hair that stands off the head in the mask. raw: (H, W) parts of the drawn body; near: of the mask."""
    height, places, x, y = _pixels(stance, near.shape)
    up = stance.rotations[0, JOINT_INDEX["head"], :2, 1]
    if np.linalg.norm(up) < 0.7:
        return build  # the head is seen from above
    seen, up = float(np.linalg.norm(up)), up / np.linalg.norm(up)
    at, size, bare = places[JOINT_INDEX["head"]], build.head, HEAD_WIDTH * build.head
    across = ((x - at[0]) * up[1] - (y - at[1]) * up[0]) / height
    along = _along(x, y, at, up) / height / seen

    def half_width(mask: np.ndarray, low: float, high: float) -> float:
        band = mask & (along >= low * size) & (along < high * size)
        return band.sum() / height**2 / (high - low) / size / seen / 2

    def top(mask: np.ndarray) -> float:
        middle = mask & (np.abs(across) < 0.3 * bare)
        return float(along[middle].max()) if middle.any() else 0.0

    mask_head, drawn_head = np.isin(near, HEAD), np.isin(raw, HEAD)
    around_neck = (near > 0) & (np.abs(across) < 3 * bare)
    rise = top(mask_head) - top(drawn_head)
    wide, low = (half_width(mask_head, *band) - half_width(drawn_head, *band) for band in ((0.07, 0.11), (0.03, 0.06)))
    locks = half_width(around_neck, -0.02, 0.02)
    hair, fall = np.zeros(4), np.zeros(2)
    if max(rise, wide) > _LEAST_STEP:
        radius = min(bare + max(wide, 0.5 * rise, 0.0), 2.2 * bare)
        # A ball around the head, which continues down the cheeks if the hair is wide there, too.
        cheeks = min(radius, bare + low) if low > _LEAST_STEP else 0.7 * bare
        hair = np.array([0.045 * size, cheeks, max(HEAD_TOP * size + max(rise, 0.0), radius + 0.05 * size), radius])
    if locks > 1.2 * bare and low > 0:
        fall = np.array([0.16, min(locks, 2 * bare)])
    return replace(build, hair=hair, locks=fall)


def _skirt(stance: Stances, mask: np.ndarray) -> np.ndarray:
    """Hem of a skirt and half its width there (2,), see `Build`; 0 for no skirt.

    Looks at the gap between the legs and for the place where the mask becomes narrow.
    """
    none = np.zeros(2)
    height, places, _, _ = _pixels(stance, mask.shape)
    chain = np.stack([places[both(joint)] for joint in ("hip", "knee", "ankle")], 1)
    ends = chain.mean(0)
    axis = ends[2] - ends[0]
    if np.linalg.norm(axis) < 0.3 * height or -unit(axis) @ unit(places[JOINT_INDEX["spine"]] - ends[0]) < 0.85:
        return none  # the person does not stand
    if mask.shape[0] / 2 + chain[:, 1, 1].min() < 0:
        return none  # the picture ends above the knees
    axis = unit(axis)
    side = np.array([-axis[1], axis[0]])  # points right in the picture
    if side[0] < 0:
        side = -side
    steps = (np.arange(_LEG_STEPS) + 0.5) / _LEG_STEPS
    reach = np.arange(-0.4 * height, 0.4 * height)
    wide, bare, filled = np.zeros(_LEG_STEPS), np.zeros(_LEG_STEPS), np.full(_LEG_STEPS, np.nan)
    for i, step in enumerate(steps):
        # Position of each leg at this height, and half its width if it were bare.
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
        there &= ~_on_arms(line, places, height)
        person = _run(there, reach, min(legs), max(legs))
        (first, one), (second, two) = sorted(zip(legs, thick))
        wide[i] = person.sum()
        bare[i] = min(one + two + second - first, 2 * (one + two))
        gap = (reach > first + one) & (reach < second - two)
        if gap.sum() > 0.015 * height:
            filled[i] = person[gap].mean()
    return _hem(steps, wide / height, bare / height, filled)


def _hem(steps: np.ndarray, wide: np.ndarray, bare: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Find the hem and half its width (2,), as `_skirt`, in samples from hips (0) to ankles (1).

    wide, bare: widths of the mask and of bare legs. filled: share of the gap between the legs that is in the mask, NaN
    where there is no gap.
    """
    none, ratio = np.zeros(2), wide / np.maximum(bare, 1e-6)
    best = hem = 0
    for i in range(_NEAR_STEPS, len(steps) - 2):
        above, below = slice(max(0, i - _NEAR_STEPS), i), slice(i, i + _NEAR_STEPS)
        drop = (ratio[above].mean() - ratio[below].mean()) + _mean(filled[above], 1) - _mean(filled[below], 1)
        if drop > best:
            best, hem = drop, i
    if best > 0.45:
        above, below = ratio[hem - _NEAR_STEPS : hem].mean(), ratio[hem : hem + _NEAR_STEPS].mean()
        gap = filled[:hem][steps[:hem] > 0.12]
        if _mean(gap, 0) > 0.8 and above > 1.15 * below or np.isnan(gap).all() and above > max(1.15, 1.25 * below):
            return np.array([_HIPS - steps[hem] * _LEGS + _SHORTER, wide[max(0, hem - 3) : hem].mean() / 2])
    open_below = filled[int(0.3 * len(steps)) :]
    if _mean(open_below, 0) > 0.9 and np.median(ratio[len(steps) // 2 :]) > 1.5:
        return np.array([_HIPS - 0.95 * _LEGS, wide[-6:-2].mean() / 2])  # the skirt reaches the ankles
    return none


def _mean(x: np.ndarray, otherwise: float) -> float:
    return otherwise if np.isnan(x).all() else float(np.nanmean(x))


def _run(there: np.ndarray, reach: np.ndarray, low: float, high: float) -> np.ndarray:
    """The runs in a row of the mask that touch the range from low to high."""
    edges = np.diff(np.pad(there.astype(int), 1))
    kept = np.zeros_like(there)
    for start, stop in zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)):
        if reach[stop - 1] >= low and reach[start] <= high:
            kept[start:stop] = True
    return kept


def _on_arms(points: np.ndarray, places: np.ndarray, height: float) -> np.ndarray:
    """Bool (N,): which of points (N, 2) lie on forearms and hands."""
    on_arms = np.zeros(len(points), bool)
    for a, wrist in zip(places[both("elbow")], places[both("wrist")]):
        way = 1.6 * (wrist - a)
        along = ((points - a) @ way / max(1.0, way @ way)).clip(0, 1)
        on_arms |= np.linalg.norm(points - a - along[:, None] * way, axis=1) < 0.03 * height
    return on_arms


def _along(x, y, start: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Dot product of each pixel's position, relative to `start`, with the vector `way`."""
    return (x - start[0]) * way[0] + (y - start[1]) * way[1]


def _pixels(stance: Stances, size: tuple[int, int]) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Of one frame: the body's height, the joints' positions (J, 2), and each pixel's x and y (H, W).

    All are in pixels, with 0 in the picture's middle and y up.
    """
    rows, columns = np.mgrid[: size[0], : size[1]]
    height = float(stance.height[0])
    return height, stance.positions[0, :, :2] * height, columns + 0.5 - size[1] / 2, size[0] / 2 - rows - 0.5
