"""What `read_any` says and keeps: numbers and gaps, rates and sizes, limits while reading; and what `write_any`
refuses."""

from __future__ import annotations

import operator
import os
import zipfile

import numpy as np
import pytest
from corpus import encode_video
from PIL import Image

from dreampose_core import files
from dreampose_core.errors import InputError, StorageError
from dreampose_core.media import write_video
from dreampose_core.poses import (
    PoseSequence,
    Reading,
    check_target,
    fill_gaps,
    numbered,
    read_any,
    read_image_poses,
    sources,
    write_any,
)
from dreampose_core.poses.iuv import encode
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
    rng = np.random.default_rng(0)
    return PoseSequence(
        parts, (rng.random((frames, 2, height, width)) * (parts > 0)[:, None]).astype(np.float16), "densepose", 25.0
    )


def pictures(folder, poses: PoseSequence, numbers, **options):
    folder.mkdir()
    for index, number in enumerate(numbers):
        Image.fromarray(encode(poses.parts[index], poses.uv[index])).save(folder / f"frame_{number}.png", **options)
    return folder


# --- gaps -------------------------------------------------------------------------------------------------------------


def test_gaps_repeat_the_nearest_frame_and_are_named():
    poses = figure(10)
    known = np.array([1, 1, 1, 0, 0, 0, 1, 1, 1, 0], bool)
    filled, notices = fill_gaps(poses, known, "Nobody was found in")
    assert np.array_equal(filled.parts, poses.parts[[0, 1, 2, 2, 2, 6, 6, 7, 8, 8]])
    assert notices == ("Nobody was found in frames 3-5 and 9; they repeat the nearest frame.",)
    assert (poses.parts[3] != filled.parts[3]).any(), "the sequence given is left as it was"


def test_without_gaps_nothing_changes_and_with_too_many_it_is_refused():
    poses = figure(4)
    assert fill_gaps(poses, np.ones(4, bool), "Nobody in") == (poses, ())
    assert fill_gaps(poses, np.array([0, 1, 1, 0], bool), "Nobody in")[1] == (
        "Nobody in frames 0 and 3; they repeat the nearest frame.",
    )
    assert "frames 0 and 2-3, which is 3 of 4" in refusal(
        lambda: fill_gaps(poses, np.array([0, 1, 0, 0], bool), "Nobody in")
    )
    assert "which is 4 of 4" in refusal(lambda: fill_gaps(poses, np.zeros(4, bool), "Nobody in"))


def test_long_lists_of_gaps_are_cut():
    known = np.arange(60) % 3 > 0
    notice = fill_gaps(figure(60), known, "Nobody was found in")[1][0]
    assert "0, 3, 6" in notice and "33 and others;" in notice and len(notice) < 200


# --- numbers and rates ------------------------------------------------------------------------------------------------


def test_numbers_are_sorted_as_numbers_and_a_stride_is_no_gap(tmp_path):
    poses = figure(4)
    reading = read_any(pictures(tmp_path / "a", poses, (2, 10, 18, 26)))
    assert np.array_equal(reading.poses.parts, poses.parts)
    assert reading.notices == ("No rate is known, 30 fps is assumed.",)
    assert reading.describe() == "4 frames at 30 fps, 48 x 36, IUV images, parts and U, V, densepose charts"


def test_missing_numbers_are_gaps_in_time(tmp_path):
    poses = figure(4)
    reading = read_any(pictures(tmp_path / "a", poses, (1, 2, 5, 6)))
    assert np.array_equal(reading.poses.parts, poses.parts[[0, 1, 1, 2, 2, 3]])
    assert np.array_equal(
        reading.poses.uv, read_any(pictures(tmp_path / "b", poses, range(4))).poses.uv[[0, 1, 1, 2, 2, 3]]
    )
    assert reading.notices[0] == "There are no pictures for frames 3-4; they repeat the nearest frame."


def test_only_the_last_number_in_a_name_counts(tmp_path):
    poses, folder = figure(2), tmp_path / "take 7"
    folder.mkdir()
    for index in range(2):
        Image.fromarray(encode(poses.parts[index], poses.uv[index])).save(folder / f"clip2_720p-{9 + index}_dp.png")
    assert np.array_equal(read_any(folder).poses.parts, poses.parts)


