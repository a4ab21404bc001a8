"""Dances: a groove with open arms, disco, a robot."""

from __future__ import annotations

from .posing import HAND_ON_HIP, reach
from .timing import Sequence, key


def _dance() -> Sequence:
    """Eight beats: weight from foot to foot, arms that open in turn, a half turn of the hips and back."""
    keys = []
    for beat in range(8):
        s = 1 if beat % 2 == 0 else -1
        lead, rest = ("left", "right") if s > 0 else ("right", "left")
        wide = beat in (2, 3, 6, 7)
        arms = {
            f"{lead}_arm": (0.2, 1.75, 0.75, 1.0) if wide else (0.35, 0.95, 1.25, 0.5),
            f"{rest}_arm": (0.1, 0.75, 0.9, 0.2) if wide else (0.3, 0.35, 1.3, -0.3),
            f"{lead}_hand": (0.0, 0.3),
            f"{rest}_hand": (0.1, -0.2),
        }
        feet = {f"{lead}_foot": (0.04, 0, 0, 0.25), f"{rest}_foot": (0.05, 0.02 if wide else 0.0, 0.03, 0.3, 0.3)}
        heading = (0.15, 0.3, 0.45, 0.2, -0.1, -0.35, -0.5, -0.2)[beat]
        pose = dict(arms, heading=(heading,), head=(0.03, 0.2 * s, 0.08 * s))
        keys.append(
            key(
                0.24,
                0.0,
                hips=(0.012 * s, 0.04),
                pelvis=(0.05, -0.12 * s, 0.03 * s),
                spine=(0.04, 0.12 * s, -0.05 * s),
                **pose,
                **feet,
            )
        )
        keys.append(
            key(
                0.3,
                0.0,
                hips=(0.05 * s, 0.012),
                pelvis=(0.0, 0.14 * s, 0.1 * s),
                spine=(0.0, -0.15 * s, -0.17 * s),
                **pose,
                **feet,
            )
        )
    return Sequence(*keys)


_UP, _DOWN = (0.55, 1.85, 0.15, 0.2), reach((-0.1, 0.56, 0.14), (1.0, 0.0, -0.3))
_ROLL = (reach((0.01, 0.72, 0.17), (1.0, -0.4, -0.1)), reach((0.01, 0.66, 0.11), (1.0, -0.4, -0.1)))


def _disco() -> Sequence:
    """Four times a hand up to the sky and down to the other hip, then eight beats of rolling arms."""
    keys = []
    for i in range(4):
        keys.append(
            key(
                0.38,
                0.06,
                left_arm=_UP,
                right_arm=HAND_ON_HIP,
                hips=(0.05, 0.01),
                pelvis=(0.0, -0.1, 0.12),
                spine=(-0.02, 0.12, -0.12),
                head=(-0.1, 0.5),
                left_foot=(0.05, 0, 0, 0.3),
                right_foot=(0.05, 0, 0.02, 0.35, 0.25),
                heading=(0.1 * i - 0.1,),
            )
        )
        keys.append(
            key(
                0.38,
                0.06,
                left_arm=_DOWN,
                right_arm=HAND_ON_HIP,
                hips=(-0.04, 0.035),
                pelvis=(0.05, 0.1, -0.08),
                spine=(0.1, -0.2, 0.1),
                head=(0.15, -0.35),
                left_foot=(0.05, 0, 0.02, 0.35, 0.25),
                right_foot=(0.05, 0, 0, 0.3),
                heading=(0.1 * i - 0.1,),
            )
        )
    for i in range(8):
        s = 1 if i % 2 == 0 else -1
        keys.append(
            key(
                0.24,
                0.0,
                left_arm=_ROLL[i % 2],
                right_arm=_ROLL[(i + 1) % 2],
                hips=(0.03 * s, 0.02 + 0.02 * (i % 2)),
                pelvis=(0.05, 0.08 * s, 0.06 * s),
                spine=(0.1, 0.0, -0.08 * s),
                head=(0.05, 0.0, 0.06 * s),
                left_foot=(0.05, 0, 0, 0.3, 0.1 - 0.1 * s),
                right_foot=(0.05, 0, 0, 0.3, 0.1 + 0.1 * s),
                heading=(0.2 - 0.06 * i,),
            )
        )
    return Sequence(*keys, contact=True)


_LEVEL, _LEVEL_UP, _LEVEL_DOWN = (0.0, 1.35, 1.5, 0.0), (0.0, 1.35, 1.5, 1.45), (0.0, 1.35, 1.4, -1.2)
_ROBOT = Sequence(
    key(0.4, 0.35, arms=(0.0, 0.18, 1.55, 0.0)),
    key(0.22, 0.3, left_arm=(0.0, 0.18, 1.55, 0.0), right_arm=(0.0, 0.18, 0.25, 0.0), head=(0.0, 0.6)),
    key(0.26, 0.25, left_arm=_LEVEL, right_arm=(0.0, 0.18, 0.25, 0.0), head=(0.0, 0.6), spine=(0.0, 0.15)),
    key(0.24, 0.3, left_arm=_LEVEL_UP, right_arm=(0.0, 0.18, 0.25, 0.0), head=(0.0, 0.0)),
    key(
        0.38,
        0.3,
        left_arm=_LEVEL_UP,
        right_arm=_LEVEL_DOWN,
        spine=(0.0, 0.0, 0.12),
        head=(0.0, 0.0, -0.15),
        hips=(0.02, 0.006),
    ),
    key(
        0.45,
        0.25,
        left_arm=_LEVEL_DOWN,
        right_arm=_LEVEL_UP,
        spine=(0.0, 0.0, -0.12),
        head=(0.0, 0.0, 0.15),
        hips=(-0.02, 0.006),
    ),
    key(0.3, 0.3, left_arm=_LEVEL_DOWN, right_arm=_LEVEL_UP, spine=(0.0, -0.4), head=(0.0, -0.3), pelvis=(0.0, -0.15)),
    key(0.4, 0.35, spine=(0.45,), pelvis=(0.3,), hips=(0.0, 0.03, -0.05), head=(0.2,), arms=(0.5, 0.4, 0.3, 0.0)),
    key(
        0.3,
        0.2,
        spine=(0.1, 0.3),
        heading=(0.4,),
        head=(0.0, -0.5),
        left_arm=(0.7, 0.18, 1.55, 0.0),
        right_arm=(-0.4, 0.18, 1.55, 0.0),
    ),
    key(
        0.38,
        0.25,
        spine=(0.05, -0.3),
        heading=(0.4,),
        head=(0.0, 0.4),
        left_arm=(-0.4, 0.18, 1.55, 0.0),
        right_arm=(0.7, 0.18, 1.55, 0.0),
    ),
)

DANCES = {"dance": (_dance(),), "disco": (_disco(),), "robot": (_ROBOT,)}
