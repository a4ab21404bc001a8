"""Pose maps as pictures for people: one colour a part, shaded by U and V where they are known; alone or laid over a
photo."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator

import numpy as np

from .sequence import NUM_PARTS, PoseSequence

BACKGROUND = (24, 24, 28)
# Golden-ratio hues keep neighbouring part numbers apart.
_PALETTE = np.array(
    [BACKGROUND]
    + [[round(255 * c) for c in colorsys.hsv_to_rgb((i * 0.618034) % 1, 0.55, 0.95)] for i in range(1, NUM_PARTS + 1)],
    dtype=np.uint8,
)


def render_colours(poses: PoseSequence) -> np.ndarray:
    """uint8 (T, H, W, 3): parts as hues, darker towards low U and V; grey hues for UV-only sequences."""
    out = np.empty((len(poses), *poses.size, 3), np.uint8)
    for frame, (picture, _) in zip(out, _pictures(poses)):
        frame[:] = picture
    return out


def overlay(photo: np.ndarray, poses: PoseSequence, opacity: float = 0.6) -> Iterator[np.ndarray]:
    """Yields each map as uint8 (H, W, 3): the person's colours at `opacity` (0..1) over `photo`, the rest as in the
    photo.

    photo: uint8 (H, W, 3), of the maps' size. Raises ValueError where it is not.
    """
    if photo.dtype != np.uint8 or photo.shape != (*poses.size, 3):
        raise ValueError(f"the photo is {photo.dtype} {photo.shape}; the maps need uint8 {(*poses.size, 3)}")
    return (_mixed(photo, picture, mask, opacity) for picture, mask in _pictures(poses))


def _mixed(photo: np.ndarray, picture: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
    out = photo.copy()
    out[mask] = (picture[mask] * np.float32(opacity) + photo[mask] * np.float32(1 - opacity)).round().astype(np.uint8)
    return out


def _pictures(poses: PoseSequence) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each map as uint8 (H, W, 3), and where the person is, bool (H, W)."""
    for index in range(len(poses)):
        one = poses.select(slice(index, index + 1))
        mask = one.mask[0]
        picture = _PALETTE[one.parts[0] if one.parts is not None else mask.astype(np.uint8) * 2]
        if one.uv is not None:
            shade = 0.55 + 0.45 * one.uv[0][:, mask].astype(np.float32).mean(axis=0)  # (N,)
            picture[mask] = (picture[mask] * shade[:, None]).round().astype(np.uint8)
        yield picture, mask
