"""A clip's sound: taken out of one video, put into another."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, shown
from ..files import appearing, storage_error
from .ffmpeg import Run, ffmpeg, why
from .video_reading import probe_video, source, unreadable

_FULL_DISK = ("No space left on device", "Disk quota exceeded", "File too large")


class _NoSound(Exception):
    pass


def extract_sound(path: str | Path, out: str | Path, start_s: float, seconds: float) -> bool:
    """Whether there was sound: the first sound stream of `path` from `start_s` on is written to `out` as AAC (.m4a),
    whole or not at all.

    start_s, seconds: of the video's own time; sound that begins later or ends earlier than asked for is filled with
    silence at its start and ends early at its end. False, and no file, where the video has no sound, or none in that
    time.

    Raises InputError for what is no video or is damaged, StorageError when `out` cannot be written.
    """
    if not (start_s >= 0 and seconds > 0):
        raise ValueError(f"sound is taken from 0 s or later and lasts longer than 0 s, not {start_s} s and {seconds} s")
    cut = ["-map", "0:a:0", "-ss", f"{start_s:.6f}", "-t", f"{seconds:.6f}", "-af", "aresample=async=1:first_pts=0"]
    encoding = [
        "-c:a",
        "aac",
        "-b:a",
        "160k",
        "-ac",
        "2",
        "-map_metadata",
        "-1",
        "-movflags",
        "+faststart",
        "-f",
        "ipod",
    ]
    try:
        with appearing(out) as temporary:
            with ffmpeg(["-y", *source(path), "-vn", *cut, *encoding, f"file:{temporary}"], limited=True) as run:
                status = run.finish()
            if "matches no streams" in run.tail or "Output file is empty" in run.tail:
                raise _NoSound
            if status != 0 and not any(words in run.tail for words in _FULL_DISK):
                raise unreadable(path)
            _check_written(run, out)
    except _NoSound:
        return False
    return True


def add_sound(video: str | Path, sound: str | Path, out: str | Path) -> None:
    """Writes `video`'s pictures, untouched, and `sound`, cut to their length, as the MP4 `out`, which appears whole or
    not at all.

    video: an MP4 of ours, whose comment is kept. sound: as `extract_sound` writes it; where it is shorter, the end
    stays silent.

    Raises InputError when one of them cannot be read, StorageError when `out` cannot be written.
    """
    seconds = probe_video(video).seconds
    streams = ["-map", "0:V:0", "-map", "1:a:0", "-c", "copy", "-map_metadata", "0", "-t", f"{seconds:.6f}"]
    with appearing(out) as temporary:
        files = [*source(video), *source(sound)]
        with ffmpeg(
            ["-y", *files, *streams, "-movflags", "+faststart", "-f", "mp4", f"file:{temporary}"], limited=True
        ) as run:
            run.finish()
        if "matches no streams" in run.tail:
            raise InputError(
                f"{shown(Path(sound).name)} holds no sound; a video or sound file with a sound stream is needed."
            )
        _check_written(run, out)


def _check_written(run: Run, out: str | Path) -> None:
    if run.process.returncode != 0:
        raise storage_error(why(run), out)
