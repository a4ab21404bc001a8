"""Read user videos: detect the format by the first bytes, decode the frames, and enforce limits meanwhile."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError, shown
from .ffmpeg import Run, ffmpeg

MAX_SECONDS = 60
MAX_PIXELS = 7680 * 4320  # 8K
MAX_FPS = 240
_ACCEPTED = "MP4, MOV, WebM, Matroska, AVI, MPEG, WMV and GIF are accepted"
_TOO_LONG = f"is longer than {MAX_SECONDS} seconds; please cut it to the part that is needed."
_TOO_FAST = f"has more than {MAX_FPS} frames per second; please convert it to {MAX_FPS} or fewer."
_TOO_LARGE = "is {} x {} pixels; at most 7680 x 4320 are accepted, scale it down."
# The first bytes of each format, by ffmpeg's name for it.
_FORMS = {
    "matroska": rb"\x1aE\xdf\xa3",
    "gif": rb"GIF8[79]a",
    "avi": rb"RIFF.{4}AVI ",
    "asf": rb"\x30\x26\xb2\x75",
    "mpeg": rb"\0\0\x01\xba",
    "mpegts": rb"G.{187}G.{200}|.{4}G.{191}G.{192}",
    "mov": rb".{4}(ftyp|moov|mdat|wide|free|skip|pnot)",  # old MOV files have no "ftyp"
}
_STREAM = re.compile(r"^\s*Stream #0:\d+.*?: Video: (\w+)(?!.*\(attached pic\))", re.MULTILINE)
_EXCEEDS = re.compile(r"(?:Picture|Frame) size (\d+)x(\d+) exceeds")
# Messages of the filter showinfo: one at its start, one for each frame
_SETTING = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
_FRAME = re.compile(r"n: *\d+ pts: *(-?\d+|NOPTS) .*?duration: *(-?\d+|NOPTS) .*?fmt:(\w+) .*?s:(\d+)x(\d+)")
_LENGTH = re.compile(r"Duration: (\d+):(\d+):([\d.]+)")
_BRIGHT = re.compile(r"Video: .*(arib-std-b67|smpte2084)")  # the transfer functions of HDR, as phones film it
# To standard range: linear light of 100 nits, one curve for all colours.
_TONES = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=mobius:desat=0,zscale=t=bt709:m=bt709:r=tv,"
    "format=yuv444p"
)
# Makes pixels square. The limits of the pixel aspect keep a file from asking for a huge picture.
_SQUARE = "scale=w='round(iw*if(gt(sar,0),clip(sar,1/4,4),1))':h=ih:flags={flags},setsar=1"


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, measured by decoding it.

    fps: frames per second; with a variable rate, 1 / the median frame's length. height, width: of the decoded frames,
    after rotation. codec: for example "h264". pixel_format: for example "yuv420p". seconds: from the first frame's
    start to the last frame's end. variable: whether frames differ in length; `read_video` with fps makes them equal.
    start_s: when the first frame comes, from the file's start, which may be its sound's. left_out: why the end is left
    out, "" if it is not.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    codec: str
    pixel_format: str
    seconds: float
    variable: bool
    start_s: float
    left_out: str


def is_video(path: str | Path) -> bool:
    """Return whether the file at `path` begins like an accepted video format; False when it cannot be read."""
    try:
        return bool(source(path))
    except InputError:
        return False


def source(path: str | Path) -> list[str]:
    """ffmpeg's arguments that open the video at `path`, with its format, known by its first bytes, forced, so that
    ffmpeg reads only this file. Raises InputError."""
    path = Path(path)
    if not os.path.isfile(path):  # unlike Path.is_file, does not raise for names too long or without permission
        raise InputError(f"There is no video file at {path}.")
    try:
        with open(path, "rb") as file:
            start = file.read(400)
    except OSError as error:
        raise InputError(f"{shown(path.name)} may not be read; please check the file's permissions.") from error
    form = next((form for form, magic in _FORMS.items() if re.match(magic, start, re.DOTALL)), None)
    if form is None:
        raise unreadable(path)
    limits = ["-max_pixels", str(MAX_PIXELS), "-threads", "2"]
    return ["-protocol_whitelist", "file", "-f", form, *limits, "-i", f"file:{path}"]


def read_video(
    path: str | Path,
    *,
    fps: float | None = None,
    max_side: int | None = None,
    nearest: bool = False,
    stored: str | None = None,
    partly: bool = False,
) -> Iterator[np.ndarray]:
    """Yield the frames of the first video stream as uint8 (H, W, 3), upright, in order, all of one size; HDR is mapped
    to standard range.

    fps: a constant rate, for which frames are repeated or left out: each moment gets the frame on the screen, or the
    next one if that comes within half a frame. None yields each frame once.
    max_side: scale larger pictures down to this longer side, by averaging; with `nearest` by picking single pixels, for
    pictures whose colours are labels.
    stored: how colours are stored, as options of ffmpeg's filter scale, instead of what the file says; for example
    "in_color_matrix=bt709:in_range=limited".
    partly: of a file that is too long or damaged later on, yield the beginning.

    Raises InputError with one sentence when the file is missing, is of a format that is not accepted, is
    damaged, or exceeds MAX_SECONDS, MAX_PIXELS or MAX_FPS; length and rate possibly only after the first frames.
    """
    flags, smaller, rate = "neighbor" if nearest else "area", [], []
    if max_side is not None:
        sides = f"w='min(iw,{max_side})':h='min(ih,{max_side})'"
        smaller = [f"scale={sides}:force_original_aspect_ratio=decrease:flags={flags}"]
    if fps is not None:
        # "up" takes the last frame before each moment; shifting times back by half a frame makes it the nearest.
        half = f"if(gt(FR,0),0.5/max(FR,{fps:.6f}),0.25/{fps:.6f})"
        rate = [f"setpts='PTS-STARTPTS-{half}/TB',fps={Fraction(fps).limit_denominator(100_000)}:round=up"]
    colours = [*([f"scale={stored}"] if stored else []), "format=rgb24"]
    # Labels are picked after the conversion to RGB: halved chroma planes would mix a pose map's colours.
    steps = [*rate, *colours, *smaller] if nearest else [*smaller, *rate, *colours]
    filters = [*_tones(path), _SQUARE.format(flags=flags), "showinfo=checksum=0", *steps]
    max_frames = int((MAX_SECONDS + 1) * (fps or MAX_FPS)) + 2
    watch, num_frames, shape = _Watch(path, partly), 0, None
    with _decoding(path, filters, f"{watch.cut}-c:v ppm -f image2pipe -", watch) as run:
        pipe = run.process.stdout
        # each frame: "P6\n", "width height\n", "255\n", H * W * 3 bytes
        while (header := pipe.readline()) == b"P6\n":
            width, height = (int(n) for n in pipe.readline().split() or (0, 0))
            pipe.readline()
            data = bytearray(height * width * 3)
            if not data or pipe.readinto(data) < len(data) or shape not in (None, (height, width, 3)):
                break
            num_frames, shape = num_frames + 1, (height, width, 3)
            if num_frames > max_frames:
                raise watch.refused(_TOO_LONG)
            yield np.frombuffer(data, np.uint8).reshape(shape)
        if header:
            run.process.kill()  # its remaining output is not usable
        watch.check(run)


def probe_video(path: str | Path, partly: bool = False) -> VideoInfo:
    """Measure the properties of the video at `path` by decoding all of it. partly, and raises, as `read_video`."""
    watch = _Watch(path, partly)
    output = f"-map 0:a:0? -c:a copy {watch.cut}-f null -"  # time begins with the earlier of both
    with _decoding(path, [_SQUARE.format(flags="area"), "showinfo=checksum=0"], output, watch) as run:
        watch.check(run)
    stream = _STREAM.search(run.head.partition("Output #0")[0])
    fps, variable = watch.rate()
    start_s = max(0.0, float(watch.times[0] * watch.time_base))
    about = stream[1] if stream else "unknown", watch.pixel_format, watch.seconds(), variable, start_s, watch.left_out
    return VideoInfo(len(watch.times), fps, *watch.size, *about)


def unreadable(path: str | Path) -> InputError:
    """The error for a file that cannot be decoded as video."""
    return InputError(f"{shown(Path(path).name)} is not a video that can be read, or it is damaged; {_ACCEPTED}.")


def _tones(path: str | Path) -> list[str]:
    """The filters that map an HDR video to standard range."""
    with ffmpeg([*source(path), "-t", "0", "-f", "null", "-"], limited=True) as run:
        run.finish()
    return [_TONES] if _BRIGHT.search(run.head) else []


def _decoding(path: str | Path, filters: list[str], output: str, watch: _Watch):
    # -map 0:V:0: the first video stream that is not a cover picture
    options = ["-map", "0:V:0", "-filter_threads", "1", "-vf", ",".join(filters), "-fps_mode", "passthrough"]
    arguments = ["-xerror", *source(path), *options, *output.split()]
    return ffmpeg(arguments, on_line=watch.look, limited=True, stdout=subprocess.PIPE)


class _Watch:
    """Reads the filter showinfo's message about each decoded frame and kills ffmpeg when a limit is exceeded.

    partly: see `read_video`; then `cut` are ffmpeg's arguments that leave out what is too long.
    """

    def __init__(self, path: str | Path, partly: bool):
        self.path, self.partly, self.left_out = Path(path), partly, ""
        self.cut = f"-t {MAX_SECONDS} " if partly else ""
        self.refusal: InputError | None = None
        self.ended_early = False
        self.size: tuple[int, int] | None = None  # (height, width)
        self.pixel_format = ""
        self.times: list[int] = []  # start of each frame, in units of time_base
        self.last_duration = 0  # in units of time_base
        self.time_base = Fraction(1, 1000)  # seconds
        self.declared_rate: Fraction | None = None

    def look(self, run: Run, line: str) -> bool:
        self.ended_early |= "File ended prematurely" in line  # Matroska; ffmpeg takes it for the end
        if not line.startswith("[Parsed_showinfo"):
            return False
        if found := _FRAME.search(line):
            self.refusal = self.refusal or self._frame(*found.groups())
            if self.refusal is not None:
                run.process.kill()
        elif (found := _SETTING.search(line)) and not self.times:
            base, rate = ((int(found[i]), int(found[i + 1])) for i in (1, 3))
            self.time_base = Fraction(*base) if all(base) else self.time_base
            self.declared_rate = Fraction(*rate) if all(rate) else None
        return True

    def _frame(self, time: str, duration: str, pixel_format: str, width: str, height: str) -> InputError | None:
        """Record a frame; return the error when the video exceeds a limit with it."""
        last = self.times[-1] if self.times else 0
        self.times.append(last if time == "NOPTS" else int(time))
        self.last_duration = 0 if duration == "NOPTS" else int(duration)
        before, self.size = self.size, (int(height), int(width))
        self.pixel_format = pixel_format
        if before not in (None, self.size):
            sizes = f"from {before[1]} x {before[0]} to {width} x {height}"
            return self.refused(f"changes its picture size {sizes}; please convert it to one size.")
        if math.prod(self.size) > MAX_PIXELS:
            return self.refused(_TOO_LARGE.format(width, height))
        num_frames, elapsed = len(self.times), float((self.times[-1] - self.times[0]) * self.time_base)
        if elapsed >= MAX_SECONDS and self.partly:
            self.times.pop()  # ffmpeg cuts it off
        elif elapsed > MAX_SECONDS:
            return self.refused(_TOO_LONG)
        if num_frames > MAX_SECONDS * MAX_FPS + 1 or (elapsed >= 1 and num_frames - 2 > 1.01 * MAX_FPS * elapsed):
            return self.refused(_TOO_FAST)
        return None

    def refused(self, reason: str) -> InputError:
        return InputError(f"{shown(self.path.name)} {reason}")

    def seconds(self) -> float:
        """Seconds from the first frame's start to the last frame's end."""
        elapsed = float((self.times[-1] - self.times[0]) * self.time_base)
        return elapsed + (float(self.last_duration * self.time_base) or 1 / self.rate()[0])

    def rate(self) -> tuple[float, bool]:
        """Frames per second, at least 1, at most MAX_FPS for uneven frames, and whether frames differ in length."""
        ended = self.last_duration * self.time_base
        declared = float(self.declared_rate or (1 / ended if ended else 0))
        steps = np.diff(self.times) * float(self.time_base)  # seconds
        if len(steps) == 0 or steps.sum() <= 0:
            return min(max(declared or 25.0, 1.0), MAX_FPS), False
        mean = steps.mean()
        tick = float(self.time_base) if self.time_base <= Fraction(1, 100) else 0.0
        uneven = np.abs(steps - mean).max() > max(mean / 4, 1.01 * tick, 0.0015)
        fps = 1 / max(np.median(steps), 1 / MAX_FPS) if uneven else 1 / mean
        if declared and abs(fps - declared) < 0.005 * declared:
            fps = declared  # times rounded to milliseconds cannot distinguish 30 from 29.97
        return (float(fps), bool(uneven)) if fps >= 1 else (1.0, True)

    def check(self, run: Run) -> None:
        """Wait for ffmpeg to end. Raises InputError unless all frames were decoded and are within the limits."""
        status, num_frames = run.finish(), len(self.times)
        status = status or self.ended_early
        if self.refusal is not None:
            raise self.refusal
        if f"received signal {signal.SIGXCPU:d}" in run.tail:  # which ffmpeg catches and reports
            raise self.refused("takes too long to decode; please convert it to a shorter or smaller MP4.")
        long = _LENGTH.search(run.head)
        if self.partly and long and int(long[1]) * 3600 + int(long[2]) * 60 + float(long[3]) > MAX_SECONDS + 1:
            self.left_out = f"is longer than {MAX_SECONDS} seconds; the rest is left out."
        if status != 0 and self.partly and num_frames > 1:
            self.left_out = f"is damaged after {self.seconds():.1f} seconds; the rest is left out."
            return
        if status != 0 or num_frames == 0:
            if found := _EXCEEDS.search(run.head + run.tail):
                raise self.refused(_TOO_LARGE.format(found[1], found[2]))
            if "matches no streams" in run.tail and "Stream #0" in run.head:
                raise self.refused(f"holds no video; {_ACCEPTED}.")
            if "Cannot allocate memory" in run.tail:
                raise self.refused("needs more memory to decode than is allowed; please convert it to a smaller MP4.")
            raise unreadable(self.path)
        if num_frames > 1 and num_frames - 1 > 1.01 * MAX_FPS * self.seconds():
            raise self.refused(_TOO_FAST)
        if self.seconds() > MAX_SECONDS + 0.5:
            raise self.refused(_TOO_LONG)
