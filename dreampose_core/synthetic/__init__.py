"""Synthetic people from seeds: their bodies, motions and clothes, and pictures of them with exact pose maps."""

from .figure import HELD_OUT, Figure, Moments, render, render_clip
from .motion import HELD_OUT_MOTIONS, MOTIONS, Manner

__all__ = ["HELD_OUT", "HELD_OUT_MOTIONS", "MOTIONS", "Figure", "Manner", "Moments", "render", "render_clip"]
