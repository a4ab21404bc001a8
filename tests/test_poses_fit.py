"""Fitting photos and pose maps by one geometry: boxes, crops around the person, and maps that stay on their photo."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import made_motion
from hypothesis import given, settings
from hypothesis import strategies as st

from dreampose_core.media import Box, crop_box, fit_image, pad_box, placement
from dreampose_core.media.images import FILLED, LOW
from dreampose_core.poses import PoseSequence, fitted, person_box

proven = settings(deadline=None, derandomize=True, max_examples=60)
sides = st.integers(8, 300)
sizes = st.tuples(sides, sides)


@st.composite
def people(draw):
    """A picture's size, the size it is fitted to, and where a person is in it."""
    source, size = draw(sizes), draw(sizes)
    top, left = draw(st.integers(0, source[0] - 2)), draw(st.integers(0, source[1] - 2))
    return source, size, (top, left, draw(st.integers(top + 1, source[0])), draw(st.integers(left + 1, source[1])))


@proven
@given(sizes, sizes)
def test_boxes_have_the_targets_shape_and_hold_all_or_lie_inside(source, size):
    pad, crop = pad_box(source, size), crop_box(source, size)
    for box in (pad, crop):
        assert box.width / box.height == pytest.approx(size[1] / size[0])
        middle = box.top + box.height / 2, box.left + box.width / 2
        assert middle == pytest.approx((source[0] / 2, source[1] / 2))
    assert max(pad.top, pad.left) <= 1e-6 and min(abs(pad.top), abs(pad.left)) < 1e-6
    assert min(crop.top, crop.left) >= -1e-6 and min(abs(crop.top), abs(crop.left)) < 1e-6


@proven
@given(people())
def test_a_crop_holds_the_whole_person_and_reaches_out_only_where_it_must(case):
    source, size, person = case
    box, small = crop_box(source, size, person), 1e-6
    top, left, bottom, right = person
    assert box.width / box.height == pytest.approx(size[1] / size[0])
    assert box.top <= top + small and box.left <= left + small
    assert box.top + box.height >= bottom - small and box.left + box.width >= right - small
    largest = crop_box(source, size)
    if box.height > largest.height + small:  # no larger than the person asks for
        assert box.height == pytest.approx(bottom - top) or box.width == pytest.approx(right - left)
    for start, length, whole, middle in (
        (box.top, box.height, source[0], (top + bottom) / 2),
        (box.left, box.width, source[1], (left + right) / 2),
    ):
        inside = start >= -small and start + length <= whole + small
        at_an_edge = min(abs(start), abs(start + length - whole)) <= small
        assert length > whole or (inside and (at_an_edge or start + length / 2 == pytest.approx(middle)))
    if bottom - top >= LOW * largest.height:
        assert box.height >= largest.height - small
    elif (bottom - top) / FILLED >= (right - left) / (size[1] / size[0]):
        assert (bottom - top) / box.height == pytest.approx(FILLED)


@proven
@given(people())
def test_placements_lie_inside_source_and_target(case):
    source, size, person = case
    for box in (pad_box(source, size), crop_box(source, size, person)):
        seen, (top, left, height, width) = placement(source, size, box)
        assert seen.top >= 0 and seen.top + seen.height <= source[0] + 1e-6
        assert seen.left >= 0 and seen.left + seen.width <= source[1] + 1e-6
        assert min(top, left) >= 0 and min(height, width) >= 1
        assert top + height <= size[0] and left + width <= size[1]


@proven
@given(people(), st.integers(0, 2**32 - 1))
def test_labels_are_never_mixed_and_uv_stay_with_their_part(case, seed):
    source, size, person = case
    rng = np.random.default_rng(seed)
    parts = rng.integers(0, 25, (2, *source)).astype(np.uint8)
    uv = np.stack([parts / 32, (parts > 0) * 0.5], 1).astype(np.float16)  # U tells the part
    poses = PoseSequence(parts, uv, "body", 25.0)
    for box in (None, crop_box(source, size, person)):
        out = fitted(poses, size, box)
        assert out.size == size and out.fps == 25 and len(out) == 2
        assert (out.uv[:, 0] * 32 == out.parts).all() and (out.uv[:, 1] == (out.parts > 0) * 0.5).all()
        assert set(np.unique(out.parts)) <= {0, *np.unique(parts)}


@proven
@given(sizes, st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_enlarging_by_a_whole_number_and_back_changes_nothing(source, times, seed):
    parts = np.random.default_rng(seed).integers(0, 25, (1, *source)).astype(np.uint8)
    poses = PoseSequence(parts, None, "none")
    large = fitted(poses, (source[0] * times, source[1] * times))
    assert (large.parts == parts.repeat(times, 1).repeat(times, 2)).all()
    assert (fitted(large, source).parts == parts).all()


@pytest.fixture(scope="module")
def poses():
    return made_motion("boxing", 1, (150, 170))


@pytest.mark.parametrize("size", [(160, 128), (128, 128), (120, 200), (90, 72), (320, 256)])
@pytest.mark.parametrize("how", ["pad", "crop", "far"])
def test_a_photo_and_its_map_stay_aligned_in_any_box(poses, size, how):
    photo = np.where(poses.mask[0, ..., None], 255, 0).astype(np.uint8).repeat(3, 2)
    far = Box(-13.7, 5.3, 150, 150 * size[1] / size[0])
    box = {"pad": None, "crop": crop_box(poses.size, size, person_box(poses)), "far": far}[how]
    mask = fitted(poses, size, box).mask[0]
    wrong = (fit_image(photo, size, box)[..., 0] > 127) != mask
    padded = np.pad(mask, 1, mode="edge")  # within a pixel of the figure's outline
    near = np.any([padded[y : y + size[0], x : x + size[1]] != mask for y in range(3) for x in range(3)], axis=0)
    # a gap one pixel wide may close
    assert mask.any() and (wrong & ~near).sum() <= 1 and wrong.sum() < 0.12 * mask.sum()


def test_where_the_person_is_and_maps_of_one_kind():
    parts = np.zeros((2, 9, 12), np.uint8)
    parts[1, 2:5, 3:10] = 7
    uv = (parts[:, None] > 0).repeat(2, 1).astype(np.float16)
    parts_only, uv_only = PoseSequence(parts, None, "none"), PoseSequence(None, uv, "densepose")
    assert person_box(parts_only) is None
    assert person_box(parts_only.select([1])) == person_box(uv_only.select([1])) == (2, 3, 5, 10)
    assert fitted(parts_only, (9, 12)) is parts_only
    assert fitted(parts_only, (18, 24)).uv is None and fitted(uv_only, (18, 24)).uv.shape == (2, 2, 18, 24)
