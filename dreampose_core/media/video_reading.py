"""Videos that others have made: what they are by their first bytes, their frames, and the limits that hold while they
are decoded."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError, shown
from .ffmpeg import Run, ffmpeg

MAX_SECONDS = 60
MAX_SIDE = 4096
MAX_FPS = 120
_ACCEPTED = "MP4, MOV, WebM, Matroska and GIF are accepted"
_QUICKTIME = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # a file without "ftyp" is an old MOV
_STREAM = re.compile(r"^\s*Stream #0:\d+.*?: Video: (\w+)(?!.*\(attached pic\))", re.MULTILINE)
_SOUND = re.compile(r"^\s*Stream #0:\d+.*?: Audio: ", re.MULTILINE)
_TOO_LARGE = re.compile(r"(?:Picture|Frame) size (\d+)x(\d+) exceeds")
# What the filter showinfo says at its start and of each frame
_SETTING = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
_FRAME = re.compile(r"n: *\d+ pts: *(-?\d+|NOPTS) .*?duration: *(-?\d+|NOPTS) .*?fmt:(\w+) .*?s:(\d+)x(\d+)")
# Pixels that are not square are made so. The limits keep a file from asking for a huge picture.
_SQUARE = "scale=w='round(iw*if(gt(sar,0),clip(sar,1/4,4),1))':h=ih:flags={flags},setsar=1"


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, found by decoding it.

    fps: frames per second; where frames are of uneven length, the rate of most of them. height, width: of the decoded
    frames, after rotation. codec: for example "h264". pixel_format: for example "yuv420p". seconds: from the first
    frame to the end of the last. variable: whether frames are of uneven length; `read_video` with fps makes them even.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    codec: str
    pixel_format: str
    seconds: float
    has_sound: bool
    variable: bool


def is_video(path: str | Path) -> bool:
    """Whether the first bytes of the file at `path` are those of a video that is accepted; False where it cannot be
    read."""
    try:
        return demuxer(path) is not None
    except InputError:
        return False


def demuxer(path: str | Path) -> str | None:
    """ffmpeg's name for the form of the file at `path`, by its first bytes; None when it is no accepted form. Raises
    InputError."""
    path = Path(path)
    if not os.path.isfile(path):  # unlike Path.is_file, False for names that are too long or may not be looked at
        raise InputError(f"There is no video file at {path}.")
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError as error:
        raise InputError(f"{shown(path.name)} may not be read; please check the file's permissions.") from error
    if start[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    return "mov" if start[4:8] in _QUICKTIME else None


def source(path: str | Path) -> list[str]:
    """ffmpeg's arguments that open the video at `path`, with the form forced and nothing but this file within reach.
    Raises InputError."""
    form = demuxer(path)
    if form is None:
        raise unreadable(path)
    limits = ["-max_pixels", str(MAX_SIDE * MAX_SIDE), "-threads", "2"]
    return ["-protocol_whitelist", "file", "-f", form, *limits, "-i", f"file:{Path(path)}"]


def read_video(
    path: str | Path, *, fps: float | None = None, max_side: int | None = None, nearest: bool = False
) -> Iterator[np.ndarray]:
    """Yields the frames of the first video stream as uint8 (H, W, 3), upright, in order, all of one size.

    fps: a constant rate to which frames are repeated or left out: of each moment the frame that is on the screen, or
    the next one if that comes within half a frame; None gives each frame once.
    max_side: larger pictures are reduced to this longer side, by averaging; with `nearest` by picking single pixels,
    for pictures whose colours are labels.

    Raises InputError with one sentence when the file is missing, is not an MP4, MOV, WebM, Matroska or GIF video, is
    damaged, or is longer, larger or faster than the limits above; for length and rate possibly after the first frames.
    """
    flags = "neighbor" if nearest else "area"
    filters = [_SQUARE.format(flags=flags), "showinfo=checksum=0"]
    if fps is not None:
        # "up" takes the last frame before each moment; with times earlier by half a frame it is the nearest one.
        half = f"if(gt(FR,0),0.5/max(FR,{fps:.6f}),0.25/{fps:.6f})"
        filters.append(f"setpts='PTS-STARTPTS-{half}/TB',fps={Fraction(fps).limit_denominator(100_000)}:round=up")
    if max_side is not None:
        filters.append(
            "format=rgb24"
        )  # before the scaling, so that colours of a map are not mixed by halved chroma planes
        filters.append(
            f"scale=w='min(iw,{max_side})':h='min(ih,{max_side})':force_original_aspect_ratio=decrease:flags={flags}"
        )
    output = ["-fps_mode", "passthrough", "-c:v", "ppm", "-f", "image2pipe", "-"]
    most = int((MAX_SECONDS + 1) * (fps or MAX_FPS)) + 2
    watch, num_frames, shape = _Watch(path), 0, None
    with _decoding(path, filters, output, watch) as run:
        pipe = run.process.stdout
        while True:
            with run.waiting():
                header = pipe.readline()  # each frame: "P6\n", "width height\n", "255\n", H * W * 3 bytes
                if header != b"P6\n":
                    break
                width, height = (int(n) for n in pipe.readline().split() or (0, 0))
                pipe.readline()
                data = bytearray(height * width * 3)
                complete = pipe.readinto(data) == len(data)
            if not complete or not data or (shape or (height, width, 3)) != (height, width, 3):
                break
            num_frames, shape = num_frames + 1, (height, width, 3)
            if num_frames > most:
                raise watch.too_long()
            yield np.frombuffer(data, np.uint8).reshape(shape)
        if header:
            run.process.kill()  # it has more to say than we can use
        watch.check(run)


def probe_video(path: str | Path) -> VideoInfo:
    """What the video at `path` holds, found by decoding all of it. Raises InputError as `read_video` does."""
    watch = _Watch(path)
    output = ["-fps_mode", "passthrough", "-f", "null", "-"]
    with _decoding(path, [_SQUARE.format(flags="area"), "showinfo=checksum=0"], output, watch) as run:
        watch.check(run)
    given = run.head.partition("Output #0")[0]
    stream = _STREAM.search(given)
    fps, variable = watch.rate()
    return VideoInfo(
        watch.num_frames,
        fps,
        *watch.size,
        stream[1] if stream else "unknown",
        watch.pixel_format,
        watch.seconds(),
        _SOUND.search(given) is not None,
        variable,
    )


def unreadable(path: str | Path) -> InputError:
    """The refusal of what cannot be decoded."""
    return InputError(f"{shown(Path(path).name)} is not a video that can be read, or it is damaged; {_ACCEPTED}.")


def _decoding(path: str | Path, filters: list[str], output: list[str], watch: _Watch):
    # -map 0:V:0: the first video stream that is not a cover picture
    arguments = ["-xerror", *source(path), "-map", "0:V:0", "-filter_threads", "1", "-vf", ",".join(filters), *output]
    return ffmpeg(arguments, on_line=watch.look, limited=True, stdout=subprocess.PIPE)


class _Watch:
    """Looks at each decoded frame, as the filter showinfo tells of it, and ends ffmpeg when a limit is passed."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.refusal: InputError | None = None
        self.size: tuple[int, int] | None = None  # (height, width)
        self.pixel_format = ""
        self.num_frames = 0
        self.times: list[int] = []  # when the frames begin, in time bases
        self.last_duration = 0  # in time bases
        self.time_base = Fraction(1, 1000)  # seconds
        self.declared_rate: Fraction | None = None

    def look(self, run: Run, line: str) -> bool:
        if not line.startswith("[Parsed_showinfo"):
            return False
        if found := _FRAME.search(line):
            self._frame(*found.groups())
            self.refusal = self.refusal or self._judge()
            if self.refusal is not None:
                run.process.kill()
        elif (found := _SETTING.search(line)) and not self.times:
            base, rate = ((int(found[i]), int(found[i + 1])) for i in (1, 3))
            self.time_base = Fraction(*base) if all(base) else self.time_base
            self.declared_rate = Fraction(*rate) if all(rate) else None
        return True

    def _frame(self, time: str, duration: str, pixel_format: str, width: str, height: str) -> None:
        self.num_frames += 1
        last = self.times[-1] if self.times else 0
        self.times.append(last if time == "NOPTS" else int(time))
        self.last_duration = 0 if duration == "NOPTS" else int(duration)
        size = (int(height), int(width))
        if self.size not in (None, size):
            self.refusal = InputError(
                f"{shown(self.path.name)} changes its picture size from {self.size[1]} x {self.size[0]} to {size[1]} x "
                f"{size[0]} on the way; please convert it to one size."
            )
        self.size, self.pixel_format = size, pixel_format

    def _judge(self) -> InputError | None:
        if max(self.size) > MAX_SIDE:
            return self._too_large(*self.size)
        elapsed = float((self.times[-1] - self.times[0]) * self.time_base)
        if elapsed > MAX_SECONDS:
            return self.too_long()
        if self.num_frames > MAX_SECONDS * MAX_FPS + 1 or (
            elapsed >= 1 and self.num_frames - 2 > 1.01 * MAX_FPS * elapsed
        ):
            return self._too_fast()
        return None

    def too_long(self) -> InputError:
        return InputError(
            f"{shown(self.path.name)} is longer than {MAX_SECONDS} seconds; please cut it to the part that is needed."
        )

    def _too_fast(self) -> InputError:
        return InputError(
            f"{shown(self.path.name)} has more than {MAX_FPS} frames per second; please convert it to {MAX_FPS} or "
            "fewer."
        )

    def _too_large(self, height: int, width: int) -> InputError:
        return InputError(
            f"{shown(self.path.name)} is {width} x {height} pixels; at most {MAX_SIDE} per side are accepted, "
            "scale it down."
        )

    def seconds(self) -> float:
        """From the first frame to the end of the last."""
        elapsed = float((self.times[-1] - self.times[0]) * self.time_base)
        return elapsed + (float(self.last_duration * self.time_base) or 1 / self.rate()[0])

    def rate(self) -> tuple[float, bool]:
        """Frames per second, and whether they are of uneven length."""
        declared = float(self.declared_rate or 0) or (
            float(1 / (self.last_duration * self.time_base)) if self.last_duration else 0.0
        )
        steps = np.diff(self.times) * float(self.time_base)  # seconds
        if len(steps) == 0 or steps.sum() <= 0:
            return min(max(declared or 25.0, 1.0), MAX_FPS), False
        mean = steps.mean()
        tick = float(self.time_base) if self.time_base <= Fraction(1, 100) else 0.0
        uneven = np.abs(steps - mean).max() > max(mean / 4, 1.01 * tick, 0.0015)
        fps = 1 / max(np.median(steps), 1 / MAX_FPS) if uneven else 1 / mean
        if declared and abs(fps - declared) < 0.005 * declared:
            fps = declared  # times rounded to milliseconds do not tell 30 from 29.97
        return (float(fps), bool(uneven)) if fps >= 1 else (1.0, True)

    def check(self, run: Run) -> None:
        """Waits for ffmpeg's end; raises InputError unless all frames were decoded and lie within the limits."""
        status = run.finish()
        name = shown(self.path.name)
        if self.refusal is not None:
            raise self.refusal
        if run.out_of_time:
            raise InputError(f"{name} takes too long to decode; please convert it to a shorter or smaller MP4.")
        if status != 0 or self.num_frames == 0:
            if found := _TOO_LARGE.search(run.head + run.tail):
                raise self._too_large(int(found[2]), int(found[1]))
            if "matches no streams" in run.tail and "Stream #0" in run.head:
                raise InputError(f"{name} holds no video; {_ACCEPTED}.")
            if run.out_of_memory:
                raise InputError(
                    f"{name} needs more memory to decode than is allowed; please convert it to a smaller MP4."
                )
            raise unreadable(self.path)
        if self.num_frames > 1 and self.num_frames - 1 > 1.01 * MAX_FPS * self.seconds():
            raise self._too_fast()
        if self.seconds() > MAX_SECONDS + 0.5:
            raise self.too_long()
