"""Motions: whatever the manner and the moment, bodies stay whole, feet stand, hands stay outside, left mirrors
right."""

from __future__ import annotations

import math

import pytest
import torch

from dreampose_core.body.build import Build
from dreampose_core.body.cones import euler_matrices, forward_kinematics
from dreampose_core.poses import JOINT_INDEX, JOINTS
from dreampose_core.poses.sequence import SIDES, both
from dreampose_core.settings import MotionOptions
from dreampose_core.synthetic import HELD_OUT_MOTIONS, MOTIONS, Manner
from dreampose_core.synthetic import motion as module
from dreampose_core.synthetic.acting import _build
from dreampose_core.synthetic.dice import Dice
from dreampose_core.synthetic.motion import MADE_FOR, TRAINING_MOTIONS, motion, random_manner
from dreampose_core.synthetic.motion.posing import STAND, WHERE, assemble, pose_vector, reach, within_reach
from dreampose_core.synthetic.motion.timing import Sequence

TIMES = torch.arange(0, 20, 1 / 30)
MANNERS = (Manner(), Manner(1.25, 1.2, 0.37, -1), Manner(0.75, 0.8, 0.71, 1), Manner(1.25, 1.2, 0.9, 1))
WIDE = (Manner(0.25, 0.25), Manner(4, 1.5, 0.37, -1), Manner(1, 1.5), Manner(1.2, 1.8, 0.6))  # what people may ask for
AVERAGE = Build.average()


def column(angles, joint, axis):
    return angles[:, JOINT_INDEX[joint], axis]


def world(angles, offset, build=AVERAGE):
    """Rotations and positions of a body's joints."""
    rest = torch.tensor(build.rest(), dtype=torch.float32)
    return forward_kinematics(rest.expand(len(angles), -1, -1), angles, offset)


def balls(rotations, positions):
    """(T, 2, 3) where the balls of both feet are."""
    return positions[:, both("ankle")] + rotations[:, both("ankle")] @ torch.tensor([0.0, -0.044, 0.055])


