"""What is generated says so: in every MP4's metadata, and in a corner of each frame where that is asked for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_clip
from tiny import tiny_pipeline

from dreampose_core.animate.engine import LocalEngine
from dreampose_core.animate.outputs import SIDE_BY_SIDE
from dreampose_core.animate.run import animate
from dreampose_core.media import add_sound, join_videos, read_image, write_video
from dreampose_core.media.watermark import COMMENT, WORDS, labelled
from dreampose_core.settings import AnimateOptions, Settings
from dreampose_core.synthetic import HELD_OUT


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
    frames = [np.full((32, 32, 3), 20 * i, np.uint8) for i in range(6)]
    write_video(frames, tmp_path / "it's a.mp4", 6.0, comment=COMMENT)
    write_video(frames, tmp_path / "plain.mp4", 6.0)
    assert (
        comment(tmp_path / "it's a.mp4") == COMMENT
        and "AI-generated" in COMMENT
        and "trainedAlgorithmicMedia" in COMMENT
    )
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
