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
from PIL import Image
from tiny import make_tiny_model

from dreampose_core import __version__
from dreampose_core.__main__ import main
from dreampose_core.media import probe_video, read_image, write_png, write_video
from dreampose_core.poses import read_poses, write_poses
from dreampose_core.settings import REPOSITORY
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip

SIZE = (40, 32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a tiny model, a photo, and poses whose map 0 is the photo's own."""
    folder = tmp_path_factory.mktemp("files")
    make_tiny_model(folder / "model")
    rgb, poses = render_clip(Figure.from_seed(HELD_OUT), "walk", 5, SIZE, fps=4.0)
    write_png(rgb[0].numpy(), folder / "photo.png")
    write_poses(poses, folder / "poses.npz")
    return folder


@pytest.fixture(autouse=True)
def signals():
    """`main` takes Ctrl-C over; pytest gets it back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def command(*arguments, cwd=REPOSITORY):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = [sys.executable, "-m", "dreampose_core", *map(str, arguments)]
    return subprocess.run(done, capture_output=True, text=True, timeout=600, cwd=cwd, env=environment)


def animate_arguments(files, **changes):
    given = {
        "image": files / "photo.png",
        "poses": files / "poses.npz",
        "out": "out.mp4",
        "model": files / "model",
        "device": "cpu",
        "recipe": "none",
        "steps": 1,
        **changes,
    }
    return [
        "animate",
        *(str(x) for name, value in given.items() if value is not None for x in (f"--{name.replace('_', '-')}", value)),
    ]


def refused(capsys, *arguments) -> str:
    """The sentence with which these arguments are refused."""
    capsys.readouterr()
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert "Traceback" not in err and "errors.pydantic" not in err
    return err


# -- what the commands do, each in a process of its own


def test_animate(files, tmp_path):
    own = f"{files}/poses.npz:0"
    done = command(
        *animate_arguments(files, image_poses=own, recipe="fast", frames="0:3", fps=12, seed=3, image_guidance=2),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    motion, last = done.stdout.splitlines()
    assert motion == f"{files}/poses.npz: 5 frames at 4 fps, 40 x 32, pose file (npz), parts and U, V, mannequin charts"
    assert last == "out.mp4: 9 frames at 12 fps, 40 x 32 (height x width)"  # 3 of 4 a second, each shown three times
    assert (
        all(stage in done.stderr for stage in ("tuning", "decoder", "frames", "video")) and "Warning" not in done.stderr
    )
    assert "float32" not in done.stderr  # what libraries think of their own casts is not ours to say
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.mp4"]
    info = probe_video(tmp_path / "out.mp4")
    assert (info.num_frames, info.fps, info.codec, info.pixel_format) == (9, 12, "h264", "yuv420p")
    content = (tmp_path / "out.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")
    result = json.loads((tmp_path / "out.json").read_text())
    assert (
        result["num_frames"] == 9
        and result["seed"] == 3
        and result["subject"]
        and result["used"]["image_guidance"] == 2
    )


def test_finetune_and_the_subject_it_makes(files, tmp_path, capsys):
    photo = files / "photo.png"
    done = command(
        "finetune",
        "--image",
        photo,
        "--image",
        photo,
        "--image-poses",
        files / "poses.npz",
        "--image-poses",
        f"{files / 'poses.npz'}:1",
        "--out",
        "anna",
        "--model",
        files / "model",
        "--device",
        "cpu",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "tuned to 2 photos; use it with --subject" in done.stdout and "anna" in done.stdout
    assert (tmp_path / "anna" / "subject.json").is_file() and len(
        read_poses(tmp_path / "anna" / "photo_poses.npz")
    ) == 2
    out = tmp_path / "out.mp4"
    assert main(animate_arguments(files, subject=tmp_path / "anna", out=out, estimator="none")) == 0
    key = json.loads((tmp_path / "anna" / "subject.json").read_text())["key"]
    assert json.loads(out.with_suffix(".json").read_text())["subject"] == key
    assert "No DensePose for this photo" in capsys.readouterr().out


def test_animate_learns_from_several_photos(files, tmp_path, capsys, monkeypatch):
    from dreampose_core.subject.recipe import RECIPES, SubjectRecipe

    monkeypatch.setitem(RECIPES, "fast", SubjectRecipe(unet_steps=2, decoder_steps=2, batch_size=2, views=2))
    more = ["--image", str(files / "photo.png"), "--image-poses", f"{files}/poses.npz:1", "--fit", "pad"]
    given = animate_arguments(files, image_poses=f"{files}/poses.npz:0", recipe="fast", out=tmp_path / "out.mp4")
    assert main([*given, *more]) == 0
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "out.json").read_text())
    # the same that finetune tunes
    both = ["--image-poses", f"{files}/poses.npz:0", "--image", str(files / "photo.png"), *more]
    assert (
        main(["finetune", *both, "--out", str(tmp_path / "anna"), "--model", str(files / "model"), "--device", "cpu"])
        == 0
    )
    assert (
        result["subject"] == json.loads((tmp_path / "anna" / "subject.json").read_text())["key"] and "used" not in said
    )
    skipped = animate_arguments(files, image_poses=f"{files}/poses.npz:0", out=tmp_path / "none.mp4")
    capsys.readouterr()
    assert main([*skipped, *more]) == 0 and "Only the first photo was used" in capsys.readouterr().out
    wrong = animate_arguments(files, image_poses=f"{files}/poses.npz", out=tmp_path / "x.mp4")
    assert "2 --image and 1 --image-poses; give one map for each photo" in refused(capsys, *wrong, *more[:2])
    assert "letter.png" in refused(capsys, *skipped, "--image", tmp_path / "letter.png")


def test_an_interrupted_finetune_goes_on_when_asked(files, tmp_path, capsys):
    given = [
        "finetune",
        "--image",
        str(files / "photo.png"),
        "--image-poses",
        str(files / "poses.npz"),
        "--model",
        str(files / "model"),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "anna"),
        "--steps",
        "4",
    ]
    assert main([*given, "--resume"]) == 2 and "no interrupted tuning of anna" in capsys.readouterr().err
    kept = tmp_path / ".anna.checkpoints"
    (kept / "tuning").mkdir(parents=True)
    (kept / "tuning.json").write_text('{"steps": 60}')
    assert main([*given, "--resume"]) == 2 and "another recipe and another steps" in capsys.readouterr().err
    assert main(given) == 2 and "give --resume to go on, or delete" in capsys.readouterr().err
    shutil.rmtree(kept)
    assert main(given) == 0 and "tuned to 1 photo;" in capsys.readouterr().out and not kept.exists()
    assert main(given) == 0 and "was tuned to the same before, and is kept" in capsys.readouterr().out


def test_poses_info(files):
    done = command("poses", "info", files / "poses.npz")
    assert done.returncode == 0 and done.stderr == ""
    assert "5 frames at 4 fps, 40 x 32, pose file (npz), parts and U, V, mannequin charts" in done.stdout
    assert "nobody in 0 frames" in done.stdout


def test_convert_to_every_form_and_back(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = read_poses(files / "poses.npz")
    for name, words in (("iuv.zip", "IUV images"), ("maps", "U, V maps (.npy), U, V only"), ("back.npz", "pose file")):
        assert main(["poses", "convert", str(files / "poses.npz"), name]) == 0
        assert main(["poses", "info", name]) == 0
        out = capsys.readouterr().out
        assert words in out and "5 frames at 4 fps, 40 x 32" in out and "mannequin charts" in out
    assert main(["poses", "convert", "iuv.zip", "again.npz", "--frames", "1:4", "--reverse", "--loops", "2"]) == 0
    assert np.array_equal(read_poses("again.npz").parts, truth.parts[[3, 2, 1] * 2])
    assert "are not inside the sequence" in refused(capsys, "poses", "convert", "iuv.zip", "x.npz", "--frames", "4:9")
    assert "pickle" in refused(capsys, "poses", "info", _pickle(tmp_path)) and not (tmp_path / "ran").exists()


def _pickle(folder: Path) -> Path:
    """A pickle that would make the file "ran" when it is opened."""
    path = folder / "walk.pkl"
    path.write_bytes(b"cpathlib\nPath.touch\n(cpathlib\nPath\n(S'" + str(folder / "ran").encode() + b"'\ntRtR.")
    return path


def test_a_dump_is_for_convert_alone_and_runs_nothing(files, tmp_path, capsys):
    out = tmp_path / "poses.npz"
    assert "error" in refused(capsys, "poses", "convert", _pickle(tmp_path), out)
    assert not (tmp_path / "ran").exists() and not out.exists()


def test_preview(files, tmp_path, capsys):
    out = tmp_path / "look.mp4"
    given = ["poses", "preview", files / "poses.npz", out]
    assert main([*map(str, given), "--fps", "8"]) == 0
    assert (probe_video(out).num_frames, probe_video(out).fps, probe_video(out).width) == (10, 8, 256)
    photo = ["--image", files / "photo.png", "--image-poses", files / "poses.npz", "--model", files / "model"]
    assert main([*map(str, (*given, *photo))]) == 0
    said = capsys.readouterr().out
    assert "instant preview" in said and "5 frames" in said
    assert probe_video(out).width == 3 * 256
    assert main([*map(str, (*given, "--image", files / "photo.png", "--estimator", "none"))]) == 0
    assert "cannot be moved" in capsys.readouterr().out and probe_video(out).width == 2 * 256


def test_a_clip_as_motion_with_its_sound(files, tmp_path, capsys):
    """A video of a mannequin goes through the estimator; its sound stays where the timing does."""
    rgb, _ = render_clip(Figure.from_seed(HELD_OUT), "walk", 8, (160, 128), fps=8.0)
    clip = tmp_path / "clip.mp4"
    write_video(rgb.numpy(), tmp_path / "silent.mp4", 8.0)
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=1"]
    ffmpeg = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-loglevel",
        "error",
        "-i",
        tmp_path / "silent.mp4",
        *tone,
        "-c:v",
        "copy",
        clip,
    ]
    subprocess.run(ffmpeg, check=True)
    photo = tmp_path / "photo.png"
    write_png(rgb[0].numpy(), photo)
    out = tmp_path / "out.mp4"
    given = animate_arguments(files, image=photo, poses=clip, out=out, frames="2:6")
    assert main([*given, "--keep-sound"]) == 0
    said = capsys.readouterr().out
    assert "estimated from a video, parts and U, V, body charts" in said and "no sound" not in said
    info = probe_video(out)
    assert info.has_sound and info.num_frames == 4 and info.seconds == pytest.approx(0.5, abs=0.05)
    assert main([*given, "--keep-sound", "--reverse"]) == 0
    assert "The clip's sound is left out" in capsys.readouterr().out and not probe_video(out).has_sound
    for option, number in (("--person", 2), ("--motion-person", 3)):
        assert main([*given, option, str(number)]) == 2
        assert f"error: --person is {number}, but there is one person" in capsys.readouterr().err
    assert "shows one person already" in refused(capsys, "poses", "info", files / "poses.npz", "--person", 1)
    assert "no estimator is chosen" in refused(capsys, *given, "--estimator", "none")
    assert main([*animate_arguments(files, out=out, image_poses=files / "poses.npz"), "--keep-sound"]) == 0
    assert "There is no sound to keep" in capsys.readouterr().out


def test_bench_poses(tmp_path, capsys):
    assert main(["bench", "poses", "--frames", "3", "--size", "64x48", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"npz", "IUV zip", "rendering (MP4)", "DreamPose .npy"}
    assert all(row["memory_mb"] > 20 and row["read_s"] >= 0 for row in report.values())


def test_mannequin_render(tmp_path):
    arguments = ["--seed", 10007, "--motion", "wave", "--frames", 3, "--size", "40x32", "--out", "clip"]
    done = command("mannequin", "render", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "clip").iterdir()) == [
        *(f"frame_{i:05d}.png" for i in range(3)),
        "poses.npz",
    ]
    poses = read_poses(tmp_path / "clip" / "poses.npz")
    rgb, expected = render_clip(Figure.from_seed(10007), "wave", 3, SIZE, fps=20.0)
    assert (
        len(poses) == 3
        and poses.charts == "mannequin"
        and poses.fps == 20
        and np.array_equal(poses.parts, expected.parts)
    )
    assert np.array_equal(read_image(tmp_path / "clip" / "frame_00002.png"), rgb[2].numpy())


def test_train_and_go_on(tmp_path, capsys):
    run = [
        "train",
        "--data",
        "mannequin",
        "--out",
        "run",
        "--size",
        "32x32",
        "--vae-steps",
        1,
        "--end-to-end-steps",
        1,
        "--batch-size",
        2,
        "--unet-channels",
        "8,16",
        "--device",
        "cpu",
    ]
    done = command(*run, "--steps", 2, "--minutes", 0, cwd=tmp_path)
    assert done.returncode == 0 and "not all steps done; go on with --resume" in done.stdout, done.stderr
    run[4] = str(tmp_path / "run")
    assert "give --resume to go on" in refused(capsys, *run, "--steps", 2)
    assert "was started with --steps 2; go on so" in refused(capsys, *run, "--steps", 3, "--resume")
    assert main([*map(str, run), "--steps", "2", "--resume", "--tensorboard"]) == 0
    assert ": all steps done" in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "model_index.json").is_file() and (
        tmp_path / "run" / "base" / "tensorboard"
    ).is_dir()


def test_evaluate(tmp_path, files, capsys):
    given = ["--model", files / "model", "--device", "cpu", "--people", 1, "--quality", "draft", "--out", tmp_path]
    assert main(["evaluate", *map(str, given)]) == 0
    assert "| part_colours |" in capsys.readouterr().out and (tmp_path / "contact.png").is_file()


def test_the_same_command_gives_the_same_video(files, tmp_path):
    for name in ("a", "b"):
        assert main(animate_arguments(files, out=tmp_path / f"{name}.mp4")) == 0
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_ctrl_c_stops_without_leaving_anything(files, tmp_path):
    arguments = [sys.executable, "-m", "dreampose_core", *animate_arguments(files, steps=250, out=tmp_path / "out.mp4")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=tmp_path, env=environment
    ) as process:
        said = b""
        while b"frames" not in said:
            piece = process.stderr.read1(4096)
            assert piece, said
            said += piece
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
        assert process.wait(300) == 130
    assert b"stopped before it was done." in said and b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_help_and_version_name_every_command(capsys):
    commands = ("animate", "finetune", "train", "poses", "mannequin", "evaluate", "bench")
    for arguments, words in ((["--help"], commands), (["--version"], (__version__,))):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        out = capsys.readouterr().out
        assert exit_.value.code == 0 and all(word in out for word in words)


# -- mistakes


def npz(path: Path, **arrays) -> Path:
    given = {
        "parts": np.ones((2, *SIZE), np.uint8),
        "charts": np.array("none"),
        "fps": np.float64(4),
        "version": np.int64(1),
        **arrays,
    }
    np.savez(path, **{name: array for name, array in given.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "no image file"),
        ("text", "not an image"),
        ("empty", "is empty"),
        ("huge", "at most 24 megapixels"),
        ("cut", "damaged or cut short"),
        ("folder", "no image file"),
    ],
)
def test_bad_photos(files, tmp_path, capsys, kind, sentence):
    photo = tmp_path / "photo.png"
    if kind == "text":
        photo.write_text("not an image")
    elif kind == "empty":
        photo.touch()
    elif kind == "huge":
        Image.new("1", (6000, 4001)).save(photo)
    elif kind == "cut":
        photo.write_bytes((files / "photo.png").read_bytes()[:-200])
    elif kind == "folder":
        photo.mkdir()
    out = tmp_path / "out.mp4"
    assert sentence in refused(capsys, *animate_arguments(files, image=photo, out=out))
    assert sentence in refused(
        capsys, "finetune", "--image", photo, "--out", tmp_path / "anna", "--model", files / "model"
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "no file or folder"),
        ("empty", "is empty"),
        ("corrupt", "cannot be read as a pose file"),
        ("objects", "Python objects, which are never loaded"),
        ("no frames", "no frames"),
        ("part 25", "has part 25"),
        ("nan", "not finite"),
        ("other npz", "not a pose file"),
        ("u, v of 2", "must lie between 0 and 1"),
    ],
)
def test_bad_poses(files, tmp_path, capsys, kind, sentence):
    poses = tmp_path / "poses.npz"
    uv = np.zeros((2, 2, *SIZE), np.float16)
    if kind == "empty":
        poses.touch()
    elif kind == "corrupt":
        content = bytearray((files / "poses.npz").read_bytes())
        content[len(content) // 2 :] = b"\0" * 100
        poses.write_bytes(content)
    elif kind == "objects":
        npz(poses, parts=np.array([{"a": 1}], dtype=object))
    elif kind == "no frames":
        npz(poses, parts=np.zeros((0, *SIZE), np.uint8))
    elif kind == "part 25":
        npz(poses, parts=np.full((1, *SIZE), 25, np.uint8))
    elif kind == "nan":
        npz(poses, uv=uv * np.float16("nan"), charts=np.array("mannequin"))
    elif kind == "u, v of 2":
        npz(poses, uv=uv + 2, charts=np.array("mannequin"))
    elif kind == "other npz":
        np.savez(poses, weights=np.zeros(3))
    assert sentence in refused(capsys, *animate_arguments(files, poses=poses, out=tmp_path / "out.mp4"))
    assert sentence in refused(capsys, *animate_arguments(files, image_poses=poses, out=tmp_path / "out.mp4"))
    assert sentence in refused(capsys, "poses", "info", poses)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 251}, "steps"),
        ({"steps": "many"}, "--steps"),
        ({"image_guidance": -1}, "image guidance"),
        ({"image_guidance": "nan"}, "image guidance"),
        ({"pose_guidance": 21}, "pose guidance"),
        ({"pose_guidance": "inf"}, "pose guidance"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"seed": 10**30}, "seed"),
        ({"fps": 0}, "fps"),
        ({"fps": "nan"}, "fps"),
        ({"frames": "3"}, "--frames"),
        ({"frames": "2:2"}, "not inside the sequence"),
        ({"frames": "0:6"}, "not inside the sequence"),
        ({"frames": "5:"}, "not inside the sequence"),
        ({"frames": "-2:3"}, "--frames"),
        ({"frames": "3:1"}, "not inside the sequence"),
        ({"recipe": "slow"}, "recipe"),
        ({"quality": "superb"}, "quality"),
        ({"out": "out.avi"}, "must end in .mp4"),
        ({"out": "nowhere/out.mp4"}, "no folder nowhere"),
        ({"model": "nowhere"}, "no model folder"),
        ({"device": "abacus"}, "--device"),
        ({"image_poses": "nowhere.npz"}, "no file or folder"),
        ({"subject": "nowhere"}, "not a subject folder"),
        ({"poses": None}, "--poses"),
    ],
)
def test_bad_options(files, tmp_path, capsys, monkeypatch, changes, word):
    monkeypatch.chdir(tmp_path)
    assert word in refused(capsys, *animate_arguments(files, **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_map_of_the_photo_that_is_not_in_the_file(files, tmp_path, capsys):
    assert "frames 0:5" in refused(
        capsys, *animate_arguments(files, image_poses=f"{files}/poses.npz:5", out=tmp_path / "out.mp4")
    )


def test_bad_model_folders(files, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    out = tmp_path / "out.mp4"
    assert "it has no model_index.json" in refused(capsys, *animate_arguments(files, model=tmp_path / "model", out=out))
    (tmp_path / "model" / "model_index.json").write_text("{")
    assert "cannot be loaded" in refused(capsys, *animate_arguments(files, model=tmp_path / "model", out=out))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["mannequin", "render", "--seed", -1, "--motion", "walk", "--frames", 1, "--size", "40x32"], "seed"),
        (["mannequin", "render", "--seed", 2**70, "--motion", "walk", "--frames", 1, "--size", "40x32"], "seed"),
        (
            ["mannequin", "render", "--seed", 1, "--motion", "moonwalk", "--frames", 1, "--size", "40x32"],
            "no motion 'moonwalk'; there are",
        ),
        (["mannequin", "render", "--seed", 1, "--motion", "walk", "--frames", 0, "--size", "40x32"], "--frames"),
        (["mannequin", "render", "--seed", 1, "--motion", "walk", "--frames", 10**9, "--size", "40x32"], "--frames"),
        (["mannequin", "render", "--seed", 1, "--motion", "walk", "--frames", 1, "--size", "40"], "HEIGHTxWIDTH"),
        (
            ["mannequin", "render", "--seed", 1, "--motion", "walk", "--frames", 1, "--size", "40x32", "--fps", 0],
            "--fps",
        ),
        (
            ["mannequin", "render", "--seed", 1, "--motion", "walk", "--frames", 1, "--size", "40x32", "--speed", 5],
            "speed",
        ),
        (
            [
                "mannequin",
                "render",
                "--seed",
                1,
                "--motion",
                "walk",
                "--frames",
                1,
                "--size",
                "40x32",
                "--amplitude",
                "nan",
            ],
            "amplitude",
        ),
        (["train", "--data", "mannequin", "--size", "40x32"], "size: input should be a multiple of 32"),
        (["train", "--data", "mannequin", "--batch-size", 3], "batch"),
        (["train", "--data", "photos"], "no folder photos"),
        (["train"], "--data"),
        (["train", "prepare", "photos"], "no folder photos"),
        (["bench", "poses", "--frames", 0], "--frames"),
        (["train", "--data", "mannequin", "--steps", -1], "steps: input should be greater than or equal to 0"),
        (["evaluate", "--people", 0], "number of people"),
        (["finetune", "--image", "PHOTO", "--recipe", "none"], "recipe"),
        (
            ["finetune", "--image", "PHOTO", "--image-poses", "POSES", "--image-poses", "POSES"],
            "1 --image and 2 --image-poses",
        ),
    ],
)
def test_bad_input_of_the_other_commands(files, tmp_path, capsys, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    replaced = {"PHOTO": files / "photo.png", "POSES": files / "poses.npz"}
    model = ["--model", files / "model"] if arguments[0] in ("evaluate", "finetune") else []
    assert word in refused(
        capsys, *(replaced.get(argument, argument) for argument in arguments), "--out", "out", *model
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["poses"], ["mannequin"], ["animate"], ["poses", "info"], ["animate", "--verbose"]]
)
def test_bad_command_lines(capsys, arguments):
    assert "--help" in refused(capsys, *arguments)


def test_finetune_never_replaces_other_files(files, tmp_path, capsys, monkeypatch):
    (tmp_path / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path)
    for out in (tmp_path, "."):
        given = ["finetune", "--image", files / "photo.png", "--model", files / "model", "--out", out]
        assert "is not a subject" in refused(capsys, *given)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert "is a file" in refused(
        capsys, "finetune", "--image", files / "photo.png", "--model", files / "model", "--out", "thesis.txt"
    )


def test_a_folder_that_cannot_be_made_is_one_sentence(files, tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "clip"
    assert (
        main(
            [
                "mannequin",
                "render",
                "--seed",
                "1",
                "--motion",
                "walk",
                "--frames",
                "1",
                "--size",
                "40x32",
                "--out",
                str(out),
            ]
        )
        == 1
    )
    err = capsys.readouterr().err
    assert err.startswith("error: clip could not be written: ") and err.count("\n") == 1


def test_a_full_disk_while_the_video_is_written(files, tmp_path, capsys):
    """Files may grow to 4 kB: frames of the tiny model do, a video of five does not."""
    out, limits = tmp_path / "out.mp4", resource.getrlimit(resource.RLIMIT_FSIZE)
    assert main(animate_arguments(files, out=out)) == 0
    before = out.read_bytes()
    largest = 4200
    assert len(before) > largest
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        status = main(animate_arguments(files, out=out, seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    err = capsys.readouterr().err.splitlines()
    assert (
        status == 1
        and err[-1].startswith("error: ")
        and "mp4 could not be written: the file may not grow larger" in err[-1]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.mp4"] and out.read_bytes() == before
