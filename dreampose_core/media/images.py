"""Decode photos, convert them, fit them to a size and write them as PNG; nothing else in the package does so.

Uploaded bytes may be hostile: only the formats of phones and browsers are accepted, the size is checked by the header
before any pixel is decoded, and of all metadata only the orientation and the colour profile are used.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from ..errors import InputError, shown
from ..files import appearing

MAX_PIXELS = 24_000_000  # of a photo as it is used; a larger one is reduced
MAX_SIDE = 8192
MAX_OPENED_PIXELS, MAX_OPENED_SIDE = 150_000_000, 32_000
MAX_FILE_BYTES = 256 << 20
_ASPECT_SLACK = 2  # pixels, since estimators and croppers round
NEUTRAL = 128  # the grey behind transparent pixels
LOW, FILLED = 0.6, 0.8  # if the person fills less than LOW of the crop's height, crop closer so they fill FILLED of it
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "GIF")
_ACCEPTED = "PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP and GIF photos are accepted"
_LIMIT = "at most {} megapixels and {} pixels per side are accepted; scale it down"
_END = b"\xff\xd9"  # the marker at the end of a JPEG
_REDUCED = "reduced"  # key of the PNG text that says by how much a photo was reduced
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture's pixels, with the aspect of the target size; may reach beyond the picture."""

    top: float
    left: float
    height: float
    width: float


def read_photo(path: str | Path) -> tuple[np.ndarray, tuple[str, ...], int]:
    """Read the photo at `path`: uint8 sRGB (H, W, 3), upright, on neutral grey where it is transparent; notices; and by
    how much it was reduced.

    A photo of more than MAX_PIXELS or MAX_SIDE is reduced by a whole number. An animation gives its first picture.
    Both give a notice. Raises InputError with one sentence when the file is missing, is of another kind, is damaged or
    cut short, or is too large.
    """
    path = Path(path)
    name = shown(path.name)
    if not os.path.isfile(path):  # unlike Path.is_file, does not raise for names too long or without permission
        if os.path.isdir(path):
            raise InputError(f"{path} is a folder; give one photo.")
        raise InputError(f"There is no image file at {path}.")
    num_bytes = os.path.getsize(path)
    if num_bytes == 0:
        raise InputError(f"{name} is empty (0 bytes); {_ACCEPTED}.")
    if num_bytes > MAX_FILE_BYTES:
        raise InputError(f"{name} has {num_bytes >> 20} MB; at most {MAX_FILE_BYTES >> 20} MB are accepted.")
    try:
        file = open(path, "rb")
    except PermissionError as error:
        raise InputError(f"{name} may not be read; please check the file's permissions.") from error
    with file:
        image, times = open_picture(file, name, MAX_OPENED_PIXELS, MAX_OPENED_SIDE)
        notices: tuple[str, ...] = ()
        # A JPEG with several pictures is a photo with its preview or depth map, which needs no notice.
        if image.format in ("PNG", "WEBP", "AVIF", "GIF") and getattr(image, "n_frames", 1) > 1:
            notices = (f"{name} is an animation of {image.n_frames} pictures; its first one is used.",)
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
            notices += (f"{name} is transparent in places; they become grey.",)
        pixels = from_pil(image)
        if times > 1:
            notices += (
                f"{name} is larger than needed and was reduced to {pixels.shape[1]} x {pixels.shape[0]} pixels.",
            )
        return pixels, notices, times


with suppress(ImportError):  # not where models are only measured
    import pi_heif

    pi_heif.register_heif_opener()


