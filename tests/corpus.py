"""Makes files that users may bring, good and hostile, each with what must come of it: the right arrays, or one plain
sentence."""

from __future__ import annotations

import bz2
import io
import json
import pickle
import shutil
import stat
import struct
import subprocess
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from drawn import drawn_clip
from numpy.lib import format as npy
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dreampose_core.media import write_gif
from dreampose_core.poses import PoseSequence, Reading, write_any
from dreampose_core.poses.maps import encode
from dreampose_core.poses.renderings import MAGIC_ANIMATE, PALETTES, PARULA

SIZE = (128, 96)  # (height, width) of all that is good
NUM_FRAMES = 6
RAN = "code_was_run"  # the file that hostile pickles would make


@dataclass(frozen=True)
class Case:
    """A file or folder, who reads it ("motion", "estimate", "photo" or "video"), and what must come of it.

    good: judges what the reader gives, None where it must refuse; words: what the refusal, or a notice, must say.
    """

    path: Path
    reader: str
    good: Callable[[object], bool] | None = None
    words: str = ""


@dataclass(frozen=True)
class Truth:
    """What the good files show: a drawn person, their pictures and its exact maps."""

    rgb: np.ndarray
    poses: PoseSequence

    @property
    def iuv(self) -> np.ndarray:
        return np.stack([encode(parts, uv) for parts, uv in zip(self.poses.parts, self.poses.uv)])


