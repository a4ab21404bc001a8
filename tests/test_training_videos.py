"""Clips on disk: prepared from videos and pictures, resumably and with a report, and drawn from as training samples."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn import drawn_clip, made_motion
from tiny import stop_after, tiny_pipeline, write_clips

from dreampose_core.errors import Cancelled, InputError, ModelError, StorageError
from dreampose_core.media import fit_image, read_image, write_png, write_video
from dreampose_core.model.conditioning import pose_channels
from dreampose_core.model.config import ModelConfig
from dreampose_core.poses import PoseSequence, mirrored, read_poses, write_poses
from dreampose_core.training import distributed, videos
from dreampose_core.training import prepare as preparing
from dreampose_core.training.conditions import Dropout, conditioned
from dreampose_core.training.prepare import prepare
from dreampose_core.training.videos import VideoSamples, find_footage

SIZE = (40, 32)
FRAMES = 12


@pytest.fixture(scope="module")
def film():
    """Frames uint8 (12, 80, 64, 3) of one person and their maps."""
    return drawn_clip(3, "walk", FRAMES, (80, 64), fps=10)


@pytest.fixture(scope="module")
def clips(tmp_path_factory, film):
    """A prepared folder of four clips, in the model's size: one in other colours."""
    source, out = tmp_path_factory.mktemp("films"), tmp_path_factory.mktemp("clips")
    for number in range(4):
        put_pictures(source / f"clip{number}", np.roll(film[0], number, 3), film[1])
    prepare(source, out, SIZE)
    return out


def put_pictures(folder, frames, poses, npy=False):
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        write_png(frame, folder / f"frame_{index}.png")
        if npy:
            np.save(folder / f"frame_{index}_densepose.npy", poses.uv[index].astype(np.float64))
    if not npy:
        write_poses(poses, folder / "poses.npz")


