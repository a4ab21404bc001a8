"""Motions made to order: what was asked for is seen in the maps."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from dreampose_core.errors import Cancelled
from dreampose_core.poses.sequence import both
from dreampose_core.settings import MotionName, MotionOptions
from dreampose_core.synthetic import MOTIONS
from dreampose_core.synthetic.acting import acted

SIZE = (80, 64)
FRONT, BACK = [2, 9, 10, 13, 14], [1, 7, 8, 11, 12]
LEFT, RIGHT = [4, 5, 8, 10, 12, 14, 15, 17, 19, 21], [3, 6, 7, 9, 11, 13, 16, 18, 20, 22]


def made(seconds=1, fps=8, **options):
    return acted(MotionOptions(seconds=seconds, fps=fps, **options), SIZE)


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
