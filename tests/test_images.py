"""Photos in and out: what is accepted, what is refused and how, and the geometry of fitting."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dreampose_core import files
from dreampose_core.errors import InputError, StorageError
from dreampose_core.media import fit_image, read_image, read_photo, write_png
from dreampose_core.media.images import MAX_SIDE, NEUTRAL

RED = (200, 60, 30)


def corners(height=20, width=30) -> Image.Image:
    """Red, with a white top left and a black bottom right quarter, so that every turn and flip shows."""
    pixels = np.full((height, width, 3), RED, np.uint8)
    pixels[: height // 2, : width // 2] = 255
    pixels[height // 2 :, width // 2 :] = 0
    return Image.fromarray(pixels)


def noise(size=200) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds none."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, data, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    text = str(caught.value)
    assert path.name in text and text.endswith(".") and "\n" not in text and len(text) < 250 + len(str(path))
    return text


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"), [("png", {}, 0), ("jpg", {"quality": 95}, 12), ("webp", {"lossless": True}, 0)]
)
def test_the_three_formats_are_read(tmp_path, suffix, options, tolerance):
    corners(32, 48).save(tmp_path / f"a.{suffix}", **options)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == np.uint8 and image.shape == (32, 48, 3) and image.flags.writeable
    assert np.abs(image[4, 4].astype(int) - 255).max() <= tolerance
    assert np.abs(image[4, -4].astype(int) - RED).max() <= tolerance


def test_the_content_counts_not_the_name(tmp_path):
    corners().save(tmp_path / "photo.txt", format="PNG")
    assert read_image(tmp_path / "photo.txt").shape == (20, 30, 3)
    corners().save(tmp_path / "photo.png", format="BMP")
    assert "PNG, JPEG and WebP" in refusal(tmp_path / "photo.png")


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "ICO", "PPM", "PDF"])
def test_other_formats_are_refused(tmp_path, form):
    corners().save(tmp_path / "a.png", format=form)
    assert "PNG, JPEG and WebP" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"],
)
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    refusal(tmp_path / "a.png")


def test_no_such_file(tmp_path):
    for path in (tmp_path / "nope.png", tmp_path, tmp_path / ("x" * 300)):
        assert "There is no image file" in refusal(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_truncated_is_an_error(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise().save(path)
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "damaged or cut short" in refusal(path)


@pytest.mark.parametrize(("width", "height"), [(MAX_SIDE + 1, 10), (10, MAX_SIDE + 1), (6000, 4001), (12000, 12000)])
def test_size_is_judged_by_the_header(tmp_path, width, height):
    # The files hold no pixels: whoever tried to decode them first would call them damaged.
    (tmp_path / "a.png").write_bytes(png_header(width, height))
    text = refusal(tmp_path / "a.png")
    assert f"{width} x {height}" in text and "24 megapixels" in text


def test_a_decompression_bomb_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(60000, 60000))
    assert "24 megapixels" in refusal(tmp_path / "a.png")


def test_the_largest_sizes_are_still_read(tmp_path):
    Image.new("1", (6000, 4000), 1).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (4000, 6000, 3)
    Image.new("1", (MAX_SIDE, 3), 1).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").shape == (3, MAX_SIDE, 3)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_animation_gives_its_first_picture_and_a_notice(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    corners().save(
        path, save_all=True, append_images=[noise(30).resize((30, 20)), corners().rotate(180)], lossless=True
    )
    image, notices = read_photo(path)
    assert (image == np.asarray(corners())).all() and (read_image(path) == image).all()
    assert notices == (f"a.{suffix} is an animation of 3 pictures; its first one is used.",)
    corners().save(path)
    assert read_photo(path)[1] == ()


def test_a_photo_that_carries_a_preview_is_a_photo(tmp_path):
    corners(32, 48).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[noise(16)], quality=95)
    image, notices = read_photo(tmp_path / "a.jpg")
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
    Image.fromarray(rgba).save(
        tmp_path / f"a.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {})
    )
    image = read_image(tmp_path / f"a.{suffix}")
    assert (image[1:, :15] == NEUTRAL).all()
    assert (image[:10, 15:] == RED).all() and (image[10:, 15:] == 0).all()
    assert abs(int(image[0, 0, 0]) - (255 + NEUTRAL) // 2) <= 1  # half white, half grey


def test_palettes_grey_and_their_transparency(tmp_path):
    palette = corners().quantize(8)
    palette.save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png")[0, 0] == 255).all() and (read_image(tmp_path / "a.png")[-1, 0] == RED).all()
    palette.save(tmp_path / "b.png", transparency=palette.getpixel((0, 0)))
    assert (read_image(tmp_path / "b.png")[0, 0] == NEUTRAL).all() and (
        read_image(tmp_path / "b.png")[-1, 0] == RED
    ).all()
    corners().convert("LA").save(tmp_path / "c.png")
    assert (read_image(tmp_path / "c.png")[0, 0] == 255).all()
    corners().convert("1", dither=Image.Dither.NONE).save(tmp_path / "d.png")
    assert set(np.unique(read_image(tmp_path / "d.png"))) == {0, 255}
    corners().convert("L").save(tmp_path / "e.jpg", quality=95)
    assert read_image(tmp_path / "e.jpg").shape == (20, 30, 3)


def test_16_bit_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert np.abs(image[..., 0].astype(float) - ramp / 257).max() <= 0.5
    assert (image == image[..., :1]).all()


def test_cmyk_is_converted(tmp_path):
    corners(32, 48).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg").astype(int)
    assert np.abs(image - np.asarray(corners(32, 48))).mean() < 4
    corners(32, 48).convert("CMYK").save(tmp_path / "b.jpg", quality=95, icc_profile=b"not a profile")
    assert np.abs(read_image(tmp_path / "b.jpg").astype(int) - image).max() == 0


def png(mode: int, depth: int, width: int, height: int, pixels: bytes) -> bytes:
    """A PNG of a colour type and depth that Pillow does not write; pixels: its rows."""
    row = len(pixels) // height
    raw = b"".join(b"\0" + pixels[i * row : (i + 1) * row] for i in range(height))
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, mode, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(raw), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


def test_16_bit_colour_with_and_without_alpha_and_grey_with_alpha(tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    alpha = np.full((6, 5, 1), 65535, np.uint16)
    alpha[:, 0] = 0
    expected = colour / 257
    for mode, pixels in (
        (2, colour),
        (6, np.concatenate([colour, alpha], 2)),
        (4, np.concatenate([colour[..., :1], alpha], 2)),
    ):
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
    header = struct.pack(
        ">I4sI4s4s4s12s4s", offset + len(body), b"test", 0x02400000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp"
    )
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + directory + body


def test_cmyk_goes_through_its_profile(tmp_path):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    cyan.save(tmp_path / "a.jpg", quality=95)
    assert read_image(tmp_path / "a.jpg")[8, 8, 0] < 60  # without a profile cyan has no red
    cyan.save(tmp_path / "b.jpg", quality=95, icc_profile=cmyk_profile())
    red = read_image(tmp_path / "b.jpg")[8, 8].astype(int)
    assert red[0] > 100 and red[1] < 30 and red[2] < 30


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


def test_a_png_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_png(np.zeros((4, 4, 3), np.uint8), tmp_path / "a.png")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="a.png could not be written: the disk is full"):
        write_png(np.full((4, 4, 3), 9, np.uint8), tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["a.png"] and read_image(tmp_path / "a.png").max() == 0
    with pytest.raises(StorageError, match="there is no folder"):
        write_png(np.zeros((4, 4, 3), np.uint8), tmp_path / "nowhere" / "a.png")


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_picture_are_a_mistake_of_the_caller(tmp_path, wrong):
    for call in (lambda: fit_image(wrong, (8, 8)), lambda: write_png(wrong, tmp_path / "a.png")):
        with pytest.raises(ValueError, match="uint8"):
            call()


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
    if min(source) > 3:
        assert fitted[size[0] // 2, size[1] // 2].min() > 240
        assert fitted[top + height // 2, left + 4].min() > 240 and fitted[top + 4, left + width // 2].min() > 240


def test_fitting_to_the_same_size_is_a_copy():
    photo = np.asarray(noise(16))
    fitted = fit_image(photo, (16, 16))
    assert (fitted == photo).all() and fitted is not photo
