"""Gestures on the spot: waving, clapping, pointing, bowing and the like, each a table of key poses."""

from __future__ import annotations

from .posing import reach
from .timing import Sequence, key

# Weight on the left or the right foot, with the other knee at ease.
_ON_LEFT = dict(hips=(0.028, 0.006), pelvis=(0.0, -0.05, 0.05), right_foot=(0.03, 0, 0.02, 0.25, 0.08))
_ON_RIGHT = dict(hips=(-0.028, 0.006), pelvis=(0.0, 0.05, -0.05), left_foot=(0.03, 0, 0.02, 0.25, 0.08))

_WAVING = ((0.0, 1.25, 1.75, 1.2), (0.0, 1.2, 1.35, 1.5))  # the forearm in, the forearm out
_WAVE = Sequence(
    key(0.8, 0.35),
    key(0.22, 0.0, left_arm=(-0.06, 0.14, 0.3, -0.25), hips=(0.01, 0.008)),
    key(
        0.6,
        0.0,
        left_arm=_WAVING[0],
        left_hand=(0.0, -0.2),
        spine=(0.0, 0.0, 0.05),
        head=(-0.02, 0.12, -0.06),
        **_ON_RIGHT,
    ),
    *(
        key(
            0.27,
            0.02,
            left_arm=_WAVING[i % 2],
            left_hand=(0.0, (0.3, -0.3)[i % 2]),
            spine=(0.0, 0.03 * (i % 2), 0.05 + 0.03 * (i % 2)),
            head=(-0.02, 0.12, -0.06),
            heading=(0.12,),
            **_ON_RIGHT,
        )
        for i in (1, 0, 1, 0, 1, 0)
    ),
    key(0.7, 0.4, heading=(-0.15,)),
)

_UP_WIDE, _UP_CROSS = (0.1, 1.7, 0.85, 1.35), (0.2, 1.95, 1.45, 1.3)
_WAVE_BOTH = Sequence(
    key(0.9, 0.6),
    key(0.25, 0.0, arms=(-0.1, 0.12, 0.35, -0.2), hips=(0.0, 0.03), spine=(0.08,)),
    key(0.6, 0.05, arms=_UP_WIDE, spine=(-0.04,), head=(-0.06,), hips=(0.0, 0.0)),
    *(
        key(
            0.34,
            0.0,
            arms=arms,
            hands=(0.0, hand),
            hips=(0.03 * side, 0.012),
            pelvis=(0.0, 0.0, 0.04 * side),
            spine=(-0.04, 0.0, -0.06 * side),
            head=(-0.06,),
        )
        for side in (1, -1, 1)
        for arms, hand in ((_UP_CROSS, -0.3), (_UP_WIDE, 0.3))
    ),
)

