"""Every file next to the MP4 has the frames it should have, and what is generated says so: in every MP4's metadata, and
in a corner of each frame where that is asked for."""

from __future__ import annotations

import io
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_clip, made_motion
from PIL import Image
from tiny import tiny_pipeline

from dreampose_core.animate.engine import LocalEngine
from dreampose_core.animate.outputs import GIF, GIF_SIDE, SIDE_BY_SIDE, write_exports
from dreampose_core.animate.run import animate
from dreampose_core.inputs.framing import make_scene
from dreampose_core.media import add_sound, join_videos, probe_video, read_image, read_video, write_png, write_video
from dreampose_core.media.watermark import COMMENT, WORDS, labelled
from dreampose_core.settings import AnimateOptions, SceneOptions, Settings
from dreampose_core.synthetic import HELD_OUT
from dreampose_core.web.links import zipped


def frames(count: int, size=(40, 32)) -> list[np.ndarray]:
    """Each of one grey, so that a place in a video is known by it."""
    return [np.full((*size, 3), 8 * index + 4, np.uint8) for index in range(count)]


def test_photo_motion_and_result_stand_side_by_side(tmp_path):
    rgb, poses = drawn_clip(HELD_OUT, "walk", 6, (40, 32), fps=6.0)
    scene = make_scene(rgb[0], poses, poses.select([0]), (40, 32), SceneOptions(align="none"))
    write_exports(scene, lambda: iter(frames(6)), tmp_path)
    info = probe_video(tmp_path / SIDE_BY_SIDE)
    assert (info.num_frames, info.height, info.width, info.fps) == (6, 40, 96, 6)
    for index, row in enumerate(read_video(tmp_path / SIDE_BY_SIDE)):
        photo, motion, made = np.split(row.astype(float), 3, axis=1)
        assert np.abs(photo - scene.photo).mean() < 8 and abs(made.mean() - (8 * index + 4)) < 3
        # the motion's colours lie on the photo
        assert np.abs(motion - scene.photo)[scene.poses.mask[index]].mean() > 20
    gif = Image.open(tmp_path / GIF)
    assert (gif.n_frames, gif.size) == (6, (32, 40))


def test_a_gif_of_a_large_fast_video_is_smaller_and_slower(tmp_path):
    poses = made_motion("walk", 8, (80, 64), 30.0)
    scene = make_scene(frames(1, (640, 512))[0], poses, None, (640, 512), SceneOptions(align="none"))
    write_exports(scene, lambda: iter(frames(8, (640, 512))), tmp_path)
    gif = Image.open(tmp_path / GIF)
    assert gif.n_frames == 4 and max(gif.size) == GIF_SIDE
    assert gif.info["duration"] == pytest.approx(1000 / 15, abs=10)


def test_frames_are_zipped_while_they_are_read(tmp_path):
    for index, frame in enumerate(frames(3)):
        write_png(frame, tmp_path / f"{index:06d}.png")
    (tmp_path / ".000003.part").write_bytes(b"half")
    pieces = list(zipped(tmp_path))
    assert len(pieces) > 3 and max(map(len, pieces)) < sum(map(len, pieces))
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None and archive.namelist() == [f"{index:06d}.png" for index in range(3)]
        (tmp_path / "again.png").write_bytes(archive.read("000002.png"))
    assert np.array_equal(read_image(tmp_path / "again.png"), frames(3)[2])


def comment(path: Path) -> str:
    ask = "ffprobe -v error -show_entries format_tags=comment -of default=noprint_wrappers=1:nokey=1".split()
    return subprocess.run([*ask, str(path)], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("size", [(160, 128), (640, 512), (24, 16)])
@pytest.mark.parametrize("grey", [0, 255])
def test_the_label_can_be_read_on_light_and_dark(size, grey):
    frame = np.full((*size, 3), grey, np.uint8)
    shown = labelled(frame)
    assert shown.shape == frame.shape and shown.dtype == np.uint8 and (frame == grey).all(), "a copy"
    changed = (shown != frame).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[-1] == size[0] - 1 and columns[0] == 0 and (size == (24, 16) or changed.mean() < 0.12)
    corner = shown[rows[0] :, : columns[-1] + 1].mean(axis=2)
    assert corner.max() - corner.min() > 100, f"{WORDS} stands out on grey {grey}"


def test_every_way_to_write_a_video_keeps_the_comment(tmp_path):
    write_video(frames(6), tmp_path / "it's a.mp4", 6.0, comment=COMMENT)
    write_video(frames(6), tmp_path / "plain.mp4", 6.0)
    assert "AI-generated" in COMMENT and "trainedAlgorithmicMedia" in COMMENT
    assert comment(tmp_path / "it's a.mp4") == COMMENT
    assert comment(tmp_path / "plain.mp4") == "", "a preview is not generated"
    join_videos([tmp_path / "it's a.mp4", tmp_path / "it's a.mp4"], tmp_path / "b.mp4", COMMENT)
    sound = tmp_path / "sound.m4a"
    make = "ffmpeg -v error -f lavfi -i sine=d=1 -metadata comment=another".split()
    subprocess.run([*make, str(sound)], check=True)
    add_sound(tmp_path / "it's a.mp4", sound, tmp_path / "c.mp4")
    for path in (tmp_path / "b.mp4", tmp_path / "c.mp4"):
        assert comment(path) == COMMENT, path.name


@pytest.mark.parametrize("label", [False, True])
def test_a_run_is_marked(tmp_path, label):
    pipe = tiny_pipeline()
    rgb, poses = drawn_clip(HELD_OUT, "wave", 5, pipe.model_config.size, fps=4.0)
    options = AnimateOptions(recipe="none", steps=1)
    given = {"image": rgb[0], "poses": poses, "image_poses": poses.select([0]), "options": options}
    result = animate(LocalEngine(pipe), **given, folder=tmp_path / "run", exports=True, label=label)
    assert result["label"] == label
    videos = [tmp_path / "run" / name for name in ("result.mp4", SIDE_BY_SIDE, "chunks/000000.mp4")]
    assert [comment(path) for path in videos] == [COMMENT] * 3
    plain = animate(LocalEngine(pipe), **given, folder=tmp_path / "plain")
    assert plain["label"] is False
    pairs = [[read_image(tmp_path / run / "frames" / f"{i:06d}.png") for run in ("run", "plain")] for i in range(5)]
    assert all(np.array_equal(a, labelled(b) if label else b) for a, b in pairs)


def test_where_others_are_served_frames_are_labelled(tmp_path):
    def labels(**given) -> bool:
        return Settings(home=tmp_path, **given).labels

    assert not labels() and not labels(host="localhost") and labels(host="0.0.0.0") and labels(host="192.168.1.2")
    assert labels(label="on") and not labels(host="0.0.0.0", label="off")
