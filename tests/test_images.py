"""Photos in and out: what is accepted, what is refused and how, and the geometry of fitting."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from corpus import png_header
from PIL import Image, ImageCms

from dreampose_core.errors import InputError
from dreampose_core.media import fit_image, images, read_image, read_photo, reduced_by, write_png
from dreampose_core.media.images import MAX_OPENED_SIDE, MAX_PIXELS, MAX_SIDE, NEUTRAL

RED = (200, 60, 30)


def corners(height=20, width=30) -> Image.Image:
    """Red, with a white top left and a black bottom right quarter, so that every turn and flip shows."""
    pixels = np.full((height, width, 3), RED, np.uint8)
    pixels[: height // 2, : width // 2] = 255
    pixels[height // 2 :, width // 2 :] = 0
    return Image.fromarray(pixels)


def noise(size=200) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8))


def png(mode: int, depth: int, width: int, height: int, pixels: bytes) -> bytes:
    """A PNG of a colour type and depth that Pillow may not write; pixels: its rows."""
    row = len(pixels) // height
    raw = b"".join(b"\0" + pixels[i * row : (i + 1) * row] for i in range(height)) if row else b""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, mode, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(raw), b"IEND")
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    text = str(caught.value)
    assert path.name in text and text.endswith(".") and "\n" not in text and len(text) < 250 + len(str(path))
    return text


@pytest.mark.parametrize(
    ("width", "height"), [(MAX_OPENED_SIDE + 1, 10), (10, MAX_OPENED_SIDE + 1), (15000, 10001), (12500, 12500)]
)
def test_size_is_judged_by_the_header(tmp_path, width, height):
    # The files hold no pixels: a decoder would call them damaged.
    (tmp_path / "a.png").write_bytes(png_header(width, height))
    text = refusal(tmp_path / "a.png")
    assert f"{width} x {height}" in text and "150 megapixels" in text


def test_the_largest_sizes_are_read_as_they_are(tmp_path):
    Image.new("1", (6000, 4000), 1).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (4000, 6000, 3)
    Image.new("1", (MAX_SIDE, 3), 1).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").shape == (3, MAX_SIDE, 3)


@pytest.mark.parametrize(
    ("suffix", "mode", "size", "times"),
    [
        ("jpg", "RGB", (1536, 1024), 2),
        ("jpg", "L", (3000, 2250), 4),
        ("jpg", "CMYK", (1300, 1300), 2),
        ("png", "RGB", (1536, 1024), 2),
        ("png", "P", (2250, 750), 2),
        ("webp", "RGBA", (1536, 1024), 2),
        ("png", "RGB", (7500, 2), 4),
    ],
)
def test_larger_photos_are_reduced_with_a_notice(tmp_path, monkeypatch, suffix, mode, size, times):
    """With limits of a sixteenth of the pixels, so that it takes less time."""
    monkeypatch.setattr(images, "MAX_PIXELS", MAX_PIXELS // 16)
    monkeypatch.setattr(images, "MAX_SIDE", MAX_SIDE // 4)
    small = corners(64, 96).resize((size[0] // 8, max(1, size[1] // 8)), Image.Resampling.NEAREST)
    small.convert(mode).resize(size, Image.Resampling.NEAREST).save(tmp_path / f"a.{suffix}")
    pixels, notices, by = read_photo(tmp_path / f"a.{suffix}")
    shape = -(-size[1] // times), -(-size[0] // times)
    assert by == times and pixels.shape == (*shape, 3)
    write_png(pixels[:8, :8], tmp_path / "b.png", by)
    assert reduced_by(tmp_path / "b.png") == times, "it is kept with the photo"
    assert notices == (f"a.{suffix} is larger than needed and was reduced to {shape[1]} x {shape[0]} pixels.",)
    if mode == "RGB":
        whole = np.asarray(corners(64, 96).resize(shape[::-1], Image.Resampling.NEAREST)).astype(int)
        assert np.abs(pixels.astype(int) - whole).mean() < 6


def test_what_phones_store_is_read():
    image = read_image(Path(__file__).parent / "corners.heic").astype(int)
    assert image.shape == (64, 96, 3) and np.abs(image - np.asarray(corners(64, 96))).mean() < 8


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "avif"])
def test_colours_are_converted_to_srgb(tmp_path, suffix, mode):
    """A profile whose red and blue are exchanged against sRGB shows at once whether it is heeded."""
    if (suffix, mode) == ("jpg", "RGBA"):
        pytest.skip("JPEG has no transparency")
    photo = Image.new(mode, (32, 32), (200, 60, 30, 255)[: len(mode)])
    photo.save(tmp_path / f"a.{suffix}", icc_profile=wide_gamut())
    found, plain = read_image(tmp_path / f"a.{suffix}")[16, 16].astype(int), np.array([200, 60, 30])
    assert found[0] > plain[0] + 8 and abs(found - plain).max() < 60, "red of a wide gamut is redder in sRGB"
    photo.save(tmp_path / f"b.{suffix}", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert np.abs(read_image(tmp_path / f"b.{suffix}")[16, 16].astype(int) - plain).max() < 8
    photo.save(tmp_path / f"c.{suffix}", icc_profile=b"no profile")
    assert np.abs(read_image(tmp_path / f"c.{suffix}")[16, 16].astype(int) - plain).max() < 8


def wide_gamut() -> bytes:
    """sRGB's profile with Display P3's primaries, as phones write it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    columns = {b"rXYZ": (0.5151, 0.2412, -0.0011), b"gXYZ": (0.2920, 0.6922, 0.0419), b"bXYZ": (0.1571, 0.0666, 0.7841)}
    for index in range(int.from_bytes(profile[128:132], "big")):
        entry = 132 + 12 * index
        name, offset = bytes(profile[entry : entry + 4]), int.from_bytes(profile[entry + 4 : entry + 8], "big")
        if name in columns:
            numbers = b"".join(round(x * 65536).to_bytes(4, "big", signed=True) for x in columns[name])
            profile[offset + 8 : offset + 20] = numbers
    return bytes(profile).replace(b"s\0R\0G\0B", b"w\0i\0d\0e").replace(b"sRGB", b"wide")


