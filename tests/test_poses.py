"""Pose sequences: what they refuse, their file and hostile ones, fitting beside photos, windows and pictures."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from dreampose_core import files
from dreampose_core.errors import InputError, StorageError
from dreampose_core.media import fit_image
from dreampose_core.poses import (
    PoseSequence,
    fitted,
    read_image_poses,
    read_poses,
    render_colours,
    window_indices,
    write_poses,
)
from dreampose_core.poses import npy as npy_module
from dreampose_core.poses import npz as npz_module
from dreampose_core.poses.colours import BACKGROUND


def arrays(frames=3, height=8, width=6, seed=0):
    """Consistent parts and uv: a block of random parts with U, V on it and nothing around it."""
    rng = np.random.default_rng(seed)
    parts = np.zeros((frames, height, width), np.uint8)
    parts[:, 2:-2, 1:-1] = rng.integers(1, 25, (frames, height - 4, width - 2))
    uv = (rng.random((frames, 2, height, width)) * (parts > 0)[:, None]).astype(np.float16)
    return parts, uv


def sequence(**kwargs) -> PoseSequence:
    return PoseSequence(*arrays(**kwargs), "mannequin", 25.0)


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


@pytest.mark.parametrize(
    ("parts", "uv", "charts", "fps", "words"),
    [
        (None, None, "none", 25, "neither parts nor U, V"),
        (PARTS, UV, "smpl", 25, "'smpl'"),
        (PARTS, None, "mannequin", 25, "missing"),
        (PARTS, UV, "none", 25, "given"),
        (PARTS, UV, "mannequin", 0, "0 frames per second"),
        (PARTS, UV, "mannequin", 241, "241 frames per second"),
        (PARTS, UV, "mannequin", float("nan"), "nan frames per second"),
        (PARTS, UV, "mannequin", "25", "25 frames per second"),
        (PARTS.astype(np.int32), UV, "mannequin", 25, "int32"),
        (PARTS[0], UV, "mannequin", 25, "(8, 6)"),
        (PARTS, UV.astype(np.float32), "mannequin", 25, "float32"),
        (PARTS, UV[:, 0], "mannequin", 25, "(3, 8, 6)"),
        (PARTS[:0], UV[:0], "mannequin", 25, "no frames"),
        (PARTS[:, :0], None, "none", 25, "(3, 0, 6)"),
        (PARTS, UV[:, :1], "mannequin", 25, "1 channels"),
        (PARTS, UV[:2], "mannequin", 25, "differ"),
        (PARTS, UV[..., :5], "mannequin", 25, "differ"),
        (changed(PARTS, (1, 3, 3), 25), UV, "mannequin", 25, "part 25"),
        (PARTS, changed(UV, (1, 0, 3, 3), np.nan), "mannequin", 25, "not finite"),
        (PARTS, changed(UV, (1, 0, 3, 3), np.inf), "mannequin", 25, "not finite"),
        (PARTS, changed(UV, (1, 0, 3, 3), -0.5), "mannequin", 25, "-0.5"),
        (PARTS, changed(UV, (1, 0, 3, 3), 1.5), "mannequin", 25, "1.5"),
    ],
)
def test_what_a_sequence_refuses(parts, uv, charts, fps, words):
    assert words in refusal(lambda: PoseSequence(parts, uv, charts, fps))


def test_length_size_and_mask():
    poses = sequence()
    assert len(poses) == 3 and poses.size == (8, 6)
    assert (poses.mask == (poses.parts > 0)).all()
    only_uv = PoseSequence(None, poses.uv, "densepose")
    assert len(only_uv) == 3 and only_uv.size == (8, 6) and only_uv.mask.shape == (3, 8, 6)
    assert len(PoseSequence(poses.parts, None, "none")) == 3


def test_selecting_and_clipping():
    poses = sequence(frames=5)
    picked = poses.select([4, 0, 0])
    assert (picked.parts == poses.parts[[4, 0, 0]]).all() and (picked.uv == poses.uv[[4, 0, 0]]).all()
    assert (picked.charts, picked.fps) == ("mannequin", 25.0)
    assert (poses.clip(1, 3).parts == poses.parts[1:3]).all()
    assert len(poses.clip(None, None)) == 5 and len(poses.clip(2, None)) == 3 and len(poses.clip(None, 2)) == 2
    for first, last in ((3, 3), (4, 2), (0, 6), (5, None), (-1, 2), (0, 0)):
        assert "0:5" in refusal(lambda first=first, last=last: poses.clip(first, last))


def test_a_window_is_five_different_maps_in_the_middle_and_clamped_at_the_ends():
    assert window_indices(5, 11) == [3, 4, 5, 6, 7]
    assert all(len(set(window_indices(i, 11))) == 5 for i in range(2, 9))
    assert window_indices(0, 11) == [0, 0, 0, 1, 2]
    assert window_indices(1, 11) == [0, 0, 1, 2, 3]
    assert window_indices(10, 11) == [8, 9, 10, 10, 10]
    assert window_indices(0, 1) == [0] * 5


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "poses",
    [
        sequence(),
        PoseSequence(arrays()[0], None, "none", 12.5),
        PoseSequence(None, arrays()[1], "densepose", 24000 / 1001),
    ],
    ids=["both", "parts", "uv"],
)
def test_round_trip(tmp_path, poses):
    write_poses(poses, tmp_path / "a.npz")
    back = read_poses(tmp_path / "a.npz")
    assert (back.charts, back.fps) == (poses.charts, poses.fps)
    for name in ("parts", "uv"):
        mine, theirs = getattr(poses, name), getattr(back, name)
        assert (mine is None) == (theirs is None)
        assert mine is None or (mine.dtype == theirs.dtype and mine.shape == theirs.shape and (mine == theirs).all())
        assert theirs is None or (theirs.flags.c_contiguous and theirs.flags.writeable)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_poses(sequence(), tmp_path / "a.npz")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_poses(sequence(frames=4), tmp_path / "a.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"] and len(read_poses(tmp_path / "a.npz")) == 3


def good(**changes) -> dict[str, np.ndarray]:
    parts, uv = arrays()
    whole = {
        "parts": parts,
        "uv": uv,
        "charts": np.array("mannequin"),
        "fps": np.float64(25),
        "version": np.int64(1),
    } | changes
    return {name: array for name, array in whole.items() if array is not None}


def written(tmp_path, **changes):
    np.savez(tmp_path / "a.npz", **good(**changes))
    return tmp_path / "a.npz"


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_float_types_and_memory_orders_are_read(tmp_path, dtype, order):
    parts, uv = arrays()
    path = written(tmp_path, parts=np.asarray(parts, order=order), uv=np.asarray(uv.astype(dtype), order=order))
    poses = read_poses(path)
    assert poses.uv.dtype == np.float16 and (poses.uv == uv).all() and (poses.parts == parts).all()


def test_fps_may_be_a_whole_number_and_unknown_arrays_are_not_read(tmp_path):
    assert read_poses(written(tmp_path, fps=np.int64(25), notes=np.array([{"a": 1}], dtype=object))).fps == 25.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": np.int64(3)}, "version 3"),
        ({"version": None}, "needs version"),
        ({"charts": None}, "needs version, charts and fps"),
        ({"fps": None}, "needs version, charts and fps"),
        ({"parts": None, "uv": None, "charts": np.array("none")}, "neither parts nor U, V"),
        ({"parts": PARTS[:0], "uv": UV[:0]}, "no frames"),
        ({"uv": UV[:0], "parts": None}, "no frames"),
        ({"parts": changed(PARTS, (0, 3, 3), 25)}, "part 25"),
        ({"uv": changed(UV, (0, 0, 3, 3), np.nan)}, "not finite"),
        ({"uv": changed(UV.astype(np.float64), (0, 0, 3, 3), 1e9)}, "1e+09"),
        ({"uv": changed(UV.astype(np.float64), (0, 0, 3, 3), -np.inf)}, "not finite"),
        ({"uv": UV.astype(np.complex64)}, "complex64"),
        ({"parts": PARTS.astype(np.int64)}, "int64"),
        ({"parts": PARTS.astype(object)}, "Python objects"),
        ({"charts": np.array({"a": 1}, dtype=object)}, "Python objects"),
        ({"charts": np.array(["mannequin"])}, "not a short text"),
        ({"charts": np.array("m" * 100)}, "not a short text"),
        ({"charts": np.array("smpl")}, "'smpl'"),
        ({"charts": np.array("none")}, "given"),
        ({"fps": np.array([25.0])}, "not a single number"),
        ({"fps": np.float64("nan")}, "nan frames per second"),
        ({"fps": np.array("25")}, "its array fps is <U2"),
        ({"version": np.array([1, 1])}, "not a single number"),
        ({"parts": np.zeros((3, 9, 6), np.uint8)}, "differ"),
    ],
)
def test_wrong_contents_are_refused_by_name(tmp_path, changes, words):
    text = refusal(lambda: read_poses(written(tmp_path, **changes)))
    assert words in text and "a.npz" in text


def test_a_plain_npz_of_something_else(tmp_path):
    np.savez(tmp_path / "a.npz", weights=np.zeros(3))
    assert "not a pose file" in refusal(lambda: read_poses(tmp_path / "a.npz"))


def npy_bytes(shape, dtype: str, data: bytes, fortran_order=False) -> bytes:
    """An .npy file whose header says what we like."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": dtype, "fortran_order": fortran_order, "shape": shape})
    return file.getvalue() + data


