"""Separate the people in a map by their heads, where parts are known, and keep only the largest one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy  # loads its ndimage at the first use

from .sequence import FEET, HEAD, SHINS, THIGHS, TORSO, PoseSequence

# head, torso, arms, thighs, and shins with feet
_GROUPS = HEAD, TORSO, (3, 4, *range(15, 23)), THIGHS, SHINS + FEET
_APART = 1.2  # head sizes between centres; nearer pieces are one head, divided by an arm or by hair
_LEAST_HEAD = 0.05  # share of the largest head's area; smaller pieces are specks, or people far in the background
_LEAST_TORSO = 0.3  # share of the largest torso's area, for a person without a visible head
# Limits for each person but the largest, as shares of their pixels. Measured on pairs of rendered people, and on people
# of whom only half is visible, in whom estimators see more than there is.
_HEAD_SHARE, _TORSO_SHARE, _ARM_SHARE = (0.025, 0.45), 0.07, 0.05
_GROUP_SHARE, _GROUPS_NEEDED = 0.03, 4  # least share of a visible group of _GROUPS, and the number of such groups
_GRID = 160  # rows of the grid on which people are separated


# The pixels from which a person is grown, bool (H, W): the head, or the torso if there is none; and a head's size.
_Seed = tuple[np.ndarray, float]


def people(labels: np.ndarray) -> list[np.ndarray]:
    """Separate the people in a map of parts, uint8 (H, W): a mask, bool (H, W), of each, the largest first.

    Empty without people. Besides the largest person, others count only with a head (or apart from all heads), torso and
    arms, and with legs if the largest has them; estimators' false detections have less than that.
    """
    mask = labels > 0
    if not mask.any():
        return []
    heads = _heads(labels)
    seeds = heads + _headless(labels, mask, heads)
    if len(seeds) < 2:
        return [mask]
    counts = [np.bincount(labels[person], minlength=25) for person in _parted(seeds, mask)]
    areas = [count.sum() for count in counts]
    # (N, 5): shares of head, torso, arms, thighs, and shins with feet
    shares = np.array([[count[[*group]].sum() / max(count.sum(), 1) for group in _GROUPS] for count in counts])
    num_groups, largest = (shares >= _GROUP_SHARE).sum(1), int(np.argmax(areas))
    head, torso, arms = shares.T[:3]
    good_head = (head >= _HEAD_SHARE[0]) & (head <= _HEAD_SHARE[1]) | (np.arange(len(seeds)) >= len(heads))
    counts_in = good_head & (torso >= _TORSO_SHARE) & (arms >= _ARM_SHARE)
    counts_in &= num_groups >= min(_GROUPS_NEEDED, num_groups[largest])
    counts_in[largest] = True
    if counts_in.sum() < 2:
        return [mask]
    kept = _parted([seed for seed, is_in in zip(seeds, counts_in) if is_in], mask)
    return sorted(kept, key=lambda person: -np.count_nonzero(person))


def largest_alone(poses: PoseSequence) -> PoseSequence:
    """Keep only the largest person of each map; unchanged when all maps show one person, or the parts are unknown."""
    everybody = [] if poses.parts is None else [people(labels) or [labels > 0] for labels in poses.parts]
    if all(len(masks) < 2 for masks in everybody):
        return poses
    kept = np.stack([masks[0] for masks in everybody])
    uv = None if poses.uv is None else np.where(kept[:, None], poses.uv, poses.uv.dtype.type(0))
    return replace(poses, parts=np.where(kept, poses.parts, np.uint8(0)), uv=uv)


def _heads(labels: np.ndarray) -> list[_Seed]:
    """Find the heads; pieces of one head are joined."""
    regions, areas = numbered_regions(np.isin(labels, HEAD))
    found, centres = [], []
    for number in range(1, 1 + np.count_nonzero(areas >= _LEAST_HEAD * areas[:1])):
        pixels = regions == number
        rows, columns = np.nonzero(pixels)
        centre, size = np.array([rows.mean(), columns.mean()]), float(max(np.ptp(rows), np.ptp(columns)) + 1)
        for (head, head_size), at in zip(found, centres):
            if np.hypot(*(centre - at)) <= _APART * head_size:
                head |= pixels
                break
        else:
            found.append((pixels, size))
            centres.append(centre)
    return found


def _headless(labels: np.ndarray, mask: np.ndarray, heads: list[_Seed]) -> list[_Seed]:
    """Find the torsos of people without a head: apart from all people with one, and to the side of them.

    A torso below a person may be a part of that person, cut in two.
    """
    torso, head = np.isin(labels, TORSO), np.zeros_like(mask)
    for pixels, _ in heads:
        head |= pixels
    regions, areas = numbered_regions(mask)
    torsos = np.bincount(regions[torso], minlength=len(areas) + 1)
    with_head = np.unique(regions[head])
    taken = (head | torso & np.isin(regions, with_head)).any(axis=0)
    found = []
    for number in np.flatnonzero((torsos > 0) & (torsos >= _LEAST_TORSO * torsos.max())):
        pixels = torso & (regions == number)
        columns = pixels.any(axis=0)
        if number not in with_head and not (columns & taken).any():
            found.append((pixels, float(np.sqrt(torsos[number])) / 2))
            taken |= columns
    return found


def _parted(seeds: list[_Seed], mask: np.ndarray) -> list[np.ndarray]:
    """Divide the mask among the seeds, bool (H, W) each, by the shortest path inside the mask, counted in head sizes.

    Pixels that no path reaches belong to the nearest person. Works on a grid of cells for speed.
    """
    step = -(-mask.shape[0] // _GRID)
    inside = _coarse(mask, step)
    far = np.stack([_steps(_coarse(pixels, step), inside) / size for pixels, size in seeds])
    owner = np.where(np.isfinite(far.min(axis=0)), far.argmin(axis=0), -1)
    owner = owner[tuple(scipy.ndimage.distance_transform_edt(owner < 0, return_distances=False, return_indices=True))]
    owner = owner.repeat(step, axis=0).repeat(step, axis=1)[: mask.shape[0], : mask.shape[1]]
    return [mask & (owner == index) for index in range(len(seeds))]


def _coarse(mask: np.ndarray, step: int) -> np.ndarray:
    """Reduce a mask to cells of `step` x `step` pixels, true where any pixel is, so that thin limbs stay connected."""
    rows, columns = (np.arange(0, length, step) for length in mask.shape)
    return np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)


def _steps(start: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The number of steps inside the mask from `start` to each pixel, infinite where no path leads."""
    steps, count = np.full(inside.shape, np.inf), 0
    reached = start & inside
    while reached.any():
        steps[reached] = count
        reached = scipy.ndimage.binary_dilation(reached) & inside & np.isinf(steps)
        count += 1
    return steps


