"""Where the DensePose of a video lies: beside it, under the video's name."""

from __future__ import annotations

from pathlib import Path

_ENDINGS = (".npz", ".zip", "", ".densepose.mp4", ".densepose.mkv")  # after the name without the video's own ending


def poses_beside(video: Path) -> Path | None:
    """The file or folder with the DensePose of NAME.mp4: NAME.npz, NAME.zip, a folder NAME, or NAME.densepose.mp4; None without any."""
    paths = (video.with_name(video.stem + ending) for ending in _ENDINGS)
    return next((path for path in paths if path != video and path.exists()), None)


def is_densepose_of(video: Path) -> bool:
    """Whether the video at this path is itself the DensePose rendering of another."""
    return Path(video.stem).suffix == ".densepose"
