"""Clothes and hair of people made of triangles: which part of the mesh they cover, and how far they stand off."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache

import torch

from ..poses import JOINT_INDEX
from .dice import Dice
from .mesh import Body, load_mesh

Layer = IntEnum("Layer", "SKIN LEFT_EYE RIGHT_EYE LASHES TOP BOTTOM SHOES HAIR", start=0)  # kinds of drawn triangles
EYE_HEIGHT, EYE_DEPTH, CROWN = 0.9355, 0.07, 0.0645  # of the average body; CROWN: from the eyes to the top of the head
OVERLAP = 0.012  # how far skin continues below cloth, in body heights
HAIR_KINDS = {"none": 0.07, "short": 0.33, "bob": 0.15, "long": 0.2, "afro": 0.1, "bun": 0.15}


@dataclass(frozen=True)
class Surface:
    """Position of each vertex on the average body.

    place: (N, 3) in body heights. face: (N, 3) in units of CROWN, with 0 between the eyes. arm: (N,) 0 at the shoulder,
    1 at the elbow, 2 at the wrist, below 0 on the trunk. leg: (N,) 0 at the hip, 1 at the knee, 2 at the ankle, -1 on
    arms.
    """

    place: torch.Tensor
    face: torch.Tensor
    arm: torch.Tensor
    leg: torch.Tensor


@lru_cache(maxsize=1)
def load_surface() -> Surface:
    """Surface coordinates of the shared mesh."""
    mesh = load_mesh()
    body = Body.shaped({"caucasian-female-young": 0.5, "caucasian-male-young": 0.5})
    place, at = body.vertices, {name: body.joints[i] for name, i in JOINT_INDEX.items()}
    arm = torch.full((len(place),), -0.3)
    on_arm = torch.zeros(len(place))
    for side in ("left", "right"):
        shoulder, elbow, wrist = (at[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        upper, lower = elbow - shoulder, wrist - elbow
        along = (place - shoulder) @ upper / (upper @ upper)
        below = (place - elbow) @ lower / (lower @ lower)
        along = torch.where(along > 1, 1 + below.clamp_min(0), along)
        share = mesh.weights[:, [JOINT_INDEX[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist")]].sum(1)
        arm, on_arm = arm + share * (along + 0.3), on_arm + share
    hip, knee, ankle = (float(at[f"left_{name}"][1]) for name in ("hip", "knee", "ankle"))
    y = place[:, 1]
    leg = torch.where(y > knee, (hip - y) / (hip - knee), 1 + (knee - y) / (knee - ankle))
    face = (place - place.new_tensor([0, EYE_HEIGHT, EYE_DEPTH])) / CROWN
    return Surface(place, face, arm, torch.where(on_arm > 0.5, torch.full_like(leg, -1.0), leg))


@dataclass(frozen=True)
class Clothes:
    """Clothes and hair of one person. Lengths and heights are in body heights unless given on `Surface`.

    one_piece: top and skirt are one dress.
    sleeve: end of the sleeves on `Surface.arm`. low: height of the top's lower edge.
    neck: radius of the neckline; deep: how far it goes down in front.
    loose, loose_leg: how far the cloth of top and trousers stands off.
    waist: upper end of trousers and skirt. leg, hem: end of trousers and of a skirt on `Surface.leg`; hem 0 for no
    skirt.
    flare, folds: how much wider a skirt's hem is, and the number of its folds.
    shoe: height of shoes above the ankle on `Surface.leg`, 0 for bare feet; sole: its thickness.
    hair: one of HAIR_KINDS. hair_length: height of its lower end. hair_volume: 0 to 1. fringe: height of the hairline
    on `Surface.face`.
    """

    one_piece: bool
    sleeve: float
    low: float
    neck: float
    deep: float
    loose: float
    waist: float
    leg: float
    loose_leg: float
    hem: float
    flare: float
    folds: int
    shoe: float
    sole: float
    hair: str
    hair_length: float
    hair_volume: float
    fringe: float

    @classmethod
    def random(cls, dice: Dice, female: bool, child: bool) -> Clothes:
        """Draw clothes and hair that go together."""
        skirted = female and dice.chance(0.45)
        one_piece = skirted and dice.chance(0.6)
        kind = dice.pick(tee=0.42, long=0.34, tank=0.16 if female else 0.08, half=0.12)
        sleeve = {"tee": dice.uniform(0.3, 0.75), "long": dice.uniform(1.75, 1.95), "tank": 0.0, "half": 1.1}[kind]
        hair = dice.pick(
            **(HAIR_KINDS if female else {"none": 0.14, "short": 0.64, "afro": 0.1, "long": 0.06, "bun": 0.06})
        )
        if female and hair == "none" and dice.chance(0.8):
            hair = "bob"
        return cls(
            one_piece=one_piece,
            sleeve=sleeve,
            low=0.5 if one_piece else dice.uniform(0.5, 0.57),
            neck=dice.uniform(0.044, 0.058) if kind != "tank" else dice.uniform(0.072, 0.084),
            deep=dice.uniform(0.0, 0.025),
            loose=dice.uniform(0.003, 0.011),
            waist=dice.uniform(0.575, 0.6),
            leg=dice.choice((0.45, 0.8, 1.05)) if dice.chance(0.25 + 0.2 * child) else dice.uniform(1.8, 1.98),
            loose_leg=dice.uniform(0.002, 0.02),
            hem=dice.choice((0.5, 0.75, 0.95, 1.15, 1.55)) * dice.uniform(0.9, 1.1) if skirted else 0.0,
            flare=dice.uniform(0.0, 0.6),
            folds=dice.choice((0, 6, 9, 12)),
            shoe=0.0 if dice.chance(0.15) else dice.choice((0.12, 0.12, 0.2, 0.45)),
            sole=dice.uniform(0.004, 0.012),
            hair=hair,
            hair_length=dice.uniform(0.7, 0.83) if hair == "long" else dice.uniform(0.85, 0.875),
            hair_volume=dice.uniform(0.3, 1.0),
            fringe=dice.uniform(0.3, 0.6) if hair in ("bob", "long") else dice.uniform(0.55, 0.72),
        )


@dataclass(frozen=True)
class Layers:
    """All triangles drawn of a person, with M vertices.

    index: (M,) of the mesh's vertex. lift: (M,) how far it is moved along its normal, in body heights. faces: (F, 3) of
    the M vertices. keep: (F, 3) as in `mesh.rasterise`. layer: (F,) as in `Layer`.
    """

    index: torch.Tensor
    lift: torch.Tensor
    faces: torch.Tensor
    keep: torch.Tensor
    layer: torch.Tensor


def dressed(wear: Clothes, noise: torch.Tensor) -> Layers:
    """The layers of a person; noise: (N,) one value near 0 per vertex, which makes cloth and hair uneven."""
    mesh, surface = load_mesh(), load_surface()
    y, arm, leg, faces = surface.place[:, 1], surface.arm, surface.leg, mesh.faces
    zero = torch.zeros_like(y)
    neck = surface.place - surface.place.new_tensor([0.0, 0.868, 0.018])
    front = (neck[:, 2] / 0.05).clamp(-1, 1)
    from_neck = torch.linalg.norm(neck * neck.new_tensor([0.9, 0.8, 0.8]), dim=1) - wear.neck - wear.deep * front
    high = torch.where(arm > 0.2, torch.ones_like(y), y - wear.low)
    top = torch.minimum(torch.minimum((wear.sleeve - arm) * 0.17, high), torch.minimum(from_neck, 0.885 - y))
    off_arm = torch.where(arm > 0.02, -torch.ones_like(y), torch.ones_like(y))
    reach = wear.hem if wear.hem else wear.leg
    bottom = torch.minimum(torch.minimum((reach - leg) * 0.24, wear.waist - y), off_arm)
    shoes = torch.minimum((leg - 2 + wear.shoe) * 0.24, off_arm) if wear.shoe else zero - 1
    covered = torch.maximum(torch.maximum(top, bottom), shoes)
    hang = ((y - 0.5) / 0.15).clamp(0, 1)
    shoulders = torch.exp(-(((arm + 0.05) / 0.3) ** 2)) + (arm < -0.1) * (y > 0.78)
    top_lift = 0.005 + wear.loose * (0.4 + 0.6 * hang) * (1 - 0.7 * shoulders.clamp(0, 1)) + 0.0012 * noise
    if wear.hem:  # the top is tucked in
        top_lift = torch.lerp(zero + 0.002, top_lift, ((y - wear.waist) / 0.04).clamp(0, 1))
    leg_lift = 0.0035 + wear.loose_leg * (0.25 + 0.5 * leg.clamp(0, 2)) + 0.001 * noise
    # number, faces (F, 3), keep (N,), lift (N,)
    layers = [
        (Layer.SKIN, faces["body"], OVERLAP - covered, zero),
        (Layer.LEFT_EYE, faces["left_eye"], zero + 1, zero),
        (Layer.RIGHT_EYE, faces["right_eye"], zero + 1, zero),
        (Layer.LASHES, faces["lashes"], zero + 1, zero),
        (Layer.TOP, faces["tights"], top, top_lift),
        (Layer.SHOES, faces["tights"], shoes, 0.005 + wear.sole * ((0.02 - y) / 0.02).clamp(0, 1)),
    ]
    if wear.hem:
        number = Layer.TOP if wear.one_piece else Layer.BOTTOM
        layers.append((number, faces["skirt"], torch.minimum(bottom, wear.waist - y), zero + 0.006))
    else:
        layers.append((Layer.BOTTOM, faces["tights"], bottom, leg_lift))
    parts, start = [], 0
    for number, of, keep, lift in layers + _hair(wear, noise):
        of = of[keep[of].amax(1) > 0]  # drop triangles that are cut away completely
        index, local = of.unique(return_inverse=True)
        parts.append((index, lift[index], local + start, keep[of], torch.full((len(of),), number)))
        start += len(index)
    return Layers(*(torch.cat(column) for column in zip(*parts)))


def _hair(wear: Clothes, noise: torch.Tensor) -> list:
    """Layers of hair: a shell over the scalp, and for long hair the mesh that hangs down."""
    if wear.hair == "none":
        return []
    mesh, surface = load_mesh(), load_surface()
    scalp, (x, y, z) = scalp_field(surface.face, wear.fringe), surface.face.unbind(1)
    up = ((y + 0.6) / 1.4).clamp(0, 1)
    thick = {"short": 0.008, "bob": 0.009, "long": 0.008, "bun": 0.005, "afro": 0.035}[wear.hair]
    lift = thick * (0.5 + wear.hair_volume) * (0.35 + 0.65 * up) * (scalp * 3).clamp(0.15, 1) + 0.0015 * noise
    if wear.hair == "bun":
        lift = lift + 0.042 * torch.exp(-((x / 0.42) ** 2) - ((y - 0.55) / 0.45) ** 2) * (z < -1.2)
    layers = [(Layer.HAIR, mesh.faces["body"], scalp, lift.clamp_min(0.002))]
    if wear.hair in ("bob", "long"):
        length = (surface.place[:, 1] - wear.hair_length - 0.006 * noise) * 10
        crown = torch.where(y > wear.fringe, torch.ones_like(x), -0.42 - z)
        falling = 0.002 + 0.006 * (-0.8 - y).clamp(0, 1)
        layers.append((Layer.HAIR, mesh.faces["hair"], torch.minimum(length, crown), falling))
    return layers


def scalp_field(face: torch.Tensor, fringe: float) -> torch.Tensor:
    """Field (...,) that is above 0 where hair grows; face: (..., 3) as in `Surface`."""
    x, y, z = face.unbind(-1)
    corners = torch.exp(-(((x.abs() - 0.42) / 0.14) ** 2))
    above = y - fringe + 0.28 * (x / 0.5) ** 2 - 0.12 * corners + 0.9 * (-z - 0.6).clamp(0, 0.5)
    ear_back = torch.minimum(-1.12 - z, y + 0.62)  # behind the ears
    burns = torch.minimum(torch.minimum(-0.42 - z, y + 0.1), z + 1.3)  # in front of them
    grown = torch.maximum(above, torch.maximum(ear_back, burns))
    ear = (x.abs() > 0.67) & (y < 0.38) & (z > -1.35)
    return torch.where((y < -1.4) | ear, -torch.ones_like(y), grown)


def worn_body(body: Body, wear: Clothes) -> Body:
    """The body with the flare and folds of its skirt."""
    if not wear.hem:
        return body
    surface, vertices = load_surface(), body.vertices.clone()
    which = load_mesh().faces["skirt"].unique()
    x, _, z = surface.place[which].unbind(1)
    down = surface.leg[which].clamp(-0.3, 2) + 0.3
    folds = 0.035 * down * torch.sin(wear.folds * torch.atan2(x, z)) if wear.folds else torch.zeros_like(x)
    wide = 1 + (wear.flare * down * 0.6 / max(wear.hem, 0.5)).clamp(0, 0.8) + folds
    vertices[which] *= torch.stack([wide, torch.ones_like(wide), wide], 1)
    return replace(body, vertices=vertices)


@lru_cache(maxsize=1)
def draping_weights() -> torch.Tensor:
    """Skinning weights (N, J): a skirt follows the mean of both thighs, long hair follows head and back."""
    mesh, surface = load_mesh(), load_surface()
    weights = mesh.weights.clone()
    skirt, hair = mesh.faces["skirt"].unique(), mesh.faces["hair"].unique()
    down = (surface.leg[skirt] + 0.35).div(0.7).clamp(0, 1)
    left = 0.5 + 0.35 * torch.tanh(surface.place[skirt, 0] / 0.06)
    weights[skirt] = 0
    weights[skirt, JOINT_INDEX["root"]] = 1 - 0.85 * down
    weights[skirt, JOINT_INDEX["left_hip"]] = 0.85 * down * left
    weights[skirt, JOINT_INDEX["right_hip"]] = 0.85 * down * (1 - left)
    loose = ((0.88 - surface.place[hair, 1]) / 0.08).clamp(0, 1)
    weights[hair] = 0
    weights[hair, JOINT_INDEX["head"]] = 1 - 0.6 * loose
    weights[hair, JOINT_INDEX["spine"]] = 0.6 * loose
    return weights


def waves(places: torch.Tensor, frequency: float, seed: int, octaves: int = 4) -> torch.Tensor:
    """Smooth noise (...,) of about -1 to 1 at places (..., 3); frequency: waves per unit of length."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.zeros(places.shape[:-1])
    for octave in range(octaves):
        direction = torch.randn(3, generator=generator) * frequency * math.pi * 1.7**octave
        phase = float(torch.rand((), generator=generator)) * 2 * math.pi
        noise += torch.sin(places @ direction + phase) * 0.6**octave
    return noise / 1.6
