"""People made of triangles: a person from a seed, their joints, and pictures of them in any moments of a motion."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch.nn.functional import avg_pool2d, normalize

from ..body.cones import Posture, forward_kinematics
from ..poses.sequence import both
from .backdrop import backdrop
from .clothing import Clothes, Layer, Layers, Surface, draping_weights, dressed, load_surface, waves, worn_body
from .dice import Dice
from .looks import Looks, colours
from .mesh import Body, load_mesh, rasterise, vertex_normals
from .motion import Manner, motion, random_manner
from .staging import FLOOR, Camera, Light, Moments, View, behind

HELD_OUT = 10_000  # seeds below are for training; this one and those above are never trained on
_OPPOSITES = (
    ("jaw_narrow", "jaw_wide"),
    ("chin_short", "chin_long"),
    ("nose_narrow", "nose_wide"),
    ("nose_short", "nose_long"),
    ("nose_small", "nose_big"),
    ("nose_concave", "nose_convex"),
    ("mouth_narrow", "mouth_wide"),
    ("lips_thin", "lips_full"),
    ("smile_down", "smile_up"),
    ("eyes_small", "eyes_large"),
    ("eyes_in", "eyes_out"),
    ("brows_down", "brows_up"),
    ("brow_angle_down", "brow_angle_up"),
    ("cheeks_thin", "cheeks_full"),
    ("cheekbones_low", "cheekbones_high"),
    ("ears_small", "ears_large"),
)
_HEADS = ("oval", "round", "square", "rectangular", "triangular", "invertedtriangular", "diamond")
_SAMPLES = 2  # samples per pixel side
_FACE = 0.7  # largest amount of the targets in _OPPOSITES


@dataclass(frozen=True)
class Person:
    """A person made of triangles: a manner of moving, the camera and the light; body, clothes, looks."""

    seed: int
    manner: Manner
    camera: Camera
    light: Light
    body: Body
    wear: Clothes
    looks: Looks
    layers: Layers

    @classmethod
    def from_seed(cls, seed: int) -> Person:
        """The person with this seed, always the same."""
        dice = Dice.of(seed, 41)
        female, kind = dice.chance(0.5), dice.pick(child=0.14, adult=0.7, old=0.16)
        age = dice.uniform(*{"child": (8, 15), "adult": (16, 55), "old": (55, 80)}[kind])
        race = dice.choice(("caucasian", "african", "asian"))
        body = Body.shaped(targets(dice, race, female, age))
        wear = Clothes.random(dice, female, age < 14)
        looks = Looks.random(dice, seed, race, female, age)
        layers = dressed(wear, waves(load_surface().place, 9, seed, 5))
        actor = random_manner(dice), Camera.random(dice), Light.random(dice)
        return cls(seed, *actor, worn_body(body, wear), wear, looks, layers)

    def moments(self, name: str, times: torch.Tensor) -> Moments:
        """Moments of the named motion at `times` (T,), in seconds, ascending."""
        cycle = 2 * math.pi * (self.camera.rate * times + self.camera.phase)
        zoom = 1 + self.camera.breathe * torch.sin(cycle)
        pan = self.camera.sway * torch.stack([torch.sin(1.3 * cycle), 0.3 * torch.cos(cycle)], -1)
        return Moments(*motion(name, times, self.manner), zoom, pan)

    def staged(self, moments: Moments) -> tuple[Posture, View]:
        """Rotations and positions of the joints, and the camera's view.

        The lower sole is at the offset's y above the floor.
        """
        rest = self.body.rest.expand(len(moments), -1, -1)
        rotations, positions = forward_kinematics(rest, moments.angles, moments.offset)
        weights = load_mesh().weights
        feet = load_mesh().faces["body"].unique()
        feet = feet[weights[feet][:, both("ankle")].sum(1) > 0.6]
        part = replace(self.body, vertices=self.body.vertices[feet])
        lows = torch.stack([part.skinned(r, p, weights[feet])[:, 1].min() for r, p in zip(rotations, positions)])
        sole = self.wear.sole + 0.005 if self.wear.shoe else 0.0
        positions[..., 1] += (FLOOR + moments.offset[:, 1] - lows + sole)[:, None]
        return (rotations, positions), View.of(self.camera, min(self.body.height, 1.03), moments)


def targets(dice: Dice, race: str, female: bool, age: float) -> dict[str, float]:
    """Draw amounts of the mesh's targets for a body and a face; age in years."""
    sex = "female" if female else "male"
    if age < 25:
        young = max(0.0, (age - 11) / 14)
        ages = {"child": 1 - young, "young": young}
    else:
        old = min(1.0, (age - 25) / 62)
        ages = {"young": 1 - old, "old": old}
    other, blend = dice.choice(("caucasian", "african", "asian")), dice.uniform(0, 0.35)
    amounts: dict[str, float] = defaultdict(float)
    weight, muscle, tall = (math.tanh(dice.around(1, 2) - 1) for _ in range(3))
    for name, share in ages.items():
        amounts[f"{race}-{sex}-{name}"] += share * (1 - blend)
        amounts[f"{other}-{sex}-{name}"] += share * blend
        built = "child" if name == "child" else "young"
        amounts[f"{sex}-{built}-{'heavy' if weight > 0 else 'thin'}"] += (
            share * abs(weight) * (0.75 if weight > 0 else 0.6)
        )
        amounts[f"{sex}-{built}-{'muscular' if muscle > 0 else 'slack'}"] += share * abs(muscle) * 0.6
    grown = 1 - ages.get("child", 0.0)
    amounts[f"{sex}-{'max' if tall > 0 else 'min'}height"] = 0.25 * abs(tall) * grown
    amounts[f"{sex}-ideal"] = dice.uniform(0, 0.5) * grown
    for less, more in _OPPOSITES:
        amount = _FACE * dice.uniform(-1, 1)
        amounts[more if amount > 0 else less] = abs(amount) * (0.5 if more in ("smile_up", "eyes_large") else 1)
    head = dice.choice(_HEADS)
    amounts[f"head_{head}"] = dice.uniform(0, 0.6)
    amounts["head_age"] = 0.6 * ages.get("old", 0.0)
    amounts["head_fat"] = max(0.0, weight) * dice.uniform(0, 0.6)
    amounts["chin_prominent"] = dice.uniform(0, 0.5)
    if female:
        amount = dice.uniform(-1, 1) * grown
        amounts["bust_large" if amount > 0 else "bust_small"] = 0.7 * abs(amount)
    return amounts


