"""Motions made to order: what was asked for is seen in the maps, whose parts and U, V are as DensePose has them."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from drawn import drawn_clip

from dreampose_core.body.build import Build, Stances, drawn
from dreampose_core.errors import Cancelled
from dreampose_core.poses.sequence import both
from dreampose_core.settings import MotionName, MotionOptions
from dreampose_core.synthetic import HELD_OUT, MOTIONS
from dreampose_core.synthetic.acting import acted

SIZE, LARGE = (80, 64), (160, 128)
FRONT, BACK = [2, 9, 10, 13, 14], [1, 7, 8, 11, 12]
LEFT, RIGHT = [4, 5, 8, 10, 12, 14, 15, 17, 19, 21], [3, 6, 7, 9, 11, 13, 16, 18, 20, 22]


def made(seconds=1, fps=8, size=SIZE, **options):
    return acted(MotionOptions(seconds=seconds, fps=fps, **options), size)


def share(poses, parts, frame=0):
    """Which share of the person in a frame these parts are."""
    return np.isin(poses.parts[frame], parts).sum() / (poses.parts[frame] > 0).sum()


def rows(poses):
    """How many rows of the first map show the person."""
    return int(poses.mask[0].any(1).sum())


def change(poses):
    """Which share of the pixels changes from frame to frame."""
    return (poses.parts[1:] != poses.parts[:-1]).mean()


def test_the_form_and_the_same_again():
    poses, again, other = made(motion="dance"), made(motion="dance"), made(motion="dance", seed=5)
    assert (len(poses), poses.size, poses.charts, poses.fps) == (8, SIZE, "body", 8)
    assert np.array_equal(poses.parts, again.parts) and np.array_equal(poses.uv, again.uv)
    assert (poses.parts != other.parts).mean() > 0.005
    steps = poses.uv.astype(np.float32) * 255
    assert np.abs(steps - steps.round()).max() < 0.13  # as near to whole as float16 comes
    assert (poses.uv[:, :, :2] == 0).all() and poses.mask.any((1, 2)).all()


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_lower_foot_stands_on_the_floor(motion):
    joints = made(motion=motion).joints
    ankles = joints.camera[:, 2, None] - joints.positions[:, both("ankle"), 1] * joints.camera[:, :1]
    assert 0.9 < ankles.max(1).min() and ankles.max() < 0.925  # frame heights; a foot on its toes is higher


def test_movements_are_as_large_and_as_quick_as_asked():
    sizes = [change(made(2, motion="march", amplitude=amplitude)) for amplitude in (0.25, 1, 1.5)]
    assert sizes == sorted(sizes) and sizes[0] < 0.6 * sizes[1] and sizes[2] > 1.1 * sizes[1], sizes
    speeds = [change(made(2, fps=20, motion="march", speed=speed)) for speed in (0.25, 1, 4)]
    assert speeds[0] < 0.5 * speeds[1] and speeds[1] < 0.5 * speeds[2], speeds


def test_who_is_asked_for_is_seen():
    assert rows(made(height="child")) < rows(made(height="short")) < rows(made()) < rows(made(height="tall"))
    areas = [made(build=build).mask[0].sum() for build in ("slim", "average", "heavy")]
    assert areas[0] < 0.95 * areas[1] and areas[1] < 0.95 * areas[2]
    clothes = [made(clothes=clothes).mask[0].sum() for clothes in ("close", "skirt", "long_skirt")]
    assert clothes[0] < clothes[1] < clothes[2]


def test_it_is_seen_from_where_was_asked():
    front, left, behind, right = (made(motion="idle", view=view) for view in (0, 90, 180, -90))
    assert share(front, FRONT) > 20 * share(front, BACK) and share(behind, BACK) > 20 * share(behind, FRONT)
    assert share(left, LEFT) > 2 * share(left, RIGHT) and share(right, RIGHT) > 2 * share(right, LEFT)
    round_it = made(4, turning=45)  # from the front to behind
    assert share(round_it, BACK, -1) > 5 * share(round_it, FRONT, -1)
    assert np.array_equal(made(view=180).parts, made(view=-180).parts)


def test_a_camera_that_goes_round_sees_steps_to_the_side_from_the_side():
    """Where the body stands turns with it."""

    def wandering(**options):
        middles = [np.nonzero(mask)[1].mean() for mask in made(6, motion="side_step", **options).mask]
        return max(middles) - min(middles)

    assert wandering() > 8 and wandering(view=90) < 0.5 * wandering()


def test_farther_away_is_smaller_in_the_middle():
    near, far = made(), made(distance=2)
    assert far.mask[0].sum() == pytest.approx(near.mask[0].sum() / 4, rel=0.15)
    assert abs(np.nonzero(far.mask[0])[0].mean() - SIZE[0] / 2) < 0.1 * SIZE[0]


def test_nothing_is_cut_off_at_the_usual_distance():
    for motion in ("jump", "wave_both", "stretch"):
        poses = made(8, motion=motion, height="tall")
        assert not poses.mask[:, 0].any() and not poses.mask[:, -1].any(), motion


def test_it_says_how_far_it_is_and_stops_when_told():
    seen = []
    acted(MotionOptions(seconds=2.5, fps=8), SIZE, on_progress=seen.append)
    assert [(p.stage, p.step, p.total) for p in seen] == [("drawing", 8, 20), ("drawing", 16, 20), ("drawing", 20, 20)]
    with pytest.raises(Cancelled):
        acted(MotionOptions(seconds=20), SIZE, on_progress=seen.append, should_stop=lambda: len(seen) > 4)
    assert len(seen) == 5


def test_the_options_name_every_motion():
    assert set(get_args(MotionName)) == set(MOTIONS)


def middle_column(parts, part):
    return np.nonzero(parts == part)[1].mean()


def test_each_side_shows_its_parts_and_left_and_right_are_the_persons_own():
    front, behind = (made(size=LARGE, motion="wave", view=view).parts[0] for view in (0, 180))
    for right_part, left_part in ((3, 4), (6, 5), (9, 10), (13, 14), (16, 15), (20, 19), (23, 24)):
        assert middle_column(front, right_part) < middle_column(front, left_part), right_part
    assert middle_column(behind, 3) > middle_column(behind, 4)
    assert middle_column(behind, 23) > middle_column(behind, 24)


def test_every_part_occurs():
    clips, seen = (made(motion=name, turning=90) for name in MOTIONS), set()
    while seen != set(range(25)):
        seen |= set(next(clips).parts.flatten().tolist())


@pytest.mark.parametrize("name", ["squat", "arms"])
def test_maps_are_in_range_and_empty_outside_the_person(name):
    poses = made(motion=name)
    assert poses.parts.dtype == np.uint8 and poses.uv.dtype == np.float16
    assert poses.uv.min() >= 0 and poses.uv.max() <= 1
    uv = poses.uv.transpose(0, 2, 3, 1).astype(float)
    assert not uv[~poses.mask].any()
    inside = uv[poses.mask]
    assert (inside.std(0) > 0.1).all() and (inside.max(-1) > 0).mean() > 0.99


def test_u_and_v_run_along_the_surface_without_jumps():
    poses = made(size=LARGE, motion="wave")
    torso, (u, v) = poses.parts[0] == 2, poses.uv[0].astype(float)
    across, down = torso[:, 1:] & torso[:, :-1], torso[1:] & torso[:-1]
    assert (np.diff(u, axis=1)[across] > -0.02).mean() > 0.98  # U grows towards the person's left
    assert (np.diff(v, axis=0)[down] < 0.02).mean() > 0.95  # V grows upwards


def test_colour_read_through_another_frames_u_v_is_the_truth():
    """A colour harvested at (part, U, V) in one frame is found at the same place of the person in another."""
    rgb, poses = drawn_clip(HELD_OUT, "walk", 2, LARGE, fps=2.0)
    grid, sums = 16, np.zeros((2, 24 * 16 * 16, 4))
    for total, colours, parts, uv in zip(sums, rgb, poses.parts, poses.uv):
        u, v = (uv.astype(float) * grid).astype(int).clip(0, grid - 1)[:, parts > 0]
        place = ((parts[parts > 0].astype(int) - 1) * grid + v) * grid + u
        np.add.at(total, place, np.concatenate([colours[parts > 0], np.ones((len(u), 1))], 1))
    both = (sums[..., 3] > 0).all(0)
    assert both.sum() > 150
    source, target = sums[:, both, :3] / sums[:, both, 3:]
    shuffled = np.random.default_rng(0).permutation(target)
    error, chance = (np.abs(source - other).mean() for other in (target, shuffled))
    assert error < 0.6 * chance, (error, chance)


def test_a_skirt_is_labelled_as_the_body_under_it():
    """As in DensePose: from the waist to the hips the torso, below them the legs, left and right, front and back."""
    bare, skirt = (made(size=(200, 160), motion="wave", clothes=clothes) for clothes in ("close", "skirt"))
    widths = [poses.mask[0].sum(1) for poses in (bare, skirt)]
    row = int(np.nonzero((skirt.parts[0] == 10) & ~bare.mask[0])[0].mean())
    assert widths[1][row] > 1.2 * widths[0][row]  # there is cloth next to the legs
    parts = skirt.parts[0]
    assert middle_column(parts, 9) < middle_column(parts, 10) and not np.isin(parts, (7, 8)).any()
    line = parts[row]
    assert set(line[line > 0].tolist()) <= {9, 10, 3, 4, 19, 20, 21, 22}
    u = skirt.uv[0, 0, row].astype(float)
    for part in (9, 10):  # U runs along a quarter of the skirt, from its middle to its side
        across = u[line == part]
        assert (np.diff(across) > -0.02).all() and np.ptp(across) > 0.6
    behind = made(size=LARGE, motion="wave", clothes="skirt", view=180).parts[0]
    assert middle_column(behind, 7) > middle_column(behind, 8)
    assert np.isin(behind, (9, 10)).sum() < 0.02 * np.isin(behind, (7, 8)).sum()


def test_cloth_and_hair_lag_behind_the_body():
    poses = made(size=LARGE, fps=20, motion="twist", clothes="long_skirt")
    stances, build = Stances.of(poses.joints, LARGE).select(slice(8, 16)), Build.of(poses.joints.body)

    def changed(build, rows):
        (lagging, _), (stiff, _) = (drawn(stances, [build] * 8, LARGE, lag) for lag in (2, 0))
        return (lagging != stiff)[:, rows].sum()

    assert changed(build, slice(100, 150)) > 10
    bare = replace(build, skirt=np.zeros(2))
    assert changed(replace(bare, hair=np.array([0.045, 0.05, 0.15, 0.06]), locks=np.array([0.16, 0.06])), slice(60)) > 5
    assert changed(bare, slice(None)) == 0  # what is close to the body does not
