"""What `read_any` says and keeps: numbers and gaps, rates and sizes, limits while reading; and what `write_any`
refuses."""

from __future__ import annotations

import operator
import os

import numpy as np
import pytest
from corpus import encode_video
from drawn import drawn_clip
from PIL import Image

from dreampose_core import files
from dreampose_core.errors import InputError, StorageError
from dreampose_core.media import write_video
from dreampose_core.poses import PoseSequence, Reading, check_target, numbered, read_any, read_image_map, write_any
from dreampose_core.poses.maps import encode
from dreampose_core.poses.renderings import MAGIC_ANIMATE


def refusal(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def figure(frames: int = 4, height: int = 48, width: int = 36) -> PoseSequence:
    """A block of parts that moves down by a row a frame."""
    parts = np.zeros((frames, height, width), np.uint8)
    for t in range(frames):
        parts[t, 8 + t : 20 + t, 10:26], parts[t, 20 + t : 36 + t, 10:18], parts[t, 20 + t : 36 + t, 18:26] = 2, 11, 14
    uv = np.random.default_rng(0).random((frames, 2, height, width)) * (parts > 0)[:, None]
    return PoseSequence(parts, uv.astype(np.float16), "densepose", 25.0)


def estimator(seen: list, parts: np.ndarray | None = None):
    """An estimator that keeps the frames it gets, and finds `parts`, or a person everywhere."""

    def estimate(frames):
        seen.extend(frames)
        return PoseSequence(
            np.ones((len(seen), *seen[0].shape[:2]), np.uint8) if parts is None else parts, None, "none"
        )

    return estimate


def pictures(folder, poses: PoseSequence, numbers):
    folder.mkdir()
    for index, number in enumerate(numbers):
        picture = Image.fromarray(encode(poses.parts[index], poses.uv[index]))
        picture.save(folder / f"clip2_720p-{number}_dp.png")  # only the last number counts
    return folder


# --- gaps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "nearest", "notice"),
    [
        ("1110001110", [0, 1, 2, 2, 2, 6, 6, 7, 8, 8], "frames 3-5 and 9; they repeat"),
        ("0110", [1, 1, 2, 2], "frames 0 and 3; they repeat"),
        ("10", [0, 0], "frame 1; it repeats"),
        ("1111", [0, 1, 2, 3], None),
    ],
)
def test_gaps_repeat_the_nearest_frame_and_are_named(known, nearest, notice):
    known = np.array([*known]) == "1"
    assert numbered.nearest_known(known).tolist() == nearest
    wanted = () if notice is None else (f"No person was found in {notice} the nearest frame.",)
    assert numbered.gap_notices(known, "No person was found in", range(len(known))) == wanted


def test_too_many_gaps_are_refused_and_long_lists_of_them_are_cut():
    def notices(known) -> tuple[str, ...]:
        return numbered.gap_notices(np.array(known, bool), "No person in", range(len(known)))

    for known, words in (([0, 1, 0, 0], "frames 0 and 2-3, which is 3 of 4"), ([0] * 4, "which is 4 of 4")):
        assert words in refusal(lambda known=known: notices(known))
    (notice,) = notices(np.arange(60) % 3 > 0)
    assert "0, 3, 6" in notice and "33 and others;" in notice and len(notice) < 200


# --- numbers and rates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frame_{}_512x512.png", "{}.png", "take2-{}-v3.png", "a7_{}.png", "{}_of_4.png"])
def test_the_number_that_runs_is_the_frames(tmp_path, name):
    poses = figure(4)
    folder = pictures(tmp_path / "a", poses, (0, 1, 2, 3))
    for path, index in zip(sorted(folder.iterdir()), (8, 9, 10, 11)):
        path.rename(folder / name.format(index))
    assert np.array_equal(read_any(folder).poses.parts, poses.parts)


def test_a_gif_of_one_picture_is_one_frame_and_an_avi_a_video(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (3, 48, 36, 3)).astype(np.uint8)
    Image.fromarray(rgb[0]).save(tmp_path / "a.gif")
    encode_video(tmp_path / "a.avi", rgb, ["-c:v", "mpeg4"])
    for name, count in (("a.gif", 1), ("a.avi", 3)):
        assert len(read_any(tmp_path / name, estimator([])).poses) == count


