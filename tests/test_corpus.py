"""Every file of the corpus, good or hostile: the right arrays or one plain sentence; bent copies of good files; round
trips."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import corpus
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreampose_core.errors import InputError
from dreampose_core.media import probe_video, read_photo
from dreampose_core.poses import PoseSequence, Reading, read_any, write_any
from dreampose_core.poses.renderings import MAGIC_ANIMATE

READERS = {
    "motion": read_any,
    "estimate": lambda path: read_any(path, corpus.estimate),
    "photo": read_photo,
    "video": probe_video,
}
FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[corpus.Case]]:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, corpus.make(folder)


def sentence(error: InputError) -> str:
    """Its text, once it is sure to be one plain sentence."""
    text = str(error)
    assert text.endswith((".", ".npz.")) and "\n" not in text and text.isprintable(), repr(text)
    assert not re.search(r"[.!?] [A-Z]", text), f"more than one sentence: {text}"
    for word in (*"Traceback Error Exception errno NoneType <class .part.".split(), tempfile.gettempdir() + "/tmp"):
        assert word not in text, text
    return text


def everything(folder: Path) -> set[str]:
    return {os.path.join(place, name) for place, folders, files in os.walk(folder) for name in folders + files}


def test_every_file_gives_the_right_arrays_or_one_sentence_and_leaves_nothing_behind(made, tmp_path, monkeypatch):
    folder, cases = made
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before, wrong = everything(folder), []
    for case in cases:
        name = f"{case.path.relative_to(folder)} ({case.reader})"
        try:
            result = READERS[case.reader](case.path)
        except InputError as error:
            text = sentence(error)
            if case.good is not None or case.words not in text:
                wrong.append(f"{name}: should be {'read' if case.good else f'refused: {case.words!r}'}, said: {text}")
            continue
        notices = result.notices if isinstance(result, Reading) else result[1] if case.reader == "photo" else ()
        if case.good is None or not case.good(result) or case.words not in " ".join(notices):
            wrong.append(f"{name}: gave {result.describe() if isinstance(result, Reading) else result}")
        assert all(notice.endswith(".") and notice.isprintable() for notice in notices), notices
    assert not wrong, "\n".join(wrong)
    assert everything(folder) == before and not any(scratch.iterdir())
    assert not [path for path in before | everything(folder) if path.endswith(corpus.RAN)], "a pickle's code was run"


# --- bent copies ------------------------------------------------------------------------------------------------------


GOOD = "a.npz a.zip a.mp4 maps/frame_0_densepose.npy iuv.png iuv.webp viridis.jpg iuv.mkv viridis.gif".split()


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A folder with one small file of every form."""
    folder = tmp_path_factory.mktemp("good")
    parts = np.zeros((2, 24, 16), np.uint8)
    parts[:, 4:20, 4:12] = np.arange(2, 18, dtype=np.uint8)[:, None]
    uv = (np.random.default_rng(0).random((2, 2, 24, 16)) * (parts > 0)[:, None]).astype(np.float16)
    poses = PoseSequence(parts, uv, "body", 25.0)
    for name in ("a.npz", "a.zip", "a.mp4", "maps"):
        write_any(poses, folder / name)
    frames = np.stack([corpus.encode(p, u) for p, u in zip(parts, uv)])
    for name, picture in (
        ("iuv.png", frames[0]),
        ("iuv.webp", frames[0]),
        ("viridis.jpg", MAGIC_ANIMATE.colours[parts[0]]),
    ):
        corpus._save_picture(folder / name, picture, lossless=True)
    for name, codec in (("iuv.mkv", ["-c:v", "ffv1"]), ("viridis.gif", [])):
        corpus.encode_video(folder / name, frames, codec)
    return folder


kinds, places = st.sampled_from(["flip", "cut", "insert", "zero"]), st.floats(0, 1, exclude_max=True)
change = st.tuples(kinds, places, st.integers(1, 255), st.binary(min_size=1, max_size=12))
changes = st.lists(change, min_size=1, max_size=6)


def bend(data: bytes, steps: list[tuple[str, float, int, bytes]]) -> bytes:
    for kind, where, mask, more in steps:
        place = int(where * len(data))
        if kind == "flip" and data:
            data = data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
        elif kind == "cut":
            data = data[:place] if mask > 128 else data[:place] + data[place + mask :]
        elif kind == "insert":
            data = data[:place] + more + data[place:]
        elif kind == "zero":
            data = data[:place] + bytes(min(mask, len(data) - place)) + data[place + mask :]
    return data


@pytest.mark.parametrize("name", GOOD)
def test_bent_files_are_read_or_refused_and_nothing_else(good, tmp_path, name):
    whole, path = (good / name).read_bytes(), tmp_path / Path(name).name
    is_video = path.suffix in (".mp4", ".mkv", ".gif")

    @settings(FEW, max_examples=15 if is_video else 120)
    @given(changes)
    def check(steps):
        path.write_bytes(bend(whole, steps))
        try:
            reading = read_any(path)
        except InputError as error:
            sentence(error)
        else:
            assert isinstance(reading, Reading) and isinstance(reading.poses, PoseSequence) and reading.describe()
        assert list(tmp_path.iterdir()) == [path]

    check()


# --- round trips ------------------------------------------------------------------------------------------------------


@st.composite
def sequences(draw) -> PoseSequence:
    length, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = length, height, width
    parts = rng.integers(0, 25, size).astype(np.uint8) * (rng.random(size) < draw(st.floats(0, 1)))
    uv = (rng.random((length, 2, height, width)) * (parts > 0)[:, None]).astype(np.float16)
    kinds = draw(st.sampled_from(["both", "parts", "uv"]))
    charts = "none" if kinds == "parts" else draw(st.sampled_from(["densepose", "body"]))
    maps = None if kinds == "uv" else parts, None if kinds == "parts" else uv
    return PoseSequence(*maps, charts, draw(st.floats(1, 240)))


@pytest.mark.parametrize("name", ["a.npz", "a.zip", "maps"])
def test_what_is_written_is_read_again(tmp_path, name):
    target = tmp_path / name

    @FEW
    @given(sequences())
    def check(poses):
        try:
            write_any(poses, target)
        except InputError as error:
            assert poses.parts is None if name == "a.zip" else poses.uv is None, error
            return
        back = read_any(target).poses
        assert back.charts == poses.charts and back.fps == poses.fps and len(back) == len(poses)
        if name != "maps":
            assert np.array_equal(back.parts, poses.parts)  # or both are None
        assert (back.uv is None) == (poses.uv is None)
        if back.uv is not None:
            step = corpus.IUV_STEP if name == "a.zip" else 0
            assert np.abs(back.uv.astype(np.float32) - poses.uv.astype(np.float32)).max() <= step
        assert [path.name for path in tmp_path.iterdir()] == [name]
        if target.is_dir():
            shutil.rmtree(target)

    check()