def test_a_jpeg_that_lacks_only_its_end_is_read(tmp_path):
    noise(64).save(tmp_path / "whole.jpg", quality=95)
    content = (tmp_path / "whole.jpg").read_bytes()
    whole = read_image(tmp_path / "whole.jpg")
    for missing in (1, 2):
        (tmp_path / "a.jpg").write_bytes(content[:-missing])
        assert np.array_equal(read_image(tmp_path / "a.jpg"), whole)
    for missing in (len(content) // 2, len(content) // 8):
        (tmp_path / "a.jpg").write_bytes(content[:-missing])
        assert "cut short" in refusal(tmp_path / "a.jpg")


def test_a_photo_that_carries_a_preview_is_a_photo(tmp_path):
    corners(32, 48).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[noise(16)], quality=95)
    image, notices, _ = read_photo(tmp_path / "a.jpg")
    assert image.shape == (32, 48, 3) and notices == ()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(tmp_path, suffix, orientation, turned):
    photo = corners(32, 48)
    exif = photo.getexif()
    exif[0x0112] = orientation
    options = {"png": {}, "jpg": {"quality": 95}, "webp": {"lossless": True}}[suffix]
    photo.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    expected = turned(np.asarray(photo)).astype(int)
    image = read_image(tmp_path / f"a.{suffix}").astype(int)
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 4  # a wrong turn gives far above 50


