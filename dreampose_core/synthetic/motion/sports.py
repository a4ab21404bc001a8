"""Exercise and sport: twists, squats, lunges, kicks, jumps, boxing, a swing, a tree."""

from __future__ import annotations

from .posing import HAND_ON_HIP, reach
from .timing import Key, Sequence, key

_FISTS = reach((0.07, 0.72, 0.16), (1.0, -0.5, -0.3))
_TWIST = Sequence(
    *(
        key(
            0.62,
            0.14,
            arms=_FISTS,
            pelvis=(0.0, 0.22 * s),
            spine=(0.02, 0.6 * s),
            head=(0.0, 0.3 * s),
            hips=(0.015 * s, 0.012),
            left_foot=(0.035, 0, 0, 0.14, 0.06 - 0.06 * s),
            right_foot=(0.035, 0, 0, 0.14, 0.06 + 0.06 * s),
        )
        for s in (1, -1)
    ),
    contact=True,
)

_APART = (0.05, 0.0, 0.0, 0.35)
_SQUAT = Sequence(
    key(0.9, 0.35, feet=_APART),
    key(0.25, 0.0, feet=_APART, hips=(0.0, 0.0, -0.01), spine=(-0.04,), head=(-0.04,)),
    key(
        1.0,
        0.25,
        feet=_APART,
        hips=(0.0, 0.2, -0.1),
        pelvis=(0.42,),
        spine=(0.22,),
        head=(-0.3,),
        arms=(1.75, 0.15, 0.12, 0.0),
    ),
    key(0.9, 0.2, feet=_APART, heading=(0.4,)),
    key(
        1.0,
        0.3,
        feet=_APART,
        hips=(0.0, 0.21, -0.1),
        pelvis=(0.42,),
        spine=(0.22,),
        head=(-0.3,),
        heading=(0.4,),
        arms=(1.75, 0.15, 0.12, 0.0),
    ),
)


def _lunge(leg: str) -> list[Key]:
    """A step forward with one leg, down, and back."""
    other = "right" if leg == "left" else "left"
    weight = 0.03 if other == "left" else -0.03
    arms = dict(arms=HAND_ON_HIP, heading=(0.5,))
    return [
        key(
            0.45,
            0.0,
            hips=(weight, 0.01),
            **arms,
            **{f"{leg}_foot": (0.014, 0.06, 0.05, 0.1, 0.2), f"{other}_foot": (0.014, 0, 0, 0.1)},
        ),
        key(
            0.4,
            0.0,
            hips=(0.5 * weight, 0.03, 0.07),
            **arms,
            spine=(0.03,),
            **{f"{leg}_foot": (0.02, 0.03, 0.21, 0.08, -0.15), f"{other}_foot": (0.014, 0, -0.01, 0.1, 0.25)},
        ),
        key(
            0.55,
            0.4,
            hips=(0.0, 0.17, 0.11),
            **arms,
            spine=(0.06,),
            **{f"{leg}_foot": (0.02, 0, 0.24, 0.08), f"{other}_foot": (0.02, 0, -0.06, 0.08, 0.9)},
        ),
        key(
            0.5,
            0.0,
            hips=(0.6 * weight, 0.02, 0.04),
            **arms,
            **{f"{leg}_foot": (0.02, 0.04, 0.14, 0.1, 0.1), f"{other}_foot": (0.014, 0, 0, 0.1, 0.2)},
        ),
        key(0.45, 0.25, **arms),
    ]


_LUNGE = Sequence(key(0.6, 0.3, arms=HAND_ON_HIP), *_lunge("left"), *_lunge("right"), contact=True)

