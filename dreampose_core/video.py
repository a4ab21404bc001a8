"""Frames to MP4 and GIF and back, through the ffmpeg program that comes with imageio-ffmpeg; no torch.

ffmpeg is run directly rather than through imageio's writer, because that one never looks at ffmpeg's exit status: a disk that
fills up in the last moments would leave a broken video and no error.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from .errors import InputError
from .files import appearing, storage_error

CONTAINERS = "mov,mp4,matroska,webm,gif"  # no playlists, no concat scripts, nothing that opens other files
_LOG_BYTES = 8192
_STREAM = re.compile(r"^\s*Stream #0:\d+.*?: Video: (\w+).*?, (\w+)(?:\([^)]*\))?, \d+x\d+", re.MULTILINE)


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, counted by decoding it.

    fps: frames per second. height, width: of the decoded frames, after rotation. codec: for example "h264".
    pixel_format: for example "yuv420p".
    """

    num_frames: int
    fps: float
    height: int
    width: int
    codec: str
    pixel_format: str


def write_video(frames: Iterable[np.ndarray], path: str | Path, fps: float, crf: int = 18) -> int:
    """The number of frames written as MP4: H.264, yuv420p, BT.709, index in front; the file appears whole or not at all.

    frames: uint8 (H, W, 3), all of one size; an odd side is padded by repeating its last row or column.
    crf: libx264's quality, 0 (lossless) to 51.

    Raises StorageError when the disk is full or cannot be written, ValueError for wrong or no frames. Whatever `frames`
    raises passes through, and nothing is left behind.
    """
    colour = "scale=out_color_matrix=bt709:out_range=tv,setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
    encoding = ["-vf", colour, "-c:v", "libx264", "-crf", str(crf), "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4"]
    return _encode(frames, path, fps, encoding, even=True)


def write_gif(frames: Iterable[np.ndarray], path: str | Path, fps: float) -> int:
    """The number of frames written as an endless GIF with one palette; otherwise as `write_video`. Players show at most 50 a second."""
    palette = "split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=bayer:bayer_scale=4"
    return _encode(frames, path, fps, ["-vf", palette, "-loop", "0", "-f", "gif"], even=False)


def read_video(path: str | Path) -> Iterator[np.ndarray]:
    """Yields every frame of the first video stream as uint8 (H, W, 3), upright, in order.

    Raises InputError with one sentence when the file is missing, is not an MP4, MOV, WebM, Matroska or GIF video, or is damaged.
    """
    arguments = [*_input(path), "-map", "0:v:0", "-fps_mode", "passthrough", "-c:v", "ppm", "-f", "image2pipe", "-"]
    num_frames = 0
    with _ffmpeg(arguments, stdout=subprocess.PIPE) as run:
        while header := run.process.stdout.readline():  # each frame: "P6\n", "width height\n", "255\n", H * W * 3 bytes
            width, height = map(int, run.process.stdout.readline().split())
            run.process.stdout.readline()
            data = run.process.stdout.read(height * width * 3)
            if header != b"P6\n" or len(data) != height * width * 3:
                break
            num_frames += 1
            yield np.frombuffer(bytearray(data), np.uint8).reshape(height, width, 3)
        if run.finish() != 0 or num_frames == 0:
            raise _unreadable(path)


def probe_video(path: str | Path) -> VideoInfo:
    """What the video at `path` holds, found by decoding all of it. Raises InputError as `read_video` does."""
    arguments = [*_input(path), "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framecrc", "-"]
    num_frames, size, seconds = 0, None, None
    with _ffmpeg(arguments, stdout=subprocess.PIPE) as run:
        for line in run.process.stdout:  # "#tb 0: 1/30", "#dimensions 0: 128x160", later one line for each decoded frame
            if line.startswith(b"#tb 0:"):
                seconds = Fraction(line.split()[-1].decode())
            elif line.startswith(b"#dimensions 0:"):
                size = tuple(map(int, line.split()[-1].split(b"x")))
            elif not line.startswith(b"#"):
                num_frames += 1
        status = run.finish()
    stream = _STREAM.search(run.head.partition("Output #0")[0])
    if status != 0 or num_frames == 0 or not size or not seconds or stream is None:
        raise _unreadable(path)
    return VideoInfo(num_frames, float(1 / seconds), size[1], size[0], *stream.groups())


