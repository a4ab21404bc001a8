"""Poses of people who show clothes: held, eased into each other, turned from side to side."""

from __future__ import annotations

import math

from .posing import HAND_ON_HIP, reach
from .timing import Sequence, key

_AT_THIGH = reach((0.12, 0.5, 0.06), (0.6, 0.0, -1.0))
_AT_HAIR = reach((0.11, 0.91, -0.01), (1.0, 0.5, 0.25))
_AT_COLLAR = reach((0.06, 0.765, 0.135), (1.0, -0.8, 0.0))
_BEHIND = reach((0.085, 0.575, -0.125), (1.0, 0.0, -0.6))
_SKIRT = reach((0.2, 0.53, 0.04), (0.5, 0.0, -1.0))
_SKIRT_WIDE = reach((0.245, 0.58, 0.05), (0.4, 0.0, -1.0))

_LEFT_HIP = dict(
    hips=(0.05, 0.008),
    pelvis=(0.0, -0.1, 0.1),
    spine=(-0.03, 0.08, -0.16),
    left_foot=(0.014, 0, 0, 0.14),
    right_foot=(0.045, 0, 0.06, 0.35, 0.15),
)
_RIGHT_HIP = dict(
    hips=(-0.05, 0.008),
    pelvis=(0.0, 0.1, -0.1),
    spine=(-0.03, -0.08, 0.16),
    right_foot=(0.014, 0, 0, 0.14),
    left_foot=(0.045, 0, 0.06, 0.35, 0.15),
)
_CROSSED = dict(
    hips=(0.02, 0.012),
    pelvis=(0.0, 0.15, 0.04),
    spine=(0.0, -0.12, -0.06),
    left_foot=(-0.01, 0, -0.02, 0.2),
    right_foot=(-0.075, 0, 0.09, 0.1, 0.2),
)
_STEP_UP = dict(
    left_foot=(0.0, 0, 0.13, 0.1),
    right_foot=(0.014, 0, -0.07, 0.3, 0.3),
    hips=(0.02, 0.012, 0.06),
    pelvis=(0.0, -0.15, 0.04),
    spine=(-0.04, 0.15, -0.06),
)
_LIFTED_LEFT = (0.014, 0.03, 0.06, 0.15, 0.3)
_LIFTED_RIGHT = (0.03, 0.03, 0.03, 0.25, 0.35)

_FASHION = Sequence(
    key(0.7, 0.6),
    key(0.7, 1.1, left_arm=HAND_ON_HIP, head=(-0.03, 0.25, 0.05), **_LEFT_HIP),
    key(0.6, 0.0, left_arm=HAND_ON_HIP, heading=(-0.3,), hips=(0.0, 0.01), left_foot=_LIFTED_LEFT),
    key(0.6, 1.0, arms=HAND_ON_HIP, heading=(-0.55,), head=(-0.03, 0.5, -0.03), **_RIGHT_HIP),
    key(0.55, 0.0, heading=(-0.2,), head=(0.0, 0.2), hips=(0.02, 0.012, 0.02), left_foot=(0.01, 0.03, 0.09, 0.1, 0.1)),
    key(0.5, 0.9, left_arm=_AT_COLLAR, head=(0.0, -0.15, 0.08), **_STEP_UP),
    key(0.6, 0.0, heading=(0.5,), hips=(0.03, 0.012, 0.02), right_foot=(0.0, 0.03, 0.0, 0.2, 0.4), head=(0.0, 0.3)),
    key(0.7, 1.1, heading=(1.0,), left_arm=_AT_HAIR, right_arm=_AT_THIGH, head=(-0.06, -0.7, 0.05), **_LEFT_HIP),
    contact=True,
)

_CONTRAPPOSTO = Sequence(
    key(0.9, 0.5),
    key(0.9, 1.2, right_arm=HAND_ON_HIP, head=(0.0, -0.3, -0.06), **_RIGHT_HIP),
    key(1.0, 1.2, left_arm=_AT_HAIR, right_arm=_AT_THIGH, heading=(0.25,), head=(-0.05, -0.2, 0.1), **_LEFT_HIP),
    key(
        0.5,
        0.0,
        heading=(0.1,),
        hips=(0.025, 0.01),
        right_foot=(-0.02, 0.03, 0.05, 0.15, 0.3),
        left_arm=(0.2, 0.3, 0.9, -0.4),
    ),
    key(0.6, 1.3, arms=_BEHIND, head=(0.03, 0.35, -0.08), **_CROSSED),
    key(0.9, 1.0, heading=(-0.6,), left_arm=HAND_ON_HIP, head=(-0.03, 0.55, 0.0), **_LEFT_HIP),
    contact=True,
)