def estimate(frames: Iterable[np.ndarray]) -> PoseSequence:
    """Stands in for an estimator: a block in the middle of every picture."""
    maps = []
    for frame in frames:
        height, width = frame.shape[:2]
        maps.append(np.zeros((height, width), np.uint8))
        maps[-1][height // 4 : height // 4 * 3, width // 4 : width // 4 * 3] = 2
    return PoseSequence(np.stack(maps), None, "none")


def share_right(truth: np.ndarray, read: np.ndarray) -> float:
    """The share of right parts among the pixels that are person in either."""
    person = (truth > 0) | (read > 0)
    return float((truth == read)[person].mean())


def make(folder: Path) -> list[Case]:
    """Writes the whole corpus below `folder`, which is empty."""
    scene, cases = Truth(*drawn_clip(10_002, "dance", NUM_FRAMES, SIZE, fps=25.0)), []
    good, bad = (maps, renderings, ordinary, photos), (broken_archives, broken_maps, broken_pictures, not_poses, videos)
    for number, group in enumerate(good + bad):
        place = folder / f"{number}"
        place.mkdir()
        cases += [Case(place / name, *what) for name, *what in group(place, scene)]
    return cases


# --- what good means --------------------------------------------------------------------------------------------------


def _exact(poses: PoseSequence, form: str, charts: str = "", frames=slice(None), step: float = 0.0):
    """A reading whose parts and U, V are those of `poses` (U, V to within `step`), of the form named."""
    want = poses.select(frames)

    def judge(reading: Reading) -> bool:
        read = reading.poses
        same = (read.uv is None) == (want.uv is None) and len(read) == len(want)
        same = same and np.array_equal(read.parts, want.parts)
        if same and want.uv is not None:
            same = np.abs(read.uv.astype(np.float32) - want.uv.astype(np.float32)).max() <= step
        return bool(same and reading.form == form and read.charts == (charts or want.charts))

    return judge


# --- maps -------------------------------------------------------------------------------------------------------------

IUV_STEP = 0.5 / 255 + 5e-4
NPY_FORM = "original DreamPose U, V maps (.npy)"


def maps(place: Path, scene: Truth) -> Iterator[tuple]:
    """npz, the original's maps and IUV in all their places."""
    poses, frames = scene.poses, scene.iuv
    parts_only, uv_only = PoseSequence(poses.parts, None, "none", 24.0), PoseSequence(None, poses.uv, "densepose", 24.0)
    for name, kind in (("both", poses), ("parts", parts_only), ("uv", uv_only)):
        write_any(kind, place / f"{name}.npz")
        yield f"{name}.npz", "motion", _exact(kind, "pose file (npz)")
    _save_picture(place / "rendered" / "frame_00000.png", scene.rgb[0])
    for name in ("npz_named.zip", "npz without suffix", "rendered/poses.npz"):
        shutil.copy(place / "both.npz", place / name)
    for name, notice in (("npz_named.zip", ""), ("npz without suffix", ""), ("rendered", "poses.npz")):
        yield name, "motion", _exact(poses, "pose file (npz)"), notice

    def original(charts: str = "densepose", frames=slice(None)):
        return _exact(PoseSequence(None, poses.uv, poses.charts, poses.fps), NPY_FORM, charts, frames)

    write_any(poses, place / "written_maps")
    yield "written_maps", "motion", original(poses.charts)
    for name, kept, read, notice in (
        ("from_50", range(NUM_FRAMES), slice(None), ""),
        ("gap", (0, 1, 4, 5), [0, 1, 1, 4, 4, 5], "frames 52-53; they repeat the nearest frame"),
    ):
        for frame in kept:
            _save_npy(place / name / f"frame_{50 + frame}_densepose.npy", poses.uv[frame])
        yield name, "motion", original(frames=read), notice
    # 10 after 2, with photos, values beyond 0..1, another float type
    for index, number in enumerate((2, 10, 18, 26, 34, 42)):
        _save_npy(place / "with_photos" / f"frame_{number}_densepose.npy", poses.uv[index].astype(np.float32))
        _save_picture(place / "with_photos" / f"frame_{number}.png", scene.rgb[index])
    yield "with_photos", "motion", original(), "left out"
    loud = poses.uv.astype(np.float64) * 3 - 1
    _save_npy(place / "unclamped_7.npy", loud[0])
    yield "unclamped_7.npy", "motion", _exact(PoseSequence(None, loud[:1].astype(np.float32), "densepose"), NPY_FORM)
    _save_npy(place / "bytes_7.npy", poses.uv[0].astype(np.float64) * 255)
    yield "bytes_7.npy", "motion", None, "lie between 0 and 1"
    _save_npy(place / "fortran.npy", np.asfortranarray(poses.uv[0].astype(">f8")))
    yield "fortran.npy", "motion", original(frames=slice(0, 1))
    for name, inside in (("maps.zip", ""), ("deep.zip", "a/b c/d/")):
        yield _zip_of(place / name, place / "from_50", inside), "motion", original()

    write_any(poses, place / "ours.zip")
    yield "ours.zip", "motion", _exact(poses, "IUV images", step=IUV_STEP)
    write_any(parts_only, place / "ours_parts.zip")
    yield "ours_parts.zip", "motion", _exact(parts_only, "IUV images")
    for name, written, notice in (
        ("iuv", frames, "30 fps is assumed"),
        ("bgr", frames[..., ::-1], "V, U, I instead of I, U, V"),
    ):
        for index, frame in enumerate(written):
            _save_picture(place / name / f"IUV_{index:03d}.png", frame)
        yield name, "motion", _iuv(scene), notice
    mac = _zip_of(place / "mac.zip", place / "iuv")
    with zipfile.ZipFile(mac, "a") as archive:
        archive.writestr("__MACOSX/._IUV_000.png", b"junk")
        archive.writestr(".DS_Store", b"junk")
    yield mac, "motion", _iuv(scene)
    with_alpha, turned = np.dstack([frames[0], np.full(SIZE, 7, np.uint8)]), Image.Exif()
    turned[0x0112] = 6
    for name, picture, options in (
        ("single.png", frames[0], {}),
        ("single.webp", frames[0], {"lossless": True}),
        ("alpha.png", with_alpha, {}),
        ("turned.png", frames[0], {"exif": turned}),
    ):
        _save_picture(place / name, picture, **options)
        yield name, "motion", _iuv(scene, frames=slice(0, 1))
    for name, codec in (("ffv1.mkv", ["ffv1"]), ("x264rgb.mp4", ["libx264rgb", "-qp", "0"]), ("png.mov", ["png"])):
        encode_video(place / name, frames, ["-c:v", *codec])
        yield name, "motion", _iuv(scene, "IUV video")
    encode_video(place / "iuv_lossy.mp4", frames, ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p"])
    encode_video(place / "iuv_444.mp4", frames, ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p"])
    _save_picture(place / "iuv.jpg", frames[0], quality=95)
    _save_picture(place / "iuv_lossy.webp", frames[0], quality=90)
    frames[3, 0, 0] = (0, 3, 0)
    for index, frame in enumerate(frames):
        _save_picture(place / "spoilt" / f"{index}.png", frame)
    for name in ("iuv_lossy.mp4", "iuv_444.mp4", "iuv.jpg", "iuv_lossy.webp", "spoilt"):
        yield name, "motion", None, "compressed with loss"


def _iuv(scene: Truth, form: str = "IUV images", **options):
    return _exact(scene.poses, form, "densepose", step=IUV_STEP, **options)


def renderings(place: Path, scene: Truth) -> Iterator[tuple]:
    """Coloured DensePose in every style and container."""
    x264 = ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p"]
    codecs = {"mp4": x264, "mov": x264, "webm": ["-c:v", "libvpx-vp9", "-crf", "15", "-b:v", "0"]}
    suffixes, shares = ("mp4", "", "zip", "jpg", "webm", "gif", "png", "mov"), (0.85, 1, 1, 0.7, 0.8, 0.8, 1, 0.8)
    for number, (palette, suffix, least) in enumerate(zip(PALETTES, suffixes, shares)):
        name = f"{number}.{suffix}".strip(".")
        parts = scene.poses.parts[: 1 if suffix in ("png", "jpg") else 3]
        frames, fps = palette.colours[parts], 25.0 if suffix in codecs else None
        if suffix in codecs:
            encode_video(place / name, frames, codecs[suffix])
        elif suffix == "gif":
            write_gif(frames, place / name, 25)
        elif len(parts) == 1:
            _save_picture(place / name, frames[0], quality=90)
        else:
            for index, frame in enumerate(frames):
                _save_picture(place / str(number) / f"{index:04d}.png", frame)
        if suffix == "zip":
            _zip_of(place / name, place / str(number))
        swapped = "Red and blue are swapped" if palette.swapped else ""
        yield name, "motion", _near(parts, palette.form, least, fps), swapped
    write_any(PoseSequence(parts, None, "none", 12.5), place / "ours.mp4")
    yield "ours.mp4", "motion", _near(parts, MAGIC_ANIMATE.form, 0.92, 12.5)


def _near(parts: np.ndarray, form: str, least: float, fps: float | None):
    def judge(reading: Reading) -> bool:
        read = reading.poses
        right = read.uv is None and read.parts.shape == parts.shape and share_right(parts, read.parts) >= least
        return bool(right and reading.form == form and fps in (None, read.fps))

    return judge


def ordinary(place: Path, scene: Truth) -> Iterator[tuple]:
    """Clips and pictures of a person, for the estimator or without one."""

    def people(count, fps):
        def judge(reading: Reading) -> bool:
            poses = reading.poses
            same = len(poses) == count and abs(poses.fps - fps) < 0.01 and poses.size == SIZE
            return same and reading.form.startswith("estimated")

        return judge

    h264 = ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p"]
    encode_video(place / "clip.mp4", scene.rgb, h264)
    yield "clip.mp4", "estimate", people(NUM_FRAMES, 25.0)
    encode_video(place / "fast.mov", scene.rgb, h264, rate="60")
    yield "fast.mov", "estimate", people(NUM_FRAMES // 2, 30.0), "60 fps"
    for index, frame in enumerate(scene.rgb):
        _save_picture(place / "pictures" / f"p{index * 5}.jpg", frame, quality=90)
    yield "pictures", "estimate", people(NUM_FRAMES, 30.0), "30 fps is assumed"
    shutil.copytree(place / "pictures", place / "gaps")
    (place / "gaps" / "p10.jpg").unlink()
    yield "gaps", "estimate", people(NUM_FRAMES, 30.0), "frame 10; it repeats"
    _save_picture(place / "one.png", scene.rgb[0])
    yield "one.png", "estimate", people(1, 30.0)
    _save_picture(place / "black.png", np.zeros((40, 30, 3), np.uint8))
    for name in ("clip.mp4", "one.png", "black.png"):
        yield name, "motion", None, "no DensePose that is known"
    parts, photo = scene.poses.parts[0], scene.rgb[0]
    over = 0.7 * np.array([(0, 0, 0), *PARULA.colours[1:]])[parts] + 0.3 * photo
    _save_picture(place / "detectron2.png", np.where(parts[..., None] > 0, over, photo).astype(np.uint8))
    yield "detectron2.png", "estimate", None, "over the photo"


# --- photos and videos by themselves ----------------------------------------------------------------------------------


def photos(place: Path, scene: Truth) -> Iterator[tuple]:
    rgb = scene.rgb[0]
    image = Image.fromarray(rgb)

    def same(tolerance: int):
        return lambda got: got[0].shape == rgb.shape and np.abs(got[0].astype(int) - rgb).mean() <= tolerance

    for name, options in (
        ("rgb.png", {}),
        ("lossless.webp", {"lossless": True}),
        ("fine.jpg", {"quality": 95, "subsampling": 0}),
        ("progressive.jpg", {"quality": 95, "progressive": True}),
        ("lossy.webp", {"quality": 90}),
    ):
        image.save(place / name, **options)
        yield name, "photo", same(0 if name.endswith("png") or "lossless" in name else 6)
    others = [Image.fromarray(frame) for frame in scene.rgb[1:3]]
    for name, options in (("apng.png", {}), ("moving.webp", {"lossless": True})):
        image.save(place / name, save_all=True, append_images=others, **options)
        yield name, "photo", same(0), f"{name} is an animation of 3 pictures; its first one is used."
    for form in ("BMP", "TIFF", "GIF", "AVIF"):
        (place / form).write_bytes(_as(image, form))
        yield form, "photo", same(8)
    whole = (place / "rgb.png").read_bytes()
    (place / "png.txt").write_bytes(whole)
    yield "png.txt", "photo", same(0)
    no_image = "is not an image that can be read; PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP and GIF photos are accepted."
    damaged = "is damaged or cut short"
    for name, data, words in (
        ("cut.png", whole[: len(whole) // 2], damaged),
        ("end.png", whole[: len(whole) * 19 // 20], damaged),
        ("head_only.png", whole[:24], damaged),
        ("empty.jpg", b"", "is empty (0 bytes); PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP and GIF photos are accepted."),
        ("signature.png", whole[:8], no_image),
        ("text.png", b"hello, I am a photo", no_image),
        ("svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", no_image),
        ("page.jpg", b"<!DOCTYPE html><html></html>", no_image),
        *((f"{form.lower()}.png", _as(image, form), no_image) for form in ("ICO", "PPM", "PDF")),
        ("eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", no_image),
        ("huge.png", png_header(50_000, 50_000), "is far too large; at most 150 megapixels"),
        ("zero.png", png_header(0, 0), no_image),
        ("cut.jpg", (place / "fine.jpg").read_bytes()[:500], damaged),
        ("cut.webp", (place / "lossy.webp").read_bytes()[:100], damaged),
        ("bent.png", _bent(whole), damaged),
        ("pickle.png", pickle.dumps(_Runs(place / RAN)), no_image),
        ("zip.png", b"PK\x03\x04" + bytes(40), no_image),
    ):
        (place / name).write_bytes(data)
        yield name, "photo", None, f"{name} {words}"
    for path in (place / "missing.png", place, place / ("x" * 300)):
        yield path, "photo", None, "is a folder; give one photo" if path == place else "no image file"


def videos(place: Path, scene: Truth) -> Iterator[tuple]:
    h264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
    for name, options in (
        *((f"a.{suffix}", h264) for suffix in ("mp4", "mov", "mkv")),
        ("a.webm", ["-c:v", "libvpx-vp9", "-b:v", "200k"]),
        ("a.gif", []),
        ("front.mp4", [*h264, "-movflags", "+faststart"]),
    ):
        encode_video(place / name, scene.rgb, options)
    shutil.copy(place / "a.mp4", place / "a.txt")
    for path in sorted(place.iterdir()):
        yield path, "video", lambda info: (info.num_frames, info.height, info.width) == (NUM_FRAMES, *SIZE)
    whole = (place / "a.mp4").read_bytes()
    secret = place / "secret.mp4"
    secret.write_bytes(whole)
    hostile = {
        "cut.mp4": whole[: len(whole) // 2],
        "end.mp4": whole[:-200],
        "head.mp4": whole[:32],
        "empty.mp4": b"",
        "zeros.mp4": bytes(5000),
        "text.mp4": b"just some text\n",
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode(),
        "concat.mp4": f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        "net.mp4": b"#EXTM3U\nhttp://127.0.0.1:9/x.ts\n",
        "session.mp4": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        "dash.mp4": b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
        "ftyp.mp4": b"\0\0\0\x18ftypisom" + bytes(400),
        "ebml.mkv": b"\x1aE\xdf\xa3" + bytes(400),
        "gif.gif": b"GIF89a" + struct.pack("<HH", 60000, 60000) + bytes(40),
    }
    for name in ("a.webm", "a.gif"):
        hostile |= {f"cut{length}_{name}": (place / name).read_bytes()[:length] for length in (6, 40, 400)}
    accepted = "MP4, MOV, WebM, Matroska, AVI, MPEG, WMV and GIF are accepted."
    refused = f"is not a video that can be read, or it is damaged; {accepted}"
    for name, data in hostile.items():
        (place / name).write_bytes(data)
        yield name, "video", None, f"{name} {refused}"
        yield name, "estimate", None, name
    for form in ("flv", "ogg"):
        codec = ["-c:v", "libtheora"] if form == "ogg" else []
        encode_video(place / f"{form}.mp4", scene.rgb, [*codec, "-f", form])
        yield f"{form}.mp4", "video", None, f"{form}.mp4 {refused}"
    encode_video(place / "long.mp4", np.zeros((62, 16, 16, 3), np.uint8), h264, rate="1")
    yield "long.mp4", "estimate", lambda reading: len(reading.poses) == 60, "60 s"


# --- hostile ----------------------------------------------------------------------------------------------------------


def broken_archives(place: Path, scene: Truth) -> Iterator[tuple]:
    picture = _as(Image.fromarray(scene.iuv[0]), "PNG")

    def archive(name: str, members: dict, words: str, change=None, method=zipfile.ZIP_DEFLATED) -> tuple:
        path = place / name
        with zipfile.ZipFile(path, "w", method) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that are there twice
            for member, data in members.items() if isinstance(members, dict) else members:
                file.writestr(member, data)
        if change:
            path.write_bytes(change(path.read_bytes()))
        return name, "motion", None, words

    for index, out in enumerate(("../", "a/../../", "..\\", "/tmp/", "C:\\", "\\\\host\\")):
        yield archive(f"out{index}.zip", {f"{out}frame_1.png": picture}, "leads out of the zip")
    for name, kind, data in (("link.zip", stat.S_IFLNK, b"/etc/passwd"), ("device.zip", stat.S_IFIFO, b"")):
        special = zipfile.ZipInfo("frame_1.png")
        special.external_attr = (kind | 0o777) << 16
        yield archive(name, {special: data}, "is a link or a device")
    yield archive("secret.zip", {"frame_1.png": picture}, "encrypted", partial(_patched, new=b"\1", own=6, listed=8))
    yield archive("twice.zip", [("frame_1.png", picture), ("frame_1.png", picture)], "twice")
    yield archive("same_number.zip", {"a1.png": picture, "b01.png": picture}, "the same number 1")
    yield archive("two_folders.zip", {"a/1.png": picture, "b/1.png": picture}, "the same number 1")
    yield archive("no_numbers.zip", {"a.png": picture, "b.png": picture}, "no frame number")
    yield archive("far_apart.zip", {"a1.png": picture, "a5000.png": picture, "a5001.png": picture}, "at most 2000")
    yield archive("half.zip", {"a1.png": picture, "a2.png": picture, "a9.png": picture}, "at least half")
    yield archive("long_number.zip", {"a1.png": picture, f"a{'9' * 5000}.png": picture}, "no frame number")
    yield archive("many.zip", {f"{i}.png": b"" for i in range(2001)}, "at most 2000")
    yield archive("bomb.zip", {"frame_1.png": bytes(21 << 20)}, "at most 20 MB a file")
    lying = partial(_patched, new=struct.pack("<I", 1000), own=22, listed=24)
    yield archive("lying_bomb.zip", {"frame_1.png": bytes(21 << 20)}, "lying_bomb.zip", lying)
    yield archive("packed_bomb.zip", {"frame_1.png": bytes(15 << 20)}, "unusual way", method=zipfile.ZIP_BZIP2)
    yield archive("nothing.zip", {}, "holds no pictures")
    yield archive("texts.zip", {"readme.txt": b"hello"}, "holds no pictures")
    yield archive("nested.zip", {"inner.zip": b"PK\x03\x04"}, "holds no pictures")
    yield archive("empty_picture.zip", {"frame_1.png": b""}, "frame_1.png")
    yield archive("text_picture.zip", {"frame_1.png": b"hello"}, "not an image that can be read")
    yield archive("cut_picture.zip", {"frame_1.png": picture[:100]}, "frame_1.png")
    yield archive("huge_picture.zip", {"frame_1.png": png_header(50_000, 50_000)}, "far too large")
    yield archive("pickles.zip", {"results.pkl": pickle.dumps(_Runs(place / RAN))}, "is a pickle")
    yield archive("weights.pth.zip", {"archive/data.pkl": pickle.dumps(_Runs(place / RAN))}, "is a pickle")
    small = _as(Image.fromarray(scene.iuv[0][:50]), "PNG")
    yield archive("sizes.zip", {"1.png": picture, "2.png": picture, "3.png": small}, "one size")
    yield archive("odd.zip", {"\x1b[31m\u202e1.png": b"x"}, "not an image that can be read")
    yield archive("cut.zip", {"1.png": picture}, "damaged", lambda data: data[: len(data) * 2 // 3])
    yield archive("bent.zip", {"1.png": picture}, "1.png", _bent)
    directory = bytes(9 << 20) + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 9 << 20, 4, 0)
    for name, data in (("head.zip", b""), ("directory.zip", directory)):
        (place / name).write_bytes(b"PK\x03\x04" + data)
        yield name, "motion", None, "damaged"


def broken_maps(place: Path, scene: Truth) -> Iterator[tuple]:
    uv = scene.poses.uv[0].astype(np.float64)

    def file(name: str, data: bytes | np.ndarray, words: str) -> tuple:
        if isinstance(data, np.ndarray):
            np.save(place / name, data, allow_pickle=True)
        else:
            (place / name).write_bytes(data)
        return name, "motion", None, words

    whole = _npy_bytes((2, *SIZE), "<f8", uv.tobytes())
    holed = uv.copy()
    holed[0, 5, 5] = np.nan
    yield file("nan_1.npy", holed, "not finite")
    yield file("inf_1.npy", np.where(uv > 0.5, np.inf, uv), "not finite")
    yield file("objects.npy", np.array([_Runs(place / RAN)], dtype=object), "damaged")
    yield file("three.npy", np.zeros((3, 8, 8)), "(2, height, width)")
    yield file("flat.npy", np.zeros((8, 8)), "(2, height, width)")
    yield file("none.npy", np.zeros((2, 0, 8)), "(2, height, width)")
    yield file("whole.npy", np.zeros((2, 8, 8), np.int64), "int64")
    yield file("words.npy", np.full((2, 8, 8), "x"), "<U1")
    yield file("lies.npy", _npy_bytes((2, 50_000, 50_000), "<f8", uv.tobytes()), "lies.npy")
    yield file("minus.npy", _npy_bytes((2, -8, -8), "<f8", bytes(1024)), "minus.npy")
    yield file("cut.npy", whole[:-1000], "damaged")
    yield file("head.npy", b"\x93NUMPY", "damaged")
    code = b"{'descr': __import__('os'), 'shape': ()}".ljust(64)
    yield file("code.npy", b"\x93NUMPY\x01\x00\x40\x00" + code, "damaged")
    yield file("deep.npy", b"\x93NUMPY\x01\x00\x10\x27" + b"[" * 10000, "damaged")
    for index, size in enumerate(((8, 6), (8, 6), (8, 7))):
        _save_npy(place / "sizes" / f"frame_{index}_densepose.npy", np.zeros((2, *size)))
    yield "sizes", "motion", None, "one size"
    _save_npy(place / "side" / "frame_0_densepose.npy", uv)
    (place / "side" / "densepose.json").write_text('{"charts": "smpl", "fps": 25}')
    yield "side", "motion", None, "densepose.json"
    _save_npy(place / "not_all" / "frame_0_densepose.npy", uv)
    (place / "not_all" / "frame_1_densepose.npy").write_bytes(b"hello")
    yield "not_all", "motion", None, "frame_1_densepose.npy"
    good = {"parts": scene.poses.parts, "charts": np.array("none"), "fps": np.float64(25), "version": np.int64(1)}
    for name, change, words in (
        ("part25", {"parts": np.full((1, 8, 8), 25, np.uint8)}, "part 25"),
        ("objects", {"parts": np.array([_Runs(place / RAN)], dtype=object)}, "damaged"),
    ):
        np.savez(place / f"{name}.npz", **good | change)
        yield f"{name}.npz", "motion", None, words
    with zipfile.ZipFile(place / "packed.npz", "w", zipfile.ZIP_BZIP2) as archive:
        for name, array in good.items():
            archive.writestr(f"{name}.npy", _npy_bytes(array.shape, array.dtype.str, array.tobytes()))
    yield "packed.npz", "motion", None, "unusual way"
    whole = (place / "part25.npz").read_bytes()
    yield file("cut.npz", whole[: len(whole) // 2], "cut.npz")


def broken_pictures(place: Path, scene: Truth) -> Iterator[tuple]:
    frame = scene.iuv[0]
    for name, data in (
        ("huge.png", png_header(50_000, 50_000)),
        ("cut.png", _as(Image.fromarray(frame), "PNG")[:200]),
        ("jpeg.jpg", b"\xff\xd8\xff" + bytes(50)),
        ("riff.webp", b"RIFF" + bytes(40)),
        ("wave.webp", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40)),
    ):
        (place / name).write_bytes(data)
        yield name, "motion", None, name
    above = frame.copy()
    above[..., 0][above[..., 0] > 0] += 20
    _save_picture(place / "above_24.png", above)
    yield "above_24.png", "motion", None, "above_24.png"
    about = PngInfo()
    about.add_text("charts", "densepose")
    about.add_text("fps", "nan")
    _save_picture(place / "said.png", frame, pnginfo=about)
    yield "said.png", "motion", _iuv(scene, frames=slice(0, 1))
    _save_picture(place / "said_but_no_iuv.png", scene.rgb[0], pnginfo=about)
    yield "said_but_no_iuv.png", "motion", None, "said_but_no_iuv.png"
    bomb = PngInfo()
    bomb.add(b"zTXt", b"charts\0\0" + zlib.compress(bytes(64 << 20)))
    _save_picture(place / "text_bomb.png", frame, pnginfo=bomb)
    yield "text_bomb.png", "motion", None, "text_bomb.png"


def not_poses(place: Path, scene: Truth) -> Iterator[tuple]:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for name in (f"dump_{protocol}.pkl", f"dump_{protocol}.npy"):
            (place / name).write_bytes(pickle.dumps(_Runs(place / RAN), protocol))
            yield name, "motion", None, "is a pickle"
    (place / "model.pth").write_bytes(b"anything")
    (place / "with_dump").mkdir()
    (place / "with_dump" / "results.pkl").write_bytes(pickle.dumps(_Runs(place / RAN)))
    for name in ("model.pth", "with_dump"):
        yield name, "motion", None, "is a pickle"
    for name, data in (
        ("nothing", b""),
        ("nothing.npz", b""),
        ("letter.txt", b"Dear reader,\n"),
        ("noise.bin", bz2.compress(bytes(1000))),
        ("poses.json", json.dumps({}).encode()),
        ("program", b"\x7fELF" + bytes(60)),
        ("sheet.csv", b"a,b\n1,2\n"),
        ("line\nbreak.txt", b"x"),
        ("colour\x1b[31m.txt", b"x"),
        ('quote\'s "name".txt', b"x"),
        ("-i.txt", b"x"),
        ("%05d.txt", b"x"),
        ("w\u00e4nde \u4eba.txt", b"x"),
    ):
        (place / name).write_bytes(data)
        yield name, "motion", None, "accepted are pose files" if name != "nothing.npz" else "0 bytes"
    for name in ("no_files", "only_text"):
        (place / name).mkdir()
        yield name, "motion", None, "holds no pictures"
    (place / "only_text" / "a.txt").write_bytes(b"x")
    for name in ("not there.mp4", "x" * 300):
        yield name, "motion", None, "no file or folder"
    for name in ("wei\u00df 1.png", "line\nbreak 2.png", "-i 3.png", "%05d 4.png", "a:5.png"):
        _save_picture(place / name, scene.iuv[0])
        yield name, "motion", _iuv(scene, frames=slice(0, 1))


# --- makers -----------------------------------------------------------------------------------------------------------


class _Runs:
    """Pickled, it asks the reader to make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and then ends."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"")
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def encode_video(path: Path, frames: np.ndarray, options: list[str], rate: str = "25") -> None:
    """Runs ffmpeg over uint8 (T, H, W, 3) frames."""
    source = f"-f rawvideo -pix_fmt rgb24 -s {frames.shape[2]}x{frames.shape[1]} -r {rate} -i -".split()
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source, *options, f"file:{path}"]
    subprocess.run(command, input=frames.tobytes(), check=True)


def _save_npy(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    np.save(path, array if array.dtype.kind == "f" and array.dtype.itemsize > 2 else array.astype(np.float64))


def _save_picture(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)


def _zip_of(path: Path, folder: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
    return path


def _as(image: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def _bent(data: bytes) -> bytes:
    bent = bytearray(data)
    bent[len(bent) // 2] ^= 0x5A
    return bytes(bent)


def _patched(data: bytes, new: bytes, own: int, listed: int) -> bytes:
    """A zip of one file with a value changed in the file's own header and in the directory, at these offsets."""
    for place in (own, data.rindex(b"PK\1\2") + listed):
        data = data[:place] + new + data[place + len(new) :]
    return data


def _npy_bytes(shape, dtype: str, data: bytes) -> bytes:
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + data