_CLAP_OPEN, _CLAP_SHUT = reach((0.115, 0.75, 0.19), (1.0, -0.7, -0.2)), reach((0.028, 0.755, 0.205), (1.0, -0.9, -0.2))
_CLAP = Sequence(
    key(0.7, 0.7),
    key(0.55, 0.0, arms=_CLAP_OPEN, head=(-0.03,)),
    *(
        key(
            *timing,
            arms=arms,
            heading=(0.25 * (i / 6 - 1),),
            hips=(0.016 * (-1) ** (i // 3), sink),
            spine=(bend, 0.0, 0.03 * (-1) ** (i // 3)),
            head=(0.0, 0.25 * (-1) ** (i // 6), 0.07 * (-1) ** (i // 3)),
        )
        for i in range(12)
        for timing, arms, sink, bend in (((0.13, 0.03), _CLAP_SHUT, 0.008, 0.03), ((0.2,), _CLAP_OPEN, 0.003, 0.0))
    ),
    contact=True,
)

_POINT = Sequence(
    key(0.8, 0.6),
    key(0.35, 0.0, head=(0.0, 0.6), left_arm=reach((0.13, 0.66, 0.1), (0.6, -0.6, -1.0)), hips=(-0.01, 0.006)),
    key(
        0.45,
        1.0,
        head=(0.0, 0.65),
        spine=(0.02, 0.2),
        heading=(0.2,),
        left_arm=(0.35, 1.3, 0.08, 0.2),
        left_hand=(-0.1, 0.0),
        **_ON_LEFT,
    ),
    key(0.7, 0.3, head=(0.0, 0.1), left_arm=(0.6, 0.35, 1.2, 0.2), heading=(0.1,)),
    key(
        0.5,
        0.9,
        head=(0.02, -0.05),
        spine=(0.05, -0.15),
        left_arm=(1.25, 0.1, 0.12, 0.0),
        left_hand=(-0.05, 0.0),
        hips=(0.0, 0.004, 0.02),
    ),
)

_PALMS_UP = (0.2, 0.32, 1.75, 0.75)
_SHRUG = Sequence(
    key(0.7, 0.8),
    key(0.25, 0.0, hips=(0.0, 0.012), spine=(0.04,), head=(0.04,)),
    key(
        0.4,
        0.7,
        arms=_PALMS_UP,
        hands=(-0.4, 0.35),
        head=(0.0, 0.0, 0.22),
        spine=(-0.06, 0.0, -0.05),
        hips=(0.012, 0.002),
    ),
    key(0.35, 0.15, arms=(0.2, 0.25, 1.45, 0.5), head=(0.0, 0.25, 0.1)),
    key(
        0.3,
        0.5,
        arms=_PALMS_UP,
        hands=(-0.4, 0.35),
        head=(0.0, -0.3, -0.12),
        spine=(-0.05, -0.1, 0.05),
        hips=(-0.015, 0.002),
        heading=(-0.2,),
    ),
)

_BOW = Sequence(
    key(0.9, 0.9),
    key(0.3, 0.0, spine=(-0.05,), head=(-0.08,)),
    key(
        0.9,
        0.6,
        pelvis=(0.5,),
        spine=(0.45,),
        head=(0.3,),
        hips=(0.0, 0.01, -0.075),
        left_arm=reach((0.05, 0.66, 0.1), (1.0, 0.0, -0.2)),
        right_arm=(-0.1, 0.4, 0.25, -0.2),
    ),
    key(1.0, 0.8, heading=(0.35,)),
    key(0.3, 0.0, spine=(-0.04,), heading=(0.35,)),
    key(
        0.8,
        0.5,
        pelvis=(0.4,),
        spine=(0.35,),
        head=(0.25,),
        hips=(0.0, 0.01, -0.06),
        heading=(0.35,),
        arms=(0.95, 0.1, 0.1, -0.1),
    ),
    contact=True,
)

_SKIRT_SIDES = reach((0.19, 0.53, 0.03), (0.5, 0.0, -1.0))
_SKIRT_UP = reach((0.235, 0.56, 0.035), (0.4, 0.0, -1.0))
_CURTSY = Sequence(
    key(0.9, 0.8),
    key(0.5, 0.1, arms=_SKIRT_SIDES, head=(0.03,), **_ON_LEFT),
    key(0.45, 0.0, arms=_SKIRT_UP, hips=(0.035, 0.02), right_foot=(-0.02, 0.025, -0.1, 0.3, 0.5)),
    key(
        0.8,
        0.5,
        arms=_SKIRT_UP,
        hips=(0.0, 0.12, -0.03),
        right_foot=(-0.1, 0.0, -0.17, 0.35, 0.75),
        left_foot=(0.0, 0.0, 0.02, 0.4),
        spine=(0.16,),
        head=(0.26, 0.0, 0.08),
    ),
    key(0.8, 0.1, arms=_SKIRT_UP, hips=(0.035, 0.01), right_foot=(-0.02, 0.02, -0.1, 0.3, 0.5), spine=(0.02,)),
    key(0.5, 0.3, arms=_SKIRT_SIDES, heading=(0.2,)),
    contact=True,
)

_AT_BROW = reach((0.125, 0.925, 0.075), (1.0, -0.1, 0.15))
_SALUTE = Sequence(
    key(0.7, 0.8),
    key(0.3, 0.1, hips=(0.0, 0.0), feet=(0.0, 0, 0, 0.2), head=(-0.05,)),
    key(
        0.5,
        1.2,
        left_arm=_AT_BROW,
        left_hand=(0.1, 0.0),
        spine=(-0.04,),
        head=(-0.05,),
        feet=(0.0, 0, 0, 0.2),
        hips=(0.0, 0.0),
    ),
    key(0.5, 0.4, spine=(-0.03,), feet=(0.0, 0, 0, 0.2)),
    key(0.9, 0.8, heading=(-0.4,), head=(0.0, 0.45), **_ON_RIGHT),
    contact=True,
)

_AT_EAR = reach((0.088, 0.888, 0.045), (0.9, -1.0, 0.3))
_OTHER_ELBOW = reach((0.0, 0.68, 0.12), (1.0, -0.6, -0.2))
_PHONE = Sequence(
    key(0.9, 0.5),
    key(0.4, 0.0, left_arm=reach((0.14, 0.62, 0.1), (0.4, -0.6, -1.0)), head=(0.25, 0.2), hips=(-0.01, 0.006)),
    key(0.6, 1.0, left_arm=_AT_EAR, head=(0.0, 0.1, -0.1), spine=(0.0, 0.05), **_ON_LEFT),
    key(
        0.8,
        1.1,
        left_arm=_AT_EAR,
        right_arm=_OTHER_ELBOW,
        head=(0.1, -0.35, -0.08),
        spine=(0.04, -0.1),
        heading=(-0.4,),
        **_ON_RIGHT,
    ),
    key(
        0.5,
        0.8,
        left_arm=_AT_EAR,
        right_arm=(0.45, 0.25, 1.3, 0.5),
        right_hand=(-0.3, 0.2),
        head=(-0.03, 0.2, -0.1),
        heading=(-0.3,),
        **_ON_RIGHT,
    ),
    key(0.9, 0.9, left_arm=_AT_EAR, head=(0.05, 0.35, -0.1), heading=(0.5,), **_ON_LEFT),
    contact=True,
)

_LOOK_AROUND = Sequence(
    key(0.9, 0.7),
    key(0.7, 0.6, head=(0.0, 0.95), spine=(0.0, 0.25), pelvis=(0.0, 0.1), hips=(0.02, 0.005)),
    key(1.2, 0.6, head=(-0.1, -0.95), spine=(0.0, -0.3), pelvis=(0.0, -0.12), hips=(-0.025, 0.005)),
    key(0.8, 0.5, head=(-0.4, -0.2), spine=(-0.08, -0.05), hips=(0.0, 0.003)),
    key(0.7, 0.5, head=(0.4, 0.2, 0.05), spine=(0.1, 0.1)),
    key(
        0.6,
        0.4,
        heading=(0.7,),
        head=(0.0, 0.5),
        left_arm=reach((0.09, 0.925, 0.1), (1.0, -0.2, 0.2)),
        spine=(0.08, 0.1),
        **_ON_LEFT,
    ),
    contact=True,
)

_ARMS = Sequence(
    key(1.2, 0.4),
    key(1.1, 0.3, arms=(0.0, 1.5, 0.1, 0.1), spine=(-0.03,), heading=(0.25,)),
    key(0.9, 0.5, arms=(0.0, 2.1, 0.75, 1.5), spine=(-0.06,), head=(-0.12,), heading=(0.3,)),
    key(1.0, 0.2, arms=(0.0, 1.5, 0.15, 0.1), heading=(-0.2,)),
    key(0.9, 0.4, arms=(1.35, 0.15, 0.1, -0.1), spine=(0.05,), heading=(-0.3,)),
)

_BEHIND_HEAD = reach((0.1, 0.93, -0.045), (1.0, 0.6, 0.1))
_OVER_HEAD = reach((0.03, 1.065, 0.03), (1.0, 0.0, 0.3))
_STRETCH = Sequence(
    key(1.1, 0.6),
    key(0.9, 0.2, arms=reach((0.05, 0.78, 0.17), (1.0, 0.1, 0.0)), head=(0.1,)),
    key(1.1, 0.6, arms=_OVER_HEAD, spine=(-0.15,), head=(-0.3,), feet=(0.014, 0, 0, 0.14, 0.45), hips=(0.0, 0.0, 0.02)),
    key(
        0.9,
        0.7,
        arms=_OVER_HEAD,
        spine=(0.0, 0.0, 0.38),
        pelvis=(0.0, 0.0, 0.1),
        hips=(0.035, 0.006),
        head=(0.0, 0.0, 0.12),
    ),
    key(
        1.2,
        0.7,
        arms=_OVER_HEAD,
        spine=(0.0, 0.0, -0.38),
        pelvis=(0.0, 0.0, -0.1),
        hips=(-0.035, 0.006),
        head=(0.0, 0.0, -0.12),
    ),
    key(1.0, 0.7, arms=_BEHIND_HEAD, spine=(-0.1, 0.2), head=(-0.05,)),
    contact=True,
)

GESTURES = {
    "wave": (_WAVE,),
    "wave_both": (_WAVE_BOTH,),
    "clap": (_CLAP,),
    "point": (_POINT,),
    "shrug": (_SHRUG,),
    "bow": (_BOW,),
    "curtsy": (_CURTSY,),
    "salute": (_SALUTE,),
    "phone": (_PHONE,),
    "look_around": (_LOOK_AROUND,),
    "arms": (_ARMS,),
    "stretch": (_STRETCH,),
}