_OVER_SHOULDER = Sequence(
    key(0.6, 0.5),
    key(0.5, 0.0, heading=(0.9,), head=(0.0, 0.3), hips=(0.03, 0.012), right_foot=_LIFTED_RIGHT),
    key(0.7, 0.2, heading=(2.1,), head=(0.0, 0.15), hips=(-0.015, 0.01), left_foot=(0.014, 0, 0, 0.2, 0.15)),
    key(
        0.6,
        1.3,
        heading=(2.25,),
        head=(-0.04, -0.95, 0.0),
        right_arm=HAND_ON_HIP,
        hips=(-0.045, 0.008),
        pelvis=(0.0, -0.1, -0.09),
        spine=(-0.05, -0.4, 0.12),
        left_foot=(0.03, 0, 0.04, 0.3, 0.2),
    ),
    key(0.6, 0.0, heading=(2.7,), head=(0.0, 0.4), hips=(0.02, 0.012), right_foot=_LIFTED_RIGHT),
    key(0.7, 0.2, heading=(3.9,), hips=(-0.02, 0.01), left_foot=(0.02, 0.0, 0.0, 0.2, 0.2), head=(0.0, 0.3)),
    key(
        0.6,
        1.2,
        heading=(4.05,),
        head=(-0.04, 0.95, 0.0),
        left_arm=HAND_ON_HIP,
        hips=(0.045, 0.008),
        pelvis=(0.0, 0.1, 0.09),
        spine=(-0.05, 0.4, -0.12),
        right_foot=(0.03, 0, 0.04, 0.3, 0.2),
    ),
    key(0.5, 0.0, heading=(5.0,), head=(0.0, 0.5), hips=(0.02, 0.012), right_foot=_LIFTED_RIGHT),
    turns=1,
    contact=True,
)

_SHOW_DRESS = Sequence(
    key(0.7, 0.5),
    key(0.7, 0.3, arms=_SKIRT, head=(0.2,)),
    key(
        0.8,
        0.4,
        heading=(0.8,),
        left_arm=_SKIRT_WIDE,
        right_arm=_SKIRT,
        head=(0.05, -0.5),
        hips=(0.03, 0.008),
        pelvis=(0.0, 0.0, 0.05),
        right_foot=(0.03, 0, 0.02, 0.25, 0.15),
    ),
    key(
        1.1,
        0.4,
        heading=(-0.8,),
        left_arm=_SKIRT,
        right_arm=_SKIRT_WIDE,
        head=(0.05, 0.5),
        hips=(-0.03, 0.008),
        pelvis=(0.0, 0.0, -0.05),
        left_foot=(0.03, 0, 0.02, 0.25, 0.15),
    ),
    key(0.5, 0.0, heading=(0.3,), arms=_SKIRT_WIDE, hips=(0.02, 0.012), right_foot=_LIFTED_RIGHT, head=(0.0, 0.4)),
    key(
        0.6,
        0.0,
        heading=(2.0,),
        arms=_SKIRT_WIDE,
        hips=(-0.02, 0.01),
        left_foot=(0.014, 0.025, 0, 0.2, 0.3),
        head=(0.0, 0.5),
    ),
    key(0.6, 0.5, heading=(math.pi,), arms=_SKIRT, head=(0.0, 0.1)),
    key(0.6, 0.0, heading=(4.3,), arms=_SKIRT_WIDE, hips=(0.02, 0.012), right_foot=_LIFTED_RIGHT, head=(0.0, 0.5)),
    turns=1,
    contact=True,
)

FASHION = {
    "fashion": (_FASHION,),
    "contrapposto": (_CONTRAPPOSTO,),
    "over_shoulder": (_OVER_SHOULDER,),
    "show_dress": (_SHOW_DRESS,),
}
