"""Frames to MP4 and GIF files, and MP4s joined, that appear whole or not at all."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..files import appearing, storage_error
from .ffmpeg import ffmpeg, why


def write_video(frames: Iterable[np.ndarray], path: str | Path, fps: float, crf: int = 18, comment: str = "") -> int:
    """The number of frames written as MP4: H.264, yuv420p, BT.709, index in front; the file appears whole or not at
    all.

    frames: uint8 (H, W, 3), all of one size; an odd side is padded by repeating its last row or column.
    crf: libx264's quality, 0 (lossless) to 51. comment: for the file's metadata.

    Raises StorageError when the disk is full or cannot be written, ValueError for wrong or no frames. Whatever `frames`
    raises passes through, and nothing is left behind.
    """
    colour = (
        "scale=out_color_matrix=bt709:out_range=tv,"
        "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
    )
    encoding = [
        "-vf",
        colour,
        "-c:v",
        "libx264",
        "-crf",
        str(crf),
        "-pix_fmt",
        "yuv420p",
        *_commented(comment),
        "-f",
        "mp4",
    ]
    return _encode(frames, path, fps, encoding, even=True)


def write_gif(frames: Iterable[np.ndarray], path: str | Path, fps: float) -> int:
    """The number of frames written as an endless GIF with one palette; otherwise as `write_video`. Players show at most
    50 a second."""
    palette = "split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=bayer:bayer_scale=4"
    return _encode(frames, path, fps, ["-vf", palette, "-loop", "0", "-f", "gif"], even=False)


def join_videos(paths: Sequence[Path], out: str | Path, comment: str = "") -> None:
    """Writes videos of ours, of one size and rate, one after the other as the MP4 `out`, their pictures untouched; with
    a comment.

    It appears whole or not at all. Raises StorageError, and ValueError where there is none to join.
    """
    if not paths:
        raise ValueError("a video is joined of at least one")
    with appearing(out) as temporary:
        given = ["-f", "concat", "-safe", "0", "-protocol_whitelist", "file,pipe,fd", "-i", "pipe:0"]
        written = ["-c", "copy", *_commented(comment), "-f", "mp4", f"file:{temporary}"]
        with ffmpeg(["-y", "-loglevel", "error", *given, *written], stdin=subprocess.PIPE) as run:
            with suppress(BrokenPipeError):  # ffmpeg has given up; its exit status and last words say why
                quoted = (str(path.absolute()).replace("'", "'\\''") for path in paths)
                run.process.stdin.write("".join(f"file 'file:{path}'\n" for path in quoted).encode())
                run.process.stdin.close()
            if run.finish() != 0:
                raise storage_error(why(run), out)


def _commented(comment: str) -> list[str]:
    return ["-movflags", "+faststart", *(["-metadata", f"comment={comment}"] if comment else [])]


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
    source = [
        "-loglevel",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{width}x{height}",
        "-r",
        rate,
        "-i",
        "pipe:0",
    ]
    num_frames = 0
    with appearing(path) as temporary:
        with ffmpeg(["-y", *source, *encoding, f"file:{temporary}"], stdin=subprocess.PIPE) as run:
            try:
                for frame in itertools.chain([first], frames):
                    if frame.dtype != np.uint8 or frame.shape != shape:
                        raise ValueError(
                            f"frame {num_frames} is {frame.dtype} {frame.shape}, the first was uint8 {shape}"
                        )
                    run.process.stdin.write(np.pad(frame, padding, mode="edge").tobytes())
                    num_frames += 1
                run.process.stdin.close()
            except BrokenPipeError:
                pass  # ffmpeg has given up; its exit status and last words say why
            if run.finish() != 0:
                raise storage_error(why(run), path)
    return num_frames
