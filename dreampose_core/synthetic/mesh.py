"""Bodies made of triangles: MakeHuman's base mesh, shaped by targets, posed by the joints of poses.JOINTS.

The triangles are drawn with a z-buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ..poses.sequence import JOINTS, PARENTS
from ..settings import PEOPLE

STEP = 1000  # the file's steps per decimetre
ADULT = 17.0  # height of an adult, in decimetres
# directions of the bones at rest, as in body.cones.rest_joints; x is mirrored for the right side
_HANGING = {
    "shoulder": ("elbow", (0.07, -1.0, 0.0)),
    "elbow": ("wrist", (0.03, -1.0, 0.05)),
    "wrist": (None, (0.02, -1.0, 0.08)),
    "hip": ("knee", (0.01, -1.0, 0.015)),
    "knee": ("ankle", (-0.005, -1.0, -0.03)),
}
_WINDOWS = (4, 8, 14, 24, 48, 120, 400)  # sides, in pixels, of the squares in which triangles are searched


@dataclass(frozen=True)
class Mesh:
    """The mesh that all people share.

    vertices: (N, 3) in decimetres. weights: (N, J). deltas: (N, 3) by the target's name. faces: (F, 3) by group.
    joints: for each joint the vertices whose mean it is. landmarks: (N,) 0..1 by name.
    """

    vertices: torch.Tensor
    weights: torch.Tensor
    deltas: dict[str, torch.Tensor]
    faces: dict[str, torch.Tensor]
    joints: dict[str, torch.Tensor]
    landmarks: dict[str, torch.Tensor]


@lru_cache(maxsize=1)
def load_mesh() -> Mesh:
    """Load the mesh from assets/synthetic/people.npz."""
    with np.load(PEOPLE) as file:
        columns = [file["joints"].tolist().index(name) for name in JOINTS]
        weights = torch.tensor(file["weights"][:, columns].astype(np.float32))
        deltas = torch.tensor(file["deltas"]).float() / STEP

        def named(start: str, kind: torch.dtype) -> dict[str, torch.Tensor]:
            return {key[len(start) :]: torch.tensor(file[key]).to(kind) for key in file.files if key.startswith(start)}

        return Mesh(
            torch.tensor(file["vertices"]).float() / STEP,
            weights / weights.sum(1, keepdim=True).clamp_min(1e-6),
            dict(zip(file["targets"].tolist(), deltas)),
            named("faces_", torch.long),
            named("joint_", torch.long),
            named("landmark_", torch.float32),
        )


@dataclass(frozen=True)
class Body:
    """One shaped body, in body heights, with the soles at 0.

    vertices: (N, 3) with the arms spread, as in the mesh. turns: (J, 3, 3) rotations that let the limbs hang. joints:
    (J, 3) of the spread body. rest: (J, 3) of the hanging one. height: in adult's heights.
    """

    vertices: torch.Tensor
    turns: torch.Tensor
    joints: torch.Tensor
    rest: torch.Tensor
    height: float

    @classmethod
    def shaped(cls, amounts: dict[str, float]) -> Body:
        """Shape a body by targets, each with its amount (1 is the whole target)."""
        mesh = load_mesh()
        vertices = mesh.vertices.clone()
        for name, amount in amounts.items():
            if amount:
                vertices += amount * mesh.deltas[name]
        skin = mesh.faces["body"].unique()
        low, high = float(vertices[skin, 1].min()), float(vertices[skin, 1].max())
        vertices = (vertices - vertices.new_tensor([0.0, low, 0.0])) / (high - low)
        at = {name: vertices[mesh.joints[name]].mean(0) for name in JOINTS}
        hips = 0.5 * (at["left_hip"] + at["right_hip"])
        depth = hips * hips.new_tensor([0.0, 0.0, 1.0])
        vertices, at = vertices - depth, {name: place - depth for name, place in at.items()}
        hips = hips - depth
        at["root"] = hips + hips.new_tensor([0.0, 0.015, 0.0])
        at["spine"] = at["spine"] * at["spine"].new_tensor([1.0, 1.0, 0.3])
        joints = torch.stack([at[name] for name in JOINTS])
        turns, rest = torch.eye(3).repeat(len(JOINTS), 1, 1), joints.clone()
        for i, name in enumerate(JOINTS):
            side, _, joint = name.partition("_")
            if i:
                parent = PARENTS[i]
                rest[i] = rest[parent] + turns[parent] @ (joints[i] - joints[parent])
            if joint in _HANGING:
                child, (x, y, z) = _HANGING[joint]
                towards = torch.tensor([x if side == "left" else -x, y, z])
                hand = vertices[skin[mesh.weights[skin, i] > 0.9]]
                turns[i] = shortest_turn((at[f"{side}_{child}"] if child else hand.mean(0)) - joints[i], towards)
        return cls(vertices, turns, joints, rest, (high - low) / ADULT)

    def skinned(self, rotations: torch.Tensor, positions: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Vertices (N, 3) in one moment; rotations: (J, 3, 3), positions: (J, 3), weights: (N, J)."""
        matrices = rotations @ self.turns
        shifts = positions - (matrices @ self.joints[..., None])[..., 0]
        blended = weights @ torch.cat([matrices.reshape(-1, 9), shifts], 1)
        return (blended[:, :9].reshape(-1, 3, 3) @ self.vertices[..., None])[..., 0] + blended[:, 9:]


