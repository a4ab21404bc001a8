"""The only place where photos are decoded, converted, fitted to a size and written as PNG.

Uploaded bytes are hostile: only PNG, JPEG and WebP are tried, the size is judged by the header before a pixel is decoded, and of
all metadata only the orientation (and a CMYK photo's colour profile) is used.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from .errors import InputError
from .files import appearing

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 24_000_000
MAX_SIDE = 8192
MAX_FILE_BYTES = 256 << 20  # above any honest 24 Mpx file: 16-bit RGBA without compression has 192 MB
NEUTRAL = 128  # the grey behind transparent pixels
_ACCEPTED = "PNG, JPEG and WebP photos are accepted"
_LIMIT = f"at most {MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE} pixels per side are accepted; please scale it down"
_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path) -> np.ndarray:
    """uint8 (H, W, 3), RGB: the photo at `path`, upright, over neutral grey where it is transparent.

    Raises InputError with one sentence when there is no such file, or it is not a PNG, JPEG or WebP, damaged, cut short,
    animated or too large.
    """
    path = Path(path)
    if not os.path.isfile(path):  # unlike Path.is_file, False for names that are too long or may not be looked at
        raise InputError(f"There is no image file at {path}.")
    try:
        num_bytes = path.stat().st_size
        if num_bytes == 0:
            raise InputError(f"{path.name} is empty (0 bytes); {_ACCEPTED}.")
        if num_bytes > MAX_FILE_BYTES:
            raise InputError(f"{path.name} has {num_bytes >> 20} MB; image files of at most {MAX_FILE_BYTES >> 20} MB are accepted.")
        with warnings.catch_warnings():
            # Our own limit is lower than the one Pillow warns about.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise InputError(f"{path.name} is {width} x {height} pixels; {_LIMIT}.")
            if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{path.name} is an animation of {image.n_frames} pictures; please give a single photo.")
            image.load()
            return np.array(_upright(_as_rgb(image), image))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{path.name} is far too large; {_LIMIT}.") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{path.name} is not an image that can be read; {_ACCEPTED}.") from error
    except PermissionError as error:
        raise InputError(f"{path.name} may not be read; please check the file's permissions.") from error
    except Exception as error:  # decoders raise many kinds on damaged files: OSError, SyntaxError, ValueError, struct.error, ...
        raise InputError(f"{path.name} is damaged or cut short and cannot be decoded; please save or upload it again.") from error


def from_pil(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3), RGB: a Pillow image as `read_image` gives it, upright, over neutral grey where it is transparent."""
    image.load()
    return np.array(_upright(_as_rgb(image), image))


def fit_box(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a picture of (height, width) `source`, scaled to lie wholly inside `size`, centred.

    Photos and pose maps both go through here, so they stay aligned.
    """
    (source_height, source_width), (height, width) = source, size
    scale = min(height / source_height, width / source_width)
    inner_height, inner_width = max(1, round(source_height * scale)), max(1, round(source_width * scale))
    return (height - inner_height) // 2, (width - inner_width) // 2, inner_height, inner_width


def fit_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width, 3): `image` scaled to lie wholly inside (height, width) = `size`, centred, never squashed.

    image: uint8 (H, W, 3). The border takes the mean colour of the photo's outermost pixels.
    """
    _check(image)
    if image.shape[:2] == tuple(size):
        return image.copy()
    top, left, height, width = fit_box(image.shape[:2], size)
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])  # (2W + 2H, 3)
    out = np.empty((*size, 3), np.uint8)
    out[:] = edge.mean(axis=0).round().astype(np.uint8)
    scaled = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    out[top : top + height, left : left + width] = np.asarray(scaled)
    return out


def write_png(image: np.ndarray, path: str | Path) -> None:
    """Writes uint8 (H, W, 3) as PNG; the file appears whole or not at all. Raises StorageError."""
    _check(image)
    with appearing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image is uint8 (H, W, 3), not {image.dtype} {image.shape}")


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(image).astype(np.float32) / 257
        seen = np.asarray(image) != image.info.get("transparency", -1)
        return Image.fromarray(np.where(seen, grey, NEUTRAL).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "CMYK":
        return _cmyk_as_rgb(image)
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, (NEUTRAL, NEUTRAL, NEUTRAL, 255))
        return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _cmyk_as_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (OSError, ImageCms.PyCMSError):
            pass  # a profile that cannot be used says nothing about colour: as if there were none
    return image.convert("RGB")


def _upright(pixels: Image.Image, opened: Image.Image) -> Image.Image:
    try:
        orientation = opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken metadata does not make a broken photo; it is then shown as stored, as every viewer does
        return pixels
    return pixels.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else pixels
