"""People made by a program: bodies, motions, clothes, and pictures of them with exact DensePose."""

from .figure import HELD_OUT, Figure, render, render_clip
from .motion import MOTIONS, Manner

__all__ = ["HELD_OUT", "MOTIONS", "Figure", "Manner", "render", "render_clip"]