def shortest_turn(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """The smallest rotation (3, 3) from one direction (3,) to another."""
    a, b = torch.nn.functional.normalize(start, dim=0), torch.nn.functional.normalize(end, dim=0)
    x, y, z = torch.linalg.cross(a, b).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return torch.eye(3) + cross + cross @ cross / (1 + float(a @ b))


def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Unit normals (N, 3); 0 for vertices without faces."""
    a, b, c = vertices[faces].unbind(1)
    across = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for corner in faces.unbind(1):
        normals.index_add_(0, corner, across)
    return torch.nn.functional.normalize(normals, dim=-1)


@dataclass(frozen=True)
class Hits:
    """The P pixels that show a triangle.

    pixel: (P,) row-major, ascending. face: (P,). shares: (P, 3) of the face's corners. depth: (P,).
    """

    pixel: torch.Tensor
    face: torch.Tensor
    shares: torch.Tensor
    depth: torch.Tensor

    def at(self, faces: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Interpolate values (N, C) of the vertices at the pixels: (P, C)."""
        return (values[faces[self.face]] * self.shares[..., None]).sum(1)


def rasterise(
    points: torch.Tensor, faces: torch.Tensor, size: tuple[int, int], keep: torch.Tensor | None = None
) -> Hits:
    """Find the triangle that each pixel of a picture shows, among those whose front is visible.

    points: (N, 3) column, row and depth; larger is nearer. size: (height, width). keep: (F, 3) a number at each corner;
    where its interpolation is not above 0, the triangle has a hole.
    """
    height, width = size
    corners = points[faces]
    a, b, c = corners[..., :2].unbind(1)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    low, high = corners[..., :2].amin(1), corners[..., :2].amax(1)
    limit = points.new_tensor([width, height])
    drawn = (area < -1e-6) & (high > 0).all(1) & (low < limit).all(1)
    if keep is not None:
        drawn &= keep.amax(1) > 0
    first = torch.ceil(low - 0.5)
    extent = (torch.floor(high - 0.5) - first + 1).amax(1)
    pieces, before = [], 0
    for window in _WINDOWS:
        chosen = (drawn & (extent <= window) & (extent > before)).nonzero()[:, 0]
        before = window
        # At most 2 million pixels at a time, to limit memory.
        for which in chosen.split(max(1, 2_000_000 // window**2)):
            pieces.append(_inside(corners, area, first, which, window, size, keep))
    pixel, face, shares, depth = (torch.cat(parts) for parts in zip(*pieces))
    nearest = torch.full((height * width,), -torch.inf).scatter_reduce_(0, pixel, depth, "amax")
    winners = (depth >= nearest[pixel]).nonzero()[:, 0]
    owner = torch.full((height * width,), -1)
    owner[pixel[winners]] = winners
    owner = owner[owner >= 0]
    return Hits(pixel[owner], face[owner], shares[owner], depth[owner])


def _inside(corners, area, first, which, window, size, keep) -> tuple[torch.Tensor, ...]:
    """Pixel, face, shares and depth of all pixels inside the triangles `which`, searched in a square window."""
    steps = torch.arange(window, dtype=torch.float32)
    a, b, c = (corners[which, i, :2] for i in range(3))
    origin, inverse = first[which] + 0.5, 1 / area[which]

    def share(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """(F, window, window): the third corner's share. It is linear, so one row and one column are enough."""
        dx, dy = (q - p)[:, :1] * inverse[:, None], (q - p)[:, 1:] * inverse[:, None]
        down = dx * (origin[:, 1:] + steps - p[:, 1:])
        across = dy * (origin[:, :1] + steps - p[:, :1])
        return down[:, :, None] - across[:, None, :]

    one, two = share(b, c), share(c, a)
    three = 1 - one - two
    inside = torch.minimum(torch.minimum(one, two), three) >= 0
    at, row, column = inside.nonzero(as_tuple=True)
    x, y = first[which[at], 0].long() + column, first[which[at], 1].long() + row
    shares = torch.stack([one[inside], two[inside], three[inside]], 1)
    face = which[at]
    good = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    if keep is not None:
        good &= (shares * keep[face]).sum(1) > 0
    x, y, face, shares = x[good], y[good], face[good], shares[good]
    return y * size[1] + x, face, shares, (shares * corners[face, :, 2]).sum(1)
