"""Whatever holds or shows a motion becomes a pose sequence: every DensePose form, found out by content, and videos
through an estimator."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..errors import InputError, shown
from ..media import is_video
from . import iuv, npy
from .gaps import fill_gaps, nearest_known, repeat_nearest
from .npz import read_poses
from .numbered import MAX_FRAMES_READ, Folder, bounded_zip, zipfile_magic
from .pictures import MAX_MAP_SIDE, SUFFIXES
from .renderings import Palette, is_overlay, palette_of, parts_of
from .sequence import Charts, PoseSequence
from .sources import PictureFrames, Stream, VideoFrames

__all__ = [
    "DEFAULT_FPS",
    "MAX_FRAMES_READ",
    "MAX_MAP_SIDE",
    "Estimate",
    "Photos",
    "Reading",
    "one_map",
    "own_maps",
    "read_any",
    "read_image_map",
    "read_image_poses",
]

DEFAULT_FPS = 30.0
NO_RATE = f"No rate is known, {DEFAULT_FPS:g} fps is assumed."
FORM_NPZ, FORM_ESTIMATED = "pose file (npz)", "estimated"
Estimate = Callable[[Iterable[np.ndarray]], PoseSequence]
"""uint8 (H, W, 3) RGB frames of one size -> maps of that size; frames without a person are all 0. `read_any` gives it
`Photos`."""

_HALVES = (
    lambda frame: frame[:, : frame.shape[1] // 2],
    lambda frame: frame[:, frame.shape[1] // 2 :],
    lambda frame: frame[: frame.shape[0] // 2],
    lambda frame: frame[frame.shape[0] // 2 :],
)
_PICKLES = (".pkl", ".pickle", ".pth", ".pt")
# Pickles of protocol 2 and up name themselves; older ones begin with a global's name or a container; all end in a full
# stop.
_PICKLE_START = re.compile(rb"\x80[\x00-\x05]|c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n|\((lp|dp|i[a-z_])|[\]}]q")
_PICTURE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
_ACCEPTED = (
    "accepted are pose files (.npz), frame_<n>_densepose.npy, IUV pictures, DensePose renderings and clips of a "
    "person, as a file, a folder or a zip"
)


@dataclass(frozen=True)
class Reading:
    """What `read_any` found: the poses, the name of the form they came in, and sentences the user should see."""

    poses: PoseSequence
    form: str
    notices: tuple[str, ...]

    def describe(self) -> str:
        """For example "120 frames at 30 fps, 640 x 512, MagicAnimate rendering, parts only"; the size is height x
        width."""
        poses, (height, width) = self.poses, self.poses.size
        if poses.uv is None:
            kinds = "parts only"
        else:
            kinds = f"{'U, V only' if poses.parts is None else 'parts and U, V'}, {poses.charts} charts"
        return (
            f"{len(poses)} frame{'s' * (len(poses) > 1)} at {poses.fps:.4g} fps, {height} x {width}, {self.form}, "
            f"{kinds}"
        )


@dataclass(frozen=True)
class Photos:
    """Frames that show a person, for an estimator, and what makes a reading of its maps.

    frames: uint8 (H, W, 3) RGB, of one size, once through. name: the file's, for sentences. kind: "video" or
    "pictures".
    slots: the place in time of each frame, of `length` places; a video may end a little earlier. numbers: what the
    places are called, None where that is their index. fps: None when unknown. notices: what the user should know of the
    frames.
    """

    frames: Iterable[np.ndarray]
    name: str
    kind: Literal["video", "pictures"]
    slots: tuple[int, ...]
    length: int
    numbers: range | None
    fps: float | None
    notices: tuple[str, ...]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.frames)

    def __length_hint__(self) -> int:  # for whoever shows progress (`operator.length_hint`)
        return len(self.slots)

    def reading(self, poses: PoseSequence) -> Reading:
        """What comes of the maps of all frames. Raises InputError where nobody was found, or in too few frames."""
        seen = np.array([poses.select(slice(i, i + 1)).mask.any() for i in range(len(poses))])
        if not seen.any():
            raise InputError(
                f"Nobody was found in {self.name}; please give pictures that show one person from head to foot."
            )
        numbers = None if self.numbers is None else [self.numbers[slot] for slot in self.slots]
        poses, notices = fill_gaps(poses, seen, "Nobody was found in", numbers)
        known = np.zeros(self.length, bool)
        known[list(self.slots)] = True
        if not known.all():
            place = np.zeros(self.length, int)
            place[list(self.slots)] = np.arange(len(poses))
            poses = poses.select(place[nearest_known(known)])
        fps, rate_notices = _rate(self.fps, len(poses))
        shown_as = "a video" if self.kind == "video" else "pictures" if len(poses) > 1 else "a picture"
        return Reading(
            replace(poses, fps=fps), f"{FORM_ESTIMATED} from {shown_as}", self.notices + notices + rate_notices
        )


def read_any(path: str | Path, estimate: Estimate | None = None) -> Reading:
    """The motion that the file or folder at `path` holds; what it is, is found out by its content.

    estimate: what to do with ordinary pictures and videos of a person; without it they are refused.
    Raises InputError with one sentence, and whatever `estimate` raises.
    """
    path = Path(path)
    name = shown(path.name or str(path))
    if os.path.isdir(path):
        return _read_folder(path, estimate)
    if not os.path.isfile(path):  # unlike Path.is_file, False for names that are too long or may not be looked at
        raise InputError(f"There is no file or folder at {shown(str(path))}; please check the name.")
    try:
        with open(path, "rb") as file:
            start = file.read(128)
            file.seek(-1, os.SEEK_END)
            end = file.read(1)
    except OSError as error:
        what = "is empty (0 bytes)" if _is_empty(path) else "may not be read; please check its permissions"
        raise InputError(f"{name} {what}; {_ACCEPTED}.") from error
    if path.suffix.lower() in _PICKLES or (end == b"." and _PICKLE_START.match(start)):
        raise _pickle(name)
    if zipfile_magic(path):
        return _read_zip(path, estimate)
    if start.startswith(b"\x93NUMPY"):
        with Folder(path) as folder:
            return _npy(folder, [replace(folder.entries[0], suffix=".npy")])
    if start.startswith(_PICTURE_STARTS):
        with Folder(path) as folder:
            return _from_frames(PictureFrames(folder, folder.entries), estimate)
    if is_video(path):
        return _from_frames(VideoFrames(path), estimate)
    if path.suffix.lower() == ".npz":
        return Reading(read_poses(path), FORM_NPZ, ())
    raise InputError(f"{name} is of no kind that is known here, or it is damaged; {_ACCEPTED}.")


def read_image_poses(spec: str | Path, estimate: Estimate | None = None) -> PoseSequence:
    """The poses of `read_image_map`, without its notices. Raises InputError as it does."""
    return read_image_map(spec, estimate).poses


def read_image_map(spec: str | Path, estimate: Estimate | None = None) -> Reading:
    """The one map that belongs to a photo, in any form: `FILE` takes the first, `FILE:K` map K. Raises InputError as
    `read_any` does."""
    text, frame = str(spec), 0
    head, colon, tail = text.rpartition(":")
    if colon and tail.isdecimal() and len(tail) < 10 and not os.path.exists(text):
        text, frame = head, int(tail)
    return one_map(read_any(text, estimate), frame)


def one_map(reading: Reading, frame: int = 0) -> Reading:
    """Map `frame` of a reading, as a photo's own. Raises InputError when there is none."""
    said = tuple(notice for notice in reading.notices if notice != NO_RATE)  # one map has no rate
    return replace(reading, poses=reading.poses.clip(frame, frame + 1), notices=said)


