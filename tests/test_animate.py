"""Whole runs: the files they leave, what they keep when they are stopped, and that a resumed run is the same run."""

from __future__ import annotations

import copy
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import drawn_clip
from tiny import make_tiny_model, tiny_pipeline

from dreampose_core.animate import run as animate_run
from dreampose_core.animate.engine import LocalEngine
from dreampose_core.animate.run import animate
from dreampose_core.errors import Cancelled, InputError, ModelError, StorageError
from dreampose_core.files import locked
from dreampose_core.inputs.photo_checks import NO_DENSEPOSE
from dreampose_core.media import probe_video, read_image, read_video
from dreampose_core.model.loading import load_pipeline
from dreampose_core.settings import AnimateOptions
from dreampose_core.subject import finetuning
from dreampose_core.subject.finetuning import tuned_to
from dreampose_core.subject.folder import read_subject
from dreampose_core.subject.recipe import RECIPES, SubjectRecipe
from dreampose_core.synthetic import HELD_OUT

SIZE, FRAMES, FPS = (40, 32), 7, 3.0
OPTIONS = AnimateOptions(recipe="none", steps=2, batch_size=2)
TUNED = AnimateOptions(recipe="fast", steps=2, batch_size=2)


@pytest.fixture(scope="module")
def pipe():
    pipe = tiny_pipeline()
    with torch.no_grad():
        pipe.unet.conv_in.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return pipe


@pytest.fixture(scope="module")
def clip():
    return drawn_clip(HELD_OUT, "walk", FRAMES, SIZE, fps=FPS)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setitem(RECIPES, "fast", SubjectRecipe(unet_steps=2, decoder_steps=2, batch_size=2))


def run(pipe, clip, folder, options=OPTIONS, engine=None, **more):
    given = {"image": clip[0][0], "poses": clip[1], "image_poses": clip[1].select([0])}
    return animate(engine or LocalEngine(pipe), options=options, folder=folder, **given | more)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the result's figures, which hold the seconds it took."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "result.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(pipe, clip, tmp_path_factory):
    """An uninterrupted run with a tuned subject."""
    folder, subjects = tmp_path_factory.mktemp("job"), tmp_path_factory.mktemp("subjects")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "fast", SubjectRecipe(unet_steps=2, decoder_steps=2, batch_size=2))
        seen = []
        result = run(pipe, clip, folder, TUNED, subjects=subjects, on_progress=seen.append)
    return folder, subjects, result, seen


def test_a_run_leaves_all_its_files(pipe, whole):
    folder, _, result, _ = whole
    assert sorted(contents(folder)) == [
        "chunks/000000.mp4",
        "chunks/000001.mp4",
        "chunks/000002.mp4",
        *(f"frames/{i:06d}.png" for i in range(FRAMES)),
        "result.mp4",
    ]
    assert json.loads((folder / "result.json").read_text()) == result
    assert result["num_frames"] == FRAMES and result["fps"] == FPS and (result["height"], result["width"]) == SIZE
    assert result["seed"] == 0 and result["options"]["recipe"] == "fast" and result["notices"] == []
    assert result["used"] == {
        "num_inference_steps": 2,
        "guidance_interval": [0.0, 1.0],
        "reuse_steps": 1,
        "solver": None,
        "image_guidance": 1.0,
        "pose_guidance": 1.0,
    }
    assert set(result["seconds"]) == {"tuning", "frames", "video"} and result["versions"]["torch"] == torch.__version__


def test_the_video_has_one_frame_for_each_pose(whole):
    folder = whole[0]
    info = probe_video(folder / "result.mp4")
    assert (info.num_frames, info.height, info.width) == (FRAMES, *SIZE)
    assert (info.codec, info.pixel_format, info.fps) == ("h264", "yuv420p", pytest.approx(FPS))
    for index, frame in enumerate(read_video(folder / "result.mp4")):
        assert np.abs(frame.astype(float) - read_image(folder / f"frames/{index:06d}.png")).mean() < 20
    chunks = [probe_video(path) for path in sorted((folder / "chunks").iterdir())]  # a second each
    assert [(chunk.num_frames, chunk.fps) for chunk in chunks] == [(n, pytest.approx(FPS)) for n in (3, 3, 1)]


