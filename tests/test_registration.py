"""A displaced map finds back to its person, a right one stays where it is, and a photo that says nothing moves
nothing."""

from __future__ import annotations

import pytest
import torch
from drawn import drawn_clip

from dreampose_core.model.conditioning import to_pixels
from dreampose_core.model.registration import REACH, displacements, registered
from dreampose_core.synthetic import HELD_OUT, MOTIONS

SIZE = (160, 128)


@pytest.fixture(scope="module")
def photos():
    """Pixels (6, 3, H, W), parts (6, H, W), uv (6, 2, H, W) of six people in six motions."""
    made = [drawn_clip(HELD_OUT + n, list(MOTIONS)[5 * n], 1, SIZE, fps=1.0) for n in range(6)]
    return (
        torch.cat([to_pixels(torch.from_numpy(rgb)) for rgb, _ in made]),
        torch.cat([torch.from_numpy(poses.parts).long() for _, poses in made]),
        torch.cat([torch.from_numpy(poses.uv).float() for _, poses in made]),
    )


def test_displaced_maps_find_back_each_on_its_own(photos):
    pixels, parts, uv = photos
    shifts = [(0, 0), (2, 0), (-3, 0), (0, 3), (-2, -2), (4, -4)]
    wrong = torch.stack([x.roll(shift, (0, 1)) for x, shift in zip(parts, shifts)])
    wrong_uv = torch.stack([x.roll(shift, (1, 2)) for x, shift in zip(uv, shifts)])
    down, right = displacements(pixels, wrong > 0)
    assert torch.stack([down, right], 1).tolist() == [[-y, -x] for y, x in shifts]
    again, again_uv = registered(pixels, wrong, wrong_uv)
    inner = (..., slice(8, -8), slice(8, -8))
    assert torch.equal(again[inner], parts[inner]) and torch.equal(again_uv[inner], uv[inner])
    assert registered(pixels, wrong, None)[1] is None


def test_a_photo_without_an_outline_moves_nothing(photos):
    _, parts, uv = photos
    flat = torch.full((6, 3, *SIZE), 0.3)
    assert all(torch.equal(a, b) for a, b in zip(registered(flat, parts, uv), (parts, uv)))
    nobody = torch.zeros_like(parts)
    assert torch.equal(registered(photos[0], nobody, None)[0], nobody)


def test_nothing_is_moved_further_than_the_reach(photos):
    pixels, parts, _ = photos
    down, right = displacements(pixels, parts.roll((9, 9), (1, 2)) > 0)
    reach = round(REACH * SIZE[0])
    assert down.abs().max() <= reach and right.abs().max() <= reach


def test_a_map_that_comes_in_at_the_edge_brings_nothing_from_the_other_side():
    photo, person = torch.zeros(1, 3, 80, 64), torch.zeros(1, 80, 64, dtype=torch.long)
    photo[..., 20:60, 32:52], person[:, 20:60, 30:50], person[:, 30:33, 62:] = 1.0, 2, 3
    moved, _ = registered(photo, person, None)
    assert moved[:, 20:60, 32:52].eq(2).all() and moved.eq(2).sum() == 40 * 20 and not moved.eq(3).any()
