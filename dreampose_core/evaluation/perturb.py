"""The photo's DensePose as an estimator might get it wrong, so that it can be measured how much of that a model
forgives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from ..poses import PoseSequence

DISTURBED = ("displaced_1", "displaced_2", "uv_noise", "holes", "parts_only", "absent")
UV_NOISE = 0.05  # standard deviation; U and V are 0..1
HOLES, HOLE = 6, 0.08  # how many squares are missing, and their side in heights of the picture
_BLOCK = 0.05  # heights of the picture within which U, V are wrong alike: an estimator's errors are smooth


def disturbances(image_poses: PoseSequence, seed: int) -> dict[str, PoseSequence | None]:
    """The map of a photo (one frame) disturbed in every way, by the names in DISTURBED; what is random comes from
    `seed`.

    displaced_1, displaced_2: moved by 1 and 2 % of the height, up, down, left or right. uv_noise: smooth noise on U and
    V.
    holes: squares of the person missing. parts_only: without U, V. absent: None. Where parts or U, V are not known,
    what needs them is left out.
    """
    random = np.random.default_rng(seed)
    axis, sign = int(random.integers(2)), int(random.choice((-1, 1)))
    made: dict[str, PoseSequence | None] = {}
    for percent in (1, 2):
        made[f"displaced_{percent}"] = displaced(
            image_poses, axis, sign * max(1, round(percent / 100 * image_poses.size[0]))
        )
    if image_poses.uv is not None:
        made["uv_noise"] = with_uv_noise(image_poses, random)
    made["holes"] = with_holes(image_poses, random)
    if image_poses.parts is not None:
        made["parts_only"] = replace(image_poses, uv=None, charts="none")
    return {**made, "absent": None}


def displaced(poses: PoseSequence, axis: int, pixels: int) -> PoseSequence:
    """Maps moved down (axis 0) or to the right (axis 1) by so many pixels; what comes in is background."""

    def moved(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        out, length = np.zeros_like(array), array.shape[axis - 2]
        into, out_of = (slice(max(0, shift), min(length, length + shift)) for shift in (pixels, -pixels))
        rest = (slice(None),) * (1 - axis)
        out[(..., into, *rest)] = array[(..., out_of, *rest)]
        return out

    return replace(poses, parts=moved(poses.parts), uv=moved(poses.uv))


def with_uv_noise(poses: PoseSequence, random: np.random.Generator) -> PoseSequence:
    """U and V of the person with smooth noise of standard deviation UV_NOISE, kept within 0..1."""
    height, width = poses.size
    block = max(1, round(_BLOCK * height))
    noise = np.empty(poses.uv.shape, np.float32)
    for plane in noise.reshape(-1, height, width):
        coarse = random.normal(0, UV_NOISE, (height // block + 2, width // block + 2)).astype(np.float32)
        plane[:] = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise *= UV_NOISE / noise.std()  # interpolation has made it smaller
    uv = np.where(poses.mask[:, None], (poses.uv + noise).clip(0, 1), 0)
    return replace(poses, uv=uv.astype(np.float16))


def with_holes(poses: PoseSequence, random: np.random.Generator) -> PoseSequence:
    """Maps in which HOLES squares around random pixels of the person are background."""
    side = max(1, round(HOLE * poses.size[0]))
    arrays = {name: array.copy() for name in ("parts", "uv") if (array := getattr(poses, name)) is not None}
    for index, mask in enumerate(poses.mask):
        rows, columns = np.nonzero(mask)
        for middle in random.integers(len(rows), size=HOLES) if len(rows) else ():
            top, left = max(0, rows[middle] - side // 2), max(0, columns[middle] - side // 2)
            for array in arrays.values():
                array[index, ..., top : top + side, left : left + side] = 0
    return replace(poses, **arrays)
