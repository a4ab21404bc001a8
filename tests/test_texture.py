"""The moved texture: a photo on its own map is itself, unseen parts borrow from their twins, background stays off the
body. The background behind a person: patterns go on, edges go on, and bars around a photo are not copied. A
displaced map finds back to its person, a right one stays where it is, a photo that says nothing moves nothing. What
lies over another part in the photo is not taken for it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from drawn import drawn_clip

from dreampose_core.model.conditioning import to_pixels
from dreampose_core.model.inpainting import fill_background, filled
from dreampose_core.model.misplaced import misplaced, on_face
from dreampose_core.model.registration import REACH, displacements, registered
from dreampose_core.model.texture import (
    LEAST,
    SOURCE_BACKGROUND,
    SOURCE_MEAN,
    SOURCE_TEXEL,
    Texture,
    harvest,
    move,
    turned,
)
from dreampose_core.poses import read_poses
from dreampose_core.settings import EXAMPLES
from dreampose_core.synthetic import HELD_OUT, MOTIONS

SIZE = (160, 128)


@pytest.fixture(scope="module")
def clip():
    """Pixels (T, 3, H, W), parts (T, H, W), uv (T, 2, H, W) of a walk."""
    rgb, poses = drawn_clip(HELD_OUT, "walk", 4, SIZE, fps=4.0)
    return to_pixels(torch.from_numpy(rgb)), torch.from_numpy(poses.parts).long(), torch.from_numpy(poses.uv).float()


def board(height=40, width=32, part=2):
    """One rectangle of one part, U across and V upwards: pixels (1, 3, H, W), parts, uv."""
    parts, uv = torch.zeros(1, height, width, dtype=torch.long), torch.zeros(1, 2, height, width)
    inside = slice(8, 32), slice(6, 26)
    parts[0][inside] = part
    uv[0, 0][inside] = ((torch.arange(20) + 0.5) / 20)[None].expand(24, 20)
    uv[0, 1][inside] = 1 - ((torch.arange(24) + 0.5) / 24)[:, None].expand(24, 20)
    return torch.full((1, 3, height, width), -0.5), parts, uv


def eroded(parts, radius):
    person = (parts > 0).float()[:, None]
    return (1 - F.max_pool2d(1 - person, 2 * radius + 1, stride=1, padding=radius))[:, 0] > 0


def test_a_photo_on_its_own_map_is_the_photo(clip):
    pixels, parts, uv = (x[:1] for x in clip)
    painted = torch.stack([uv[:, 0], uv[:, 1], parts / 24.0], 1) * 2 - 1  # a colour that is smooth over every part
    inner = eroded(parts, 2)
    planes = move(harvest(painted, parts, uv), parts, uv, background=False)
    for channel, expected in ((3, 1), (4, SOURCE_TEXEL)):
        assert (planes[:, channel][inner] == expected).float().mean() > 0.99
    error = (planes[:, :3] - painted).abs().amax(1)[inner]
    assert error.mean() < 0.02 and error.quantile(0.99) < 0.2

    planes = move(harvest(pixels, parts, uv), parts, uv, background=True)
    person = parts > 0
    error = (planes[:, :3] - pixels).abs().mean(1)
    shuffled = (move(harvest(pixels, parts, uv.flip(1)), parts, uv, background=True)[:, :3] - pixels).abs().mean(1)
    assert error[inner].mean() < 0.02 < 0.15 < shuffled[inner].mean()
    assert error[person].mean() < 0.05  # along the outline the photo's pixels are half background, not the texture's
    # it is as sharp as the photo: nothing is averaged on the way
    inside = person[:, :, 1:] & person[:, :, :-1]
    steps = [x.diff(dim=3).abs().mean(1)[inside].mean() for x in (planes[:, :3], pixels)]
    assert 0.9 < steps[0] / steps[1] < 1.1


def test_one_reference_expands_to_many_targets(clip):
    pixels, parts, uv = clip
    texture = harvest(pixels[:1], parts[:1], uv[:1])
    together = move(texture.expand(3), parts[1:], uv[1:], background=True)
    for i in range(3):
        assert torch.equal(together[i : i + 1], move(texture, parts[1 + i : 2 + i], uv[1 + i : 2 + i], background=True))


def test_references_of_a_batch_do_not_mix(clip):
    pixels, parts, uv = clip
    batch, alone = harvest(pixels, parts, uv), harvest(pixels[2:3], parts[2:3], uv[2:3])
    for name in Texture._fields:
        assert torch.allclose(getattr(batch, name)[2:3].float(), getattr(alone, name).float(), atol=1e-5), name


def test_an_unseen_back_takes_its_front_twin_at_the_same_height():
    pixels, parts, uv = board(part=2)
    pixels[0, :, 8:20, 6:26], pixels[0, :, 20:32, 6:26] = 0.75, -0.25  # upper half light, lower half dark
    texture = harvest(pixels, parts, uv)
    for part, expected in ((1, SOURCE_MEAN), (2, SOURCE_TEXEL)):
        planes = move(texture, torch.where(parts > 0, part, 0), uv, background=False)[0]
        assert torch.allclose(planes[:3, 10:18, 8:24], torch.tensor(0.75), atol=0.02), part
        assert torch.allclose(planes[:3, 23:30, 8:24], torch.tensor(-0.25), atol=0.02), part
        assert (planes[4, 10:18, 8:24] == expected).all() and (planes[3, 10:18, 8:24] == (part == 2)).all()


def test_an_unseen_limb_takes_the_other_sides_and_a_part_without_twins_the_mean_of_all():
    pixels, parts, uv = board(part=16)  # the right upper arm's front
    pixels[:, :, 8:32, 6:26] = torch.tensor([0.6, -0.2, 0.1])[None, :, None, None]
    texture = harvest(pixels, parts, uv)
    for part in (18, 15, 17, 23):  # its back, the left one's front and back, the head
        planes = move(texture, torch.where(parts > 0, part, 0), uv, background=False)[0]
        assert torch.allclose(planes[:3, 12:28, 8:24], torch.tensor([0.6, -0.2, 0.1])[:, None, None], atol=0.02), part
        assert (planes[3] == 0).all() and (planes[4, 12:28, 8:24] == SOURCE_MEAN).all()


@pytest.mark.parametrize("part", [23, 24])
def test_an_unseen_half_of_the_head_is_the_other_ones_mirror_image(part):
    pixels, parts, uv = board(part=part)
    pixels[0, :, 8:32, 6:16], pixels[0, :, 8:32, 16:26] = 0.75, -0.25  # behind and in front of the ear
    planes = move(harvest(pixels, parts, uv), torch.where(parts > 0, 47 - part, 0), uv, background=False)[0]
    assert torch.allclose(planes[:3, 12:28, 8:12], torch.tensor(0.75), atol=0.02)
    assert torch.allclose(planes[:3, 12:28, 20:24], torch.tensor(-0.25), atol=0.02)
    assert (planes[3] == 0).all() and (planes[4, 12:28, 8:24] == SOURCE_MEAN).all()


def test_the_back_of_the_head_has_the_colour_of_the_crown():
    pixels, parts, uv = board(part=23)
    pixels[0, :, 8:14, 6:26], pixels[0, :, 14:32, 6:26] = -0.75, 0.5  # hair above, skin below
    front = torch.where(torch.arange(32) < 15, parts, 0)
    planes = move(harvest(pixels, front, uv), torch.where(parts > 0, 24, 0), uv, background=False)[0]
    assert torch.allclose(planes[:3, 18:28, 8:12], torch.tensor(0.5), atol=0.02), "the other cheek is skin"
    assert torch.allclose(planes[:3, 10:28, 22:25], torch.tensor(-0.75), atol=0.1), "but the back is hair"


@pytest.mark.parametrize("gap, is_closed", [(0.05, True), (0.2, False)])
def test_a_narrow_gap_between_seen_points_is_closed(gap, is_closed):
    """Single points that no pixel hit were dots in faces."""
    parts, uv = torch.zeros(1, 400, 120, dtype=torch.long), torch.zeros(1, 2, 400, 120)
    parts[0, 100:300, 10:110] = 2
    uv[0, 0, :, 10:110] = ((torch.arange(100) + 0.5) / 100)[None]
    uv[0, 1, 100:300] = ((torch.arange(200) + 0.5) / 200)[:, None]
    shown = torch.where((uv[:, 0] - 0.5).abs() < gap / 2, 0, parts)
    planes = move(harvest(torch.full((1, 3, 400, 120), -0.5), shown, uv), parts, uv, background=False)
    assert (planes[0, 3, 110:290, 15:105] == 1).all() == is_closed


def test_an_unseen_point_takes_half_of_its_colour_from_the_nearest_seen_one():
    pixels, parts, uv = board(part=2)
    pixels[0, :, 8:32, 6:12], pixels[0, :, 8:32, 12:18] = 0.8, -0.4
    half = torch.where(torch.arange(32) < 18, parts, 0)
    planes = move(harvest(pixels, half, uv), parts, uv, background=False)[0]
    unseen = planes[:3, 12:28, 22:25]
    assert (planes[3, 12:28, 22:25] == 0).all()
    assert unseen.mean() == pytest.approx((-0.4 + 0.2) / 2, abs=0.12), "half the row's mean, half the near colour"


@pytest.mark.parametrize("shift", [(2, 0), (-3, 0), (0, 4), (-1, -2)])
def test_a_slightly_wrong_map_paints_no_background_onto_the_body(clip, shift):
    _, parts, uv = (x[:1] for x in clip)
    red, green = torch.tensor([1.0, -1, -1]), torch.tensor([-1.0, 1, -1])
    photo = torch.where((parts > 0)[:, None], red[None, :, None, None], green[None, :, None, None])
    planes = move(harvest(photo, parts.roll(shift, (1, 2)), uv.roll(shift, (2, 3))), parts, uv, background=False)
    assert (planes[:, 1][parts > 0] > 0).float().mean() < 0.005  # see `registered`


def test_thin_limbs_do_not_vanish():
    pixels, parts, uv = board()
    parts[:], uv[:] = 0, 0
    parts[0, 10:30, 15:17], pixels[0, :, 10:30, 15:17] = 20, 0.8  # two pixels wide: nothing is left by the erosion
    texture = harvest(pixels, parts, uv)
    assert texture.known[0, 19] and torch.allclose(texture.means[0, 19], torch.tensor(0.8), atol=1e-5)


def test_no_ghost_stays_where_a_soft_outlined_person_stood_before_wall_and_floor():
    photo = torch.cat([torch.full((1, 3, 50, 64), 0.4), torch.full((1, 3, 30, 64), -0.4)], 2)
    room = photo.clone()
    person = torch.zeros(1, 1, 80, 64)
    person[:, :, 20:70, 24:40] = 1
    soft = F.avg_pool2d(F.pad(person, (1, 1, 1, 1)), 3, stride=1)  # a camera mixes the outline with what lies behind
    filled, _ = fill_background(torch.lerp(photo, torch.ones(()), soft), person)
    error = (filled - room).abs().amax(1)
    # nothing of the person's white on the wall, and the floor begins behind it
    assert error[:, :35].max() < 0.02 and error.mean() < 0.03
    assert (filled[:, :, 40, 32] - filled[:, :, 60, 32]).min() > 0.5


def test_colours_along_the_outline_are_the_bodys_own():
    pixels, parts, uv = board()
    body = (parts[:, None] > 0).float()
    soft = F.avg_pool2d(F.pad(body, (1, 1, 1, 1)), 3, stride=1)
    photo = torch.lerp(torch.ones_like(pixels), pixels, soft)  # a dark body before white, its outermost pixels mixed
    assert photo[body.expand_as(photo) > 0].max() > 0.3
    planes = move(harvest(photo, parts, uv), parts, uv, background=False)
    assert planes[:, :3].movedim(1, -1)[parts > 0].max() < -0.45


def test_a_sliver_beside_its_twin_takes_the_twins_colours():
    pixels, parts, uv = board(part=1)
    # a front and, along one side, a strip of the back that is as much background as body
    parts[:, 8:32, 6] = 2
    pixels[:, :, 8:32, 6] = 1.0
    texture = harvest(pixels, parts, uv)
    assert texture.means[0, 1].max() < -0.45 and texture.rows[0, 1].max() < -0.45
    parts[:, 8:32, 6:14] = 2
    pixels[:, :, 8:32, 6:14] = 1.0
    assert harvest(pixels, parts, uv).means[0, 1].min() > 0.9  # enough of the back to be believed


def test_turned_a_front_is_its_back_and_turned_again_it_is_the_front():
    parts = torch.arange(25)[None, None]
    # background, torso; the right leg's back becomes the left one's front; hands, feet and the head's halves change
    # sides
    assert turned(parts)[0, 0, [0, 1, 2, 7, 9, 16, 3, 5, 23]].tolist() == [0, 2, 1, 10, 8, 17, 4, 6, 24]
    assert torch.equal(turned(turned(parts)), parts) and sorted(turned(parts).flatten().tolist()) == list(range(25))


def test_without_texels_each_part_has_its_mean_colour():
    pixels, parts, uv = board()
    pixels[0, :, 8:20, 6:26], pixels[0, :, 20:32, 6:26] = 1.0, 0.0
    own = parts.clone()
    own[0, 20:32] = torch.where(parts[0, 20:32] > 0, 9, 0)
    for photo_uv, target_uv in ((None, uv), (uv, None), (None, None)):
        planes = move(harvest(pixels, own, photo_uv), own, target_uv, background=False)[0]
        assert (planes[:3][:, own[0] == 2] > 0.9).all() and (planes[:3][:, own[0] == 9].abs() < 0.1).all()
        assert (planes[3] == 0).all() and (planes[4][own[0] > 0] == SOURCE_MEAN).all()
        assert (planes[:, own[0] == 0] == 0).all()


def test_the_background_lies_around_the_person_when_asked(clip):
    pixels, parts, uv = clip
    texture = harvest(pixels[:1], parts[:1], uv[:1])
    planes = move(texture, parts[2:3], uv[2:3], background=True)
    around = (parts[2:3] == 0)[:, None]
    assert torch.equal(planes[:, :3][around.expand(-1, 3, -1, -1)], texture.background[around.expand(-1, 3, -1, -1)])
    assert (planes[:, 4:][around] == SOURCE_BACKGROUND).all()
    assert torch.equal(planes[:, 3:4][around], 1 - texture.covered[around])  # what was filled in was not seen
    empty = move(texture, parts[2:3], uv[2:3], background=False)
    assert (empty[around.expand(-1, 5, -1, -1)] == 0).all()
    inside = eroded(parts[2:3], 1)[:, None]
    assert torch.allclose(empty[inside.expand(-1, 5, -1, -1)], planes[inside.expand(-1, 5, -1, -1)], atol=1e-6)
    edge = (~around & ~inside).expand(-1, 3, -1, -1)  # mixed: between the person's colour and what lies behind
    low, high = torch.minimum(empty[:, :3], texture.background), torch.maximum(empty[:, :3], texture.background)
    assert ((planes[:, :3] >= low - 1e-6) & (planes[:, :3] <= high + 1e-6))[edge].all()
    share = (planes[:, :3] - texture.background)[edge].norm() / (empty[:, :3] - texture.background)[edge].norm()
    assert 0.4 < share < 0.8


def test_several_photos_of_one_person_know_more_than_one():
    rgb, poses = drawn_clip(HELD_OUT, "turn", 3, SIZE, fps=1.0)
    maps = torch.from_numpy(poses.parts).long(), torch.from_numpy(poses.uv).float()
    pixels, parts, uv = (x[::2] for x in (to_pixels(torch.from_numpy(rgb)), *maps))
    both, one = harvest(pixels, parts, uv, same_person=True), harvest(pixels[:1], parts[:1], uv[:1])
    assert isinstance(both, Texture) and both.photos.shape[:2] == (1, 2)
    seen = [(texture.places[..., 6] > LEAST).any(1).sum() for texture in (both, one)]
    assert seen[0] > 1.3 * seen[1]
    assert torch.equal(both.background, one.background)


def test_points_that_are_taken_away_were_not_seen(clip):
    pixels, parts, uv = (x[:1] for x in clip)
    texture = harvest(pixels, parts, uv)
    torso = (torch.arange(1, 25) == 2).float()[None, None, :, None, None]
    planes = move(texture.without(torso), parts, uv, background=False)
    assert (planes[:, 3][parts == 2] == 0).all() and (planes[:, 3][parts == 23] == 1).float().mean() > 0.95
    colours = planes[:, :3].movedim(1, -1)[parts == 2]
    assert (colours - texture.means[0, 1]).abs().mean() < 0.6  # colours of that height instead
    assert (move(texture, parts, uv, background=False)[:, 3][parts == 2] == 1).float().mean() > 0.95


def test_rows_that_are_not_seen_have_the_colour_of_the_nearest_one():
    """A torso in a shirt whose lowest rows are trousers, all of it below them unseen."""
    pixels, parts, uv = board()
    v = uv[:, 1]
    parts = torch.where((parts > 0) & (v > 0.3), 2, 0)
    pixels = torch.where((v < 0.5)[:, None], -0.8, 0.8).expand_as(pixels)
    rows = harvest(pixels, parts, uv).rows[0, 1]
    assert (rows[: len(rows) // 4] < -0.5).all() and (rows[-len(rows) // 4 :] > 0.5).all()


def test_nobody_in_the_map_is_no_texture():
    pixels, parts, uv = board()
    texture = harvest(pixels, torch.zeros_like(parts), uv)
    assert not texture.known.any()
    planes = move(texture, parts, uv, background=False)
    assert (planes == 0).all()


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


@pytest.mark.parametrize("more", [0, 8])
def test_bars_are_not_copied(more):
    """Neither with a watermark in them, nor within bars of another colour (`more` pixels at top and bottom)."""
    noise = torch.rand(1, 3, 160, 128, generator=torch.Generator().manual_seed(0)) * 0.4
    noise[..., :40], noise[..., 100:] = -1.0, -1.0
    noise[..., 140 - more : 142 - more, 110:120] = 0.7
    noise[..., :more, :], noise[..., 160 - more :, :] = -0.8, -0.8
    there = person() * F.pad(torch.ones(1, 1, 128, 128), (0, 0, 16, 16))
    found, covered = fill_background(torch.where(there > 0, 1.0, noise), there)
    assert found[covered.expand_as(found) > 0].min() > -0.2


def test_a_wall_next_to_a_door_does_not_become_the_floor():
    """Whose colour is the mean of both."""
    scene = 0.05 * torch.randn(1, 3, 160, 128, generator=torch.Generator().manual_seed(0))
    scene[..., :120, :76] += 0.6
    scene[..., :120, 76:] -= 0.6
    there = F.pad(torch.ones(1, 1, 126, 56), (24, 48, 24, 10))
    found, covered = fill_background(torch.where(there > 0, 1.0, scene), there)
    above = (covered > 0) & (torch.arange(160) < 112)[:, None]
    assert (found.mean(1, keepdim=True)[above].abs() > 0.35).float().mean() > 0.7


def test_light_that_changes_along_a_wall_goes_on_behind_the_person():
    there = F.pad(torch.ones(1, 1, 100, 32), (48, 48, 40, 20))
    for most in (0.3, 0.6):
        wall = torch.linspace(-most, most, 128).expand(1, 3, 160, 128)
        found, covered = fill_background(torch.where(there > 0, 1.0, wall), there)
        assert (found - wall).abs()[covered.expand_as(found) > 0].mean() < 0.055


def test_a_photo_of_one_colour_stays_one_colour_and_one_full_of_person_does_not_break_the_fill():
    found, covered = fill_background(torch.ones(1, 3, 40, 32), torch.ones(1, 1, 40, 32))
    assert torch.isfinite(found).all() and (covered == 1).all()
    found, _ = fill_background(torch.where(person() > 0, 1.0, -0.3).expand(1, 3, -1, -1), person())
    assert torch.allclose(found, torch.tensor(-0.3), atol=1e-3)


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
    empty = torch.zeros_like(parts)
    assert torch.equal(registered(photos[0], empty, None)[0], empty)


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


SKIN, HAIR, SHIRT, TROUSERS = (0.75, 0.5, 0.4), (0.15, 0.1, 0.08), (0.2, 0.3, 0.8), (0.3, 0.6, 0.3)


def among(parts, *numbers):
    return torch.isin(parts, torch.tensor(numbers))


@pytest.fixture
def dressed():
    """A person in shirt and trousers, painted on an example's map: photo (1, 3, H, W), parts, uv."""
    poses = read_poses(EXAMPLES / "people" / "fumi.poses.npz")
    parts, uv = torch.from_numpy(poses.parts).long(), torch.from_numpy(poses.uv).float()
    photo = torch.full((1, 3, *poses.size), 0.9)
    paint(photo, parts > 0, SHIRT)
    paint(photo, among(parts, *range(5, 15)), TROUSERS)
    paint(photo, parts >= 23, HAIR)
    paint(photo, (parts >= 23) & (uv[:, 0] < 0.4) & (uv[:, 1] < 0.65) | among(parts, 3, 4), SKIN)
    return photo + 0.02 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0)), parts, uv