def own_maps(reading: Reading, num_photos: int) -> Reading:
    """A map for each of so many photos, in their order, where the reading holds as many; else its first, as the first
    photo's own."""
    first = one_map(reading)
    return replace(first, poses=reading.poses) if len(reading.poses) == num_photos else first


def _read_folder(path: Path, estimate: Estimate | None) -> Reading:
    with Folder(path) as folder:
        npzs = folder.with_suffix(".npz")
        if len(npzs) == 1 and not folder.with_suffix(".npy"):
            return Reading(
                read_poses(npzs[0].source), FORM_NPZ, (f"The poses are taken from {npzs[0].name} in {folder.name}.",)
            )
        return _numbered(folder, estimate)


def _read_zip(path: Path, estimate: Estimate | None) -> Reading:
    try:
        with bounded_zip(path) as archive:
            names = {info.filename for info in archive.infolist()}
    except Exception:  # zipfile raises many kinds on damaged files; who reads it next says so in words
        names = set()
    if any(name.endswith("data.pkl") for name in names):
        raise _pickle(shown(path.name))
    if path.suffix.lower() == ".npz" or {"version.npy", "charts.npy", "fps.npy"} <= names:
        return Reading(read_poses(path), FORM_NPZ, ())
    with Folder(path) as folder:
        return _numbered(folder, estimate)


def _numbered(folder: Folder, estimate: Estimate | None) -> Reading:
    maps, pictures = folder.with_suffix(".npy"), folder.with_suffix(*SUFFIXES)
    if maps:
        beside = (f"The pictures beside the maps in {folder.name} are left out.",) if pictures else ()
        return _npy(folder, maps, beside)
    if pictures:
        return _from_frames(PictureFrames(folder, pictures), estimate)
    if folder.with_suffix(*_PICKLES):
        raise _pickle(folder.with_suffix(*_PICKLES)[0].name)
    raise InputError(f"{folder.name} holds no pictures and no .npy maps; {_ACCEPTED}.")


def _npy(folder: Folder, entries: list, notices: tuple[str, ...] = ()) -> Reading:
    poses, found = npy.read_maps(folder, entries, DEFAULT_FPS)
    return Reading(poses, npy.FORM, notices + found)


