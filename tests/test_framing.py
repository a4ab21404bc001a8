"""Photo and motion brought together: fitting, alignment, and when nothing is moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dreampose_core.errors import InputError
from dreampose_core.inputs.framing import fit_photo, make_scene
from dreampose_core.media import Box
from dreampose_core.poses import MIRRORED, PoseSequence, fitted
from dreampose_core.settings import FrameOptions, SceneOptions
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip

SIZE = (80, 64)


@pytest.fixture(scope="module")
def clip():
    rgb, poses = render_clip(Figure.from_seed(HELD_OUT), "walk", 4, SIZE, fps=8.0)
    return rgb.numpy(), poses


@pytest.fixture(scope="module")
def other():
    """The motion of another figure, small and far up in its frame."""
    poses = render_clip(Figure.from_seed(HELD_OUT + 5), "wave", 4, (100, 60), fps=8.0)[1]
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
    part = make_scene(rgb[2], poses, poses.select([2]), SIZE, SceneOptions(first_frame=1))
    assert np.array_equal(part.poses.parts, poses.parts[1:]) and part.notices == (), (
        "any frame of the clip, and any part of it"
    )


def test_in_a_crop_photo_and_motion_stay_together(clip):
    rgb, poses = clip
    wide = [np.pad(x, [(0, 0)] * (x.ndim - 1) + [(40, 0)]) for x in (poses.parts, poses.uv)]
    poses = PoseSequence(*wide, poses.charts, poses.fps)
    photo = np.pad(rgb[0], ((0, 0), (40, 0), (0, 0)), mode="edge")
    scene = make_scene(photo, poses, poses.select([0]), SIZE, SceneOptions(fit="crop"))
    assert np.array_equal(scene.poses.parts[0], scene.image_poses.parts[0])
    assert (
        scene.box.left > 20
        and scene.box.height <= SIZE[0]
        and scene.box.width / scene.box.height == pytest.approx(SIZE[1] / SIZE[0])
    )
    padded = make_scene(photo, poses, poses.select([0]), SIZE, SceneOptions(fit="pad"))
    assert padded.box.height > SIZE[0] and padded.poses.mask[0].sum() < scene.poses.mask[0].sum()


def test_another_persons_motion_takes_the_photos_place(clip, other):
    rgb, poses = clip
    own = poses.select([0])
    moved, kept = (make_scene(rgb[0], other, own, SIZE, SceneOptions(align=align)) for align in ("outline", "none"))
    assert len(moved.notices) == 1 and kept.notices == ()
    assert np.array_equal(kept.poses.parts, fitted(other, SIZE).parts)
    want, got = extent(own.mask[0]), np.median([extent(mask) for mask in moved.poses.mask], 0)
    assert abs(got - want).max() <= 3 < abs(np.median([extent(mask) for mask in kept.poses.mask], 0) - want).max()


def test_without_alignment_what_lies_on_the_photo_stays_on_it(clip):
    """The motion goes on from the photo, in the photo's frame; the crop must not tear them apart."""
    rgb, poses = clip
    wide = [np.pad(x, [(0, 0)] * (x.ndim - 1) + [(80, 0)]) for x in (poses.parts, poses.uv)]
    poses = PoseSequence(*wide, poses.charts, poses.fps)
    photo = np.pad(rgb[0], ((0, 0), (80, 0), (0, 0)), mode="edge")
    scene = make_scene(photo, poses.clip(1, 4), poses.select([0]), SIZE, SceneOptions(align="none"))
    both = scene.image_poses.mask[0] & scene.poses.mask[0]
    assert both.sum() > 0.5 * scene.image_poses.mask[0].sum()


def test_what_mirroring_leaves_out_is_said(clip):
    rgb, poses = clip
    real = PoseSequence(poses.parts, poses.uv, "densepose", poses.fps)
    scene = make_scene(rgb[0], real, real.select([0]), SIZE, SceneOptions(mirror=True))
    assert scene.poses.uv is None and scene.notices[0] == MIRRORED