def several(number: int) -> str:
    """The notice about a photo of `number` people, 2 or more."""
    words = {2: "Two", 3: "Three", 4: "Four"}.get(number, "Several")
    return f"{words} people are in the photo: the {'larger' if number == 2 else 'largest'} one is used."


def numbered_regions(mask: np.ndarray, eight: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Number the connected regions of `mask`, bool (H, W), from the largest: int32 (H, W), 0 outside; and areas (N,).

    eight: whether pixels that touch at a corner are connected.
    """
    regions, count = scipy.ndimage.label(mask, np.ones((3, 3)) if eight else None)
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-areas, kind="stable")
    number = np.zeros(count + 1, np.int32)
    number[order + 1] = np.arange(1, count + 1)
    return number[regions], areas[order]


def small_regions(mask: np.ndarray, limit: float, are_holes: bool) -> np.ndarray:
    """bool (H, W): the connected regions of `mask` of at most `limit` pixels, except the largest region of all.

    are_holes: regions at the border do not count, and pixels that touch at a corner are not connected.
    """
    numbers, areas = numbered_regions(mask, eight=not are_holes)
    wanted = np.append(False, areas <= limit)
    wanted[:2] = False
    if are_holes:
        wanted[np.concatenate([numbers[[0, -1]].ravel(), numbers[:, [0, -1]].ravel()])] = False
    return wanted[numbers]
