"""Mending pose maps: holes and specks go, flicker goes, and what moves stays as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn import made_motion
from scipy.ndimage import binary_erosion

from dreampose_core.poses import PoseSequence, read_poses
from dreampose_core.poses.clean import frames_with_holes, holes_filled, smoothed
from dreampose_core.poses.people import small_regions
from dreampose_core.settings import EXAMPLES

# Connected are also pixels that touch at a corner, but not in holes; holes do not touch the border.
SPECKS = "A...###", "..B.###", ".B..###"
HOLES = ".......", ".A..##.", "..B.##.", ".......", ".CC.D..", "....D.E"


@pytest.mark.parametrize(
    ("rows", "limit", "found"), [(SPECKS, 1, "A"), (SPECKS, 9, "AB"), (HOLES, 1, "AB"), (HOLES, 9, "ABC")]
)
def test_all_small_regions_are_found_but_the_largest_region(rows, limit, found):
    letters = np.array([[*row] for row in rows])
    assert np.array_equal(small_regions(letters != ".", limit, rows is HOLES), np.isin(letters, [*found]))


@pytest.fixture(scope="module")
def dance() -> PoseSequence:
    return made_motion("dance", 24, (160, 128))


def wrong(a: PoseSequence, b: PoseSequence) -> float:
    """How many pixels have another label, as a share of the person."""
    return float((a.parts != b.parts).sum() / (b.parts > 0).sum())


def test_holes_and_specks_go_and_the_rest_stays(dance):
    rng = np.random.default_rng(0)
    parts, uv = dance.parts.copy(), dance.uv.copy()
    for frame in range(len(parts)):
        inside = np.argwhere(binary_erosion(parts[frame] > 0))
        for y, x in inside[rng.integers(0, len(inside), 40)]:
            parts[frame, y, x : x + 2], uv[frame, :, y, x : x + 2] = 0, 0
        for y, x in rng.integers(0, (150, 120), (8, 2)):
            if not dance.parts[frame, y - 2 : y + 4, x - 2 : x + 4].any() and y > 2 and x > 2:
                parts[frame, y : y + 2, x], uv[frame, :, y : y + 2, x] = 7, 0.5
    bad = replace(dance, parts=parts, uv=uv)
    done = holes_filled(bad)
    assert wrong(bad, dance) > 0.008 and wrong(done, dance) < 0.35 * wrong(bad, dance)
    filled = (done.parts > 0) & (bad.parts == 0)
    right = filled & (done.parts == dance.parts)
    assert filled.sum() > 1000 and right.sum() > 0.88 * filled.sum()
    off = np.abs(done.uv.astype(float) - dance.uv.astype(float)).max(axis=1)
    assert np.median(off[right]) < 0.1
    assert (done.uv[:, :, :][(done.parts == 0)[:, None].repeat(2, 1)] == 0).all()
    specks = (bad.parts > 0) & (dance.parts == 0)
    assert specks.sum() > 50 and (done.parts[specks] == 0).mean() > 0.95
    assert wrong(holes_filled(dance), dance) < 0.002


def test_gaps_between_arm_and_body_stay_open():
    parts = np.zeros((1, 60, 60), np.uint8)
    parts[0, 10:50, 10:50] = 2
    parts[0, 20:40, 20:24] = 0  # 80 pixels of 1520: no hole that an estimator leaves
    poses = PoseSequence(parts, None, "none")
    assert (holes_filled(poses).parts == parts).all()
    parts[0, 30, 35] = 0
    assert holes_filled(poses).parts[0, 30, 35] == 2


def test_uv_only_maps_are_mended_too(dance):
    uv = dance.uv.copy()
    rows, columns = np.nonzero(dance.parts[0] == 2)
    row = rows[len(rows) // 2]
    column = int(np.median(columns[rows == row]))
    uv[0, :, row, column] = 0
    only = PoseSequence(None, uv, "body", 20.0)
    assert not only.mask[0, row, column] and holes_filled(only).mask[0, row, column]
    uv[5] = 0  # nobody for one frame
    done = smoothed(PoseSequence(None, uv, "body", 20.0))
    lost, found = dance.mask[5], done.mask[5]
    assert (lost & found).sum() / (lost | found).sum() > 0.85


@pytest.mark.parametrize(("name", "fps"), [("dance", 20), ("walk", 20), ("wave", 30), ("side_step", 12)])
def test_smoothing_takes_flicker_out_and_leaves_motion_alone(name, fps):
    truth = made_motion(name, 24, (160, 128), fps)
    assert wrong(smoothed(truth), truth) < 0.01
    rng = np.random.default_rng(1)
    parts, uv = truth.parts.copy(), truth.uv.copy()
    for frame in range(1, len(parts) - 1):
        if rng.random() < 0.5:
            there = np.unique(parts[frame])
            lost = np.isin(parts[frame], rng.choice(there[there > 0], 4, replace=False))
            parts[frame][lost], uv[frame][:, lost] = 0, 0
    bad = replace(truth, parts=parts, uv=uv)
    before = bad.parts.copy()
    done = smoothed(bad)
    assert wrong(bad, truth) > 0.01 and wrong(done, truth) < 0.5 * wrong(bad, truth)
    assert (bad.parts == before).all()  # what was given stays as it was
    agree = (done.parts == truth.parts) & (truth.parts > 0)
    off = np.abs(done.uv.astype(float) - truth.uv.astype(float)).max(axis=1)[agree & (bad.parts == 0)]
    assert len(off) > 100 and np.median(off) < 0.1
    assert (done.mask == (done.uv > 0).any(axis=1)).mean() > 0.999


def test_swapped_legs_and_ghosts_are_noticed(dance):
    parts = dance.parts.copy()
    swap = np.arange(256, dtype=np.uint8)
    swap[[9, 10, 13, 14]] = 10, 9, 14, 13
    parts[15] = swap[parts[15]]  # left and right leg exchanged for one frame
    parts[12, 5:15, 5:15] = 4  # a second left hand out of nowhere
    bad = replace(dance, parts=parts)
    done = smoothed(bad)
    assert (done.parts[12, 5:15, 5:15] == 0).mean() > 0.95
    legs = np.isin(dance.parts[15], (9, 10, 13, 14))
    before, after = ((poses.parts[15] == dance.parts[15])[legs].mean() for poses in (bad, done))
    assert before < 0.1 and after > 0.8


def test_two_lost_frames_are_filled_along_the_way_and_three_are_not():
    parts = np.zeros((9, 40, 60), np.uint8)
    for t in range(9):
        parts[t, 10:20, 4 + 5 * t : 12 + 5 * t] = 21  # an arm that moves five pixels a frame, and is eight wide
    truth = PoseSequence(parts, None, "none")
    assert (smoothed(truth).parts == parts).all()
    for lost, mended in (((4,), True), ((4, 5), True), ((3, 4, 5), False)):
        bad = parts.copy()
        bad[list(lost)] = 0
        assert bool((smoothed(PoseSequence(bad, None, "none")).parts == parts).all()) == mended


def test_what_hides_behind_the_body_is_not_brought_back():
    parts = np.zeros((5, 40, 60), np.uint8)
    parts[:, 5:35, 20:40] = 2
    for t, left in enumerate((12, 17, 24, 33, 38)):  # a hand that passes behind the body
        hand = np.zeros((40, 60), bool)
        hand[18:23, left : left + 5] = True
        parts[t][hand & (parts[t] == 0)] = 4
    poses = PoseSequence(parts, None, "none")
    assert (smoothed(poses).parts[2] == parts[2]).all()


@pytest.mark.parametrize("part", [0, 3])
def test_short_sequences_and_empty_maps(part):
    for frames in (1, 2, 3):
        poses = PoseSequence(np.full((frames, 6, 7), part, np.uint8), None, "none")
        assert (smoothed(poses).parts == poses.parts).all() and (holes_filled(poses).parts == poses.parts).all()


def test_holes_inside_a_part_are_seen_and_gaps_between_parts_are_not():
    for path in sorted((EXAMPLES / "motions").glob("*.npz")):
        assert not frames_with_holes(read_poses(path)).any(), f"{path.stem} is exact"
    parts = made_motion("wave", 60, (160, 128)).parts.copy()
    holed = np.zeros(len(parts), bool)
    for index in range(0, len(parts), 3):
        rows, columns = np.nonzero(parts[index] == 2)
        row, column = rows[len(rows) // 2], columns[len(rows) // 2]
        if (parts[index, row - 1 : row + 3, column - 1 : column + 3] == 2).all():
            parts[index, row : row + 2, column : column + 2] = 0
            holed[index] = True
    given = PoseSequence(parts, None, "none")
    assert holed.sum() > 5 and np.array_equal(frames_with_holes(given), holed)
    assert not frames_with_holes(holes_filled(given)).any()
    assert not frames_with_holes(PoseSequence(None, np.zeros((2, 2, 9, 9), np.float16), "densepose")).any()