def test_a_video_keeps_its_rate_and_an_uneven_one_gets_one(tmp_path):
    colours = MAGIC_ANIMATE.colours[figure(6).parts]
    encode_video(tmp_path / "a.mp4", colours, ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p"], rate="50")
    even = read_any(tmp_path / "a.mp4")
    assert (even.poses.fps, len(even.poses), even.notices) == (50.0, 6, ())
    uneven = "-vf setpts='if(lt(N,5),N,N*2)/TB/25' -fps_mode passthrough -c:v libx264 -crf 10 -pix_fmt yuv420p".split()
    encode_video(tmp_path / "b.mkv", colours, uneven)
    reading = read_any(tmp_path / "b.mkv")
    assert "uneven" in reading.notices[0] and reading.poses.fps == 25 and 10 <= len(reading.poses) <= 12
    assert np.array_equal(reading.poses.parts[[0, 1, 2, 3, 4, -1]], even.poses.parts)


def test_pictures_and_videos_may_be_large_and_are_reduced_the_same_way(tmp_path):
    parts = figure(1).parts.repeat(32, axis=1).repeat(32, axis=2)  # 1536 x 1152
    Image.fromarray(MAGIC_ANIMATE.colours[parts[0]]).save(tmp_path / "a.png")
    reading = read_any(tmp_path / "a.png")
    assert reading.poses.size == (768, 576) and np.array_equal(reading.poses.parts, parts[:, ::2, ::2])
    assert reading.notices == ("The frames of 1152 x 1536 pixels are reduced to 576 x 768.",)
    encode_video(tmp_path / "a.mkv", MAGIC_ANIMATE.colours[parts], ["-c:v", "ffv1"])
    assert np.array_equal(read_any(tmp_path / "a.mkv").poses.parts, parts[:, ::2, ::2])


def test_the_map_of_a_photo_comes_in_any_form(tmp_path):
    poses = figure(3)
    for name in ("a.npz", "a.zip", "maps", "a.mp4"):
        write_any(poses, tmp_path / name)
        for spec, index in ((f"{tmp_path / name}", 0), (f"{tmp_path / name}:2", 2)):
            one, whole = read_image_map(spec).poses, read_any(tmp_path / name).poses
            assert len(one) == 1 and np.array_equal(one.mask, whole.mask[index : index + 1]), spec
    assert "0:3" in refusal(lambda: read_image_map(f"{tmp_path / 'maps'}:3"))
    assert "There is no file or folder" in refusal(lambda: read_image_map(f"{tmp_path / 'a.npz'}:x"))
    write_any(poses.select([1]), tmp_path / "b:2.npz")
    (tmp_path / "b:2.npz").rename(tmp_path / "b.npz:2")  # a file that is really called so
    assert np.array_equal(read_image_map(tmp_path / "b.npz:2").poses.parts, poses.parts[1:2])


# --- the estimator ----------------------------------------------------------------------------------------------------


def test_frames_without_a_person_repeat_the_nearest(tmp_path):
    poses, seen = figure(5), []
    rgb = np.random.default_rng(0).integers(60, 200, (5, 48, 36, 3)).astype(np.uint8)
    encode_video(tmp_path / "a.mp4", rgb, ["-c:v", "libx264", "-pix_fmt", "yuv420p"], rate="20")
    parts = poses.parts.copy()
    parts[2] = 0
    reading = read_any(tmp_path / "a.mp4", estimator(seen, parts))
    assert [frame.shape for frame in seen] == [(48, 36, 3)] * 5
    assert np.array_equal(reading.poses.parts, poses.parts[[0, 1, 1, 3, 4]]) and reading.poses.fps == 20
    assert reading.notices == ("No person was found in frame 2; it repeats the nearest frame.",)
    empty = estimator([], np.zeros_like(parts))
    assert "No person was found in a.mp4" in refusal(lambda: read_any(tmp_path / "a.mp4", empty))

    def broken(frames):
        raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large"):  # what the estimator raises passes through
        read_any(tmp_path / "a.mp4", broken)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit", "value", "words"),
    [
        ("a.zip", "numbered.MAX_BYTES_IN_ALL", 2000, "holds more than"),
        ("maps", "numbered.MAX_BYTES", 10_000, None),  # maps have limits of their own
        ("maps", "numbered.MAX_NPY_BYTES", 10_000, "MB a file"),
        ("maps", "numbered.MAX_FILES", 3, "more than 3 files"),
        ("a.mp4", "sources.MAX_FRAMES_READ", 3, "has 4 frames; at most 3"),
    ],
)
def test_all_that_is_read_is_counted_and_maps_have_limits_of_their_own(
    tmp_path, monkeypatch, name, limit, value, words
):
    write_any(figure(4), tmp_path / name)
    assert len(read_any(tmp_path / name).poses) == 4
    monkeypatch.setattr(f"dreampose_core.poses.{limit}", value)
    if words is None:
        assert len(read_any(tmp_path / name).poses) == 4
    else:
        assert words in refusal(lambda: read_any(tmp_path / name))


def test_a_pipe_is_not_opened_and_an_address_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    assert "no file or folder" in refusal(lambda: read_any(tmp_path / "a.npz"))
    os.mkfifo(tmp_path / "frame_1.png")
    assert "holds no pictures" in refusal(lambda: read_any(tmp_path))
    assert "; download it first" in refusal(lambda: read_any("https://example.org/dance.mp4"))


def test_describing():
    poses = figure(1)
    only_uv = PoseSequence(None, poses.uv, "densepose", 24000 / 1001)
    for kind, words in (
        (only_uv, "1 frame at 23.98 fps, 48 x 36, a form, U, V only, densepose charts"),
        (PoseSequence(poses.parts, None, "none"), "1 frame at 30 fps, 48 x 36, a form, parts only"),
    ):
        assert Reading(kind, "a form", ()).describe() == words


