"""Photos and motion brought together: fitting, alignment, when nothing is moved; several photos of one person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn import drawn_clip

from dreampose_core.errors import InputError
from dreampose_core.inputs.framing import Photo, crowds, fit_photo, fit_photos, make_scene, maps_together, naming
from dreampose_core.media import Box
from dreampose_core.poses import MIRRORED, PoseSequence, fitted
from dreampose_core.settings import FrameOptions, SceneOptions
from dreampose_core.synthetic import HELD_OUT

SIZE = (80, 64)


@pytest.fixture(scope="module")
def clip():
    return drawn_clip(HELD_OUT, "walk", 4, SIZE, fps=8.0)


@pytest.fixture(scope="module")
def other():
    """The motion of another figure, small and far up in its frame."""
    poses = drawn_clip(HELD_OUT + 5, "wave", 4, (100, 60), fps=8.0)[1]
    below = [np.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, 60), (30, 30)]) for x in (poses.parts, poses.uv)]
    return PoseSequence(*below, poses.charts, poses.fps)


def extent(mask: np.ndarray) -> tuple[int, int]:
    """First row, and the row after the last, of a mask (H, W)."""
    rows = np.flatnonzero(mask.any(1))
    return rows[0], rows[-1] + 1


def test_a_motion_that_starts_with_the_photos_map_is_left_as_it_is(clip):
    rgb, poses = clip
    scene = make_scene(rgb[0], poses, poses.select([0]), SIZE, SceneOptions())
    assert np.array_equal(scene.poses.parts, poses.parts) and np.array_equal(scene.poses.uv, poses.uv)
    assert np.array_equal(scene.photo, rgb[0]) and scene.box == Box(0, 0, *SIZE) and scene.notices == ()
    real = PoseSequence(poses.parts, poses.uv, "densepose", poses.fps)
    scene = make_scene(rgb[0], real, real.select([0]), SIZE, SceneOptions(mirror=True))
    assert scene.poses.uv is None and scene.notices[0] == MIRRORED
    # any frame of the clip, and any part of it
    part = make_scene(rgb[2], poses, poses.select([2]), SIZE, SceneOptions(first_frame=1))
    assert np.array_equal(part.poses.parts, poses.parts[1:]) and part.notices == ()


def wider(clip, by: int) -> tuple[np.ndarray, PoseSequence]:
    """The first picture and all maps with so much more at the left."""
    rgb, poses = clip
    maps = (np.pad(x, [(0, 0)] * (x.ndim - 1) + [(by, 0)]) for x in (poses.parts, poses.uv))
    photo = np.pad(rgb[0], ((0, 0), (by, 0), (0, 0)), mode="edge")
    return photo, PoseSequence(*maps, poses.charts, poses.fps)


def test_in_a_crop_photo_and_motion_stay_together(clip):
    photo, poses = wider(clip, 40)
    scene = make_scene(photo, poses, poses.select([0]), SIZE, SceneOptions(fit="crop"))
    assert np.array_equal(scene.poses.parts[0], scene.image_poses.parts[0])
    assert scene.box.left > 20 and scene.box.height <= SIZE[0]
    assert scene.box.width / scene.box.height == pytest.approx(SIZE[1] / SIZE[0])
    padded = make_scene(photo, poses, poses.select([0]), SIZE, SceneOptions(fit="pad"))
    assert padded.box.height > SIZE[0] and padded.poses.mask[0].sum() < scene.poses.mask[0].sum()
    # The motion goes on from the photo, in the photo's frame; the crop must not tear them apart.
    photo, poses = wider(clip, 80)
    scene = make_scene(photo, poses.clip(1, 4), poses.select([0]), SIZE, SceneOptions(align="none"))
    both = scene.image_poses.mask[0] & scene.poses.mask[0]
    assert both.sum() > 0.5 * scene.image_poses.mask[0].sum()


def test_another_persons_motion_takes_the_photos_place(clip, other):
    rgb, poses = clip
    large = rgb[0].repeat(3, 0).repeat(3, 1)  # its map has less resolution
    scene = make_scene(large, other, poses.select([0]), SIZE, SceneOptions())
    assert np.array_equal(scene.image_poses.parts, poses.parts[:1]) and scene.box == Box(0, 0, 240, 192)
    own = poses.select([0])
    moved, kept = (make_scene(rgb[0], other, own, SIZE, SceneOptions(align=align)) for align in ("outline", "none"))
    assert len(moved.notices) == 1 and kept.notices == ()
    assert np.array_equal(kept.poses.parts, fitted(other, SIZE).parts)
    want, got = extent(own.mask[0]), np.median([extent(mask) for mask in moved.poses.mask], 0)
    assert abs(got - want).max() <= 3 < abs(np.median([extent(mask) for mask in kept.poses.mask], 0) - want).max()


def test_without_the_photos_map_it_is_padded_and_nothing_is_moved(clip, other):
    photo = np.zeros((60, 90, 3), np.uint8)
    scene = make_scene(photo, other, None, SIZE, SceneOptions())
    assert scene.image_poses is None and scene.notices == ()
    assert np.array_equal(scene.poses.parts, fitted(other, SIZE).parts)
    assert scene.box.width == pytest.approx(90) and scene.box.height > 60
    cropped = make_scene(photo, other, None, SIZE, SceneOptions(fit="crop"))
    assert cropped.box.height == pytest.approx(60) and cropped.box.left == pytest.approx((90 - cropped.box.width) / 2)


def test_what_cannot_be_brought_together(clip, other):
    photo, own = clip[0][0], clip[1].select([0])
    long = PoseSequence(np.ones((1201, 8, 6), np.uint8), None, "none")
    nobody = replace(own, parts=np.zeros_like(own.parts), uv=np.zeros_like(own.uv))
    for image, poses, image_poses, options, words in (
        (photo[:40], other, own, {}, "their shapes must match"),
        (photo, other, own, {"first_frame": 9}, "not inside the sequence"),
        (photo, other, own, {"loops": 100, "fps": 120.0}, "at most 1200"),
        (photo, long, None, {}, "choose a range of frames"),
        (photo, other, nobody, {}, "No person is found"),
    ):
        with pytest.raises(InputError, match=words):
            make_scene(image, poses, image_poses, SIZE, SceneOptions(**options))


def test_the_frame_is_made_smaller_and_moved(clip):
    rgb, poses = clip
    own = poses.select([0])
    box = fit_photo(rgb[0], own, SIZE, FrameOptions())[2]
    photo, near, nearer = fit_photo(rgb[0], own, SIZE, FrameOptions(zoom=2))
    assert (nearer.height, nearer.width) == (box.height / 2, box.width / 2)
    for start, length in (("top", "height"), ("left", "width")):
        middles = [getattr(one, start) + getattr(one, length) / 2 for one in (box, nearer)]
        assert middles[0] == middles[1]
    assert np.array_equal(near.parts[0, ::2, ::2], own.parts[0, 20:60, 16:48]), "photo and map show the same"
    assert abs(photo[::2, ::2].astype(int) - rgb[0][20:60, 16:48]).mean() < 12
    moved = fit_photo(rgb[0], own, SIZE, FrameOptions(zoom=2, shift_right=0.5, shift_down=-0.25))[2]
    assert (moved.left - nearer.left, moved.top - nearer.top) == (0.5 * nearer.width, -0.25 * nearer.height)
    scene = make_scene(rgb[0], poses, own, SIZE, SceneOptions(zoom=2))
    assert np.array_equal(scene.poses.parts[0], near.parts[0]), "a motion that lies on the photo goes with it"


def test_a_frame_beside_the_photo_is_refused(clip):
    outside = FrameOptions(zoom=3, shift_right=1).model_copy(update={"shift_down": 3})
    with pytest.raises(InputError, match="outside the photo; move it back"):
        fit_photo(clip[0][0], None, SIZE, outside)
    assert fit_photo(clip[0][0], None, SIZE, FrameOptions(zoom=0.5, shift_down=0.5))[0].shape == (*SIZE, 3)


# ---- several photos --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos():
    rgb, poses = drawn_clip(HELD_OUT, "turn", 3, (96, 80), fps=2.0)
    return [Photo(image, poses.select([index]), f"{index}.png") for index, image in enumerate(rgb)]


def of(photo: Photo, own: PoseSequence | None) -> Photo:
    return replace(photo, image_poses=own)


def parts_only(poses: PoseSequence) -> PoseSequence:
    return replace(poses, uv=None, charts="none")


def test_maps_are_joined_in_their_order(photos):
    joined, said = maps_together(fit_photos(photos, SIZE, FrameOptions()))
    fitted = fit_photos(photos, SIZE, FrameOptions())
    assert said == () and (len(joined), joined.charts) == (3, "body")
    for index, photo in enumerate(fitted):
        own = photo.image_poses
        assert np.array_equal(joined.parts[index], own.parts[0]) and np.array_equal(joined.uv[index], own.uv[0])
        assert joined.uv.dtype == own.uv.dtype


def test_where_one_is_unknown_none_is_used_and_it_is_said(photos):
    joined, said = maps_together([photos[0], of(photos[1], None), of(photos[2], None)])
    notice = "The DensePose of 1.png, 2.png is unknown, so the person is learned without that of any photo."
    assert joined is None and said == (notice,)
    for number in (1, 3):
        assert maps_together([of(photo, None) for photo in photos[:number]]) == (None, ())
    assert maps_together(photos[:1]) == (photos[0].image_poses, ()), "one keeps its map as it is"


def test_what_not_all_maps_know_is_left_out_and_said(photos):
    other = replace(photos[1].image_poses, charts="densepose")
    for odd in (other, parts_only(photos[1].image_poses)):
        joined, (said,) = maps_together([photos[0], of(photos[1], odd)])
        assert joined.uv is None and joined.charts == "none" and len(joined) == 2 and "their parts alone" in said
    alone = [of(photo, parts_only(photo.image_poses)) for photo in photos]
    assert maps_together(alone)[1] == ()
    only_uv = of(photos[1], replace(photos[1].image_poses, parts=None))
    joined, said = maps_together([photos[0], only_uv])
    assert joined.parts is None and joined.charts == "body" and said == ()
    with pytest.raises(InputError, match="know only the parts and some only U, V"):
        maps_together([alone[0], only_uv])


def test_several_people_are_said_of_the_photo_that_shows_them(photos):
    rgb, poses = drawn_clip(HELD_OUT, "idle", 1, (160, 128))
    two = PoseSequence(np.concatenate([poses.parts, poses.parts], 2), None, "none")
    crowd = Photo(np.concatenate([rgb[0]] * 2, 1), two, "party.png")
    notice = "party.png: Two people are in the photo: the larger one is used."
    assert crowds([photos[0], crowd, of(photos[1], None)]) == (notice,)
    assert naming(["No person was found in the photo.", "It knows few."], "b.jpg") == (
        "No person was found in b.jpg.",
        "It knows few.",
    )
