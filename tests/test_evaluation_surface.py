"""Colours followed over the surface: identity and temporal error against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dreampose_core.evaluation.surface import GRID, LEAST, Surface, enough
from dreampose_core.poses import PoseSequence
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip

SIDE = 12  # the person is a square of 12 pixels, of which 10 x 10 are inside


def square(part: int, u: float, v: float = 0.5, left: int = 4) -> PoseSequence:
    """One map of 20 x 24 with a square of a single surface point."""
    parts, uv = np.zeros((1, 20, 24), np.uint8), np.zeros((1, 2, 20, 24), np.float16)
    parts[0, 4 : 4 + SIDE, left : left + SIDE] = part
    uv[0, 0][parts[0] > 0], uv[0, 1][parts[0] > 0] = u, v
    return PoseSequence(parts, uv, "mannequin")


def joined(*maps: PoseSequence) -> PoseSequence:
    return PoseSequence(np.concatenate([m.parts for m in maps]), np.concatenate([m.uv for m in maps]), maps[0].charts)


def grey(values: list[int]) -> np.ndarray:
    """Frames of one grey each."""
    return np.repeat(np.array(values, np.uint8), 20 * 24 * 3).reshape(-1, 20, 24, 3)


def test_seen_is_the_photo_s_point_and_its_neighbours_on_the_same_part():
    photo = square(2, 0.5)
    near, far, other = square(2, 0.5 + 1 / GRID), square(2, 0.5 + 2 / GRID), square(1, 0.5)
    surface = Surface(joined(photo, near, far, other), photo)
    assert [frame.any() for frame in surface.seen] == [True, True, False, False]
    assert (
        np.array_equal(surface.seen | surface.unseen, joined(photo, near, far, other).mask)
        and not (surface.seen & surface.unseen).any()
    )
    edge = Surface(
        joined(square(2, 1.0), square(3, 0.0)), square(2, 1.0)
    )  # the last cell's neighbour is not the next part's first
    assert edge.seen[0].any() and not edge.seen[1].any()


def test_identity_is_the_difference_of_mean_colours():
    photo = square(2, 0.5)
    surface = Surface(joined(photo, square(2, 0.5, left=8), square(1, 0.2)), photo)
    truth = grey([100, 120, 200])
    assert surface.identity_errors(truth, truth) == (0, 0)
    assert surface.identity_errors(grey([120, 100, 149]), truth) == (
        0,
        pytest.approx(51 / 255),
    )  # light that comes and goes is no fault
    assert surface.identity_errors(grey([151, 171, 200]), truth) == (pytest.approx(51 / 255), 0)
    outside = truth.copy()
    outside[~joined(photo, square(2, 0.5, left=8), square(1, 0.2)).mask] = 0
    assert surface.identity_errors(outside, truth) == (0, 0)  # nothing but the person counts


def test_points_count_by_how_many_pixels_show_them():
    photo = joined(square(2, 0.1))
    maps = joined(
        square(2, 0.1), square(2, 0.1), square(2, 0.1), square(2, 0.1 + 1 / GRID)
    )  # both are seen, one three times
    seen, unseen = Surface(maps, photo).identity_errors(grey([100, 100, 100, 102]), grey([100, 100, 100, 0]))
    assert seen == pytest.approx(102 / 255 / 4) and unseen is None


def test_temporal_error_is_the_change_beyond_the_truth_s():
    maps = joined(square(2, 0.5), square(2, 0.5, left=8), square(2, 0.5))  # it moves; the point stays
    surface = Surface(maps, None)
    truth = grey([100, 110, 120])
    assert surface.temporal_error(truth, truth) == 0
    assert surface.temporal_error(grey([50, 60, 70]), truth) < 1e-12  # a wrong colour that keeps step does not flicker
    assert surface.temporal_error(grey([100, 100, 100]), truth) == pytest.approx(
        10 / 255
    )  # light that moves on without it
    assert surface.temporal_error(grey([100, 161, 120]), truth) == pytest.approx(51 / 255)
    assert (
        Surface(joined(square(2, 0.5), square(1, 0.5)), None).temporal_error(grey([0, 9]), grey([0, 0])) is None
    )  # never seen twice
    assert Surface(square(2, 0.5), None).temporal_error(grey([0]), grey([0])) is None


def test_what_is_not_known():
    maps = square(2, 0.5)
    surface = Surface(maps, None)
    assert surface.identity_errors(grey([1]), grey([2])) == (None, None) and surface.seen is None
    real = PoseSequence(maps.parts, maps.uv, "densepose")
    assert Surface(maps, real).identity_errors(grey([1]), grey([2])) == (None, None)  # U, V of other charts
    assert Surface.of(PoseSequence(maps.parts, None, "none"), maps) is None
    assert Surface.of(PoseSequence(None, maps.uv, "mannequin"), maps) is None
    assert isinstance(Surface.of(maps, maps), Surface)


def test_too_little_surface_says_nothing():
    person = np.zeros((1, 20, 24), bool)
    person[:, :10, :10] = True
    few = np.zeros_like(person)
    few[0, 0, : int(LEAST * 100)] = True
    assert enough(few, person) and not enough(few & False, person) and not enough(few & False, few & False)


@pytest.mark.parametrize("size", [(160, 128), (320, 256)])
def test_a_figure_sees_itself_and_not_its_back(size):
    _, poses = render_clip(Figure.from_seed(HELD_OUT), "turn", 40, size, fps=20)
    surface = Surface(poses, poses.select([0]))
    assert surface.unseen[0].sum() == 0
    assert surface.unseen[1].sum() < 0.02 * poses.mask[1].sum()  # a twentieth of a second later
    assert surface.unseen[-10:].sum() > 0.25 * poses.mask[-10:].sum()