def test_a_video_keeps_its_rate_and_an_uneven_one_gets_one(tmp_path):
    colours = MAGIC_ANIMATE.array()[figure(6).parts]
    encode_video(tmp_path / "a.mp4", colours, ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p"], rate="50")
    even = read_any(tmp_path / "a.mp4")
    assert (even.poses.fps, len(even.poses), even.notices) == (50.0, 6, ())
    uneven = [
        "-vf",
        "setpts='if(lt(N,5),N,N*2)/TB/25'",
        "-fps_mode",
        "passthrough",
        "-c:v",
        "libx264",
        "-crf",
        "10",
        "-pix_fmt",
        "yuv420p",
    ]
    encode_video(tmp_path / "b.mkv", colours, uneven)
    reading = read_any(tmp_path / "b.mkv")
    assert "uneven" in reading.notices[0] and reading.poses.fps == 25 and 10 <= len(reading.poses) <= 12
    assert np.array_equal(reading.poses.parts[:5], even.poses.parts[:5]) and np.array_equal(
        reading.poses.parts[-1], even.poses.parts[-1]
    )


def test_pictures_and_videos_may_be_large_and_are_reduced_the_same_way(tmp_path):
    parts = figure(1).parts.repeat(32, axis=1).repeat(32, axis=2)  # 1536 x 1152
    Image.fromarray(MAGIC_ANIMATE.array()[parts[0]]).save(tmp_path / "a.png")
    reading = read_any(tmp_path / "a.png")
    assert reading.poses.size == (768, 576) and np.array_equal(reading.poses.parts, parts[:, ::2, ::2])
    assert reading.notices == ("The frames of 1152 x 1536 pixels are reduced to 576 x 768.",)
    encode_video(tmp_path / "a.mkv", MAGIC_ANIMATE.array()[parts], ["-c:v", "ffv1"])
    assert np.array_equal(read_any(tmp_path / "a.mkv").poses.parts, parts[:, ::2, ::2])


def test_the_map_of_a_photo_comes_in_any_form(tmp_path):
    poses = figure(3)
    for name in ("a.npz", "a.zip", "maps", "a.mp4"):
        write_any(poses, tmp_path / name)
        for spec, index in ((f"{tmp_path / name}", 0), (f"{tmp_path / name}:2", 2)):
            one, whole = read_image_poses(spec), read_any(tmp_path / name).poses
            assert len(one) == 1 and np.array_equal(one.mask, whole.mask[index : index + 1]), spec
    assert "0:3" in refusal(lambda: read_image_poses(f"{tmp_path / 'maps'}:3"))


# --- the estimator ----------------------------------------------------------------------------------------------------


def test_frames_where_nobody_is_found_repeat_the_nearest(tmp_path):
    poses = figure(5)
    rgb = np.random.default_rng(0).integers(60, 200, (5, 48, 36, 3)).astype(np.uint8)
    encode_video(tmp_path / "a.mp4", rgb, ["-c:v", "libx264", "-pix_fmt", "yuv420p"], rate="20")
    shapes = []

    def estimate(frames):
        shapes.extend(frame.shape for frame in frames)
        parts = poses.parts.copy()
        parts[2] = 0
        return PoseSequence(parts, None, "none")

    reading = read_any(tmp_path / "a.mp4", estimate)
    assert shapes == [(48, 36, 3)] * 5
    assert np.array_equal(reading.poses.parts, poses.parts[[0, 1, 1, 3, 4]]) and reading.poses.fps == 20
    assert reading.notices == ("Nobody was found in frame 2; it repeats the nearest frame.",)
    nobody = PoseSequence(np.zeros((5, 48, 36), np.uint8), None, "none")
    assert "Nobody was found in a.mp4" in refusal(lambda: read_any(tmp_path / "a.mp4", lambda frames: nobody))


def test_what_the_estimator_raises_passes_through(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(60, 200, (48, 36, 3)).astype(np.uint8)).save(tmp_path / "a.png")

    def broken(frames):
        raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large"):
        read_any(tmp_path / "a.png", broken)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_all_that_is_read_from_a_zip_is_counted(tmp_path, monkeypatch):
    write_any(figure(4), tmp_path / "a.zip")
    assert len(read_any(tmp_path / "a.zip").poses) == 4
    monkeypatch.setattr(numbered, "MAX_BYTES_IN_ALL", 2000)
    assert "holds more than" in refusal(lambda: read_any(tmp_path / "a.zip"))


def test_maps_have_limits_of_their_own(tmp_path, monkeypatch):
    write_any(figure(4), tmp_path / "maps")
    monkeypatch.setattr(numbered, "MAX_BYTES", 10_000)
    assert len(read_any(tmp_path / "maps").poses) == 4
    monkeypatch.setattr(numbered, "MAX_NPY_BYTES", 10_000)
    assert "MB a file" in refusal(lambda: read_any(tmp_path / "maps"))


def test_a_folder_and_a_video_of_too_many_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(numbered, "MAX_FILES", 3)
    assert "more than 3 files" in refusal(lambda: read_any(pictures(tmp_path / "a", figure(4), range(4))))
    write_any(figure(6), tmp_path / "a.mp4")
    monkeypatch.setattr(sources, "MAX_FRAMES_READ", 5)
    assert "has 6 frames; at most 5" in refusal(lambda: read_any(tmp_path / "a.mp4"))


def test_a_zip_whose_entries_say_less_than_they_hold_is_never_unpacked_further(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(1 << 20))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24
    data[place : place + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data)
    with numbered.Folder(tmp_path / "a.zip") as folder:
        assert "damaged" in refusal(lambda: folder.read(folder.entries[0]))


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    assert "no file or folder" in refusal(lambda: read_any(tmp_path / "a.npz"))
    os.mkfifo(tmp_path / "frame_1.png")
    assert "holds no pictures" in refusal(lambda: read_any(tmp_path))


def test_describing():
    poses = figure(1)
    only_uv = PoseSequence(None, poses.uv, "densepose", 24000 / 1001)
    assert (
        Reading(only_uv, "a form", ()).describe()
        == "1 frame at 23.98 fps, 48 x 36, a form, U, V only, densepose charts"
    )
    assert (
        Reading(PoseSequence(poses.parts, None, "none"), "a form", ()).describe()
        == "1 frame at 30 fps, 48 x 36, a form, parts only"
    )


# --- writing ----------------------------------------------------------------------------------------------------------


def test_what_a_form_cannot_hold_is_refused(tmp_path):
    poses = figure(2)
    parts, uv = PoseSequence(poses.parts, None, "none"), PoseSequence(None, poses.uv, "densepose")
    for name, kind in (("a.zip", uv), ("a.mp4", uv), ("maps", parts), ("a.avi", poses), ("a.npy", poses)):
        assert name in refusal(lambda name=name, kind=kind: write_any(kind, tmp_path / name))
    assert not any(tmp_path.iterdir())


def test_what_a_form_cannot_hold_is_said(tmp_path):
    assert write_any(figure(2), tmp_path / "a.npz") == () == write_any(figure(2), tmp_path / "a.zip")
    assert "cannot hold U, V" in write_any(figure(2), tmp_path / "a.mp4")[0]
    assert "cannot hold parts" in write_any(figure(2), tmp_path / "a")[0]
    for name, words in (("a.mov", "has the ending .mov"), ("none/a.npz", "there is no folder")):
        with pytest.raises(InputError, match=words):
            check_target(tmp_path / name)


def test_a_rendering_beside_another_picture_is_refused(tmp_path):
    poses = figure(2)
    colours = MAGIC_ANIMATE.array()[poses.parts]
    photo = np.broadcast_to(np.linspace(60, 220, colours.shape[1])[:, None, None], colours.shape[1:]).astype(np.uint8)
    for index, frame in enumerate(colours):
        Image.fromarray(np.concatenate([frame, photo], 1)).save(tmp_path / f"{index}.png")
    with pytest.raises(InputError, match="beside another picture"):
        read_any(tmp_path, lambda images: poses)


def test_of_a_long_clip_as_many_frames_are_estimated_as_are_made_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("dreampose_core.poses.sources.MAX_FRAMES", 10)
    frames = np.random.default_rng(0).integers(60, 200, (24, 32, 24, 3)).astype(np.uint8)
    write_video(frames, tmp_path / "a.mp4", 12.0)
    given = []

    def estimate(images):
        given.append(operator.length_hint(images))
        images = list(images)
        return PoseSequence(np.ones((len(images), *images[0].shape[:2]), np.uint8), None, "none")

    reading = read_any(tmp_path / "a.mp4", estimate)
    assert (
        len(reading.poses) <= 10 + 1
        and reading.poses.fps == pytest.approx(5, abs=0.1)
        and "it is read at 5 fps" in reading.notices[0]
    )
    assert abs(given[0] - len(reading.poses)) <= 1, "how many are to come is known beforehand"


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "maps"
    target.mkdir()
    write_any(figure(2), target)  # an empty one is taken
    assert sorted(p.name for p in target.iterdir()) == [
        "densepose.json",
        "frame_0_densepose.npy",
        "frame_1_densepose.npy",
    ]
    with pytest.raises(InputError, match="not an empty folder"):
        write_any(figure(2), target)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        write_any(figure(2), tmp_path / "file")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_any(figure(2), tmp_path / "other")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_any(figure(2), tmp_path / "other.zip")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "maps"] and (tmp_path / "file").read_text() == "mine"


def test_the_originals_maps_are_those_it_would_have_written(tmp_path):
    poses = figure(2)
    write_any(poses, tmp_path / "maps")
    map_ = np.load(tmp_path / "maps" / "frame_1_densepose.npy")
    assert map_.dtype == np.float64 and map_.shape == (2, 48, 36) and np.array_equal(map_, poses.uv[1])


def test_a_coloured_video_keeps_nearly_all_parts(tmp_path):
    poses = figure(4, 160, 128)
    write_any(poses, tmp_path / "a.mp4")
    read = read_any(tmp_path / "a.mp4").poses
    person = (poses.parts > 0) | (read.parts > 0)
    assert (read.parts == poses.parts)[person].mean() >= 0.97 and read.fps == 25
