"""Our pose file: an npz with parts, uv, charts, fps and version, read without trusting it."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from ..errors import InputError
from ..files import appearing
from .sequence import PoseSequence, check_uv_range

VERSION = 1
MAX_BYTES = 2 << 30  # 1200 frames of 640 x 512 with U, V
_PIECE = 1 << 20
_DTYPES = {"parts": ("u1",), "uv": ("f2", "f4", "f8"), "fps": ("f2", "f4", "f8", "i4", "i8"), "version": ("i1", "i4", "i8")}


def write_poses(poses: PoseSequence, path: str | Path) -> None:
    """Writes `poses` as npz; the file appears whole or not at all. Raises StorageError."""
    arrays = {"charts": np.array(poses.charts), "fps": np.float64(poses.fps), "version": np.int64(VERSION)}
    if poses.parts is not None:
        arrays["parts"] = poses.parts
    if poses.uv is not None:
        arrays["uv"] = poses.uv
    with appearing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_poses(path: str | Path) -> PoseSequence:
    """The pose sequence in the npz file `path`.

    Raises InputError with one sentence for anything that is not such a file: headers are checked before arrays are
    allocated, object arrays are refused, nothing is unpickled.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"There is no pose file at {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name: _read_member(archive, name) for name in _members(archive)}
    except InputError as error:
        raise InputError(f"{path.name} is not a usable pose file: {error}") from error
    except Exception as error:  # zipfile and zlib raise many kinds on damaged files
        raise InputError(f"{path.name} cannot be read as a pose file (.npz); it is damaged or of another kind.") from error
    if "version" not in arrays or "charts" not in arrays or "fps" not in arrays:
        raise InputError(f"{path.name} is an npz, but not a pose file: it needs version, charts and fps beside parts or uv.")
    if int(arrays["version"]) != VERSION:
        raise InputError(f"{path.name} has pose file version {int(arrays['version'])}; this program reads version {VERSION}.")
    try:
        uv = arrays.get("uv")
        if uv is not None:
            if uv.size:
                check_uv_range(uv)  # before the cast, which would turn large numbers into infinities
            uv = uv.astype(np.float16)
        return PoseSequence(arrays.get("parts"), uv, str(arrays["charts"]), float(arrays["fps"]))
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error


def read_image_poses(spec: str | Path) -> PoseSequence:
    """The one map that belongs to a photo: `FILE` takes the file's first map, `FILE:K` its map K."""
    text, frame = str(spec), 0
    head, colon, tail = text.rpartition(":")
    if colon and tail.isdigit() and not Path(text).exists():
        text, frame = head, int(tail)
    return read_poses(text).clip(frame, frame + 1)


def _members(archive: zipfile.ZipFile) -> list[str]:
    known = {"parts", "uv", "charts", "fps", "version"}
    infos = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in known]
    if len({info.filename for info in infos}) != len(infos):
        raise InputError("it holds the same array twice.")
    if sum(info.file_size for info in infos) > MAX_BYTES:
        raise InputError(f"its arrays are larger than {MAX_BYTES >> 30} GiB.")
    return [info.filename.removesuffix(".npy") for info in infos]


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read_header(file)
        if dtype.hasobject:
            raise InputError(f"its array {name} holds Python objects, which are never loaded.")
        if name == "charts":
            if dtype.kind != "U" or shape != () or dtype.itemsize > 256:
                raise InputError("its charts are not a short text.")
        elif dtype.str.lstrip("<|>=") not in _DTYPES[name]:
            raise InputError(f"its array {name} is {dtype}; expected {' or '.join(str(np.dtype(d)) for d in _DTYPES[name])}.")
        if name in ("fps", "version") and shape != ():
            raise InputError(f"its {name} is not a single number.")
        expected = math.prod(shape) * dtype.itemsize
        if expected != info.file_size - file.tell():
            raise InputError(f"its array {name} says shape {shape}, which does not fit the bytes it has.")
        array = np.empty(shape, dtype, order="F" if fortran_order else "C")
        if not _fill(array, file):
            raise InputError(f"its array {name} is cut short.")
    return np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(shape)


def _fill(array: np.ndarray, file: IO[bytes]) -> bool:
    """Fills `array` in its own memory order from `file`, piece by piece, so that no second copy is ever held; False at an early end."""
    flat = array.reshape(-1, order="A").view(np.uint8)
    done = 0
    while done < len(flat):
        piece = file.read(min(_PIECE, len(flat) - done))
        if not piece:
            return False
        flat[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    return True
