"""Read frames from a video, a picture or numbered files: raw for pose maps, as displayed for the estimator."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..errors import InputError, shown
from ..media import from_pil, open_picture, probe_video, read_video
from ..settings import MAX_FRAMES
from .numbered import MAX_FRAMES_READ, Entry, Folder, gap_notices, in_time, nearest_known
from .sequence import Charts, PoseSequence

DEFAULT_FPS = 30.0
NO_RATE = f"No rate is known, {DEFAULT_FPS:g} fps is assumed."
FORM_NPZ, FORM_ESTIMATED = "pose file (npz)", "estimated"
MAX_MAP_SIDE = 768
SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
_NUM_SAMPLES = 8
_MOST_FPS_OF_PHOTOS = 30.0
_EXACT_PIXELS = ("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8")


@dataclass(frozen=True)
class Reading:
    """A pose sequence as it was read, with the name of its format and notices for the user."""

    poses: PoseSequence
    form: str
    notices: tuple[str, ...]

    def describe(self) -> str:
        """Describe the reading, for example "120 frames at 30 fps, 640 x 512, MagicAnimate rendering, parts only".

        The size is height x width.
        """
        poses, (height, width) = self.poses, self.poses.size
        frames = f"{len(poses)} frame{'s' * (len(poses) > 1)} at {poses.fps:.4g} fps"
        kinds = "U, V only" if poses.parts is None else "parts only" if poses.uv is None else "parts and U, V"
        charts = "" if poses.uv is None else f", {poses.charts} charts"
        return f"{frames}, {height} x {width}, {self.form}, {kinds}{charts}"


@dataclass(frozen=True)
class Frames:
    """Frames from which a pose sequence is made: pose maps to decode, or pictures of a person for an estimator.

    frames: (H, W, C) of one size, iterable once; uint8 RGB for an estimator. name: the file's name for messages. slots:
    the position in time of each frame; a video may end a little earlier. numbers: the frame numbers of all positions.
    fps: None when unknown. notices: for the user.
    """

    frames: Iterable[np.ndarray]
    name: str
    kind: Literal["video", "pictures"]
    slots: tuple[int, ...]
    numbers: Sequence[int]
    fps: float | None = None
    notices: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.frames)

    def __length_hint__(self) -> int:  # for `operator.length_hint`, to show progress
        return len(self.slots)

    def decoded(self, decode: Callable, charts: Charts, form: str, fps: float | None = None) -> Reading:
        """Make the reading from frames that are pose maps.

        decode: returns the known maps of a frame by name: parts, uint8 (H, W), and uv (2, H, W).
        """
        maps: dict[str, np.ndarray] = {}
        for index, frame in enumerate(self.frames):
            for name, map_ in decode(frame).items():
                if index == 0:
                    maps[name] = np.zeros((len(self.slots), *map_.shape), map_.dtype)
                maps[name][index] = map_
        maps = {name: array[: index + 1] for name, array in maps.items()}
        poses = PoseSequence(maps.get("parts"), maps.get("uv"), charts if "uv" in maps else "none")
        return self._reading(poses, np.ones(len(poses), bool), form, fps or self.fps)

    def estimated(self, poses: PoseSequence) -> Reading:
        """Make the reading from an estimator's maps of all frames; frames without a person repeat the nearest one.

        Raises InputError when no person was found, or in too few frames.
        """
        seen = np.array([poses.mask_of(index).any() for index in range(len(poses))])
        if not seen.any():
            raise InputError(f"No person was found in {self.name}; give pictures of one person from head to foot.")
        notices = gap_notices(seen, "No person was found in", [self.numbers[slot] for slot in self.slots])
        shown_as = "a video" if self.kind == "video" else "pictures" if len(self.numbers) > 1 else "a picture"
        return self._reading(poses, seen, f"{FORM_ESTIMATED} from {shown_as}", self.fps, notices)

    def _reading(
        self, poses: PoseSequence, seen: np.ndarray, form: str, fps: float | None, notices: tuple[str, ...] = ()
    ) -> Reading:
        """Make the reading from the frames' maps: positions without a frame, and frames that are not `seen`, bool (T,),
        repeat the nearest one."""
        slots = self.slots[: len(poses)]
        known = np.isin(np.arange(len(self.numbers) - len(self.slots) + len(slots)), slots)
        indices = nearest_known(seen)[np.searchsorted(slots, nearest_known(known))]
        if not np.array_equal(indices, np.arange(len(poses))):
            poses = poses.select(indices)
        notices = self.notices + notices + (NO_RATE,) * (fps is None and len(poses) > 1)
        return Reading(replace(poses, fps=float(fps or DEFAULT_FPS)), form, notices)


class Video:
    """A video.

    lossy: whether its pixels are stored in another form than RGB. stored: how its colours are taken to be stored,
    see `read_video`. text: empty, unlike that of pictures.
    """

    kind = "video"

    def __init__(self, path: Path):
        self.path, self.name = path, shown(path.name)
        self.info = probe_video(path, partly=True)
        self.stored: str | None = None
        self.lossy = not self.info.pixel_format.startswith(_EXACT_PIXELS)
        self.format = f"{self.info.codec}, {self.info.pixel_format}"
        self.text: dict[str, str] = {}

    def samples(self) -> list[np.ndarray]:
        """Read a few raw frames, spread over the whole video."""
        wanted = _spread(self.info.num_frames)
        return [frame for index, frame in enumerate(self._read(None, nearest=True)) if index in wanted]

    def frames(self, raw: bool) -> Frames:
        """Read all frames: `raw`, or for the estimator, which gets 30 fps at most, and about MAX_FRAMES in all.

        Raises InputError when there are too many.
        """
        info, rate, notices = self.info, None, ()
        most = info.fps if raw and not info.variable else _MOST_FPS_OF_PHOTOS
        fps = min(info.fps, most if raw else min(most, MAX_FRAMES / info.seconds))
        if info.variable:
            rate, notices = fps, (f"{self.name} has frames of uneven length; it is read at {fps:.4g} fps.",)
        elif info.fps > fps + 0.01 and info.num_frames > 1:
            rate, notices = fps, (f"{self.name} has {info.fps:.4g} fps; it is read at {fps:.4g} fps.",)
        numbers = range(info.num_frames if rate is None else math.ceil(info.seconds * rate) + 1)
        if len(numbers) > MAX_FRAMES_READ:
            many = f"{self.name} has {len(numbers)} frames"
            raise InputError(f"{many}; at most {MAX_FRAMES_READ} are accepted, please cut it.")
        if info.left_out:
            notices = (f"{self.name} {info.left_out}", *notices)
        if raw:
            notices += reduction_notice((info.height, info.width))
        frames = self._read(rate, nearest=raw)
        return Frames(frames, self.name, self.kind, tuple(numbers), numbers, fps, notices)

    def _read(self, fps: float | None, nearest: bool) -> Iterator[np.ndarray]:
        how = {"max_side": MAX_MAP_SIDE, "nearest": nearest, "stored": self.stored, "partly": True}
        return read_video(self.path, fps=fps, **how)


def _spread(count: int) -> list[int]:
    """A few indices, spread over `count` frames."""
    return sorted({int((i + 0.5) * count / _NUM_SAMPLES) for i in range(_NUM_SAMPLES)})


class Pictures:
    """Pictures of a folder or zip, or one picture; if that is animated, its frames are a video.

    text: the text fields of a PNG, which include charts and fps if this program wrote it.
    """

    def __init__(self, folder: Folder, entries: list[Entry]):
        self.folder, self.name, self.entries = folder, folder.name, in_time(entries, folder.name, "pictures")[0]
        self._first = first = self._open(self.entries[0])
        self.lossy, self.format = first.format == "JPEG", first.format
        self.text = {key: x for key, x in first.info.items() if isinstance(x, str) and first.format == "PNG"}
        self.kind, self._count, self._notices = "pictures", len(entries), ()
        if first.format != "JPEG" and getattr(first, "n_frames", 1) > 1:
            if len(entries) == 1:
                self.kind, self._count, self.text = "video", min(first.n_frames, MAX_FRAMES_READ), {}
            else:
                self._notices = (f"{self.entries[0].name} is an animation; its first picture is used.",)

    def samples(self) -> list[np.ndarray]:
        """Read a few raw frames, spread over the whole sequence."""
        return [reduced(_raw(self._at(index))) for index in _spread(self._count)]

    def frames(self, raw: bool) -> Frames:
        """Read all frames: `raw`, or upright, for the estimator."""
        read = _raw if raw else _upright
        if self.kind == "pictures":
            return numbered_frames(
                self.folder, self.entries, "pictures", lambda entry: read(self._open(entry)), self._notices
            )
        numbers = range(self._count)
        lengths = [self._at(index).info.get("duration", 0) for index in numbers]
        rate = 1000 / (float(np.median(lengths)) or 1000 / DEFAULT_FPS)
        frames = (reduced(read(self._at(index))) for index in numbers)
        return Frames(frames, self.name, self.kind, tuple(numbers), numbers, rate)

    def _open(self, entry: Entry) -> Image.Image:
        return open_picture(io.BytesIO(self.folder.read(entry)), self.folder.where(entry))[0]

    def _at(self, index: int) -> Image.Image:
        if self.kind == "pictures":
            return self._open(self.entries[index])
        self._first.seek(index)
        return self._first


def numbered_frames(
    folder: Folder, entries: list[Entry], what: str, read: Callable[[Entry], np.ndarray], notices: tuple[str, ...] = ()
) -> Frames:
    """Read numbered files of a folder or zip, or one file, with no side above MAX_MAP_SIDE.

    what: their kind, for messages. read: returns (H, W, C) of an entry. Iterating over the frames raises InputError
    when they differ in size.
    """
    entries, slots, numbers = in_time(entries, folder.name, what)
    shape = read(entries[0]).shape

    def frames() -> Iterator[np.ndarray]:
        for entry in entries:
            frame = read(entry)  # reduced only after the comparison of sizes
            if frame.shape != shape:
                one, other = (f"{width} x {height}" for height, width, _ in (frame.shape, shape))
                sizes = f"{one} pixels, but {entries[0].name} {other}"
                raise InputError(f"{entry.name} in {folder.name} is {sizes}; all need one size.")
            yield reduced(frame)

    gaps = gap_notices(np.isin(np.arange(len(numbers)), slots), f"There are no {what} for", numbers)
    notices += reduction_notice(shape[:2]) + gaps
    return Frames(frames(), folder.name, "pictures", slots, numbers, notices=notices)


def _raw(image: Image.Image) -> np.ndarray:
    """The stored values, uint8 (H, W, 3): neither rotated nor colour-managed, without transparency."""
    if image.mode in ("RGBA", "RGBX"):
        return np.array(image)[..., :3]
    return np.array(image.convert("RGB")) if image.mode in ("RGB", "P", "L", "1", "LA", "PA") else from_pil(image)


def _upright(image: Image.Image) -> np.ndarray:
    """The picture as displayed, uint8 (H, W, 3), averaged down to MAX_MAP_SIDE if it is larger."""
    pixels = from_pil(image)
    size = reduced_size(pixels.shape[:2])
    if size == pixels.shape[:2]:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BOX))


def reduced_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) reduced so that no side is longer than MAX_MAP_SIDE."""
    scale = min(1.0, MAX_MAP_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduced(frame: np.ndarray) -> np.ndarray:
    """Reduce (H, W, ...) to its reduced size by nearest neighbour."""
    size = reduced_size(frame.shape[:2])
    rows, columns = (((np.arange(n) + 0.5) * side / n).astype(int) for side, n in zip(frame.shape, size))
    return frame if frame.shape[:2] == size else frame[rows[:, None], columns]


def reduction_notice(size: tuple[int, int]) -> tuple[str, ...]:
    """The notice about maps of (height, width) `size` that are reduced; empty when they are not."""
    height, width = reduced_size(size)
    if (height, width) == tuple(size):
        return ()
    return (f"The frames of {size[1]} x {size[0]} pixels are reduced to {width} x {height}.",)
