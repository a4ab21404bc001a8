"""What models are measured on: held-out drawn people, real videos in a folder, and the photo's map disturbed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn import drawn_clip

from dreampose_core.densepose import load_estimator
from dreampose_core.errors import InputError
from dreampose_core.evaluation.clips import DISTURBED, LATER, UV_NOISE, DrawnPeople, VideoClips, displaced, disturbances
from dreampose_core.media import write_video
from dreampose_core.model.config import ModelConfig
from dreampose_core.poses import PoseSequence, write_any, write_poses
from dreampose_core.synthetic import HELD_OUT
from dreampose_core.synthetic.clips import LENGTH, draw_clip

SIZE = (40, 32)
CONFIG, LARGER = ModelConfig(height=40, width=32), ModelConfig(height=160, width=128)


@pytest.fixture(scope="module")
def film():
    """A clip that stands for a real one: frames uint8 (60, 100, 80, 3) and poses."""
    return drawn_clip(HELD_OUT, "turn", 60, (100, 80), fps=30)


def put(folder, film, name="a", frames=60, poses=60):
    write_video(film[0][:frames], folder / f"{name}.mp4", 30)
    write_poses(film[1].select(slice(poses)), folder / f"{name}.npz")


def test_videos_are_compared_from_the_sixth_frame_on_in_the_models_size(tmp_path, film):
    put(tmp_path, film, "b")
    put(tmp_path, film, "a")
    clips = VideoClips(tmp_path, CONFIG)
    assert len(clips) == 2 and len(VideoClips(tmp_path, CONFIG, 1)) == 1
    first, second = clips
    assert (first.name, second.name) == ("a.mp4", "b.mp4")
    assert first.photo.shape == (*SIZE, 3) and len(first.image_poses) == 1
    assert first.poses.size == SIZE and first.poses.fps == 30
    assert first.truth.shape == (50, *SIZE, 3)  # frames 5 to 54
    rows, columns = (((np.arange(side) + 0.5) * 2.5).astype(int) for side in SIZE)
    assert np.array_equal(first.poses.parts, film[1].parts[5:55][:, rows][:, :, columns])


@pytest.mark.parametrize("form", ["a.zip", "a", "a.densepose.mp4"])
def test_poses_of_videos_come_in_any_form(tmp_path, film, form):
    write_video(film[0], tmp_path / "a.mp4", 30)
    write_any(replace(film[1], uv=None, charts="none") if form.endswith("mp4") else film[1], tmp_path / form)
    (clip,) = VideoClips(tmp_path, CONFIG)
    assert len(clip) == 50 and clip.poses.mask.any()


def test_short_clips_without_maps_get_the_estimators(tmp_path, film):
    class Estimator:
        def estimate(self, images):
            self.shapes = [image.shape for image in images]
            return film[1].select(slice(len(self.shapes))) if self.shapes[0] == (100, 80, 3) else None

    estimator, free = Estimator(), replace(CONFIG, height=100, width=80)
    write_video(film[0][:12], tmp_path / "a.mp4", 30)
    (clip,) = VideoClips(tmp_path, free, estimator=estimator)
    assert len(clip) == 7 and len(estimator.shapes) == 12
    assert np.array_equal(clip.poses.parts, film[1].parts[5:12])
    write_video(film[0][:12, 20:], tmp_path / "a.mp4", 30)  # 80 x 80
    write_poses(PoseSequence(film[1].parts[:12, 20:], None, "none"), tmp_path / "a.npz")
    (square,) = VideoClips(tmp_path, replace(CONFIG, height=160, width=128, free_shape=True))
    assert square.truth.shape == (7, 128, 128, 3) == (7, *square.poses.size, 3)


def test_hostile_folders(tmp_path, film):
    def refusal(match, folder=tmp_path):
        with pytest.raises(InputError, match=match) as caught:
            list(VideoClips(folder, CONFIG))
        assert str(caught.value).count(". ") == 0 and "\n" not in str(caught.value)

    refusal("no folder", tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("nothing to see")
    refusal("no folder", tmp_path / "notes.txt")
    refusal("no video")
    (tmp_path / "fake.mp4").write_text("not a video")
    refusal("no video")
    write_video(film[0], tmp_path / "a.mp4", 30)
    refusal("no DensePose for a.mp4; add a.npz")
    (tmp_path / "a.npz").write_text("not poses")
    refusal("a.npz")
    put(tmp_path, film, poses=59)
    refusal("60 frames and its DensePose 59")
    put(tmp_path, film, frames=11, poses=11)
    refusal("11 frames; give a video of 12 or more")
    write_video(film[0], tmp_path / "a.mp4", 30)
    empty = PoseSequence(np.zeros((60, 100, 80), np.uint8), None, "none")
    write_poses(empty, tmp_path / "a.npz")
    refusal("a.mp4 shows no person in its first frame")
    write_poses(PoseSequence(np.ones((60, 100, 200), np.uint8), None, "none"), tmp_path / "a.npz")
    refusal("100 x 80 and its DensePose 100 x 200")


def test_disturbances_are_of_the_size_that_they_say(film):
    exact = film[1].select([0])
    made = disturbances(exact, 7)
    assert tuple(made) == DISTURBED and made["absent"] is None
    for name, pixels in (("displaced_1", 1), ("displaced_2", 2)):
        moves = [displaced(exact, axis, sign * pixels) for axis in (0, 1) for sign in (-1, 1)]
        same = [np.array_equal(x.parts, made[name].parts) and np.array_equal(x.uv, made[name].uv) for x in moves]
        assert sum(same) == 1
    noisy, mask = made["uv_noise"], exact.mask
    assert np.array_equal(noisy.parts, exact.parts) and (noisy.uv[:, :, ~mask[0]] == 0).all()
    error = (noisy.uv.astype(float) - exact.uv)[:, :, mask[0]]
    assert UV_NOISE / 2 < error.std() < 1.3 * UV_NOISE  # U, V are kept within 0..1, which takes some of it away
    holes = made["holes"]
    lost = mask & ~holes.mask
    assert 0.1 < lost.sum() / mask.sum() < 0.8 and (holes.uv[:, :, ~holes.mask[0]] == 0).all()
    assert np.array_equal(holes.parts[holes.mask], exact.parts[holes.mask])
    assert made["parts_only"].uv is None and np.array_equal(made["parts_only"].parts, exact.parts)


def test_displaced_maps_by_hand():
    parts = np.arange(1, 13, dtype=np.uint8).reshape(1, 3, 4)
    poses = PoseSequence(parts, None, "none")
    assert displaced(poses, 0, 1).parts[0].tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert displaced(poses, 0, -2).parts[0].tolist() == [[9, 10, 11, 12], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert displaced(poses, 1, 3).parts[0].tolist() == [[0, 0, 0, 1], [0, 0, 0, 5], [0, 0, 0, 9]]
    assert displaced(poses, 1, -1).parts[0].tolist() == [[2, 3, 4, 0], [6, 7, 8, 0], [10, 11, 12, 0]]


def test_disturbances_come_from_the_seed_and_from_what_is_known(film):
    exact = film[1].select([0])
    made, again, other = (disturbances(exact, seed) for seed in (7, 7, 8))
    assert all(np.array_equal(made[name].parts, again[name].parts) for name in DISTURBED[:-1])
    assert np.array_equal(made["uv_noise"].uv, again["uv_noise"].uv)
    assert not np.array_equal(made["uv_noise"].uv, other["uv_noise"].uv)
    assert not np.array_equal(made["holes"].parts, other["holes"].parts)
    assert "uv_noise" not in disturbances(replace(exact, uv=None, charts="none"), 7)
    assert "parts_only" not in disturbances(PoseSequence(None, exact.uv, "body"), 7)
    nobody = PoseSequence(np.zeros((1, 20, 20), np.uint8), None, "none")
    assert not disturbances(nobody, 7)["holes"].mask.any()


def test_drawn_people_are_new_ones_through_the_body_tracker():
    estimator = load_estimator("body", "cpu")
    (clip,) = people = list(DrawnPeople(1, LARGER, estimator))
    assert len(people) == 1 and clip.photo.shape[:2] == clip.truth.shape[1:3] == LARGER.size
    assert len(clip.truth) == len(clip.poses) == LENGTH - LATER and clip.poses.joints is not None
    assert clip.poses.charts == clip.image_poses.charts == "body"
    trained_on = draw_clip(0, 0, estimator, sizes=[LARGER.size])
    assert not np.array_equal(trained_on.photo, clip.photo)
