"""Gestures on the spot (waving, clapping, bowing and so on), and the poses of people who present clothes."""

from __future__ import annotations

import math

from .posing import HAND_ON_HIP, reach
from .timing import sequences

# Weight on the left or the right foot, with the other knee relaxed.
_ON_LEFT = "hips .028 .006, pelvis 0 -.05 .05, right_foot .03 0 .02 .25 .08"
_ON_RIGHT = "hips -.028 .006, pelvis 0 .05 -.05, left_foot .03 0 .02 .25 .08"

_FOREARM_IN, _FOREARM_OUT = "left_arm 0 1.25 1.75 1.2", "left_arm 0 1.2 1.35 1.5"
_WAVING = f"""
    .27 .02  {_FOREARM_OUT}, left_hand 0 -.3, spine 0 .03 .08, head -.02 .12 -.06, heading .12, {_ON_RIGHT}
    .27 .02  {_FOREARM_IN}, left_hand 0 .3, spine 0 0 .05, head -.02 .12 -.06, heading .12, {_ON_RIGHT}
"""
_UP_WIDE, _UP_CROSS = "arms .1 1.7 .85 1.35", "arms .2 1.95 1.45 1.3"
_WAVING_BOTH = "\n".join(
    f".34 0  {hands}, hips {0.03 * s} .012, pelvis 0 0 {0.04 * s}, spine -.04 0 {-0.06 * s}, head -.06"
    for s in (1, -1, 1)
    for hands in (f"{_UP_CROSS}, hands 0 -.3", f"{_UP_WIDE}, hands 0 .3")
)
_OPEN, _SHUT = reach((0.115, 0.75, 0.19), (1.0, -0.7, -0.2)), reach((0.028, 0.755, 0.205), (1.0, -0.9, -0.2))
_CLAPS = ((".13 .03", _SHUT, 0.008, 0.03), (".2 0", _OPEN, 0.003, 0.0))
_CLAPPING = "\n".join(
    f"{seconds}  arms {arms}, heading {0.25 * (i / 6 - 1)}, hips {0.016 * (-1) ** (i // 3)} {sink}, "
    f"spine {bend} 0 {0.03 * (-1) ** (i // 3)}, head 0 {0.25 * (-1) ** (i // 6)} {0.07 * (-1) ** (i // 3)}"
    for i in range(12)
    for seconds, arms, sink, bend in _CLAPS
)
_PALMS_UP = "arms .2 .32 1.75 .75, hands -.4 .35"
_SKIRT_SIDES, _SKIRT_UP = (
    reach(*at) for at in (((0.19, 0.53, 0.03), (0.5, 0, -1)), ((0.235, 0.56, 0.035), (0.4, 0, -1)))
)
_AT_BROW = f"left_arm {reach((0.125, 0.925, 0.075), (1.0, -0.1, 0.15))}"
_AT_EAR = f"left_arm {reach((0.088, 0.888, 0.045), (0.9, -1.0, 0.3))}"
_BEFORE_CHEST, _OTHER_ELBOW = reach((0.05, 0.66, 0.1), (1.0, 0.0, -0.2)), reach((0.0, 0.68, 0.12), (1.0, -0.6, -0.2))
_OVER_HEAD = reach((0.03, 1.065, 0.03), (1.0, 0.0, 0.3))

