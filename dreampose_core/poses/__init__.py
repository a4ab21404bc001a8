"""DensePose maps over time: the sequence type, its file, its fitting and its pictures (numpy only)."""

from .colours import render_colours
from .fit import fitted
from .npz import read_image_poses, read_poses, write_poses
from .sequence import NUM_PARTS, WINDOW, Charts, PoseSequence, window_indices

__all__ = [
    "NUM_PARTS", "WINDOW", "Charts", "PoseSequence", "fitted", "read_image_poses", "read_poses", "render_colours",
    "window_indices", "write_poses",
]
