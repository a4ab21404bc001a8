"""Maps of drawn bodies: parts and U, V as DensePose has them, cloth that lags, and maps that agree between frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn import drawn_clip

from dreampose_core.body.build import Build, Stances, drawn
from dreampose_core.settings import MotionOptions
from dreampose_core.synthetic import HELD_OUT, MOTIONS
from dreampose_core.synthetic.acting import acted

SIZE, LARGE = (80, 64), (160, 128)


def made(motion="wave", size=LARGE, fps=8, **options):
    return acted(MotionOptions(motion=motion, seconds=1, fps=fps, **options), size)


def middle_column(parts, part):
    return np.nonzero(parts == part)[1].mean()


def test_each_side_shows_its_parts_and_left_and_right_are_the_persons_own():
    front, behind = (made(view=view).parts[0] for view in (0, 180))
    for right_part, left_part in ((3, 4), (6, 5), (9, 10), (13, 14), (16, 15), (20, 19), (23, 24)):
        assert middle_column(front, right_part) < middle_column(front, left_part), right_part
    assert middle_column(behind, 3) > middle_column(behind, 4)
    assert middle_column(behind, 23) > middle_column(behind, 24)


def test_every_part_occurs():
    clips, seen = (made(name, SIZE, turning=90) for name in MOTIONS), set()
    while seen != set(range(25)):
        seen |= set(next(clips).parts.flatten().tolist())


@pytest.mark.parametrize("name", ["squat", "arms"])
def test_maps_are_in_range_and_empty_outside_the_person(name):
    poses = made(name, SIZE)
    assert poses.parts.dtype == np.uint8 and poses.uv.dtype == np.float16
    assert poses.uv.min() >= 0 and poses.uv.max() <= 1
    uv = poses.uv.transpose(0, 2, 3, 1).astype(float)
    assert not uv[~poses.mask].any()
    inside = uv[poses.mask]
    assert (inside.std(0) > 0.1).all() and (inside.max(-1) > 0).mean() > 0.99


def test_u_and_v_run_along_the_surface_without_jumps():
    poses = made()
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
    bare, skirt = (made(clothes=clothes, size=(200, 160)) for clothes in ("close", "skirt"))
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
    behind = made(clothes="skirt", view=180).parts[0]
    assert middle_column(behind, 7) > middle_column(behind, 8)
    assert np.isin(behind, (9, 10)).sum() < 0.02 * np.isin(behind, (7, 8)).sum()


def test_cloth_and_hair_lag_behind_the_body():
    poses = made("twist", clothes="long_skirt", fps=20)
    stances, build = Stances.of(poses.joints, LARGE).select(slice(8, 16)), Build.of(poses.joints.body)

    def changed(build, rows):
        (lagging, _), (stiff, _) = (drawn(stances, [build] * 8, LARGE, lag) for lag in (2, 0))
        return (lagging != stiff)[:, rows].sum()

    assert changed(build, slice(100, 150)) > 10
    bare = replace(build, skirt=np.zeros(2))
    assert changed(replace(bare, hair=np.array([0.045, 0.05, 0.15, 0.06]), locks=np.array([0.16, 0.06])), slice(60)) > 5
    assert changed(bare, slice(None)) == 0  # what is close to the body does not