_GUARD = dict(
    left_arm=reach((0.09, 0.8, 0.16), (0.5, -1.0, -0.2)), right_arm=reach((0.06, 0.79, 0.12), (0.6, -1.0, -0.2))
)
_KICK = Sequence(
    key(0.6, 0.5, **_GUARD, hips=(0.0, 0.015), spine=(0.05,)),
    key(
        0.35,
        0.0,
        **_GUARD,
        hips=(0.03, 0.025, 0.02),
        right_foot=(0.02, 0.0, -0.12, 0.3, 0.5),
        spine=(0.05, -0.15),
        heading=(-0.5,),
    ),
    key(
        0.3,
        0.05,
        **_GUARD,
        hips=(0.045, 0.012),
        pelvis=(-0.1, 0.1),
        spine=(0.05,),
        right_foot=(0.0, 0.24, 0.05, 0.1, 0.5),
        heading=(-0.6,),
    ),
    key(
        0.24,
        0.12,
        left_arm=(0.7, 0.45, 1.5, 0.1),
        right_arm=(-0.1, 0.45, 1.1, 0.0),
        hips=(0.045, 0.008),
        pelvis=(-0.28, 0.25),
        spine=(0.15, -0.1),
        head=(0.05,),
        right_foot=(-0.01, 0.35, 0.41, 0.05, -0.4),
        heading=(-0.6,),
    ),
    key(
        0.3,
        0.0,
        **_GUARD,
        hips=(0.045, 0.014),
        pelvis=(-0.1, 0.1),
        right_foot=(0.0, 0.2, 0.08, 0.1, 0.4),
        heading=(-0.6,),
    ),
    key(
        0.45,
        0.4,
        **_GUARD,
        hips=(0.0, 0.02),
        right_foot=(0.014, 0, 0.06, 0.2),
        left_foot=(0.014, 0, -0.04, 0.3, 0.1),
        heading=(-0.3,),
    ),
    contact=True,
)

_CROUCH = dict(hips=(0.0, 0.13, -0.05), pelvis=(0.4,), spine=(0.25,), head=(-0.2,))
_JUMP = Sequence(
    key(0.5, 0.7),
    key(0.5, 0.08, arms=(-0.75, 0.15, 0.1, -0.2), **_CROUCH),
    key(0.28, 0.0, arms=(0.9, 0.25, 0.4, 0.0), hips=(0.0, 0.0, 0.01), spine=(-0.05,), feet=(0.014, 0, 0, 0.14, 0.6)),
    key(
        0.24,
        0.0,
        height=(0.13,),
        arms=(1.9, 0.35, 0.6, 0.2),
        hips=(0.0, 0.03),
        spine=(-0.06,),
        head=(-0.1,),
        feet=(0.02, 0, -0.03, 0.14, 0.75),
    ),
    key(0.24, 0.0, arms=(1.2, 0.6, 0.4, 0.1), hips=(0.0, 0.01), feet=(0.02, 0, 0, 0.14, 0.4)),
    key(0.22, 0.05, arms=(0.5, 0.4, 0.5, 0.0), hips=(0.0, 0.11, -0.04), pelvis=(0.32,), spine=(0.2,), head=(-0.12,)),
    key(0.6, 0.5, heading=(0.3,)),
    key(0.5, 0.08, arms=(-0.7, 0.3, 0.1, -0.2), heading=(0.3,), **_CROUCH),
    key(
        0.42, 0.0, height=(0.1,), arms=(0.1, 1.75, 0.3, 0.3), heading=(0.15,), feet=(0.1, 0, 0, 0.2, 0.7), head=(-0.1,)
    ),
    key(0.34, 0.05, arms=(0.4, 0.6, 0.5, 0.0), hips=(0.0, 0.1, -0.04), pelvis=(0.3,), spine=(0.2,), head=(-0.12,)),
)

_STANCE = dict(left_foot=(0.03, 0, 0.08, 0.1), right_foot=(0.03, 0, -0.08, 0.5, 0.25))
_GUARD_BENT = dict(_GUARD, heading=(-0.35,), **_STANCE)


def _boxing() -> Sequence:
    """A guard that goes from foot to foot; two jabs and a cross, a duck and a cross."""

    def guard(move: float, hold: float, way: float, low: float = 0.025) -> Key:
        return key(
            move, hold, hips=(0.015 * way, low), spine=(0.12, -0.15, 0.05 * way), head=(0.06, 0.12), **_GUARD_BENT
        )

    jab = dict(
        _GUARD_BENT,
        left_arm=(1.5, 0.0, 0.1, -0.2),
        hips=(0.01, 0.03, 0.03),
        pelvis=(0.0, -0.1),
        spine=(0.12, -0.35),
        head=(0.06, 0.3),
    )
    cross = dict(
        _GUARD_BENT,
        right_arm=(1.5, -0.1, 0.1, -0.2),
        hips=(0.03, 0.035, 0.05),
        pelvis=(0.0, 0.25),
        spine=(0.15, 0.45),
        head=(0.06, -0.4),
        right_foot=(0.03, 0, -0.08, 0.2, 0.6),
    )
    duck = dict(_GUARD_BENT, hips=(-0.03, 0.11, -0.01), pelvis=(0.2,), spine=(0.3, -0.1, 0.2), head=(-0.2, 0.1))
    return Sequence(
        guard(0.35, 0.1, 1),
        guard(0.3, 0.0, -1, 0.035),
        guard(0.3, 0.05, 1),
        key(0.24, 0.04, **jab),
        guard(0.28, 0.04, 0),
        key(0.24, 0.04, **jab),
        key(0.27, 0.06, **cross),
        guard(0.35, 0.1, -1),
        guard(0.3, 0.0, 1, 0.035),
        key(0.35, 0.1, **duck),
        guard(0.32, 0.05, 1),
        key(0.27, 0.06, **cross),
        guard(0.4, 0.3, -1),
        contact=True,
    )


