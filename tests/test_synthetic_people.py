"""People of triangles: everything from a seed, joints that are exact, bodies that stand on the floor.

pytest tests/test_synthetic_people.py
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreampose_core.poses import JOINTS
from dreampose_core.settings import PEOPLE
from dreampose_core.synthetic.clothing import load_surface
from dreampose_core.synthetic.figure import FLOOR, Moments
from dreampose_core.synthetic.mesh import load_mesh, rasterise
from dreampose_core.synthetic.motion import Manner, motion
from dreampose_core.synthetic.people import Person, _staged, draw_people

SIZE = (160, 128)


def still(name: str = "idle", times=(0.0,), turned: float = 0.0) -> Moments:
    """The motion at its own places, before a camera that stands."""
    return Moments.still(*motion(name, torch.tensor(times), Manner())).turned(turned)


def test_a_seed_is_always_the_same_picture_and_another_seed_another():
    first, again, other = (draw_people(Person.from_seed(seed), still("walk"), SIZE) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("size", [(160, 128), (96, 160), (121, 67)])
def test_the_mask_lies_where_the_joints_are(size):
    person, moments = Person.from_seed(8), still("walk", (0.2, 1.1))
    rgb, mask = draw_people(person, moments, size)
    assert rgb.shape == (2, *size, 3) and rgb.dtype == torch.uint8
    assert mask.shape == (2, *size) and mask.dtype == torch.bool
    _, positions, view = _staged(person, moments)
    for t in range(2):
        x, y = ((positions[t, :, :2] - view.centre[t]) * view.scale[t] * size[0]).unbind(1)
        columns, rows = x + size[1] / 2, size[0] / 2 - y
        seen = [
            bool(mask[t, int(row), int(column)])
            for row, column in zip(rows, columns)
            if 0 <= row < size[0] and 0 <= column < size[1]
        ]
        assert np.mean(seen) > 0.9, [name for name, ok in zip(JOINTS, seen) if not ok]


def test_the_lower_sole_stands_on_the_floor():
    for seed in (0, 2, 7):
        person, moments = Person.from_seed(seed), still("walk", (0.0, 0.4))
        rotations, positions, view = _staged(person, moments)
        _, mask = draw_people(person, moments, (320, 256))
        for t in range(2):
            lowest = float(person.body.skinned(rotations[t], positions[t], load_mesh().weights)[:, 1].min())
            assert abs(lowest - FLOOR) < 0.03
            row = int(mask[t].any(1).nonzero().max()) + 1
            floor = 0.5 - (FLOOR - float(view.centre[t, 1])) * float(view.scale[t])
            assert abs(row / 320 - floor) < 0.015


def test_a_person_turned_round_shows_no_face():
    person = Person.from_seed(5)
    (front, back) = (_faces(person, turned) for turned in (0.0, np.pi))
    assert front > 50 and back == 0


def _faces(person: Person, turned: float) -> int:
    """How many pixels of a large picture show lips."""
    rotations, positions, _ = _staged(person, still(turned=turned))
    vertices = person.body.skinned(rotations[0], positions[0], load_mesh().weights)
    points = vertices * torch.tensor([900.0, -900.0, 1.0]) + torch.tensor([480.0, 960.0, 0.0])
    faces = load_mesh().faces["body"]
    lips = rasterise(points, faces, (960, 960)).at(faces, load_mesh().landmarks["upper_lip"][:, None])
    return int((lips > 0.4).sum())


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