def paint(photo, where, colour):
    photo.movedim(1, -1)[where] = torch.tensor(colour) * 2 - 1


def next_to(area, columns):
    """The pixels up to so many columns left or right of an area."""
    return F.max_pool2d(area[:, None].float(), (1, 2 * columns + 1), stride=1, padding=(0, columns))[:, 0] > 0


def test_nothing_is_misplaced_where_the_map_is_right(dressed):
    assert misplaced(*dressed).float().mean() < 1e-3


def test_a_hand_on_clothes_is_not_clothes_and_a_bare_leg_stays_one(dressed):
    photo, parts, uv = dressed
    hand = next_to(among(parts, 3), 22) & among(parts, 7, 9)
    paint(photo, hand, SKIN)
    paint(photo, among(parts, 11, 12, 13, 14), SKIN)
    found = misplaced(photo, parts, uv)
    assert hand.sum() > 150 and found[hand].float().mean() > 0.95
    assert not found[among(parts, 11, 12, 13, 14)].any()
    seen = move(harvest(photo, parts, uv), parts, uv, background=False)[:, :3].movedim(1, -1)[hand]
    assert (seen - (torch.tensor(TROUSERS) * 2 - 1)).abs().mean() < 0.15


def test_clothes_next_to_a_bare_arm_are_no_skin_and_a_sleeve_stays_one(dressed):
    photo, parts, uv = dressed
    forearm = among(parts, 20, 22)
    near = F.max_pool2d(among(parts, 2, 7, 9)[:, None].float(), 13, 1, 6)[:, 0] > 0
    assert not misplaced(photo, parts, uv)[forearm].any(), "all of the forearm is sleeve"
    paint(photo, among(parts, 19, 20, 21, 22), SKIN)
    paint(photo, forearm & near, SHIRT)
    found = misplaced(photo, parts, uv)
    assert (forearm & near).sum() > 100 and found[forearm & near].float().mean() > 0.9
    assert found[forearm & ~near].float().mean() < 0.02
    hem = forearm & (uv[:, 1] > 0.3) & (uv[:, 1] < 0.5)
    paint(photo, among(parts, *range(15, 23)), SKIN)
    paint(photo, hem, SHIRT)
    found = misplaced(photo, parts, uv)
    hidden = hem & next_to(among(parts, 2, 7, 9), 12)
    assert hidden.sum() > 50 and found[hidden].float().mean() > 0.9, "a hem that hides all of a bare arm"


