"""Coloured DensePose: its palettes, how well parts survive compression, and what is taken for a rendering and what is
not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from corpus import encode_video, share_right
from drawn import made_motion

from dreampose_core.errors import InputError
from dreampose_core.media import read_video
from dreampose_core.poses import PoseSequence, maps, read_any
from dreampose_core.poses.renderings import MAGIC_ANIMATE, PALETTES, PARULA, is_overlay, palette_of, parts_of
from dreampose_core.synthetic.people import Person, draw_people

STYLES = PALETTES[:3]  # MagicAnimate, vid2densepose, parula
each_style = pytest.mark.parametrize("palette", STYLES, ids=[palette.form.split()[0] for palette in STYLES])
PEOPLE = Person.from_seed(10_002), Person.from_seed(10_009)
each_palette = pytest.mark.parametrize("palette", PALETTES, ids=[f"{p.form}{' swapped' * p.swapped}" for p in PALETTES])


@pytest.fixture(scope="module")
def clips() -> tuple[np.ndarray, np.ndarray]:
    """rgb uint8 (T, 640, 512, 3) of two people and parts uint8 (T, 640, 512) of two bodies in quick motion."""
    rgb = [draw_people(person, person.moments("walk", torch.tensor([0.5, 0.6])), (640, 512))[0] for person in PEOPLE]
    parts = [made_motion(name, 8, (640, 512), 10.0).parts[5:7] for name in ("march", "arms")]
    return torch.cat(rgb).numpy(), np.concatenate(parts)


def encoded(path, frames: np.ndarray, crf: int = 18, filters: str = "format=yuv420p"):
    encode_video(path, frames, ["-vf", filters, "-c:v", "libx264", "-crf", str(crf)])
    return path


def compressed(frames: np.ndarray, path, crf: int = 23) -> list[np.ndarray]:
    return list(read_video(encoded(path, frames, crf)))


def test_colours_are_those_of_the_published_maps():
    viridis, blended, parula = (palette.colours for palette in STYLES)
    assert viridis[[0, 1, 12, 24]].tolist() == [[68, 1, 84], [71, 16, 99], [33, 144, 141], [253, 231, 37]]
    assert blended[[0, 1, 12, 24]].tolist() == [[68, 1, 84], [70, 11, 94], [43, 101, 123], [197, 162, 51]]
    assert parula[[0, 1, 12, 24]].tolist() == [[0, 0, 0], [37, 60, 163], [55, 185, 159], [249, 251, 14]]


@each_palette
def test_exact_colours_and_those_off_by_one_are_read_without_a_fault(palette):
    rng = np.random.default_rng(0)
    parts = rng.integers(0, 25, (40, 30)).astype(np.uint8)  # the hardest map: no two neighbours alike
    frame = palette.colours[parts]
    assert np.array_equal(parts_of(frame, palette), parts)
    rounded = (frame.astype(int) + rng.integers(-1, 2, frame.shape)).clip(0, 255).astype(np.uint8)
    assert np.array_equal(parts_of(rounded, palette), parts)


@pytest.mark.parametrize("at_edge", [False, True])
@each_style
def test_nearly_all_parts_survive_ordinary_compression(clips, palette, at_edge, tmp_path):
    """Also of a person at the edge of a wide frame."""
    parts = np.pad(clips[1][:2, 80:560], ((0, 0), (0, 0), (0, 342))) if at_edge else clips[1]
    frames = compressed(palette.colours[parts], tmp_path / "a.mp4")
    assert palette_of(frames)[0] is palette
    read = np.stack([parts_of(frame, palette) for frame in frames])
    assert share_right(parts, read) >= (0.96 if at_edge else 0.97)


def test_thin_false_borders_go_and_thin_true_parts_stay():
    parts = np.zeros((40, 40), np.uint8)
    parts[5:35, 5:20], parts[5:35, 20:35], parts[18:21, 7:13] = 2, 24, 13
    frame = MAGIC_ANIMATE.colours[parts].astype(float)
    # mixes at all borders
    blurred = np.stack([frame[:, :-2], frame[:, 1:-1], frame[:, 2:]]).mean(axis=0).round().astype(np.uint8)
    read = parts_of(blurred, MAGIC_ANIMATE)
    assert set(np.unique(read)) == {0, 2, 13, 24}
    assert (read != parts[:, 1:-1])[:, [0, *range(6, 17), *range(21, 32), -1]].mean() < 0.01


GROUNDS = {"white": (255, 255, 255), "grey": (127, 127, 127), "green": (0, 255, 0), "black": (0, 0, 0)}


@pytest.mark.parametrize("ground, bars", list(zip(GROUNDS, (None, "letterbox", "pillarbox", "all round"))))
@each_style
def test_any_even_background_and_bars_are_read(clips, palette, ground, bars, tmp_path):
    parts = clips[1][::2, ::2, ::2]
    colours = palette.colours.copy()
    colours[0] = GROUNDS[ground]
    frames = colours[parts]
    if bars:
        down, across = 24 * (bars != "pillarbox"), 40 * (bars != "letterbox")
        room = (0, 0), (down, down), (across, across)
        frames = np.stack([np.pad(frames[..., i], room, constant_values=30) for i in range(3)], -1)
        parts = np.pad(parts, room)
    reading = read_any(encoded(tmp_path / "a.mp4", frames))
    assert reading.form == palette.form and share_right(parts, reading.poses.parts) >= 0.94


@pytest.mark.parametrize("tag", ["unknown", "bt709", "bt470bg"])
@pytest.mark.parametrize("matrix", ["bt709", "bt470bg"])
@each_style
def test_the_colour_matrix_is_found_whatever_the_file_says(clips, palette, matrix, tag, tmp_path):
    parts = clips[1][::2, ::2, ::2]
    filters = f"scale=out_color_matrix={matrix},format=yuv420p,setparams=colorspace={tag}"
    reading = read_any(encoded(tmp_path / "a.mp4", palette.colours[parts], 16, filters))
    assert reading.form == palette.form and share_right(parts, reading.poses.parts) >= 0.96


@each_style
def test_a_wrong_range_is_put_right_and_changed_colours_are_refused(clips, palette, tmp_path):
    parts = clips[1][::2, ::2, ::2]
    wrong, changed = (
        encoded(tmp_path / f"{number}.mp4", palette.colours[parts], 16, f"{filters},format=yuv420p")
        for number, filters in enumerate(
            ("scale=out_range=full,setparams=range=limited", "hue=h=8:s=0.85,eq=brightness=0.01")
        )
    )
    assert share_right(parts, read_any(wrong).poses.parts) >= 0.92  # fingers are a pixel or two wide
    with pytest.raises(InputError, match="whose colours were changed|no DensePose that is known"):
        read_any(changed)


@pytest.mark.parametrize("channel", [0, 1], ids=["U", "V"])
@each_style
def test_u_and_v_in_colours_are_refused(palette, channel, tmp_path):
    poses = made_motion("walk", 2, (640, 512), 10)
    rises = np.where(poses.mask, 1 + (poses.uv[:, channel].astype(float) * 23).round().astype(int), 0)
    with pytest.raises(InputError, match="shows U or V in colours"):
        read_any(encoded(tmp_path / "a.mp4", palette.colours[rises]))


def everywhere(frames):
    """An estimator that finds a person all over each frame."""
    return PoseSequence(np.stack([np.ones(frame.shape[:2], np.uint8) for frame in frames]), None, "none")


@pytest.mark.parametrize("size, crf", [((320, 256), 18), ((320, 256), 28), ((240, 192), 23), ((160, 128), 18)])
@pytest.mark.parametrize("seed", (0, 3))
def test_flat_colours_of_other_programs_are_estimated_with_a_notice(seed, size, crf, tmp_path):
    poses = made_motion("walk", 2, size, 10, seed=seed)
    colours = np.random.default_rng(seed).integers(0, 256, (25, 3)).astype(np.uint8)
    reading = read_any(encoded(tmp_path / "a.mp4", colours[poses.parts], crf), everywhere)
    assert "its colours are not known here" in reading.notices[0]


def test_a_clip_of_a_person_has_no_such_notice(clips, tmp_path):
    reading = read_any(encoded(tmp_path / "a.mp4", clips[0][::2]), everywhere)
    assert not any("not known" in notice for notice in reading.notices)


def test_ordinary_pictures_are_no_renderings(clips):
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    walls = [np.full((64, 48, 3), colour, np.uint8) for colour in ((33, 144, 141), (68, 1, 84))]
    grey = np.arange(64, dtype=np.uint8)[:, None, None].repeat(48, 1).repeat(3, 2) * 4
    for frames in (list(clips[0]), [noise], *([wall] for wall in walls), [grey], [np.zeros((1, 1, 3), np.uint8)]):
        assert palette_of(frames) is None and not is_overlay(frames) and maps.order_of(frames) is None


def test_detectron2s_overlay_is_recognised(clips, tmp_path):
    rgb, parts = clips
    colours = np.array([(53, 42, 135), *PARULA.colours[1:]])
    frames = np.where(parts[..., None] > 0, (0.7 * colours[parts] + 0.3 * rgb).astype(np.uint8), rgb)
    for seen in (list(frames), compressed(frames, tmp_path / "a.mp4")):
        assert is_overlay(seen) and palette_of(seen) is None
