"""Mannequins: everything from a seed, and maps that are exact."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreampose_core.errors import InputError
from dreampose_core.synthetic import HELD_OUT, MOTIONS, Figure, Manner, Moments, render, render_clip
from dreampose_core.synthetic.backdrop import backdrop_size
from dreampose_core.synthetic.dice import Dice
from dreampose_core.synthetic.figure import FLOOR, Camera
from dreampose_core.synthetic.motion import motion
from dreampose_core.synthetic.outfit import random_outfit, random_shape
from dreampose_core.synthetic.people import Person

SIZE, LARGE = (80, 64), (160, 128)
FRONT, BACK = {2, 9, 10, 13, 14, 15, 16, 19, 20}, {1, 7, 8, 11, 12, 17, 18, 21, 22}


def drawn(figure, name, times, manner=None, size=SIZE, turned=0.0):
    """A figure at every time, `turned` about the vertical; nothing led to its poses, and the camera stands."""
    times = torch.as_tensor(times, dtype=torch.float32)
    return render(figure, Moments.still(*motion(name, times, manner or Manner())).turned(turned), size)


def dressed(seed=HELD_OUT, **changes):
    """The figure with this seed, with its outfit changed."""
    figure = Figure.from_seed(seed)
    return replace(figure, outfit=replace(figure.outfit, **({"hat": "none", "bag": "none"} | changes)))


def standing(figure=None, turned=0.0, size=(160, 128)):
    """One frame of a figure (in trousers) that faces us, unless it is turned."""
    return drawn(figure or dressed(hem=0.0), "wave", [0.0], Manner(phase=0.0), size, turned)


def middle_column(parts, part):
    return (parts == part).nonzero()[:, 1].float().mean().item()


def test_the_same_seed_gives_the_same_figure_and_another_one_another():
    a, b, c = (render_clip(Figure.from_seed(seed), "walk", 2, SIZE) for seed in (HELD_OUT, HELD_OUT, HELD_OUT + 1))
    assert torch.equal(a[0], b[0]) and np.array_equal(a[1].parts, b[1].parts) and np.array_equal(a[1].uv, b[1].uv)
    assert (a[0].float() - c[0].float()).abs().mean() > 5
    assert a[0].shape == (2, *SIZE, 3) and a[0].dtype == torch.uint8
    assert a[1].charts == "mannequin" and a[1].size == SIZE and a[1].fps == 20


def test_each_side_shows_its_parts_and_left_and_right_are_the_persons_own():
    # the third is turned towards the image's left: its left side is seen
    front, behind, left = (standing(turned=turned).parts[0] for turned in (0.0, math.pi, -math.pi / 2))
    for right_part, left_part in ((3, 4), (6, 5), (9, 10), (13, 14), (16, 15), (20, 19), (23, 24)):
        assert middle_column(front, right_part) < middle_column(front, left_part), right_part
    assert middle_column(behind, 3) > middle_column(behind, 4)
    assert middle_column(behind, 23) > middle_column(behind, 24)
    count = [torch.bincount(parts.flatten().long(), minlength=25) for parts in (front, behind, left)]
    for seen, hidden, here in ((FRONT, BACK, count[0]), (BACK, FRONT, count[1])):
        assert sum(here[p] for p in seen) > 20 * sum(here[p] for p in hidden)
        assert all(here[p] > 0 for p in seen)
    assert count[2][24] > 5 * count[2][23] and count[2][10] + count[2][8] > 2 * (count[2][9] + count[2][7])


def test_every_part_occurs():
    clips = (render_clip(Figure.from_seed(HELD_OUT), name, 8, SIZE, fps=2.0)[1] for name in MOTIONS)
    seen = set()
    while seen != set(range(25)):
        seen |= set(next(clips).parts.flatten().tolist())


def test_maps_are_in_range_and_empty_outside_the_person():
    for name in ("squat", "arms"):
        out = drawn(Figure.from_seed(HELD_OUT + 1), name, [0.0, 1.0, 2.0])
        uv = out.uv.float()
        assert out.parts.dtype == torch.uint8 and out.uv.dtype == torch.float16
        assert uv.min() >= 0 and uv.max() <= 1
        outside = (out.parts == 0)[:, None].expand_as(uv)
        assert (uv[outside] == 0).all()
        inside = uv.movedim(1, -1)[out.parts > 0]
        assert (inside.std(0) > 0.1).all() and (inside.amax(-1) > 0).float().mean() > 0.99


def test_u_and_v_run_along_the_surface_without_jumps():
    out = standing()
    torso = out.parts[0] == 2
    u, v = out.uv[0].float()
    across, down = torso[:, 1:] & torso[:, :-1], torso[1:] & torso[:-1]
    assert (u.diff(dim=1)[across] > -0.02).float().mean() > 0.98  # U grows towards the person's left
    assert (v.diff(dim=0)[down] < 0.02).float().mean() > 0.95  # V grows upwards


@pytest.mark.parametrize("name", MOTIONS)
def test_the_figure_stands_on_the_floor(name):
    figure, height, times = dressed(HELD_OUT + 2), 160, torch.tensor([0.1, 0.9, 1.7, 3.1])
    moments = figure.moments(name, times)
    parts = drawn(figure, name, times, figure.manner, (height, 128)).parts
    scale = figure.camera.zoom * figure.shape.height
    floor = height / 2 - (FLOOR - (0.5 / scale - 0.045)) * scale * height
    for frame, jump in zip(parts, moments.offset[:, 1].tolist()):
        lowest = (frame > 0).any(1).nonzero().max().item() + 1
        assert abs(lowest - (floor - jump * scale * height)) <= 0.02 * height, (lowest, floor, jump)


@pytest.mark.parametrize(
    "skirt, name, among, grid", [(False, "walk", range(1, 25), 16), (True, "dance", range(7, 11), 12)]
)
def test_colour_read_through_another_frames_u_v_is_the_truth(skirt, name, among, grid):
    """The maps are exact: a colour harvested at (part, U, V) in one frame is found at the same place of the body in
    another; on a skirt that swings in every frame, but for light and folds."""
    figure = dressed(hem=0.2, flare=2.0, folds=0.0) if skirt else Figure.from_seed(HELD_OUT)
    rgb, poses = render_clip(figure, name, 24 if skirt else 6, (160, 128), fps=10.0 if skirt else 20.0)
    sums = torch.zeros(2, 24 * grid * grid, 4)
    for frame in range(len(poses)) if skirt else (0, 5):
        parts, uv = torch.from_numpy(poses.parts[frame]).long(), torch.from_numpy(poses.uv[frame]).float()
        there = torch.isin(parts, torch.tensor(list(among)))
        u, v = (uv * grid).long().clamp(0, grid - 1)[:, there]
        colour = torch.cat([rgb[frame][there].float(), torch.ones(len(u), 1)], 1)
        sums[frame % 2].index_add_(0, ((parts[there] - 1) * grid + v) * grid + u, colour)
    both = (sums[..., 3] > (3 if skirt else 0)).all(0)
    assert both.sum() > 150
    (source, target), weight = (sums[..., :3] / sums[..., 3:])[:, both], sums[1, both, 3:] / sums[1, both, 3].sum()
    shuffled = target[torch.randperm(len(target), generator=torch.Generator().manual_seed(0))]
    error, chance = (((source - other).abs() * weight).sum().item() / 3 for other in (target, shuffled))
    assert error < 12 and error < 0.5 * chance


@pytest.mark.parametrize("seed", [-1, 2**31])
@pytest.mark.parametrize("kind", [Figure, Person])
def test_a_seed_out_of_range_is_one_sentence(kind, seed):
    with pytest.raises(InputError, match=f"The seed is {seed}"):
        kind.from_seed(seed)


# -- cloth, things and the camera --------------------------------------------------------------------------------------


def test_a_skirt_is_labelled_as_the_body_under_it():
    """As DensePose has it: from the waist to the hips the torso, below them the legs, left and right, front and
    back."""
    bare, skirt = (standing(dressed(hem=hem, flare=1.8, waist=0.6)) for hem in (0.0, 0.3))
    widths = [(out.parts[0] > 0).sum(1) for out in (bare, skirt)]
    row = int(((skirt.parts[0] == 10) & (bare.parts[0] == 0)).nonzero()[:, 0].float().mean())
    assert widths[1][row] > 1.2 * widths[0][row]  # there is cloth beside the legs
    parts = skirt.parts[0]
    assert middle_column(parts, 9) < middle_column(parts, 10) and not ((parts == 7) | (parts == 8)).any()
    line = parts[row]
    assert set(line[line > 0].tolist()) <= {9, 10, 3, 4, 19, 20, 21, 22}
    u = skirt.uv[0, 0, row].float()
    for part in (9, 10):  # U runs along a quarter of the skirt, from its middle to its side
        across = u[line == part]
        assert across.diff().gt(-0.02).all() and across.max() - across.min() > 0.6
    behind = standing(dressed(hem=0.3, flare=1.8, waist=0.6), turned=np.pi).parts[0]
    assert middle_column(behind, 7) > middle_column(behind, 8)
    assert ((behind == 9) | (behind == 10)).sum() < 0.02 * ((behind == 7) | (behind == 8)).sum()


def test_cloth_and_hair_lag_behind_the_body():
    figure = dressed(hem=0.15, flare=1.6, hair="long")
    moments = figure.moments("twist", torch.tensor([1.3]))
    at_rest = replace(moments, before_angles=moments.angles, before_offset=moments.offset)
    lagging, stiff = (render(figure, m, LARGE) for m in (moments, at_rest))
    hem = slice(100, 150)
    assert (lagging.parts[0, hem] != stiff.parts[0, hem]).sum() > 10
    bare = dressed(hem=0.0, loose_leg=0.0, loose_sleeve=0.0, hair="short")
    lagging, stiff = (render(bare, m, LARGE) for m in (moments, at_rest))
    assert torch.equal(lagging.parts, stiff.parts)  # what is close to the body does not


@pytest.mark.parametrize(
    "bag, turned", [("handbag", 0.0), ("handbag", math.pi), ("backpack", math.pi), ("crossbody", 0.0)]
)
def test_a_bag_is_seen_but_the_map_shows_the_body_under_it(bag, turned):
    plain, loaded = (standing(dressed(hem=0.0, bag=bag, side=1), turned) for bag in ("none", bag))
    seen = (plain.rgb[0].float() - loaded.rgb[0].float()).abs().sum(-1) > 30
    assert seen.sum() > 15
    assert torch.equal(plain.parts, loaded.parts) and torch.equal(plain.uv, loaded.uv)


def test_the_camera_moves_person_map_and_room_together():
    figure = replace(dressed(hem=0.0), camera=Camera(0.8, 0.0, sway=0.1, breathe=0.2, rate=0.25, phase=0.0))
    still = replace(figure, camera=Camera(0.8, 0.0))
    times = torch.tensor([0.0, 1.0])  # at rest; and a quarter of a cycle later nearer, and moved
    moved, fixed = (render(f, f.moments("idle", times), LARGE) for f in (figure, still))
    heights = [[(frame > 0).any(1).sum().item() for frame in out.parts] for out in (moved, fixed)]
    assert abs(heights[0][0] - heights[1][0]) <= 2 and heights[0][1] > 1.1 * heights[1][1]
    empty = (moved.parts[1] == 0) & (fixed.parts[1] == 0)
    assert (moved.rgb[1].float() - fixed.rgb[1].float()).abs()[empty].mean() > 0.5
    empty &= fixed.parts[0] == 0
    assert torch.equal(fixed.rgb[0][empty][:50], fixed.rgb[1][empty][:50])


def test_a_room_is_drawn_larger_than_its_frame_and_seen_sharp():
    figure = Figure.from_seed(HELD_OUT)
    room = figure.backdrop((160, 128))
    assert room.shape == (*backdrop_size((160, 128)), 3) == (200, 160, 3) and 0 <= room.min() and room.max() <= 1
    figure = replace(figure, camera=Camera(0.8, 0.0), light=replace(figure.light, tint=(1.0, 1.0, 1.0)))
    seen = render(figure, figure.moments("idle", torch.tensor([0.0])), LARGE).rgb[0, :20]
    assert (seen.float() / 255 - room[20:40, 16:-16]).abs().max() < 1 / 255  # a camera that stands resamples nothing


def test_people_differ_in_what_they_wear():
    dice = Dice(0)
    shapes, outfits = zip(*((random_shape(dice), random_outfit(dice)) for _ in range(120)))
    assert {o.hair for o in outfits} == {"none", "short", "bob", "bun", "ponytail", "long", "afro"}
    assert {o.hat for o in outfits} == {"none", "beanie", "cap", "brim"}
    assert {o.bag for o in outfits} == {"none", "handbag", "backpack", "crossbody"}
    assert 30 < sum(o.hem > 0 for o in outfits) < 75 and sum(shape.height < 0.88 for shape in shapes) > 5
    assert sum(shape.girth > 1.2 for shape in shapes) > 8