GESTURES = sequences(f"""
wave
    .8 .35
    .22 0  left_arm -.06 .14 .3 -.25, hips .01 .008
    .6 0  {_FOREARM_IN}, left_hand 0 -.2, spine 0 0 .05, head -.02 .12 -.06, {_ON_RIGHT}
    {3 * _WAVING}
    .7 .4  heading -.15
wave_both
    .9 .6
    .25 0  arms -.1 .12 .35 -.2, hips 0 .03, spine .08
    .6 .05  {_UP_WIDE}, spine -.04, head -.06, hips 0 0
    {_WAVING_BOTH}
clap contact
    .7 .7
    .55 0  arms {_OPEN}, head -.03
    {_CLAPPING}
point
    .8 .6
    .35 0  head 0 .6, left_arm {reach((0.13, 0.66, 0.1), (0.6, -0.6, -1.0))}, hips -.01 .006
    .45 1  head 0 .65, spine .02 .2, heading .2, left_arm .35 1.3 .08 .2, left_hand -.1 0, {_ON_LEFT}
    .7 .3  head 0 .1, left_arm .6 .35 1.2 .2, heading .1
    .5 .9  head .02 -.05, spine .05 -.15, left_arm 1.25 .1 .12 0, left_hand -.05 0, hips 0 .004 .02
shrug
    .7 .8
    .25 0  hips 0 .012, spine .04, head .04
    .4 .7  {_PALMS_UP}, head 0 0 .22, spine -.06 0 -.05, hips .012 .002
    .35 .15  arms .2 .25 1.45 .5, head 0 .25 .1
    .3 .5  {_PALMS_UP}, head 0 -.3 -.12, spine -.05 -.1 .05, hips -.015 .002, heading -.2
bow contact
    .9 .9
    .3 0  spine -.05, head -.08
    .9 .6  pelvis .5, spine .45, head .3, hips 0 .01 -.075, left_arm {_BEFORE_CHEST}, right_arm -.1 .4 .25 -.2
    1 .8  heading .35
    .3 0  spine -.04, heading .35
    .8 .5  pelvis .4, spine .35, head .25, hips 0 .01 -.06, heading .35, arms .95 .1 .1 -.1
curtsy contact
    .9 .8
    .5 .1  arms {_SKIRT_SIDES}, head .03, {_ON_LEFT}
    .45 0  arms {_SKIRT_UP}, hips .035 .02, right_foot -.02 .025 -.1 .3 .5
    .8 .5  arms {_SKIRT_UP}, hips 0 .12 -.03, right_foot -.1 0 -.17 .35 .75, left_foot 0 0 .02 .4, \
        spine .16, head .26 0 .08
    .8 .1  arms {_SKIRT_UP}, hips .035 .01, right_foot -.02 .02 -.1 .3 .5, spine .02
    .5 .3  arms {_SKIRT_SIDES}, heading .2
salute contact
    .7 .8
    .3 .1  hips 0 0, feet 0 0 0 .2, head -.05
    .5 1.2  {_AT_BROW}, left_hand .1 0, spine -.04, head -.05, feet 0 0 0 .2, hips 0 0
    .5 .4  spine -.03, feet 0 0 0 .2
    .9 .8  heading -.4, head 0 .45, {_ON_RIGHT}
phone contact
    .9 .5
    .4 0  left_arm {reach((0.14, 0.62, 0.1), (0.4, -0.6, -1.0))}, head .25 .2, hips -.01 .006
    .6 1  {_AT_EAR}, head 0 .1 -.1, spine 0 .05, {_ON_LEFT}
    .8 1.1  {_AT_EAR}, right_arm {_OTHER_ELBOW}, head .1 -.35 -.08, spine .04 -.1, heading -.4, {_ON_RIGHT}
    .5 .8  {_AT_EAR}, right_arm .45 .25 1.3 .5, right_hand -.3 .2, head -.03 .2 -.1, heading -.3, {_ON_RIGHT}
    .9 .9  {_AT_EAR}, head .05 .35 -.1, heading .5, {_ON_LEFT}
look_around contact
    .9 .7
    .7 .6  head 0 .95, spine 0 .25, pelvis 0 .1, hips .02 .005
    1.2 .6  head -.1 -.95, spine 0 -.3, pelvis 0 -.12, hips -.025 .005
    .8 .5  head -.4 -.2, spine -.08 -.05, hips 0 .003
    .7 .5  head .4 .2 .05, spine .1 .1
    .6 .4  heading .7, head 0 .5, left_arm {reach((0.09, 0.925, 0.1), (1.0, -0.2, 0.2))}, spine .08 .1, {_ON_LEFT}
arms
    1.2 .4
    1.1 .3  arms 0 1.5 .1 .1, spine -.03, heading .25
    .9 .5  arms 0 2.1 .75 1.5, spine -.06, head -.12, heading .3
    1 .2  arms 0 1.5 .15 .1, heading -.2
    .9 .4  arms 1.35 .15 .1 -.1, spine .05, heading -.3
stretch contact
    1.1 .6
    .9 .2  arms {reach((0.05, 0.78, 0.17), (1.0, 0.1, 0.0))}, head .1
    1.1 .6  arms {_OVER_HEAD}, spine -.15, head -.3, feet .014 0 0 .14 .45, hips 0 0 .02
    .9 .7  arms {_OVER_HEAD}, spine 0 0 .38, pelvis 0 0 .1, hips .035 .006, head 0 0 .12
    1.2 .7  arms {_OVER_HEAD}, spine 0 0 -.38, pelvis 0 0 -.1, hips -.035 .006, head 0 0 -.12
    1 .7  arms {reach((0.1, 0.93, -0.045), (1.0, 0.6, 0.1))}, spine -.1 .2, head -.05
""")