def zipped(tmp_path, change=None, **members: bytes):
    """The good file with `members` put in place of its own; `change(ZipFile)` runs before the directory is written."""
    path = tmp_path / "a.npz"
    contents = {}
    for name, array in good().items():
        file = io.BytesIO()
        npy.write_array(file, np.asanyarray(array))
        contents[name] = file.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (contents | members).items():
            archive.writestr(f"{name}.npy", data)
        if change is not None:
            change(archive)
    return path


def test_the_hand_made_file_is_good(tmp_path):
    assert len(read_poses(zipped(tmp_path))) == 3


@pytest.mark.parametrize(
    "shape", [(3, 8, 7), (3, 8, 5), (100000, 100000, 1000), (-3, 8, 6), (2**40, 2**40, 2**40), (0, 8, 6), ()]
)
def test_headers_that_lie_about_the_shape(tmp_path, shape):
    text = refusal(lambda: read_poses(zipped(tmp_path, parts=npy_bytes(shape, "|u1", bytes(3 * 8 * 6)))))
    assert f"says shape {shape}, which does not fit the bytes it has" in text


def test_a_header_whose_wrong_sides_multiply_to_the_right_number(tmp_path):
    assert "damaged" in refusal(
        lambda: read_poses(zipped(tmp_path, parts=npy_bytes((-3, -8, 6), "|u1", bytes(3 * 8 * 6))))
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff{}",
        b"not numpy at all",
        npy_bytes((3, 8, 6), "|u1", bytes(10)),
        npy_bytes((3, 8, 6), "|O", bytes(3 * 8 * 6 * 8)),
        npy_bytes((3, 8, 6), "|V1", bytes(3 * 8 * 6)),
        b"\x93NUMPY\x01\x00\x40\x00" + b"{'descr': '|u1', 'shape': (__import__('os').getpid(),)}".ljust(64),
    ],
)
def test_arrays_that_are_none(tmp_path, data):
    assert "a.npz" in refusal(lambda: read_poses(zipped(tmp_path, parts=data)))


