"""Pose maps as pictures for people: one colour a part, shaded by U and V where they are known."""

from __future__ import annotations

import colorsys

import numpy as np

from .sequence import NUM_PARTS, PoseSequence

BACKGROUND = (24, 24, 28)
# Golden-ratio hues keep neighbouring part numbers apart.
_PALETTE = np.array(
    [BACKGROUND]
    + [[round(255 * c) for c in colorsys.hsv_to_rgb((i * 0.618034) % 1, 0.55, 0.95)] for i in range(1, NUM_PARTS + 1)],
    dtype=np.float32,
)


def render_colours(poses: PoseSequence) -> np.ndarray:
    """uint8 (T, H, W, 3): parts as hues, darker towards low U and V; grey hues for UV-only sequences."""
    index = poses.parts if poses.parts is not None else poses.mask.astype(np.uint8) * 2
    colours = _PALETTE[index]
    if poses.uv is not None:
        shade = 0.55 + 0.45 * poses.uv.astype(np.float32).mean(axis=1)
        colours = np.where(poses.mask[..., None], colours * shade[..., None], colours)
    return colours.round().astype(np.uint8)
