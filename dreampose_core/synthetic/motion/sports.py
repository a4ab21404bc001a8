"""Exercise and sport (twists, squats, kicks, boxing and so on), and dances."""

from __future__ import annotations

from .posing import HAND_ON_HIP, reach
from .timing import sequences

_FISTS = reach((0.07, 0.72, 0.16), (1.0, -0.5, -0.3))
_TWISTING = "\n".join(
    f".62 .14  arms {_FISTS}, pelvis 0 {0.22 * s}, spine .02 {0.6 * s}, head 0 {0.3 * s}, hips {0.015 * s} .012, "
    f"left_foot .035 0 0 .14 {0.06 - 0.06 * s}, right_foot .035 0 0 .14 {0.06 + 0.06 * s}"
    for s in (1, -1)
)
_APART = "feet .05 0 0 .35"
_SQUATTING = f"{_APART}, pelvis .42, spine .22, head -.3, arms 1.75 .15 .12 0"
_AT_EASE = f"arms {HAND_ON_HIP}, heading .5"
# a step forward with one leg, down, and back again
_LUNGING = "\n".join(
    f"""
    .45 0  hips {weight} .01, {_AT_EASE}, {leg}_foot .014 .06 .05 .1 .2, {other}_foot .014 0 0 .1
    .4 0  hips {0.5 * weight} .03 .07, {_AT_EASE}, spine .03, {leg}_foot .02 .03 .21 .08 -.15, \
        {other}_foot .014 0 -.01 .1 .25
    .55 .4  hips 0 .17 .11, {_AT_EASE}, spine .06, {leg}_foot .02 0 .24 .08, {other}_foot .02 0 -.06 .08 .9
    .5 0  hips {0.6 * weight} .02 .04, {_AT_EASE}, {leg}_foot .02 .04 .14 .1 .1, {other}_foot .014 0 0 .1 .2
    .45 .25  {_AT_EASE}
    """
    for leg, other, weight in (("left", "right", -0.03), ("right", "left", 0.03))
)
_GUARD = (
    f"left_arm {reach((0.09, 0.8, 0.16), (0.5, -1.0, -0.2))}, right_arm {reach((0.06, 0.79, 0.12), (0.6, -1.0, -0.2))}"
)
_CROUCH = "hips 0 .13 -.05, pelvis .4, spine .25, head -.2"
_BOX = f"{_GUARD}, heading -.35, left_foot .03 0 .08 .1, right_foot .03 0 -.08 .5 .25"
# On guard over the left foot, both feet or the right foot; each key adds how low the hips are.
_BOX_LEFT, _BOX_MIDDLE, _BOX_RIGHT = (
    f"{_BOX}, spine .12 -.15 {0.05 * s}, head .06 .12, hips {0.015 * s}" for s in (1, 0, -1)
)
_JAB = f"{_BOX}, left_arm 1.5 0 .1 -.2, hips .01 .03 .03, pelvis 0 -.1, spine .12 -.35, head .06 .3"
_CROSS = (
    f"{_BOX}, right_arm 1.5 -.1 .1 -.2, hips .03 .035 .05, pelvis 0 .25, spine .15 .45, head .06 -.4, "
    "right_foot .03 0 -.08 .2 .6"
)


def _club(left: tuple, right: tuple) -> str:
    """Both arms, with the hands on one club."""
    return f"left_arm {reach(*left)}, right_arm {reach(*right)}"


_DOWN = _club(((0.0, 0.55, 0.2), (1.0, -0.3, -0.4)), ((0.01, 0.53, 0.2), (1.0, -0.3, -0.4)))
_UP = _club(((-0.06, 0.85, 0.17), (0.6, -1.0, 0.3)), ((0.12, 0.86, 0.1), (1.0, -0.6, -0.2)))
_ROUND = _club(((0.12, 0.88, 0.08), (1.0, -0.5, 0.0)), ((-0.06, 0.87, 0.16), (0.6, -1.0, 0.3)))
_WIDE = "right_foot .06 0 0 .2, left_foot .06 0 0 .25"
_PALMS, _PALMS_HIGH = reach((0.02, 0.74, 0.13), (1.0, -0.35, -0.1)), reach((0.015, 1.075, 0.02), (1.0, 0.1, 0.15))
_TREE = "right_foot -.045 .2 0 1.15 .9"

