"""Single pictures of a sequence from untrusted bytes: raw values for maps, upright colours for photos, and the largest size kept."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from ..errors import InputError
from ..images import FORMATS, MAX_PIXELS, MAX_SIDE, from_pil

MAX_MAP_SIDE = 768
SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")


def open_picture(data: bytes, name: str) -> Image.Image:
    """The decoded picture in `data`, PNG, JPEG or WebP; an animation gives its first picture. Raises InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
            raise InputError(
                f"{name} is {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE} pixels per side "
                "are accepted, please scale it down."
            )
        image.load()
        return image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is far too large; at most {MAX_PIXELS // 1_000_000} megapixels are accepted.") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{name} is not a picture that can be read; PNG, JPEG and WebP are accepted.") from error
    except Exception as error:  # decoders raise many kinds on damaged files: OSError, SyntaxError, ValueError, struct.error, ...
        raise InputError(f"{name} is damaged or cut short and cannot be decoded; please save or upload it again.") from error


def raw_rgb(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3): the stored values as they are, neither turned nor converted by a colour profile, without their transparency."""
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
