"""The background behind a person: patterns go on, edges go on, and bars around a photo are not copied."""

from __future__ import annotations

import torch

from dreampose_core.model.inpainting import fill_background, filled

HOLE = slice(60, 130), slice(60, 84)


def person(height=160, width=128):
    mask = torch.zeros(1, 1, height, width)
    mask[..., HOLE[0], HOLE[1]] = 1
    return mask


def steps(picture, where):
    return picture.diff(dim=3).abs().mean(1)[where[:, 0, :, 1:] > 0].mean()


def test_a_pattern_goes_on_behind_a_person():
    y, x = torch.meshgrid(torch.arange(160), torch.arange(128), indexing="ij")
    wall = torch.where((x // 8 + y // 8) % 2 == 0, 0.5, -0.5)[None, None].expand(1, 3, -1, -1)
    seen = torch.where(person() > 0, 1.0, wall)
    found, covered = fill_background(seen, person())
    assert torch.equal(found[covered.expand_as(found) == 0], seen[covered.expand_as(seen) == 0])
    assert 0.5 < steps(found, covered) / steps(wall, covered) < 1.5
    assert steps(filled(seen, covered), covered) < 0.3 * steps(wall, covered)


def test_an_edge_goes_on_behind_a_person():
    scene = torch.where(torch.arange(128) < 72, -0.6, 0.6)[None, None, None].expand(1, 3, 160, -1)
    found, covered = fill_background(torch.where(person() > 0, 0.0, scene), person())
    inside = covered.expand_as(found) > 0
    assert ((found - scene).abs()[inside] < 0.1).float().mean() > 0.85
    assert ((filled(scene, covered) - scene).abs()[inside] < 0.1).float().mean() < 0.4


def test_bars_are_not_copied():
    noise = torch.rand(1, 3, 160, 128, generator=torch.Generator().manual_seed(0)) * 0.4
    noise[..., :40], noise[..., 100:] = -1.0, -1.0
    found, covered = fill_background(torch.where(person() > 0, 1.0, noise), person())
    assert found[covered.expand_as(found) > 0].min() > -0.2


def test_a_photo_of_one_colour_stays_one_colour():
    found, _ = fill_background(torch.where(person() > 0, 1.0, -0.3).expand(1, 3, -1, -1), person())
    assert torch.allclose(found, torch.tensor(-0.3), atol=1e-3)