SPORTS = sequences(f"""
twist contact
    {_TWISTING}
squat
    .9 .35  {_APART}
    .25 0  {_APART}, hips 0 0 -.01, spine -.04, head -.04
    1 .25  {_SQUATTING}, hips 0 .2 -.1
    .9 .2  {_APART}, heading .4
    1 .3  {_SQUATTING}, hips 0 .21 -.1, heading .4
lunge contact
    .6 .3  arms {HAND_ON_HIP}
    {_LUNGING}
kick contact
    .6 .5  {_GUARD}, hips 0 .015, spine .05
    .35 0  {_GUARD}, hips .03 .025 .02, right_foot .02 0 -.12 .3 .5, spine .05 -.15, heading -.5
    .3 .05  {_GUARD}, hips .045 .012, pelvis -.1 .1, spine .05, right_foot 0 .24 .05 .1 .5, heading -.6
    .24 .12  left_arm .7 .45 1.5 .1, right_arm -.1 .45 1.1 0, hips .045 .008, pelvis -.28 .25, \
        spine .15 -.1, head .05, right_foot -.01 .35 .41 .05 -.4, heading -.6
    .3 0  {_GUARD}, hips .045 .014, pelvis -.1 .1, right_foot 0 .2 .08 .1 .4, heading -.6
    .45 .4  {_GUARD}, hips 0 .02, right_foot .014 0 .06 .2, left_foot .014 0 -.04 .3 .1, heading -.3
jump
    .5 .7
    .5 .08  arms -.75 .15 .1 -.2, {_CROUCH}
    .28 0  arms .9 .25 .4 0, hips 0 0 .01, spine -.05, feet .014 0 0 .14 .6
    .24 0  height .13, arms 1.9 .35 .6 .2, hips 0 .03, spine -.06, head -.1, feet .02 0 -.03 .14 .75
    .24 0  arms 1.2 .6 .4 .1, hips 0 .01, feet .02 0 0 .14 .4
    .22 .05  arms .5 .4 .5 0, hips 0 .11 -.04, pelvis .32, spine .2, head -.12
    .6 .5  heading .3
    .5 .08  arms -.7 .3 .1 -.2, heading .3, {_CROUCH}
    .42 0  height .1, arms .1 1.75 .3 .3, heading .15, feet .1 0 0 .2 .7, head -.1
    .34 .05  arms .4 .6 .5 0, hips 0 .1 -.04, pelvis .3, spine .2, head -.12
boxing contact
    .35 .1  {_BOX_LEFT} .025
    .3 0  {_BOX_RIGHT} .035
    .3 .05  {_BOX_LEFT} .025
    .24 .04  {_JAB}
    .28 .04  {_BOX_MIDDLE} .025
    .24 .04  {_JAB}
    .27 .06  {_CROSS}
    .35 .1  {_BOX_RIGHT} .025
    .3 0  {_BOX_LEFT} .035
    .35 .1  {_BOX}, hips -.03 .11 -.01, pelvis .2, spine .3 -.1 .2, head -.2 .1
    .32 .05  {_BOX_LEFT} .025
    .27 .06  {_CROSS}
    .4 .3  {_BOX_RIGHT} .025
swing contact
    1 .8  hips 0 .02 -.03, pelvis .2, spine .2, head .25, {_DOWN}, {_WIDE}
    .95 .15  hips -.035 .015 -.02, pelvis .12 -.4, spine .12 -.75, head .25 .9, {_UP}, {_WIDE} .2
    .33 0  hips .03 .02 -.02, pelvis .15 .25, spine .2 0, head .25 -.2, {_DOWN}, {_WIDE}, \
        right_foot .06 0 0 .15 .2
    .46 .9  hips .055 .008, pelvis 0 .8, spine -.05 .7, head 0 -.4, {_ROUND}, left_foot .06 0 0 .45, \
        right_foot .03 0 0 -.3 .9
    .8 .5  heading .15, head -.05 .5
tree contact
    1 .6
    .9 .1  hips .045 .006, right_foot .02 .04 .03 .4 .5, arms .1 .6 .3 .1
    1 .3  hips .05 .004, {_TREE}, arms {_PALMS}, pelvis 0 0 .03, spine 0 0 -.04
    1.3 1.6  hips .052 .004, {_TREE}, arms {_PALMS_HIGH}, head -.08, pelvis 0 0 .03, spine -.03 0 -.04
    1.2 .3  hips .05 .004, {_TREE}, arms 0 1.45 .1 .1
""")


