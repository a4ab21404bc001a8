"""Extract a clip's sound from one video and add it to another."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..files import appearing
from .ffmpeg import ffmpeg
from .video_reading import probe_video, source, unreadable


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
            status = run.finish()
        if "matches no streams" in run.tail or "Output file is empty" in run.tail:
            raise EOFError  # so that no file appears
        if status != 0 and not run.disk_is_full:
            raise unreadable(path)
        run.check_written(out)
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
