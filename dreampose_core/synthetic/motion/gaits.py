"""Standing about, walking and turning: idle, five ways of going, turns, a walk down the catwalk, side steps."""

from __future__ import annotations

import math

from .posing import HAND_ON_HIP, reach
from .timing import Cycle, Faded, Key, Sequence, Spin, key

# The left foot over one stride, at 12 even moments from its heel's contact: on the ground it stays behind, then it
# swings forward.
_FORWARD = (1.0, 0.72, 0.41, 0.09, -0.22, -0.53, -0.81, -1.03, -0.69, 0.0, 0.66, 1.02)
_LIFT = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.12, 0.85, 1.0, 0.55, 0.2)
_HEEL = (-0.25, -0.03, 0.0, 0.0, 0.0, 0.06, 0.35, 0.72, 0.75, 0.35, 0.0, -0.18)
_MOMENTS = len(_FORWARD)


def _wave(size: float, lag: float = 0.0, times: int = 1, mean: float = 0.0) -> list[float]:
    """A cosine over the stride: at the left heel's contact (plus `lag` strides) it is highest."""
    return [mean + size * math.cos(2 * math.pi * times * (k / _MOMENTS - lag)) for k in range(_MOMENTS)]


def gait(
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
) -> Cycle:
    """A stride of two steps on the spot, as on a treadmill.

    period: seconds a stride. stride, lift: how far the feet go forward and up, in body heights. heel: of the feet's
    rolling, 1 is a walk. arms, elbow: how far arms swing and are bent. sway: of the hips over the standing foot. turn:
    of the pelvis, against the chest.
    bounce: how far knees give after each contact. bend: of the trunk forwards. inwards: how much closer the feet go
    than they stand.
    rise: height of the flight between two contacts (running).
    """
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
        ("height", 0): [max(0.0, h) for h in _wave(rise, 0.3, 2, 0.3 * rise)],
    }
    for side, half in (("left", 0), ("right", _MOMENTS // 2)):

        def shifted(values, by=half) -> list[float]:
            return [values[(k - by) % _MOMENTS] for k in range(_MOMENTS)]

        rows |= {
            (f"{side}_foot", 0): [-inwards] * _MOMENTS,
            (f"{side}_foot", 1): shifted([lift * v for v in _LIFT]),
            (f"{side}_foot", 2): shifted([stride * v for v in _FORWARD]),
            (f"{side}_foot", 4): shifted([heel * v for v in _HEEL]),
            (f"{side}_arm", 0): shifted(_wave(-arms, 0.03, mean=0.1 * arms)),
            (f"{side}_arm", 2): shifted(_wave(-0.5 * arms, 0.08, mean=elbow)),
            (f"{side}_hand", 0): shifted(_wave(-0.25 * arms, 0.12)),
        }
    return Cycle(period, rows)


_LOOK_ROUND = Sequence(key(2.6, 0.5), key(2.4, 0.7, heading=(0.5,)), key(3.2, 0.4, heading=(-0.45,)))
_WANDER = Sequence(
    key(2.2, 0.6),
    key(2.0, 1.0, heading=(0.55,), hips=(0.05,), left_foot=(0.064,), right_foot=(-0.036,)),
    key(3.0, 0.8, heading=(-0.5,), hips=(-0.05,), left_foot=(-0.036,), right_foot=(0.064,)),
)
_SMALL_STEPS = dict(stride=0.05, lift=0.035, heel=0.5, arms=0.14, elbow=0.1, sway=0.012, turn=0.05, inwards=0.0)

# Weight from one foot to the other; the free knee gives, the shoulders tilt against the hips.
_LEFT_WEIGHT = dict(
    hips=(0.035, 0.006),
    pelvis=(0.0, -0.08, 0.07),
    spine=(0.0, 0.05, -0.1),
    head=(0.0, 0.12, 0.05),
    left_foot=(0.02, 0, 0, 0.14),
    right_foot=(0.035, 0, 0.035, 0.3, 0.12),
)
_RIGHT_WEIGHT = dict(
    hips=(-0.03, 0.006),
    pelvis=(0.0, 0.06, -0.06),
    spine=(0.02, -0.05, 0.09),
    head=(0.0, -0.18, -0.03),
    left_foot=(0.03, 0, 0.03, 0.28, 0.1),
    right_foot=(0.02, 0, 0, 0.14),
)
_IDLE = Sequence(
    key(1.4, 0.9), key(1.3, 1.4, heading=(0.5,), **_LEFT_WEIGHT), key(1.9, 1.2, heading=(-0.5,), **_RIGHT_WEIGHT)
)


def _pivot(seconds: float, turned: float, look: float = 0.5) -> tuple[Key, Key]:
    """Two quick steps round to the heading `turned`; the head, and then the chest, are up to `look` ahead of the
    hips."""
    return (
        key(
            0.45 * seconds,
            heading=(turned - look,),
            head=(0.0, 0.8 * look),
            spine=(0.03, 0.3 * look),
            hips=(-0.02, 0.008),
            left_foot=(0.014, 0.03, -0.02, 0.3, 0.35),
        ),
        key(
            0.55 * seconds,
            heading=(turned,),
            head=(0.0, 0.1),
            hips=(0.015, 0.006),
            right_foot=(0.02, 0.0, 0.01, 0.14, 0.1),
        ),
    )


_CATWALK_POSE = dict(_LEFT_WEIGHT, left_arm=HAND_ON_HIP, hips=(0.045, 0.006), head=(-0.04, 0.22, 0.06))
_CATWALK = Sequence(
    key(0.5, 1.9),
    key(0.6, 0.9, **_CATWALK_POSE),
    key(0.5, 0.1, head=(0.0, 0.5, 0.0), spine=(0.0, 0.15, 0.0), hips=(0.01, 0.006)),
    *_pivot(0.9, math.pi),
    key(0.4, 2.0, heading=(math.pi,)),
    *_pivot(0.9, 2 * math.pi),
    key(0.3, 0.0, heading=(2 * math.pi,)),
    turns=1,
    contact=True,
)
_CATWALK_STEPS = Faded(
    gait(1.1, stride=0.16, lift=0.06, sway=0.024, turn=0.16, inwards=0.04, arms=0.36),
    _CATWALK.period,
    ((-1.0, 1.8), (5.3, 7.1), (8.4, 9.5)),
)

_QUICK_ROUND = Sequence(
    key(0.35, 0.9),
    key(0.3, 0.0, pelvis=(0.0, -0.12), spine=(0.02, -0.2), head=(0.0, -0.1), hips=(0.0, 0.02)),
    *_pivot(0.8, math.pi / 2),
    key(0.25, 0.7, heading=(math.pi / 2,)),
    *_pivot(0.8, math.pi),
    key(0.25, 1.0, heading=(math.pi,)),
    key(0.3, 0.0, heading=(math.pi,), spine=(0.02, -0.15), hips=(0.0, 0.018)),
    *_pivot(0.9, 2 * math.pi, look=0.8),
    turns=1,
)

_ROUND_ARMS = reach((0.03, 0.66, 0.2), (1.0, -0.25, 0.0))
_OPEN_ARM = (0.25, 1.35, 0.25, 0.3)
_PASSE = (0.0, 0.2, 0.01, 0.85, 0.75)
_TIPTOE = (0.014, 0.0, 0.0, 0.2, 0.7)
_PIROUETTE = Sequence(
    key(0.9, 0.7),
    key(
        0.7,
        0.15,
        heading=(-0.25,),
        left_arm=_ROUND_ARMS,
        right_arm=_OPEN_ARM,
        hips=(0.02, 0.05, 0.01),
        spine=(0.02, -0.2),
        head=(0.0, 0.4),
        left_foot=(0.02, 0.0, 0.05, 0.45),
        right_foot=(0.02, 0.0, -0.1, 0.4, 0.25),
    ),
    key(
        0.35,
        0.0,
        heading=(0.7,),
        arms=_OPEN_ARM,
        hips=(0.045,),
        head=(0.0, -0.5),
        left_foot=_TIPTOE,
        right_foot=(0.02, 0.1, 0.0, 0.6, 0.75),
    ),
    key(
        1.0,
        0.0,
        heading=(2 * math.pi - 0.6,),
        arms=_ROUND_ARMS,
        hips=(0.052,),
        head=(-0.03, 0.55),
        left_foot=_TIPTOE,
        right_foot=_PASSE,
    ),
    key(
        0.5,
        0.0,
        heading=(2 * math.pi + 0.1,),
        arms=_OPEN_ARM,
        hips=(0.01, 0.045),
        spine=(0.03, 0.1),
        right_foot=(0.03, 0.0, -0.07, 0.4, 0.3),
        left_foot=(0.02, 0.0, 0.03, 0.4),
    ),
    key(0.6, 0.5, heading=(2 * math.pi,), arms=(0.3, 0.7, 0.4, 0.2)),
    turns=1,
)


def _side_steps() -> Sequence:
    """Two steps to the left and two back, each with a lifted foot and the other drawn after."""

    def steps(way: int, origin: float) -> list[Key]:
        lead, follow = ("left", "right") if way > 0 else ("right", "left")
        keys, place = [], origin

        def feet(lead_out: float, follow_out: float, lifted: str = "") -> dict:
            out = {lead: 0.014 + way * place + lead_out, follow: 0.014 - way * place + follow_out}
            return {
                f"{side}_foot": (out[side], 0.03, 0.0, 0.14, 0.18) if side == lifted else (out[side],)
                for side in (lead, follow)
            }

        for _ in range(2):
            keys += [
                key(0.24, hips=(place + way * 0.02, 0.012), spine=(0.02, 0.0, -way * 0.06), **feet(0.06, 0.0, lead)),
                key(
                    0.22,
                    0.02,
                    hips=(place + way * 0.06, 0.02),
                    spine=(0.03, 0.0, way * 0.04),
                    arms=(0.25, 0.55, 0.7, 0.1),
                    **feet(0.12, 0.0),
                ),
                key(0.24, hips=(place + way * 0.105, 0.01), spine=(0.02, 0.0, way * 0.05), **feet(0.12, -0.06, follow)),
            ]
            place += way * 0.12
            keys.append(key(0.22, 0.02, hips=(place, 0.016), spine=(0.03, 0.0, -way * 0.03), **feet(0.0, 0.0)))
        return keys

    return Sequence(*steps(1, -0.12), *steps(-1, 0.12))


GAITS = {
    "idle": (_IDLE,),
    "walk": (gait(1.18), _WANDER),
    "stroll": (
        gait(1.55, stride=0.115, lift=0.04, arms=0.26, elbow=0.1, sway=0.018, turn=0.09),
        _LOOK_ROUND,
        Sequence(key(1.2, 1.6), key(1.1, 1.4, head=(0.05, 0.45)), key(1.3, 0.8, head=(-0.05, -0.4))),
    ),
    "march": (
        gait(1.1, stride=0.06, lift=0.15, heel=0.5, arms=0.62, elbow=0.35, sway=0.016, turn=0.06, bounce=0.01),
        Sequence(key(2.5, 1.0), key(2.5, 1.0, heading=(0.6,)), key(3.0, 0.5, heading=(-0.4,))),
    ),
    "jog": (
        gait(
            0.74,
            stride=0.13,
            lift=0.13,
            heel=1.3,
            arms=0.55,
            elbow=1.35,
            sway=0.008,
            turn=0.14,
            bounce=0.035,
            bend=0.16,
            rise=0.018,
        ),
        Sequence(key(3.0, 1.0), key(3.0, 1.0, heading=(0.7,)), key(3.6, 0.5, heading=(-0.6,))),
    ),
    "catwalk": (_CATWALK, _CATWALK_STEPS),
    "turn": (Spin(4.5), gait(1.12, **_SMALL_STEPS)),
    "turn_quick": (_QUICK_ROUND,),
    "pirouette": (_PIROUETTE,),
    "side_step": (_side_steps(),),
}
