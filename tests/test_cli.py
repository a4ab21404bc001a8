"""The command line: what it writes and says, and one plain sentence with exit code 2 for every mistake of a user."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from drawn import drawn_clip
from tiny import make_tiny_model

from dreampose_core import __version__
from dreampose_core.__main__ import main
from dreampose_core.media import extract_sound, probe_video, write_png, write_video
from dreampose_core.poses import read_poses, write_poses
from dreampose_core.settings import REPOSITORY
from dreampose_core.subject.recipe import RECIPES, SubjectRecipe
from dreampose_core.synthetic import HELD_OUT

SIZE = (40, 32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a tiny model, a photo, and poses whose map 0 is the photo's own."""
    folder = tmp_path_factory.mktemp("files")
    make_tiny_model(folder / "model")
    rgb, poses = drawn_clip(HELD_OUT, "walk", 5, SIZE, fps=4.0)
    write_png(rgb[0], folder / "photo.png")
    write_poses(poses, folder / "poses.npz")
    return folder


@pytest.fixture(autouse=True)
def signals():
    """`main` takes Ctrl-C over; pytest gets it back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def short(monkeypatch):
    """Fine-tuning of two steps."""
    monkeypatch.setitem(RECIPES, "fast", SubjectRecipe(unet_steps=2, decoder_steps=2, batch_size=2, views=2))


def arguments(words: str, *more, **options) -> list[str]:
    """The words of a command, more of them, and options by name."""
    named = [x for name, value in options.items() if value is not None for x in (f"--{name.replace('_', '-')}", value)]
    return [*words.split(), *map(str, (*more, *named))]


def animate_arguments(files, **changes):
    given = {"image": files / "photo.png", "poses": files / "poses.npz", "out": "out.mp4", "model": files / "model"}
    return arguments(
        "animate", **{**given, "device": "cpu", "recipe": "none", "steps": 1, "estimator": "none", **changes}
    )


def run(*given, **options) -> int:
    return main(arguments(*given, **options))


def process(given: list[str], cwd: Path, **pipes) -> subprocess.Popen:
    """The same in a process of its own."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    line = [sys.executable, "-m", "dreampose_core", *given]
    return subprocess.Popen(line, **pipes, stderr=subprocess.PIPE, cwd=cwd, env=environment)


def refused(capsys, given: list[str]) -> str:
    """The sentence with which these arguments are refused."""
    capsys.readouterr()
    try:
        status = main(given)
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert "Traceback" not in err and "errors.pydantic" not in err
    return err


# -- what the commands do


def test_animate(files, tmp_path):
    own = f"{files}/poses.npz:0"
    changes = {"recipe": "fast", "frames": "0:3", "fps": 12, "seed": 3, "image_guidance": 2}
    given = animate_arguments(files, image_poses=own, **changes)
    with process(given, tmp_path, stdout=subprocess.PIPE, text=True) as done:
        out, err = done.communicate(timeout=600)
    assert done.returncode == 0, err
    motion, last = out.splitlines()
    assert motion == f"{files}/poses.npz: 5 frames at 4 fps, 40 x 32, pose file (npz), parts and U, V, body charts"
    assert last == "out.mp4: 9 frames at 12 fps, 40 x 32 (height x width)"  # 3 of 4 a second, each shown three times
    assert all(stage in err for stage in ("tuning", "decoder", "frames", "video"))
    assert "Warning" not in err and "float32" not in err  # libraries on their own casts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.mp4"]
    info = probe_video(tmp_path / "out.mp4")
    assert (info.num_frames, info.fps, info.codec, info.pixel_format) == (9, 12, "h264", "yuv420p")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["num_frames"] == 9 and result["seed"] == 3 and result["subject"]
    assert result["used"]["image_guidance"] == 2


