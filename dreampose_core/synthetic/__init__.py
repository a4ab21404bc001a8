"""Synthetic people from seeds: their bodies, motions and clothes, and pictures of them in any pose."""

from .motion import HELD_OUT_MOTIONS, MOTIONS, Manner
from .people import HELD_OUT, Person
from .staging import Moments

__all__ = ["HELD_OUT", "HELD_OUT_MOTIONS", "MOTIONS", "Manner", "Moments", "Person"]
