"""Named motions: joint angles and the path across the floor, as smooth functions of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...errors import InputError
from ..dice import Dice
from .gaits import GAITS
from .gestures import FASHION, GESTURES
from .posing import STAND, WHERE, assemble, mirrored, within_reach
from .sports import DANCES, SPORTS

# A motion is a tuple of layers, functions of time whose values are added to standing.
MOTIONS = {**GAITS, **GESTURES, **FASHION, **SPORTS, **DANCES}
HELD_OUT_MOTIONS = ("pirouette", "stroll", "phone", "curtsy", "contrapposto", "show_dress")  # never drawn in training
MADE_FOR = 1.2  # largest size of movements at which all joints stay within their limits
TRAINING_MOTIONS = tuple(name for name in MOTIONS if name not in HELD_OUT_MOTIONS)


@dataclass(frozen=True)
class Manner:
    """How one person performs a motion.

    speed, size: of its movements; 1 is usual. Motions are made for speeds of 0.75 to 1.25 and sizes of 0.8 to 1.2, and
    also work for 0.25 to 4 and 0.25 to 1.8; arms that touch something do so at every size. phase: 0 to 1, where in its
    cycle a motion begins; at 0 it begins facing the camera. side: +1, or -1 to exchange left and right.
    """

    speed: float = 1.0
    size: float = 1.0
    phase: float = 0.0
    side: int = 1


def motion(name: str, times: torch.Tensor, manner: Manner = Manner()) -> tuple[torch.Tensor, torch.Tensor]:
    """Joint angles (T, J, 3) and root offsets (T, 3) of a motion at `times` (T,), in seconds, ascending.

    The offset's x and z move the person across the floor; its y is the height of the lower sole above the floor, 0
    except in a jump. Every motion repeats forever. Raises InputError for an unknown name.
    """
    if name not in MOTIONS:
        raise InputError(f"Unknown motion {name!r}; choose one of {', '.join(MOTIONS)}.")
    channels = STAND + _life(times, manner)
    for layer in MOTIONS[name]:
        channels = channels + layer(manner.speed * times + manner.phase * layer.period, manner.size)
    posed = assemble(channels)
    if manner.size > MADE_FOR:  # smaller motions stay equal to the bit, since models were trained on them
        posed = within_reach(posed[0]), posed[1]
    return posed if manner.side > 0 else mirrored(*posed)


# Breathing and swaying: (part, index, size, cycles per second, cycles per phase). Their periods have no short common
# multiple, so no two moments are alike.
_LIFE = (
    ("spine", 0, 0.012, 0.27, 1),
    ("head", 0, -0.012, 0.27, 1),
    ("hips", 0, 0.006, 0.13, 2),
    ("spine", 2, 0.012, 0.13, 2),
    ("head", 1, 0.06, 0.11, 3),
    ("head", 2, 0.025, 0.083, 2),
    ("left_arm", 1, 0.015, 0.27, 1),
    ("right_arm", 1, 0.015, 0.27, 1),
)
_LIFE_RATE, _LIFE_PHASE = (torch.tensor([row[i] for row in _LIFE]) for i in (3, 4))
_LIFE_SIZE = torch.zeros(len(_LIFE), len(STAND))
for _row, (_part, _index, _size, *_) in enumerate(_LIFE):
    _LIFE_SIZE[_row, WHERE[_part].start + _index] = _size


def _life(times: torch.Tensor, manner: Manner) -> torch.Tensor:
    """The small movements (T, C) of a person who stands still."""
    return torch.sin(2 * math.pi * (times[:, None] * _LIFE_RATE + manner.phase * _LIFE_PHASE)) @ _LIFE_SIZE


def random_manner(dice: Dice) -> Manner:
    """Draw a manner of moving."""
    return Manner(dice.uniform(0.75, 1.25), dice.uniform(0.8, 1.2), dice.uniform(), 1 if dice.chance(0.5) else -1)