def open_picture(file: IO[bytes], name: str, most: int = MAX_PIXELS, side: int = MAX_SIDE) -> tuple[Image.Image, int]:
    """Decode a picture from an open file; of an animation, the first one. Returns it and by how much it was reduced to
    MAX_PIXELS and MAX_SIDE.

    name: the file's name in error sentences. most, side: limits of pixels and of pixels per side, checked before any
    pixel is decoded. Raises InputError with one sentence.
    """
    limit = _LIMIT.format(most // 1_000_000, side)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is checked below
            image = Image.open(file, formats=FORMATS)
        width, height = image.size
        if width * height > most or max(width, height) > side:
            raise InputError(f"{name} is {width} x {height} pixels; {limit}.")
        return _loaded(image, file)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is far too large; {limit}.") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image that can be read; {_ACCEPTED}.") from error
    except Exception as error:  # decoders raise many types on damaged files, such as SyntaxError and struct.error
        damaged = "is damaged or cut short and cannot be decoded; please save or upload it again"
        raise InputError(f"{name} {damaged}.") from error


def _loaded(image: Image.Image, file: IO[bytes]) -> tuple[Image.Image, int]:
    """Decode the pixels and reduce them to MAX_PIXELS and MAX_SIDE; returns by how much."""
    times = max(math.ceil(math.sqrt(image.width * image.height / MAX_PIXELS)), math.ceil(max(image.size) / MAX_SIDE))
    if times > 1 and image.format == "JPEG":
        times = min(1 << (times - 1).bit_length(), 8)
        image.draft(None, (image.width // times, image.height // times))  # decodes at the smaller size
    try:
        image.load()
    except OSError:
        image = _without_end(image, file)
    if times > 1 and image.format != "JPEG":
        whole = image.convert("RGBA") if image.mode == "P" else image
        image = whole.reduce(times)
        image.format = whole.format
    return image, times


def _without_end(image: Image.Image, file: IO[bytes]) -> Image.Image:
    """Decode a JPEG that lacks its end marker but no pixels. Raises OSError."""
    file.seek(0)
    content = file.read()
    if image.format != "JPEG" or content.endswith(_END):
        raise OSError("damaged")
    mended = Image.open(io.BytesIO(content + _END), formats=("JPEG",))
    mended.draft(None, image.size)
    mended.load()
    if (np.asarray(mended)[-1, -8:] == 128).all():  # the grey that the decoder paints where pixels are missing
        raise OSError("cut short")
    return mended


def reduced_by(path: Path) -> int:
    """By how much the photo was reduced that `write_png` wrote to `path`."""
    with Image.open(path, formats=("PNG",)) as image:
        return int(image.info.get(_REDUCED, 1))


def read_image(path: str | Path) -> np.ndarray:
    """Read a photo as `read_photo` does, without the notices. Raises InputError."""
    return read_photo(path)[0]


def from_pil(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image to uint8 RGB (H, W, 3), upright, on neutral grey where it is transparent."""
    image.load()
    pixels, orientation = np.array(_as_rgb(image)), 1
    with suppress(Exception):  # with broken metadata, use the photo as stored, as viewers do
        orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    down, right = (-1 if orientation in mirrored else 1 for mirrored in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(pixels[::down, ::right])


def pad_box(source: tuple[int, int], size: tuple[int, int]) -> Box:
    """The smallest box with the aspect of `size` that holds the whole picture; both arguments are (height, width)."""
    (source_height, source_width), (height, width) = source, size
    scale = min(height / source_height, width / source_width)
    box_height, box_width = height / scale, width / scale
    return Box((source_height - box_height) / 2, (source_width - box_width) / 2, box_height, box_width)


def crop_box(
    source: tuple[int, int], size: tuple[int, int], person: tuple[float, float, float, float] | None = None
) -> Box:
    """Choose the box with the aspect of `size` to crop from a picture; `source` and `size` are (height, width).

    person: (top, left, bottom, right), where bottom and right are the first row and column after the person. Without
    it, the box is the largest one, centred. With it, the box is centred on the person as far as it stays inside the
    picture, and reaches beyond the picture only as far as needed to hold the whole person. If the person would fill
    less than 60 % of the largest box's height, the box is smaller, so that they fill 80 %.
    """
    (source_height, source_width), aspect = source, size[1] / size[0]
    height = min(source_height, source_width / aspect)
    if person is None:
        return Box((source_height - height) / 2, (source_width - height * aspect) / 2, height, height * aspect)
    top, left, bottom, right = person
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
    """Find the part of a picture that lies in `box`, and its place when `box` is scaled to `size`.

    source, size: (height, width). Returns the part in source pixels, and (top, left, height, width) in whole target
    pixels, at least 1 x 1. Photos and pose maps both use this function, so they stay aligned.
    """
    rows = _placed(source[0], size[0], box.top, box.height)
    columns = _placed(source[1], size[1], box.left, box.width)
    return Box(rows[0], columns[0], rows[1], columns[1]), (rows[2], columns[2], rows[3], columns[3])


def _placed(source: int, target: int, start: float, length: float) -> tuple[float, float, int, int]:
    low, high = max(start, 0.0), min(start + length, float(source))
    scale = target / length
    number = min(max(1, round((high - low) * scale)), target)
    first = math.ceil(((low + high) / 2 - start) * scale - number / 2 - 0.5 - 1e-6)
    return low, high - low, min(max(first, 0), target - number), number


def fit_image(image: np.ndarray, size: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """Crop `image` to `box` and scale it to (height, width) = `size`: uint8 (height, width, 3), without distortion.

    image: uint8 (H, W, 3). box: has the aspect of `size`; None means the whole picture, centred. Pixels beyond the
    picture get the mean colour of the photo's outermost pixels.
    """
    if box is None and image.shape[:2] == tuple(size):
        return image.copy()
    box = box or pad_box(image.shape[:2], size)
    seen, (top, left, height, width) = placement(image.shape[:2], size, box)
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])  # (2W + 2H, 3)
    out = np.empty((*size, 3), np.uint8)
    out[:] = edge.mean(axis=0).round().astype(np.uint8)
    right = min(seen.left + seen.width, image.shape[1])  # rounding may exceed the picture
    bottom = min(seen.top + seen.height, image.shape[0])
    part = (seen.left, seen.top, right, bottom)
    scaled = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=part)
    out[top : top + height, left : left + width] = np.asarray(scaled)
    return out


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Scale a picture, uint8 (H, W, 3), down to at most `side` pixels on its longer side."""
    scale = min(1.0, side / max(image.shape[:2]))
    return fit_image(image, (round(image.shape[0] * scale), round(image.shape[1] * scale)))


def write_png(image: np.ndarray, path: str | Path, reduced: int = 1) -> None:
    """Write uint8 (H, W, 3) as PNG; the file appears complete or not at all. reduced: see `reduced_by`. Raises
    StorageError."""
    text = PngImagePlugin.PngInfo()
    if reduced > 1:
        text.add_text(_REDUCED, str(reduced))
    with appearing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", pnginfo=text)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(image).astype(np.float32) / 257
        seen = np.asarray(image) != image.info.get("transparency", -1)
        return Image.fromarray(np.where(seen, grey, NEUTRAL).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("CMYK", "RGB", "RGBA") and "icc_profile" in image.info:
        with suppress(OSError, ImageCms.PyCMSError):  # treat an unusable profile as a missing one
            source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            if image.mode == "CMYK" or "sRGB" not in ImageCms.getProfileDescription(source):
                mode = "RGB" if image.mode == "CMYK" else image.mode
                image = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, (NEUTRAL, NEUTRAL, NEUTRAL, 255))
        return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def check_aspect(photo: tuple[int, int], poses: tuple[int, int]) -> None:
    """Check that a pose map of (height, width) `poses` can belong to a photo of (height, width) `photo`. Raises
    InputError."""
    if not same_aspect(photo, poses):
        raise InputError(
            f"The photo is {photo[0]} x {photo[1]} and its DensePose {poses[0]} x {poses[1]} (height x width), but "
            "their shapes must match; give the map that was made from this photo."
        )


def same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Return whether two (height, width) can be the same picture at two resolutions, up to rounding."""
    scale = max(a[0] / b[0], a[1] / b[1])
    slack = _ASPECT_SLACK * (scale + 1)
    return abs(a[0] - b[0] * scale) <= slack and abs(a[1] - b[1] * scale) <= slack
