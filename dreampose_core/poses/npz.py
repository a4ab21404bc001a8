"""Our pose file: an npz with parts, uv, charts, fps, version and, where they are known, a person's joints; read without
trusting it."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from ..errors import InputError, shown
from ..files import appearing
from .joints import BODY_VERSION, Joints
from .npy import read_body, read_header
from .numbered import bounded_zip
from .sequence import UNCLAMPED, PoseSequence, check_uv_range

VERSION = 2
_READ = (1, 2)  # 1 has no joints
MAX_BYTES = 6 << 30  # 1200 frames of 768 x 768 with U, V, also unclamped ones
_DTYPES = {
    "parts": ("u1",),
    "uv": ("f2", "f4", "f8"),
    "fps": ("f2", "f4", "f8", "i4", "i8"),
    "version": ("i1", "i4", "i8"),
    "body_version": ("i1", "i4", "i8"),
    **dict.fromkeys(("rotations", "joints", "camera", "confidence", "body"), ("f2", "f4", "f8")),
}
_JOINTS = {name: name for name in ("rotations", "camera", "confidence", "body")} | {"positions": "joints"}


def write_poses(poses: PoseSequence, path: str | Path) -> None:
    """Writes `poses` as npz; the file appears whole or not at all. Raises StorageError, and InputError for more than
    can be read again."""
    if sum(array.nbytes for array in (poses.parts, poses.uv) if array is not None) > MAX_BYTES:
        raise InputError(
            f"The motion's {len(poses)} frames of {poses.size[0]} x {poses.size[1]} take more than {MAX_BYTES >> 30} "
            "GiB; take fewer."
        )
    arrays = {"charts": np.array(poses.charts), "fps": np.float64(poses.fps), "version": np.int64(VERSION)}
    if poses.parts is not None:
        arrays["parts"] = poses.parts
    if poses.uv is not None:
        arrays["uv"] = poses.uv
    if poses.joints is not None:
        arrays["body_version"] = np.int64(BODY_VERSION)
        arrays |= {name: getattr(poses.joints, field) for field, name in _JOINTS.items()}
    with appearing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_poses(path: str | Path) -> PoseSequence:
    """The pose sequence in the npz file `path`.

    Raises InputError with one sentence for anything that is not such a file: headers are checked before arrays are
    allocated, object arrays are refused, nothing is unpickled.
    """
    path = Path(path)
    name = shown(path.name)
    if not os.path.isfile(path):
        raise InputError(f"There is no pose file at {shown(str(path))}.")
    try:
        with bounded_zip(path) as archive:
            arrays = {array: _read_member(archive, array) for array in _members(archive)}
    except InputError as error:
        raise InputError(f"{name} is not a usable pose file: {error}") from error
    except Exception as error:  # zipfile and zlib raise many kinds on damaged files
        raise InputError(f"{name} cannot be read as a pose file (.npz); it is damaged or of another kind.") from error
    if "version" not in arrays or "charts" not in arrays or "fps" not in arrays:
        raise InputError(f"{name} is an npz, but not a pose file: it needs version, charts and fps beside parts or uv.")
    if int(arrays["version"]) not in _READ:
        raise InputError(
            f"{name} has pose file version {int(arrays['version'])}; this program reads versions 1 and {VERSION}."
        )
    try:
        uv = arrays.get("uv")
        if uv is not None:
            as_said = uv.dtype == np.float32 and "parts" not in arrays  # the original's maps, kept as they are
            if uv.size:  # before the cast, which would turn large numbers into infinities
                check_uv_range(uv, *(UNCLAMPED if as_said else (0, 1)))
            uv = uv if as_said else uv.astype(np.float16, copy=False)
        return PoseSequence(arrays.get("parts"), uv, str(arrays["charts"]), float(arrays["fps"]), _joints(arrays))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def has_joints(path: str | Path) -> bool:
    """Whether a file written by `write_poses` holds joints, by its table of contents."""
    with zipfile.ZipFile(path) as archive:
        return f"{_JOINTS['rotations']}.npy" in archive.namelist()


def _joints(arrays: dict[str, np.ndarray]) -> Joints | None:
    """Those of the file; None where it has none, or those of another skeleton."""
    if int(arrays.get("body_version", 0)) != BODY_VERSION:
        return None
    missing = [name for name in _JOINTS.values() if name not in arrays]
    if missing:
        raise InputError(f"it has joints, but lacks {', '.join(missing)}.")
    return Joints(**{field: arrays[name].astype(np.float32) for field, name in _JOINTS.items()})


def _members(archive: zipfile.ZipFile) -> list[str]:
    known = {"charts", *_DTYPES}
    infos = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in known]
    if len({info.filename for info in infos}) != len(infos):
        raise InputError("it holds the same array twice.")
    if sum(info.file_size for info in infos) > MAX_BYTES:
        raise InputError(f"its arrays are larger than {MAX_BYTES >> 30} GiB.")
    return [info.filename.removesuffix(".npy") for info in infos]


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"its array {name} is packed in an unusual way.")  # others unpack without bounds
    what = f"its array {name}"
    with archive.open(info) as file:
        header = read_header(file, what)
        if name == "charts":
            if header.dtype.kind != "U" or header.shape != () or header.dtype.itemsize > 256:
                raise InputError("its charts are not a short text.")
        elif header.dtype.str.lstrip("<|>=") not in _DTYPES[name]:
            raise InputError(
                f"{what} is {header.dtype}; expected {' or '.join(str(np.dtype(d)) for d in _DTYPES[name])}."
            )
        if name in ("fps", "version", "body_version") and header.shape != ():
            raise InputError(f"its {name} is not a single number.")
        return read_body(file, header, info.file_size, what)