def put_video(path, frames, poses=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(frames, path, 10)
    if poses is not None:
        write_poses(poses, path.with_suffix(".npz"))


# -- train prepare -----------------------------------------------------------------------------------------------------


def test_every_kind_of_clip_is_prepared_and_the_report_says_what_was_not(tmp_path, film):
    frames, poses = film
    source, out, asked = tmp_path / "films", tmp_path / "out", []
    put_video(source / "train" / "beside.mp4", frames, poses)
    put_video(source / "train" / "bare.mp4", frames)
    put_video(source / "empty.mp4", frames)
    (source / "broken.mp4").write_bytes((source / "empty.mp4").read_bytes()[:300])
    (source / "page.mov").write_bytes(b"<!DOCTYPE html>")
    put_video(source / "short.mp4", frames[:5], poses)
    put_video(source / "shape.mp4", frames, replace(poses, parts=poses.parts[:, :40], uv=poses.uv[:, :, :40]))
    put_pictures(source / "original", frames, poses, npy=True)
    (source / "notes.txt").write_text("about these films")

    done = prepare(source, out, SIZE, estimate=lambda pictures: nobody_in(pictures, poses, asked), estimator="body")
    assert frames_of(done) == {"original": FRAMES, "train_bare": FRAMES - 3, "train_beside": FRAMES}
    assert done.clips["train_bare"]["without"] == ["No person is seen in 3 frames."] and done.before == []
    assert sorted(done.left_out) == ["broken", "empty", "page", "shape", "short"]
    assert done.left_out["empty"].startswith("Only 0 of its 12 frames show a person")
    assert done.left_out["short"].startswith("It has 5 frames and its DensePose 12")
    assert done.left_out["shape"].startswith("It is 80 x 64 and its DensePose 40 x 64 (height x width)")
    assert "broken.mp4" in done.left_out["broken"] and "page.mov is not a video" in done.left_out["page"]
    assert asked == [FRAMES, FRAMES]
    report = json.loads((out / "report.json").read_text())
    maps = {name: about["maps"] for name, about in done.clips.items()}
    assert maps == {"original": "the folder", "train_bare": "estimator", "train_beside": "beside.npz"}
    assert report == vars(done) and done.clips["original"]["without"] == []
    assert sorted(path.name for path in out.iterdir()) == ["original", "report.json", "train_bare", "train_beside"]

    bare = sorted(path.name for path in (out / "train_bare").glob("*.png"))
    assert bare == [f"frame_{index:05d}.png" for index in range(3, FRAMES)]
    own = read_poses(out / "train_beside" / "frame_00004.npz")
    assert own.size == SIZE and own.charts == "body" and len(own) == 1
    assert read_poses(out / "original" / "frame_00004.npz").parts is None
    # the picture and its map were cut alike: the person's colours lie on the person
    picture = read_image(out / "train_beside" / "frame_00004.png").astype(int)
    whole = read_image(out / "original" / "frame_00004.png").astype(int)
    assert picture.shape == (*SIZE, 3) and np.abs(picture - whole).mean() < 12  # through a video, and without


def frames_of(done):
    return {name: about["frames"] for name, about in done.clips.items()}


def nobody_in(pictures, poses, asked):
    """An estimator that finds nobody in the first clip it sees, and somebody from the fourth frame of the second on."""
    asked.append(len(list(pictures)))
    parts = poses.parts.copy()
    parts[: 3 if len(asked) == 2 else None] = 0
    return PoseSequence(parts, None, "none")


def test_an_interrupted_preparation_goes_on_and_changed_clips_are_made_again(tmp_path, film):
    frames, poses = film
    source, out, asked = tmp_path / "films", tmp_path / "out", []
    for name in ("a", "b"):
        put_video(source / f"{name}.mp4", frames)

    def prepared(size=SIZE, **watch):
        return prepare(source, out, size, estimate=lambda pictures: asked.append(len(list(pictures))) or poses, **watch)

    with pytest.raises(Cancelled):
        prepared(should_stop=stop_after(FRAMES + 5))  # in the middle of b
    assert sorted(path.name for path in out.iterdir()) == ["a", "report.json"] and asked == [FRAMES, FRAMES]
    done = prepared()
    assert done.before == ["a"] and frames_of(done) == {"a": FRAMES, "b": FRAMES} and len(asked) == 3
    assert prepared().before == ["a", "b"] and len(asked) == 3
    write_video(frames[:, ::-1], source / "a.mp4", 10)
    assert prepared().before == ["b"] and len(asked) == 4
    assert prepared((20, 16)).before == [] and len(asked) == 6


def test_a_folder_inside_the_source_is_not_prepared_again(tmp_path, film):
    put_pictures(tmp_path / "a", *film)
    for _ in range(2):
        assert frames_of(prepare(tmp_path, tmp_path / "prepared", SIZE)) == {"a": FRAMES}


def test_nothing_that_is_not_prepares_own_is_replaced(tmp_path, film):
    films, out = tmp_path / "films", tmp_path / "out"
    for folder, words in ((films, "There is no folder"), (tmp_path, "no video and no folder of frame_<n>.png")):
        with pytest.raises(InputError, match=words):
            prepare(folder, out, SIZE)
    put_pictures(films / "walk", *film, npy=True)
    for own in (films, tmp_path):
        with pytest.raises(InputError, match="holds the clips themselves"):
            prepare(films, own, SIZE)
    put_pictures(films / "jump", *film)
    (out / "walk").mkdir(parents=True)
    (out / "walk" / "notes.txt").write_text("mine")
    done = prepare(films, out, SIZE)
    assert frames_of(done) == {"jump": FRAMES} and "is no prepared clip" in done.left_out["walk"]
    assert (out / "walk" / "notes.txt").read_text() == "mine" and len(list((films / "walk").iterdir())) == 2 * FRAMES
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text('{"psnr": 3}')
    with pytest.raises(InputError, match="report.json in .* from another program"):
        prepare(films, tmp_path / "other", SIZE)


def test_maps_that_changed_are_read_again_and_clips_that_went_bad_are_not_trained_on(tmp_path, film):
    frames, poses = film
    films, out = tmp_path / "films", tmp_path / "out"
    for name in ("a", "b"):
        put_video(films / f"{name}.mp4", frames, poses)
    prepare(films, out, SIZE)
    write_poses(replace(poses, charts="densepose"), films / "a.npz")
    assert prepare(films, out, SIZE).before == ["b"] and read_poses(out / "a" / "frame_00000.npz").charts == "densepose"
    assert prepare(films, out, SIZE, estimator="body rgb").before == []
    write_poses(poses.select(slice(3)), films / "a.npz")
    assert "a" in prepare(films, out, SIZE).left_out
    (out / ".part.7.c").mkdir()  # what a crash leaves behind
    write_png(frames[0], out / ".part.7.c" / "frame_00000.png")
    assert [clip.folder.name for clip in find_footage(out)] == ["b"]
    prepare(films, out, SIZE)
    assert not (out / ".part.7.c").exists()
    (films / "b.mp4").unlink()
    with pytest.raises(InputError, match="None of the 1 clips can be used.* a: It has"):
        prepare(films, out, SIZE)


def test_an_estimator_that_cannot_be_had_is_no_fault_of_the_clips(tmp_path, film):
    put_video(tmp_path / "a.mp4", film[0])

    def missing(pictures):
        raise ModelError("There is no estimator.")

    with pytest.raises(ModelError, match="There is no estimator"):
        prepare(tmp_path, tmp_path / "out", SIZE, estimate=missing)


def test_frames_that_cannot_be_used_cost_no_others(tmp_path, film):
    clip = tmp_path / "clips" / "a"
    put_pictures(clip, *film, npy=True)
    (clip / "frame_3_densepose.npy").unlink()
    (clip / "frame_5_densepose.npy").write_bytes(b"no map")
    (clip / "frame_7.png").write_bytes((clip / "frame_7.png").read_bytes()[:200])
    done = prepare(tmp_path / "clips", tmp_path / "out", SIZE)
    sentence = "The picture or the DensePose of frames 3, 5 and 7 is missing or damaged."
    assert done.clips["a"]["without"] == [sentence] and done.clips["a"]["maps"] == "the folder"
    assert frames_of(done) == {"a": FRAMES - 3}
    own = read_poses(tmp_path / "out" / "a" / "frame_00002.npz")
    assert own.parts is None, "the original's maps, not an estimator's"
    again = prepare(tmp_path / "clips", tmp_path / "out", SIZE)
    assert again.before == ["a"] and again.clips == done.clips


def test_the_good_part_of_a_damaged_film_is_prepared(tmp_path, film):
    whole = tmp_path / "whole.mp4"
    put_video(whole, np.concatenate([film[0]] * 4), film[1].select(list(range(FRAMES)) * 4))
    whole.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    about = prepare(tmp_path, tmp_path / "out", SIZE).clips["whole"]
    assert about["without"][0].startswith("It is damaged after") and 0 < about["frames"] < 4 * FRAMES


def test_odd_folders(tmp_path, film):
    """Pictures of two sizes; names that meet; any number of zeros; the folder that is itself a clip; large pictures."""
    frames, poses = film
    put_pictures(tmp_path / "sizes" / "a", frames, poses)
    write_png(frames[0][:40], tmp_path / "sizes" / "a" / "frame_3.png")
    with pytest.raises(InputError, match="frames differ in size: 80 x 64 and 40 x 64"):
        prepare(tmp_path / "sizes", tmp_path / "out1", SIZE)
    for name in ("a.mp4", "a.mov", "a/2.mp4"):
        path = tmp_path / "names" / name
        put_video(path.with_name("made.mp4"), frames[:4])
        path.with_name("made.mp4").rename(path)

    def estimate(pictures):
        seen.extend(picture.shape for picture in pictures)
        return poses.select(slice(4))

    seen = []
    done = prepare(tmp_path / "names", tmp_path / "out2", SIZE, estimate=estimate)
    assert sorted(done.clips) == ["a", "a_", "a_2"]
    put_pictures(tmp_path / "itself", frames, poses, npy=True)
    for path in list((tmp_path / "itself").iterdir()):
        start, number, *rest = path.stem.split("_")
        path.rename(path.with_name("_".join([start, f"{int(number):04d}", *rest]) + path.suffix))
    assert frames_of(prepare(tmp_path / "itself", tmp_path / "out3", SIZE)) == {"itself": FRAMES}
    assert len(find_footage(tmp_path / "out3")[0].maps([0, 11])) == 2
    put_pictures(tmp_path / "large" / "a", np.repeat(np.repeat(frames[:4], 12, 1), 12, 2), poses.select(slice(4)))
    (tmp_path / "large" / "a" / "poses.npz").unlink()
    prepare(tmp_path / "large", tmp_path / "out4", SIZE, estimate=estimate)
    assert seen[-4:] == [(768, 614, 3)] * 4


def test_a_full_disk_is_said_and_leaves_no_half_clip(tmp_path, film, monkeypatch):
    put_pictures(tmp_path / "films" / "a", *film)

    def full(image, path):
        raise StorageError(f"{path.name} could not be written: the disk is full.")

    monkeypatch.setattr(preparing, "write_png", full)
    with pytest.raises(StorageError, match="disk is full"):
        prepare(tmp_path / "films", tmp_path / "out", SIZE)
    assert list((tmp_path / "out").iterdir()) == []


# -- samples -----------------------------------------------------------------------------------------------------------


def test_clips_that_cannot_be_trained_on_are_refused(tmp_path, film):
    with pytest.raises(InputError, match="no clips in .*train prepare"):
        find_footage(tmp_path)
    write_clips(tmp_path, {"a": film, "b": (film[0], replace(film[1], charts="densepose"))})
    with pytest.raises(InputError, match="body in a, densepose in b"):
        find_footage(tmp_path)


def test_a_batch_is_the_same_whenever_it_is_asked_and_whoever_shares_it(clips, monkeypatch):
    samples = VideoSamples(clips, SIZE, 4, seed=5)
    batch, again = samples.batch(7), samples.batch(7)
    assert all(torch.equal(value, getattr(again, name)) for name, value in vars(batch).items())
    assert batch.photo.shape == (4, *SIZE, 3) and batch.photo.dtype == torch.uint8
    assert batch.window_uv.shape == (4, 5, 2, *SIZE) and not torch.equal(batch.photo, samples.batch(8).photo)
    halves = []
    for rank in range(2):
        two = SimpleNamespace(num_processes=2, process_index=rank)
        for module in (videos, distributed):
            monkeypatch.setattr(module, "processes", lambda two=two: two)
        halves.append(samples.batch(7))
    assert torch.equal(torch.cat([half.target for half in halves]), batch.target)


def test_the_target_is_never_the_photo_and_five_maps_differ(clips, monkeypatch):
    """The original trained on the photo itself, with five copies of one map."""
    samples, taken = VideoSamples(clips, SIZE, 2), []
    cut = samples._cut

    def watched(clip, at, maps, *rest):
        taken.append((clip.folder.name, at, tuple(maps)))
        return cut(clip, at, maps, *rest)

    monkeypatch.setattr(samples, "_cut", watched)
    monkeypatch.setattr(samples._pool, "map", map)  # in order
    for step in range(20):
        taken.clear()
        samples.batch(step)
        for (clip, photo, _), (same, target, maps) in zip(taken[::2], taken[1::2]):
            assert clip == same and photo != target and maps[2] == target and len(set(maps)) == 5


def test_some_clips_are_held_back(clips):
    samples = VideoSamples(clips, SIZE, 2)
    assert [clip.folder.name for clip in samples.held] == ["clip0"] and len(samples.clips) == 3
    rows = samples.held_out(3)
    assert len(rows) == 3 and len({row[2].tobytes() for row in rows}) == 3
    photo, own, truth, target = rows[0]
    assert np.array_equal(photo, read_image(clips / "clip0" / "frame_00000.png"))
    assert np.array_equal(truth, read_image(clips / "clip0" / f"frame_{FRAMES - 1:05d}.png"))
    last = read_poses(clips / "clip0" / f"frame_{FRAMES - 1:05d}.npz")
    assert len(own) == len(target) == 1 and np.array_equal(target.parts, last.parts)


def test_pictures_and_maps_are_cropped_and_mirrored_together(tmp_path, monkeypatch):
    """The person is light and the rest dark, so that any shift between picture and maps would be seen; no crop leaves
    the frame."""
    boxes = []
    monkeypatch.setattr(videos, "fit_image", lambda image, size, box: boxes.append(box) or fit_image(image, size, box))
    poses = made_motion("turn", 4, (160, 128), 8)
    write_clips(tmp_path, {"a": (np.repeat((poses.mask * 180 + 20)[..., None], 3, -1).astype(np.uint8), poses)})
    samples = VideoSamples(tmp_path, (80, 64), 2)
    clip = samples.clips[0]
    for crop in ((1.0, 0.5, 0.5), (0.0, 0.0, 1.0), (0.3, 1.0, 0.2)):
        rgb, cut = samples._cut(clip, 2, [2], crop, False)
        seen, told = rgb[..., 0] > 110, cut.mask[0]
        box = boxes[-1]
        assert min(box.top, box.left) >= 0 and box.top + box.height <= 160 + 1e-9 and box.left + box.width <= 128 + 1e-9
        right, shifted = ((seen & other).sum() / (seen | other).sum() for other in (told, np.roll(told, 2, axis=1)))
        assert right > 0.9 > shifted
        back, flipped = samples._cut(clip, 2, [2], crop, True)
        assert np.array_equal(back, rgb[:, ::-1]) and np.array_equal(flipped.parts, mirrored(cut).parts)
        assert np.array_equal(flipped.uv, mirrored(cut).uv)
    drawn = [samples.batch(step) for step in range(6)]
    sides = torch.cat([(batch.window_parts[:, 2] == 15).flatten(1).any(1) for batch in drawn])
    assert sides.any() and all(batch.has_uv.all() and batch.has_parts.all() for batch in drawn)


def test_real_charts_lose_their_uv_in_the_mirror_and_uv_alone_are_never_mirrored(tmp_path, film):
    frames, poses = film
    write_clips(tmp_path / "real", {"a": (frames, replace(poses, charts="densepose"))})
    samples = VideoSamples(tmp_path / "real", SIZE, 8)
    known = torch.cat([samples.batch(step).has_uv for step in range(12)])
    assert samples.charts == "densepose" and 0.7 < known.mean() < 1
    write_clips(tmp_path / "original", {"a": (frames, replace(poses, parts=None, charts="densepose"))})
    samples = VideoSamples(tmp_path / "original", SIZE, 8)
    batch = samples.batch(0)
    assert batch.has_uv.all() and not batch.has_parts.any()
    assert set(batch.window_parts.unique().tolist()) == {0, 1}  # the outline only


def test_what_maps_do_not_know_is_not_shown_to_the_networks(tmp_path, film):
    frames, poses = film
    write_clips(tmp_path, {"a": (frames, replace(poses, parts=None, charts="densepose"))})
    pipe = tiny_pipeline(charts="densepose", reference_warp="texture")
    every = Dropout(
        pose=0, image=0, both=0, warp=0, uv=0.5, parts=0.5
    )  # one of the two is always dropped, where there are two
    given = conditioned(pipe, VideoSamples(tmp_path, SIZE, 4).batch(0), every, torch.float32, 0, 0)
    shown = given.poses.unflatten(1, (5, -1))
    covers, uv, parts_flag, uv_flag = shown.split([shown.shape[2] - 4, 2, 1, 1], 2)
    assert shown.shape[1] * shown.shape[2] == pose_channels(ModelConfig())
    assert not covers.any() and not parts_flag.any() and uv.any() and (uv_flag == 1).all()
    assert not given.warp.any() and given.mask.any()
