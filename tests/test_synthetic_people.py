"""People of triangles: everything from a seed, joints that are exact, bodies that stand on the floor.

pytest tests/test_synthetic_people.py
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dreampose_core.errors import InputError
from dreampose_core.poses import JOINTS
from dreampose_core.settings import PEOPLE
from dreampose_core.synthetic.backdrop import backdrop, backdrop_size
from dreampose_core.synthetic.clothing import HAIR_KINDS, Clothes, load_surface
from dreampose_core.synthetic.dice import Dice
from dreampose_core.synthetic.mesh import load_mesh, rasterise
from dreampose_core.synthetic.motion import Manner, motion
from dreampose_core.synthetic.people import Person, draw_people
from dreampose_core.synthetic.staging import FLOOR, Camera, Moments

SIZE = (160, 128)


def still(name: str = "idle", times=(0.0,), turned: float = 0.0) -> Moments:
    """The motion at its own places, before a camera that stands."""
    return Moments.still(*motion(name, torch.tensor(times), Manner())).turned(turned)


def test_a_seed_is_always_the_same_picture_and_another_seed_another():
    first, again, other = (draw_people(Person.from_seed(seed), still("walk"), SIZE) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("seed, size", [(8, (160, 128)), (0, (96, 160)), (2, (121, 67)), (7, (320, 256))])
def test_the_mask_lies_where_the_joints_are_and_the_lower_sole_on_the_floor(seed, size):
    person, moments = Person.from_seed(seed), still("walk", (0.2, 1.1))
    rgb, mask = draw_people(person, moments, size)
    assert rgb.shape == (2, *size, 3) and rgb.dtype == torch.uint8
    assert mask.shape == (2, *size) and mask.dtype == torch.bool
    (rotations, positions), view = person.staged(moments)
    for t in range(2):
        x, y = ((positions[t, :, :2] - view.centre[t]) * view.scale[t] * size[0]).unbind(1)
        columns, rows = x + size[1] / 2, size[0] / 2 - y
        seen = [
            bool(mask[t, int(row), int(column)])
            for row, column in zip(rows, columns)
            if 0 <= row < size[0] and 0 <= column < size[1]
        ]
        assert np.mean(seen) > 0.9, [name for name, ok in zip(JOINTS, seen) if not ok]
        lowest = float(person.body.skinned(rotations[t], positions[t], load_mesh().weights)[:, 1].min())
        assert abs(lowest - FLOOR) < 0.03
        row = int(mask[t].any(1).nonzero().max()) + 1
        floor = 0.5 - (FLOOR - float(view.centre[t, 1])) * float(view.scale[t])
        assert abs(row / size[0] - floor) < 0.015


def test_a_person_turned_round_shows_no_face():
    person, mesh, lips = Person.from_seed(5), load_mesh(), []
    for turned in (0.0, np.pi):
        (rotations, positions), _ = person.staged(still(turned=turned))
        vertices = person.body.skinned(rotations[0], positions[0], mesh.weights)
        points = vertices * torch.tensor([900.0, -900.0, 1.0]) + torch.tensor([480.0, 960.0, 0.0])
        hits = rasterise(points, mesh.faces["body"], (960, 960))
        lips.append((hits.at(mesh.faces["body"], mesh.landmarks["upper_lip"][:, None]) > 0.4).sum())
    assert lips[0] > 50 and lips[1] == 0


def test_the_nearer_triangle_is_seen_and_holes_are_not():
    points = torch.tensor([[1.0, 1, 0], [1, 15, 0], [15, 1, 0], [1, 1, 5], [1, 15, 5], [15, 1, 5]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert set(rasterise(points, faces, (16, 16)).face.tolist()) == {1}
    assert not len(rasterise(points, faces[:, [0, 2, 1]], (16, 16)).face)
    keep = torch.tensor([[1.0, 1, 1], [1, 1, -1]])
    assert set(rasterise(points, faces, (16, 16), keep).face.tolist()) == {0, 1}


def test_the_data_is_small_and_whole():
    assert PEOPLE.stat().st_size < 5_000_000 and (PEOPLE.parent / "LICENSE").exists()
    mesh = load_mesh()
    assert torch.allclose(mesh.weights.sum(1)[mesh.faces["body"]], torch.ones(()), atol=1e-3)
    assert load_surface().leg.isfinite().all()


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_one_sentence(seed):
    with pytest.raises(InputError, match=f"The seed is {seed}"):
        Person.from_seed(seed)


def test_the_camera_moves_person_and_room_together():
    person = Person.from_seed(3)
    moving = replace(person, camera=Camera(0.8, 0.0, sway=0.1, breathe=0.2, rate=0.25, phase=0.0))
    still = replace(person, camera=Camera(0.8, 0.0))
    times = torch.tensor([0.0, 1.0])  # at rest; and a quarter of a cycle later nearer, and moved
    (moved, person_moved), (fixed, person_fixed) = (
        draw_people(p, p.moments("idle", times), SIZE) for p in (moving, still)
    )
    heights = [[int(mask.any(1).sum()) for mask in masks] for masks in (person_moved, person_fixed)]
    assert abs(heights[0][0] - heights[1][0]) <= 2 and heights[0][1] > 1.1 * heights[1][1]
    empty = ~person_moved[1] & ~person_fixed[1]
    assert (moved[1].float() - fixed[1].float()).abs()[empty].mean() > 0.5
    assert torch.equal(fixed[0, :8], fixed[1, :8])


def test_a_room_is_drawn_larger_than_its_frame_and_seen_sharp():
    room = backdrop(Dice.of(3, 43), SIZE)
    assert room.shape == (*backdrop_size(SIZE), 3) == (200, 160, 3) and 0 <= room.min() and room.max() <= 1
    person = Person.from_seed(3)
    person = replace(person, camera=Camera(0.8, 0.0), light=replace(person.light, tint=torch.ones(3)))
    seen = draw_people(person, person.moments("idle", torch.tensor([0.0])), SIZE)[0][0, :10]
    assert (seen.float() / 255 - room[20:30, 16:-16]).abs().max() < 1 / 255  # a camera that stands resamples nothing


def test_people_differ_in_what_they_wear():
    dice = Dice(0)
    worn = [Clothes.random(dice, number % 2 == 0, False) for number in range(120)]
    assert {wear.hair for wear in worn} == set(HAIR_KINDS)
    assert 10 < sum(wear.hem > 0 for wear in worn) < 60 and 5 < sum(wear.one_piece for wear in worn) < 40
