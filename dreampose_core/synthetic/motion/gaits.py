"""Standing, walking and turning: idle, five gaits, turns, a walk down the catwalk, side steps."""

from __future__ import annotations

import math

import numpy as np
import torch

from .posing import HAND_ON_HIP, NUM_CHANNELS, WHERE, reach
from .timing import Faded, Spin, sequences

# The left foot at 12 evenly spaced moments of a stride, from its heel's contact: on the ground it moves back, then it
# swings forward.
_FORWARD = np.array([1.0, 0.72, 0.41, 0.09, -0.22, -0.53, -0.81, -1.03, -0.69, 0.0, 0.66, 1.02])
_LIFT = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.12, 0.85, 1.0, 0.55, 0.2])
_HEEL = np.array([-0.25, -0.03, 0.0, 0.0, 0.0, 0.06, 0.35, 0.72, 0.75, 0.35, 0.0, -0.18])
_MOMENTS = len(_FORWARD)
_HARMONICS = 4  # sine waves kept of a stride


def _wave(size: float, lag: float = 0.0, times: int = 1, mean: float = 0.0) -> np.ndarray:
    """A cosine over the stride, highest `lag` strides after the left heel's contact."""
    return mean + size * np.cos(2 * math.pi * times * (np.arange(_MOMENTS) / _MOMENTS - lag))