def test_finetune_and_the_subject_it_makes(files, tmp_path, capsys, short):
    photos = ["--image", files / "photo.png", "--image", files / "photo.png"]
    maps = ["--image-poses", files / "poses.npz", "--image-poses", f"{files}/poses.npz:1"]
    assert run("finetune --device cpu", *photos, *maps, model=files / "model", out=tmp_path / "anna") == 0
    out = capsys.readouterr().out
    assert "tuned to 2 photos; use it with --subject" in out and "anna" in out
    assert (tmp_path / "anna" / "subject.json").is_file()
    assert len(read_poses(tmp_path / "anna" / "photo_poses.npz")) == 2
    out = tmp_path / "out.mp4"
    assert main(animate_arguments(files, subject=tmp_path / "anna", out=out, estimator="none")) == 0
    key = json.loads((tmp_path / "anna" / "subject.json").read_text())["key"]
    assert json.loads(out.with_suffix(".json").read_text())["subject"] == key
    assert "No DensePose for this photo" in capsys.readouterr().out


def test_animate_learns_from_several_photos(files, tmp_path, capsys, short):
    photo, first = ["--image", str(files / "photo.png")], f"{files}/poses.npz:0"
    more = [*photo, "--image-poses", f"{files}/poses.npz:1", "--fit", "pad"]
    assert main([*animate_arguments(files, image_poses=first, recipe="fast", out=tmp_path / "out.mp4"), *more]) == 0
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "out.json").read_text())
    # the same that finetune tunes
    given = ["--image-poses", first, *photo, *more]
    assert run("finetune --device cpu", *given, out=tmp_path / "anna", model=files / "model") == 0
    key = json.loads((tmp_path / "anna" / "subject.json").read_text())["key"]
    assert result["subject"] == key and "used" not in said
    skipped = animate_arguments(files, image_poses=first, out=tmp_path / "none.mp4")
    assert main([*skipped, *more]) == 0 and "Only the first photo was used" in capsys.readouterr().out
    assert "2 --image and 1 --image-poses; give one map for each photo" in refused(capsys, [*skipped, *photo])
    more[1] = str(tmp_path / "letter.png")
    assert "letter.png" in refused(capsys, [*skipped, *more])


def test_an_interrupted_finetune_goes_on_when_asked(files, tmp_path, capsys):
    options = {"image": files / "photo.png", "image_poses": files / "poses.npz", "model": files / "model"}
    given = arguments("finetune --device cpu --steps 4", out=tmp_path / "anna", **options)
    assert "no interrupted tuning of anna" in refused(capsys, [*given, "--resume"])
    kept = tmp_path / ".anna.checkpoints"
    (kept / "tuning").mkdir(parents=True)
    (kept / "tuning.json").write_text('{"steps": 60}')
    assert main([*given, "--resume"]) == 2 and "another recipe and another steps" in capsys.readouterr().err
    assert "give --resume to continue, or delete" in refused(capsys, given)
    shutil.rmtree(kept)
    assert main(given) == 0 and "tuned to 1 photo;" in capsys.readouterr().out and not kept.exists()
    assert main(given) == 0 and "already tuned with these inputs, unchanged" in capsys.readouterr().out


