"""Alignment of a motion to the person in the photo: height, feet, middle and width agree, whoever danced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreampose_core.errors import InputError
from dreampose_core.media import Box
from dreampose_core.poses import PoseSequence, fitted
from dreampose_core.poses.align import MAX_SCALE, MAX_WIDENING, MIN_SCALE, MIN_WIDENING, Alignment, aligned, measured
from dreampose_core.synthetic import Moments, Person
from dreampose_core.synthetic.clips import exact_clip
from dreampose_core.synthetic.motion import motion

SIZE = (160, 128)
# seeds of the person in the photo and of the one who moves: grown-ups in trousers
PAIRS = [(21, 149), (140, 2), (147, 107)]
FRAME = 6  # of the motion: the photo's pose


def clip(seed: int, angles, offset, size, **camera) -> PoseSequence:
    person = Person.from_seed(seed)
    person = replace(person, camera=replace(person.camera, **camera))
    return exact_clip(person, Moments.still(angles, offset), size, 10.0)[1]


@pytest.fixture(scope="module")
def scenes() -> dict:
    """For each pair and motion: the photo's map of one pose, and the whole motion by a smaller person, elsewhere, of
    another shape."""
    found = {}
    for pair in PAIRS:
        for name in ("walk", "wave", "shrug"):
            angles, offset = motion(name, torch.arange(16) / 8, Person.from_seed(pair[0]).manner)
            own = clip(pair[0], angles[[FRAME]], offset[[FRAME]], SIZE)
            camera = Person.from_seed(pair[1]).camera
            other = clip(pair[1], angles, offset, (150, 200), zoom=camera.zoom * 0.75, shift=camera.shift + 0.08)
            found[pair, name] = own, other
    return found


def labels(poses: PoseSequence, frame=0) -> np.ndarray:
    return poses.parts[frame] if poses.parts is not None else poses.mask[frame].astype(np.uint8)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a == b) & (a > 0)).sum() / ((a > 0) | (b > 0)).sum())


def without_parts(poses: PoseSequence) -> PoseSequence:
    return replace(poses, parts=None)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", ["walk", "wave", "shrug"])
@pytest.mark.parametrize("kind", ["parts", "parts and U, V", "U, V only"])
def test_height_feet_middle_and_width_are_those_of_the_photo(scenes, pair, name, kind):
    own, other = true_own, true_other = scenes[pair, name]
    if kind == "parts":
        own, other = (PoseSequence(p.parts, None, "none", p.fps) for p in (own, other))
    elif kind == "U, V only":
        own, other = without_parts(own), without_parts(other)
    done, what = aligned(other, own)
    assert done.size == SIZE and len(done) == len(other) and done.fps == other.fps and what.span == ("head", "feet")
    assert (done.parts is None) == (other.parts is None) and (done.uv is None) == (other.uv is None)
    known = kind != "U, V only"
    wanted, found = measured(labels(own), known), measured(labels(done, FRAME), known)
    assert all(abs(found.heights[end] - wanted.heights[end]) <= 2 for end in ("head", "feet"))
    assert abs(found.middle - wanted.middle) <= 2
    if known:
        assert abs(found.width - wanted.width) <= 1
    else:  # the torso is not known, only how wide it has become
        torso, unscaled = (
            measured(parts, True).width for parts in (true_own.parts[0], fitted(true_other, SIZE).parts[FRAME])
        )
        assert abs(unscaled * what.scale_x - torso) <= 5
    before = overlap(labels(fitted(other, SIZE), FRAME), labels(own))
    after = overlap(labels(done, FRAME), labels(own))
    assert before < 0.35 and after > 0.5 and after > before + 0.4
    assert MIN_WIDENING - 1e-9 <= what.scale_x / what.scale_y <= MAX_WIDENING + 1e-9


def above(rows: float) -> Box:
    """What a photo shows that ends at this share of the frame's height."""
    height = int(160 * rows)
    return Box(0, 64 - height * 0.4, height, height * 0.8)


@pytest.mark.parametrize(
    "pair, box, known, least",
    [(pair, above(rows), True, 0.38) for pair in PAIRS for rows in (0.76, 0.55, 0.42)]
    + [((140, 2), Box(0, 16, 120, 96), False, 0.7), ((140, 2), Box(27, 12, 130, 104), True, 0.6)],
)
def test_photos_that_end_above_the_feet_or_cut_the_head(scenes, pair, box, known, least):
    own, other = scenes[pair, "wave"] if known else map(without_parts, scenes[pair, "wave"])
    seen = fitted(own, SIZE, box)
    done, what = aligned(other, seen)
    wanted, found = measured(labels(seen), known), measured(labels(done, FRAME), known)
    if box.top:
        assert what.span[0] == "neck"
    elif known:
        assert what.span[1] != "feet"
        assert abs(found.heights[what.span[1]] - wanted.heights[what.span[1]]) <= 3
    else:
        assert what.span == ("head", "head")
    assert overlap(labels(done, FRAME), labels(seen)) > least
    assert not known or box.top or overlap(labels(fitted(other, SIZE), FRAME), labels(seen)) < 0.3