def test_broken_metadata_does_not_break_the_photo(tmp_path):
    photo = corners()
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / "a.jpg", exif=exif)
    content = (tmp_path / "a.jpg").read_bytes()
    start = content.find(b"Exif") + 8
    (tmp_path / "a.jpg").write_bytes(content[:start] + b"\xff" * 8 + content[start + 8 :])
    assert read_image(tmp_path / "a.jpg").shape == (20, 30, 3)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_alpha_is_laid_over_neutral_grey(tmp_path, suffix):
    rgba = np.dstack([np.asarray(corners()), np.zeros((20, 30), np.uint8)])
    rgba[:, 15:, 3] = 255
    rgba[0, 0, 3] = 128
    exact = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(rgba).save(tmp_path / f"a.{suffix}", **exact)
    image = read_image(tmp_path / f"a.{suffix}")
    assert (image[1:, :15] == NEUTRAL).all()
    assert (image[:10, 15:] == RED).all() and (image[10:, 15:] == 0).all()
    assert abs(int(image[0, 0, 0]) - (255 + NEUTRAL) // 2) <= 1  # half white, half grey


def test_palettes_grey_and_their_transparency(tmp_path):
    palette = corners().quantize(8)
    palette.save(tmp_path / "a.png")
    palette.save(tmp_path / "b.png", transparency=palette.getpixel((0, 0)))
    for name, white in (("a", 255), ("b", NEUTRAL)):
        image = read_image(tmp_path / f"{name}.png")
        assert (image[0, 0] == white).all() and (image[-1, 0] == RED).all()
    corners().convert("LA").save(tmp_path / "c.png")
    assert (read_image(tmp_path / "c.png")[0, 0] == 255).all()
    corners().convert("1", dither=Image.Dither.NONE).save(tmp_path / "d.png")
    assert set(np.unique(read_image(tmp_path / "d.png"))) == {0, 255}
    corners().convert("L").save(tmp_path / "e.jpg", quality=95)
    assert read_image(tmp_path / "e.jpg").shape == (20, 30, 3)


def test_cmyk_is_converted_through_its_profile(tmp_path):
    corners(32, 48).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg").astype(int)
    assert np.abs(image - np.asarray(corners(32, 48))).mean() < 4
    corners(32, 48).convert("CMYK").save(tmp_path / "b.jpg", quality=95, icc_profile=b"not a profile")
    assert np.abs(read_image(tmp_path / "b.jpg").astype(int) - image).max() == 0
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    cyan.save(tmp_path / "c.jpg", quality=95)
    assert read_image(tmp_path / "c.jpg")[8, 8, 0] < 60  # without a profile cyan has no red
    cyan.save(tmp_path / "d.jpg", quality=95, icc_profile=cmyk_profile())
    red = read_image(tmp_path / "d.jpg")[8, 8].astype(int)
    assert red[0] > 100 and red[1] < 30 and red[2] < 30


def test_16_bits_are_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png").astype(float) - ramp[..., None] / 257).max() <= 0.5
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    alpha = np.full((6, 5, 1), 65535, np.uint16)
    alpha[:, 0] = 0
    expected = colour / 257
    both, grey = np.concatenate([colour, alpha], 2), np.concatenate([colour[..., :1], alpha], 2)
    for mode, pixels in ((2, colour), (6, both), (4, grey)):
        (tmp_path / "a.png").write_bytes(png(mode, 16, 5, 6, pixels.astype(">u2").tobytes()))
        image = read_image(tmp_path / "a.png").astype(float)
        wanted = expected.copy() if mode != 4 else expected[..., :1].repeat(3, 2)
        if mode != 2:
            wanted[:, 0] = NEUTRAL
        assert np.abs(image - wanted).max() <= 1


def cmyk_profile() -> bytes:
    """A colour profile in which cyan ink is red and all other inks do nothing, so that its use shows."""
    channels, grid = 4, 2
    lab = {0: (255, 128, 128), 1: (136, 208, 195)}  # without and with cyan: L, a, b as 8-bit numbers
    table = bytes(v for node in range(grid**channels) for v in lab[node >> 3 & 1])
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    a2b = b"mft1" + bytes(4) + bytes([channels, 3, grid, 0]) + matrix + identity * channels + table + identity * 3
    text = b"text" + bytes(4) + b"test\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"desc", desc), (b"cprt", text), (b"wtpt", white), (b"A2B0", a2b)]
    directory, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags:
        data += bytes(-len(data) % 4)
        directory += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    kinds = (b"test", 0x02400000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp")
    header = struct.pack(">I4sI4s4s4s12s4s", offset + len(body), *kinds)
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + directory + body


def test_png_round_trip_carries_pixels_and_nothing_else(tmp_path):
    photo = corners()
    exif = photo.getexif()
    exif[0x010E] = "where I live"
    photo.save(tmp_path / "a.png", exif=exif, dpi=(72, 72))
    write_png(read_image(tmp_path / "a.png"), tmp_path / "b.png")
    assert (read_image(tmp_path / "b.png") == np.asarray(photo)).all()
    with Image.open(tmp_path / "b.png") as image:
        assert not image.info and not image.getexif()
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("source", "size", "box"),
    [
        ((100, 100), (160, 128), (16, 0, 128, 128)),  # a square: borders above and below
        ((320, 128), (160, 128), (0, 32, 160, 64)),  # tall: borders at the sides
        ((80, 64), (160, 128), (0, 0, 160, 128)),  # the same aspect, larger
        ((640, 512), (160, 128), (0, 0, 160, 128)),  # the same aspect, smaller
        ((3, 3000), (160, 128), (79, 0, 1, 128)),  # never thinner than one pixel
    ],
)
def test_fitting_keeps_the_aspect_and_centres(source, size, box):
    photo = np.full((*source, 3), 250, np.uint8)
    photo[0], photo[-1], photo[:, 0], photo[:, -1] = 10, 10, 10, 10
    fitted = fit_image(photo, size)
    assert fitted.shape == (*size, 3) and fitted.dtype == np.uint8
    top, left, height, width = box
    outside = np.ones(size, bool)
    outside[top : top + height, left : left + width] = False
    assert (fitted[outside] == 10).all()  # the mean of the outermost pixels
    again = fit_image(fitted, size)
    assert (again == fitted).all() and again is not fitted
    if min(source) > 3:
        assert fitted[size[0] // 2, size[1] // 2].min() > 240
        assert fitted[top + height // 2, left + 4].min() > 240 and fitted[top + 4, left + width // 2].min() > 240


@pytest.mark.parametrize("mode, alpha", [("RGBA", 128), ("RGBA", 255), ("LA", 0), ("P", 0)])
def test_a_transparent_photo_is_noticed(tmp_path, mode, alpha):
    image = Image.new("RGBA", (40, 30), (200, 100, 50, 255))
    image.paste((0, 0, 0, alpha), (0, 0, 20, 30))
    how = {"transparency": 0} if mode == "P" else {}
    (image.convert("RGB").convert("P") if mode == "P" else image.convert(mode)).save(tmp_path / "a.png", **how)
    notices = read_photo(tmp_path / "a.png")[1]
    assert notices == (() if alpha == 255 else ("a.png is transparent in places; they become grey.",))
