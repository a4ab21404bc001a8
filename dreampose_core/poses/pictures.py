"""Single pictures of a sequence: raw values for maps, upright colours for photos, and the largest size that is kept."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..media import from_pil

MAX_MAP_SIDE = 768
SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")


def raw_rgb(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3): the stored values as they are, neither turned nor converted by a colour profile, without their
    transparency."""
    if image.mode in ("RGBA", "RGBX"):
        return np.array(image)[..., :3]
    return np.array(image.convert("RGB")) if image.mode in ("RGB", "P", "L", "1", "LA", "PA") else from_pil(image)


def upright_rgb(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3): the picture as people see it, averaged down to MAX_MAP_SIDE where it is larger."""
    pixels = from_pil(image)
    rows, columns = kept(*pixels.shape[:2])
    if len(rows) == pixels.shape[0]:
        return pixels
    return np.array(Image.fromarray(pixels).resize((len(columns), len(rows)), Image.Resampling.BOX))


def kept(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns that stay, nearest neighbour, so that no side is longer than MAX_MAP_SIDE."""
    scale = min(1.0, MAX_MAP_SIDE / max(height, width))
    sides = [(side, max(1, round(side * scale))) for side in (height, width)]
    rows, columns = (((np.arange(n) + 0.5) * side / n).astype(int) for side, n in sides)
    return rows, columns


def reduction_notice(size: tuple[int, int]) -> tuple[str, ...]:
    """What to tell the user about maps of (height, width) `size` that are reduced; nothing when they are not."""
    rows, columns = kept(*size)
    if len(rows) == size[0] and len(columns) == size[1]:
        return ()
    return (f"The frames of {size[1]} x {size[0]} pixels are reduced to {len(columns)} x {len(rows)}.",)