def _from_frames(source: VideoFrames | PictureFrames, estimate: Estimate | None) -> Reading:
    """Maps, if the frames are such, else what the estimator says."""
    charts, fps = _own_words(source.text)
    samples = source.samples()
    order = iuv.RGB if charts else iuv.order_of(samples)
    if order is not None:
        return _iuv(source, order, charts, fps)
    palette = palette_of(samples)
    if palette is not None:
        return _rendering(source, palette)
    if is_overlay(samples):
        raise InputError(
            f"{source.name} seems to be detectron2's picture of DensePose over the photo, from which the parts cannot "
            "be won back; please let detectron2 write its dump (apply_net.py dump) and convert it with python -m "
            "dreampose_core poses convert FILE poses.npz."
        )
    if any(palette_of([half(frame) for frame in samples]) for half in _HALVES):
        raise InputError(
            f"{source.name} shows a DensePose rendering beside another picture, so which of them is meant is unclear; "
            "please cut it to the rendering alone, or to the person alone."
        )
    if estimate is None:
        raise InputError(
            f"{source.name} shows no DensePose that is known here (IUV, or the colours of MagicAnimate, vid2densepose "
            "or parula on black), and no estimator is chosen (--estimator, DREAMPOSE_ESTIMATOR); choose one, or bring "
            "a pose file (.npz), frame_<n>_densepose.npy, IUV pictures or a rendering."
        )
    return _estimated(source, estimate)


def _iuv(source: VideoFrames | PictureFrames, order: str, charts: Charts | None, fps: float | None) -> Reading:
    kind = "video" if isinstance(source, VideoFrames) else "picture"
    lossy = InputError(
        f"{source.name} looks like an IUV {kind} that was compressed with loss ({source.format}), which changes parts "
        "and U, V; please save the IUV frames as PNG, in a folder or a zip, or as FFV1 in .mkv."
    )
    if order == iuv.LOSSY or source.lossy:
        raise lossy
    stream = source.maps()
    parts = uv = None
    count = 0
    for slot, frame in zip(stream.slots, stream.frames):
        if not iuv.is_exact(frame, order):
            raise lossy
        if parts is None:
            parts, uv = np.zeros((len(stream.known), *frame.shape[:2]), np.uint8), None
            if charts != "none":
                uv = np.zeros((len(stream.known), 2, *frame.shape[:2]), np.float16)
        parts[slot], values = iuv.decode(frame, order)
        if uv is not None:
            uv[slot] = values
        count = slot + 1
    if order == iuv.BGR:
        said = f"{source.name} holds V, U, I instead of I, U, V, as red and blue swapped; it was put right."
        stream = replace(stream, notices=(said, *stream.notices))
    form = iuv.FORM_VIDEO if kind == "video" else iuv.FORM_IMAGES
    return _finished(parts[:count], uv if uv is None else uv[:count], charts or "densepose", fps, stream, form)


def _rendering(source: VideoFrames | PictureFrames, palette: Palette) -> Reading:
    stream = source.maps()
    parts, count = None, 0
    for slot, frame in zip(stream.slots, stream.frames):
        if parts is None:
            parts = np.zeros((len(stream.known), *frame.shape[:2]), np.uint8)
        parts[slot] = parts_of(frame, palette)
        count = slot + 1
    if palette.swapped:
        stream = replace(
            stream, notices=(f"Red and blue are swapped in {source.name}; they were put right.", *stream.notices)
        )
    return _finished(parts[:count], None, "none", None, stream, palette.form)


def _estimated(source: VideoFrames | PictureFrames, estimate: Estimate) -> Reading:
    stream = source.photos()
    kind = "video" if isinstance(source, VideoFrames) else "pictures"
    photos = Photos(
        stream.frames,
        source.name,
        kind,
        tuple(stream.slots),
        len(stream.known),
        stream.numbers,
        stream.fps,
        stream.notices,
    )
    return photos.reading(estimate(photos))


def _finished(parts, uv, charts: Charts, fps: float | None, stream: Stream, form: str) -> Reading:
    if not stream.known.all():
        for array in (parts, uv):
            if array is not None:
                repeat_nearest(array, stream.known)
    fps, notices = _rate(fps or stream.fps, len(parts))
    return Reading(PoseSequence(parts, uv, charts if uv is not None else "none", fps), form, stream.notices + notices)


def _rate(fps: float | None, length: int) -> tuple[float, tuple[str, ...]]:
    if fps is not None:
        return float(fps), ()
    return DEFAULT_FPS, (NO_RATE,) if length > 1 else ()


def _own_words(text: dict[str, str]) -> tuple[Charts | None, float | None]:
    """charts and fps as this program writes them into IUV pictures; None for what is not said."""
    try:
        fps = float(text["fps"])
    except (KeyError, ValueError):
        fps = 0.0
    charts = text.get("charts")
    return charts if charts in get_args(Charts) else None, fps if 1 <= fps <= 240 else None


def _is_empty(path: Path) -> bool:
    try:
        return os.path.getsize(path) == 0
    except OSError:
        return False


def _pickle(name: str) -> InputError:
    return InputError(
        f"{name} is a pickle, which may run code when opened, so it is never opened here; turn it into a safe file on "
        "your own machine with: python -m dreampose_core poses convert FILE poses.npz."
    )