@pytest.mark.parametrize("manner", MANNERS + WIDE)
@pytest.mark.parametrize("name", MOTIONS)
def test_joints_keep_their_limits(name, manner):
    angles, offset = motion(name, TIMES, manner)
    assert angles.shape == (len(TIMES), len(JOINTS), 3) and offset.shape == (len(TIMES), 3)
    assert angles.isfinite().all() and offset.isfinite().all()
    limits = {"knee": (0, 2.5), "elbow": (-2.6, 0), "hip": (-2.2, 0.6), "ankle": (-0.8, 1.2), "shoulder": (-3.1, 1.1)}
    for side in SIDES:
        for joint, (low, high) in limits.items():
            values = column(angles, f"{side}_{joint}", 0)
            assert low <= values.min() and values.max() <= high, (side, joint)
        twist = column(angles, f"{side}_elbow", 1) * (1 if side == "left" else -1)
        assert -1.8 < twist.min() and twist.max() < 2.5, side
        assert column(angles, f"{side}_knee", 1).abs().max() == 0 == column(angles, f"{side}_elbow", 2).abs().max()
    for joint, widest in (("spine", 1.0), ("head", 1.2)):
        assert angles[:, JOINT_INDEX[joint]].abs().max() < widest, joint
    assert offset[:, [0, 2]].abs().max() < 0.3
    assert 0 <= offset[:, 1].min() and offset[:, 1].max() < 0.14 * max(1.4, manner.size)


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("name", MOTIONS)
def test_nothing_jumps_from_frame_to_frame(name, manner):
    angles, offset = motion(name, TIMES, manner)
    rotations = euler_matrices(angles)
    between = rotations[1:] @ rotations[:-1].transpose(-1, -2)
    turned = ((between.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos()
    assert turned.max() < 0.75, JOINTS[int(turned.amax(0).argmax())]
    assert angles[:, 0].diff(dim=0).abs().max() < 0.75  # the root turns on and never back by a whole turn
    assert offset.diff(dim=0).abs().max() < 0.06  # a leap is quick


@pytest.mark.parametrize("built", [{}, {"height": "tall", "build": "heavy"}, {"height": "short", "build": "slim"}])
@pytest.mark.parametrize("name", MOTIONS)
def test_hands_do_not_pass_through_the_torso(name, built):
    build = _build(MotionOptions(**built), Dice(0))
    wide = build.offsets[JOINT_INDEX["left_shoulder"], 0] / 0.1
    for manner in MANNERS + WIDE:
        rotations, positions = world(*motion(name, TIMES[::2], manner), build)
        spine, root = JOINT_INDEX["spine"], JOINT_INDEX["root"]
        for side in SIDES:
            wrist = positions[:, JOINT_INDEX[f"{side}_wrist"]]
            for joint, low, high in ((spine, -0.04, 0.16), (root, -0.04, 0.03)):
                place = (rotations[:, joint].transpose(1, 2) @ (wrist - positions[:, joint])[..., None])[..., 0]
                beside = (place[:, 1] > low) & (place[:, 1] < high)
                # 1 is well inside the skin
                axis_distance = torch.hypot(place[:, 0] / (0.075 * wide), place[:, 2] / 0.055)
                assert (axis_distance[beside] > 1).all(), (side, JOINTS[joint])


@pytest.mark.parametrize("name", MOTIONS)
def test_sides_mirror_each_other_exactly(name):
    angles, offset = motion(name, TIMES[::10], Manner(1.1, 0.9, 0.3, 1))
    other, other_offset = motion(name, TIMES[::10], Manner(1.1, 0.9, 0.3, -1))
    for joint in JOINTS:
        twin = joint.replace("left", "x").replace("right", "left").replace("x", "right")
        for axis, sign in ((0, 1), (1, -1), (2, -1)):
            assert torch.equal(column(angles, joint, axis), sign * column(other, twin, axis)), joint
    assert torch.equal(offset * torch.tensor([-1, 1, 1]), other_offset)
    assert not torch.allclose(angles, other, atol=0.01)


def test_joints_are_stopped_only_beyond_what_motions_are_made_for(monkeypatch):
    """Models were trained on movements of natural size: they stay the same to the bit, and nothing jumps beyond."""
    for name in MOTIONS:
        for manner in MANNERS:
            angles = motion(name, TIMES, manner)[0]
            assert torch.allclose(within_reach(angles), angles, atol=0.02), name
    wild = torch.full((1, len(JOINTS), 3), 9.0)
    stopped = within_reach(torch.cat([wild, -wild]))
    assert column(stopped, "left_elbow", 0).tolist() == pytest.approx([-0.02, -2.5])
    assert column(stopped, "right_elbow", 1).tolist() == pytest.approx([1.7, -2.2])  # as far out as the left one
    assert torch.equal(stopped[:, 0, 1], torch.tensor([9.0, -9.0]))  # the figure turns as it likes
    monkeypatch.setattr(module, "within_reach", None)
    for name in MOTIONS:
        motion(name, TIMES[:9], Manner(size=MADE_FOR))
    with pytest.raises(TypeError):
        motion("wave", TIMES[:9], Manner(size=MADE_FOR + 0.1))


@pytest.mark.parametrize("name", MOTIONS)
def test_every_word_of_the_manner_matters(name):
    def way(manner: Manner, seconds: float = 12.0) -> float:
        """How far hands and head go in all, seen from the body, so that a turn of it does not count."""
        rotations, positions = world(*motion(name, torch.arange(0, seconds, 1 / 60), manner))
        ends = [*both("wrist"), JOINT_INDEX["head"], *both("ankle")]
        seen = (positions[:, ends] - positions[:, :1]) @ rotations[:, 0]
        return seen.diff(dim=0).norm(dim=-1).sum().item()

    sizes = [way(Manner(size=size)) for size in (0.25, 0.6, 1.0, 1.5)]
    assert sizes == sorted(sizes) and sizes[0] < 0.95 * sizes[2], sizes  # of a clap only the body's part becomes less
    speeds = [way(Manner(speed=speed)) for speed in (0.25, 1.0, 4.0)]
    assert 2 < speeds[1] / speeds[0] < 6 and 2 < speeds[2] / speeds[1] < 6, speeds
    later, plain = (motion(name, TIMES, Manner(phase=phase))[0] for phase in (0.4, 0))
    assert (later - plain).abs().max() > 0.05


@pytest.mark.parametrize("name", MOTIONS)
def test_motions_begin_towards_us_and_never_end(name):
    angles, _ = motion(name, TIMES, Manner())
    assert column(angles, "root", 1)[0].abs() < 0.6
    pieces = angles[:, 1:].unflatten(0, (4, -1))  # five seconds each
    assert (pieces.std(1).amax((1, 2)) > 0.05).all()
    together = motion(name, TIMES[100:200:7], Manner())[0]
    assert torch.allclose(together, angles[100:200:7], atol=1e-4)  # a pure function of time


@pytest.mark.parametrize("name", ["idle", "wave", "bow", "squat", "twist", "shrug", "swing", "boxing"])
def test_planted_feet_do_not_slide(name):
    """Of the average body, whose legs the poses are made for: feet that the table leaves on the floor stay where they
    are."""
    angles, offset = motion(name, TIMES, Manner())
    back = sum(layer(TIMES, 1.0) for layer in MOTIONS[name])[:, WHERE["heading"].start]  # who turns, as on a plate
    feet = balls(*world(angles, offset))
    x = back.cos()[:, None] * feet[..., 0] - back.sin()[:, None] * feet[..., 2]
    z = back.sin()[:, None] * feet[..., 0] + back.cos()[:, None] * feet[..., 2]
    for way in (x, z):
        speed = way.diff(dim=0).abs() * 30
        assert speed.amin(1).max() < 0.1  # of the foot that stands
    assert world(angles, offset)[1][:, JOINT_INDEX["head"], :].std(0).max() > 0.004  # while the body moves


def test_held_out_motions_are_never_drawn_in_training():
    assert len(MOTIONS) >= 25 and len(HELD_OUT_MOTIONS) == 6
    assert sorted(HELD_OUT_MOTIONS + TRAINING_MOTIONS) == sorted(MOTIONS)
    assert {"walk", "turn", "wave", "dance", "idle"} <= set(TRAINING_MOTIONS)
    assert list(MOTIONS).index("idle") == 0


def test_only_leaping_leaves_the_floor():
    heights = {name: motion(name, TIMES, Manner())[1][:, 1].max().item() for name in MOTIONS}
    assert heights["jump"] > 0.08 and 0.005 < heights["jog"] < 0.05
    assert all(height == 0 for name, height in heights.items() if name not in ("jump", "jog"))


def test_sequences_hold_ease_and_return():
    sequence = Sequence(["2 .5", "1 .5  spine .4"])  # stands 0.5 s, 1 s up, 0.5 s there, 2 s back
    assert sequence.period == 4.0
    lag = 0.03
    value = sequence(torch.tensor([0.2, 1.0, 1.7, 3.0, 4.2]) + lag, 1.0)[:, WHERE["spine"].start]
    assert value.tolist() == pytest.approx([0, 0.2, 0.4, 0.2, 0], abs=1e-5)
    quarter = 10 * 0.25**3 - 15 * 0.25**4 + 6 * 0.25**5
    larger = sequence(torch.tensor([0.75 + lag]), 1.5)[0, WHERE["spine"].start].item()
    assert larger == pytest.approx(0.4 * 1.5 * quarter, abs=1e-5)


@pytest.mark.parametrize(
    "wrist", [(0.13, 0.59, 0.02), (0.03, 0.75, 0.2), (0.088, 0.888, 0.045), (0.03, 1.06, 0.03), (0.2, 0.53, 0.04)]
)
def test_reaching_brings_the_wrist_there(wrist):
    angles, offset = assemble(pose_vector(f"arms {reach(wrist, (1.0, -0.3, -0.2))}, hips 0 0")[None])
    _, positions = world(angles, offset)
    left, right = (positions[0, JOINT_INDEX[f"{side}_wrist"]] for side in SIDES)
    wanted = torch.tensor(wrist)
    assert (left - wanted).norm() < 0.01 and (right * torch.tensor([-1, 1, 1]) - wanted).norm() < 0.01
    assert column(angles, "left_elbow", 0).item() < 0


def test_legs_follow_the_feet():
    angles, offset = assemble(pose_vector("left_foot .06 .12 .2 .5 .4, hips .03 .01 .02, pelvis .2 .1 .05")[None])
    rotations, positions = world(angles, offset)
    left, right = balls(rotations, positions)[0]
    rest = balls(*world(torch.zeros(1, len(JOINTS), 3), torch.zeros(1, 3)))[0]
    # the ball of the foot turns about the ankle with the foot
    turned = torch.tensor([0.055 * math.sin(0.5), 0.0, 0.055 * math.cos(0.5) - 0.055])
    moved = left - rest[0] - turned
    assert moved[[0, 2]].tolist() == pytest.approx([0.06, 0.2], abs=0.005)
    assert (left - right)[1].item() == pytest.approx(0.12, abs=0.005)
    for side, turns in (("left", (0.4, 0.5, 0.0)), ("right", (0.0, -0.14, 0.0))):
        foot = rotations[0, JOINT_INDEX[f"{side}_ankle"]]
        assert torch.allclose(foot, euler_matrices(torch.tensor(turns)), atol=1e-4)


def test_parts_of_both_sides_and_what_is_left_out():
    pose = pose_vector("feet .1 0, left_foot .2")
    assert pose[WHERE["left_foot"]].tolist() == pytest.approx([0.2, *STAND[WHERE["left_foot"]][1:].tolist()])
    assert pose[WHERE["right_foot"]].tolist() == pytest.approx([0.1, *STAND[WHERE["right_foot"]][1:].tolist()])


def test_manners_are_drawn_within_what_the_motions_are_made_for():
    dice = Dice(0)
    drawn = [random_manner(dice) for _ in range(300)]
    for name, (low, high) in dict(speed=(0.75, 1.25), size=(0.8, 1.2), phase=(0, 1)).items():
        values = [getattr(manner, name) for manner in drawn]
        assert low <= min(values) < low + 0.05 and high - 0.05 < max(values) <= high
    assert {manner.side for manner in drawn} == {-1, 1}