def test_without_the_photos_map_it_is_padded_and_nothing_is_moved(clip, other):
    photo = np.zeros((60, 90, 3), np.uint8)
    scene = make_scene(photo, other, None, SIZE, SceneOptions())
    assert (
        scene.image_poses is None
        and scene.notices == ()
        and np.array_equal(scene.poses.parts, fitted(other, SIZE).parts)
    )
    assert scene.box.width == pytest.approx(90) and scene.box.height > 60
    cropped = make_scene(photo, other, None, SIZE, SceneOptions(fit="crop"))
    assert cropped.box.height == pytest.approx(60) and cropped.box.left == pytest.approx((90 - cropped.box.width) / 2)


def test_a_map_of_less_resolution_than_its_photo(clip, other):
    rgb, poses = clip
    photo = rgb[0].repeat(3, 0).repeat(3, 1)
    scene = make_scene(photo, other, poses.select([0]), SIZE, SceneOptions())
    assert np.array_equal(scene.image_poses.parts, poses.parts[:1]) and scene.box == Box(0, 0, 240, 192)


def test_what_cannot_be_brought_together(clip, other):
    rgb, poses = clip
    own = poses.select([0])
    with pytest.raises(InputError, match="another picture's shape"):
        make_scene(rgb[0][:40], other, own, SIZE, SceneOptions())
    with pytest.raises(InputError, match="not inside the sequence"):
        make_scene(rgb[0], other, own, SIZE, SceneOptions(first_frame=9))
    with pytest.raises(InputError, match="at most 1200"):
        make_scene(rgb[0], other, own, SIZE, SceneOptions(loops=100, fps=120.0))
    long = PoseSequence(np.ones((1201, 8, 6), np.uint8), None, "none")
    with pytest.raises(InputError, match="choose a range of frames"):
        make_scene(rgb[0], long, None, SIZE, SceneOptions())
    nobody = replace(own, parts=np.zeros_like(own.parts), uv=np.zeros_like(own.uv))
    with pytest.raises(InputError):
        make_scene(rgb[0], other, nobody, SIZE, SceneOptions())


def test_the_frame_is_made_smaller_and_moved(clip):
    rgb, poses = clip
    own = poses.select([0])
    box = fit_photo(rgb[0], own, SIZE, FrameOptions())[2]
    photo, near, nearer = fit_photo(rgb[0], own, SIZE, FrameOptions(zoom=2))
    assert (nearer.height, nearer.width) == (box.height / 2, box.width / 2)
    assert (
        nearer.top + nearer.height / 2 == box.top + box.height / 2
        and nearer.left + nearer.width / 2 == box.left + box.width / 2
    )
    assert np.array_equal(near.parts[0, ::2, ::2], own.parts[0, 20:60, 16:48]), "photo and map show the same"
    assert abs(photo[::2, ::2].astype(int) - rgb[0][20:60, 16:48]).mean() < 12
    moved = fit_photo(rgb[0], own, SIZE, FrameOptions(zoom=2, shift_right=0.5, shift_down=-0.25))[2]
    assert (moved.left - nearer.left, moved.top - nearer.top) == (0.5 * nearer.width, -0.25 * nearer.height)
    scene = make_scene(rgb[0], poses, own, SIZE, SceneOptions(zoom=2))
    assert np.array_equal(scene.poses.parts[0], near.parts[0]), "a motion that lies on the photo goes with it"


def test_a_frame_beside_the_photo_is_refused(clip):
    with pytest.raises(InputError, match="beside the photo; move it back"):
        fit_photo(
            clip[0][0],
            None,
            SIZE,
            FrameOptions(zoom=3, shift_right=1, shift_down=1).model_copy(update={"shift_down": 3}),
        )
    assert fit_photo(clip[0][0], None, SIZE, FrameOptions(zoom=0.5, shift_down=0.5))[0].shape == (*SIZE, 3)
