"""Recognise, read and write lossless pose maps of other programs: IUV pictures and the original DreamPose's .npy files.

IUV pictures hold part, U x 255 and V x 255 in their three channels; the .npy files hold U, V.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from .numbered import Entry, Folder, refusing
from .sequence import NUM_PARTS, UNCLAMPED, Charts

_EMPTY = 0.02  # share of a map scaled to -1..1 that is background, at least
FORM_IMAGES, FORM_VIDEO, FORM_ORIGINAL = "IUV images", "IUV video", "original DreamPose U, V maps (.npy)"
SIDECAR = "densepose.json"  # holds charts and fps of .npy maps that this program wrote; the original has no such file
RGB, BGR, LOSSY = "RGB", "BGR", "lossy"
_FEWEST_PARTS = 3


def order_of(frames: Sequence[np.ndarray]) -> str | None:
    """Find the order in which `frames`, uint8 (H, W, 3) each, hold I, U, V: RGB or BGR.

    LOSSY when they look like IUV after lossy compression; None when they are something else.
    """
    seen = [frame for frame in frames if frame.any()]
    for order, step in ((RGB, 1), (BGR, -1)):
        turned = [frame[..., ::step] for frame in seen]
        if seen and all(map(is_exact, turned)) and any(frame.max() > NUM_PARTS for frame in seen):
            # A dark picture on black has few different values in this channel; even a part of a person has several.
            if len({part for frame in turned for part in np.unique(frame[..., 0])} - {0}) >= _FEWEST_PARTS:
                return order
    return LOSSY if seen and all(_is_blurred(frame) or _is_blurred(frame[..., ::-1]) for frame in seen) else None


def is_exact(frame: np.ndarray) -> bool:
    """Whether `frame` can be IUV without lossy compression: parts 0..24, and only 0 outside the person."""
    return bool(frame[..., 0].max() <= NUM_PARTS and not frame[..., 1:][frame[..., 0] == 0].any())


def decode(frame: np.ndarray) -> dict[str, np.ndarray]:
    """Decode an exact frame to parts, uint8 (H, W), and uv, float16 (2, H, W)."""
    uv = (frame[..., 1:].astype(np.float32) / 255).astype(np.float16).transpose(2, 0, 1)
    return {"parts": frame[..., 0], "uv": uv}


def encode(parts: np.ndarray, uv: np.ndarray | None) -> np.ndarray:
    """Encode a map as uint8 (H, W, 3): I, U x 255, V x 255, rounded; 0 for unknown U, V and outside the person."""
    frame = np.zeros((*parts.shape, 3), np.uint8)
    frame[..., 0] = parts
    if uv is not None:
        frame[..., 1:] = (uv.astype(np.float32) * 255).round().transpose(1, 2, 0) * (parts > 0)[..., None]
    return frame


def _is_blurred(frame: np.ndarray) -> bool:
    """Whether `frame` looks like IUV after lossy compression: on black, a figure bright in U and V, but dark in I."""
    first, rest = frame[..., 0], frame[..., 1:]
    brightest = rest.max(axis=-1)
    figure, ground = brightest > 48, brightest <= 16
    if figure.mean() < 0.002 or ground.mean() < 0.05 or (figure | ground).mean() < 0.8:
        return False
    u, v = np.percentile(rest[figure], (10, 90), axis=0).T
    dark = first[figure]
    return bool(
        np.median(first[ground]) <= 6
        and np.median(dark) <= 36
        and np.percentile(dark, 85) <= 80
        and min(u[1] - u[0], v[1] - v[0]) > 50
    )


def read_original(folder: Folder, entry: Entry) -> np.ndarray:
    """Read one of the original DreamPose's maps: float (H, W, 2), finite, but not clamped; one that lies in -1..1 is
    brought to 0..1. Raises InputError."""
    what = folder.where(entry)
    with refusing(f"{what} is damaged or no .npy file of numbers; please save or upload it again."):
        uv = np.load(io.BytesIO(folder.read(entry)), allow_pickle=False)
        if uv.dtype.kind != "f":
            raise InputError(f"{what} holds {uv.dtype}; the original DreamPose's maps are float64, U and V.")
        if uv.ndim != 3 or len(uv) != 2 or not uv.size:
            raise InputError(f"{what} has shape {uv.shape}; the original's maps are (2, height, width), U and V.")
    if not np.isfinite(uv).all():
        raise InputError(f"{what} has U, V values that are not finite numbers; please write the maps again.")
    least, most = float(uv.min()), float(uv.max())
    if least < UNCLAMPED[0] or most > UNCLAMPED[1]:
        raise InputError(f"{what} has values from {least:g} to {most:g}; U, V lie between 0 and 1, or a little beyond.")
    # scaled to -1..1, as a network's input: the background is -1 in both
    if most <= 1 and (uv == -1).all(0).mean() > _EMPTY:
        uv = (uv + 1) / 2
    return uv.transpose(1, 2, 0)


def read_sidecar(folder: Folder) -> tuple[Charts, float | None]:
    """Read charts and fps from the sidecar of maps that this program wrote; without a sidecar "densepose" and None.

    Raises InputError.
    """
    found = [entry for entry in folder.entries if entry.name == SIDECAR]
    if not found:
        return "densepose", None
    try:
        sidecar = json.loads(folder.read(found[0]))
        charts, fps = sidecar["charts"], float(sidecar["fps"])
        if charts not in ("densepose", "body") or not 1 <= fps <= 240:
            raise ValueError
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{SIDECAR} in {folder.name} does not hold charts and fps; mend it or delete it.") from error
    return charts, fps