def test_a_bare_belly_between_the_arms_is_no_hand(dressed):
    photo, parts, uv = dressed
    forearms = among(parts, 19, 20, 21, 22)
    belly = among(parts, 2) & (uv[:, 1] > 0.48) & (uv[:, 1] < 0.5)
    paint(photo, forearms | belly | next_to(forearms, 6) & among(parts, 2), SKIN)
    assert belly.sum() > 300 and not misplaced(photo, parts, uv)[belly].any()


def test_hair_over_an_arm_is_no_sleeve_unless_all_sleeves_have_its_colour(dressed):
    photo, parts, uv = dressed
    paint(photo, among(parts, 16, 18) | among(parts, 2) & (uv[:, 1] > 0.85), HAIR)
    found = misplaced(photo, parts, uv)
    assert found[among(parts, 16)].float().mean() > 0.9 and found[among(parts, 15, 17)].float().mean() < 0.15
    paint(photo, among(parts, *range(15, 23)), HAIR)
    assert not misplaced(photo, parts, uv)[among(parts, *range(15, 23))].any()


def test_hands_in_pockets_get_the_colour_of_the_face(dressed):
    photo, parts, uv = dressed
    paint(photo, among(parts, 3, 4), TROUSERS)
    found = misplaced(photo, parts, uv)
    assert found[among(parts, 3, 4)].all()
    hands = harvest(photo, parts, uv).means[0, 2:4]
    assert (hands - (torch.tensor(SKIN) * 2 - 1)).abs().max() < 0.1
    bare = torch.where(among(parts, 3, 4)[:, None], torch.tensor([0.8, -0.9, -0.9])[:, None, None], photo)
    both = harvest(
        torch.cat([photo, bare]), *(x.repeat(2, *[1] * (x.dim() - 1)) for x in (parts, uv)), same_person=True
    )
    assert (both.means[0, 2:4] - torch.tensor([0.8, -0.9, -0.9])).abs().max() < 0.1, "another photo shows them"
    paint(photo, among(parts, 3, 4), (0.9, 0.1, 0.1))
    assert not misplaced(photo, parts, uv)[among(parts, 3, 4)].any(), "gloves are seen"


def test_a_map_without_a_face_says_nothing(dressed):
    photo, parts, uv = dressed
    paint(photo, next_to(among(parts, 3), 22) & among(parts, 7, 9), SKIN)
    assert not misplaced(photo, torch.where(on_face(parts, uv), 0, parts), uv).any()
