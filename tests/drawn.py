"""Drawn people as photos and motions for tests."""

from __future__ import annotations

import numpy as np
import torch

from dreampose_core.poses import PoseSequence
from dreampose_core.settings import MotionOptions
from dreampose_core.synthetic import Person
from dreampose_core.synthetic.acting import acted
from dreampose_core.synthetic.clips import exact_clip


def drawn_clip(
    seed: int, motion: str, count: int, size: tuple[int, int], fps: float = 20.0, start_s: float = 0.0
) -> tuple[np.ndarray, PoseSequence]:
    """Draws a person in a motion: `count` frames, uint8 RGB, and their exact pose maps with joints."""
    person = Person.from_seed(seed)
    return exact_clip(person, person.moments(motion, start_s + torch.arange(count) / fps), size, fps)


def made_motion(motion: str, count: int, size: tuple[int, int], fps: float = 20.0, **options) -> PoseSequence:
    """Makes a motion of `count` frames: maps without specks, and quicker than a person's. options: MotionOptions's."""
    seconds = max(1.0, count / fps)
    return acted(MotionOptions(motion=motion, seconds=seconds, fps=fps, **options), size).clip(0, count)
