"""The instant preview: its panels, its words, and that the moved texture is the photo's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn import drawn_clip

from dreampose_core.errors import Cancelled
from dreampose_core.evaluation.metrics import psnr
from dreampose_core.inputs.framing import Scene
from dreampose_core.inputs.photo_checks import NO_DENSEPOSE, NO_PERSON
from dreampose_core.inputs.preview import (
    COLOURED,
    NOTICE,
    PANEL_HEIGHT,
    frame_size,
    moved_frames,
    preview_size,
    write_look,
    write_preview,
)
from dreampose_core.media import Box, probe_video, read_image, read_video
from dreampose_core.poses import PoseSequence
from dreampose_core.poses.clean import holes_filled
from dreampose_core.settings import MINI, EditOptions, FrameOptions
from dreampose_core.synthetic import HELD_OUT

SIZE = (160, 128)


@pytest.fixture(scope="module")
def clip():
    rgb, poses = drawn_clip(HELD_OUT + 8, "turn", 6, SIZE, fps=6.0)
    return rgb, holes_filled(poses)


def scene(clip, own=True, parts_only=False) -> Scene:
    rgb, poses = clip
    image_poses = poses.select([0]) if own else None
    if parts_only:
        poses = replace(poses, uv=None, charts="none")
    return Scene(rgb[0], image_poses, poses, Box(0, 0, *SIZE), ())


def test_the_photos_own_map_gives_the_photo_back(clip):
    rgb, poses = clip
    frames = np.stack(list(moved_frames(rgb[0], poses.select([0]), poses)))
    assert frames.shape == rgb.shape and frames.dtype == np.uint8
    assert psnr(frames[:1], rgb[:1], poses.mask[:1]) > 20
    plain = np.stack(list(moved_frames(rgb[0], poses.select([0]), poses, use_uv=False)))
    # U, V must bring more than colours of parts; other charts give those alone
    assert psnr(frames, rgb, poses.mask) > psnr(plain, rgb, poses.mask) + 1
    other = replace(poses, charts="densepose")
    assert np.array_equal(np.stack(list(moved_frames(rgb[0], poses.select([0]), other))), plain)


@pytest.mark.parametrize(("kind", "panels"), [("motion", 1), ("photo without map", 2), ("all", 3), ("parts only", 3)])
def test_the_panels(clip, tmp_path, kind, panels):
    given = None if kind == "motion" else scene(clip, own=kind != "photo without map", parts_only=kind == "parts only")
    seen = []
    notices = write_preview(clip[1], tmp_path / "p.mp4", EditOptions(), given, on_progress=seen.append)
    info = probe_video(tmp_path / "p.mp4")
    assert (info.num_frames, info.fps, info.width) == (6, 6, panels * 256) and info.height > PANEL_HEIGHT
    assert (NOTICE in notices) == (panels == 3) and (panels != 2 or "cannot be moved" in notices[0])
    assert seen[-1].step == seen[-1].total == 6 and [path.name for path in tmp_path.iterdir()] == ["p.mp4"]
    first = next(iter(read_video(tmp_path / "p.mp4")))
    strip = first[PANEL_HEIGHT:].reshape(first.shape[0] - PANEL_HEIGHT, panels, 256, 3)
    assert all(strip[:, i].max() > 150 for i in range(panels)), "every panel says what it is"
    with pytest.raises(Cancelled):
        write_preview(clip[1], tmp_path / "q.mp4", EditOptions(), given, should_stop=lambda: True)
    assert [path.name for path in tmp_path.iterdir()] == ["p.mp4"]


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_the_look_shows_the_person_and_the_frame(clip, tmp_path, fit):
    rgb, poses = clip
    photo = np.pad(rgb[0], ((0, 0), (60, 0), (0, 0)), mode="edge")
    maps = (np.pad(x[:1], [(0, 0)] * (x.ndim - 1) + [(60, 0)]) for x in (poses.parts, poses.uv))
    own = PoseSequence(*maps, poses.charts)
    assert "frame shows" in write_look(photo, own, SIZE, FrameOptions(fit=fit), tmp_path / "look.png")[0]
    look = read_image(tmp_path / "look.png").astype(int)
    assert look.shape[0] == PANEL_HEIGHT
    edges = (look.min(axis=2) > 200).mean(axis=0) > 0.5  # columns of the frame
    sixth = look.shape[1] // 6
    assert edges.any() and (look[:, :sixth].mean() < look[:, -sixth:].mean() * 0.6) == (fit == "crop")
    assert write_look(photo, None, SIZE, FrameOptions(fit=fit), tmp_path / "look.png")[0] == NO_DENSEPOSE
    empty = PoseSequence(np.zeros((1, *SIZE), np.uint8), None, "none")
    assert write_look(rgb[0], empty, SIZE, FrameOptions(fit=fit), tmp_path / "look.png") == (NO_PERSON,)


def test_the_look_colours_the_person_who_is_used(clip, tmp_path):
    """The smaller one of two keeps the photo's colours."""
    rgb, poses = clip
    halved = poses.parts[:1, ::2, ::2], poses.uv[:1, :, ::2, ::2]
    small = [np.pad(x, [(0, 0)] * (x.ndim - 2) + [(80, 0), (0, 64)]) for x in halved]
    both = PoseSequence(*(np.concatenate(x, -1) for x in zip((poses.parts[:1], poses.uv[:1]), small)), poses.charts)
    photo = np.concatenate([rgb[0], np.pad(rgb[0][::2, ::2], ((80, 0), (0, 64), (0, 0)), mode="edge")], 1)
    said = write_look(photo, both, SIZE, FrameOptions(fit="pad"), tmp_path / "both.png")
    assert said == (COLOURED, "Two people are in the photo: the larger one is used.")
    write_look(photo, None, SIZE, FrameOptions(fit="pad"), tmp_path / "plain.png")
    changed = (read_image(tmp_path / "both.png") != read_image(tmp_path / "plain.png")).any(axis=2)
    assert changed[:, : changed.shape[1] // 2 - 2].any() and not changed[:, changed.shape[1] // 2 + 2 :].any()


def test_the_size_is_the_models_shape_made_small(tmp_path):
    assert preview_size(MINI) == (320, 256) and frame_size(MINI) == (640, 512)
    assert preview_size("owner/name") == (320, 256) and frame_size("owner/name") == (640, 512)
    (tmp_path / "model_index.json").write_text('{"model_config": {"height": 1024, "width": 768}}')
    assert frame_size(tmp_path) == (1024, 768)
    assert preview_size(tmp_path) == (256, 192)


def test_frames_are_numbered_as_they_came_and_holes_are_marked(clip, tmp_path):
    parts = clip[1].parts.copy()
    rows, columns = np.nonzero(parts[4] == 2)
    row = rows[len(rows) // 2]
    column = int(np.median(columns[rows == row]))
    parts[4, row : row + 2, column : column + 2] = 0
    given = PoseSequence(parts, None, "none", clip[1].fps)

    def previewed(**options) -> tuple[tuple[str, ...], list[np.ndarray], list[bool]]:
        """Notices, strips with words, and which of them are marked."""
        said = write_preview(given, tmp_path / "a.mp4", EditOptions(**options))
        strips = [frame[PANEL_HEIGHT:].astype(int) for frame in read_video(tmp_path / "a.mp4")]
        return said, strips, [strip[..., 0].mean() - strip[..., 2].mean() > 60 for strip in strips]

    said, shown, marked = previewed()
    assert said == ("The motion has holes in frame 4, marked in the preview; closing holes fills them.",)
    assert marked == [False] * 4 + [True, False]
    assert abs(shown[0] - shown[1]).max() > 100, "the numbers differ"
    _, turned, marked = previewed(first_frame=3, reverse=True)
    assert marked == [False, True, False]
    assert abs(turned[1] - shown[4]).mean() < 4, "the same frame has the same words"
    assert previewed(fill_holes=True)[0] == previewed(last_frame=4)[0] == ()