def test_the_frames_are_the_pipelines(pipe, clip, tmp_path):
    run(pipe, clip, tmp_path)
    generator = torch.Generator().manual_seed(0)
    made = pipe(clip[0][0], clip[1], clip[1].select([0]), 2, generator=generator, batch_size=2)
    assert all(np.array_equal(read_image(tmp_path / f"frames/{i:06d}.png"), made.frames[i]) for i in range(FRAMES))


def test_progress_goes_through_the_stages(whole):
    seen = whole[3]
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages == ["tuning", "decoder", "frames", "video"]
    for stage in stages:
        steps = [progress.step for progress in seen if progress.stage == stage]
        assert steps == sorted(steps) and steps[-1] == next(p.total for p in seen if p.stage == stage)
    assert all((progress.loss is not None) == (progress.stage in ("tuning", "decoder")) for progress in seen)


def test_the_second_run_for_a_person_reuses_the_subject(pipe, clip, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "tune_subject", None)  # it would be an error to call it
    result = run(pipe, clip, tmp_path, TUNED, subjects=whole[1])
    assert result["subject"] == whole[2]["subject"] and "tuning" not in result["seconds"]
    assert contents(tmp_path) == contents(whole[0])
    turned = replace(clip[1].select(slice(None, None, -1)), fps=5.0)
    again = run(pipe, clip, tmp_path / "another motion", TUNED, poses=turned, subjects=whole[1])
    assert again["subject"] == result["subject"]
    assert len(list(whole[1].iterdir())) == 1


def test_a_damaged_kept_subject_is_tuned_again(pipe, clip, whole, tmp_path):
    subjects = shutil.copytree(whole[1], tmp_path / "subjects")
    file = next(subjects.rglob("adapter.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    result = run(pipe, clip, tmp_path / "job", TUNED, subjects=subjects)
    assert "tuning" in result["seconds"] and contents(tmp_path / "job") == contents(whole[0])


def test_a_given_subject_is_used(pipe, clip, whole, tmp_path):
    folder = next(whole[1].iterdir())
    result = run(pipe, clip, tmp_path, OPTIONS, subject=folder)
    assert result["subject"] == folder.name and contents(tmp_path) == contents(whole[0])
    with pytest.raises(ModelError, match="not a subject folder"):
        run(pipe, clip, tmp_path / "other", subject=tmp_path / "nowhere")


@pytest.mark.parametrize("stop", [1, 3, 5, 6, 11, 14])
def test_a_stopped_run_goes_on_and_is_bit_equal(pipe, clip, whole, tmp_path, stop):
    """Stopped in tuning, in the decoder, between frames, within a batch; the frames that were there are not made
    again."""
    asked = iter(range(1000))
    with pytest.raises(Cancelled):
        run(pipe, clip, tmp_path, TUNED, should_stop=lambda: next(asked) >= stop)
    assert not (tmp_path / "result.mp4").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "frames").iterdir()}
    partial = tmp_path / "partial.mp4"
    assert (stop >= 6) == partial.exists() and (stop < 6 or probe_video(partial).num_frames == len(kept) > 0)
    result = run(pipe, clip, tmp_path, TUNED)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    ours = {name: content for name, content in contents(tmp_path).items() if not name.startswith("subjects/")}
    assert ours == contents(whole[0]) and result["subject"] == whole[2]["subject"]
    subjects = [read_subject(home / result["subject"]) for home in (tmp_path / "subjects", whole[1])]
    assert subjects[0] == subjects[1]  # with the whole loss curve


