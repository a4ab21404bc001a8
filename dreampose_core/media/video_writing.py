"""Write frames as MP4 and GIF, join MP4s, take sound from one to another; each file appears complete or not at all."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..files import appearing
from .ffmpeg import ffmpeg
from .video_reading import probe_video, source, unreadable


def write_video(
    frames: Iterable[np.ndarray], path: str | Path, fps: float, crf: int = 18, comment: str = "", part: bool = False
) -> None:
    """Write frames as MP4 (H.264, yuv420p, BT.709, index in front); the file appears complete or not at all.

    frames: uint8 (H, W, 3), all of one size; an odd side is padded by repeating its last row or column.
    crf: libx264's quality, 0 (lossless) to 51. comment: for the file's metadata. part: as one fragment (fragmented
    MP4), which browsers append to a stream.

    Raises StorageError when the disk is full or cannot be written, ValueError for wrong or no frames. An exception from
    `frames` passes through and leaves no file.
    """
    colour = (
        "scale=out_color_matrix=bt709:out_range=tv,"
        "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
    )
    encoding = ["-vf", colour, *f"-c:v libx264 -crf {crf} -pix_fmt yuv420p -f mp4".split()]
    if part:
        encoding += [*"-g 9999 -bf 0".split(), *_as_mp4(comment, "empty_moov+default_base_moof+frag_keyframe")]
    else:
        encoding += _as_mp4(comment, "faststart")
    _encode(frames, path, fps, encoding, even=True)


def write_gif(frames: Iterable[np.ndarray], path: str | Path, fps: float) -> None:
    """Write frames as an endlessly repeating GIF with one palette; otherwise as `write_video`. Players show at most 50
    frames per second."""
    palette = "split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=bayer:bayer_scale=4"
    _encode(frames, path, fps, ["-vf", palette, "-loop", "0", "-f", "gif"], even=False)


def join_videos(paths: Sequence[Path], out: str | Path, comment: str = "") -> None:
    """Concatenate MP4s that this package wrote, all of one size and rate, into the MP4 `out` without encoding again.

    comment: for the file's metadata. `out` appears complete or not at all. Raises StorageError.
    """
    with appearing(out) as temporary:
        args = "-y -loglevel error -f concat -safe 0 -protocol_whitelist file,pipe,fd -i pipe:0 -c copy -f mp4".split()
        with ffmpeg([*args, *_as_mp4(comment, "faststart"), f"file:{temporary}"], stdin=subprocess.PIPE) as run:
            # ffmpeg closes the pipe when it fails; check_written then raises by its exit status and last message.
            with suppress(BrokenPipeError):
                quoted = (str(path.absolute()).replace("'", "'\\''") for path in paths)
                run.process.stdin.write("".join(f"file 'file:{path}'\n" for path in quoted).encode())
                run.process.stdin.close()
            run.check_written(out)


def extract_sound(path: str | Path, out: str | Path, start_s: float, seconds: float) -> bool:
    """Write the first sound stream of the video `path` to `out` as AAC (.m4a), which appears complete or not at all.

    start_s, seconds: start and length in the video's time. Sound that begins later gets silence at its start; sound
    that ends earlier makes a shorter file. Returns False, and writes no file, when the video has no sound in that time.

    Raises InputError when `path` is no video or is damaged, StorageError when `out` cannot be written.
    """
    start_s += probe_video(path, partly=True).start_s  # the sound's time begins with the file
    cut = f"-vn -map 0:a:0 -ss {start_s:.6f} -t {seconds:.6f} -af aresample=async=1:first_pts=0".split()
    encoding = "-c:a aac -b:a 160k -ac 2 -map_metadata -1 -movflags +faststart -f ipod".split()
    with suppress(EOFError), appearing(out) as temporary:
        both = [f"file:{temporary}", *"-map 0:V:0 -c copy -f null -".split()]  # time begins as for `probe_video`
        with ffmpeg(["-y", *source(path), *cut, *encoding, *both], limited=True) as run:
            run.finish()
        if "matches no streams" in run.tail or "Output file is empty" in run.tail:
            raise EOFError  # so that no file appears
        run.check_written(out, unreadable(path))
        return True
    return False


def add_sound(video: str | Path, sound: str | Path, out: str | Path) -> None:
    """Write the MP4 `out` with the pictures of `video`, not encoded again, and `sound`, cut to their length.

    video: an MP4 that this package wrote; its comment is kept. sound: a file from `extract_sound`; if it is shorter,
    the end is silent. `out` appears complete or not at all.

    Raises InputError when one of them cannot be read, StorageError when `out` cannot be written.
    """
    streams = "-map 0:V:0 -map 1:a:0 -c copy -map_metadata 0 -movflags +faststart -f mp4".split()
    length = ["-t", f"{probe_video(video).seconds:.6f}"]
    with appearing(out) as temporary:
        arguments = ["-y", *source(video), *source(sound), *streams, *length, f"file:{temporary}"]
        with ffmpeg(arguments, limited=True) as run:
            run.check_written(out)


def _as_mp4(comment: str, flags: str) -> list[str]:
    return ["-movflags", f"+{flags}", *(["-metadata", f"comment={comment}"] if comment else [])]


def _encode(frames: Iterable[np.ndarray], path: str | Path, fps: float, encoding: list[str], even: bool) -> None:
    frames = iter(frames)
    if (first := next(frames, None)) is None:
        raise ValueError("a video needs at least one frame")
    height, width, _ = first.shape
    padding = ((0, height % 2 * even), (0, width % 2 * even), (0, 0))
    size, rate = f"{width + padding[1][1]}x{height + padding[0][1]}", Fraction(fps).limit_denominator(1001)
    pipe = f"-y -loglevel error -f rawvideo -pix_fmt rgb24 -s {size} -r {rate} -i pipe:0".split()
    with appearing(path) as temporary:
        with ffmpeg([*pipe, *encoding, f"file:{temporary}"], stdin=subprocess.PIPE) as run:
            with suppress(BrokenPipeError):  # as in join_videos
                for frame in itertools.chain([first], frames):
                    if frame.dtype != np.uint8 or frame.shape != (height, width, 3):
                        raise ValueError(f"a frame is {frame.dtype} {frame.shape}, not one of {size}")
                    run.process.stdin.write(np.pad(frame, padding, mode="edge").tobytes())
                run.process.stdin.close()
            run.check_written(path)
