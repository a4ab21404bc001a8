"""Files next to the MP4: photo, motion and result side by side, and a GIF."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from ..inputs.framing import Scene
from ..media import shrunk, write_gif, write_video
from ..media.watermark import COMMENT
from ..poses import overlay

SIDE_BY_SIDE, GIF, PARTIAL = "side_by_side.mp4", "result.gif", "partial.mp4"
GIF_SIDE, GIF_FPS = 480, 15.0  # limits of pixels per side and of frames per second, because GIFs are large

Frames = Callable[[], Iterator[np.ndarray]]
"""Returns an iterator of a video's frames, uint8 (H, W, 3), from the first one."""


def write_exports(scene: Scene, frames: Frames, folder: Path) -> None:
    """Write SIDE_BY_SIDE (photo, motion over the photo, result) and GIF of the finished video into its folder.

    scene: the video's. Raises StorageError and any error of `frames`.
    """
    panels = zip(overlay(scene.photo, scene.poses), frames())
    write_video(
        (np.concatenate([scene.photo, motion, made], 1) for motion, made in panels),
        folder / SIDE_BY_SIDE,
        scene.poses.fps,
        comment=COMMENT,
    )
    every = math.ceil(scene.poses.fps / GIF_FPS)
    smaller = (shrunk(made, GIF_SIDE) for made in islice(frames(), 0, None, every))
    write_gif(smaller, folder / GIF, scene.poses.fps / every)
