"""Read and write the pose file: an npz with parts, uv, charts, fps, version and, where known, a person's joints.

Reading untrusted files is safe.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from ..errors import InputError, shown
from ..files import appearing
from .maps import FLOATS, read_array
from .numbered import bounded_zip, refusing
from .sequence import BODY_VERSION, UNCLAMPED, Joints, PoseSequence, check_uv_range

VERSION = 2  # files of version 1 have no joints
MAX_BYTES = 6 << 30  # enough for 1200 frames of 768 x 768 with U, V, also with unclamped ones
_DTYPES = {
    "parts": ("u1",),
    "uv": FLOATS,
    "fps": (*FLOATS, "i4", "i8"),
    "version": ("i1", "i4", "i8"),
    "body_version": ("i1", "i4", "i8"),
    **dict.fromkeys(("rotations", "joints", "camera", "confidence", "body"), FLOATS),
}
_JOINTS = {name: name for name in ("rotations", "camera", "confidence", "body")} | {"positions": "joints"}


def write_poses(poses: PoseSequence, path: str | Path) -> None:
    """Write `poses` as npz; the file appears complete or not at all.

    Raises StorageError, and InputError for more data than `read_poses` accepts.
    """
    if sum(array.nbytes for array in poses.maps.values()) > MAX_BYTES:
        size = f"{poses.size[0]} x {poses.size[1]}"
        raise InputError(f"{len(poses)} frames of {size} take more than {MAX_BYTES >> 30} GiB; take fewer.")
    arrays = {
        "charts": np.array(poses.charts),
        "fps": np.float64(poses.fps),
        "version": np.int64(VERSION),
        **poses.maps,
    }
    if poses.joints is not None:
        arrays["body_version"] = np.int64(BODY_VERSION)
        arrays |= {name: getattr(poses.joints, field) for field, name in _JOINTS.items()}
    with appearing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_poses(path: str | Path) -> PoseSequence:
    """Read the pose file (npz) at `path`.

    Raises InputError with one sentence for any other file: headers are checked before arrays are allocated, object
    arrays are refused, nothing is unpickled.
    """
    path = Path(path)
    name = shown(path.name)
    if not os.path.isfile(path):
        raise InputError(f"There is no pose file at {shown(str(path))}.")
    damaged = f"{name} cannot be read as a pose file (.npz); it is damaged or of another kind."
    with refusing(damaged, f"{name} is not a usable pose file: "), bounded_zip(path) as archive:
        infos = _members(archive)
        arrays = {info.filename.removesuffix(".npy"): _read_member(archive, info) for info in infos}
    if "version" not in arrays or "charts" not in arrays or "fps" not in arrays:
        raise InputError(
            f"{name} is an npz, but not a pose file: it needs version, charts and fps as well as parts or uv."
        )
    if int(arrays["version"]) not in (1, VERSION):
        raise InputError(f"{name} has pose file version {arrays['version']}; versions 1 and {VERSION} are read.")
    with refusing(damaged, f"{name}: "):
        uv = arrays.get("uv")
        if uv is not None:
            is_original = uv.dtype == np.float32 and "parts" not in arrays  # stays float32 and unclamped
            if uv.size:  # check before the cast, which would turn large numbers into infinities
                check_uv_range(uv, *(UNCLAMPED if is_original else (0, 1)))
            uv = uv if is_original else uv.astype(np.float16, copy=False)
        return PoseSequence(arrays.get("parts"), uv, str(arrays["charts"]), float(arrays["fps"]), _joints(arrays))


def _joints(arrays: dict[str, np.ndarray]) -> Joints | None:
    """The joints in the file; None when it has none, or those of another version of the skeleton."""
    if int(arrays.get("body_version", 0)) != BODY_VERSION:
        return None
    missing = [name for name in _JOINTS.values() if name not in arrays]
    if missing:
        raise InputError(f"it has joints, but lacks {', '.join(missing)}.")
    return Joints(**{field: arrays[name].astype(np.float32) for field, name in _JOINTS.items()})


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    known = {f"{name}.npy" for name in ("charts", *_DTYPES)}
    infos = [info for info in archive.infolist() if info.filename in known]
    if len({info.filename for info in infos}) != len(infos):
        raise InputError("it holds the same array twice.")
    if sum(info.file_size for info in infos) > MAX_BYTES:
        raise InputError(f"its arrays are larger than {MAX_BYTES >> 30} GiB.")
    return infos


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    name = info.filename.removesuffix(".npy")
    what = f"its array {name}"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # other methods could unpack to any size
        raise InputError(f"{what} is packed in an unusual way.")

    def check(shape: tuple[int, ...], dtype: np.dtype) -> None:
        if name == "charts":
            if dtype.kind != "U" or shape != () or dtype.itemsize > 256:
                raise InputError("its charts are not a short text.")
        elif dtype.str.lstrip("<|>=") not in _DTYPES[name]:
            raise InputError(f"{what} is {dtype}; expected {' or '.join(str(np.dtype(d)) for d in _DTYPES[name])}.")
        if name in ("fps", "version", "body_version") and shape != ():
            raise InputError(f"its {name} is not a single number.")

    with archive.open(info) as file:
        return read_array(file, info.file_size, what, check)
