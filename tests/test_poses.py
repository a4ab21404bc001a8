"""Pose sequences: what they refuse, their file and hostile ones (more in test_corpus.py), windows and pictures."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from dreampose_core import files
from dreampose_core.errors import InputError, StorageError
from dreampose_core.poses import PoseSequence, overlay, read_poses, render_colours, window_indices, write_poses
from dreampose_core.poses.write import BACKGROUND


def arrays(frames=3, height=8, width=6, seed=0):
    """Consistent parts and uv: a block of random parts with U, V on it and nothing around it."""
    rng = np.random.default_rng(seed)
    parts = np.zeros((frames, height, width), np.uint8)
    parts[:, 2:-2, 1:-1] = rng.integers(1, 25, (frames, height - 4, width - 2))
    uv = (rng.random((frames, 2, height, width)) * (parts > 0)[:, None]).astype(np.float16)
    return parts, uv


def sequence(**kwargs) -> PoseSequence:
    return PoseSequence(*arrays(**kwargs), "body", 25.0)


def refusal(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    return text


# --- the sequence -----------------------------------------------------------------------------------------------------


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


PARTS, UV = arrays()
KINDS = {
    "both": sequence(),
    "parts": PoseSequence(PARTS, None, "none", 12.5),
    "uv": PoseSequence(None, UV, "densepose", 24000 / 1001),
}


@pytest.mark.parametrize(
    ("parts", "uv", "charts", "fps", "words"),
    [
        (None, None, "none", 25, "neither parts nor U, V"),
        (PARTS, UV, "smpl", 25, "'smpl'"),
        (PARTS, None, "body", 25, "without U, V are 'body'"),
        (PARTS, UV, "none", 25, "with U, V are 'none'"),
        (PARTS, UV, "body", 0, "0 frames per second"),
        (PARTS, UV, "body", 241, "241 frames per second"),
        (PARTS, UV, "body", float("nan"), "nan frames per second"),
        (PARTS, UV, "body", "25", "25 frames per second"),
        (PARTS.astype(np.int32), UV, "body", 25, "int32"),
        (PARTS[0], UV, "body", 25, "(8, 6)"),
        (PARTS, UV.astype(np.float32), "body", 25, "float32"),
        (PARTS, UV[:, 0], "body", 25, "(3, 8, 6)"),
        (PARTS[:0], UV[:0], "body", 25, "no frames"),
        (PARTS[:, :0], None, "none", 25, "(3, 0, 6)"),
        (PARTS, UV[:, :1], "body", 25, "expected (3, 2, 8, 6)"),
        (PARTS, UV[:2], "body", 25, "expected (3, 2, 8, 6)"),
        (PARTS, UV[..., :5], "body", 25, "expected (3, 2, 8, 6)"),
        (changed(PARTS, (1, 3, 3), 25), UV, "body", 25, "part 25"),
        (PARTS, changed(UV, (1, 0, 3, 3), np.nan), "body", 25, "not finite"),
        (PARTS, changed(UV, (1, 0, 3, 3), np.inf), "body", 25, "not finite"),
        (PARTS, changed(UV, (1, 0, 3, 3), -0.5), "body", 25, "-0.5"),
        (PARTS, changed(UV, (1, 0, 3, 3), 1.5), "body", 25, "1.5"),
    ],
)
def test_what_a_sequence_refuses(parts, uv, charts, fps, words):
    assert words in refusal(lambda: PoseSequence(parts, uv, charts, fps))


def test_length_size_and_mask():
    for poses in KINDS.values():
        assert len(poses) == 3 and poses.size == (8, 6) and (poses.mask == (PARTS > 0)).all()
        assert (poses.mask_of(1) == (PARTS[1] > 0)).all()


def test_selecting_and_clipping():
    poses = sequence(frames=5)
    picked = poses.select([4, 0, 0])
    assert (picked.parts == poses.parts[[4, 0, 0]]).all() and (picked.uv == poses.uv[[4, 0, 0]]).all()
    assert (picked.charts, picked.fps) == ("body", 25.0)
    assert (poses.clip(1, 3).parts == poses.parts[1:3]).all()
    assert len(poses.clip(None, None)) == 5 and len(poses.clip(2, None)) == 3 and len(poses.clip(None, 2)) == 2
    for first, last in ((3, 3), (4, 2), (0, 6), (5, None), (-1, 2), (0, 0)):
        assert "0:5" in refusal(lambda first=first, last=last: poses.clip(first, last))


def test_a_window_is_five_different_maps_in_the_middle_and_clamped_at_the_ends():
    assert all(window_indices(i, 11) == list(range(i - 2, i + 3)) for i in range(2, 9))
    assert window_indices(0, 11) == [0, 0, 0, 1, 2] and window_indices(1, 11) == [0, 0, 1, 2, 3]
    assert window_indices(10, 11) == [8, 9, 10, 10, 10] and window_indices(0, 1) == [0] * 5


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_poses(sequence(), tmp_path / "a.npz")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_poses(sequence(frames=4), tmp_path / "a.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"] and len(read_poses(tmp_path / "a.npz")) == 3


def good(**changes) -> dict[str, np.ndarray]:
    whole = dict(parts=PARTS, uv=UV, charts=np.array("body"), fps=np.float64(25), version=np.int64(1)) | changes
    return {name: array for name, array in whole.items() if array is not None}


def written(tmp_path, **changes):
    np.savez(tmp_path / "a.npz", **good(**changes))
    return tmp_path / "a.npz"


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_number_types_and_memory_orders_are_read_and_unknown_arrays_are_not(tmp_path, dtype, order):
    parts, uv = np.asarray(PARTS, order=order), np.asarray(UV.astype(dtype), order=order)
    notes = np.array([{"a": 1}], dtype=object)
    poses = read_poses(written(tmp_path, parts=parts, uv=uv, fps=np.int64(25), notes=notes))
    assert poses.uv.dtype == np.float16 and (poses.uv == UV).all() and (poses.parts == PARTS).all() and poses.fps == 25


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(({name: None}, "needs version, charts and fps") for name in ("version", "charts", "fps")),
        ({"parts": None, "uv": None, "charts": np.array("none")}, "neither parts nor U, V"),
        ({"uv": UV[:0], "parts": None}, "no frames"),
        ({"uv": changed(UV.astype(np.float64), (0, 0, 3, 3), 1e9)}, "1e+09"),
        ({"uv": changed(UV.astype(np.float64), (0, 0, 3, 3), -np.inf)}, "not finite"),
        ({"uv": UV.astype(np.complex64)}, "complex64"),
        ({"parts": PARTS.astype(float)}, "float64"),
        ({"version": np.int64(9)}, "version 9"),
        ({"charts": np.array({"a": 1}, dtype=object)}, "damaged"),
        ({"charts": np.array("m" * 100)}, "are 'mmm"),
        *(({name: np.array([1, 1])}, "damaged") for name in ("fps", "version")),
    ],
)
def test_wrong_contents_are_refused_by_name(tmp_path, changes, words):
    text = refusal(lambda: read_poses(written(tmp_path, **changes)))
    assert words in text and "a.npz" in text


def zipped(tmp_path, change, **members: bytes):
    """The good file with `members` put in place of its own; `change(ZipFile)` runs before the directory is written."""
    with np.load(written(tmp_path)) as whole:
        contents = {name: whole.zip.read(f"{name}.npy") for name in whole.files} | members
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(f"{name}.npy", data)
        change(archive)
    return tmp_path / "a.npz"


def sized(name: str, num_bytes: int):
    def change(archive: zipfile.ZipFile) -> None:
        archive.getinfo(name).file_size = num_bytes

    return change


def test_sizes_that_lie_are_refused_before_anything_is_read(tmp_path, monkeypatch):
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 10, 1 << 10, 1 << 10)})
    header = header.getvalue()
    lying = zipped(tmp_path, sized("parts.npy", len(header) + (1 << 30)), parts=header + bytes(100))
    assert "damaged" in refusal(lambda: read_poses(lying)), "header and directory lie together"
    large = zipped(tmp_path, sized("parts.npy", 7 << 30))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("read before the size was judged"))
    assert "6 GiB" in refusal(lambda: read_poses(large))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_no_pose_file(tmp_path):
    twice = zipped(tmp_path, lambda archive: archive.writestr("parts.npy", b""))
    assert "twice" in refusal(lambda: read_poses(twice))
    for content in (b"", b"hello", b"PK\x05\x06" + bytes(18), b"\x80\x04\x95."):
        (tmp_path / "a.npz").write_bytes(content)
        assert "a.npz" in refusal(lambda: read_poses(tmp_path / "a.npz"))
    for path in (tmp_path / "nope.npz", tmp_path, tmp_path / ("x" * 300)):
        assert "There is no pose file" in refusal(lambda path=path: read_poses(path))


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poses", KINDS.values(), ids=KINDS)
def test_pictures_show_the_person_and_nothing_else_or_the_photo_behind(poses):
    pictures = render_colours(poses)
    assert pictures.dtype == np.uint8 and pictures.shape == (3, 8, 6, 3)
    assert (pictures[~poses.mask] == BACKGROUND).all()
    assert (pictures[poses.mask].max(axis=-1) > 100).all()
    photo = np.random.default_rng(1).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    before = photo.copy()
    for opacity in (0.0, 0.6, 1.0):
        for frame, colours, mask in zip(overlay(photo, poses, opacity), pictures, poses.mask, strict=True):
            assert (frame[~mask] == photo[~mask]).all()
            wanted = opacity * colours[mask].astype(float) + (1 - opacity) * photo[mask]
            assert frame.dtype == np.uint8 and np.abs(frame[mask] - wanted).max() <= 0.51
    assert (photo == before).all()


def test_every_part_has_its_own_colour_and_low_u_and_v_are_darker():
    parts = np.arange(25, dtype=np.uint8).reshape(1, 5, 5)
    colours = render_colours(PoseSequence(parts, None, "none")).reshape(25, 3).astype(int)
    distances = np.abs(colours[:, None] - colours[None]).max(axis=-1) + 255 * np.eye(25)
    assert distances.min() >= 8, colours.tolist()
    parts = np.full((1, 2, 2), 7, np.uint8)
    uv = np.stack([np.full((2, 2), 0.0), np.array([[0.1, 0.9], [0.1, 0.9]])])[None].astype(np.float16)
    picture = render_colours(PoseSequence(parts, uv, "densepose"))[0].astype(int).sum(axis=-1)
    assert (picture[:, 0] < picture[:, 1]).all()
