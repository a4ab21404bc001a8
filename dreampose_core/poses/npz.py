"""Read and write the pose file: an npz with parts, uv, charts, fps, version and, where known, a person's joints.

Reading untrusted files is safe.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np

from ..errors import InputError, shown
from ..files import appearing
from .numbered import Folder, refusing
from .sequence import BODY_VERSION, UNCLAMPED, Joints, PoseSequence, check_uv_range

VERSION = 2  # files of version 1 have no joints
MAX_BYTES = 6 << 30  # enough for 1200 frames of 768 x 768 with U, V, also with unclamped ones
_JOINTS = {name: name for name in ("rotations", "camera", "confidence", "body")} | {"positions": "joints"}
_IN_TURN = threading.Lock()  # numpy reads headers with ast, which threads must not share (Python 3.11, gh-106905)
_ARRAYS = ("parts", "uv", "charts", "fps", "version", "body_version", *_JOINTS.values())


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

    Raises InputError with one sentence for any other file: sizes are checked before arrays are read, object arrays are
    refused, nothing is unpickled.
    """
    path = Path(path)
    name = shown(path.name)
    if not os.path.isfile(path):
        raise InputError(f"There is no pose file at {shown(str(path))}.")
    with Folder(path) as folder:  # checks the directory of the zip
        if sum(entry.num_bytes for entry in folder.entries) > MAX_BYTES:
            raise InputError(f"{name} holds arrays of more than {MAX_BYTES >> 30} GiB.")
    damaged = f"{name} cannot be read as a pose file (.npz); it is damaged or of another kind."
    with refusing(damaged, f"{name}: "):
        with _IN_TURN, np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in _ARRAYS if key in file}
        if not {"version", "charts", "fps"} <= arrays.keys():
            raise InputError("it is no pose file, which needs version, charts and fps as well as parts or uv.")
        if arrays["version"].item() not in (1, VERSION):
            raise InputError(f"it has pose file version {arrays['version']}; versions 1 and {VERSION} are read.")
        uv = arrays.get("uv")
        if uv is not None and uv.dtype.kind == "f":
            # the original's maps stay float32 and unclamped
            is_original = uv.dtype.itemsize == 4 and "parts" not in arrays
            if uv.size:  # check before the cast, which would turn large numbers into infinities
                check_uv_range(uv, *(UNCLAMPED if is_original else (0, 1)))
            uv = uv.astype(np.float32 if is_original else np.float16, copy=False)
        charts, fps = shown(str(arrays["charts"])), float(arrays["fps"].item())
        return PoseSequence(arrays.get("parts"), uv, charts, fps, _joints(arrays))


def _joints(arrays: dict[str, np.ndarray]) -> Joints | None:
    """The joints in the file; None when it has none, or those of another version of the skeleton."""
    if "body_version" not in arrays or arrays["body_version"].item() != BODY_VERSION:
        return None
    if missing := _JOINTS.keys() - {field for field, name in _JOINTS.items() if name in arrays}:
        raise InputError(f"it has joints, but lacks {', '.join(sorted(missing))}.")
    return Joints(**{field: arrays[name].astype(np.float32) for field, name in _JOINTS.items()})