def test_a_size_that_would_fill_the_memory_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    def claim(archive):
        archive.getinfo("parts.npy").file_size = 7 << 30

    def never(*_):
        raise AssertionError("read before the size was judged")

    path = zipped(tmp_path, claim)
    monkeypatch.setattr(npz_module, "_read_member", never)
    assert "6 GiB" in refusal(lambda: read_poses(path))


def test_a_header_and_a_directory_that_lie_together_take_no_memory(tmp_path, monkeypatch):
    taken = []
    fill = npy_module.fill
    monkeypatch.setattr(npy_module, "fill", lambda array, file: taken.append(fill(array, file)) or taken[-1])
    header = npy_bytes((1 << 10, 1 << 10, 1 << 10), "|u1", b"")

    def claim(archive):
        archive.getinfo("parts.npy").file_size = len(header) + (1 << 30)

    path = zipped(tmp_path, claim, parts=header + bytes(100))
    refusal(lambda: read_poses(path))
    assert taken in ([False], [])  # cut short is noticed, or the zip's own check comes first; nothing is filled


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x80\x04\x95."])
def test_what_is_no_archive(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    assert "a.npz" in refusal(lambda: read_poses(tmp_path / "a.npz"))


def test_truncated_and_bent_archives(tmp_path):
    write_poses(sequence(frames=20, height=40, width=30), tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    for share in (0.2, 0.5, 0.9, 0.99):
        (tmp_path / "a.npz").write_bytes(whole[: int(len(whole) * share)])
        assert "damaged or of another kind" in refusal(lambda: read_poses(tmp_path / "a.npz"))
    bent = bytearray(whole)
    bent[len(bent) // 2] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(bent)
    assert "damaged or of another kind" in refusal(lambda: read_poses(tmp_path / "a.npz"))


def test_the_same_array_twice(tmp_path):
    def again(archive):
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("parts.npy", b"")

    assert "twice" in refusal(lambda: read_poses(zipped(tmp_path, again)))


def test_no_such_file(tmp_path):
    for path in (tmp_path / "nope.npz", tmp_path, tmp_path / ("x" * 300)):
        assert "There is no pose file" in refusal(lambda path=path: read_poses(path))


def test_the_map_of_a_photo(tmp_path):
    poses = sequence()
    write_poses(poses, tmp_path / "a.npz")
    path = tmp_path / "a.npz"
    assert (read_image_poses(path).parts == poses.parts[:1]).all()
    assert (read_image_poses(f"{path}:2").parts == poses.parts[2:]).all()
    assert "0:3" in refusal(lambda: read_image_poses(f"{path}:3"))
    assert "There is no file or folder" in refusal(lambda: read_image_poses(f"{path}:x"))
    write_poses(poses.select([1]), tmp_path / "b.npz:2")  # a file that is really called so
    assert (read_image_poses(tmp_path / "b.npz:2").parts == poses.parts[1:2]).all()


# --- fitting ----------------------------------------------------------------------------------------------------------


def person(height, width) -> tuple[np.ndarray, PoseSequence]:
    """A photo that is white exactly where parts > 0: a leaning cross with no symmetry, so that shifts and flips
    show."""
    y, x = np.mgrid[0:height, 0:width]
    y, x = (y + 0.5) / height, (x + 0.5) / width
    body = (abs(x - 0.35 - 0.1 * y) < 0.12) & (0.1 < y) & (y < 0.9)
    arms = (abs(y - 0.35) < 0.08) & (0.15 < x) & (x < 0.9)
    parts = (body | arms).astype(np.uint8) * 2
    parts[arms & ~body] = 15
    photo = np.where(parts[..., None] > 0, 255, 0).astype(np.uint8).repeat(3, axis=-1)
    uv = np.stack([x * (parts > 0), y * (parts > 0)]).astype(np.float16)
    return photo, PoseSequence(parts[None], uv[None], "mannequin")


def grown(mask: np.ndarray) -> np.ndarray:
    """`mask` and all that touches it."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.any([padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)], axis=0)


@pytest.mark.parametrize("source", [(160, 128), (101, 333), (333, 101), (64, 64), (47, 30), (640, 512), (1000, 777)])
@pytest.mark.parametrize("size", [(160, 128), (128, 160), (97, 61), (320, 256)])
def test_photo_and_map_stay_aligned(source, size):
    photo, poses = person(*source)
    small = fitted(poses, size)
    assert small.size == size and small.parts.shape == (1, *size) and small.uv.shape == (1, 2, *size)
    white = fit_image(photo, size)[..., 0] > 127
    inside = small.parts[0] > 0
    # They may differ by one pixel along the outline, where a pixel is half person, and nowhere else.
    assert not (white & ~grown(inside)).any() and not (inside & ~grown(white)).any()
    assert 0 < inside.mean() < 0.6


@pytest.mark.parametrize("source", [(101, 333), (333, 101), (640, 512), (47, 30)])
def test_maps_are_never_squashed_and_labels_never_mixed(source):
    size = (160, 128)
    _, poses = person(*source)
    small = fitted(poses, size)
    scale = min(size[0] / source[0], size[1] / source[1])
    rows, columns = np.nonzero(small.parts[0])
    source_rows, source_columns = np.nonzero(poses.parts[0])
    assert abs(np.ptp(rows) + 1 - scale * (np.ptp(source_rows) + 1)) <= 2
    assert abs(np.ptp(columns) + 1 - scale * (np.ptp(source_columns) + 1)) <= 2
    assert set(np.unique(small.parts)) == {0, 2, 15}
    assert set(np.unique(small.uv)) <= set(np.unique(poses.uv))
    assert not small.uv[0, :, small.parts[0] == 0].any()
    assert (small.charts, small.fps) == (poses.charts, poses.fps)


def test_fitting_to_the_same_size_changes_nothing():
    poses = sequence()
    assert fitted(poses, (8, 6)) is poses


def test_fitting_sequences_that_hold_only_one_kind():
    parts, uv = arrays()
    assert fitted(PoseSequence(parts, None, "none"), (16, 16)).uv is None
    assert fitted(PoseSequence(None, uv, "densepose"), (16, 16)).uv.shape == (3, 2, 16, 16)


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "poses",
    [sequence(), PoseSequence(arrays()[0], None, "none"), PoseSequence(None, arrays()[1], "densepose")],
    ids=["both", "parts", "uv"],
)
def test_pictures_show_the_person_and_nothing_else(poses):
    pictures = render_colours(poses)
    assert pictures.dtype == np.uint8 and pictures.shape == (3, 8, 6, 3)
    assert (pictures[~poses.mask] == BACKGROUND).all()
    assert (pictures[poses.mask].max(axis=-1) > 100).all()


def test_every_part_has_its_own_colour():
    parts = np.arange(25, dtype=np.uint8).reshape(1, 5, 5)
    colours = render_colours(PoseSequence(parts, None, "none")).reshape(25, 3).astype(int)
    distances = np.abs(colours[:, None] - colours[None]).max(axis=-1) + 255 * np.eye(25)
    assert distances.min() >= 8, json.dumps(colours.tolist())