def test_every_frame_is_treated_alike(scenes):
    own, other = scenes[(147, 107), "walk"]
    done, what = aligned(other, own)
    shifts_y, shifts_x = [], []
    for before, after in zip(fitted(other, SIZE).parts, done.parts):
        before, after = measured(before, True), measured(after, True)
        ends = set(before.heights) & set(after.heights)
        shifts_y += [after.heights[end] - what.scale_y * before.heights[end] for end in ends]
        shifts_x.append(after.middle - what.scale_x * before.middle)
    assert np.ptp(shifts_y) <= 4 * what.scale_y and np.ptp(shifts_x) <= 6


def test_a_turned_figure_does_not_make_the_motion_broad():
    """A photo from the side, and a motion that faces us: widths say nothing, so nothing is squeezed."""
    angles, offset = motion("idle", torch.zeros(1), Person.from_seed(147).manner)
    side = angles.clone()
    side[:, 0, 1] = 1.5
    own = clip(147, side, offset, SIZE)
    moves = clip(107, angles.repeat(4, 1, 1), offset.repeat(4, 1), SIZE, zoom=0.6)
    what = aligned(moves, own)[1]
    assert what.scale_x == pytest.approx(what.scale_y)
    both = clip(107, torch.cat([angles, side, angles]), offset.repeat(3, 1), SIZE, zoom=0.6)
    done, what = aligned(both, own)
    assert abs(measured(done.parts[1], True).width - measured(own.parts[0], True).width) <= 2


def test_frames_without_anybody_do_not_matter_but_nothing_at_all_is_an_error(scenes):
    own, other = scenes[(140, 2), "walk"]
    parts, uv = other.parts.copy(), other.uv.copy()
    parts[[0, 3, 9]], uv[[0, 3, 9]] = 0, 0
    gaps = replace(other, parts=parts, uv=uv)
    done, what = aligned(gaps, own)
    assert not done.mask[0].any() and overlap(done.parts[FRAME], own.parts[0]) > 0.6
    empty = PoseSequence(np.zeros((1, *SIZE), np.uint8), None, "none")
    with pytest.raises(InputError, match="No person is found in the photo's DensePose"):
        aligned(other, empty)
    with pytest.raises(InputError, match="No person is found in any map of the motion"):
        aligned(empty, own)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(4, 40), st.integers(4, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_any_maps_come_out_whole_or_with_a_sentence(height, width, seed, known):
    """Maps of noise, not of people: nothing but InputError, labels that were there, U, V of their own part."""
    rng = np.random.default_rng(seed)

    def noise(frames, size):
        there = rng.random((frames, *size)) < rng.choice([0.02, 0.3, 1])
        parts = (rng.integers(0, 25, (frames, *size)) * there).astype(np.uint8)
        uv = np.stack([parts / 32, (parts > 0) * 0.5], 1).astype(np.float16)
        return PoseSequence(parts if known else None, uv, "densepose", 12.0)

    poses, own = noise(3, (height, width)), noise(1, (32, 24))
    try:
        done, what = aligned(poses, own)
    except InputError:
        assert not own.mask.any() or not poses.mask.any()
        return
    assert MIN_SCALE <= what.scale_y <= MAX_SCALE
    assert MIN_WIDENING - 1e-9 <= what.scale_x / what.scale_y <= MAX_WIDENING + 1e-9
    assert done.size == (32, 24) and set(np.unique(done.uv[:, 0])) <= {0, *np.unique(poses.uv[:, 0])}
    if known:
        assert (done.uv[:, 0] * 32 == done.parts).all()


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ((1.0, 1.0, 0.2, 0), "The motion fits the person in the photo as it is."),
        (
            (0.8, 0.88, -12.4, 5),
            "The motion was fitted to the person in the photo, from head to feet: 20 % smaller, 10 % wider, 5 pixels "
            "right, 12 pixels up.",
        ),
        (
            (3.35, 3.35, 0, 0),
            "The motion was fitted to the person in the photo, from head to feet: 235 % larger; so different a size "
            "may be a mistake, please look at the preview.",
        ),
    ],
)
def test_the_sentence(numbers, sentence):
    assert Alignment(*numbers, ("head", "feet")).sentence() == sentence