def test_convert_to_every_form_and_back(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = read_poses(files / "poses.npz")
    for name, words in (("iuv.zip", "IUV images"), ("maps", "U, V maps (.npy), U, V only"), ("back.npz", "pose file")):
        assert run("poses convert", files / "poses.npz", name) == 0
        assert run("poses info", name) == 0
        out = capsys.readouterr().out
        assert words in out and "5 frames at 4 fps, 40 x 32" in out and "body charts" in out
        assert "no person in 0 frames" in out
    assert run("poses convert iuv.zip again.npz --frames 1:4 --reverse --loops 2") == 0
    assert np.array_equal(read_poses("again.npz").parts, truth.parts[[3, 2, 1] * 2])
    wrong = arguments("poses convert iuv.zip x.npz --frames 4:9")
    assert "are not inside the sequence" in refused(capsys, wrong)


def test_a_dump_is_for_convert_alone_and_runs_nothing(files, tmp_path, capsys):
    pickle, ran, out = tmp_path / "walk.pkl", tmp_path / "ran", tmp_path / "poses.npz"
    pickle.write_bytes(b"cpathlib\nPath.touch\n(cpathlib\nPath\n(S'" + str(ran).encode() + b"'\ntRtR.")
    assert "error" in refused(capsys, arguments("poses convert", pickle, out))
    assert "pickle" in refused(capsys, arguments("poses info", pickle))
    assert not ran.exists() and not out.exists()


def test_preview(files, tmp_path, capsys):
    out = tmp_path / "look.mp4"
    given = arguments("poses preview", files / "poses.npz", out)
    assert main([*given, "--fps", "8"]) == 0
    assert (probe_video(out).num_frames, probe_video(out).fps, probe_video(out).width) == (10, 8, 256)
    photo = arguments("", image=files / "photo.png")
    assert main([*given, *photo, *arguments("", image_poses=files / "poses.npz", model=files / "model")]) == 0
    said = capsys.readouterr().out
    assert "instant preview" in said and "5 frames" in said
    assert probe_video(out).width == 3 * 256
    assert main([*given, *photo, "--estimator", "none"]) == 0
    assert "cannot be moved" in capsys.readouterr().out and probe_video(out).width == 2 * 256


def test_a_clip_as_motion_with_its_sound(files, tmp_path, capsys):
    """A video of a drawn person goes through the estimator; its sound stays where the timing does."""
    rgb, _ = drawn_clip(HELD_OUT, "walk", 4, (160, 128), fps=4.0)
    clip, photo, out = tmp_path / "clip.mp4", tmp_path / "photo.png", tmp_path / "out.mp4"
    write_video(rgb, tmp_path / "silent.mp4", 4.0)
    tone = "-f lavfi -i sine=frequency=440:duration=1 -c:v copy".split()
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", tmp_path / "silent.mp4", *tone, clip]
    subprocess.run(ffmpeg, check=True)
    write_png(rgb[0], photo)
    given = animate_arguments(files, image=photo, poses=clip, out=out, frames="1:3", estimator="body")
    assert main([*given, "--keep-sound"]) == 0
    said = capsys.readouterr().out
    assert "estimated from a video, parts and U, V, body charts" in said and "no sound" not in said
    info, sound = probe_video(out), tmp_path / "s.m4a"
    assert extract_sound(out, sound, 0, 0.5) and info.num_frames == 2 and info.seconds == pytest.approx(0.5, abs=0.05)
    assert main([*given, "--keep-sound", "--reverse"]) == 0
    assert "The clip's sound is left out" in capsys.readouterr().out and not extract_sound(out, sound, 0, 0.5)
    for option, number in (("--person", 2), ("--motion-person", 3)):
        assert main([*given, option, str(number)]) == 2
        assert f"error: --person is {number}, but there is one person" in capsys.readouterr().err
    one = arguments("poses info --person 1", files / "poses.npz")
    assert "shows one person only" in refused(capsys, one)
    chosen = animate_arguments(files, image=photo, out=out, estimator="body") + ["--motion-person", "1"]
    assert "shows one person only; leave out --motion-person" in refused(capsys, chosen)
    assert "no estimator is chosen" in refused(capsys, [*given, "--estimator", "none"])
    assert main([*animate_arguments(files, out=out, image_poses=files / "poses.npz"), "--keep-sound"]) == 0
    assert "There is no sound to keep" in capsys.readouterr().out


def test_prepare_train_and_go_on(files, tmp_path, capsys):
    films, clips = tmp_path / "films", tmp_path / "clips"
    films.mkdir()
    rgb, poses = drawn_clip(HELD_OUT, "walk", 5, (64, 64), fps=4.0)
    write_video(rgb, films / "a.mp4", 4.0)
    write_poses(poses, films / "a.npz")
    assert run("train prepare --size 32x32 --estimator none", films, out=clips) == 0
    assert f"{clips}: 1 clips, 5 frames; left out: 0 clips" in capsys.readouterr().out
    few = "--size 32x32 --end-to-end-steps 1 --batch-size 2 --unet-channels 8,16 --device cpu"
    given = arguments(f"train {few}", data=clips, vae=files / "model", out=tmp_path / "run")
    assert main([*given, "--steps", "2", "--minutes", "0"]) == 0
    assert "not all steps done; continue with --resume" in capsys.readouterr().out
    assert "give --resume to continue" in refused(capsys, [*given, "--steps", "2"])
    assert "--steps was 2; use the same options" in refused(capsys, [*given, "--steps", "3", "--resume"])
    assert main([*given, "--steps", "2", "--resume"]) == 0
    assert ": all steps done" in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "model_index.json").is_file()