def _grooving() -> str:
    """Eight beats: the weight moves from foot to foot, the arms open in turn, the hips turn to and fro."""
    keys = ""
    for beat, heading in enumerate((0.15, 0.3, 0.45, 0.2, -0.1, -0.35, -0.5, -0.2)):
        s = 1 if beat % 2 == 0 else -1
        lead, rest = ("left", "right") if s > 0 else ("right", "left")
        if beat in (2, 3, 6, 7):
            arms, lift = f"{lead}_arm .2 1.75 .75 1, {rest}_arm .1 .75 .9 .2", 0.02
        else:
            arms, lift = f"{lead}_arm .35 .95 1.25 .5, {rest}_arm .3 .35 1.3 -.3", 0.0
        pose = (
            f"{arms}, {lead}_hand 0 .3, {rest}_hand .1 -.2, heading {heading}, head .03 {0.2 * s} {0.08 * s}, "
            f"{lead}_foot .04 0 0 .25, {rest}_foot .05 {lift} .03 .3 .3"
        )
        keys += f"""
            .24 0  {pose}, hips {0.012 * s} .04, pelvis .05 {-0.12 * s} {0.03 * s}, spine .04 {0.12 * s} {-0.05 * s}
            .3 0  {pose}, hips {0.05 * s} .012, pelvis 0 {0.14 * s} {0.1 * s}, spine 0 {-0.15 * s} {-0.17 * s}
        """
    return keys


_SKYWARDS = (
    f"left_arm .55 1.85 .15 .2, right_arm {HAND_ON_HIP}, hips .05 .01, pelvis 0 -.1 .12, spine -.02 .12 -.12, "
    "head -.1 .5, left_foot .05 0 0 .3, right_foot .05 0 .02 .35 .25"
)
_ACROSS = (
    f"left_arm {reach((-0.1, 0.56, 0.14), (1.0, 0.0, -0.3))}, right_arm {HAND_ON_HIP}, hips -.04 .035, "
    "pelvis .05 .1 -.08, spine .1 -.2 .1, head .15 -.35, left_foot .05 0 .02 .35 .25, right_foot .05 0 0 .3"
)
_POINTING = "\n".join(f".38 .06  {pose}, heading {0.1 * i - 0.1}" for i in range(4) for pose in (_SKYWARDS, _ACROSS))
_ROLL = (reach((0.01, 0.72, 0.17), (1.0, -0.4, -0.1)), reach((0.01, 0.66, 0.11), (1.0, -0.4, -0.1)))
_ROLLING = "\n".join(
    f".24 0  left_arm {_ROLL[i % 2]}, right_arm {_ROLL[(i + 1) % 2]}, hips {0.03 * s} {0.02 + 0.02 * (i % 2)}, "
    f"pelvis .05 {0.08 * s} {0.06 * s}, spine .1 0 {-0.08 * s}, head .05 0 {0.06 * s}, heading {0.2 - 0.06 * i}, "
    f"left_foot .05 0 0 .3 {0.1 - 0.1 * s}, right_foot .05 0 0 .3 {0.1 + 0.1 * s}"
    for i, s in enumerate((1, -1) * 4)
)
_LEVEL, _LEVEL_UP, _LEVEL_DOWN = "0 1.35 1.5 0", "0 1.35 1.5 1.45", "0 1.35 1.4 -1.2"

# disco: a hand points to the sky and down to the other hip four times, then the arms roll for eight beats
DANCES = sequences(f"""
dance
    {_grooving()}
disco contact
    {_POINTING}
    {_ROLLING}
robot
    .4 .35  arms 0 .18 1.55 0
    .22 .3  left_arm 0 .18 1.55 0, right_arm 0 .18 .25 0, head 0 .6
    .26 .25  left_arm {_LEVEL}, right_arm 0 .18 .25 0, head 0 .6, spine 0 .15
    .24 .3  left_arm {_LEVEL_UP}, right_arm 0 .18 .25 0, head 0 0
    .38 .3  left_arm {_LEVEL_UP}, right_arm {_LEVEL_DOWN}, spine 0 0 .12, head 0 0 -.15, hips .02 .006
    .45 .25  left_arm {_LEVEL_DOWN}, right_arm {_LEVEL_UP}, spine 0 0 -.12, head 0 0 .15, hips -.02 .006
    .3 .3  left_arm {_LEVEL_DOWN}, right_arm {_LEVEL_UP}, spine 0 -.4, head 0 -.3, pelvis 0 -.15
    .4 .35  spine .45, pelvis .3, hips 0 .03 -.05, head .2, arms .5 .4 .3 0
    .3 .2  spine .1 .3, heading .4, head 0 -.5, left_arm .7 .18 1.55 0, right_arm -.4 .18 1.55 0
    .38 .25  spine .05 -.3, heading .4, head 0 .4, left_arm -.4 .18 1.55 0, right_arm .7 .18 1.55 0
""")
