"""Where the DensePose of a video lies: beside it, under the video's name."""

from __future__ import annotations

from pathlib import Path

_ENDINGS = (".npz", ".zip", "", ".densepose.mp4", ".densepose.mkv")  # after the name without the video's own ending
_MAPS = {".npy", ".npz", ".png", ".jpg", ".jpeg", ".webp"}


def poses_beside(video: Path) -> Path | None:
    """The file or folder with the DensePose of NAME.mp4: NAME.npz, NAME.zip, a folder NAME of maps or pictures, or
    NAME.densepose.mp4;
    None without any."""
    paths = (video.with_name(video.stem + ending) for ending in _ENDINGS)
    return next((path for path in paths if path != video and _holds_something(path)), None)


def _holds_something(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(inside.suffix.lower() in _MAPS for inside in path.iterdir()))


def is_densepose_of(video: Path) -> bool:
    """Whether the video at this path is itself the DensePose rendering of another."""
    return Path(video.stem).suffix == ".densepose"