def test_ctrl_c_stops_without_leaving_anything(files, tmp_path):
    with process(animate_arguments(files, steps=250), tmp_path, stdout=subprocess.DEVNULL) as running:
        said = b""
        while b"frames" not in said:
            piece = running.stderr.read1(4096)
            assert piece, said
            said += piece
        running.send_signal(signal.SIGINT)
        said += running.stderr.read()
        assert running.wait(300) == 130
    assert b"stopped." in said and b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_help_and_version_name_every_command(capsys):
    commands = ("animate", "finetune", "train", "poses", "evaluate", "bench")
    for option, words in (("--help", commands), ("--version", (__version__,))):
        with pytest.raises(SystemExit) as exit_:
            run(option)
        out = capsys.readouterr().out
        assert exit_.value.code == 0 and all(word in out for word in words)


# -- mistakes


@pytest.mark.parametrize(
    ("option", "content", "sentence"),
    [
        ("image", None, "no image file"),
        ("image", b"no picture", "is not an image"),
        ("poses", None, "no file or folder"),
        ("poses", b"", "is empty"),
        ("poses", b"PK\x03\x04 but no more", "cannot be read; it is damaged"),
        ("image_poses", b"", "is empty"),
    ],
)
def test_bad_files(files, tmp_path, capsys, option, content, sentence):
    file, out = tmp_path / ("photo.png" if option == "image" else "poses.npz"), tmp_path / "out.mp4"
    if content is not None:
        file.write_bytes(content)
    assert sentence in refused(capsys, animate_arguments(files, **{option: file}, out=out))
    given = arguments("poses info", file)
    if option != "poses":
        options = {"image": files / "photo.png", "out": tmp_path / "anna", "model": files / "model", option: file}
        given = arguments("finetune", **options)
    assert sentence in refused(capsys, given)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"steps": 251}, "steps"),
        ({"steps": "many"}, "--steps"),
        ({"image_guidance": "nan"}, "image guidance"),
        ({"seed": 10**30}, "seed"),
        ({"frames": "3"}, "--frames"),
        ({"frames": "2:2"}, "not inside the sequence"),
        ({"frames": "5:"}, "not inside the sequence"),
        ({"frames": "-2:3"}, "--frames"),
        ({"recipe": "slow"}, "recipe"),
        ({"out": "out.avi"}, "must end in .mp4"),
        ({"out": "nowhere/out.mp4"}, "no folder nowhere"),
        ({"out": "a" * 240 + ".mp4"}, "longer than 200 bytes"),
        ({"image": "."}, ". is a folder; give one photo"),
        ({"poses": "https://example.org/a.mp4"}, "download it first"),
        ({"model": "nowhere"}, "no model folder"),
        ({"device": "abacus"}, "--device"),
        ({"image_poses": "nowhere.npz"}, "no file or folder"),
        ({"subject": "nowhere"}, "not a subject folder"),
        ({"poses": None}, "--poses"),
        ({"image_poses": "POSES:5"}, "frames 0:5"),
        ({"model": "EMPTY"}, "it has no model_index.json"),
        ({"model": "BROKEN"}, "cannot be loaded"),
    ],
)
def test_bad_options(files, tmp_path, capsys, monkeypatch, changes, word):
    places = {"POSES:5": f"{files}/poses.npz:5", "EMPTY": tmp_path / "empty", "BROKEN": tmp_path / "broken"}
    for name in ("empty", "broken", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{")
    monkeypatch.chdir(tmp_path / "work")
    given = {name: places.get(value, value) for name, value in changes.items()}
    assert word in refused(capsys, animate_arguments(files, **given))
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ("train --data photos --size 40x32", "size: input should be a multiple of 32"),
        ("train --data photos --batch-size 3", "batch"),
        ("train --data photos --unet-channels 8,x", "list of numbers"),
        ("train --data photos", "no clips in photos"),
        ("train", "--data"),
        ("train prepare photos", "no folder photos"),
        ("train --data photos --steps -1", "steps: input should be greater than or equal to 0"),
        ("train draw drawn --clips 0", "--clips: '0' is not a whole number of at least 1"),
        ("evaluate --model MODEL --data missing", "no folder missing"),
        ("evaluate --model MODEL --data .", "no video"),
        ("evaluate --model MODEL --people all", "--people: 'all' is not a whole number of at least 1"),
        ("evaluate --model MODEL --seed -1", "--seed: '-1' is not a whole number from 0 to 2147483647"),
        ("evaluate --model MODEL --recipe slow", "--recipe"),
        ("evaluate --model MODEL --lpips missing.pt", "missing.pt cannot be loaded"),
        ("finetune --image PHOTO --recipe none --model MODEL", "recipe"),
        ("finetune --image PHOTO --image-poses POSES --image-poses POSES", "1 --image and 2 --image-poses"),
    ],
)
def test_bad_input_of_the_other_commands(files, tmp_path, capsys, monkeypatch, words, word):
    monkeypatch.chdir(tmp_path)
    for name, file in (("PHOTO", "photo.png"), ("POSES", "poses.npz"), ("MODEL", "model")):
        words = words.replace(name, str(files / file))
    assert word in refused(capsys, arguments(words, out="out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["", "dance", "poses", "bench", "animate", "poses info", "animate --verbose"])
def test_bad_command_lines(capsys, words):
    assert "--help" in refused(capsys, arguments(words))


def test_finetune_never_replaces_other_files(files, tmp_path, capsys, monkeypatch):
    (tmp_path / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path)
    for out, word in ((tmp_path, "is not a subject"), (".", "is not a subject"), ("thesis.txt", "is a file")):
        given = arguments("finetune", image=files / "photo.png", model=files / "model", out=out)
        assert word in refused(capsys, given)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_folder_that_cannot_be_made_is_one_sentence(files, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run("evaluate --device cpu", model=files / "model", out=tmp_path / "file" / "clip") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: clip could not be written: ") and err.count("\n") == 1


def test_a_full_disk_while_the_video_is_written(files, tmp_path, capsys):
    """Files may grow to 4 kB: frames of the tiny model do, a video of five does not."""
    out, limits = tmp_path / "out.mp4", resource.getrlimit(resource.RLIMIT_FSIZE)
    again, largest = tmp_path / "again.mp4", 4200
    for file in (out, again):
        assert main(animate_arguments(files, out=file)) == 0
    before = out.read_bytes()
    assert len(before) > largest and before == again.read_bytes()  # the same command gives the same video
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        status = main(animate_arguments(files, out=out, seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    err = capsys.readouterr().err.splitlines()
    assert status == 1 and err[-1].startswith("error: ")
    assert "mp4 could not be written: the file may not grow larger" in err[-1]
    assert {path.stem for path in tmp_path.iterdir()} == {"again", "out"} and out.read_bytes() == before
