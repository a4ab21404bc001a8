"""What is kept beside the MP4: every file has the frames it should have."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from drawn import drawn_clip, made_motion
from PIL import Image

from dreampose_core.animate.outputs import GIF, GIF_SIDE, SIDE_BY_SIDE, write_exports
from dreampose_core.inputs.framing import make_scene
from dreampose_core.media import probe_video, read_image, read_video, write_png
from dreampose_core.settings import SceneOptions
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