class _Run:
    """A running ffmpeg whose messages are drained, so that it never stalls on a full pipe."""

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self.head = ""  # the first messages: what the input is
        self.tail = ""  # the last messages: why it failed
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        while data := self.process.stderr.read1(4096):
            text = data.decode("utf-8", "replace")
            if len(self.head) < _LOG_BYTES:
                self.head += text
            self.tail = (self.tail + text)[-_LOG_BYTES:]

    def finish(self) -> int:
        """ffmpeg's exit status, once it has ended by itself."""
        self.process.wait()
        self._reader.join()
        return self.process.returncode


@contextmanager
def _ffmpeg(arguments: list[str], **pipes) -> Iterator[_Run]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostats", *arguments]
    # A process group of its own: Ctrl-C in a terminal reaches us, and we decide what becomes of ffmpeg.
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes}
    with subprocess.Popen(command, stderr=subprocess.PIPE, process_group=0, **pipes) as process:
        run = _Run(process)
        try:
            yield run
        finally:
            process.kill()  # nothing happens when it has ended by itself
            run.finish()
            if process.stdin is not None:
                with suppress(BrokenPipeError):  # bytes that it did not live to take
                    process.stdin.close()


def _encode(frames: Iterable[np.ndarray], path: str | Path, fps: float, encoding: list[str], even: bool) -> int:
    rate = str(Fraction(fps).limit_denominator(1001))
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    shape = first.shape
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"a frame is uint8 (H, W, 3), not {first.dtype} {shape}")
    padding = ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)) if even else ((0, 0),) * 3
    height, width = shape[0] + padding[0][1], shape[1] + padding[1][1]
    source = ["-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "pipe:0"]
    num_frames = 0
    with appearing(path) as temporary:
        with _ffmpeg(["-y", *source, *encoding, f"file:{temporary}"], stdin=subprocess.PIPE) as run:
            try:
                for frame in itertools.chain([first], frames):
                    if frame.dtype != np.uint8 or frame.shape != shape:
                        raise ValueError(f"frame {num_frames} is {frame.dtype} {frame.shape}, the first was uint8 {shape}")
                    run.process.stdin.write(np.pad(frame, padding, mode="edge").tobytes())
                    num_frames += 1
                run.process.stdin.close()
            except BrokenPipeError:
                pass  # ffmpeg has given up; its exit status and last words say why
            if run.finish() != 0:
                raise storage_error(_why(run), path)
    return num_frames


def _why(run: _Run) -> OSError:
    if "No space left on device" in run.tail:
        return OSError(errno.ENOSPC, "no space left on device")
    if "Disk quota exceeded" in run.tail:
        return OSError(errno.EDQUOT, "disk quota exceeded")
    if "File too large" in run.tail or run.process.returncode == -signal.SIGXFSZ:
        return OSError(errno.EFBIG, "file too large")
    lines = run.tail.strip().splitlines()
    return OSError(errno.EIO, f"ffmpeg ended with status {run.process.returncode} ({lines[-1].strip() if lines else 'no message'})")


def _input(path: str | Path) -> list[str]:
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"There is no video file at {path}.")
    return ["-protocol_whitelist", "file", "-format_whitelist", CONTAINERS, "-xerror", "-i", f"file:{path}"]


def _unreadable(path: str | Path) -> InputError:
    name = Path(path).name
    return InputError(f"{name} is not a video that can be read, or it is damaged; MP4, MOV, WebM, Matroska and GIF are accepted.")