_AT_HAIR_AND_THIGH = (
    f"left_arm {reach((0.11, 0.91, -0.01), (1.0, 0.5, 0.25))}, right_arm {reach((0.12, 0.5, 0.06), (0.6, 0.0, -1.0))}"
)
_SKIRT = reach((0.2, 0.53, 0.04), (0.5, 0.0, -1.0))
_WIDE = reach((0.245, 0.58, 0.05), (0.4, 0.0, -1.0))
_LEFT_HIP = "hips .05 .008, pelvis 0 -.1 .1, spine -.03 .08 -.16, left_foot .014 0 0 .14, right_foot .045 0 .06 .35 .15"
_RIGHT_HIP = (
    "hips -.05 .008, pelvis 0 .1 -.1, spine -.03 -.08 .16, right_foot .014 0 0 .14, left_foot .045 0 .06 .35 .15"
)
_CROSSED = "hips .02 .012, pelvis 0 .15 .04, spine 0 -.12 -.06, left_foot -.01 0 -.02 .2, right_foot -.075 0 .09 .1 .2"
_STEP_UP = (
    "left_foot 0 0 .13 .1, right_foot .014 0 -.07 .3 .3, hips .02 .012 .06, pelvis 0 -.15 .04, spine -.04 .15 -.06"
)
_LIFTED_RIGHT = "right_foot .03 .03 .03 .25 .35"
_TO_LEFT = "hips .03 .008, pelvis 0 0 .05, right_foot .03 0 .02 .25 .15"
_TO_RIGHT = "hips -.03 .008, pelvis 0 0 -.05, left_foot .03 0 .02 .25 .15"

FASHION = sequences(f"""
fashion contact
    .7 .6
    .7 1.1  left_arm {HAND_ON_HIP}, head -.03 .25 .05, {_LEFT_HIP}
    .6 0  left_arm {HAND_ON_HIP}, heading -.3, hips 0 .01, left_foot .014 .03 .06 .15 .3
    .6 1  arms {HAND_ON_HIP}, heading -.55, head -.03 .5 -.03, {_RIGHT_HIP}
    .55 0  heading -.2, head 0 .2, hips .02 .012 .02, left_foot .01 .03 .09 .1 .1
    .5 .9  left_arm {reach((0.06, 0.765, 0.135), (1.0, -0.8, 0.0))}, head 0 -.15 .08, {_STEP_UP}
    .6 0  heading .5, hips .03 .012 .02, right_foot 0 .03 0 .2 .4, head 0 .3
    .7 1.1  heading 1, {_AT_HAIR_AND_THIGH}, head -.06 -.7 .05, {_LEFT_HIP}
contrapposto contact
    .9 .5
    .9 1.2  right_arm {HAND_ON_HIP}, head 0 -.3 -.06, {_RIGHT_HIP}
    1 1.2  {_AT_HAIR_AND_THIGH}, heading .25, head -.05 -.2 .1, {_LEFT_HIP}
    .5 0  heading .1, hips .025 .01, right_foot -.02 .03 .05 .15 .3, left_arm .2 .3 .9 -.4
    .6 1.3  arms {reach((0.085, 0.575, -0.125), (1.0, 0.0, -0.6))}, head .03 .35 -.08, {_CROSSED}
    .9 1  heading -.6, left_arm {HAND_ON_HIP}, head -.03 .55 0, {_LEFT_HIP}
over_shoulder contact turns
    .6 .5
    .5 0  heading .9, head 0 .3, hips .03 .012, {_LIFTED_RIGHT}
    .7 .2  heading 2.1, head 0 .15, hips -.015 .01, left_foot .014 0 0 .2 .15
    .6 1.3  heading 2.25, head -.04 -.95 0, right_arm {HAND_ON_HIP}, hips -.045 .008, pelvis 0 -.1 -.09, \
        spine -.05 -.4 .12, left_foot .03 0 .04 .3 .2
    .6 0  heading 2.7, head 0 .4, hips .02 .012, {_LIFTED_RIGHT}
    .7 .2  heading 3.9, hips -.02 .01, left_foot .02 0 0 .2 .2, head 0 .3
    .6 1.2  heading 4.05, head -.04 .95 0, left_arm {HAND_ON_HIP}, hips .045 .008, pelvis 0 .1 .09, \
        spine -.05 .4 -.12, right_foot .03 0 .04 .3 .2
    .5 0  heading 5, head 0 .5, hips .02 .012, {_LIFTED_RIGHT}
show_dress contact turns
    .7 .5
    .7 .3  arms {_SKIRT}, head .2
    .8 .4  heading .8, left_arm {_WIDE}, right_arm {_SKIRT}, head .05 -.5, {_TO_LEFT}
    1.1 .4  heading -.8, left_arm {_SKIRT}, right_arm {_WIDE}, head .05 .5, {_TO_RIGHT}
    .5 0  heading .3, arms {_WIDE}, hips .02 .012, {_LIFTED_RIGHT}, head 0 .4
    .6 0  heading 2, arms {_WIDE}, hips -.02 .01, left_foot .014 .025 0 .2 .3, head 0 .5
    .6 .5  heading {math.pi}, arms {_SKIRT}, head 0 .1
    .6 0  heading 4.3, arms {_WIDE}, hips .02 .012, {_LIFTED_RIGHT}, head 0 .5
""")
