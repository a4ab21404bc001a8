"""IUV pictures: part number, U x 255 and V x 255 in the three channels; recognised, read and written without loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .sequence import NUM_PARTS

FORM_IMAGES, FORM_VIDEO = "IUV images", "IUV video"
RGB, BGR, LOSSY = "RGB", "BGR", "lossy"
_FEWEST_PARTS = 3


def order_of(frames: Sequence[np.ndarray]) -> str | None:
    """RGB or BGR, the order in which `frames`, uint8 (H, W, 3) each, hold I, U, V; LOSSY; None when they are something
    else."""
    seen = [frame for frame in frames if frame.any()]
    for order in (RGB, BGR):
        if seen and all(is_exact(frame, order) for frame in seen) and any(frame.max() > NUM_PARTS for frame in seen):
            channel = 0 if order == RGB else 2
            # a dark picture of something on black has few such numbers; a person, even a part of one, has several parts
            if len({part for frame in seen for part in np.unique(frame[..., channel])} - {0}) >= _FEWEST_PARTS:
                return order
    return LOSSY if seen and all(_is_blurred(frame) or _is_blurred(frame[..., ::-1]) for frame in seen) else None


def is_exact(frame: np.ndarray, order: str) -> bool:
    """Whether `frame` can be IUV that no compression has touched: parts 0..24, and nothing but 0 outside the person."""
    frame = frame if order == RGB else frame[..., ::-1]
    return bool(frame[..., 0].max() <= NUM_PARTS and not frame[..., 1:][frame[..., 0] == 0].any())


def decode(frame: np.ndarray, order: str) -> tuple[np.ndarray, np.ndarray]:
    """parts uint8 (H, W) and uv float16 (2, H, W) of an exact frame."""
    frame = frame if order == RGB else frame[..., ::-1]
    return frame[..., 0], (frame[..., 1:].astype(np.float32) / 255).astype(np.float16).transpose(2, 0, 1)


def encode(parts: np.ndarray, uv: np.ndarray | None) -> np.ndarray:
    """uint8 (H, W, 3): I, U x 255, V x 255, rounded; 0 for unknown U, V and outside the person."""
    frame = np.zeros((*parts.shape, 3), np.uint8)
    frame[..., 0] = parts
    if uv is not None:
        frame[..., 1:] = (uv.astype(np.float32) * 255).round().transpose(1, 2, 0) * (parts > 0)[..., None]
    return frame


def _is_blurred(frame: np.ndarray) -> bool:
    """Whether `frame` looks like IUV after compression with loss: black around a figure that is bright in U and V, but
    dark in I."""
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
