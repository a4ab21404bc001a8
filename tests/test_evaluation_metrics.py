"""Picture metrics: against values computed by hand, and against scikit-image's where it has the same one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import drawn_clip

from dreampose_core.evaluation.metrics import (
    GRID,
    Surface,
    inside,
    l1,
    pooled_psnr,
    psnr,
    sharpness,
    ssim_maps,
    ssim_mean,
)
from dreampose_core.poses import PoseSequence
from dreampose_core.synthetic import HELD_OUT


@pytest.fixture(scope="module")
def clip():
    """A held-out person: frames uint8 (4, 160, 128, 3) and poses."""
    return drawn_clip(HELD_OUT, "turn", 4, (160, 128))


def noisy(frames: np.ndarray, strength: float) -> np.ndarray:
    return np.clip(frames + np.random.default_rng(0).normal(0, strength, frames.shape), 0, 255).astype(np.uint8)


def blurred(frames: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(frames).movedim(-1, 1).float()
    return torch.nn.functional.avg_pool2d(pixels, 5, 1, 2).movedim(1, -1).numpy().astype(np.uint8)


def test_psnr_by_hand():
    truth = np.full((2, 4, 4, 3), 100, np.uint8)
    frames = truth.copy()
    frames[0] += 10  # an error of 10 everywhere: 20 log10(25.5)
    assert psnr(frames[:1], truth[:1]) == pytest.approx(20 * np.log10(25.5))
    assert psnr(truth, truth) == 100
    assert psnr(frames, truth) == pytest.approx((100 + 20 * np.log10(25.5)) / 2)  # the mean of frames, not of errors
    assert psnr(np.zeros_like(truth), np.full_like(truth, 255)) == pytest.approx(0)  # uint8 must not wrap around


def test_psnr_in_a_mask():
    truth, frames, mask = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), bool)
    mask[0, :2] = True
    frames[0, 2:] = 200
    assert psnr(frames, truth, mask) == 100  # the second frame has nobody and does not count
    frames[0, 0] = 51
    assert psnr(frames, truth, mask) == pytest.approx(10 * np.log10(255**2 / (51**2 / 2)))
    assert np.isnan(psnr(frames, truth, np.zeros_like(mask)))


def test_pooled_psnr_weighs_pixels_alike():
    truth, frames, mask = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), bool)
    mask[0], mask[1, 0, 0] = True, True  # sixteen pixels that are wrong and one that is right
    frames[0] = 17
    assert pooled_psnr(frames, truth, mask) == pytest.approx(10 * np.log10(255**2 / (17**2 * 16 / 17)))
    assert psnr(frames, truth, mask) > 60  # which the mean of frames calls good
    assert np.isnan(pooled_psnr(frames, truth, np.zeros_like(mask)))


def test_l1_by_hand():
    truth = np.zeros((1, 4, 4, 3), np.uint8)
    frames, mask = truth.copy(), np.zeros((1, 4, 4), bool)
    frames[0, 0], mask[0, :2] = 255, True
    assert l1(frames, truth) == pytest.approx(0.25) and l1(truth, frames) == pytest.approx(0.25)
    assert l1(frames, truth, mask) == pytest.approx(0.5)


# What scikit-image 0.26.0 says: structural_similarity with gaussian_weights, sigma=1.5, use_sample_covariance=False,
# data_range=255, channel_axis=-1, its mean and its map at three places; peak_signal_noise_ratio. It is not installed
# for this: it brings scipy, which transformers then loads in every process, for a second.
@pytest.mark.parametrize(
    ("change", "mean", "places", "ratio"),
    [
        (lambda x: 255 - x, -0.4948536879076765, [0.092526523, -0.530122760, -0.218620548], 5.780760123672855),
        (lambda x: blurred(x), 0.48012551653521085, [0.705467455, 0.570519457, -0.096600442], 16.97323503243711),
        (lambda x: np.roll(x, 2, 2), 0.2954942285038471, [-0.023824472, 0.670176943, -0.052376914], 13.82829553836657),
        (lambda x: x // 2, 0.6743124175262591, [0.756351079, 0.679099839, 0.672105208], 9.987090810863352),
    ],
)
def test_ssim_and_psnr_are_those_of_scikit_image(change, mean, places, ratio):
    y, x, c = np.ogrid[:48, :40, :3]
    truth = np.stack([(3 * y + 2 * x + 40 * c + (x * y + 5 * c + frame) % 37) % 256 for frame in range(2)]).astype(
        np.uint8
    )
    frames = change(truth)
    found = ssim_maps(frames, truth)
    assert ssim_mean(found) == pytest.approx(mean, abs=1e-9)
    assert found.shape == (2, 48, 40) and [found[0, 0, 0], found[0, 20, 17], found[1, 47, 39]] == pytest.approx(
        places, abs=2e-9
    )
    assert psnr(frames, truth) == pytest.approx(ratio)


def test_ssim_by_hand():
    dark, light = np.full((1, 16, 16, 3), 50, np.uint8), np.full((1, 16, 16, 3), 200, np.uint8)
    c1 = 2.55**2  # flat pictures differ in the first factor alone
    assert ssim_mean(ssim_maps(dark, light)) == pytest.approx((2 * 50 * 200 + c1) / (50**2 + 200**2 + c1))
    assert ssim_mean(ssim_maps(light, light)) == 1


def test_ssim_in_a_mask(clip):
    truth, poses = clip
    frames = np.where(poses.mask[..., None], noisy(truth, 30), truth)  # the background is right
    maps = ssim_maps(frames, truth)
    assert ssim_mean(maps, poses.mask) < 0.75 < 0.85 < ssim_mean(maps)
    far = np.zeros_like(poses.mask)
    far[:, :20, :20] = True
    assert not poses.mask[:, :30, :30].any() and ssim_mean(maps, far) == pytest.approx(1)


def test_sharpness_by_hand():
    x = np.arange(16, dtype=np.float64)[None, None, :, None]
    truth = np.broadcast_to(8 * x, (1, 16, 16, 3)).astype(np.uint8)
    mask = np.ones((1, 16, 16), bool)
    assert sharpness(truth, truth, mask) == pytest.approx(1)
    assert sharpness(truth // 2, truth, mask) == pytest.approx(0.5)
    assert sharpness(np.full_like(truth, 90), truth, mask) == 0
    edge = np.zeros_like(mask)
    edge[:, 0] = True
    assert sharpness(truth, truth, edge) == 1  # a mask without an inside says nothing


def test_blur_lowers_the_sharpness_and_noise_raises_it(clip):
    truth, poses = clip
    assert sharpness(blurred(truth), truth, poses.mask) < 0.8 and sharpness(noisy(truth, 20), truth, poses.mask) > 1.2


def test_the_inside_of_a_mask():
    mask = np.zeros((1, 5, 6), bool)
    mask[0, :4, 1:5] = True  # it touches the upper border, beyond which nothing belongs to it
    expected = np.zeros_like(mask)
    expected[0, 1:3, 2:4] = True
    assert np.array_equal(inside(mask), expected)


# -- colours followed over the surface


SIDE = 12  # the person is a square of 12 pixels, of which 10 x 10 are inside


def square(part: int, u: float, v: float = 0.5, left: int = 4) -> PoseSequence:
    """One map of 20 x 24 with a square of a single surface point."""
    parts, uv = np.zeros((1, 20, 24), np.uint8), np.zeros((1, 2, 20, 24), np.float16)
    parts[0, 4 : 4 + SIDE, left : left + SIDE] = part
    uv[0, 0][parts[0] > 0], uv[0, 1][parts[0] > 0] = u, v
    return PoseSequence(parts, uv, "body")


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
    assert np.array_equal(surface.seen | surface.unseen, joined(photo, near, far, other).mask)
    assert not (surface.seen & surface.unseen).any()
    edge = Surface(joined(square(2, 1.0), square(3, 0.0)), square(2, 1.0))  # the last cell, and the next part's first
    assert edge.seen[0].any() and not edge.seen[1].any()


def test_identity_is_the_difference_of_mean_colours():
    photo = square(2, 0.5)
    surface = Surface(joined(photo, square(2, 0.5, left=8), square(1, 0.2)), photo)
    truth = grey([100, 120, 200])
    assert surface.identity_errors(truth, truth) == (0, 0)
    unseen = pytest.approx(51 / 255)
    assert surface.identity_errors(grey([120, 100, 149]), truth) == (0, unseen)  # light that comes and goes is no fault
    assert surface.identity_errors(grey([151, 171, 200]), truth) == (pytest.approx(51 / 255), 0)
    outside = truth.copy()
    outside[~joined(photo, square(2, 0.5, left=8), square(1, 0.2)).mask] = 0
    assert surface.identity_errors(outside, truth) == (0, 0)  # nothing but the person counts


def test_points_count_by_how_many_pixels_show_them():
    maps = joined(*[square(2, 0.1)] * 3, square(2, 0.1 + 1 / GRID))  # both are seen, one three times
    seen, unseen = Surface(maps, square(2, 0.1)).identity_errors(grey([100, 100, 100, 102]), grey([100, 100, 100, 0]))
    assert seen == pytest.approx(102 / 255 / 4) and unseen is None


def test_temporal_error_is_the_change_beyond_the_truth_s():
    maps = joined(square(2, 0.5), square(2, 0.5, left=8), square(2, 0.5))  # it moves; the point stays
    surface = Surface(maps, square(2, 0.5))
    truth = grey([100, 110, 120])
    assert surface.temporal_error(truth, truth) == 0
    assert surface.temporal_error(grey([50, 60, 70]), truth) < 1e-12  # a wrong colour that keeps step does not flicker
    left_behind = surface.temporal_error(grey([100, 100, 100]), truth)  # light that moves on without it
    assert left_behind == pytest.approx(10 / 255)
    assert surface.temporal_error(grey([100, 161, 120]), truth) == pytest.approx(51 / 255)
    never_twice = Surface(joined(square(2, 0.5), square(1, 0.5)), square(2, 0.5))
    assert never_twice.temporal_error(grey([0, 9]), grey([0, 0])) is None
    assert Surface(square(2, 0.5), square(2, 0.5)).temporal_error(grey([0]), grey([0])) is None


def test_what_is_not_known():
    maps = square(2, 0.5)
    for photo in (PoseSequence(None, maps.uv, "body"), PoseSequence(maps.parts, maps.uv, "densepose")):
        surface = Surface(maps, photo)  # without parts, and with U, V of other charts
        assert surface.identity_errors(grey([1]), grey([2])) == (None, None) and surface.seen is None


@pytest.mark.parametrize("size", [(160, 128), (320, 256)])
def test_a_person_sees_itself_and_not_its_back(size):
    first, last = (drawn_clip(HELD_OUT, "turn", count, size, start_s=at)[1] for count, at in ((2, 0), (3, 1.85)))
    poses = joined(first, last)
    surface = Surface(poses, poses.select([0]))
    assert surface.unseen[0].sum() == 0
    assert surface.unseen[1].sum() < 0.02 * poses.mask[1].sum()  # a twentieth of a second later
    assert surface.unseen[2:].sum() > 0.25 * poses.mask[2:].sum()
