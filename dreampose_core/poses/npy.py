"""Arrays in numpy's .npy form from untrusted bytes, and the original DreamPose's maps in it:
`frame_<n>_densepose.npy`."""

from __future__ import annotations

import json
import math
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from ..errors import InputError
from .gaps import gap_notices, repeat_nearest
from .numbered import Entry, Folder, numbered
from .pictures import kept, reduction_notice
from .sequence import UNCLAMPED, Charts, PoseSequence

FORM = "original DreamPose U, V maps (.npy)"
SIDECAR = "densepose.json"  # says charts and fps beside maps that this program wrote; the original has none
_PIECE = 1 << 20
_FLOATS = ("f2", "f4", "f8")


class Header(NamedTuple):
    """What an .npy file says about its array."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype


def read_header(file: IO[bytes], what: str) -> Header:
    """The header at the start of `file`. Raises InputError for arrays of Python objects, any error at all for damaged
    headers."""
    version = npy.read_magic(file)
    header = Header(*(npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file))
    if header.dtype.hasobject:
        raise InputError(f"{what} holds Python objects, which are never loaded.")
    return header


def read_body(file: IO[bytes], header: Header, num_bytes: int, what: str) -> np.ndarray:
    """The C-ordered array of native byte order behind `header`; num_bytes: what the whole .npy has.

    The size is judged before anything is allocated. Raises InputError, and any error at all for damaged bytes.
    """
    if math.prod(header.shape) * header.dtype.itemsize != num_bytes - file.tell():
        raise InputError(f"{what} says shape {header.shape}, which does not fit the bytes it has.")
    array = np.empty(header.shape, header.dtype, order="F" if header.fortran_order else "C")
    if not fill(array, file):
        raise InputError(f"{what} is cut short.")
    return np.ascontiguousarray(array, header.dtype.newbyteorder("=")).reshape(header.shape)


def fill(array: np.ndarray, file: IO[bytes]) -> bool:
    """Fills `array` in its own memory order from `file`, piece by piece, so that no second copy is ever held; False at
    an early end."""
    flat = array.reshape(-1, order="A").view(np.uint8)
    done = 0
    while done < len(flat):
        piece = file.read(min(_PIECE, len(flat) - done))
        if not piece:
            return False
        flat[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    return True


def read_maps(folder: Folder, entries: list[Entry], default_fps: float) -> tuple[PoseSequence, tuple[str, ...]]:
    """The original's maps as one sequence (parts unknown), and notices. Missing numbers repeat the nearest map. Raises
    InputError."""
    order = numbered(entries, folder.name, "maps")
    charts, fps = _sidecar(folder)
    notices = gap_notices(order.known, "There are no maps for", order.numbers)
    uv, original = None, None
    for slot, entry in zip(order.slots, order.entries):
        map_ = _read_map(folder, entry)
        size = map_.shape[1:]
        if uv is None:
            original, (rows, columns) = size, kept(*size)
            uv = np.zeros((len(order.known), 2, len(rows), len(columns)), np.float32)
            notices += reduction_notice(size)
        elif size != original:
            raise InputError(
                f"{entry.name} in {folder.name} is {size[1]} x {size[0]} pixels, but {order.entries[0].name} is "
                f"{original[1]} x {original[0]}; all maps of a sequence must have one size."
            )
        uv[slot] = map_ if len(rows) == size[0] else map_[:, rows[:, None], columns]
    repeat_nearest(uv, order.known)
    if fps is None:
        fps = default_fps
        if len(uv) > 1:
            notices += (f"No rate is known, {fps:g} fps is assumed.",)
    return PoseSequence(None, uv, charts, fps), notices


def _read_map(folder: Folder, entry: Entry) -> np.ndarray:
    """Float (2, H, W), finite but not clamped."""
    what = f"{entry.name} in {folder.name}" if entry.name != folder.name else entry.name
    try:
        with folder.open(entry) as file:
            header = read_header(file, what)
            if header.dtype.str.lstrip("<|>=") not in _FLOATS:
                raise InputError(f"{what} holds {header.dtype}; the original DreamPose's maps are float64, U and V.")
            if len(header.shape) != 3 or header.shape[0] != 2 or min(header.shape) < 1:
                raise InputError(
                    f"{what} has shape {header.shape}; the original DreamPose's maps are (2, height, width), U and V."
                )
            map_ = read_body(file, header, entry.num_bytes, what)
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds on damaged files
        raise InputError(f"{what} is damaged or no .npy file; please save or upload it again.") from error
    if not np.isfinite(map_).all():
        raise InputError(f"{what} has U, V values that are not finite numbers; please write the maps again.")
    least, most = float(map_.min()), float(map_.max())
    if least < UNCLAMPED[0] or most > UNCLAMPED[1]:
        raise InputError(
            f"{what} has values from {least:g} to {most:g}; the original's U, V lie between 0 and 1, or a little "
            "beyond."
        )
    return map_


def _sidecar(folder: Folder) -> tuple[Charts, float | None]:
    found = [entry for entry in folder.entries if entry.name == SIDECAR]
    if not found:
        return "densepose", None
    try:
        said = json.loads(folder.read(found[0]))
        charts, fps = said["charts"], float(said["fps"])
        if charts not in ("densepose", "mannequin", "body") or not 1 <= fps <= 240:
            raise ValueError
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{SIDECAR} in {folder.name} does not say charts and fps as this program does; mend it or delete it."
        ) from error
    return charts, fps
