"""Pictures over time, from a video, a picture or numbered pictures: raw for maps, as people see them for the
estimator."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError, shown
from ..media import open_picture, probe_video, read_video
from ..settings import MAX_FRAMES
from .gaps import gap_notices
from .numbered import MAX_FRAMES_READ, Entry, Folder, numbered
from .pictures import MAX_MAP_SIDE, kept, raw_rgb, reduction_notice, upright_rgb

_NUM_SAMPLES = 8
_MOST_FPS_OF_PHOTOS = 30.0


@dataclass(frozen=True)
class Stream:
    """Frames, uint8 (H, W, 3), all of one size, on their way.

    slots: the place in time of each. known: bool (T,), which places have a frame. numbers: what the places are called,
    for the user;
    None where that is their index. fps: None when unknown. notices: what the user should know.
    """

    frames: Iterator[np.ndarray]
    slots: Sequence[int]
    known: np.ndarray
    numbers: range | None
    fps: float | None
    notices: tuple[str, ...]


class VideoFrames:
    """A video. lossy: whether its pixels went through more than RGB. text: nothing; pictures may carry words."""

    def __init__(self, path: Path):
        self.path, self.name = path, shown(path.name)
        self.info = probe_video(path)
        self.lossy = not self.info.pixel_format.startswith(
            ("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8")
        )
        self.format = f"{self.info.codec}, {self.info.pixel_format}"
        self.text: dict[str, str] = {}

    def samples(self) -> list[np.ndarray]:
        """A few raw frames, spread over the whole."""
        wanted = {int((i + 0.5) * self.info.num_frames / _NUM_SAMPLES) for i in range(_NUM_SAMPLES)}
        frames = read_video(self.path, max_side=MAX_MAP_SIDE, nearest=True)
        return [frame for index, frame in enumerate(frames) if index in wanted]

    def maps(self) -> Stream:
        """All frames, raw, no side above MAX_MAP_SIDE. Raises InputError when there are too many."""
        stream = self._stream(_MOST_FPS_OF_PHOTOS if self.info.variable else self.info.fps, nearest=True)
        return replace(stream, notices=stream.notices + reduction_notice((self.info.height, self.info.width)))

    def photos(self) -> Stream:
        """The frames for the estimator, at 30 fps or fewer, no side above MAX_MAP_SIDE; of a long clip as many as are
        made at once."""
        return self._stream(min(_MOST_FPS_OF_PHOTOS, MAX_FRAMES / self.info.seconds), nearest=False)

    def _stream(self, most_fps: float, nearest: bool) -> Stream:
        rate, notices = self._rate(most_fps)
        length = self.info.num_frames if rate is None else math.ceil(self.info.seconds * rate) + 1
        if length > MAX_FRAMES_READ:
            raise InputError(
                f"{self.name} has {length} frames; at most {MAX_FRAMES_READ} are accepted, please cut it to the "
                "part that is needed."
            )
        frames = read_video(self.path, fps=rate, max_side=MAX_MAP_SIDE, nearest=nearest)
        return Stream(frames, range(length), np.ones(length, bool), None, rate or self.info.fps, notices)

    def _rate(self, most: float) -> tuple[float | None, tuple[str, ...]]:
        """The rate to resample to, None for the video's own, and what to tell."""
        fps = min(self.info.fps, most)
        if self.info.variable:
            return fps, (f"{self.name} has frames of uneven length; it is read at {fps:.4g} fps.",)
        if self.info.fps > most + 0.01:
            return fps, (f"{self.name} has {self.info.fps:.4g} fps; it is read at {fps:.4g} fps.",)
        return None, ()


class PictureFrames:
    """Pictures of a folder or zip, or one picture. text: what a PNG says of itself."""

    def __init__(self, folder: Folder, entries: list[Entry]):
        self.folder, self.name = folder, folder.name
        self.order = numbered(entries, folder.name, "pictures")
        self.text: dict[str, str] = {}  # a PNG's own words: charts and fps where this program wrote it
        first = self._open(self.order.entries[0])
        if first.format == "PNG":
            self.text = {key: value for key, value in first.info.items() if isinstance(value, str)}
        self.lossy, self.format = first.format == "JPEG", first.format
        self._size = (first.height, first.width)
        self._animation = (
            self.order.entries[0].name if first.format != "JPEG" and getattr(first, "n_frames", 1) > 1 else ""
        )

    def samples(self) -> list[np.ndarray]:
        """A few raw frames, spread over the whole."""
        count = len(self.order.entries)
        wanted = sorted({int((i + 0.5) * count / _NUM_SAMPLES) for i in range(_NUM_SAMPLES)})
        return [_reduced(raw_rgb(self._open(self.order.entries[index]))) for index in wanted]

    def maps(self) -> Stream:
        """All pictures, raw, no side above MAX_MAP_SIDE. The frames raise InputError when they differ in size."""
        return self._stream(lambda entry: raw_rgb(self._open(entry)), reduction_notice(self._size))

    def photos(self) -> Stream:
        """All pictures, upright, for the estimator, no side above MAX_MAP_SIDE. The frames raise InputError when they
        differ in size."""
        return self._stream(lambda entry: upright_rgb(self._open(entry)), ())

    def _stream(self, read: Callable[[Entry], np.ndarray], notices: tuple[str, ...]) -> Stream:
        order = self.order
        if self._animation:
            notices += (f"{self._animation} is an animation; its first picture is used.",)
        notices += gap_notices(order.known, "There are no pictures for", order.numbers)
        return Stream(self._of_one_size(read), order.slots, order.known, order.numbers, None, notices)

    def _of_one_size(self, read: Callable[[Entry], np.ndarray]) -> Iterator[np.ndarray]:
        shape = None
        for entry in self.order.entries:
            frame = read(entry)  # reduced only after the comparison
            shape = shape or frame.shape
            if frame.shape != shape:
                raise InputError(
                    f"{entry.name} in {self.name} is {frame.shape[1]} x {frame.shape[0]} pixels, but "
                    f"{self.order.entries[0].name} is {shape[1]} x {shape[0]}; all pictures of a sequence must have "
                    "one size."
                )
            yield _reduced(frame)

    def _open(self, entry: Entry):
        name = entry.name if entry.name == self.name else f"{entry.name} in {self.name}"
        return open_picture(io.BytesIO(self.folder.read(entry)), name)


def _reduced(frame: np.ndarray) -> np.ndarray:
    rows, columns = kept(*frame.shape[:2])
    return frame if frame.shape[:2] == (len(rows), len(columns)) else frame[rows[:, None], columns]
