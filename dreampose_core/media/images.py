"""The only place where photos are decoded, converted, fitted to a size and written as PNG.

Uploaded bytes are hostile: only PNG, JPEG and WebP are tried, the size is judged by the header before a pixel is
decoded, and of all metadata only the orientation (and a CMYK photo's colour profile) is used.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageCms

from ..errors import InputError, shown
from ..files import appearing

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 24_000_000
MAX_SIDE = 8192
MAX_FILE_BYTES = 256 << 20  # above any honest 24 Mpx file: 16-bit RGBA without compression has 192 MB
_ASPECT_SLACK = 2  # pixels: estimators and croppers round
NEUTRAL = 128  # the grey behind transparent pixels
LOW, FILLED = 0.6, 0.8  # a person who fills less than LOW of a crop's height is brought nearer, to FILLED
_ACCEPTED = "PNG, JPEG and WebP photos are accepted"
_LIMIT = (
    f"at most {MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE} pixels per side are accepted; please scale it down"
)
_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture's own pixels, of the shape that the picture is fitted to; it may reach beyond the
    picture."""

    top: float
    left: float
    height: float
    width: float


def read_photo(path: str | Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 (H, W, 3), RGB: the photo at `path`, upright, over neutral grey where it is transparent; and what the user
    should know.

    An animation gives its first picture and a notice. Raises InputError with one sentence when there is no such file,
    or it is not a PNG, JPEG or WebP, damaged, cut short or too large.
    """
    path = Path(path)
    name = shown(path.name)
    if not os.path.isfile(path):  # unlike Path.is_file, False for names that are too long or may not be looked at
        raise InputError(f"There is no image file at {path}.")
    num_bytes = os.path.getsize(path)
    if num_bytes == 0:
        raise InputError(f"{name} is empty (0 bytes); {_ACCEPTED}.")
    if num_bytes > MAX_FILE_BYTES:
        raise InputError(
            f"{name} has {num_bytes >> 20} MB; image files of at most {MAX_FILE_BYTES >> 20} MB are accepted."
        )
    try:
        file = open(path, "rb")
    except PermissionError as error:
        raise InputError(f"{name} may not be read; please check the file's permissions.") from error
    with file:
        image = open_picture(file, name)
        notices = ()
        # A JPEG of several pictures is a photo with its preview or depth map, of which nobody needs to know.
        if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
            notices = (f"{name} is an animation of {image.n_frames} pictures; its first one is used.",)
        return from_pil(image), notices


def open_picture(file: IO[bytes], name: str) -> Image.Image:
    """The decoded picture in an open file: PNG, JPEG or WebP, its size judged before a pixel is decoded; of an
    animation the first one.

    name: what the user calls it. Raises InputError with one sentence.
    """
    try:
        with warnings.catch_warnings():
            # Our own limit is lower than the one Pillow warns about.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
            raise InputError(f"{name} is {width} x {height} pixels; {_LIMIT}.")
        image.load()
        return image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is far too large; {_LIMIT}.") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image that can be read; {_ACCEPTED}.") from error
    except (
        Exception
    ) as error:  # decoders raise many kinds on damaged files: OSError, SyntaxError, ValueError, struct.error, ...
        raise InputError(
            f"{name} is damaged or cut short and cannot be decoded; please save or upload it again."
        ) from error


def read_image(path: str | Path) -> np.ndarray:
    """The picture that `read_photo` gives, without its notices. Raises InputError as it does."""
    return read_photo(path)[0]


def from_pil(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3), RGB: a Pillow image as `read_image` gives it, upright, over neutral grey where it is
    transparent."""
    image.load()
    return np.array(_upright(_as_rgb(image), image))


def pad_box(source: tuple[int, int], size: tuple[int, int]) -> Box:
    """The smallest box of the shape of (height, width) = `size` around the whole of a picture of (height, width)
    `source`."""
    (source_height, source_width), (height, width) = source, size
    scale = min(height / source_height, width / source_width)
    box_height, box_width = height / scale, width / scale
    return Box((source_height - box_height) / 2, (source_width - box_width) / 2, box_height, box_width)


def crop_box(
    source: tuple[int, int], size: tuple[int, int], person: tuple[float, float, float, float] | None = None
) -> Box:
    """The box of the shape of `size` to take out of a picture of (height, width) `source`, around the person where it
    is known.

    person: (top, left, bottom, right), the last two being the first row and column without the person. Without it the
    box is the largest one, in the middle. Otherwise it is centred on the person as far as it stays inside, reaches
    beyond the picture only where that is needed to hold the whole person, and is so small that the person fills at
    least 60 % of its height: 80 %, where the largest box would show less. Raises ValueError when the person is empty or
    not inside the picture.
    """
    (source_height, source_width), aspect = source, size[1] / size[0]
    height = min(source_height, source_width / aspect)
    if person is None:
        return Box((source_height - height) / 2, (source_width - height * aspect) / 2, height, height * aspect)
    top, left, bottom, right = person
    if not (0 <= top < bottom <= source_height and 0 <= left < right <= source_width):
        raise ValueError(f"the person at {person} is not inside a picture of {source_height} x {source_width}")
    if bottom - top < LOW * height:
        height = (bottom - top) / FILLED
    height = max(height, bottom - top, (right - left) / aspect)

    def start(low: float, high: float, length: float, whole: int) -> float:
        if length >= whole:
            return (whole - length) / 2
        return min(max((low + high - length) / 2, 0), whole - length)

    width = height * aspect
    return Box(start(top, bottom, height, source_height), start(left, right, width, source_width), height, width)


def placement(source: tuple[int, int], size: tuple[int, int], box: Box) -> tuple[Box, tuple[int, int, int, int]]:
    """Which part of a picture of (height, width) `source` is seen in `box`, and where it lies when `box` becomes
    `size`.

    Returns that part, in source pixels, and (top, left, height, width) in whole target pixels, at least 1 x 1.
    Photos and pose maps both go through here, so they stay aligned. Raises ValueError when the box misses the picture.
    """
    rows = _placed(source[0], size[0], box.top, box.height)
    columns = _placed(source[1], size[1], box.left, box.width)
    return Box(rows[0], columns[0], rows[1], columns[1]), (rows[2], columns[2], rows[3], columns[3])


def _placed(source: int, target: int, start: float, length: float) -> tuple[float, float, int, int]:
    low, high = max(start, 0.0), min(start + length, float(source))
    if not low < high:
        raise ValueError(f"a box from {start} to {start + length} shows nothing of a picture of {source} pixels")
    scale = target / length
    number = min(max(1, round((high - low) * scale)), target)
    first = math.ceil(((low + high) / 2 - start) * scale - number / 2 - 0.5 - 1e-6)
    return low, high - low, min(max(first, 0), target - number), number


def fit_image(image: np.ndarray, size: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """uint8 (height, width, 3): what `box` shows of `image`, scaled to (height, width) = `size`, never squashed.

    image: uint8 (H, W, 3). box: of the shape of `size`; None holds the whole picture, centred. What lies beyond the
    picture takes the mean colour of the photo's outermost pixels.
    """
    _check(image)
    if box is None and image.shape[:2] == tuple(size):
        return image.copy()
    box = box or pad_box(image.shape[:2], size)
    seen, (top, left, height, width) = placement(image.shape[:2], size, box)
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])  # (2W + 2H, 3)
    out = np.empty((*size, 3), np.uint8)
    out[:] = edge.mean(axis=0).round().astype(np.uint8)
    right, bottom = (
        min(seen.left + seen.width, image.shape[1]),
        min(seen.top + seen.height, image.shape[0]),
    )  # against rounding
    scaled = Image.fromarray(image).resize(
        (width, height), Image.Resampling.LANCZOS, box=(seen.left, seen.top, right, bottom)
    )
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


def check_aspect(photo: tuple[int, int], poses: tuple[int, int]) -> None:
    """Raises InputError when a map of (height, width) `poses` cannot be that of a photo of (height, width) `photo`."""
    if not same_aspect(photo, poses):
        raise InputError(
            f"The photo is {photo[0]} x {photo[1]} and its DensePose {poses[0]} x {poses[1]} (height x width), which "
            "is another picture's shape; give the map that was made from this photo."
        )


def same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two (height, width) can be one picture at two resolutions."""
    scale = max(a[0] / b[0], a[1] / b[1])
    slack = _ASPECT_SLACK * scale + _ASPECT_SLACK
    return abs(a[0] - b[0] * scale) <= slack and abs(a[1] - b[1] * scale) <= slack
