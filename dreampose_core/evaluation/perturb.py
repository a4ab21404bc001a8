"""Perturbations of the photo's pose map like an estimator's errors, to measure how robust a model is to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from ..poses import PoseSequence

DISTURBED = ("displaced_1", "displaced_2", "uv_noise", "holes", "parts_only", "absent")
UV_NOISE = 0.05  # standard deviation; U and V are 0..1
HOLES, HOLE = 6, 0.08  # number of missing squares, and their side as a share of the picture's height
_BLOCK = 0.05  # share of the picture's height over which U, V noise is alike, since an estimator's errors are smooth


def disturbances(image_poses: PoseSequence, seed: int) -> dict[str, PoseSequence | None]:
    """Perturb a photo's pose map (one frame) in every way; returns the results by the names in DISTURBED.

    displaced_1, displaced_2: moved by 1 and 2 % of the height, up, down, left or right. uv_noise: smooth noise on U and
    V. holes: squares of the person missing. parts_only: without U, V. absent: None. Perturbations that need parts or
    U, V are left out where these are missing. `seed` determines all randomness.
    """
    random = np.random.default_rng(seed)
    axis, sign = int(random.integers(2)), int(random.choice((-1, 1)))
    made: dict[str, PoseSequence | None] = {}
    for percent in (1, 2):
        pixels = max(1, round(percent / 100 * image_poses.size[0]))
        made[f"displaced_{percent}"] = displaced(image_poses, axis, sign * pixels)
    if image_poses.uv is not None:
        made["uv_noise"] = with_uv_noise(image_poses, random)
    made["holes"] = with_holes(image_poses, random)
    if image_poses.parts is not None:
        made["parts_only"] = replace(image_poses, uv=None, charts="none")
    return {**made, "absent": None}


def displaced(poses: PoseSequence, axis: int, pixels: int) -> PoseSequence:
    """Move pose maps by `pixels` down (axis 0) or to the right (axis 1); the uncovered pixels become background."""

    def moved(array: np.ndarray) -> np.ndarray:
        out = np.roll(array, pixels, axis - 2)
        np.moveaxis(out, axis - 2, 0)[slice(pixels) if pixels > 0 else slice(pixels, None)] = 0
        return out

    return replace(poses, **{name: moved(array) for name, array in poses.maps.items()})


def with_uv_noise(poses: PoseSequence, random: np.random.Generator) -> PoseSequence:
    """Add smooth noise of standard deviation UV_NOISE to the person's U and V, clipped to 0..1."""
    height, width = poses.size
    block = max(1, round(_BLOCK * height))
    noise = np.empty(poses.uv.shape, np.float32)
    for plane in noise.reshape(-1, height, width):
        coarse = random.normal(0, UV_NOISE, (height // block + 2, width // block + 2)).astype(np.float32)
        plane[:] = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise *= UV_NOISE / noise.std()  # interpolation reduces the deviation
    uv = np.where(poses.mask[:, None], (poses.uv + noise).clip(0, 1), 0)
    return replace(poses, uv=uv.astype(np.float16))


def with_holes(poses: PoseSequence, random: np.random.Generator) -> PoseSequence:
    """Turn HOLES squares around random pixels of the person into background."""
    side = max(1, round(HOLE * poses.size[0]))
    arrays = {name: array.copy() for name, array in poses.maps.items()}
    for index, mask in enumerate(poses.mask):
        rows, columns = np.nonzero(mask)
        for middle in random.integers(len(rows), size=HOLES) if len(rows) else ():
            top, left = max(0, rows[middle] - side // 2), max(0, columns[middle] - side // 2)
            for array in arrays.values():
                array[index, ..., top : top + side, left : left + side] = 0
    return replace(poses, **arrays)