def test_a_stop_is_heard_while_the_video_is_written(pipe, clip, whole, tmp_path):
    seen = []
    watch = {"on_progress": seen.append}
    watch["should_stop"] = lambda: seen and (seen[-1].stage, seen[-1].step) == ("video", 2)
    with pytest.raises(Cancelled):
        run(pipe, clip, tmp_path, TUNED, subjects=whole[1], **watch)
    assert (seen[-1].stage, seen[-1].total) == ("video", FRAMES) and not (tmp_path / "result.mp4").exists()
    run(pipe, clip, tmp_path, TUNED, subjects=whole[1])
    assert contents(tmp_path) == contents(whole[0])


@pytest.mark.parametrize(
    "missing",
    [["chunks/000002.mp4"], ["chunks/000000.mp4", "chunks/000002.mp4"], ["result.mp4"], ["frames/000006.png"]],
)
def test_whatever_was_not_yet_written_is_written(pipe, clip, whole, tmp_path, missing):
    """A process can die between any two files."""
    folder = shutil.copytree(whole[0], tmp_path / "job")
    for name in missing:
        (folder / name).unlink()
    run(pipe, clip, folder, TUNED, subjects=whole[1])
    assert contents(folder) == contents(whole[0])


class OutOfOrder(LocalEngine):
    """Makes the last batches first, as several computers may, and ends in the middle where it is told to."""

    stops = False

    def frames(self, scene, options, subject, batches, should_stop, **callbacks):
        self.asked = list(batches)
        some = batches[::-1][: 2 if self.stops else None]
        yield from super().frames(scene, options, subject, some, should_stop, **callbacks)
        if self.stops:
            raise Cancelled("stopped on request")


def test_frames_may_come_in_any_order_and_chunks_come_in_theirs(pipe, clip, whole, tmp_path):
    engine = OutOfOrder(pipe)
    engine.stops = True
    with pytest.raises(Cancelled):
        run(pipe, clip, tmp_path, TUNED, engine, subjects=whole[1])
    assert sorted(path.stem for path in (tmp_path / "frames").iterdir()) == ["000004", "000005", "000006"]
    # there is no beginning yet
    assert not list((tmp_path / "chunks").iterdir()) and not (tmp_path / "partial.mp4").exists()
    engine.stops = False
    (tmp_path / "frames" / "000005.png").unlink()
    run(pipe, clip, tmp_path, TUNED, engine, subjects=whole[1])
    # batches stay whole, and what is there is not made again
    assert engine.asked == [range(0, 2), range(2, 4), range(4, 6)]
    assert contents(tmp_path) == contents(whole[0])


def test_what_a_killed_process_was_writing_is_removed_and_what_is_finished_is_not_made_again(
    pipe, clip, whole, tmp_path, monkeypatch
):
    folder = shutil.copytree(whole[0], tmp_path / "job")
    for name in ("frames/.part.99.000003.png", "chunks/.part.99.000001.mp4", ".part.99.result.mp4"):
        (folder / name).write_bytes(b"half")
    monkeypatch.setattr(type(pipe), "stream", None)
    assert run(pipe, clip, folder, TUNED, subjects=whole[1])["num_frames"] == FRAMES
    assert contents(folder) == contents(whole[0])


def test_options_reach_the_frames(pipe, clip, tmp_path):
    base = run(pipe, clip, tmp_path / "base")
    cut = OPTIONS.model_copy(update={"first_frame": 2, "last_frame": 5, "fps": 12.0})
    part = run(pipe, clip, tmp_path / "part", cut)
    assert (part["num_frames"], part["fps"]) == (12, 12)
    assert probe_video(tmp_path / "part" / "result.mp4").fps == pytest.approx(12)
    for name, change in (("seed", {"seed": 1}), ("guidance", {"image_guidance": 3.0}), ("steps", {"steps": 3})):
        result = run(pipe, clip, tmp_path / name, OPTIONS.model_copy(update=change))
        assert contents(tmp_path / name)["frames/000003.png"] != contents(tmp_path / "base")["frames/000003.png"], name
        assert result["used"] != base["used"] or result["seed"] == 1
    draft = run(pipe, clip, tmp_path / "draft", AnimateOptions(recipe="none", quality="draft"))
    assert draft["used"]["num_inference_steps"] == 8
    steps = [pipe.model_config.sampling(quality).num_inference_steps for quality in ("draft", "standard", "best")]
    assert steps == [8, 15, 50]