class Gait:
    """A stride of two steps on the spot, as on a treadmill, smoothed to a few sine waves.

    period: seconds per stride. stride, lift: how far the feet move forward and up, in body heights. heel: how far the
    feet roll, 1 in a walk. arms, elbow: how far the arms swing and are bent. sway: of the hips over the standing foot.
    turn: of the pelvis, against the chest. bounce: how far the knees give after each contact. bend: of the trunk,
    forwards. inwards: how much closer together the feet walk than they stand. rise: height of the flight between two
    contacts (running).
    """

    def __init__(
        self,
        period: float,
        *,
        stride: float = 0.15,
        lift: float = 0.055,
        heel: float = 1.0,
        arms: float = 0.4,
        elbow: float = 0.2,
        sway: float = 0.014,
        turn: float = 0.12,
        bounce: float = 0.003,
        bend: float = 0.0,
        inwards: float = 0.012,
        rise: float = 0.0,
    ):
        # By part and index, the values to add to standing.
        rows = {
            ("hips", 0): _wave(sway, 0.27),
            ("hips", 1): _wave(bounce / 2, 0.1, 2, bounce / 2),
            ("pelvis", 1): _wave(-turn, 0.02),
            ("pelvis", 2): _wave(0.035, 0.2),
            ("pelvis", 0): _wave(0.0, mean=bend / 2),
            ("spine", 0): _wave(0.015, 0.12, 2, bend / 2),
            ("spine", 1): _wave(1.9 * turn, 0.05),
            ("spine", 2): _wave(-0.055, 0.22),
            ("head", 0): _wave(-0.015, 0.16, 2, -0.6 * bend),
            ("head", 1): _wave(-0.9 * turn, 0.05),
            ("head", 2): _wave(0.02, 0.25),
            ("height", 0): _wave(rise, 0.3, 2, 0.3 * rise).clip(0),
        }
        limbs = {
            ("foot", 0): np.full(_MOMENTS, -inwards),
            ("foot", 1): lift * _LIFT,
            ("foot", 2): stride * _FORWARD,
            ("foot", 4): heel * _HEEL,
            ("arm", 0): _wave(-arms, 0.03, mean=0.1 * arms),
            ("arm", 2): _wave(-0.5 * arms, 0.08, mean=elbow),
            ("hand", 0): _wave(-0.25 * arms, 0.12),
        }
        for side, half in (("left", 0), ("right", _MOMENTS // 2)):
            rows |= {(f"{side}_{limb}", index): np.roll(values, half) for (limb, index), values in limbs.items()}
        table = torch.zeros(_MOMENTS, NUM_CHANNELS)
        for (part, index), values in rows.items():
            table[:, WHERE[part].start + index] = torch.tensor(values)
        waves = torch.fft.rfft(table, dim=0)[: _HARMONICS + 1] / _MOMENTS
        self.period, self._orders = period, torch.arange(1, _HARMONICS + 1) * 2 * math.pi / period
        self._mean, self._cos, self._sin = waves[0].real, 2 * waves[1:].real, -2 * waves[1:].imag

    def __call__(self, t: torch.Tensor, size: float) -> torch.Tensor:
        """Values (T, C) to add to standing at times (T,)."""
        angle = t[:, None] * self._orders
        return (self._mean + angle.cos() @ self._cos + angle.sin() @ self._sin) * size


# Weight on the left foot; the free knee bends, and the shoulders tilt against the hips.
_LEFT_WEIGHT = (
    "hips .035 .006, pelvis 0 -.08 .07, spine 0 .05 -.1, head 0 .12 .05, left_foot .02 0 0 .14, "
    "right_foot .035 0 .035 .3 .12"
)


def _pivot(seconds: float, turned: float, look: float = 0.5) -> str:
    """Two quick steps to the heading `turned`; the head, and then the chest, turn up to `look` ahead of the hips."""
    ahead = f"heading {turned - look}, head 0 {0.8 * look}, spine .03 {0.3 * look}"
    return f"""
        {0.45 * seconds} 0  {ahead}, hips -.02 .008, left_foot .014 .03 -.02 .3 .35
        {0.55 * seconds} 0  heading {turned}, head 0 .1, hips .015 .006, right_foot .02 0 .01 .14 .1
    """


def _side_steps(way: int, place: float) -> str:
    """Two steps to one side, each with one foot lifted and the other drawn after it.

    way: 1 to the left, -1 to the right. place: where the hips start, in body heights to the left.
    """
    lead, follow = ("left", "right") if way > 0 else ("right", "left")
    keys, lifted = "", ".03 0 .14 .18"
    for _ in range(2):
        lead_out, follow_out = 0.014 + way * place, 0.014 - way * place
        first, second = f"{lead}_foot {lead_out + 0.06} {lifted}", f"{follow}_foot {follow_out - 0.06} {lifted}"
        apart = f"{lead}_foot {lead_out + 0.12}"
        end = place + way * 0.12
        keys += f"""
            .24 0  hips {place + way * 0.02} .012, spine .02 0 {-way * 0.06}, {first}, {follow}_foot {follow_out}
            .22 .02  hips {place + way * 0.06} .02, spine .03 0 {way * 0.04}, arms .25 .55 .7 .1, {apart}, \
                {follow}_foot {follow_out}
            .24 0  hips {place + way * 0.105} .01, spine .02 0 {way * 0.05}, {apart}, {second}
            .22 .02  hips {end} .016, spine .03 0 {-way * 0.03}, left_foot {0.014 + end}, right_foot {0.014 - end}
        """
        place = end
    return keys


_OPEN_ARM, _ROUND_ARMS = "arms .25 1.35 .25 .3", reach((0.03, 0.66, 0.2), (1.0, -0.25, 0.0))
_TIPTOE = "left_foot .014 0 0 .2 .7"

_KEYS = sequences(f"""
idle
    1.4 .9
    1.3 1.4  heading .5, {_LEFT_WEIGHT}
    1.9 1.2  heading -.5, hips -.03 .006, pelvis 0 .06 -.06, spine .02 -.05 .09, head 0 -.18 -.03, \
        left_foot .03 0 .03 .28 .1, right_foot .02 0 0 .14
wander
    2.2 .6
    2 1  heading .55, hips .05, left_foot .064, right_foot -.036
    3 .8  heading -.5, hips -.05, left_foot -.036, right_foot .064
stroll
    2.6 .5
    2.4 .7  heading .5
    3.2 .4  heading -.45
look_round
    1.2 1.6
    1.1 1.4  head .05 .45
    1.3 .8  head -.05 -.4
march
    2.5 1
    2.5 1  heading .6
    3 .5  heading -.4
jog
    3 1
    3 1  heading .7
    3.6 .5  heading -.6
catwalk contact turns
    .5 1.9
    .6 .9  {_LEFT_WEIGHT}, left_arm {HAND_ON_HIP}, hips .045 .006, head -.04 .22 .06
    .5 .1  head 0 .5 0, spine 0 .15 0, hips .01 .006
    {_pivot(0.9, math.pi)}
    .4 2  heading {math.pi}
    {_pivot(0.9, 2 * math.pi)}
    .3 0  heading {2 * math.pi}
turn_quick turns
    .35 .9
    .3 0  pelvis 0 -.12, spine .02 -.2, head 0 -.1, hips 0 .02
    {_pivot(0.8, math.pi / 2)}
    .25 .7  heading {math.pi / 2}
    {_pivot(0.8, math.pi)}
    .25 1  heading {math.pi}
    .3 0  heading {math.pi}, spine .02 -.15, hips 0 .018
    {_pivot(0.9, 2 * math.pi, look=0.8)}
pirouette turns
    .9 .7
    .7 .15  heading -.25, {_OPEN_ARM}, left_arm {_ROUND_ARMS}, hips .02 .05 .01, spine .02 -.2, \
        head 0 .4, left_foot .02 0 .05 .45, right_foot .02 0 -.1 .4 .25
    .35 0  heading .7, {_OPEN_ARM}, hips .045, head 0 -.5, {_TIPTOE}, right_foot .02 .1 0 .6 .75
    1 0  heading {2 * math.pi - 0.6}, arms {_ROUND_ARMS}, hips .052, head -.03 .55, {_TIPTOE}, \
        right_foot 0 .2 .01 .85 .75
    .5 0  heading {2 * math.pi + 0.1}, {_OPEN_ARM}, hips .01 .045, spine .03 .1, \
        right_foot .03 0 -.07 .4 .3, left_foot .02 0 .03 .4
    .6 .5  heading {2 * math.pi}, arms .3 .7 .4 .2
side_step
    {_side_steps(1, -0.12)}
    {_side_steps(-1, 0.12)}
""")
_CATWALK_STEPS = Faded(
    Gait(1.1, stride=0.16, lift=0.06, sway=0.024, turn=0.16, inwards=0.04, arms=0.36),
    _KEYS["catwalk"][0].period,
    ((-1.0, 1.8), (5.3, 7.1), (8.4, 9.5)),
)
_STROLL = Gait(1.55, stride=0.115, lift=0.04, arms=0.26, elbow=0.1, sway=0.018, turn=0.09)
_MARCH = Gait(1.1, stride=0.06, lift=0.15, heel=0.5, arms=0.62, elbow=0.35, sway=0.016, turn=0.06, bounce=0.01)
_RUN = dict(stride=0.13, lift=0.13, heel=1.3, arms=0.55, elbow=1.35, sway=0.008)
_SMALL_STEPS = dict(stride=0.05, lift=0.035, heel=0.5, arms=0.14, elbow=0.1, sway=0.012, turn=0.05, inwards=0.0)

GAITS = {
    "idle": _KEYS["idle"],
    "walk": (Gait(1.18), *_KEYS["wander"]),
    "stroll": (_STROLL, *_KEYS["stroll"], *_KEYS["look_round"]),
    "march": (_MARCH, *_KEYS["march"]),
    "jog": (Gait(0.74, **_RUN, turn=0.14, bounce=0.035, bend=0.16, rise=0.018), *_KEYS["jog"]),
    "catwalk": (*_KEYS["catwalk"], _CATWALK_STEPS),
    "turn": (Spin(4.5), Gait(1.12, **_SMALL_STEPS)),
    "turn_quick": _KEYS["turn_quick"],
    "pirouette": _KEYS["pirouette"],
    "side_step": _KEYS["side_step"],
}