# --- writing ----------------------------------------------------------------------------------------------------------


def test_what_a_form_cannot_hold_is_refused_or_named(tmp_path):
    poses = figure(2)
    parts, uv = PoseSequence(poses.parts, None, "none"), PoseSequence(None, poses.uv, "densepose")
    for name, kind in (("a.zip", uv), ("a.mp4", uv), ("maps", parts), ("a.avi", poses), ("a.npy", poses)):
        assert name in refusal(lambda name=name, kind=kind: write_any(kind, tmp_path / name))
    for name, words in (("a.mov", "has the ending .mov"), ("none/a.npz", "there is no folder")):
        assert words in refusal(lambda name=name: check_target(tmp_path / name))
    assert not any(tmp_path.iterdir())
    assert write_any(poses, tmp_path / "a.npz") == () == write_any(poses, tmp_path / "a.zip")
    assert "cannot hold U, V" in write_any(poses, tmp_path / "a.mp4")[0]
    assert "cannot hold parts" in write_any(poses, tmp_path / "a")[0]


def test_a_rendering_beside_another_picture_is_refused(tmp_path):
    colours = MAGIC_ANIMATE.colours[figure(2).parts]
    photo = np.broadcast_to(np.linspace(60, 220, colours.shape[1])[:, None, None], colours.shape[1:]).astype(np.uint8)
    for index, frame in enumerate(colours):
        Image.fromarray(np.concatenate([frame, photo], 1)).save(tmp_path / f"{index}.png")
    assert "next to another picture" in refusal(lambda: read_any(tmp_path, estimator([])))


def test_of_a_long_clip_as_many_frames_are_estimated_as_are_made_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("dreampose_core.poses.sources.MAX_FRAMES", 10)
    frames = np.random.default_rng(0).integers(60, 200, (24, 32, 24, 3)).astype(np.uint8)
    write_video(frames, tmp_path / "a.mp4", 12.0)
    given = []

    def estimate(images):
        given.append(operator.length_hint(images))
        return estimator([])(images)

    reading = read_any(tmp_path / "a.mp4", estimate)
    assert len(reading.poses) <= 10 + 1 and reading.poses.fps == pytest.approx(5, abs=0.1)
    assert "it is read at 5 fps" in reading.notices[0]
    assert abs(given[0] - len(reading.poses)) <= 1, "how many are to come is known beforehand"


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("scaled", [True, False])
def test_maps_scaled_for_a_network_are_brought_back(tmp_path, kind, scaled):
    """U, V times 2, minus 1: the background is -1 and must not count as the person."""
    target, poses = tmp_path / "maps", figure(2)
    write_any(poses, target)
    for path in target.glob("*.npy"):
        uv = np.load(path)
        np.save(path, (uv * 2 - 1 if scaled else uv).astype(kind))
    found = read_any(target).poses
    assert np.array_equal(found.mask, (poses.uv > 0).any(1)) and np.abs(found.uv - poses.uv).max() < 2e-3


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "maps"
    target.mkdir()
    write_any(figure(2), target)  # an empty one is taken
    names = ["densepose.json", "frame_0_densepose.npy", "frame_1_densepose.npy"]
    assert sorted(p.name for p in target.iterdir()) == names
    map_ = np.load(target / names[2])  # as the original would have written it
    assert map_.dtype == np.float64 and map_.shape == (2, 48, 36) and np.array_equal(map_, figure(2).uv[1])
    (tmp_path / "file").write_text("mine")
    for place in (target, tmp_path / "file"):
        assert "not an empty folder" in refusal(lambda place=place: write_any(figure(2), place))

    def full(*_):
        raise OSError(28, "No space left on device")

    for module, function, name in ((np, "save", "other"), (files.os, "fsync", "other.zip")):
        monkeypatch.setattr(module, function, full)
        with pytest.raises(StorageError, match="the disk is full"):
            write_any(figure(2), tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "maps"] and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("form", ["png", "webp"])
@pytest.mark.parametrize("kind", ["rendering", "person"])
def test_an_animated_picture_is_a_motion(tmp_path, form, kind):
    rgb, poses = drawn_clip(10_001, "walk", 5, (96, 80), fps=10)
    shown = MAGIC_ANIMATE.colours[poses.parts] if kind == "rendering" else rgb
    first, *others = (Image.fromarray(frame) for frame in shown)
    path, seen = tmp_path / f"a.{form}", []
    how = {"lossless": True} if form == "webp" else {}
    first.save(path, save_all=True, append_images=others, duration=80, **how)
    reading = read_any(path, estimator(seen, poses.parts))
    assert len(reading.poses) == 5 and reading.poses.fps == pytest.approx(12.5) and not reading.notices
    assert np.array_equal(reading.poses.parts, poses.parts)
    assert np.array_equal(seen, rgb) if kind == "person" else not seen
