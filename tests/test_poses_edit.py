"""Editing pose sequences: the order of things, rates, loops, and mirrors that are true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreampose_core.body.build import Build, Stances, drawn, turn_arms
from dreampose_core.body.cones import REST, forward_kinematics
from dreampose_core.errors import InputError
from dreampose_core.poses import PoseSequence
from dreampose_core.poses.clean import holes_filled, smoothed
from dreampose_core.poses.edit import edited, mirrored, source_frames
from dreampose_core.poses.sequence import JOINTS, OTHER_SIDE
from dreampose_core.settings import MAX_FRAMES, EditOptions
from dreampose_core.synthetic.motion import motion

proven = settings(deadline=None, derandomize=True, max_examples=60)


def counting(num_frames: int, fps=30.0) -> PoseSequence:
    """Frames whose U tells their number; frame numbers up to 255."""
    parts = np.ones((num_frames, 2, 3), np.uint8)
    uv = np.zeros((num_frames, 2, 2, 3), np.float16)
    uv[:, 0] = np.arange(num_frames)[:, None, None] / 256
    return PoseSequence(parts, uv, "body", fps)


def order(poses: PoseSequence) -> list[int]:
    return (poses.uv[:, 0, 0, 0].astype(float) * 256).round().astype(int).tolist()


@st.composite
def sequences(draw):
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parts = rng.integers(0, 25, shape).astype(np.uint8)
    kind = draw(st.sampled_from(["none", "densepose", "body"]))
    if kind == "none":
        return PoseSequence(parts, None, kind, 12.0)
    uv = rng.integers(1, 256, (shape[0], 2, *shape[1:])) / 256 * (parts > 0)[:, None]
    return PoseSequence(parts, uv.astype(np.float16), kind, 12.0)


@pytest.mark.parametrize(
    ("options", "frames", "fps"),
    [
        ({}, list(range(11)), 30),
        (dict(first_frame=2, last_frame=5), [2, 3, 4], 30),
        (dict(stride=4), [0, 4, 8], 30),
        (dict(speed=2), [0, 2, 4, 6, 8, 10], 30),
        (dict(speed=0.5, last_frame=3), [0, 0, 1, 1, 2, 2], 30),
        (dict(speed=0.25, last_frame=1), [0, 0, 0, 0], 30),
        (dict(speed=1.5, fps=15), [0, 3, 6, 9], 15),
        (dict(reverse=True, last_frame=3), [2, 1, 0], 30),
        (dict(loops=2, last_frame=3), [0, 1, 2, 0, 1, 2], 30),
        (dict(fps=10), [0, 3, 6, 9], 10),
        (dict(first_frame=1, stride=2, fps=15, reverse=True, loops=2), [5, 1, 5, 1], 15),
    ],
)
def test_the_edits_and_their_order(options, frames, fps):
    done = edited(counting(11), EditOptions(**options))
    assert order(done) == frames and done.fps == fps


def test_cleaning_comes_before_frames_are_left_out():
    parts = np.zeros((5, 20, 20), np.uint8)
    parts[:, 4:16, 4:16] = 3
    parts[2, 4:16, 4:16] = 0  # lost for one frame
    poses = PoseSequence(parts, None, "none")
    assert (edited(poses, EditOptions(smooth=True, stride=2)).parts == parts[0]).all()
    parts[:, 9, 9] = 0  # a hole of one pixel in 144
    wide = PoseSequence(parts.repeat(3, 1).repeat(3, 2), None, "none")
    for options, clean in ((EditOptions(fill_holes=True), holes_filled), (EditOptions(smooth=True), smoothed)):
        assert (edited(wide, options).parts == clean(wide).parts).all()


@proven
@given(st.integers(1, 60), st.floats(1, 120), st.floats(1, 120))
def test_another_rate_takes_the_nearest_frames_and_keeps_the_duration(num_frames, old, new):
    poses = counting(num_frames, old)
    if round(num_frames * new / old) > MAX_FRAMES:
        return
    done = edited(poses, EditOptions(fps=new))
    assert done.fps == new and order(done)[0] == 0
    assert abs(len(done) / new - num_frames / old) <= 0.5001 / new or len(done) == 1
    times = np.arange(num_frames) / old
    for index, number in enumerate(order(done)):
        assert abs(times[number] - index / new) <= np.abs(times - index / new).min() + 1e-6


@pytest.mark.parametrize(
    ("num_frames", "fps", "options", "words"),
    [
        (200, 30.0, dict(loops=7), f"at most {MAX_FRAMES} are accepted"),
        (200, 1.0, dict(fps=100), f"at most {MAX_FRAMES} are accepted"),
        (200, 30.0, dict(speed=0.25, loops=2), f"at most {MAX_FRAMES} are accepted"),
        (5, 30.0, dict(first_frame=3, last_frame=9), "are not inside the sequence"),
    ],
)
def test_what_is_refused(num_frames, fps, options, words):
    with pytest.raises(InputError, match=words):
        edited(counting(num_frames, fps), EditOptions(**options))


@proven
@given(sequences())
def test_a_mirror_swaps_sides_and_a_mirror_of_a_mirror_is_the_sequence(poses):
    before = None if poses.uv is None else poses.uv.copy(), poses.parts.copy()
    once = mirrored(poses)
    swap = np.array([0, 1, 2, *(p + 1 if p % 2 else p - 1 for p in range(3, 25))])
    assert (once.parts == swap[poses.parts[:, :, ::-1]]).all()
    twice = mirrored(once)
    assert (twice.parts == poses.parts).all() and twice.fps == poses.fps
    assert (twice.uv == poses.uv).all() if poses.charts == "body" else (twice.uv, twice.charts) == (None, "none")
    # what was given stays as it was
    assert (poses.parts == before[1]).all() and (poses.uv is None or (poses.uv == before[0]).all())


def test_only_u_and_v_cannot_be_mirrored():
    for charts in ("densepose", "body"):
        with pytest.raises(InputError, match="holds U, V only and cannot be mirrored"):
            mirrored(PoseSequence(None, np.full((1, 2, 4, 4), 0.5, np.float16), charts))


@pytest.mark.parametrize("name", ["walk", "turn", "dance"])
def test_the_mirror_is_that_of_a_mirrored_person(name):
    """A person built and moved as the mirror image of another has exactly the mirrored maps, U and V included."""
    build = replace(Build.average(), skirt=np.array([0.3, 0.14]))
    angles, offset = motion(name, torch.arange(3) / 3.0)
    rest = torch.tensor([REST[joint] for joint in JOINTS], dtype=torch.float32).expand(3, -1, -1)

    def maps(angles, offset):
        rotations, positions = forward_kinematics(rest, angles, offset)
        stances = Stances(rotations.numpy(), positions.numpy() - [0, 0.5, 0], np.full(3, 120.0))
        # one ray a pixel: of several the first one that hits counts, which has no mirror image
        parts, uv = drawn(stances, [build] * 3, (150, 120))
        turn_arms(parts, uv)
        return PoseSequence(parts, uv, "body", 20.0)

    turned = angles[:, OTHER_SIDE] * torch.tensor([1.0, -1.0, -1.0])
    found, truth = mirrored(maps(angles, offset)), maps(turned, offset * torch.tensor([-1.0, 1.0, 1.0]))
    same = found.parts == truth.parts
    assert same.mean() > 0.999 and (truth.parts > 0).mean() > 0.05
    off = np.abs(found.uv.astype(float) - truth.uv.astype(float)).max(axis=1)[same]
    assert (off < 0.01).mean() > 0.999  # float16, and a few pixels on edges
    assert len(np.unique(truth.parts)) > 15


@proven
@given(
    num=st.integers(2, 60),
    first=st.integers(0, 1),
    stride=st.integers(1, 3),
    speed=st.floats(0.25, 4),
    fps=st.sampled_from([None, 7, 30.0, 50]),
    mirror=st.booleans(),
    reverse=st.booleans(),
    loops=st.integers(1, 3),
)
def test_it_is_known_which_frame_is_which(num, first, stride, speed, fps, mirror, reverse, loops):
    how = dict(first_frame=first, stride=stride, speed=speed, fps=fps, reverse=reverse, loops=loops)
    given, options = counting(num), EditOptions(**how, mirror=mirror, smooth=True)
    changed = edited(given, EditOptions(**how))  # a mirrored U is another number
    assert source_frames(num, given.fps, options).tolist() == order(changed)
    assert len(edited(given, options)) == len(changed)