def test_what_the_model_cannot_use_is_said_before_it_is_tuned(pipe, clip, tmp_path):
    only_uv = replace(clip[1], parts=None, charts="densepose")
    seen = []
    with pytest.raises(InputError, match="has only U, V, in densepose charts"):
        run(pipe, (clip[0], only_uv), tmp_path, TUNED, image_poses=None, on_progress=seen.append)
    papers = tiny_pipeline(pose_encoding="uv", reference_warp="none", charts="densepose")
    with pytest.raises(InputError, match="takes poses as U, V only"):
        run(papers, clip, tmp_path, TUNED, image_poses=None, on_progress=seen.append)
    assert not seen


def test_without_the_photos_densepose_it_works_and_says_so(pipe, clip, tmp_path):
    result = run(pipe, clip, tmp_path, TUNED, image_poses=None)
    assert result["num_frames"] == FRAMES and len(result["notices"]) == 1 and NO_DENSEPOSE in result["notices"]


def test_what_the_photo_lacks_is_said_with_the_result(pipe, clip, tmp_path):
    rgb, poses = drawn_clip(HELD_OUT, "idle", 1, (160, 128))
    legs = np.flatnonzero(np.isin(poses.parts[0], (11, 12, 13, 14)).any(axis=1))
    half, own = rgb[0][: legs[0]], replace(poses, parts=poses.parts[:, : legs[0]], uv=poses.uv[:, :, : legs[0]])
    result = run(pipe, clip, tmp_path, AnimateOptions(recipe="none", steps=1), image=half, image_poses=own)
    assert len([notice for notice in result["notices"] if "lower legs are outside the photo" in notice]) == 1


def test_poses_and_photos_of_other_sizes(pipe, clip, tmp_path):
    poses = drawn_clip(HELD_OUT, "walk", 2, (64, 80), fps=2.0)[1]
    photo = np.random.default_rng(0).integers(0, 255, (101, 77, 3), dtype=np.uint8)
    result = run(pipe, clip, tmp_path, image=photo, poses=poses, image_poses=None)
    assert (result["height"], result["width"]) == SIZE and result["num_frames"] == 2


def test_wrong_ranges_and_too_long_sequences(pipe, clip, tmp_path):
    with pytest.raises(InputError, match="Frames 0:8 are not inside the sequence, which has frames 0:7"):
        run(pipe, clip, tmp_path, OPTIONS.model_copy(update={"last_frame": 8}))
    long = clip[1].select(np.zeros(1201, int))
    with pytest.raises(InputError, match="1201 frames; at most 1200"):
        run(pipe, clip, tmp_path, poses=long)
    with pytest.raises(InputError, match="1 photos and 2 DensePose maps"):
        run(pipe, clip, tmp_path, image_poses=clip[1].select([0, 1]))


@pytest.mark.parametrize("name", ["000003.png", "000001.mp4", "result.mp4"])
def test_a_full_disk_is_one_sentence_and_what_is_there_is_kept(pipe, clip, whole, tmp_path, monkeypatch, name):
    """The disk is full when this file is written; later there is room again."""
    folder = tmp_path / "job"
    with monkeypatch.context() as patch:
        real = animate_run.write_png if name.endswith("png") else animate_run.write_video

        def write(data, path, *args, **kwargs):
            if path.name == name:
                raise StorageError(f"{name} could not be written: the disk is full. Free some space and try again.")
            return real(data, path, *args, **kwargs)

        patch.setattr(animate_run, real.__name__, write)
        with pytest.raises(StorageError, match=f"{name} could not be written: the disk is full"):
            run(pipe, clip, folder, TUNED, subjects=whole[1])
    before = contents(folder)
    assert 3 <= sum(path.startswith("frames/") for path in before) and not (folder / "result.json").exists()
    run(pipe, clip, folder, TUNED, subjects=whole[1])
    assert contents(folder) == contents(whole[0]) and before.items() <= contents(folder).items()