_CLUB_DOWN = dict(
    left_arm=reach((0.0, 0.55, 0.2), (1.0, -0.3, -0.4)), right_arm=reach((0.01, 0.53, 0.2), (1.0, -0.3, -0.4))
)
_CLUB_UP = dict(
    left_arm=reach((-0.06, 0.85, 0.17), (0.6, -1.0, 0.3)), right_arm=reach((0.12, 0.86, 0.1), (1.0, -0.6, -0.2))
)
_CLUB_ROUND = dict(
    left_arm=reach((0.12, 0.88, 0.08), (1.0, -0.5, 0.0)), right_arm=reach((-0.06, 0.87, 0.16), (0.6, -1.0, 0.3))
)
_WIDE = dict(left_foot=(0.06, 0, 0, 0.25), right_foot=(0.06, 0, 0, 0.2))
_SWING = Sequence(
    key(1.0, 0.8, hips=(0.0, 0.02, -0.03), pelvis=(0.2,), spine=(0.2,), head=(0.25,), **_CLUB_DOWN, **_WIDE),
    key(
        0.95,
        0.15,
        hips=(-0.035, 0.015, -0.02),
        pelvis=(0.12, -0.4),
        spine=(0.12, -0.75),
        head=(0.25, 0.9),
        **_CLUB_UP,
        left_foot=(0.06, 0, 0, 0.25, 0.2),
        right_foot=(0.06, 0, 0, 0.2),
    ),
    key(
        0.33,
        0.0,
        hips=(0.03, 0.02, -0.02),
        pelvis=(0.15, 0.25),
        spine=(0.2, 0.0),
        head=(0.25, -0.2),
        **_CLUB_DOWN,
        left_foot=(0.06, 0, 0, 0.25),
        right_foot=(0.06, 0, 0, 0.15, 0.2),
    ),
    key(
        0.46,
        0.9,
        hips=(0.055, 0.008),
        pelvis=(0.0, 0.8),
        spine=(-0.05, 0.7),
        head=(0.0, -0.4),
        **_CLUB_ROUND,
        left_foot=(0.06, 0, 0, 0.45),
        right_foot=(0.03, 0, 0.0, -0.3, 0.9),
    ),
    key(0.8, 0.5, heading=(0.15,), head=(-0.05, 0.5)),
    contact=True,
)

_PALMS = reach((0.02, 0.74, 0.13), (1.0, -0.35, -0.1))
_PALMS_HIGH = reach((0.015, 1.075, 0.02), (1.0, 0.1, 0.15))
_TREE_FOOT = (-0.045, 0.2, 0.0, 1.15, 0.9)
_TREE = Sequence(
    key(1.0, 0.6),
    key(0.9, 0.1, hips=(0.045, 0.006), right_foot=(0.02, 0.04, 0.03, 0.4, 0.5), arms=(0.1, 0.6, 0.3, 0.1)),
    key(
        1.0,
        0.3,
        hips=(0.05, 0.004),
        right_foot=_TREE_FOOT,
        arms=_PALMS,
        pelvis=(0.0, 0.0, 0.03),
        spine=(0.0, 0.0, -0.04),
    ),
    key(
        1.3,
        1.6,
        hips=(0.052, 0.004),
        right_foot=_TREE_FOOT,
        arms=_PALMS_HIGH,
        head=(-0.08,),
        pelvis=(0.0, 0.0, 0.03),
        spine=(-0.03, 0.0, -0.04),
    ),
    key(1.2, 0.3, hips=(0.05, 0.004), right_foot=_TREE_FOOT, arms=(0.0, 1.45, 0.1, 0.1)),
    contact=True,
)

SPORTS = {
    "twist": (_TWIST,),
    "squat": (_SQUAT,),
    "lunge": (_LUNGE,),
    "kick": (_KICK,),
    "jump": (_JUMP,),
    "boxing": (_boxing(),),
    "swing": (_SWING,),
    "tree": (_TREE,),
}