def draw_people(
    person: Person, moments: Moments, size: tuple[int, int], room: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a person in T moments: rgb uint8 (T, H, W, 3) and the person's mask bool (T, H, W).

    size: (height, width). room: a backdrop instead of the person's own, of the same size, in [0, 1].
    """
    (rotations, positions), view = person.staged(moments)
    room = backdrop(Dice.of(person.seed, 43), size) if room is None else room
    background = behind(room, moments, positions, view, person.light, size)
    weights, rgb, masks = draping_weights(), [], []
    for i in range(len(moments)):
        vertices = person.body.skinned(rotations[i], positions[i], weights)
        colour, share = _drawn(person, vertices, float(view.scale[i]), view.centre[i].tolist(), size)
        rgb.append((colour + background[i] * (1 - share[..., None])).clamp(0, 1))
        masks.append(share >= 0.5)
    return (torch.stack(rgb) * 255).round().to(torch.uint8), torch.stack(masks)


def _drawn(person: Person, vertices: torch.Tensor, scale: float, centre: list[float], size: tuple[int, int]):
    """Draw the person in one moment; scale, centre: of its `View`.

    Returns the colour (H, W, 3), weighted by how much of each pixel the person covers, and that share (H, W).
    """
    mesh, surface, layers = load_mesh(), load_surface(), person.layers
    height, width = size[0] * _SAMPLES, size[1] * _SAMPLES
    normals = vertex_normals(vertices, torch.cat(list(mesh.faces.values())))
    places = vertices[layers.index] + normals[layers.index] * layers.lift[:, None]
    scale, (middle_x, middle_y) = scale * height, centre
    x, y = (places[:, 0] - middle_x) * scale + width / 2, height / 2 - (places[:, 1] - middle_y) * scale
    hits = rasterise(torch.stack([x, y, places[:, 2]], 1), layers.faces, (height, width), layers.keep)
    lips = torch.maximum(mesh.landmarks["upper_lip"], mesh.landmarks["lower_lip"])
    values = torch.cat(
        [surface.place, surface.face, surface.arm[:, None], surface.leg[:, None], lips[:, None], normals], 1
    )
    at = hits.at(layers.faces, torch.cat([values, _eye_places()], 1)[layers.index])
    layer = layers.layer[hits.face]
    here = Surface(at[:, :3], at[:, 3:6], at[:, 6], at[:, 7])
    colour = colours(person.looks, person.wear, layer, here, at[:, 8], at[:, 12:15])
    colour = colour * _light(person, layer, here, normalize(at[:, 9:12], dim=1), hits, (height, width))[:, None]
    colour = (colour * person.light.tint).clamp(0, 1)
    picture = torch.zeros(4, height * width)
    picture[:, hits.pixel] = torch.cat([colour, torch.ones(len(colour), 1)], 1).T
    small = avg_pool2d(picture.reshape(1, 4, height, width), _SAMPLES)[0]
    return small[:3].permute(1, 2, 0), small[3]


@lru_cache(maxsize=1)
def _eye_places() -> torch.Tensor:
    """Positions (N, 3) of the eyeballs' vertices from their middle, in radii; 0 elsewhere."""
    place, faces = load_surface().place, load_mesh().faces
    places = torch.zeros_like(place)
    for side in ("left_eye", "right_eye"):
        which = faces[side].unique()
        low, high = place[which].amin(0), place[which].amax(0)
        places[which] = (place[which] - (low + high) / 2) / ((high - low)[1] / 2)
    return places


def _light(person: Person, layer, at: Surface, normals, hits, size) -> torch.Tensor:
    """Brightness (P,): soft light, folds of cloth, and less light closely behind something nearer."""
    cloth = (layer == Layer.TOP) | (layer == Layer.BOTTOM)
    bumps = torch.zeros(len(layer))
    place = at.place[cloth]
    bumps[cloth] = waves(place * place.new_tensor([1.0, 0.45, 1.0]), 8, person.seed + 7) * person.looks.wrinkles
    facing = normals @ person.light.direction
    lit = (0.5 + 0.5 * facing) ** 1.3
    ambient = float(torch.tensor(person.light.ambient))  # as single precision has it
    level = ambient + (1.12 - ambient) * lit + 0.075 * bumps - 0.12 * (1 - normals[:, 2].clamp(0, 1)) ** 2
    level = torch.where((layer == Layer.LEFT_EYE) | (layer == Layer.RIGHT_EYE), 0.25 + 0.7 * level, level)
    depth = torch.full((size[0] * size[1],), -1.0)
    depth[hits.pixel] = hits.depth
    step = max(2, size[0] // 320)
    coarse = avg_pool2d(depth.reshape(1, 1, *size), step, ceil_mode=True)
    near = avg_pool2d(coarse, 7, 1, 3, count_include_pad=False)
    near = torch.nn.functional.interpolate(near, size, mode="bilinear").reshape(-1)[hits.pixel]
    shade = 1 - ((near - hits.depth) * 7).clamp(0, 0.35)
    soft = torch.where((layer == Layer.SKIN) | (layer == Layer.HAIR), 0.9, 1.0)
    return level * (1 - (1 - shade) * soft)
