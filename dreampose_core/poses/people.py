"""Who is in a map: people told apart by their heads, where parts are known, and the largest of them alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .components import numbered_regions
from .sequence import PoseSequence

HEAD, TORSO, ARMS, THIGHS, SHINS = (23, 24), (1, 2), (3, 4, *range(15, 23)), (7, 8, 9, 10), (5, 6, 11, 12, 13, 14)
_APART = 1.2  # in head sizes, centre to centre: nearer pieces are one head, parted by an arm or by hair
_LEAST_HEAD = 0.05  # of the largest head's area: what is smaller is a speck; somebody so small stands far behind
_LEAST_TORSO = 0.3  # of the largest torso's area, for somebody whose head is not seen
# Of the pixels of somebody beside the largest, measured on pairs of rendered people and on half of one, of which
# estimators see too much.
_HEAD_SHARE, _TORSO_SHARE, _ARM_SHARE = (0.025, 0.45), 0.07, 0.05
_GROUP_SHARE, _GROUPS_NEEDED = 0.03, 4  # so many of head, torso, arms, thighs, and shins with feet, each of this share
_GRID = 160  # rows in which people are told apart


@dataclass(frozen=True)
class _Seed:
    """From where a person is found: bool (H, W) pixels of the head, or of the torso where there is no head; how large a
    head is."""

    pixels: np.ndarray
    size: float
    is_head: bool


def people(labels: np.ndarray) -> list[np.ndarray]:
    """bool (H, W): each person in a map of parts, uint8 (H, W), the one with most pixels first; none where nobody is.

    Somebody beside the largest counts only with head (or apart from all heads), torso and arms, and with legs where the
    largest has them: what an estimator sees where there is nobody is less than that.
    """
    mask = labels > 0
    if not mask.any():
        return []
    seeds = _heads(labels)
    seeds += _headless(labels, mask, seeds)
    if len(seeds) < 2:
        return [mask]
    shares = [_shares(labels, one) for one in _parted(seeds, mask)]
    largest = max(range(len(seeds)), key=lambda index: shares[index][0])
    needed = min(_GROUPS_NEEDED, _num_groups(shares[largest]))
    kept = [
        seed
        for index, (seed, own) in enumerate(zip(seeds, shares))
        if index == largest
        or _num_groups(own) >= needed
        and (not seed.is_head or _HEAD_SHARE[0] <= own[1] <= _HEAD_SHARE[1])
        and own[2] >= _TORSO_SHARE
        and own[3] >= _ARM_SHARE
    ]
    return sorted(_parted(kept, mask), key=lambda one: -np.count_nonzero(one)) if len(kept) > 1 else [mask]


def largest_alone(poses: PoseSequence) -> PoseSequence:
    """One map with its largest person alone; the same map where it shows one person, or does not know its parts."""
    if poses.parts is None or len(everybody := people(poses.parts[0])) < 2:
        return poses
    kept = everybody[0]
    uv = None if poses.uv is None else np.where(kept, poses.uv, poses.uv.dtype.type(0))
    return replace(poses, parts=np.where(kept, poses.parts, np.uint8(0)), uv=uv)


def _heads(labels: np.ndarray) -> list[_Seed]:
    """The heads, pieces of one head put together."""
    regions, areas = numbered_regions(np.isin(labels, HEAD))
    found: list[tuple[np.ndarray, float, np.ndarray]] = []  # pixels, size, centre
    for number in range(1, 1 + np.count_nonzero(areas >= _LEAST_HEAD * areas[:1])):
        pixels = regions == number
        rows, columns = np.nonzero(pixels)
        centre, size = np.array([rows.mean(), columns.mean()]), float(max(np.ptp(rows), np.ptp(columns)) + 1)
        same = next((i for i, (_, larger, at) in enumerate(found) if np.hypot(*(centre - at)) <= _APART * larger), None)
        if same is None:
            found.append((pixels, size, centre))
        else:
            found[same] = (found[same][0] | pixels, *found[same][1:])
    return [_Seed(pixels, size, True) for pixels, size, _ in found]


def _headless(labels: np.ndarray, mask: np.ndarray, heads: list[_Seed]) -> list[_Seed]:
    """The torsos of people who are apart from everybody with a head, and beside them: one below may be the same
    person's, cut in two."""
    torso, head = np.isin(labels, TORSO), np.zeros_like(mask)
    for seed in heads:
        head |= seed.pixels
    regions, areas = numbered_regions(mask)
    torsos = np.bincount(regions[torso], minlength=len(areas) + 1)
    with_head = np.unique(regions[head])
    taken = (head | torso & np.isin(regions, with_head)).any(axis=0)
    found = []
    for number in np.flatnonzero((torsos > 0) & (torsos >= _LEAST_TORSO * torsos.max())):
        pixels = torso & (regions == number)
        columns = pixels.any(axis=0)
        if number not in with_head and not (columns & taken).any():
            found.append(_Seed(pixels, float(np.sqrt(torsos[number])) / 2, False))
            taken |= columns
    return found


def _shares(labels: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(6,): the person's pixels, and the shares of head, torso, arms, thighs, and shins with feet among them."""
    count = np.bincount(labels[person], minlength=25)
    total = count.sum()
    return np.array(
        [total, *(count[list(group)].sum() / max(total, 1) for group in (HEAD, TORSO, ARMS, THIGHS, SHINS))]
    )


def _num_groups(shares: np.ndarray) -> int:
    return np.count_nonzero(shares[1:] >= _GROUP_SHARE)


def _parted(seeds: list[_Seed], mask: np.ndarray) -> list[np.ndarray]:
    """bool (H, W): for each seed the pixels of the mask that are nearest to it on a way inside the mask, counted in
    head sizes.

    Pixels without such a way belong to whom they are nearest to. Found in cells of some pixels.
    """
    step = -(-mask.shape[0] // _GRID)
    seeds_at = [_coarse(seed.pixels, step) for seed in seeds]
    inside = _coarse(mask, step)
    far = np.stack([_steps(start, inside) / seed.size for start, seed in zip(seeds_at, seeds)])
    owner = np.where(np.isfinite(far.min(axis=0)), far.argmin(axis=0), -1)
    while (owner < 0).any():
        owner = np.where(owner < 0, _spread(owner), owner)
    owner = owner.repeat(step, axis=0).repeat(step, axis=1)[: mask.shape[0], : mask.shape[1]]
    return [mask & (owner == index) for index in range(len(seeds))]


def _coarse(mask: np.ndarray, step: int) -> np.ndarray:
    """bool: cells of `step` x `step` pixels that hold any of the mask, so that thin limbs stay whole."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % step), (0, -width % step)))
    return padded.reshape(-(-height // step), step, -(-width // step), step).any(axis=(1, 3))


def _steps(start: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How many steps inside the mask each pixel is from `start`, infinite where there is no way."""
    steps, count = np.full(inside.shape, np.inf), 0
    reached = start & inside
    while reached.any():
        steps[reached] = count
        reached = (_spread(reached) > 0) & inside & np.isinf(steps)
        count += 1
    return steps


def _spread(values: np.ndarray) -> np.ndarray:
    """The largest of each pixel and its four neighbours."""
    framed = np.pad(values.astype(np.int16), 1, constant_values=-1)
    return np.max(
        [framed[1:-1, 1:-1], framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]], axis=0
    )


def several(number: int) -> str:
    """The sentence about a photo of so many people, 2 or more."""
    words = {2: "Two", 3: "Three", 4: "Four"}.get(number, "Several")
    return f"{words} people are in the photo: the {'larger' if number == 2 else 'largest'} one is used."