def test_a_model_saved_in_half_precision_runs_in_full_on_the_cpu(tmp_path):
    tiny_pipeline().to(dtype=torch.float16).save_pretrained(tmp_path)
    pipe = load_pipeline(tmp_path, "cpu")
    assert {getattr(pipe, part).dtype for part in ("unet", "vae", "adapter", "image_encoder")} == {torch.float32}


@pytest.mark.parametrize(
    ("model", "files", "sentence"),
    [
        ("nowhere", {}, "no model folder at nowhere"),
        ("/nowhere/at/all", {}, "no model folder"),
        ("a/b", {"a/b": "a file, not a hub id"}, "no model folder at a/b"),
        ("a", {"a/inside/model_index.json": "{}"}, "it has no model_index.json; give a/inside"),
        ("a", {"a/model_index.json": '{"_class_name": "StableDiffusionPipeline"}'}, "cannot be loaded"),
        ("tiny", {"tiny/unet/*.safetensors": "not weights"}, "cannot be loaded: it is incomplete, damaged"),
    ],
)
def test_what_is_no_model_is_one_sentence(tmp_path, model, files, sentence, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if model == "tiny":
        make_tiny_model(model)
    for name, text in files.items():
        path = next(tmp_path.glob(name), tmp_path / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with pytest.raises(ModelError, match=sentence) as error:
        load_pipeline(model, "cpu")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_model_tuned_for_a_while(pipe, clip):
    def frame():
        generator = torch.Generator().manual_seed(0)
        return pipe(clip[0][0], clip[1].select([0]), num_inference_steps=2, generator=generator).frames

    before = frame()
    with tuned_to(pipe, clip[0][0], clip[1].select([0]), "fast"):
        assert not np.array_equal(before, frame())
    assert np.array_equal(before, frame())


def test_two_jobs_with_one_photo_tune_once(clip, tmp_path, monkeypatch):
    """The second waits for the first and finds its subject; told to stop it waits no longer."""
    pipes = [copy.deepcopy(pipe) for pipe in [tiny_pipeline()] * 3]
    tuned, begun, go_on = [], threading.Event(), threading.Event()

    def tune(pipe, photos, *args, **more):
        tuned.append(1)
        begun.set()
        assert go_on.wait(60)
        return {"tuning": [1.0], "decoder": []}

    monkeypatch.setattr(finetuning, "tune_subject", tune)
    results, options = {}, AnimateOptions(recipe="fast", steps=1, align="none", fit="pad")

    def job(name: str, **more) -> None:
        folders = {"folder": tmp_path / name, "subjects": tmp_path / "subjects"}
        results[name] = run(pipes.pop(), clip, options=options, image_poses=None, **folders, **more)

    threads = [threading.Thread(target=job, args=(name,)) for name in ("first", "second")]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    with pytest.raises(Cancelled):
        job("third", should_stop=lambda: True)
    go_on.set()
    for thread in threads:
        thread.join(120)
    assert len(tuned) == 1 and results["first"]["subject"] == results["second"]["subject"]


def test_an_error_while_a_lock_is_held_is_raised_as_it_is(tmp_path):
    for error in (FileNotFoundError("gone"), BlockingIOError("busy"), StorageError("full")):
        with pytest.raises(type(error), match=str(error)), locked(tmp_path / "a.lock"):
            raise error
        assert not (tmp_path / "a.lock").exists()
